"""The benchmark of simulation-based inference: classifier two-sample tests against its reference posteriors.

Ten tasks (models.sbibm), observations 1 to 5. The score is the benchmark's own C2ST: the accuracy of scikit-learn's
multilayer perceptron (two hidden layers of 10 d rectified units, Adam, at most 10,000 iterations) at telling 10,000
draws from the 10,000 of the reference, both standardized by the reference, by five-fold cross-validation; 0.5 is the
best, 1 the worst. Published: medians over ten observations, benchmarks/results/sbibm_published.csv.

The reference draws, 10,000 for each observation, are not in the repository: --reference is a folder of TASK.npz with
`reference_samples`, (observations, 10000, d). They are in the sbibm 1.1.0 wheel as num_observation_K/
reference_posterior_samples.csv.bz2, which it may hold instead, as TASK/files/num_observation_K/.

With --members 5 NPE is five fits from other weights and their mixture, a method of its own in the table.

Scores that are in benchmarks/results/sbibm.json are not computed again. With --peers sbijax, setu and sbi run on the
simulations of two_moons instead (environments .venv-peers-sbi and .venv-peers-torch).

    python benchmarks/sbibm.py --reference FOLDER [--tasks two_moons slcp] [--methods NPE NLE NRE] [--observations 1 2]
        [--members 5]
"""

import argparse
import importlib
import sys
import time
from functools import cache
from pathlib import Path

import jax
import numpy as np

from benchmarks._c2st import c2st
from benchmarks._peers import rows_of
from benchmarks._record import keep, load, machine, measured, package
from models.sbibm import TASKS
from numpyro_inverse import sbi

SIMULATIONS, DRAWS = 10_000, 10_000
METHODS = ("NPE", "NLE", "NRE")
ENSEMBLE = "NPE, {} members"
PEERS = {
    "sbijax": ".venv-peers-sbi/bin/python",
    "setu": ".venv-peers-sbi/bin/python",
    "sbi": ".venv-peers-torch/bin/python",
}
PEERS_PRIOR = {"two_moons": (-1.0, 1.0)}  # ends of the uniform prior


@cache
def estimator(task, method, seed):
    """Trained once for all observations, and the CPU seconds that it took."""
    model = importlib.import_module(f"models.sbibm.{task}").model
    name, _, more = method.partition(", ")
    kind = getattr(sbi, name)
    options = {"members": int(more.split()[0])} if more else {}
    started = time.process_time()
    fitted = (kind(model) if name == "NPE" else kind(model, "x")).fit(
        jax.random.key(seed), num_simulations=SIMULATIONS, **options
    )
    return fitted, time.process_time() - started


def posterior_draws(task, method, key, x, num, *, seed=0):
    """``num`` draws of theta given x, (num, d), under the estimator of a task."""
    fitted, _ = estimator(task, method, seed)
    draws = fitted.sample(key, x, num_samples=num // 4, num_chains=4)["theta"]
    return np.asarray(draws, float).reshape(num, -1)


def reference_draws(folder, task, k):
    """The benchmark's 10,000 draws for observation k."""
    if (folder / f"{task}.npz").exists():
        with np.load(folder / f"{task}.npz") as stored:
            return np.asarray(stored["reference_samples"][k - 1], float)
    path = folder / task / "files" / f"num_observation_{k}" / "reference_posterior_samples.csv.bz2"
    if not path.exists():
        raise FileNotFoundError(f"--reference: neither {task}.npz nor {path.relative_to(folder)} is in {folder}.")
    return np.loadtxt(path, delimiter=",", skiprows=1)


def score(task, method, k, seed, folder):
    """Records of one method on one observation."""
    x = importlib.import_module(f"models.sbibm.{task}").observation(k)
    trained = estimator(task, method, seed)[1]
    started = time.process_time()
    draws = posterior_draws(task, method, jax.random.key(1000 * seed + k), x, DRAWS, seed=seed)
    sampled = time.process_time() - started
    values = {
        "C2ST": c2st(draws, reference_draws(folder, task, k)),
        "training [CPU s]": trained,
        "sampling [CPU s]": sampled,
    }
    note = f"{SIMULATIONS:,} simulations; compilation included"
    return measured(f"{task}, observation {k}, seed {seed}", method, package("numpyro_inverse"), values, note)


def run_peers(names, task, observations, seed, folder):
    """Keeps records of sbijax, setu or sbi on the same simulations; a task with a uniform prior."""
    module = importlib.import_module(f"models.sbibm.{task}")
    draws = sbi.simulate(module.model, jax.random.key(seed), SIMULATIONS, progress_bar=False)
    theta, x = draws.latents["theta"], draws.data["x"]
    arrays = {
        "theta": theta,
        "x": x,
        "low": np.full(theta.shape[1], PEERS_PRIOR[task][0]),
        "high": np.full(theta.shape[1], PEERS_PRIOR[task][1]),
        "observations": np.stack([module.observation(k) for k in observations]),
        "reference": np.stack([reference_draws(folder, task, k) for k in observations]),
        "seed": seed,
    }
    for peer in names:
        for row in rows_of(peer, PEERS[peer], "_sbibm_peers.py", arrays, peer):
            values = {"C2ST": row["c2st"], "training [CPU s]": row["training"], "sampling [CPU s]": row["sampling"]}
            note = f"{SIMULATIONS:,} simulations; compilation included; its defaults, {row['epochs']} epochs"
            case = f"{task}, observation {observations[row['observation'] - 1]}, seed {seed}"
            print(case, row, flush=True)
            keep("sbibm", measured(case, row["title"], row["package"], values, note), machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of the reference draws")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--observations", nargs="*", type=int, choices=range(1, 6), default=range(1, 6))
    parser.add_argument("--members", type=int, default=1, help="of an ensemble of NPE, in its place")
    parser.add_argument("--seed", type=int, default=0, help="of simulations, training and draws")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="these instead, default all, on two_moons")
    options = parser.parse_args()
    if options.reference is None:
        print("NOT RUN: --reference: without the reference draws there are no scores.", file=sys.stderr)
        return
    if options.peers is not None:
        for task in PEERS_PRIOR:
            run_peers(options.peers or PEERS, task, list(options.observations), options.seed, options.reference)
        return
    done = {(record["case"], record["method"]) for record in load("sbibm")["records"]}
    methods = [ENSEMBLE.format(options.members) if m == "NPE" and options.members > 1 else m for m in options.methods]
    for task in options.tasks:
        for method in methods:
            for k in options.observations:
                if (f"{task}, observation {k}, seed {options.seed}", method) in done:
                    continue
                found = score(task, method, k, options.seed, options.reference)
                keep("sbibm", found, machine())
                print(task, method, k, *(f"{record['value']:.3f}" for record in found), flush=True)


if __name__ == "__main__":
    main()
