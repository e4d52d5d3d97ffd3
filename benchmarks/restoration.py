"""Photographs under the prior of a denoiser: quality, cost and coverage.

- solvers: PnP-ADMM on the 9 x 9 blur of models.restoration, for the denoisers that ship.
- cost: CPU time of a draw of PnPULA over that of its gradient, one value and gradient of the model and one denoising;
  and of a draw with the denoiser 0.98 x.
- iteration: CPU time of an iteration of PnP-ADMM with the denoiser 0.98 x, and with a network, beside a call of that
  network.
- peers: scico and deepinv beside them, and the PSNR of scico's PnP-ADMM with the networks that it ships, and of
  deepinv's with total variation, for the weights of its networks are downloads.
- coverage: 90 % intervals of the gradient-step posterior on 20 crops of 32 x 32 pixels of three photographs that are
  held out, blurred over 5 x 5 pixels, with noise 0.03, by NUTS; and how far the posterior mean is from the truth.

    python benchmarks/restoration.py [solvers] [cost] [iteration] [peers] [coverage]
"""

import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from skimage import color, data

from benchmarks._options import chosen_parts
from benchmarks._peers import rows_of
from benchmarks._record import keep, machine, measured, package
from benchmarks._timing import milliseconds
from models import restoration
from numpyro_inverse import nn, solvers
from numpyro_inverse.infer import PnPULA

OURS = package("numpyro_inverse")
PEERS = {
    "scico": (".venv-peers-scico/bin/python", "_restoration_peers.py"),
    "deepinv": (".venv-peers-torch/bin/python", "_restoration_deepinv.py"),
}
ITERATION = "cost, PnP-ADMM iteration"
FREE, WHOLE, CALL = "iteration, denoiser 0.98 x [CPU ms]", "iteration with a network [CPU ms]", "call of it [CPU ms]"
FREE_DRAW = "draw, denoiser 0.98 x [CPU ms]"
LEVELS = (0.015, 0.03, 0.05, 0.08, 0.12)
SIGMAS = (0.04, 0.05)  # of the prior, for coverage
CROPS, SIDE, NOISE = 20, 32, 0.03


def compare_solvers():
    """PSNR of PnP-ADMM with gamma = sigma^2."""
    truth, y = restoration.simulate(jax.random.key(0))
    term = solvers.LeastSquares(restoration.blur(), y, restoration.NOISE)
    rows = measured("solvers", "data", OURS, {"PSNR [dB]": restoration.decibels(y, truth)})
    for name in ("gradient_step_denoiser", "cocoercive_denoiser", "firmly_nonexpansive_denoiser"):
        denoiser = nn.load_pretrained(name)
        for sigma in LEVELS:
            started = time.process_time()
            found = solvers.pnp_admm(term, denoiser, y, sigma=sigma, step=sigma**2, max_steps=100)
            values = {
                "PSNR [dB]": restoration.decibels(found.x, truth),
                "steps": int(found.num_steps),
                "residual": float(found.residuals[int(found.num_steps) - 1]),
                "CPU time [s]": time.process_time() - started,
            }
            rows += measured("solvers", f"PnP-ADMM, {name}, sigma {sigma}", OURS, values)
    return rows


def measure_cost():
    """A draw over its gradient, both inside a compiled loop: what 200 more of them take."""
    _, y = restoration.simulate(jax.random.key(0))
    network, blur, sigma = nn.load_pretrained("gradient_step_denoiser"), restoration.blur(), 0.05

    def data_term(data=None):
        image = numpyro.sample("image", dist.ImproperUniform(dist.constraints.real, (), restoration.SHAPE))
        numpyro.sample("data", dist.Normal(blur @ image, restoration.NOISE).to_event(2), obs=data)

    def kernel_of(denoiser):
        return PnPULA(
            data_term,
            site="image",
            denoiser=denoiser,
            sigma=sigma,
            data_lipschitz=restoration.NOISE**-2,
            residual_lipschitz=1.3,
        )

    kernels = {"network": kernel_of(network), "shrink": kernel_of(lambda x, sigma: 0.98 * x)}

    def run(draws, which="network"):
        mcmc = MCMC(kernels[which], num_warmup=0, num_samples=draws, progress_bar=False)
        mcmc.run(jax.random.key(1), data=y, init_params={"image": y}, extra_fields=())
        jax.block_until_ready(mcmc.get_samples())

    @partial(jax.jit, static_argnums=1)
    def descent(x, draws):
        def step(x, _):
            misfit = jax.grad(lambda x: jnp.sum((blur @ x - y) ** 2) / (2 * restoration.NOISE**2))(x)
            return x - 1e-9 * (misfit + (x - network(x, sigma)) / sigma**2), None

        return jax.lax.scan(step, x, None, length=draws)[0]

    def gradients(draws):
        jax.block_until_ready(descent(y, draws))

    def seconds(function, few=100, many=300):
        taken = {}
        for draws in (few, many):
            function(draws)  # compiled
            started = time.process_time()
            function(draws)
            taken[draws] = time.process_time() - started
        return (taken[many] - taken[few]) / (many - few)

    draw, gradient, free = seconds(run), seconds(gradients), seconds(partial(run, which="shrink"), 1000, 6000)
    values = {"draw [CPU ms]": 1e3 * draw, "gradient [CPU ms]": 1e3 * gradient, "draw over gradient": draw / gradient}
    values[FREE_DRAW] = 1e3 * free
    return measured("cost", "PnPULA", OURS, values)


