"""Exact Gaussian posteriors: ``ExactGaussian`` beside CUQIpy, NIFTy.re and plain NumPyro NUTS, in one run.

Two deblurring problems with a closed-form posterior (``_exact_gaussian_problem.py``), and our Matern prior with the
same blur: ``d1`` 128 pixels, ``d2`` 64 x 64, ``m-periodic`` (prior and blur share a transform) and ``m-dirichlet``.
Reported against dense linear algebra: rms of the mean's error in exact standard deviations over its Monte-Carlo value,
ratio of standard deviations, bulk effective sample sizes, CPU seconds of the process with compilation, and without it
(from a short run in the same process). All linear algebra on one thread each; no compilation cache.

The peers' interpreter is $PEERS_PYTHON (default .venv-peers/bin/python).

    python benchmarks/exact_gaussian.py [d1] [d2] [m-periodic] [m-dirichlet]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _exact_gaussian_problem import SIGMA, amplitudes, deblurring, sine_transform
from _options import chosen_parts
from _record import keep, machine, measured, missing, package
from numpyro.infer import MCMC, NUTS

import numpyro_inverse as ni
from numpyro_inverse.infer import ExactGaussian

HERE = Path(__file__).parent
PROBLEMS = {"d1": (128, 1, 5.0), "d2": (64, 2, 2.0)}
METRICS = {
    "draws": "draws",
    "rms_z_over_monte_carlo": "error of the mean [Monte Carlo errors]",
    "sd_ratio_mean": "sd over the exact one, mean",
    "sd_ratio_min": "sd over the exact one, smallest",
    "sd_ratio_max": "sd over the exact one, largest",
    "ess_min": "smallest ESS",
    "ess_median": "median ESS",
    "cpu_seconds": "CPU time [s]",
    "cpu_seconds_without_compilation": "CPU time without compilation [s]",
    "min_ess_per_cpu_second": "smallest ESS per CPU second",
    "min_ess_per_cpu_second_without_compilation": "smallest ESS per CPU second without compilation",
    "error": "largest bound of a draw's error [posterior sd]",
    "num_steps": "steps per draw",
}


def by_hand(problem):
    """The Markov random field prior as white noise through a sine transform, with our operators."""
    shape = problem.data.shape
    transform = ni.operators.Kronecker([sine_transform(problem.n)[0].astype(np.float32)] * problem.ndim)
    blur = ni.operators.Kronecker([problem.blur.astype(np.float32)] * problem.ndim)
    scale = jnp.asarray(amplitudes(problem.n, problem.ndim), jnp.float32)

    def model(data=None):
        z = numpyro.sample("z", dist.Normal(0, 1).expand(shape).to_event(len(shape)))
        x = numpyro.deterministic("x", transform(scale * z))
        numpyro.sample("data", dist.Normal(blur(x), SIGMA).to_event(len(shape)), obs=data)

    return model


def matern(problem, boundary):
    """A Matern field with the same blur, and its exact prior precision."""
    grid = ni.domains.Grid(problem.data.shape, boundary=boundary)
    blur = ni.operators.Kronecker([problem.blur.astype(np.float32)] * problem.ndim)

    def prior():
        return ni.distributions.Matern(grid, range=0.25, scale=1.0, smoothness=1.0)

    def model(data=None):
        x = numpyro.sample("x", prior())
        numpyro.sample("data", dist.Normal(blur(x), SIGMA).to_event(problem.ndim), obs=data)

    with jax.enable_x64(True):
        covariance = np.asarray(prior().covariance_matrix, float)
    return model, covariance


def run(kernel, data, warmup, draws, seed):
    """Draws of the field, raveled, and CPU seconds; with the sampler's own fields."""
    start = time.process_time()
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=draws, progress_bar=False)
    fields = ("error", "residual", "num_steps") if isinstance(kernel, ExactGaussian) else ("num_steps",)
    mcmc.run(jax.random.key(seed), data, extra_fields=fields)
    found = np.asarray(mcmc.get_samples()["x"]).reshape(draws, -1)
    extra = {k: float(np.max(v) if k != "num_steps" else np.mean(v)) for k, v in mcmc.get_extra_fields().items()}
    return found, time.process_time() - start, extra


