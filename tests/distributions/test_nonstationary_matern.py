"""Fields with ranges, scales and directions that vary, and barriers: against dense algebra written out, and what the
stationary field says where nothing varies."""

from math import factorial, gamma, pi

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_inverse as ni
from numpyro_inverse.distributions import BarrierMatern, Matern, NonstationaryMatern
from numpyro_inverse.domains import Barrier, ElementMatrices, Mesh
from tests.domains.meshes import cube, interval, sphere, square


def _assembled(mesh, weight, tensor):
    """Mass matrix with a weight in each simplex, stiffness with a tensor in each: one simplex after the other."""
    n, d = mesh.points.shape
    mass, stiffness = np.zeros((n, n)), np.zeros((n, n))
    for corners, w, h in zip(mesh.simplices, weight, tensor, strict=True):
        hats = np.linalg.inv(np.concatenate([np.ones((d + 1, 1)), mesh.points[corners]], axis=1))
        volume = 1 / abs(np.linalg.det(hats)) / factorial(d)
        for i, a in enumerate(corners):
            for j, b in enumerate(corners):
                mass[a, b] += w * volume * (2 if i == j else 1) / ((d + 1) * (d + 2))
                stiffness[a, b] += volume * hats[1:, i] @ h @ hats[1:, j]
    return mass, stiffness


def _precision(mesh, nu, range_, scale, tensor):
    d = mesh.points.shape[1]
    alpha, e = round(nu + d / 2), len(mesh.simplices)
    kappa = np.sqrt(8 * nu) / range_
    mass, _ = _assembled(mesh, np.ones(e), np.tile(tensor, (e, 1, 1)))
    weighted, stiffness = _assembled(mesh, (kappa**2)[mesh.simplices].mean(axis=1), np.tile(tensor, (e, 1, 1)))
    k = weighted + stiffness
    q = k
    for _ in range(alpha - 1):
        q = k @ np.linalg.solve(mass, q)
    root = np.sqrt(np.linalg.det(tensor))
    tau = np.sqrt(gamma(nu) / (gamma(alpha) * (4 * pi) ** (d / 2) * root * kappa ** (2 * nu))) / scale
    return tau[:, None] * q * tau


CASES = {
    "line, 1/2": (lambda: interval(6), 0.5),
    "plane, 1": (lambda: square(4), 1.0),
    "space, 1/2": (lambda: cube(3), 0.5),
}
# Log range and log scale, each with a constant and a slope, and two numbers of the tensor.
START = np.array([-0.4, 0.5, 0.2, -0.3, 0.4, 0.25])


def _parameters(theta, x, d, xp):
    low = xp.eye(d) * xp.exp(theta[4])
    if d > 1:
        low = low + theta[5] * np.eye(d, k=-1)
    return xp.exp(theta[0] + theta[1] * x), xp.exp(theta[2] + theta[3] * x), low @ low.T


def _field(theta, elements, nu):
    mesh = elements.mesh
    range_, scale, tensor = _parameters(theta, mesh.points[:, 0], mesh.ndim, jnp)
    return NonstationaryMatern(elements, range=range_, scale=scale, smoothness=nu, anisotropy=tensor)


def _all(theta, elements, nu, x):
    field = _field(theta, elements, nu)
    density = jax.value_and_grad(lambda theta: _field(theta, elements, nu).log_prob(x))(theta)
    return *density, jax.vmap(field.from_base)(jnp.eye(elements.mesh.size)), field.variance


_all = jax.jit(_all, static_argnums=2)


@pytest.mark.parametrize("name", [pytest.param(k, marks=[pytest.mark.slow] * ("line" not in k)) for k in CASES])
def test_density_gradient_and_draws_against_dense_algebra(name, x64):
    """1e-8 relative; the derivatives of the dense log density by central differences of fourth order."""
    make, nu = CASES[name]
    mesh = make()
    x = np.cos(3 * mesh.points[:, 0]) + 0.3 * np.sin(5 * mesh.points[:, -1])

    def dense(theta):
        return _precision(mesh, nu, *_parameters(theta, mesh.points[:, 0], mesh.ndim, np))

    def density(theta):
        q = dense(theta)
        return 0.5 * (np.linalg.slogdet(q)[1] - x @ q @ x - len(x) * np.log(2 * pi))

    value, slopes, root, variance = _all(START, ElementMatrices(mesh), nu, x)
    np.testing.assert_allclose(value, density(START), rtol=1e-8)
    for i in range(6 if mesh.ndim > 1 else 5):
        far, near, below, further = (density(START + step * 1e-3 * np.eye(6)[i]) for step in (2, 1, -1, -2))
        np.testing.assert_allclose(slopes[i], (8 * (near - below) - (far - further)) / 12e-3, rtol=1e-8)
    covariance = np.linalg.inv(dense(START))
    np.testing.assert_allclose(root.T @ root, covariance, atol=1e-9 * np.max(covariance))
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-9)


