"""Geometry-informed kernels: cost as the grid is refined, and beside NumPyro's, BlackJAX's and CUQIpy's NUTS.

- grids: model evaluations (gradients; for PCN potentials) per effective sample on deblurring with 32 x 32 fixed data
  and a fixed physical prior, on grids of 32, 64, 128 and 256 squared. The effective sample size is the median of 17:
  16 block averages of the field and the misfit, the same quantities on every grid.
- deconvolution, elliptic: smallest effective sample size of a latent per 1,000 gradients (for DelayedAcceptance
  potentials of the model) and per CPU second, on 64 x 64 deconvolution of exp(field) and on models.elliptic. The first
  counts draws after warm-up; CPU seconds are all of it, compilation, warm-up, the search for directions and the
  training of a surrogate included; sampling alone is what a further draw takes. One thread for linear algebra.
- overhead: a draw of MALA over one value and gradient.
- symmetry: R-hat of all 64 log-coefficients of models.elliptic, and its posterior against its transpose.

The peers' interpreter is $PEERS_PYTHON (default .venv-peers/bin/python).

    python benchmarks/kernels.py [grids] [deconvolution] [elliptic] [symmetry] [overhead]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _kernels_problem import NOISE, SIZE, amplitudes, deconvolution_data, transfer
from _options import chosen_parts
from _record import keep, machine, measured, package
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy

import numpyro_inverse as ni
from models import elliptic as elliptic_problem
from numpyro_inverse.infer import (
    MALA,
    PCN,
    DelayedAcceptance,
    InfMALA,
    InformedMALA,
    InformedPCN,
    LowRankNUTS,
    emulate,
    fit_surrogate,
)
from numpyro_inverse.nn._training import TrainingSettings

numpyro.set_host_device_count(2)
HERE = Path(__file__).parent
GRIDS = (32, 64, 128, 256)
OBSERVED, WIDTH, GRID_NOISE = 32, 0.08, 2.0  # data a side; blur in lengths of the domain; noise


def block_average(x, count):
    """A square field on a coarser grid."""
    n = x.shape[0] // count
    return x.reshape(count, n, count, n).mean(axis=(1, 3))


def blurred_data(field):
    """What is observed of a field on any grid."""
    n = field.shape[0]
    blur = ni.operators.Convolution.gaussian(ni.domains.Grid((n, n)), WIDTH)
    return block_average(blur(field), OBSERVED)


def matern(n):
    """The prior on the unit square, range 0.2."""
    return ni.distributions.Matern(ni.domains.Grid((n, n)), range=0.2, scale=1.0, smoothness=1.0)


def grid_model(n, data):
    """White noise on an n x n grid; few numbers are kept."""
    prior = matern(n)

    def model():
        z = numpyro.sample("z", dist.Normal(0, 1).expand((n, n)).to_event(2))
        field = prior.from_base(z)
        mean = blurred_data(field)
        averages = block_average(field, 4).ravel()
        misfit = 0.5 * jnp.sum(((data - mean) / GRID_NOISE) ** 2)
        numpyro.deterministic("quantities", jnp.append(averages, misfit))
        numpyro.sample("data", dist.Normal(mean, GRID_NOISE).to_event(2), obs=data)

    return model


def ess(x):
    """Bulk effective sample size of each number in (chains, draws, numbers)."""
    parts = np.array_split(x, max(1, x.shape[-1] // 256), axis=-1)
    return np.concatenate([np.ravel(az.ess(az.from_dict({"posterior": {"x": part}}))["x"]) for part in parts])


def grids():
    """Evaluations per effective sample by kernel and grid."""
    key_truth, key_noise = jax.random.split(jax.random.key(4))
    truth = matern(GRIDS[-1]).sample(key_truth)
    data = blurred_data(truth) + GRID_NOISE * jax.random.normal(key_noise, (OBSERVED, OBSERVED))
    kernels = {
        "PCN": (PCN, 1000, 12000),
        "InfMALA": (InfMALA, 500, 6000),
        "InformedPCN": (InformedPCN, 1000, 12000),
        "InformedMALA": (InformedMALA, 300, 1500),
        "LowRankNUTS": (lambda model: LowRankNUTS(model, adapt_mass_matrix=False), 100, 500),
        "MALA": (lambda model: MALA(model, preconditioner=jnp.ones(model_size[0])), 1000, 6000),
    }
    model_size = [0]
    out = []
    for n in GRIDS:
        model_size[0] = n * n
        for name, (make, warmup, draws) in kernels.items():
            mcmc = MCMC(make(grid_model(n, data)), num_warmup=warmup, num_samples=draws, progress_bar=False)
            mcmc.run(jax.random.key(n), extra_fields=("num_grads", "accept_prob", "~z.z"))
            fields = jax.tree.map(np.asarray, mcmc.get_extra_fields())
            sizes = ess(np.asarray(mcmc.get_samples()["quantities"])[None])
            evaluations = max(int(fields["num_grads"].sum()), draws)
            values = {
                "evaluations per effective sample": float(evaluations / np.median(sizes)),
                "smallest ESS": float(sizes.min()),
                "acceptance": float(fields["accept_prob"].mean()),
                "evaluations per draw": evaluations / draws,
            }
            constants = mcmc.last_state.constants
            if name == "LowRankNUTS":
                values["eigenvalues above 1"] = int(np.sum(constants.directions.values > 1))
            print("grids", name, n, json.dumps(values), flush=True)
            out += measured(f"grid {n} x {n}", name, package("numpyro_inverse"), values)
    return out


def deconvolution_model(data=None):
    """Blur of exp(field), white cosine coefficients."""
    grid = ni.domains.Grid((SIZE, SIZE))
    z = numpyro.sample("z", dist.Normal(0, 1).expand((SIZE, SIZE)).to_event(2))
    intensity = jnp.exp(grid.inverse_transform(jnp.asarray(amplitudes(), jnp.float32) * z))
    mean = grid.inverse_transform(jnp.asarray(transfer(), jnp.float32) * grid.transform(intensity))
    numpyro.sample("data", dist.Normal(mean, NOISE).to_event(2), obs=data)


def row(title, version, draws, gradients, seconds, extra=None):
    """A row of the table; ``draws`` has shape (draws, numbers), ``version`` is the package's."""
    stuck = bool(np.any(draws.std(axis=0) == 0))  # the estimate would be the number of draws
    sizes = np.ones(draws.shape[1]) if stuck else ess(draws[None])
    found = {
        "title": title,
        "package": version,
        "stuck": stuck,
        "draws": len(draws),
        "smallest ESS": float(sizes.min()),
        "median ESS": float(np.median(sizes)),
        "gradients per draw": gradients / len(draws),
        "smallest ESS per 1,000 gradients": float(1e3 * sizes.min() / gradients),
        "median ESS per 1,000 gradients": float(1e3 * np.median(sizes) / gradients),
        "CPU time [s]": seconds,
        "smallest ESS per CPU second": float(sizes.min() / seconds),
        **(extra or {}),
    }
    alone = "CPU time per draw, sampling alone [s]"
    if alone in found:
        found["smallest ESS per CPU second, sampling alone"] = float(sizes.min() / len(draws) / found[alone])
    print(json.dumps(found), flush=True)
    return found


