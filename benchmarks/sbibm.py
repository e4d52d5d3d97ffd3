"""The benchmark of simulation-based inference: classifier two-sample tests against its reference posteriors.

Ten tasks (models.sbibm), observations 1 to 5. The score is the benchmark's own C2ST: the accuracy of scikit-learn's
multilayer perceptron (two hidden layers of 10 d rectified units, Adam, at most 10,000 iterations) at telling 10,000
draws from the 10,000 of the reference, both standardized by the reference, by five-fold cross-validation; 0.5 is the
best, 1 the worst. Published: medians over ten observations, benchmarks/results/sbibm_published.csv.

The reference draws, 10,000 for each observation, are not in the repository: --reference is a folder of TASK.npz with
`reference_samples`, (observations, 10000, d). They are in the sbibm 1.1.0 wheel as num_observation_K/
reference_posterior_samples.csv.bz2, which it may hold instead, as TASK/files/num_observation_K/.

Scores go to benchmarks/results/sbibm.json, one record for each task, method, observation and seed; those that are there
are not computed again. The table is benchmarks/results/sbibm.md.

    python benchmarks/sbibm.py --reference FOLDER [--tasks two_moons slcp] [--methods NPE NLE NRE] [--observations 1 2]
"""

import argparse
import csv
import importlib
import json
import time
from functools import cache
from pathlib import Path

import jax
import numpy as np

from models.sbibm import TASKS
from numpyro_inverse import sbi

RESULTS = Path(__file__).parent / "results"
SIMULATIONS, DRAWS = 10_000, 10_000
METHODS = ("NPE", "NLE", "NRE")


@cache
def estimator(task, method, seed):
    """Trained once for all observations, and the CPU seconds that it took."""
    model = importlib.import_module(f"models.sbibm.{task}").model
    kind = getattr(sbi, method)
    started = time.process_time()
    fitted = (kind(model) if method == "NPE" else kind(model, "x")).fit(
        jax.random.key(seed), num_simulations=SIMULATIONS
    )
    return fitted, time.process_time() - started


def posterior_draws(task, method, key, x, num, *, seed=0):
    """``num`` draws of theta given x, (num, d), under the estimator of a task."""
    fitted, _ = estimator(task, method, seed)
    draws = fitted.sample(key, x, num_samples=num // 4, num_chains=4)["theta"]
    return np.asarray(draws, float).reshape(num, -1)


def c2st(draws, reference, seed=1):
    """The benchmark's accuracy of telling ``draws`` from ``reference``."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    mean, spread = reference.mean(0), reference.std(0, ddof=1)
    points = np.concatenate([(draws - mean) / spread, (reference - mean) / spread])
    labels = np.concatenate([np.zeros(len(draws)), np.ones(len(reference))])
    width = 10 * points.shape[1]
    classifier = MLPClassifier(
        activation="relu", hidden_layer_sizes=(width, width), max_iter=10_000, solver="adam", random_state=seed
    )
    folds = KFold(n_splits=5, shuffle=True, random_state=seed)
    return float(np.mean(cross_val_score(classifier, points, labels, cv=folds, scoring="accuracy")))


def reference_draws(folder, task, k):
    """The benchmark's 10,000 draws for observation k."""
    if (folder / f"{task}.npz").exists():
        with np.load(folder / f"{task}.npz") as stored:
            return np.asarray(stored["reference_samples"][k - 1], float)
    path = folder / task / "files" / f"num_observation_{k}" / "reference_posterior_samples.csv.bz2"
    if not path.exists():
        raise FileNotFoundError(f"--reference: neither {task}.npz nor {path.relative_to(folder)} is in {folder}.")
    return np.loadtxt(path, delimiter=",", skiprows=1)


@cache
def published():
    """Published medians by task, method and number of simulations."""
    with (RESULTS / "sbibm_published.csv").open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {(r["task"], r["algorithm"], int(r["simulations"])): float(r["median"]) for r in rows}


def score(task, method, k, seed, folder):
    """One record of the results."""
    x = importlib.import_module(f"models.sbibm.{task}").observation(k)
    trained = estimator(task, method, seed)[1]
    started = time.process_time()
    draws = posterior_draws(task, method, jax.random.key(1000 * seed + k), x, DRAWS, seed=seed)
    sampled = time.process_time() - started
    return {
        "task": task,
        "method": method,
        "observation": k,
        "seed": seed,
        "simulations": SIMULATIONS,
        "c2st": c2st(draws, reference_draws(folder, task, k)),
        "train_cpu_s": trained,
        "sample_cpu_s": sampled,
        "device": jax.devices()[0].device_kind,
    }


def table(records):
    """Medians over observations beside the published ones, in Markdown; `better` is by how much the best is below."""
    lines = [
        f"Median C2ST over observations, {SIMULATIONS:,} simulations; published ones over ten observations.",
        "",
        "| task | " + " | ".join(METHODS) + " | observations | published: " + " | ".join(METHODS) + " | better by |",
        "|---" * (2 * len(METHODS) + 3) + "|",
    ]
    for task in TASKS:
        found = {m: [r["c2st"] for r in records if (r["task"], r["method"]) == (task, m)] for m in METHODS}
        ours = {m: np.median(values) for m, values in found.items() if values}
        if not ours:
            continue
        theirs = {m: published()[task, m, SIMULATIONS] for m in METHODS}
        counts = "/".join(str(len(found[m])) for m in METHODS)
        cells = [f"{ours[m]:.3f}" if m in ours else "" for m in METHODS]
        gain = min(theirs.values()) - min(ours.values())
        cells += [counts, *(f"{theirs[m]:.3f}" for m in METHODS), f"{gain:+.3f}"]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of the reference draws")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--observations", nargs="*", type=int, choices=range(1, 6), default=range(1, 6))
    parser.add_argument("--seed", type=int, default=0, help="of simulations, training and draws")
    parser.add_argument("--output", type=Path, default=RESULTS / "sbibm.json")
    options = parser.parse_args()
    records = json.loads(options.output.read_text()) if options.output.exists() else []
    if options.reference is None:
        print("No --reference folder, so no scores; what is stored:\n\n" + table(records))
        return
    done = {(r["task"], r["method"], r["observation"], r["seed"]) for r in records}
    for task in options.tasks:
        for method in options.methods:
            for k in options.observations:
                if (task, method, k, options.seed) in done:
                    continue
                records.append(score(task, method, k, options.seed, options.reference))
                print(
                    " ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in records[-1].values()), flush=True
                )
                options.output.write_text(json.dumps(records, indent=1) + "\n")
    options.output.with_suffix(".md").write_text("# Simulation-based inference\n\n" + table(records) + "\n")
    print("\n" + table(records))


if __name__ == "__main__":
    main()
