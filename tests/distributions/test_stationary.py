"""Stationary fields: spectra given by hand, windows, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from numpyro_inverse.distributions import SpectralField
from numpyro_inverse.domains import Grid


def second_difference(n, boundary):
    """The matrix of the negative second difference on cell centres, written out."""
    matrix = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    if boundary == "periodic":
        matrix[0, -1] = matrix[-1, 0] = -1
    else:  # the ghost cell repeats the value (neumann) or its negative (dirichlet)
        matrix[0, 0] = matrix[-1, -1] = 1 if boundary == "neumann" else 3
    return matrix


@pytest.mark.parametrize("boundary", ["neumann", "dirichlet", "periodic"])
def test_gmrf_precision_is_the_stencil(boundary, x64):
    """A Gaussian Markov random field in 2-D: covariance, density and variance from the inverse of its precision."""
    grid = Grid((4, 5), extent=(4.0, 5.0), boundary=boundary)  # cells of size 1
    precision = 30 * (
        np.kron(second_difference(4, boundary), np.eye(5))
        + np.kron(np.eye(4), second_difference(5, boundary))
        + 0.1 * np.eye(20)
    )
    field = SpectralField(grid, 1 / (30 * (grid.difference_eigenvalues + 0.1)), mean=2.0)
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    covariance, density, variance = jax.jit(lambda x: (field.covariance_matrix, field.log_prob(x), field.variance))(x)
    np.testing.assert_allclose(covariance, np.linalg.inv(precision), atol=1e-14)
    expected = multivariate_normal(np.full(20, 2.0), np.linalg.inv(precision)).logpdf(x.reshape(3, 20))
    np.testing.assert_allclose(density, expected, rtol=1e-10)
    np.testing.assert_allclose(np.ravel(variance), np.diagonal(np.linalg.inv(precision)), rtol=1e-12)


def test_spectrum_means_the_same_on_every_grid(x64):
    """A band-limited spectrum: covariance at shared cell centres does not change with refinement."""
    matrices = []
    for factor in (1, 3):
        grid = Grid(6 * factor)
        spectrum = np.where(grid.eigenvalues < (3.5 * np.pi) ** 2, 1 / (1 + grid.eigenvalues), 1e-30)
        shared = slice(factor // 2, None, factor)
        matrices.append(SpectralField(grid, spectrum).covariance_matrix[shared, shared])
    np.testing.assert_allclose(matrices[1], matrices[0], atol=1e-12)


def test_window_sees_the_leading_cells(x64):
    torus, window = Grid((5, 6), extent=(5.0, 6.0), boundary="periodic"), Grid((2, 4), extent=(2.0, 4.0))
    spectrum = np.random.default_rng(0).uniform(0.5, 2, size=(3, 5, 6))  # cosine and sine of one wave differ
    whole, seen = SpectralField(torus, spectrum), SpectralField(torus, spectrum, window=window)
    assert (seen.batch_shape, seen.event_shape) == ((3,), (2, 4))
    of = jax.jit(lambda field, z: (field.covariance_matrix, field.variance, field.from_base(z)))
    z = np.random.default_rng(1).normal(size=(3, 5, 6))
    covariance, variance, values = map(np.asarray, of(whole, z))
    expected = (
        covariance.reshape(3, 5, 6, 5, 6)[:, :2, :4, :2, :4].reshape(3, 8, 8),
        variance[:, :2, :4],
        values[:, :2, :4],
    )
    for found, value in zip(of(seen, z), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-13, atol=1e-14)
    assert seen.mean.shape == (3, 2, 4)


@pytest.mark.slow
def test_windowed_density_in_single_precision_at_any_scale():
    """Rounding leaves the products of a covariance of size 1e6 asymmetric by more than any absolute tolerance.

    A power of two changes no rounding of the covariance, its Cholesky factor and the quadratic form, whatever their
    condition. What differs is the sum of n logarithms, by n epsilons of the sum of their absolute values.
    """
    torus, n = Grid((30, 31), extent=(30.0, 31.0), boundary="periodic"), 9 * 13
    small = SpectralField(torus, (1 + torus.eigenvalues) ** -1.5, window=Grid((9, 13), extent=(9.0, 13.0)))
    large = SpectralField(torus, 2.0**20 * (1 + torus.eigenvalues) ** -1.5, window=Grid((9, 13), extent=(9.0, 13.0)))
    covariance = np.asarray(large.covariance_matrix)
    np.testing.assert_array_equal(covariance, covariance.T)
    np.testing.assert_array_equal(covariance, np.float32(2**20) * np.asarray(small.covariance_matrix))
    x = np.random.default_rng(0).normal(size=(9, 13)).astype(np.float32)
    logarithms = np.log(np.diagonal(np.linalg.cholesky(covariance.astype(float))))
    rounding = n * np.finfo(np.float32).eps * (n * np.log(2.0**10) + np.abs(logarithms).sum())
    expected = float(small.log_prob(x)) - n * np.log(2.0**10)
    np.testing.assert_allclose(float(large.log_prob(np.float32(2**10) * x)), expected, rtol=1e-6, atol=rounding)


@pytest.mark.parametrize(
    ("spectrum", "arguments", "message"),
    [
        (np.ones((4, 4)), {}, r"`spectrum` must broadcast to batch \+ \(4, 5\); got shape \(4, 4\)"),
        (-np.ones((4, 5)), {}, "`spectrum` must be positive and finite; got -1.0"),
        (np.full((4, 5), np.nan), {}, "`spectrum` must be positive and finite; got nan"),
        (np.ones((4, 5)), {"mean": np.inf}, "`mean` must be finite"),
        (np.ones((4, 5)), {"mean": np.zeros((2, 4, 4))}, r"`mean` must broadcast to batch \+ \(4, 5\)"),
        (np.ones((4, 5)), {"window": Grid((4, 6))}, r"`window` \(4, 6\) does not fit into `domain` \(4, 5\)"),
        (np.ones((4, 5)), {"window": Grid((2, 2))}, r"the cells of `window`, of sides \(0.5, 0.5\), are not those of"),
        (np.ones((4, 5)), {"window": Grid(4)}, r"`window` \(4,\) does not fit into `domain` \(4, 5\)"),
    ],
)
def test_bad_input(spectrum, arguments, message):
    with pytest.raises(ValueError, match="SpectralField: " + message):
        SpectralField(Grid((4, 5)), spectrum, **arguments)


def test_dense_covariance_has_a_limit():
    grid = Grid(4097)
    with pytest.raises(ValueError, match="up to 4096 cells; this field has 4097"):
        _ = SpectralField(grid, jnp.ones(4097)).covariance_matrix
