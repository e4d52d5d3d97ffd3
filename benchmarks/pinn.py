"""Physics-informed inversion: training by least squares beside Adam, the published benchmark, the reduced posterior.

- training: -u'' + theta u = f with a network of 1,153 weights, 200 collocation points, 8 clustered sensors, noise 1e-3:
  CPU seconds, objective, error of the field and theta, for two weights of the residual;
- equal: the same at weight 1e2, until the largest error of the field is at most 1e-3, 1.7 times what the noise leaves:
  the fewest steps of Levenberg-Marquardt, the fewest thousands of Adam's; peers: jinns and DeepXDE with the same
  objective, size of network, boundary condition and precision;
- published: the standard deviation of k in models.bpinn, by NUTS with 20 terms, for several draws of the noise;
- reduced: effective draws of theta per CPU second, NUTS on the reduced posterior beside NUTS on theta and all
  coefficients of the same trial space.

    python benchmarks/pinn.py [training] [equal] [peers] [reduced] [published] [--seeds 8] [--chains 2] [--draws 800]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import summary
from numpyro.infer import MCMC, NUTS

from benchmarks._record import keep, machine, measured, missing, package
from models import bpinn
from models import diffusion_reaction as dr
from numpyro_inverse import pinn

OURS = package("numpyro_inverse")
PEERS = ".venv-peers-pinn/bin/python"
SENSORS = np.array([0.12, 0.15, 0.18, 0.21, 0.24, 0.28, 0.32, 0.36])


def source(x):
    return 20 * jnp.exp(-((x[0] - 0.3) ** 2) / 0.02)


def residual(u, x, theta):
    return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - source(x)


def clustered(trial, weight, noise, rng, num_points=200):
    values = dr.reference(lambda x: 20 * np.exp(-((x - 0.3) ** 2) / 0.02), 3.0, SENSORS)
    pde = pinn.PDE(residual, dr.DOMAIN, points=dr.DOMAIN.grid(num_points), boundary=())
    data = pinn.Data(SENSORS[:, None], values + noise * rng.normal(size=8), noise)
    return pinn.Problem(pde, pinn.Enforced(trial, dr.DOMAIN.distance), data, scale=weight**-0.5)


def timed(call):
    """CPU seconds of a second call, in which nothing is compiled, what the first took more, and the result."""
    start = time.process_time()
    call()
    middle = time.process_time()
    found = call()
    seconds = time.process_time() - middle
    return seconds, middle - start - seconds, found


def store(records):
    """Prints and keeps records."""
    print(records[0]["method"], *(f"{r['metric']} {r['value'] or 0:.4g}" for r in records), sep=", ", flush=True)
    keep("pinn", records, machine(threads=1))


def training(args):
    grid = np.linspace(0, 1, 201)
    exact = dr.reference(lambda x: 20 * np.exp(-((x - 0.3) ** 2) / 0.02), 3.0, grid)
    network = pinn.MLP(dr.DOMAIN, width=32, depth=2, key=jax.random.key(0))
    for weight, steps in ((1e2, 200), (1e6, 400)):
        problem = clustered(network, weight, 1e-3, np.random.default_rng(0))
        for name, call in {
            "Levenberg-Marquardt": lambda p=problem, n=steps: pinn.levenberg_marquardt(
                p, 1.0, max_steps=n, tolerance=1e-3, progress_bar=False
            ),
            f"Adam, {args.adam}": lambda p=problem: pinn.adam(p, 1.0, num_steps=args.adam, progress_bar=False),
        }.items():
            seconds, compilation, fit = timed(call)
            error = np.max(np.abs(np.asarray(jax.vmap(fit.phi)(jnp.asarray(grid)[:, None])) - exact))
            values = {
                "CPU time [s]": seconds,
                "compilation [CPU s]": compilation,
                "objective": fit.loss,
                "largest error of the field": error,
                "theta": float(fit.theta),
            }
            store(measured(f"training, weight {weight:.0e}", name, OURS, values))


TARGET, WEIGHT, NOISE, NUM_POINTS = 1e-3, 1e2, 1e-3, 200


def of_equal():
    """The problem of ``equal`` and ``peers``, a grid, and the solution there."""
    grid = np.linspace(0, 1, 201)
    exact = dr.reference(lambda x: 20 * np.exp(-((x - 0.3) ** 2) / 0.02), 3.0, grid)
    network = pinn.MLP(dr.DOMAIN, width=32, depth=2, key=jax.random.key(0))
    return clustered(network, WEIGHT, NOISE, np.random.default_rng(0), NUM_POINTS), grid, exact


def equal(args):
    problem, grid, exact = of_equal()
    calls = {
        "Levenberg-Marquardt": (
            range(1, 200),
            lambda n: pinn.levenberg_marquardt(problem, 1.0, max_steps=n, tolerance=1e-3, progress_bar=False),
        ),
        "Adam": (
            range(2000, 40_001, 2000),
            lambda n: pinn.adam(problem, 1.0, num_steps=n, progress_bar=False),
        ),
    }
    for title, (numbers, call) in calls.items():
        for steps in numbers:
            fit = call(steps)
            error = np.max(np.abs(np.asarray(jax.vmap(fit.phi)(jnp.asarray(grid)[:, None])) - exact))
            if error <= TARGET:
                break
        jax.clear_caches()
        seconds, compilation, fit = timed(lambda c=call, n=steps: c(n))
        found = {"seconds": seconds, "compile_s": compilation, "steps": steps, "error": error, "theta": fit.theta}
        store(equal_records(title, OURS, found))


def peers(args):
    problem, grid, exact = of_equal()
    data = problem.data[0]
    with tempfile.TemporaryDirectory() as folder:
        source, output = f"{folder}/problem.npz", f"{folder}/rows.json"
        given = {"sensors": SENSORS, "values": data.values[:, 0], "grid": grid, "exact": exact, "target": TARGET}
        # Their losses are means of squares: our objective over that of the data alone.
        ratio = WEIGHT * NUM_POINTS * NOISE**2 / len(SENSORS)
        np.savez(source, **given, ratio=ratio, num_points=NUM_POINTS, adam=args.adam)
        for peer in ("jinns", "DeepXDE"):
            command = [PEERS, Path(__file__).parent / "_pinn_peers.py", peer, source, output]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                why = getattr(error, "stderr", None) or str(error)
                print(f"PEER MISSING: {peer}: {why[-500:]} (benchmarks/peers-pinn.txt)", file=sys.stderr)
                continue
            for row in json.loads(Path(output).read_text()):
                store(equal_records(row["title"], row["package"], row))


def equal_records(title, version, row):
    """Of a row of ``equal``."""
    if "why" in row:
        return missing("training, to equal error", title, version, row["why"])
    reached = row["error"] <= TARGET
    values = {
        "CPU time [s]": row["seconds"] if reached else None,
        "compilation [CPU s]": row["compile_s"],
        "steps": row["steps"],
        "largest error of the field": row["error"],
        "theta": float(row["theta"]),
    }
    note = "" if reached else f"the error is not reached within these steps, {row['seconds']:.3g} CPU s"
    return measured("training, to equal error", title, version, values, note)


def published(args):
    for noise, expected in bpinn.PUBLISHED_SD.items():
        for seed in range(args.seeds):
            data = bpinn.simulate(np.random.default_rng(seed), noise)
            mcmc = MCMC(
                NUTS(bpinn.model),
                num_warmup=args.draws,
                num_samples=args.draws,
                num_chains=args.chains,
                chain_method="vectorized",
                progress_bar=False,
            )
            mcmc.run(jax.random.key(seed), *data, noise=noise)
            k = summary(mcmc.get_samples(group_by_chain=True))["k"]
            values = {
                "mean of k": k["mean"],
                "sd of k": k["std"],
                "sd of k over the published": k["std"] / expected,
                "R-hat": k["r_hat"],
                "error of the mean [posterior sd]": (k["mean"] - bpinn.RATE) / k["std"],
            }
            store(measured(f"published, noise {noise}, seed {seed}", "NUTS, 20 terms", OURS, values))


def reduced(args):
    rng = np.random.default_rng(0)
    problem = clustered(pinn.ChebyshevBasis(dr.DOMAIN, 20), 1e4, 5e-3, rng, num_points=40)
    potential = pinn.PenalizedPotential(problem)
    data = problem.data[0]

    def small():
        potential("likelihood", numpyro.sample("theta", dist.Uniform(dr.LOW, dr.HIGH)))

    def full():
        theta = numpyro.sample("theta", dist.Uniform(dr.LOW, dr.HIGH))
        coefficients = numpyro.sample("phi", dist.Normal(0, 10).expand((20,)).to_event(1))
        u = pinn.Enforced(problem.trial.inner.with_coefficients(coefficients), dr.DOMAIN.distance)
        pinn.factor("pde", problem.pde, u, theta, problem.scale)
        numpyro.sample("y", dist.Normal(jax.vmap(u)(data.points)[:, None], data.scale).to_event(2), obs=data.values)

    for name, model in {"NUTS, reduced": small, "NUTS, all coefficients": full}.items():
        mcmc = MCMC(NUTS(model), num_warmup=args.draws, num_samples=args.draws, progress_bar=False)
        start = time.process_time()
        mcmc.warmup(jax.random.key(0))
        mcmc.run(jax.random.key(1))
        middle = time.process_time()
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(jax.random.key(1))  # nothing is compiled in it
        seconds = time.process_time() - middle
        theta = summary(mcmc.get_samples(group_by_chain=True))["theta"]
        values = {
            "mean of theta": theta["mean"],
            "sd of theta": theta["std"],
            "R-hat": theta["r_hat"],
            "ESS of theta": theta["n_eff"],
            "CPU time [s]": seconds,
            "warm-up and compilation [CPU s]": middle - start - seconds,
            "ESS of theta per CPU second": theta["n_eff"] / seconds,
        }
        store(measured("reduced", name, OURS if name == "NUTS, reduced" else package("numpyro"), values))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"training": training, "equal": equal, "peers": peers, "reduced": reduced, "published": published}
    parser.add_argument("parts", nargs="*", choices=list(parts), default=list(parts))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=800)
    parser.add_argument("--adam", type=int, default=20_000)
    arguments = parser.parse_args()
    for part in arguments.parts:
        parts[part](arguments)
