"""The referee of models.levy: samplers under the exact denoiser beside the exact posterior, six laws, four operators.

- coverage: of the central 90 % intervals, over all samples of all signals, in percent; "exact" is that of the reference
  posterior for the same signals, which differs from 90 by the sampling error of a few dozen signals;
- gap: mean squared error of the sampler's mean over that of the reference posterior's mean, in dB, errors summed over
  the signals in units of each signal's noise;
- weighted: coverage and gap with the weights that make split Gibbs exact, and their effective share of the draws
  (median);
- exchange: acceptance between the rungs of the ladder, where there is one.

The prior is known exactly to all of them: what differs is the sampler. With --dps, diffusion posterior sampling
instead, for the Gaussian law alone: it needs a denoiser that is right far above the signal's scale, which
IncrementsDenoiser is not.

    python benchmarks/levy.py [--signals 6] [--chains 4] [--draws 600] [--laws LAW ...] [--operators OPERATOR ...]
"""

import argparse
import json
import os
import time
from functools import partial

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._record import keep, machine, measured, missing, package
from models import levy
from numpyro_inverse.denoisers import GaussianDenoiser
from numpyro_inverse.infer import SplitGibbs, dps

OURS = package("numpyro_inverse")
COUPLINGS = {  # of the noise; what the data do not determine is explored by the upper rungs
    "identity": 0.5 * np.ones(1),
    "deconvolution": 2.2 ** np.arange(4),
    "imputation": 0.5 * 1.7 ** np.arange(6),
    "fourier": 0.5 * 1.7 ** np.arange(5),
}
WARMUP = 200
DPS_WEIGHT = 0.005  # with the likelihood's own weight, 1, it diverges with 5,000 steps


def reference(keys, data, noise, law, operator, draws, chains):
    """Reference draws, shape (signals, draws, 64), float64."""
    with jax.enable_x64(True):

        @jax.jit
        def run(keys, data, noise):
            one = partial(levy.posterior_draws, law=law, operator=operator, num_warmup=500, num_samples=draws)
            return jax.lax.map(lambda a: jax.lax.map(lambda k: one(k, a[1], noise=a[2]), a[0]), (keys, data, noise))

        found = run(
            jax.vmap(lambda k: jax.random.split(k, chains))(keys),
            jnp.asarray(np.asarray(data, float)),
            jnp.asarray(np.asarray(noise, float)),
        )
        return np.asarray(found).reshape(len(keys), -1, levy.LENGTH)


def split_gibbs(keys, data, noise, law, operator, draws, chains, ladder):
    """Draws of z, (signals, draws, 64), their log weights, the exchanges' acceptance, CPU seconds of the sampling."""

    def one(key, data, noise):
        model = partial(levy.likelihood, operator=operator)
        coupling = noise * jnp.asarray(ladder, noise.dtype)
        kernel = SplitGibbs(model, levy.denoiser(law), coupling=coupling)
        call = (data,), {"noise": noise}
        state = kernel.init(jax.random.split(key, chains), WARMUP, None, *call)
        state = jax.lax.fori_loop(0, WARMUP, lambda _, s: kernel.sample(s, *call), state)

        def step(state, _):
            state = kernel.sample(state, *call)
            return state, (state.z["signal"], state.accept_prob)

        _, (z, accept) = jax.lax.scan(step, state, length=draws)
        z = z.reshape(-1, levy.LENGTH)
        return z, kernel.log_weights({"signal": z}, data, noise=noise), jnp.mean(accept)

    run = jax.jit(lambda *arrays: jax.lax.map(lambda a: one(*a), arrays)).lower(keys, data, noise).compile()
    start = time.process_time()
    found = jax.block_until_ready(run(keys, data, noise))
    return *map(np.asarray, found), time.process_time() - start


def diffusion(keys, data, noise, operator, draws, steps=5000):
    """Draws of diffusion posterior sampling under the Gaussian law, (signals, draws, 64); none where it diverges."""
    root = np.tril(np.ones((levy.LENGTH, levy.LENGTH)))
    denoiser = GaussianDenoiser(np.zeros(levy.LENGTH), 0.25 * root @ root.T)
    found = []
    for key, y, tau in zip(keys, data, noise, strict=True):
        call = {"model_args": (y,), "model_kwargs": {"noise": tau}, "num_steps": steps, "weight": DPS_WEIGHT}
        model = partial(levy.likelihood, operator=operator)
        drawn = dps(model, denoiser, rng_key=key, num_samples=draws, sigma_max=100.0, sigma_min=tau / 100, **call)
        found.append(np.asarray(drawn["signal"])[0])
    return np.stack(found)