def measure_iteration():
    """An iteration of PnP-ADMM, what 40 more of them take."""
    _, y = restoration.simulate(jax.random.key(0))
    term = solvers.LeastSquares(restoration.blur(), y, restoration.NOISE)
    network = nn.load_pretrained("gradient_step_denoiser")

    def iteration(denoiser):
        def run(steps):
            jax.block_until_ready(
                solvers.pnp_admm(term, denoiser, y, sigma=0.05, step=0.05**2, max_steps=steps, tolerance=1e-30).x
            )

        return milliseconds(run)

    def calls(count):
        x = y
        for _ in range(count):
            x = call(x, 0.05)
        jax.block_until_ready(x)

    call = jax.jit(lambda x, sigma: network(x, sigma))
    values = {FREE: iteration(lambda x, sigma: 0.98 * x), WHOLE: iteration(network), CALL: milliseconds(calls)}
    return measured(ITERATION, "pnp_admm", OURS, values, "network: gradient_step_denoiser")


def run_peers():
    """scico and deepinv, each in an environment of its own."""
    truth, y = restoration.simulate(jax.random.key(0))
    kernel, rows = np.full((restoration.SIDE,) * 2, 1 / restoration.SIDE**2, np.float32), []
    given = {"y": y, "truth": truth, "kernel": kernel, "noise": restoration.NOISE}
    for peer, (python, script) in PEERS.items():
        for row in rows_of(peer, python, script, given):
            rows += peer_records(peer, row)
    return rows


def peer_records(peer, row):
    """Of a row of a peer's file."""
    if row["kind"] == "quality":
        denoiser = f"DnCNN {row['network_name']}" if peer == "scico" else "total variation"
        values = {"PSNR [dB]": row["psnr"], "steps": row["steps"], "CPU time [s]": row["seconds"]}
        title = f"{peer} PnP-ADMM, {denoiser}, sigma {row['sigma']}"
        return measured("solvers", title, row["package"], values, note="CPU time with compilation")
    if peer == "scico":
        values = {FREE: row["shrink"], WHOLE: row["network"], CALL: row["call"]}
        return measured(ITERATION, "scico ADMM", row["package"], values, "network: DnCNN 6N")
    drawn = measured("cost", "deepinv ULA", row["package"], {FREE_DRAW: row["draw"]})
    return measured(ITERATION, "deepinv ADMM", row["package"], {FREE: row["shrink"]}) + drawn


def crops():
    """Of the photographs that no denoiser was trained on, at random places."""
    rng = np.random.default_rng(0)
    images = [data.camera() / 255.0, data.coins() / 255.0, color.rgb2gray(data.chelsea())]
    found = []
    for i in range(CROPS):
        image = images[i % 3]
        row, column = (rng.integers(0, n - SIDE + 1) for n in image.shape)
        found.append(image[row : row + SIDE, column : column + SIDE])
    return np.asarray(found, np.float32)


def measure_coverage():
    """One chain of NUTS a crop, all crops in one program."""
    denoiser, truth, shape = nn.load_pretrained("gradient_step_denoiser"), crops(), (SIDE, SIDE)
    forward, rows = restoration.blur(shape, side=5), []
    keys = jax.random.split(jax.random.key(3), CROPS)

    def simulate(key, image):
        return restoration.simulate(key, image=image, forward=forward, noise=NOISE)[1]

    y = jax.vmap(simulate)(keys, jnp.asarray(truth))
    for sigma in SIGMAS:
        prior = restoration.denoiser_prior(denoiser, sigma=sigma)
        options = {"prior": prior, "support": restoration.UNIT, "forward": forward, "shape": shape, "noise": NOISE}

        @jax.jit
        @jax.vmap
        def draws_of(key, y, options=options):
            mcmc = MCMC(NUTS(restoration.model, max_tree_depth=5), num_warmup=150, num_samples=150, progress_bar=False)
            mcmc.run(key, data=y, init_params={"image": jax.scipy.special.logit(jnp.clip(y, 0.02, 0.98))}, **options)
            return mcmc.get_samples()["image"]

        started = time.monotonic()
        draws = np.asarray(draws_of(keys, y))
        low, high = np.quantile(draws, (0.05, 0.95), axis=1)
        inside = (low <= truth) & (truth <= high)
        values = {
            "coverage of 90 % intervals": float(inside.mean()),
            "error of the posterior mean, rms": float(np.sqrt(np.mean((draws.mean(axis=1) - truth) ** 2))),
            "posterior sd, rms": float(np.sqrt(np.mean(draws.var(axis=1)))),
            "wall time [s]": time.monotonic() - started,
        }
        by_crop = ", ".join(f"{v:.3f}" for v in inside.mean(axis=(1, 2)))
        rows += measured("coverage", f"NUTS, sigma {sigma}", OURS, values, note=f"coverage by crop: {by_crop}")
    return rows


PARTS = {
    "solvers": compare_solvers,
    "cost": measure_cost,
    "iteration": measure_iteration,
    "peers": run_peers,
    "coverage": measure_coverage,
}

if __name__ == "__main__":
    for part in chosen_parts(__doc__, PARTS):
        found = PARTS[part]()
        print(part, json.dumps(found, indent=1), flush=True)
        keep("restoration", found, machine())
