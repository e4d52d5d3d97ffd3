"""Eigenvalues from products alone, against matrices whose spectrum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse._linalg import power_iteration, randomized_eigenpairs

RNG = np.random.default_rng(0)


def matrix(values, size):
    """A symmetric matrix's products, and its orthonormal eigenvectors."""
    axes = np.linalg.qr(RNG.normal(size=(size, len(values))))[0]
    return lambda v: axes @ (values * (axes.T @ v)), axes


def test_eigenpairs_of_a_low_rank_matrix(key, x64):
    """Exact, descending, orthonormal."""
    values = np.array([100.0, 30.0, 10.0, 3.0, -0.5])
    product, axes = matrix(values, 40)
    found, vectors = jax.jit(lambda: randomized_eigenpairs(product, jnp.zeros(40), 5, key))()
    np.testing.assert_allclose(found, values, atol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-12)
    np.testing.assert_allclose((vectors * found) @ vectors.T, (axes * values) @ axes.T, atol=1e-10)


@pytest.mark.parametrize(("iterations", "error"), [(1, 1e-2), (3, 1e-6)])
def test_eigenpairs_of_a_decaying_matrix(iterations, error, key, x64):
    """The spectrum falls by a quarter from one to the next: one pass is right to a percent, three to 1e-6."""
    values = 1e3 * 0.75 ** np.arange(60)
    product, _ = matrix(values, 60)
    found, _ = jax.jit(lambda: randomized_eigenpairs(product, jnp.zeros(60), 20, key, iterations=iterations))()
    np.testing.assert_allclose(found, values[:20], rtol=error)
    if iterations == 1:  # no more than that
        assert np.max(np.abs(found / values[:20] - 1)) > 1e-6


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0], [1.0, -5.0, 2.0]])
def test_power_iteration(values, key, x64):
    """The largest modulus, from below."""
    product, _ = matrix(np.array(values), 3)
    bound, count = jax.jit(lambda: power_iteration(product, jax.random.normal(key, (3,)), 60))()
    largest = np.max(np.abs(values))
    assert bound == pytest.approx(largest, rel=1e-12)
    assert bound <= largest * (1 + 1e-14)
    assert count == 60


def test_power_iteration_stops_when_it_grows_no_more(key, x64):
    # Complex vectors of another shape than flat, and a gap of two: 4^-q is below the growth soon.
    values = np.array([[4.0, 2.0], [1.0, 0.5]])
    start = jax.random.normal(key, (2, 2), complex)
    bound, count = jax.jit(lambda: power_iteration(lambda v: values * v, start, 1000, growth=1e-8))()
    assert bound == pytest.approx(4.0, rel=1e-6)
    assert 3 < count < 40


def test_power_iteration_of_zero(key):
    bound, count = power_iteration(lambda v: 0 * v, jax.random.normal(key, (4,)), 5)
    assert bound == 0
    assert count == 5