@pytest.mark.slow
def test_where_nothing_varies_it_is_the_stationary_field(x64):
    mesh = interval(6)
    known = {"range": 0.6, "scale": 1.3, "smoothness": 1.5}
    plain, varying = Matern(mesh, **known), NonstationaryMatern(ElementMatrices(mesh), **known)
    z = jnp.linspace(-1.0, 1.0, 6)
    np.testing.assert_allclose(varying.from_base(z), plain.from_base(z), rtol=1e-10)
    batch = NonstationaryMatern(ElementMatrices(mesh), range=0.6, scale=jnp.array([[1.3], [2.6]]), smoothness=1.5)
    assert batch.batch_shape == (2,)
    both = jax.jit(lambda field: (field.log_prob(z), field.covariance_matrix))
    (density, covariance), (exact, dense) = both(batch), both(plain)
    np.testing.assert_allclose(density[0], exact, rtol=1e-10)
    np.testing.assert_allclose(covariance, [dense, 4 * dense], rtol=1e-9)


@pytest.mark.slow
def test_directions(x64):
    """The covariance is that of the isotropic field on the mesh at the places H^(-1/2) x, to rounding: the finite
    elements of one are those of the other, and the tensor's determinant is in the scale.
    """
    mesh, angle = square(5, low=-1.0, high=1.0), 0.5
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([1.6, 0.9])
    tensor = turn @ np.diag(stretch) @ turn.T
    known = {"range": 0.55, "scale": 1.3, "smoothness": 1.0}
    field = NonstationaryMatern(ElementMatrices(mesh), anisotropy=tensor, **known)
    there = Matern(Mesh(mesh.points @ turn @ np.diag(stretch**-0.5) @ turn.T, mesh.simplices), **known)
    np.testing.assert_allclose(field.covariance_matrix, there.covariance_matrix, rtol=1e-9, atol=1e-12)


def _wall():
    """A square with a wall through it, all but a gap, whose middle is at x = 0.5."""
    mesh = square(13, jitter=0.0)
    x, y = mesh.points[mesh.simplices].mean(axis=1).T
    return mesh, (np.abs(x - 0.5) < 0.1) & (y < 0.7)


@jax.jit
def _root_and_density(field, x):
    return jax.vmap(field.from_base)(jnp.eye(field.domain.size)), field.log_prob(x), field.variance


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["plane", "space"])
def test_barriers_against_dense_algebra(shape, x64):
    if shape == "plane":
        mesh = square(5, jitter=0.0)
        inside = np.abs(mesh.points[mesh.simplices].mean(axis=1)[:, 0] - 0.5) < 0.26
    else:
        mesh = cube(3)
        inside = mesh.points[mesh.simplices].mean(axis=1)[:, 0] < 0.5
    d, (range_, scale, fraction) = mesh.ndim, (0.7, 1.3, 0.2)
    nu, e = 2 - d / 2, len(mesh.simplices)
    ranges = np.where(inside, fraction * range_, range_)
    plain, stiffness = _assembled(mesh, np.ones(e), ranges[:, None, None] ** 2 / (8 * nu) * np.eye(d))
    noise, _ = _assembled(mesh, (4 * pi) ** (d / 2) / gamma(nu) / (8 * nu) ** (d / 2) * ranges**d, np.zeros((e, d, d)))
    r = plain + stiffness
    covariance = scale**2 * np.linalg.inv(r) @ noise @ np.linalg.inv(r)
    field = BarrierMatern(Barrier(mesh, inside, fraction=fraction), range=range_, scale=scale)
    x = np.cos(3 * mesh.points[:, 0])
    root, density, variance = _root_and_density(field, x)
    np.testing.assert_allclose(root.T @ root, covariance, atol=1e-10 * np.max(covariance))
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-9)
    np.testing.assert_allclose(density, dist.MultivariateNormal(0.0, covariance).log_prob(x), rtol=1e-8)


