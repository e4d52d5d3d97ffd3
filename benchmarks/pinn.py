"""Physics-informed inversion: training by least squares beside Adam, the published benchmark, the reduced posterior.

- training: -u'' + theta u = f with a network of 1,153 weights, 200 collocation points, 8 clustered sensors, noise 1e-3:
  CPU seconds, objective, error of the field and theta, for two weights of the residual; and the fewest steps of
  Levenberg-Marquardt that reach the objective of all of Adam's;
- equal: the same at weight 1e2, until the largest error of the field is at most 1e-3, 1.7 times what the noise leaves:
  the fewest steps of Levenberg-Marquardt, the fewest thousands of Adam's; and models.bpinn in the plane, with 225
  collocation points, until the error's root mean square is 5e-3, a hundredth of the field's;
- peers: jinns and DeepXDE to the same errors, with the same objectives, sizes of networks, conditions and precision;
- published: the standard deviation of k in models.bpinn, by NUTS with 20 terms, for several draws of the noise;
- network: the same with a network of 2,701 weights, by Hamiltonian Monte Carlo from modes of the posterior;
- reduced: effective draws of theta per CPU second, NUTS on the reduced posterior beside NUTS on theta and all
  coefficients of the same trial space.

    python benchmarks/pinn.py [training] [equal] [peers] [reduced] [published] [network] [--seeds 8] [--draws 800]
"""

import argparse
import os
import time
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.diagnostics import summary
from numpyro.infer import HMC, MCMC, NUTS, SVI, Trace_ELBO, init_to_sample
from numpyro.infer.autoguide import AutoDelta

from benchmarks._peers import rows_of
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
            if weight == 1e2:
                adams = fit.loss
    problem = clustered(network, 1e2, 1e-3, np.random.default_rng(0))

    def least_squares(steps):
        return pinn.levenberg_marquardt(problem, 1.0, max_steps=steps, tolerance=1e-3, progress_bar=False)

    steps = next(n for n in range(20, 400, 5) if least_squares(n).loss <= adams)
    seconds, _, fit = timed(lambda: least_squares(steps))
    values = {"CPU time [s]": seconds, "objective": fit.loss, "theta": float(fit.theta), "steps": steps}
    store(measured("training, weight 1e+02", "Levenberg-Marquardt, to Adam's objective", OURS, values))


class Race(NamedTuple):
    """A problem with its solution on a grid, and how near the field has to come."""

    title: str
    problem: pinn.Problem
    theta: float  # where it begins
    grid: np.ndarray
    exact: np.ndarray
    target: float
    warm_start: int  # steps of Adam before Levenberg and Marquardt's
    adam: int  # Adam's steps are counted in so many
    metric: str

    def error(self, fit):
        """Largest error in one dimension, root mean square in two."""
        off = np.abs(np.asarray(jax.vmap(fit.phi)(jnp.asarray(self.grid))) - self.exact)
        return off.max() if self.grid.shape[1] == 1 else np.sqrt(np.mean(off**2))


def line():
    grid = np.linspace(0, 1, 201)
    exact = dr.reference(lambda x: 20 * np.exp(-((x - 0.3) ** 2) / 0.02), 3.0, grid)
    network = pinn.MLP(dr.DOMAIN, width=32, depth=2, key=jax.random.key(0))
    problem = clustered(network, 1e2, 1e-3, np.random.default_rng(0), 200)
    metric = "largest error of the field"
    return Race("training, to equal error", problem, 1.0, grid[:, None], exact, 1e-3, 0, 2000, metric)


def plane():
    grid = np.asarray(bpinn.SQUARE.grid(41))
    exact = np.asarray(jax.vmap(bpinn.plane_solution)(grid))
    network = pinn.MLP(bpinn.SQUARE, width=32, depth=2, key=jax.random.key(0))
    trial = pinn.Enforced(network, bpinn.SQUARE.distance)
    problem = bpinn.plane_problem(trial, np.random.default_rng(0), num_points=225)
    metric = "root mean square error of the field"
    return Race("training in the plane, to equal error", problem, 0.5, grid, exact, 5e-3, 200, 1000, metric)