def measure(title, found, seconds, short, mean, sd, extra=None, version=None):
    """A row of the table."""
    draws = len(found)
    parts = np.array_split(found, max(1, found.shape[1] // 256), axis=1)
    ess = np.concatenate([np.ravel(az.ess(az.from_dict({"posterior": {"x": part[None]}}))["x"]) for part in parts])
    if "pairs" in title:  # mirrored draws: counted as what they cost, all of them
        ess = np.full(1, float(draws))
    z = np.sqrt(np.mean(((found.mean(0) - mean) / sd) ** 2))
    ratio = found.std(0, ddof=1) / sd
    sampling = None if short is None else (seconds - short[1]) * draws / (draws - short[0])
    sampling = sampling if sampling is None or sampling > 0 else seconds  # lost in the clock's noise: not claimed
    row = {
        "title": title,
        "package": version or package("numpyro_inverse" if title.startswith("Exact") else "numpyro"),
        "draws": draws,
        "rms_z": float(z),
        "rms_z_over_monte_carlo": float(z * np.sqrt(np.median(ess))),
        "sd_ratio_mean": float(ratio.mean()),
        "sd_ratio_min": float(ratio.min()),
        "sd_ratio_max": float(ratio.max()),
        "ess_min": float(ess.min()),
        "ess_median": float(np.median(ess)),
        "cpu_seconds": seconds,
        "cpu_seconds_without_compilation": seconds if short is None else sampling,
        "min_ess_per_cpu_second": float(ess.min() / seconds),
        "min_ess_per_cpu_second_without_compilation": float(ess.min() / (sampling or seconds)),
        **(extra or {}),
    }
    print(json.dumps(row), flush=True)
    return row


def ours(model, data, mean, sd, draws):
    """A row per number of draws."""
    _, short, _ = run(ExactGaussian(model), data, 0, 50, seed=0)  # also warms what every process pays once
    _, short, _ = run(ExactGaussian(model), data, 0, 50, seed=1)
    for n in draws:
        found, seconds, extra = run(ExactGaussian(model), data, 0, n, seed=2)
        yield measure(f"ExactGaussian, {n:,} draws", found, seconds, (50, short), mean, sd, extra)


def peers(name, mean, sd):
    """The peers' rows, or a loud report that they are missing."""
    python = os.environ.get("PEERS_PYTHON", ".venv-peers/bin/python")
    script = HERE / "_exact_gaussian_peers.py"
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run([python, script, name, folder], check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"PEERS MISSING: {name}: {error}. Set PEERS_PYTHON (benchmarks/peers.txt).", file=sys.stderr)
            return []
        rows = []
        for row in json.loads((Path(folder) / f"{name}.json").read_text()):
            if "error" in row:
                print(f"PEER FAILED: {row['title']}: {row['error']}", file=sys.stderr)
                rows.append(row)
                continue
            found = np.load(Path(folder) / row["file"])
            rows.append(measure(row["title"], found, row["seconds"], row["short"], mean, sd, version=row["package"]))
        return rows


def records(name, rows):
    """Of the rows of a problem."""
    out = []
    for row in rows:
        if "error" in row and "draws" not in row:
            out += missing(name, row["title"], row["package"], row["error"])
        else:
            values = {METRICS[key]: value for key, value in row.items() if key in METRICS}
            out += measured(name, row["title"], row["package"], values)
    return out


def benchmark(name):
    """All rows of one problem."""
    problem = deblurring(*PROBLEMS.get(name, PROBLEMS["d2"]))
    data = jnp.asarray(problem.data, jnp.float32)
    if name in PROBLEMS:
        mean, sd = problem.posterior(problem.prior_precision())
        model = by_hand(problem)
        rows = list(ours(model, data, mean, sd, (2000, 20000)))
        warmup, draws = (500, 1000) if name == "d1" else (300, 300)
        _, short, _ = run(NUTS(model), data, 2, 2, seed=0)
        _, short, _ = run(NUTS(model), data, 2, 2, seed=1)  # compilation, hardly any of the warm-up
        found, seconds, extra = run(NUTS(model), data, warmup, draws, seed=2)
        rows.append(measure("NumPyro NUTS, white noise by hand", found, seconds, (0, short), mean, sd, extra))
        return rows + peers(name, mean, sd)
    model, covariance = matern(problem, name.removeprefix("m-"))
    a = problem.dense_blur()
    gain = np.linalg.solve(a @ covariance @ a.T + SIGMA**2 * np.eye(len(a)), a @ covariance)
    mean, sd = gain.T @ problem.data.ravel(), np.sqrt(np.diag(covariance - covariance @ a.T @ gain))
    return list(ours(model, data, mean, sd, (2000,)))


if __name__ == "__main__":
    for name in chosen_parts(__doc__, [*PROBLEMS, "m-periodic", "m-dirichlet"]):
        keep("exact_gaussian", records(name, benchmark(name)), machine(threads=1))