@pytest.mark.slow
def test_nothing_is_correlated_through_a_wall():
    """Two places on both sides, at a third of the range: correlated without the wall, hardly with it, and at its gap
    again."""
    mesh, inside = _wall()
    at = np.array([[0.33, 0.25], [0.67, 0.25], [0.33, 0.9], [0.67, 0.9]])
    nodes = np.argmin(np.linalg.norm(mesh.points[:, None] - at, axis=-1), axis=0)

    @jax.jit
    def correlations(field):
        rows = jax.vmap(field.from_base)(jnp.eye(mesh.size))[:, nodes]
        covariance = rows.T @ rows
        scale = jnp.sqrt(jnp.diag(covariance))
        return covariance / scale[:, None] / scale

    walled = correlations(BarrierMatern(Barrier(mesh, inside), range=1.0, scale=1.0))
    free = correlations(Matern(mesh, range=1.0, scale=1.0, smoothness=1.0))
    assert free[0, 1] > 0.6
    assert walled[0, 1] < 0.25
    assert walled[2, 3] > 0.5


@pytest.mark.slow
def test_ranges_that_are_inferred_in_a_model():
    mesh = interval(6)
    functions = np.stack([np.ones(6), mesh.points[:, 0]], axis=1)

    def model(elements):
        theta = numpyro.sample("theta", dist.Normal(0, 1).expand([2]).to_event(1))
        field = NonstationaryMatern(elements, range=jnp.exp(functions @ theta), scale=1.0, smoothness=0.5)
        numpyro.sample("u", field)

    seeded = numpyro.handlers.seed(ni.whiten(model), 0)
    trace = numpyro.handlers.trace(seeded).get_trace(ElementMatrices(mesh))
    assert trace["u_latent"]["value"].shape == (6,)
    assert trace["u"]["infer"]["domain"] == mesh
    nan = jax.jit(lambda r: NonstationaryMatern(ElementMatrices(mesh), range=r, scale=1.0, smoothness=0.5).log_prob(r))
    assert np.isnan(nan(jnp.array([1.0, 1, -1, 1, 1, 1])))


OK = {"range": 0.5, "scale": 1.0, "smoothness": 1.0}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"range": np.ones(5)}, "`range` must be a number, or end in one value for each of the 16 nodes"),
        ({"scale": -1.0}, "`scale` must be positive"),
        ({"smoothness": 0.7}, "`smoothness` must be one of"),
        ({"anisotropy": np.eye(3)}, r"`anisotropy` must have shape \(2, 2\)"),
        ({"anisotropy": -np.eye(2)}, "symmetric and positive definite"),
        ({"anisotropy": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric and positive definite"),
        ({"anisotropy": np.full((2, 2), np.nan)}, "`anisotropy` must be finite"),
    ],
    ids=["range", "scale", "smoothness", "tensor", "negative", "skew", "nan"],
)
def test_bad_arguments(change, match):
    with pytest.raises(ValueError, match=match):
        NonstationaryMatern(ElementMatrices(square(4)), **(OK | change))


def test_bad_kinds():
    mesh = square(4)
    with pytest.raises(TypeError, match="`elements` must be an ElementMatrices"):
        NonstationaryMatern(mesh, **OK)
    with pytest.raises(TypeError, match="`mesh` must be a Mesh"):
        ElementMatrices(3)
    with pytest.raises(ValueError, match="which a surface in space does not have"):
        NonstationaryMatern(ElementMatrices(sphere(12)), anisotropy=np.eye(3), **OK)
    with pytest.raises(NotImplementedError, match="not known on another mesh"):
        NonstationaryMatern(ElementMatrices(mesh), **OK).ritz_projection(mesh)
    with pytest.raises(TypeError, match="`barrier` must be a Barrier"):
        BarrierMatern(mesh, range=1.0, scale=1.0)
    with pytest.raises(TypeError, match="`inside` must be booleans"):
        Barrier(mesh, np.ones(18))
    with pytest.raises(ValueError, match="`inside` must be true for some of the 18 simplices"):
        Barrier(mesh, np.ones(18, bool))
    with pytest.raises(ValueError, match="`fraction` must be in"):
        Barrier(mesh, np.arange(18) < 3, fraction=1.5)
    barrier = Barrier(mesh, np.arange(18) < 3)
    with pytest.raises(NotImplementedError, match="not known on another mesh"):
        BarrierMatern(barrier, range=1.0, scale=1.0).ritz_projection(mesh)
