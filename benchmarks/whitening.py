"""Whitened NUTS against plain NumPyro NUTS, and what the coordinates cost.

Four measurements, all with process CPU time, compilation included:

- cost: value and gradient of the whitened 256 x 256 deblurring density over one forward plus one adjoint convolution;
- fixed: CPU seconds to a minimum effective sample size of 400 on 64 x 64 deblurring with known hyperparameters,
  whitened and tuned, against NumPyro's NUTS on pixel white noise;
- unknown: a real photograph with unknown range, scale and noise, 128 x 128 and 256 x 256;
- centering: effective draws of the range per 1,000 gradients for white, centred and automatic coordinates, with weak,
  medium and strong data.

    python benchmarks/whitening.py [cost] [fixed] [unknown_128] [unknown_256] [centering]
"""

import json
import time

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy
from skimage.data import camera

import numpyro_inverse as ni
from benchmarks._options import chosen_parts
from benchmarks._record import keep, machine, measured, package

numpyro.set_host_device_count(2)
OURS = package("numpyro_inverse")


def deblurring(n):
    """Data and operator of the photograph problem, lengths in pixels."""
    truth = camera()[80 : 80 + n, 200 : 200 + n] / 255.0
    truth = jnp.asarray(truth - truth.mean(), jnp.float32)
    grid = ni.domains.Grid((n, n), extent=n)
    blur = ni.operators.Convolution.gaussian(grid, width=2.0)
    return grid, blur, blur(truth) + 0.01 * jax.random.normal(jax.random.key(0), (n, n))


def run(kernel, data, warmup, draws, chains=2, seed=1):
    """CPU seconds, samples by chain, and gradients after warm-up."""
    start = time.process_time()
    mcmc = MCMC(
        kernel, num_warmup=warmup, num_samples=draws, num_chains=chains, chain_method="parallel", progress_bar=False
    )
    mcmc.run(jax.random.key(seed), data, extra_fields=("num_steps", "diverging"))
    samples = jax.tree.map(np.asarray, mcmc.get_samples(group_by_chain=True))
    extra = jax.tree.map(np.asarray, mcmc.get_extra_fields())
    return time.process_time() - start, samples, extra


