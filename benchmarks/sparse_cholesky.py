"""Sparse Cholesky: ``numpyro_inverse.sparse`` beside sparsax (CHOLMOD) and scipy's SuperLU, in one run.

The matrix is kappa^2 C + G on a jittered mesh, C the lumped mass and G the stiffness. Measured, in double precision on
one thread, are the value and the gradient with respect to log kappa and a field of

- ``whitened``: |A^-1 z|^2, one factorization and solves, what a whitened field costs;
- ``centered``: log det A - |A x|^2, one factorization and the selected inverse, what a log density costs.

CPU milliseconds, the least of some repeats, at a kappa that differs each time; setup (analysis on the host) and
compilation apart. ``chains`` is the cost of four matrices under ``vmap`` over that of one. SuperLU has values only:
factorization and one solve.

CHOLMOD solves for us, too, by ``sparse.cholmod``, where solves are all there is; the log determinant is always ours.

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
from _options import chosen_parts
from _record import keep, machine, measured, package
from _sparse_cholesky_problem import SHIFT, matrices
from scipy.sparse.linalg import splu

from numpyro_inverse import sparse

HERE = Path(__file__).parent
PROBLEMS = {"2-D 1e4": (100, 2), "2-D 1e5": (316, 2), "3-D 1e4": (22, 3)}
REPEATS = 7
METRICS = {
    "n": "nodes",
    "whitened": "whitened [CPU ms]",
    "centered": "centered [CPU ms]",
    "whitened_chains": "whitened, 4 chains over 1",
    "centered_chains": "centered, 4 chains over 1",
    "factor_mb": "factor [MB]",
    "setup_s": "setup [CPU s]",
    "whitened_compile_s": "whitened, compilation [CPU s]",
    "centered_compile_s": "centered, compilation [CPU s]",
}


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


def ours(side, ndim, solver=None, title="numpyro_inverse.sparse"):
    """Our row, or that of our derivatives around another solver."""
    mass, stiffness, points = matrices(side, ndim)
    start = time.process_time()
    pattern = sparse.analyze(mass + stiffness, points).with_solver(solver)
    row = {"title": title, "package": package("numpyro_inverse"), "n": pattern.size}
    row["setup_s"] = time.process_time() - start
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
        milliseconds, _ = clock(lambda k, f=several: f(problem, chains[0] + 0.01 * (k + 1), chains[1]))
        row[f"{name}_chains"] = milliseconds / row[name]
    return row


def ours_by_cholmod(side, ndim):
    """The row of a pattern that CHOLMOD solves for; its log determinant is ours."""
    row = ours(side, ndim, sparse.cholmod, "numpyro_inverse.sparse, solved by CHOLMOD")
    return {key: value for key, value in row.items() if not key.startswith("centered")}


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
    row = {"title": "scipy splu", "package": package("scipy"), "whitened": milliseconds, "whitened_value": square}
    return row | {"logdet": logdet, "note": "the value alone, without its gradient"}


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


def records(case, rows):
    """Of the rows of a problem; a peer that is missing has none."""
    out = []
    for row in rows:
        if not row.get("missing"):
            values = {METRICS[key]: value for key, value in row.items() if key in METRICS}
            out += measured(case, row["title"], row["package"], values, note=row.get("note", "values agree to 1e-8"))
    return out


def benchmark(name):
    """All rows of one problem."""
    rows = [run(*PROBLEMS[name]) for run in (ours, ours_by_cholmod, sparsax, superlu)]
    mine, with_cholmod, peer, lu = rows
    for key in ("whitened_value", "whitened_slope"):
        np.testing.assert_allclose(with_cholmod[key], mine[key], rtol=1e-8)
    np.testing.assert_allclose(mine["whitened_value"], lu["whitened_value"], rtol=1e-8)
    if not peer.get("missing"):
        for key in ("whitened_value", "whitened_slope", "centered_value", "centered_slope"):
            np.testing.assert_allclose(mine[key], peer[key], rtol=1e-8)
    for row in rows:
        print(json.dumps({"problem": name, **row}), flush=True)
    return rows


if __name__ == "__main__":
    with jax.enable_x64(True):
        for name in chosen_parts(__doc__, PROBLEMS):
            keep("sparse_cholesky", records(name, benchmark(name)), machine(threads=1))
