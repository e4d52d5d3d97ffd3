"""The peer's side of sparse_cholesky.py, run by it in the peers' environment: ``SIDE NDIM REPEATS``, JSON to stdout.

sparsax (CHOLMOD through the foreign functions of XLA), on the values and gradients that we are measured on. CPU time in
milliseconds, the least of some repeats, each at a kappa of its own, for sparsax keeps factors of matrices it has seen.
"""

import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import sparsax
from _record import package
from _sparse_cholesky_problem import SHIFT, matrices


def main(side, ndim, repeats):
    """Value and gradient with respect to log kappa and the field."""
    mass, stiffness, _ = matrices(side, ndim)
    both = sp.triu(mass + stiffness, format="coo")
    i, j = (jnp.asarray(axis, jnp.int32) for axis in both.coords)
    c, g = (jnp.asarray(np.asarray(m[both.coords[0], both.coords[1]]).ravel()) for m in (mass, stiffness))
    n = mass.shape[0]
    z = jnp.asarray(np.random.default_rng(1).normal(size=n))

    def matrix(log_kappa):
        return SHIFT * jnp.exp(2 * log_kappa) * c + g

    def whitened(log_kappa, z):
        return jnp.sum(sparsax.solve(i, j, matrix(log_kappa), z) ** 2)

    def centered(log_kappa, x):
        a = matrix(log_kappa)
        product = jnp.zeros(n).at[i].add(a * x[j]).at[j].add(jnp.where(i == j, 0, a * x[i]))
        return sparsax.logdet(i, j, a, n) - jnp.vdot(product, product)

    found = {"package": package("sparsax")}
    for name, function in (("whitened", whitened), ("centered", centered)):
        run = jax.jit(jax.value_and_grad(function, (0, 1)))
        jax.block_until_ready(run(0.3, z))
        seconds = []
        for k in range(repeats):
            start = time.process_time()
            value, gradient = jax.block_until_ready(run(0.01 * k, z))
            seconds.append(time.process_time() - start)
            if k == 0:
                found[f"{name}_value"], found[f"{name}_slope"] = float(value), float(gradient[0])
        found[name] = 1e3 * min(seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