def equal(args):
    for race in (line(), plane()):

        def least_squares(steps, race=race):
            begin = {}
            if race.warm_start:
                begin["phi"] = pinn.adam(race.problem, race.theta, num_steps=race.warm_start, progress_bar=False).phi
            return pinn.levenberg_marquardt(
                race.problem, race.theta, **begin, max_steps=steps, tolerance=1e-3, progress_bar=False
            )

        def adam(steps, race=race):
            return pinn.adam(race.problem, race.theta, num_steps=steps, progress_bar=False)

        after = f" after {race.warm_start} steps of Adam" if race.warm_start else ""
        for title, numbers, call in (
            (f"Levenberg-Marquardt{after}", range(1, 200), least_squares),
            ("Adam", range(race.adam, 40_001, race.adam), adam),
        ):
            for steps in numbers:
                error = race.error(call(steps))
                if error <= race.target:
                    break
            jax.clear_caches()
            seconds, compilation, fit = timed(lambda c=call, n=steps: c(n))
            found = {"seconds": seconds, "compile_s": compilation, "steps": steps, "error": error, "theta": fit.theta}
            store(race_records(race, title, OURS, found))


def peers(args):
    for race in (line(), plane()):
        problem, data = race.problem, race.problem.data[0]
        box, count = problem.pde.domain, len(problem.pde.points)
        # Their losses are means of squares: our objective over that of the data alone.
        ratio = count / len(data.values) * (np.mean(data.scale) / np.mean(problem.scale)) ** 2
        given = {"sensors": data.points, "values": data.values[:, 0], "grid": race.grid, "exact": race.exact}
        given |= {"lower": box.lower, "upper": box.upper, "theta": race.theta, "target": race.target}
        given |= {"ratio": ratio, "num_points": count, "adam": args.adam}
        for peer in ("jinns", "DeepXDE"):
            for row in rows_of(peer, PEERS, "_pinn_peers.py", given, peer):
                store(race_records(race, row["title"], row["package"], row))


def race_records(race, title, version, row):
    """Of a row of ``equal``."""
    if "why" in row:
        return missing(race.title, title, version, row["why"])
    reached = row["error"] <= race.target
    values = {
        "CPU time [s]": row["seconds"] if reached else None,
        "compilation [CPU s]": row["compile_s"],
        "steps": row["steps"],
        race.metric: row["error"],
        "theta": float(row["theta"]),
    }
    note = "" if reached else f"the error is not reached within these steps, {row['seconds']:.3g} CPU s"
    return measured(race.title, title, version, values, note)


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


def network(args):
    """Long trajectories from two modes of all weights: a chain from a draw of the prior stays where k is wrong."""
    jax.config.update("jax_enable_x64", False)
    for noise, expected in bpinn.PUBLISHED_NETWORK_SD.items():
        data = bpinn.simulate(np.random.default_rng(0), noise)

        def model(noise=noise, data=data):
            bpinn.network_model(*data, noise=noise)

        guide = AutoDelta(model, init_loc_fn=init_to_sample)
        svi = SVI(model, guide, optax.adam(optax.cosine_decay_schedule(2e-2, 6000)), Trace_ELBO())
        chains = []
        start = time.process_time()
        for seed in range(2):
            mode = svi.run(jax.random.key(seed), 6000, progress_bar=False).params
            begin = {name.removesuffix("_auto_loc"): value for name, value in mode.items()}
            kernel = HMC(model, num_steps=200, trajectory_length=None, adapt_mass_matrix=False)
            mcmc = MCMC(kernel, num_warmup=args.draws, num_samples=3 * args.draws, progress_bar=False)
            mcmc.run(jax.random.key(seed), init_params=begin, extra_fields=("diverging",))
            chains.append(np.asarray(mcmc.get_samples()["k"]))
        k = summary({"k": np.stack(chains)})["k"]
        values = {
            "mean of k": k["mean"],
            "sd of k": k["std"],
            "sd of k over the published": k["std"] / expected,
            "R-hat": k["r_hat"],
            "ESS of k": k["n_eff"],
            "error of the mean [posterior sd]": (k["mean"] - bpinn.RATE) / k["std"],
            "CPU time with compilation [s]": time.process_time() - start,
        }
        store(measured(f"published, noise {noise}, seed 0", "HMC, network of 2,701 weights", OURS, values))


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
    parts = {part.__name__: part for part in (training, equal, peers, reduced, published, network)}
    parser.add_argument("parts", nargs="*", choices=list(parts), default=list(parts))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=800)
    parser.add_argument("--adam", type=int, default=20_000)
    arguments = parser.parse_args()
    for part in arguments.parts:
        parts[part](arguments)