def ess(x, most=4096):
    """Bulk effective sample size of each number; of a regular subset of a large field."""
    flat = x.reshape(*x.shape[:2], -1)
    flat = flat[..., :: max(1, flat.shape[-1] // most)]
    return np.ravel(az.ess(az.from_dict({"posterior": {"x": flat}}))["x"])


def rhat(x, most=4096):
    """Rank-normalised R-hat, as :func:`ess`."""
    flat = x.reshape(*x.shape[:2], -1)
    flat = flat[..., :: max(1, flat.shape[-1] // most)]
    return np.ravel(az.rhat(az.from_dict({"posterior": {"x": flat}}))["x"])


def seconds(function, *arguments, repeats=200):
    """Wall seconds of a compiled call: the fastest of many, since other processes only ever add."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return float(np.min(times))


def cost():
    """One value and gradient over one forward plus one adjoint convolution, 256 x 256."""
    grid, blur, photo = deblurring(256)

    def model(data=None, hyper=None):
        if hyper is None:
            hyper = (
                numpyro.sample("range", dist.LogNormal(jnp.log(15.0), 0.7)),
                numpyro.sample("scale", dist.LogNormal(jnp.log(0.2), 0.5)),
            )
        field = numpyro.sample("field", ni.distributions.Matern(grid, range=hyper[0], scale=hyper[1], smoothness=1.0))
        numpyro.sample("data", dist.Normal(blur(field), 0.01).to_event(2), obs=data)

    white = ni.whiten(model)
    z = {"field_latent": jax.random.normal(jax.random.key(1), grid.shape)}
    unknown = z | {"range": jnp.array(2.7), "scale": jnp.array(-1.6)}
    pair = seconds(lambda x: blur.T(blur(x)), photo)
    fixed = seconds(jax.value_and_grad(lambda v: potential_energy(white, (photo, (15.0, 0.2)), {}, v)), z)
    sampled = seconds(jax.value_and_grad(lambda v: potential_energy(white, (photo,), {}, v)), unknown)
    values = {
        "forward plus adjoint convolution [ms]": 1e3 * pair,
        "value and gradient, known hyperparameters [ms]": 1e3 * fixed,
        "value and gradient, unknown hyperparameters [ms]": 1e3 * sampled,
        "ratio, known hyperparameters": fixed / pair,
        "ratio, unknown hyperparameters": sampled / pair,
    }
    return measured("cost, 256 x 256", "whiten", OURS, values)


def fixed():
    """CPU seconds to min-ESS 400, 64 x 64, known hyperparameters."""
    grid, blur, photo = deblurring(64)
    prior = ni.distributions.Matern(grid, range=18.0, scale=0.17, smoothness=1.0)

    def model(data=None):
        field = numpyro.sample("field", prior)
        numpyro.sample("data", dist.Normal(blur(field), 0.01).to_event(2), obs=data)

    def plain(data=None):  # what a NumPyro user writes: white noise in pixels, filtered to the prior's covariance
        noise = numpyro.sample("noise", dist.Normal(0, 1).expand(grid.shape).to_event(2))
        field = numpyro.deterministic("field", prior.from_base(grid.transform(noise)))
        numpyro.sample("data", dist.Normal(blur(field), 0.01).to_event(2), obs=data)

    start = time.process_time()
    coordinates = ni.fit_coordinates(model, photo)
    whitened, settings = ni.whiten(model, coordinates), coordinates.nuts_settings()
    tuning = time.process_time() - start
    out = []
    for name, version, kernel, warmup, draws, extra_cost in (
        ("NUTS, whitened", OURS, NUTS(whitened, **settings), 50, 300, tuning),
        ("NUTS, white noise by hand", package("numpyro"), NUTS(plain), 300, 300, 0.0),
    ):
        total, samples, extra = run(kernel, photo, warmup, draws)
        total += extra_cost
        smallest = float(ess(samples["field"]).min())
        values = {
            "CPU time [s]": total,
            "steps per draw": float(extra["num_steps"].mean()),
            "smallest ESS": smallest,
            "median ESS": float(np.median(ess(samples["field"]))),
            "smallest ESS per CPU second": smallest / total,
            "CPU time to a smallest ESS of 400 [s]": total * 400 / smallest,
        }
        out += measured("known hyperparameters, 64 x 64", name, version, values)
    return out


def unknown(n, draws):
    """The photograph with unknown range, scale and noise."""
    start = time.process_time()
    grid, blur, photo = deblurring(n)

    def model(data=None):
        range_ = numpyro.sample("range", dist.LogNormal(jnp.log(15.0), 0.7))
        scale = numpyro.sample("scale", dist.LogNormal(jnp.log(0.2), 0.5))
        noise = numpyro.sample("noise", dist.LogNormal(jnp.log(0.02), 1.0))
        field = numpyro.sample("field", ni.distributions.Matern(grid, range=range_, scale=scale, smoothness=1.0))
        numpyro.sample("data", dist.Normal(blur(field), noise).to_event(2), obs=data)

    coordinates = ni.fit_coordinates(model, photo)
    kernel = NUTS(ni.whiten(model, coordinates), **coordinates.nuts_settings())
    _, samples, extra = run(kernel, photo, 50, draws)
    total = time.process_time() - start
    names = ("range", "scale", "noise", "field")
    values = {
        "CPU time [s]": total,
        "draws": 2 * draws,
        "steps per draw": float(extra["num_steps"].mean()),
        "divergences": int(extra["diverging"].sum()),
        **{f"smallest ESS, {name}": float(ess(samples[name]).min()) for name in names},
        **{f"largest R-hat, {name}": float(rhat(samples[name]).max()) for name in names},
        **{f"posterior mean, {name}": float(samples[name].mean()) for name in names[:3]},
    }
    return measured(f"unknown hyperparameters, {n} x {n}", "NUTS, whitened", OURS, values)


def unknown_128():
    """The photograph, 128 x 128."""
    return unknown(128, 400)


def unknown_256():
    """The photograph, 256 x 256."""
    return unknown(256, 450)


def centering():
    """Effective draws of the range per 1,000 gradients: white, centred, automatic."""
    grid = ni.domains.Grid((32, 32))
    out = []
    for name, count, noise in (("weak", 100, 0.5), ("medium", 300, 0.1), ("strong", 1024, 0.1)):
        rates: dict[str, list[float]] = {"white": [], "centred": [], "automatic": []}
        for seed in range(2):
            key_points, key_field, key_noise = jax.random.split(jax.random.key(seed), 3)
            observe = grid.interpolation(np.asarray(jax.random.uniform(key_points, (count, 2))))
            truth = ni.distributions.Matern(grid, range=0.3, scale=1.0, smoothness=1.0).sample(key_field)
            values = observe(truth) + noise * jax.random.normal(key_noise, (count,))

            def model(data=None, observe=observe, noise=noise):
                range_ = numpyro.sample("range", dist.LogNormal(jnp.log(0.3), 0.7))
                scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.7))
                prior = ni.distributions.Matern(grid, range=range_, scale=scale, smoothness=1.0)
                field = numpyro.sample("field", prior)
                numpyro.sample("data", dist.Normal(observe(field), noise).to_event(1), obs=data)

            tuned = ni.fit_coordinates(model, values)
            kernels = {
                "white": NUTS(ni.whiten(model, 0.0)),
                "centred": NUTS(ni.whiten(model, 1.0)),
                "automatic": NUTS(ni.whiten(model, tuned), **tuned.nuts_settings()),
            }
            for kind, kernel in kernels.items():
                _, samples, extra = run(kernel, values, 300, 300, seed=seed)
                rates[kind].append(1e3 * float(ess(samples["range"])[0]) / float(extra["num_steps"].sum()))
        for kind, found in rates.items():
            both = ", ".join(f"{rate:.3g}" for rate in found)
            rate = {"ESS of the range per 1,000 gradients": float(np.exp(np.mean(np.log(found))))}
            out += measured(
                f"centering, {name} data", kind, OURS, rate, note=f"geometric mean of two data sets: {both}"
            )
    return out


def main():
    """Run what is asked for (default: all), print and store it."""
    known = {f.__name__: f for f in (cost, fixed, unknown_128, unknown_256, centering)}
    for name in chosen_parts(__doc__, known):
        found = known[name]()
        print(name, json.dumps(found, indent=1), flush=True)
        keep("whitening", found, machine())


if __name__ == "__main__":
    main()
