"""The elliptic coefficient problem: the source's own outputs, a plain finite-element solve, derivatives and cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
import scipy.sparse
import scipy.sparse.linalg
from numpyro.infer.util import log_density
from scipy.stats import norm

from models import elliptic


@pytest.fixture(scope="module")
def forward():
    """Compiled in double precision; call it under x64."""
    return jax.jit(elliptic.forward)


def test_the_source_s_outputs(forward, x64):
    stored = elliptic.published()
    for theta, z in zip(stored["test_theta"], stored["test_z"], strict=True):
        np.testing.assert_allclose(forward(theta), z, atol=1e-9)


def test_the_source_s_log_densities(x64):
    """In log theta: the source's prior plus the Jacobian is a normal of mean 4, up to one constant."""
    stored = elliptic.published()
    total = stored["test_log_likelihood"] + stored["test_log_prior"]
    joint = jax.jit(lambda x: log_density(elliptic.model, (stored["z_hat"],), {}, {"log_theta": x})[0])
    ours = np.array([joint(np.log(theta)) for theta in stored["test_theta"]])
    jacobian = np.log(stored["test_theta"]).sum(axis=(1, 2))
    np.testing.assert_allclose(np.diff(ours), np.diff(total + jacobian), rtol=1e-8)


def test_against_a_plain_assembly(forward, x64):
    """Every cell and node of the 32 x 32 mesh, a sparse direct solve and bilinear interpolation."""
    rng = np.random.default_rng(0)
    theta = np.exp(rng.normal(size=(8, 8)))
    n = 33
    cell = np.array([[4, -1, -1, -2], [-1, 4, -2, -1], [-1, -2, 4, -1], [-2, -1, -1, 4]]) / 6
    matrix, load = scipy.sparse.lil_matrix((n * n, n * n)), np.zeros(n * n)
    for y, x in np.ndindex(32, 32):
        nodes = y * n + x + np.array([0, 1, n, n + 1])
        matrix[np.ix_(nodes, nodes)] += theta[y // 4, x // 4] * cell
        load[nodes] += 10 / 4 / 32**2
    inner = np.arange(n * n).reshape(n, n)[1:-1, 1:-1].ravel()
    u = np.zeros(n * n)
    u[inner] = scipy.sparse.linalg.spsolve(matrix.tocsc()[np.ix_(inner, inner)], load[inner])
    points = np.arange(1, 14) / 14
    expected = scipy.interpolate.RegularGridInterpolator((np.linspace(0, 1, n),) * 2, u.reshape(n, n))
    x, y = np.meshgrid(points, points, indexing="ij")
    np.testing.assert_allclose(forward(theta), expected((y.ravel(), x.ravel())), atol=1e-12)


@pytest.mark.slow
def test_derivatives_in_both_modes(x64):
    rng = np.random.default_rng(1)
    x, v, w = rng.normal(size=(8, 8)), rng.normal(size=(8, 8)), rng.normal(size=169)

    @jax.jit
    def derivatives(x, v, w):
        f = lambda x: elliptic.forward(jnp.exp(x))  # noqa: E731
        tangent = jax.jvp(f, (x,), (v,))[1]
        return tangent, jax.vjp(f, x)[1](w)[0], (f(x + 1e-5 * v) - f(x - 1e-5 * v)) / 2e-5

    tangent, cotangent, difference = derivatives(x, v, w)
    np.testing.assert_allclose(tangent, difference, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.sum(cotangent * v), tangent @ w, rtol=1e-10)


def test_the_exchange_of_x_and_y(forward, x64):
    """It leaves truth, data and prior unchanged, and turns a field's data into the transposed field's."""
    stored = elliptic.published()
    np.testing.assert_array_equal(stored["theta_true"], stored["theta_true"].T)
    z = stored["z_hat"].reshape(13, 13)
    np.testing.assert_allclose(z, z.T, atol=1e-12)
    theta = np.exp(np.random.default_rng(2).normal(size=(8, 8)))
    np.testing.assert_allclose(forward(theta.T), np.asarray(forward(theta)).reshape(13, 13).T.ravel(), atol=1e-12)


def test_the_truth_fits(forward, x64):
    stored = elliptic.published()
    misfit = np.sum(((forward(stored["theta_true"]) - stored["z_hat"]) / elliptic.NOISE) ** 2)
    np.testing.assert_allclose(misfit, 0.556, atol=1e-3)


@pytest.mark.slow
def test_gradients_in_single_precision():
    """Of the log density at draws of the prior, against double precision: each component to 1e-4 of the largest.

    The solve's condition number, about 1e4 for these fields, bounds its error by 1e4 epsilon = 1e-3 of the solution; a
    wrong sign or a missing term is of order one.
    """
    draws = np.random.default_rng(2).normal(size=(3, 8, 8))

    def results(precision):
        data = jnp.asarray(elliptic.published()["z_hat"], precision)
        density = lambda x: log_density(elliptic.model, (data,), {}, {"log_theta": x})[0]  # noqa: E731
        values, slopes = jax.vmap(jax.value_and_grad(density))(jnp.asarray(draws, precision))
        return np.asarray(values), np.asarray(slopes)

    values, slopes = results(np.float32)
    assert values.dtype == slopes.dtype == np.float32
    with jax.enable_x64(True):
        expected, expected_slopes = results(np.float64)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_allclose(slopes, expected_slopes, rtol=0, atol=1e-4 * np.abs(expected_slopes).max())


@pytest.mark.slow
def test_simulation(key):
    """Residuals over 169 data and log-coefficients over 64, as chi-squared within 5 standard deviations."""
    x, data = elliptic.simulate(key)
    residual = (data - elliptic.forward(jnp.exp(x))) / elliptic.NOISE
    assert abs(np.sum(np.square(residual)) - 169) < 5 * np.sqrt(2 * 169)
    assert abs(np.sum(np.square((x - 4) / 2)) - 64) < 5 * np.sqrt(2 * 64)
    trace_prior = norm.logpdf(x, 4, 2).sum() + norm.logpdf(residual).sum() - 169 * np.log(elliptic.NOISE)
    np.testing.assert_allclose(log_density(elliptic.model, (data,), {}, {"log_theta": x})[0], trace_prior, rtol=1e-4)
