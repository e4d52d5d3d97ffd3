"""Factorizations of quasi-definite matrices against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from numpyro_inverse.sparse._quasidefinite import analyze_quasidefinite
from tests.domains.meshes import square_arrays

SIDE = 9  # a grid of 81 nodes, with two more that touch all others


def problem():
    points, _ = square_arrays(SIDE)
    i, j = np.divmod(np.arange(SIDE**2), SIDE)
    near = (abs(i[:, None] - i) <= 1) & (abs(j[:, None] - j) <= 1)
    n = SIDE**2 + 2
    graph = np.zeros((n, n))
    graph[:-2, :-2] = near
    graph[-2:, ::3] = graph[::3, -2:] = graph[-2:, -2:] = 1
    rng = np.random.default_rng(0)

    def definite(inside):
        a = rng.normal(size=(n, n)) * graph * (inside[:, None] & inside)
        a = (a + a.T) / 2
        return a + np.diag(abs(a).sum(1) + rng.uniform(0.5, 1, n) * inside)

    everywhere, inside = np.ones(n, bool), np.arange(n) % 3 == 0
    c, k, h = definite(everywhere), definite(everywhere), definite(inside)
    return points, graph, c, k + rng.normal(size=(n, n)) * graph / 4, h


def on(pattern, c, k, h):
    rows, cols = np.asarray(pattern.rows), np.asarray(pattern.cols)
    c, h = (jnp.asarray(a[rows, cols]) for a in (c, h))
    return c, (jnp.asarray(k[rows, cols]), jnp.asarray(k[cols, rows])), h


@jax.jit
def values(pattern, c, k, h, b):
    factor = pattern.factor(c, k, h)
    return factor.logdet(), factor.solve(b), factor.selected_inverse()


@jax.jit
def results(pattern, c, k, h, b, direction):
    def numbers(c, k, h):
        factor = pattern.factor(c, k, h)
        return factor.logdet() + jnp.sum(jnp.sin(factor.solve(b)))

    factor = pattern.factor(c, k, h)
    grads = jax.grad(numbers, (0, 1, 2))(c, k, h)
    change = jax.jvp(lambda h: pattern.factor(c, k, h).selected_inverse(), (h,), (direction,))[1]
    return factor.logdet(), factor.solve(b), factor.selected_inverse(), grads, change


@pytest.mark.slow
def test_against_dense_algebra(x64):
    """Values to 1e-10; derivatives by central differences of the dense result."""
    points, graph, c, k, h = problem()
    pattern = analyze_quasidefinite(sp.csr_array(graph), points, 2, leaf_size=12)
    assert len(pattern.doubled.levels) > 2
    rows, cols = np.asarray(pattern.rows), np.asarray(pattern.cols)
    rng = np.random.default_rng(1)
    b, direction = rng.normal(size=len(c)), rng.normal(size=len(rows))
    logdet, x, inverse, grads, change = results(pattern, *on(pattern, c, k, h), b, direction)

    def precision(c, k, h):
        return k.T @ np.linalg.solve(c, k) + h

    def number(c, k, h):
        p = precision(c, k, h)
        return np.linalg.slogdet(c)[1] + np.linalg.slogdet(p)[1] + np.sum(np.sin(np.linalg.solve(p, b)))

    p = precision(c, k, h)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(c)[1] + np.linalg.slogdet(p)[1], rtol=1e-12)
    np.testing.assert_allclose(x, np.linalg.solve(p, b), rtol=1e-9)
    np.testing.assert_allclose(inverse, np.linalg.inv(p)[rows, cols], rtol=1e-8, atol=1e-13)

    step, half = np.zeros((2, *c.shape))
    step[rows, cols] = step[cols, rows] = half[rows, cols] = direction
    diagonal = np.diag(np.diag(step))
    for i, (gradient, along) in enumerate(
        ((grads[0], step), (grads[1][0], half), (grads[1][1], half.T - diagonal), (grads[2], step))
    ):
        gradient = np.where(rows == cols, 0, gradient) if i == 2 else gradient
        moved = [[a + s * 1e-5 * along * (j == (0, 1, 1, 2)[i]) for j, a in enumerate((c, k, h))] for s in (1, -1)]
        slope = (number(*moved[0]) - number(*moved[1])) / 2e-5
        np.testing.assert_allclose(gradient @ direction, slope, rtol=1e-7)
    there = np.linalg.inv(p)
    np.testing.assert_allclose(change, -(there @ step @ there)[rows, cols], rtol=1e-8, atol=1e-13)


def test_what_is_not_definite_is_nan():
    points, graph, c, k, h = problem()
    pattern = analyze_quasidefinite(sp.csr_array(graph), points, 2, leaf_size=12)
    c, k, h = on(pattern, c, k, h - 1e3 * np.eye(len(h)))
    found = values(pattern, c, k, h, jnp.ones(pattern.size))
    assert all(np.isnan(np.asarray(x)).all() for x in found)
