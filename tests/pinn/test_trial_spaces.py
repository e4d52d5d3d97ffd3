"""Trial spaces, boxes, derivatives and collocation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gamma, kv

from numpyro_inverse import pinn

BOX = pinn.Box((-1.0, 0.0), (2.0, 3.0))
LINE = pinn.Box(-1.0, 1.0)


def test_points():
    grid = np.asarray(BOX.grid((3, 2)))
    np.testing.assert_allclose(grid[:3], [[-0.5, 0.75], [-0.5, 2.25], [0.5, 0.75]])
    np.testing.assert_allclose(pinn.Box(0.0, 1.0).nodes(3)[:, 0], [0.25, 0.5, 0.75])
    for points in (BOX.sobol(37, seed=0), BOX.latin_hypercube(37, seed=0)):
        assert points.shape == (37, 2)
        BOX.check_points("test", "points", points)
    cells = np.floor((np.asarray(BOX.latin_hypercube(10, seed=3)) - BOX.lower) / np.array(BOX.extent) * 10)
    np.testing.assert_array_equal(np.sort(cells, axis=0), np.repeat(np.arange(10)[:, None], 2, axis=1))
    assert BOX.boundary(5).shape == (20, 2)
    BOX.check_points("test", "points", BOX.boundary(5), on="boundary")
    moving = pinn.Box((0.0, 0.0), (1.0, 2.0), time=True)
    assert moving.boundary(4).shape == (8, 2)
    assert set(np.asarray(moving.boundary(4))[:, 0].tolist()) == {0.0, 1.0}
    moving.check_points("test", "points", moving.initial(6), on="initial")


def test_derivatives():
    u = lambda x: jnp.stack([jnp.sin(x[0]) * x[1] ** 3, x[0] * x[1]])  # noqa: E731
    x = jnp.array([0.7, 1.3])
    np.testing.assert_allclose(pinn.derivative(u, 0, 1, 1)(x), [6 * np.cos(0.7) * 1.3, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        pinn.laplacian(u)(x), [-np.sin(0.7) * 1.3**3 + 6 * np.sin(0.7) * 1.3, 0], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(pinn.laplacian(u, axes=(0,))(x), [-np.sin(0.7) * 1.3**3, 0], rtol=1e-5, atol=1e-6)


def test_linear_bases(x64):
    x = jnp.array([0.4, 1.1])
    s = (np.array([1.4 / 3, 1.1 / 3]) * 2) - 1
    chebyshev = [[np.cos(k * np.arccos(t)) for k in range(4)] for t in s]
    np.testing.assert_allclose(pinn.ChebyshevBasis(BOX, 4).functions(x), np.outer(*chebyshev).ravel(), rtol=1e-12)
    powers = [t ** np.arange(3) for t in s]
    np.testing.assert_allclose(pinn.PolynomialBasis(BOX, 3).functions(x), np.outer(*powers).ravel(), rtol=1e-12)
    sines = [np.sqrt(2) * np.sin(np.arange(1, n + 1) * np.pi * t) for n, t in zip((2, 3), (s + 1) / 2, strict=True)]
    np.testing.assert_allclose(pinn.SineBasis(BOX, (2, 3)).functions(x), np.outer(*sines).ravel(), rtol=1e-12)
    pair = pinn.SineBasis(BOX, 2, outputs=3).with_coefficients(jnp.arange(12.0).reshape(4, 3))
    assert pair(x).shape == (3,)


def test_the_exponential_expansion(x64):
    """Its functions solve the covariance's integral equation; the terms' share of the variance is the published one.

    The integral by the trapezoidal rule on 4,001 points, whose error at the kernel's kink is (h / range)^2 / 12.
    """
    basis = pinn.ExponentialExpansion(LINE, 20, range=0.25, scale=1.5)
    grid = np.linspace(-1, 1, 4001)
    values = np.asarray(jax.vmap(basis.functions)(jnp.asarray(grid)[:, None]))
    weights = np.full(4001, 2 / 4000)
    weights[[0, -1]] /= 2
    gram = (values * weights[:, None]).T @ values
    np.testing.assert_allclose(gram - np.diag(np.diagonal(gram)), 0, atol=1e-4)  # orthogonal
    for i in (0, 1000, 3000):
        image = (np.exp(-np.abs(grid[i] - grid) / 0.25) * weights) @ values * 1.5**2
        np.testing.assert_allclose(image, values[i] * np.diagonal(gram), atol=1e-4)
    np.testing.assert_allclose(basis.energy(), 0.9176, atol=5e-5)
    np.testing.assert_allclose(np.trace(gram), 0.9176 * 2 * 1.5**2, rtol=1e-3)


@pytest.mark.parametrize("ndim", [1, 2])
def test_the_matern_expansion(ndim, x64):
    """Its covariance is Matérn's, away from the padded boundary: to the mirrored process, exp(-2 padding / range)."""
    box, nu, rho = pinn.Box((0.0,) * ndim, (1.0,) * ndim), 2.5, 0.3
    basis = pinn.MaternExpansion(box, 40 if ndim == 1 else 900, range=rho, smoothness=nu, scale=2.0, padding=0.8)
    points = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (6, ndim)))
    rows = np.asarray(jax.vmap(basis.functions)(points))
    distance = np.linalg.norm(np.asarray(points)[:, None] - np.asarray(points)[None], axis=-1)
    z = np.sqrt(2 * nu) * np.where(distance > 0, distance, 1) / rho
    kernel = np.where(distance > 0, 2 ** (1 - nu) / gamma(nu) * z**nu * kv(nu, z), 1)
    np.testing.assert_allclose(rows @ rows.T, 4 * kernel, atol=0.02)


@pytest.mark.parametrize("outputs", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_networks(outputs, key):
    kinds = [
        pinn.MLP(BOX, width=8, depth=2, outputs=outputs, key=key),
        pinn.FourierFeatures(BOX, features=4, bandwidth=2.0, width=8, depth=2, outputs=outputs, key=key),
        pinn.ModifiedMLP(BOX, width=8, depth=2, outputs=outputs, key=key),
    ]
    x = BOX.grid(2)
    for network in kinds:
        u = pinn.Enforced(network, BOX.distance, 3.0)
        assert jax.vmap(u)(x).shape == (4,) if outputs is None else (4, 2)
        np.testing.assert_allclose(jax.vmap(u)(BOX.boundary(3)), 3.0, atol=1e-5)
        assert jax.tree.structure(u) == jax.tree.structure(pinn.Enforced(network, BOX.distance, 3.0))


def test_adaptive_points_go_where_the_residual_is(key):
    """All of it lies in a tenth of the interval: half of the probability there, plus a tenth of the other half."""
    pde = pinn.PDE(lambda u, x, theta: jnp.where(x[0] > 0.8, u(x), 0.0), LINE, points=LINE.grid(4), boundary=())
    adapted = pde.adapt(lambda x: jnp.ones(()), None, 200, seed=0)
    share = np.mean(np.asarray(adapted.points)[:, 0] > 0.8)
    assert abs(share - 0.55) < 5 * np.sqrt(0.55 * 0.45 / 200)
    assert len(np.unique(np.asarray(adapted.points), axis=0)) == 200


def test_conditions():
    box = pinn.Box(0.0, 1.0)
    u = lambda x: x[0] ** 2  # noqa: E731
    ends = box.boundary()
    assert [float(pinn.dirichlet(1.0, ends).residual(u, x, None)) for x in ends] == [-1.0, 0.0]
    assert [float(pinn.neumann(lambda x: x[0], 0, ends).residual(u, x, None)) for x in ends] == [0.0, 1.0]
