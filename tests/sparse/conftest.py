"""Small matrices of every kind, each a positive definite scipy matrix and the places of its nodes, or None."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp


def path(n, c):
    """The Laplacian of a path plus c; its determinant is sinh((n + 1) t) / sinh(t) with 2 cosh(t) = 2 + c."""
    return sp.csr_array(sp.diags_array([-np.ones(n - 1), np.full(n, 2 + c), -np.ones(n - 1)], offsets=[-1, 0, 1]))


def box(*shape):
    """A Laplacian with random conductivities and decays: not stationary."""
    rng = np.random.default_rng(1)
    index = np.arange(np.prod(shape)).reshape(shape)
    edges = [
        (np.take(index, range(m - 1), k).ravel(), np.take(index, range(1, m), k).ravel()) for k, m in enumerate(shape)
    ]
    i, j = np.concatenate(edges, axis=1)
    w = -rng.uniform(0.5, 2, len(i))
    upper = sp.coo_array((w, (i, j)), shape=(index.size, index.size))
    matrix = sp.csr_array(upper + upper.T)
    matrix = matrix + sp.diags_array(-matrix.sum(1) + rng.uniform(0.1, 1, index.size))
    return sp.csr_array(matrix), np.stack(np.unravel_index(np.arange(index.size), shape), axis=1).astype(float)


def islands():
    """What no cut divides well: a star with a node that all others touch, a path, and nodes that touch nothing."""
    star = sp.lil_array((30, 30))
    star[0, :] = star[:, 0] = -0.1
    star.setdiag(2.0)
    return sp.csr_array(sp.block_diag([star, path(9, 0.2), sp.eye_array(3)]))


def dense(pattern, values):
    """The dense matrix, as a function of the values."""
    lower = jnp.zeros((pattern.size, pattern.size)).at[pattern.rows, pattern.cols].set(values)
    return lower + jnp.tril(lower, -1).T


MATRICES = {
    "path": lambda: (path(30, 0.1), None, 8),
    "2-D": lambda: (*box(6, 5), 10),
    "3-D": lambda: (*box(3, 4, 3), 18),
    "islands": lambda: (islands(), None, 11),
    "one node": lambda: (sp.csr_array([[3.0]]), None, 8),
}


@pytest.fixture(scope="session", params=list(MATRICES))
def matrix(request):
    """A matrix, places or None, and a leaf size that gives a tree of several levels."""
    return MATRICES[request.param]()
