"""Sparse Cholesky: ``numpyro_inverse.sparse`` beside sparsax (CHOLMOD) and scipy's SuperLU, in one run.

The matrix is kappa^2 C + G on a jittered mesh, C the lumped mass and G the stiffness. Measured, in double precision on
one thread, are the value and the gradient with respect to log kappa and a field of

- ``whitened``: |A^-1 z|^2, one factorization and solves, what a whitened field costs;
- ``centered``: log det A - |A x|^2, one factorization and the selected inverse, what a log density costs.

CPU milliseconds, the least of some repeats, at a kappa that differs each time; setup (analysis on the host) and
compilation apart. ``chains`` is the cost of four matrices under ``vmap`` over that of one. SuperLU has values only:
factorization and one solve.

The peer's interpreter is $PEERS_PYTHON (default .venv-peers/bin/python).

    python benchmarks/sparse_cholesky.py [2-D 1e4] [2-D 1e5] [3-D 1e4]
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import jax
import jax.numpy as jnp
import numpy as np
from _sparse_cholesky_problem import SHIFT, matrices
from scipy.sparse.linalg import splu

from numpyro_inverse import sparse

HERE = Path(__file__).parent
PROBLEMS = {"2-D 1e4": (100, 2), "2-D 1e5": (316, 2), "3-D 1e4": (22, 3)}
REPEATS = 7


def whitened(problem, log_kappa, z):
    """The cost of a whitened field."""
    pattern, c, g = problem
    return jnp.sum(sparse.solve(pattern, SHIFT * jnp.exp(2 * log_kappa) * c + g, z) ** 2)


def centered(problem, log_kappa, x):
    """The cost of a log density."""
    pattern, c, g = problem
    values = SHIFT * jnp.exp(2 * log_kappa) * c + g
    product = pattern.mv(values, x)
    return sparse.logdet(pattern, values) - jnp.vdot(product, product)


def clock(run, *arguments):
    """The least of the CPU milliseconds of some runs."""
    seconds = []
    for k in range(REPEATS):
        start = time.process_time()
        found = jax.block_until_ready(run(k, *arguments))
        seconds.append(time.process_time() - start)
        first = found if k == 0 else first
    return 1e3 * min(seconds), first


def ours(side, ndim):
    """Our row."""
    mass, stiffness, points = matrices(side, ndim)
    start = time.process_time()
    pattern = sparse.analyze(mass + stiffness, points)
    row = {"title": "numpyro_inverse.sparse", "n": pattern.size, "setup_s": time.process_time() - start}
    row["factor_mb"] = pattern.num_factor_values * 8 / 1e6
    problem = (pattern, pattern.values(mass), pattern.values(stiffness))
    z = jnp.asarray(np.random.default_rng(1).normal(size=pattern.size))
    for name, function in (("whitened", whitened), ("centered", centered)):
        gradient = jax.value_and_grad(function, (1, 2))
        start = time.process_time()
        compiled = jax.jit(gradient).lower(problem, jnp.array(0.0), z).compile()
        row[f"{name}_compile_s"] = time.process_time() - start
        row[name], (value, slopes) = clock(lambda k, f=compiled: f(problem, jnp.array(0.01 * k), z))
        row[f"{name}_value"], row[f"{name}_slope"] = float(value), float(slopes[0])
        several = jax.jit(jax.vmap(gradient, (None, 0, 0)))
        chains = (jnp.linspace(0, 0.1, 4), jnp.stack([z] * 4))
        jax.block_until_ready(several(problem, *chains))
        milliseconds, _ = clock(lambda k, f=several: f(problem, chains[0] + 0.01 * k, chains[1]))
        row[f"{name}_chains"] = milliseconds / row[name]
    return row


def superlu(side, ndim):
    """SuperLU's row: values alone."""
    mass, stiffness, _ = matrices(side, ndim)
    z = np.random.default_rng(1).normal(size=mass.shape[0])

    def value(k):
        matrix = (SHIFT * np.exp(0.02 * k) * mass + stiffness).tocsc()
        options = {"SymmetricMode": True}
        factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options=options)
        return np.sum(factor.solve(z) ** 2), np.sum(np.log(np.abs(factor.U.diagonal())))

    milliseconds, (square, logdet) = clock(value)
    return {"title": "scipy splu, value alone", "whitened": milliseconds, "whitened_value": square, "logdet": logdet}


def sparsax(side, ndim):
    """sparsax's row, or a loud report that it is missing."""
    python = os.environ.get("PEERS_PYTHON", ".venv-peers/bin/python")
    command = [python, str(HERE / "_sparse_cholesky_peers.py"), str(side), str(ndim), str(REPEATS)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        print(f"PEER MISSING: sparsax: {why}. Set PEERS_PYTHON (benchmarks/peers.txt).", file=sys.stderr)
        return {"title": "sparsax", "missing": True}
    return {"title": "sparsax", **json.loads(done.stdout.splitlines()[-1])}


def benchmark(name):
    """All rows of one problem."""
    rows = [run(*PROBLEMS[name]) for run in (ours, sparsax, superlu)]
    mine, peer, lu = rows
    np.testing.assert_allclose(mine["whitened_value"], lu["whitened_value"], rtol=1e-8)
    if not peer.get("missing"):
        for key in ("whitened_value", "whitened_slope", "centered_value", "centered_slope"):
            np.testing.assert_allclose(mine[key], peer[key], rtol=1e-8)
        mine["whitened_over_sparsax"] = mine["whitened"] / peer["whitened"]
        mine["sparsax_over_centered"] = peer["centered"] / mine["centered"]
    for row in rows:
        print(json.dumps({"problem": name, **row}), flush=True)
    return rows


def table(results):
    """Markdown."""
    lines = [__doc__.split("\n")[0], ""]
    lines += [
        "| problem | | whitened ms | centered ms | 4 chains over 1 | factor MB | setup s | compile s |",
        "|" + "---|" * 8,
    ]
    for name, rows in results.items():
        for row in rows:
            if row.get("missing"):
                lines.append(f"| {name} | {row['title']} | MISSING | | | | | |")
                continue
            centered = f"{row['centered']:.1f}" if "centered" in row else ""
            rest = "| | | |"
            if "factor_mb" in row:
                rest = (
                    f"{row['whitened_chains']:.1f}, {row['centered_chains']:.1f} | {row['factor_mb']:.0f} "
                    f"| {row['setup_s']:.1f} | {row['whitened_compile_s']:.1f}, {row['centered_compile_s']:.1f} |"
                )
            lines.append(f"| {name} | {row['title']} | {row['whitened']:.1f} | {centered} | {rest}")
        mine = rows[0]
        if "whitened_over_sparsax" in mine:
            lines.append(
                f"| {name} | **ratio** | {mine['whitened_over_sparsax']:.2f} times sparsax's "
                f"| {mine['sparsax_over_centered']:.1f} times faster | | | | |"
            )
    if {"2-D 1e4", "2-D 1e5"} <= set(results):
        small, large = results["2-D 1e4"][0], results["2-D 1e5"][0]
        size = np.log(large["n"] / small["n"])
        powers = [np.log(large[key] / small[key]) / size for key in ("whitened", "centered")]
        lines += ["", f"From 1e4 to 1e5 nodes the cost grows as n^{powers[0]:.2f} and n^{powers[1]:.2f}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    with jax.enable_x64(True):
        results = {name: benchmark(name) for name in sys.argv[1:] or PROBLEMS}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "sparse_cholesky.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "results" / "sparse_cholesky.md").write_text(table(results))
    print(table(results))