def ours(title, kernel, data, warmup, draws, start=None, init_params=None):
    """A NumPyro kernel, ours or NumPyro's own; ``start`` is when the work for it began."""
    start = time.process_time() if start is None else start
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=draws, progress_bar=False)
    count = "num_steps" if isinstance(kernel, NUTS) else "num_grads"
    mcmc.run(jax.random.key(1), data, init_params=init_params, extra_fields=(count, "accept_prob"))
    samples = np.concatenate([np.asarray(v).reshape(draws, -1) for v in mcmc.get_samples().values()], axis=1)
    seconds = time.process_time() - start
    gradients = max(int(np.sum(mcmc.get_extra_fields()[count])), draws)
    more = {
        "acceptance": float(mcmc.get_extra_fields()["accept_prob"].mean()),
        "CPU time per draw, sampling alone [s]": per_draw(kernel, mcmc.last_state, data, max(draws // 20, 50)),
    }
    version = package("numpyro" if type(kernel) is NUTS else "numpyro_inverse")
    return row(title, version, samples, gradients, seconds, more)


def per_draw(kernel, state, data, count):
    """CPU seconds of a further draw."""
    more = jax.jit(lambda s: jax.lax.fori_loop(0, count, lambda _, s: kernel.sample(s, (data,), {}), s))
    jax.block_until_ready(more(state))
    start = time.process_time()
    jax.block_until_ready(more(state))
    return (time.process_time() - start) / count


def with_surrogate(title, model, data, draws):
    """DelayedAcceptance on an emulator: a short run of NUTS, training on simulations at its draws, then the chain."""
    start = time.process_time()
    short = MCMC(NUTS(model), num_warmup=200, num_samples=300, progress_bar=False)
    short.run(jax.random.key(2), data)
    sites = short.get_samples()
    settings = TrainingSettings(max_epochs=250, learning_rate=8e-3, gradient_norm=100.0, patience=250)
    options = {"num_simulations": 12_000, "settings": settings, "progress_bar": False}
    fit = fit_surrogate(model, sites, model_args=(data,), rng_key=jax.random.key(0), **options)
    kernel = DelayedAcceptance(model, approximation=emulate(model, fit.surrogate))
    last = jax.tree.map(lambda v: v[-1], sites)
    found = ours(title, kernel, data, 500, draws, start, last)
    return found | {"spread of the log ratio": fit.log_ratio_sd, "simulations": fit.num_simulations}


def blackjax_nuts(model, data, site, first, warmup, draws):
    """BlackJAX's NUTS with its window adaptation."""
    start = time.process_time()

    def log_density(z):
        return -potential_energy(model, (data,), {}, {site: z})

    @jax.jit
    def run(key):
        key_warmup, key = jax.random.split(key)
        (state, found), _ = blackjax.window_adaptation(blackjax.nuts, log_density).run(key_warmup, first, warmup)
        step = blackjax.nuts(log_density, **found).step

        def one(state, key):
            state, info = step(key, state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(one, state, jax.random.split(key, draws))[1]

    positions, steps = jax.tree.map(np.asarray, run(jax.random.key(1)))
    seconds = time.process_time() - start
    return row("BlackJAX NUTS", package("blackjax"), positions.reshape(draws, -1), int(steps.sum()), seconds)


def cuqipy(problem, warmup, draws):
    """CUQIpy's NUTS, or a loud report that it is missing."""
    python = os.environ.get("PEERS_PYTHON", ".venv-peers/bin/python")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "draws.npz"
        command = [python, str(HERE / "_kernels_peers.py"), problem, str(output), str(warmup), str(draws)]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"PEER MISSING: CUQIpy, {problem}: {error}. Set PEERS_PYTHON.", file=sys.stderr)
            return None
        with np.load(output) as found:
            seconds = float(found["seconds"] + found["warmup_seconds"])
            return row("CUQIpy NUTS", str(found["package"]), found["draws"], int(found["gradients"]), seconds)


def records(case, rows):
    """Of the rows of a problem; a peer that is missing has none."""
    out = []
    for found in rows:
        if found is not None:
            values = {k: v for k, v in found.items() if k not in ("title", "package", "stuck")}
            stuck = "a number never moved: its effective sample size counts as 1" if found["stuck"] else ""
            out += measured(case, found["title"], found["package"], values, note=stuck)
    return out


def deconvolution():
    """64 x 64, blur of exp(field)."""
    data, model = jnp.asarray(deconvolution_data(), jnp.float32), deconvolution_model
    adapted = LowRankNUTS(model, rank=256, adapt_mass_matrix=False)
    rows = [
        ours("LowRankNUTS, rank 256, Laplace", adapted, data, 150, 3000),
        ours("InformedMALA, rank 256", InformedMALA(model, rank=256), data, 500, 4000),
        ours("NumPyro NUTS", NUTS(model), data, 200, 1000),
        blackjax_nuts(model, data, "z", jnp.zeros((SIZE, SIZE)), 200, 1000),
        cuqipy("deconvolution", 100, 100),
    ]
    return records("deconvolution", rows)


def elliptic():
    """The problem of Aristoff and Bangerth."""
    data, model = jnp.asarray(elliptic_problem.published()["z_hat"], jnp.float32), elliptic_problem.model
    rows = [
        ours("LowRankNUTS", LowRankNUTS(model), data, 400, 600),
        with_surrogate("DelayedAcceptance, surrogate", model, data, 250_000),
        ours("NumPyro NUTS", NUTS(model), data, 500, 2000),
        blackjax_nuts(model, data, "log_theta", jnp.full((8, 8), 4.0), 500, 2000),
        cuqipy("elliptic", 60, 60),
    ]
    return records("elliptic", rows)


def symmetry():
    """R-hat, and means and standard deviations against the transposed grid's, in Monte-Carlo standard errors."""
    data = jnp.asarray(elliptic_problem.published()["z_hat"], jnp.float32)
    mcmc = MCMC(
        LowRankNUTS(elliptic_problem.model),
        num_warmup=1000,
        num_samples=5000,
        num_chains=2,
        chain_method="parallel",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(3), data, extra_fields=("num_grads",))
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["log_theta"], float)
    tree = az.from_dict({"posterior": {"x": x}})
    upper = np.triu_indices(8, 1)
    difference = x - np.swapaxes(x, -1, -2)
    square = (x - x.mean(axis=(0, 1))) ** 2
    z = {}
    for name, values in (("mean", difference), ("variance", square - np.swapaxes(square, -1, -2))):
        pairs = values[:, :, *upper]
        error = pairs.std(axis=(0, 1)) / np.sqrt(ess(pairs))
        z[name] = pairs.mean(axis=(0, 1)) / error
    out = {
        "draws": x.shape[0] * x.shape[1],
        "gradients per draw": float(np.mean(mcmc.get_extra_fields()["num_grads"])),
        "largest R-hat": float(np.max(az.rhat(tree)["x"])),
        "smallest ESS": float(np.min(az.ess(tree)["x"])),
        "largest |z| of 28 differences of means to the transposed": float(np.abs(z["mean"]).max()),
        "largest |z| of 28 differences of variances": float(np.abs(z["variance"]).max()),
        "limit of each (one false alarm in 1000)": 4.2,
    }
    print(json.dumps(out), flush=True)
    return measured("elliptic, symmetry", "LowRankNUTS", package("numpyro_inverse"), out)


def overhead():
    """Wall time of a MALA draw over one value and gradient, the fastest of several runs of either."""
    data = jnp.asarray(elliptic_problem.published()["z_hat"], jnp.float32)
    grid = ni.domains.Grid((128, 128), extent=128)
    blur = ni.operators.Convolution.gaussian(grid, width=2.0)

    def deblurring(data=None):
        range_ = numpyro.sample("range", dist.LogNormal(jnp.log(15.0), 0.7))
        field = numpyro.sample("field", ni.distributions.Matern(grid, range=range_, scale=1.0, smoothness=1.0))
        numpyro.sample("data", dist.Normal(blur(field), 0.1).to_event(2), obs=data)

    out = []
    for name, model, y in (
        ("elliptic, 64", elliptic_problem.model, data),
        ("deblurring, 16,385", ni.whiten(deblurring), blur(grid.transform(jnp.ones(grid.shape)))),
    ):
        kernel = ni.infer.MALA(model, step_size=1e-4)
        state = kernel.init(jax.random.key(0), 0, None, (y,), {})
        value_and_grad = jax.value_and_grad(lambda z, model=model, y=y: potential_energy(model, (y,), {}, z))

        def gradients(z, value_and_grad=value_and_grad):
            return jax.lax.scan(
                lambda z, _: (jax.tree.map(lambda a, g: a - 1e-9 * g, z, value_and_grad(z)[1]), None), z, length=300
            )[0]

        def draws(state, kernel=kernel, y=y):
            return jax.lax.scan(lambda s, _: (kernel.sample(s, (y,), {}), None), state, length=300)[0]

        times = {}
        for what, function, start in (("gradient", jax.jit(gradients), state.z), ("draw", jax.jit(draws), state)):
            jax.block_until_ready(function(start))
            found = []
            for _ in range(7):
                begin = time.perf_counter()
                jax.block_until_ready(function(start))
                found.append(time.perf_counter() - begin)
            times[what] = min(found) / 300
        values = {"gradient [ms]": 1e3 * times["gradient"], "draw over gradient": times["draw"] / times["gradient"]}
        out += measured(f"overhead, {name}", "MALA", package("numpyro_inverse"), values)
        print(json.dumps(out[-2:]), flush=True)
    return out


if __name__ == "__main__":
    known = {f.__name__: f for f in (grids, deconvolution, elliptic, symmetry, overhead)}
    for name in chosen_parts(__doc__, known):
        keep("kernels", known[name](), machine(threads=1))