def weighted_quantiles(draws, weights, levels):
    """Quantiles by coordinate of weighted draws."""
    order = np.argsort(draws, axis=0)
    cumulative = np.cumsum(weights[order], axis=0)
    places = [np.argmax(cumulative >= level, axis=0) for level in levels]
    return [np.take_along_axis(np.take_along_axis(draws, order, 0), place[None], 0)[0] for place in places]


def covered(truth, draws, weights=None):
    """Share of samples inside the central 90 % intervals."""
    even = np.full(draws.shape[:2], 1 / draws.shape[1]) if weights is None else weights
    inside = []
    for signal, chain, weight in zip(truth, draws, even, strict=True):
        low, high = weighted_quantiles(chain, weight, (0.05, 0.95))
        inside.append((signal >= low - 1e-6) & (signal <= high + 1e-6))  # an interval may be the one point 0
    return 100 * np.mean(inside)


def gap(truth, mean, best, noise):
    """Mean squared error over the best one, in dB."""
    errors = [np.sum(((m - truth) / noise[:, None]) ** 2) for m in (mean, best)]
    return 10 * np.log10(errors[0] / errors[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--signals", type=int, default=6)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=600)
    parser.add_argument("--laws", nargs="*", default=levy.LAWS)
    parser.add_argument("--operators", nargs="*", default=levy.OPERATORS)
    parser.add_argument("--dps", action="store_true")
    options = parser.parse_args()
    for operator in options.operators:
        for law in ["gauss"] if options.dps else options.laws:
            found = cell_of_dps(operator, options) if options.dps else cell(law, operator, options)
            print(json.dumps(found, indent=1), flush=True)
            keep("levy", found, machine(threads=1))


def cell_of_dps(operator, options):
    """Records of diffusion posterior sampling under the Gaussian law."""
    case = f"{operator}, gauss"
    keys = jax.random.split(jax.random.key(7), options.signals)
    truth, data, noise = jax.jit(jax.vmap(partial(levy.simulate, law="gauss", operator=operator)))(keys)
    exact = [levy.exact_posterior(y, operator=operator, noise=tau).mean for y, tau in zip(data, noise, strict=True)]
    try:
        drawn = diffusion(keys, data, noise, operator, options.draws)
    except RuntimeError as error:
        return missing(case, "DPS", OURS, error)
    truth, noise = np.asarray(truth, float), np.asarray(noise, float)
    values = {"coverage [%]": covered(truth, drawn), "gap [dB]": gap(truth, drawn.mean(1), np.stack(exact), noise)}
    return measured(case, "DPS", OURS, values, note=f"{options.signals} signals, {options.draws} draws")


def cell(law, operator, options):
    """Records of the exact posterior and of split Gibbs."""
    case, note = f"{operator}, {law}", f"{options.signals} signals, {options.chains} chains of {options.draws} draws"
    keys = jax.random.split(jax.random.key(7), options.signals)
    truth, data, noise = jax.jit(jax.vmap(partial(levy.simulate, law=law, operator=operator)))(keys)
    exact = reference(keys, data, noise, law, operator, options.draws, options.chains)
    ladder = COUPLINGS[operator]
    z, log_weights, accept, seconds = split_gibbs(
        keys, data, noise, law, operator, options.draws, options.chains, ladder
    )
    weights = np.exp(log_weights.astype(float))
    weights /= weights.sum(axis=1, keepdims=True)
    share = np.median(1 / np.sum(weights**2, axis=1)) / z.shape[1]
    truth, noise = np.asarray(truth, float), np.asarray(noise, float)
    means = z.mean(1), np.einsum("sd,sdn->sn", weights, z)
    plain, better = (gap(truth, mean, exact.mean(1), noise) for mean in means)
    swaps = {"exchanges accepted": float(accept.mean())} if len(ladder) > 1 else {}
    rows = {
        "exact posterior": {"coverage [%]": covered(truth, exact)},
        "split Gibbs": {"coverage [%]": covered(truth, z), "gap [dB]": plain, "CPU time [s]": seconds, **swaps},
        "split Gibbs, weighted": {
            "coverage [%]": covered(truth, z, weights),
            "gap [dB]": better,
            "effective share of draws": share,
        },
    }
    return [record for method, values in rows.items() for record in measured(case, method, OURS, values, note=note)]


if __name__ == "__main__":
    main()
