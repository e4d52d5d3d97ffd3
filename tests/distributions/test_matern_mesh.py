"""Matérn fields on meshes: against dense algebra, the analytic covariance, boundaries, bad input, NUTS."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

import numpyro_inverse as ni
from numpyro_inverse.distributions import Matern, MaternMesh
from numpyro_inverse.distributions._mass_functions import mass_inverse, mass_inverse_root, mass_root
from tests.distributions.mesh_reference import covariance_columns, matern, on_sphere, precision
from tests.domains.meshes import cube, disc, interval, l_shape, sphere, square

RANGE, SCALE = 0.7, 1.3
LAWS = {
    "line, 1/2, Robin": (lambda: interval(7), 0.5, "robin"),
    "plane, 1, Robin": (lambda: square(7), 1.0, "robin"),
    "plane, 3": (lambda: square(4), 3.0, "neumann"),
    "space, 3/2": (lambda: cube(3), 1.5, "neumann"),
}


def _density(mesh, law, nu, range, scale, x):
    def log_prob(range, scale):
        return Matern(mesh, range=range, scale=scale, smoothness=nu, boundary=law).log_prob(x)

    return jax.value_and_grad(log_prob, (0, 1))(range, scale)


_density = jax.jit(_density, static_argnums=(1, 2))


@jax.jit
def _root(field):
    z = jnp.eye(field.domain.size)
    return jax.vmap(field.from_base)(z), field.variance


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("plane, 1, Robin", "plane, 3", "space, 3/2")))
        for name in LAWS
    ],
)
def test_density_gradient_and_draws_against_dense_algebra(name, x64):
    """1e-8 relative, in double precision; the derivatives of the dense log density by central differences."""
    make, nu, boundary = LAWS[name]
    mesh = make()
    x = np.cos(3 * mesh.points[:, 0]) + 0.3 * np.sin(5 * mesh.points[:, -1])

    def dense(range_, scale):
        q = precision(mesh, nu, range_, scale, boundary == "robin")
        return 0.5 * (np.linalg.slogdet(q)[1] - x @ q @ x - len(x) * np.log(2 * np.pi))

    value, slopes = _density(mesh, boundary, nu, RANGE, SCALE, x)
    np.testing.assert_allclose(value, dense(RANGE, SCALE), rtol=1e-8)
    for slope, step in zip(slopes, np.eye(2), strict=True):
        at = np.array([RANGE, SCALE]) + np.outer([2, 1, -1, -2], 1e-3 * step)
        far, near, below, further = (dense(*p) for p in at)
        np.testing.assert_allclose(slope, (8 * (near - below) - (far - further)) / 12e-3, rtol=1e-8)

    field = Matern(mesh, range=RANGE, scale=SCALE, smoothness=nu, boundary=boundary)
    root, variance = _root(field)
    covariance = np.linalg.inv(precision(mesh, nu, RANGE, SCALE, boundary == "robin"))
    np.testing.assert_allclose(root.T @ root, covariance, atol=1e-9 * np.max(covariance))
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-9)


@jax.jit
def _functions(mesh):
    identity = jnp.eye(mesh.size)
    transposed = jax.linear_transpose(lambda v: mass_root(mesh, v), identity[0])
    functions = (*(partial(f, mesh) for f in (mass_root, mass_inverse_root, mass_inverse)), lambda v: transposed(v)[0])
    return [jax.vmap(function)(identity).T for function in functions]


@pytest.mark.parametrize(("make", "d"), [(lambda: interval(9), 1), (lambda: cube(3), 3)], ids=["line", "space"])
def test_functions_of_the_mass_matrix(make, d, x64):
    mesh = make()
    mass = mesh.mass_matrix.toarray()
    spread = np.linalg.eigvalsh(mass / np.sqrt(np.outer(np.diag(mass), np.diag(mass))))
    assert 0.5 - 1e-9 <= spread.min() <= spread.max() <= (d + 2) / 2 + 1e-9
    root, back, inverse, transposed = _functions(mesh)
    np.testing.assert_allclose(root @ root.T, mass, atol=1e-14)
    np.testing.assert_allclose(back @ root, np.eye(mesh.size), atol=1e-12)
    np.testing.assert_allclose(inverse @ mass, np.eye(mesh.size), atol=1e-12)
    np.testing.assert_allclose(transposed, root.T, atol=1e-14)


def _distance(mesh, nodes):
    return np.linalg.norm(mesh.points[:, None] - mesh.points[nodes], axis=-1)


CONVERGENCE = {
    "square": (lambda k: square(6 * k + 1, low=-1.2, high=1.2, jitter=0.2), lambda p: (np.abs(p) < 0.4).all(1)),
    "disc": (lambda k: disc(3 * k, 1.2), lambda p: np.linalg.norm(p, axis=1) < 0.5),
    "l_shape": (lambda k: l_shape(10 * k + 1, -2.0, 2.0), lambda p: np.linalg.norm(p + 1.0, axis=1) < 0.3),
    "sphere": (lambda k: sphere(94 * k**2), lambda p: p[:, 2] > -2),
}


@pytest.mark.parametrize("shape", CONVERGENCE)
@pytest.mark.parametrize("nu", [1.0, 2.0])
def test_the_covariance_converges_to_matern_s(shape, nu):
    """Inside, relative in the mean square over the places: second order in the edges, and at an eighth of the range at
    most 1.5 %; at single places at most 4 %, the worst of which are the variances themselves."""
    range_, errors = 0.4, []
    for k in (4, 8):
        mesh = CONVERGENCE[shape][0](k)
        inside = CONVERGENCE[shape][1](mesh.points)
        nodes = np.flatnonzero(inside)[:: max(1, inside.sum() // 16)]
        columns = covariance_columns(mesh, nu, range_, nodes)[inside]
        if shape == "sphere":
            exact = on_sphere(np.clip(mesh.points @ mesh.points[nodes].T, -1, 1), nu, range_)[inside]
        else:
            exact = matern(_distance(mesh, nodes), nu, range_)[inside]
        weight = np.asarray(mesh.weights)[inside, None]
        errors.append(np.sqrt(np.sum(weight * (columns - exact) ** 2) / np.sum(weight * exact**2)))
    assert np.abs(columns - exact).max() < 0.04
    assert errors[1] < 0.015
    assert 1.6 < np.log2(errors[0] / errors[1]) < 2.4


@pytest.mark.parametrize("nu", [1.0, 2.0])
def test_robin_conditions_and_a_margin_keep_the_variance_at_the_edge(nu):
    """Edges within 6 % of 1 on average, where Neumann's condition doubles the variance and has four times of it at
    corners; each place within 15 %, within 25 % in the corner."""
    range_ = 0.2
    mesh = square(41, jitter=0.1)
    at = np.concatenate([[[x, 0.0] for x in np.linspace(0.35, 0.65, 7)], [[0.0, 0.0]]])
    nodes = np.argmin(np.linalg.norm(mesh.points[:, None] - at, axis=-1), axis=0)
    neumann, robin = (np.diag(covariance_columns(mesh, nu, range_, nodes, robin=r)[nodes]) for r in (False, True))
    np.testing.assert_allclose(neumann, [*[2.0] * 7, 4.0], rtol=0.1)
    np.testing.assert_allclose(robin[:7].mean(), 1, atol=0.06)
    np.testing.assert_allclose(robin, 1, atol=0.25)
    wide = square(57, low=-0.2, high=1.2, jitter=0.1)
    nodes = np.argmin(np.linalg.norm(wide.points[:, None] - at, axis=-1), axis=0)
    np.testing.assert_allclose(np.diag(covariance_columns(wide, nu, range_, nodes)[nodes]), 1, atol=0.06)


def test_single_precision_and_what_is_bad_while_traced():
    mesh = interval(7)
    x = np.cos(3 * mesh.points[:, 0]).astype(np.float32)
    q = precision(mesh, 0.5, RANGE, SCALE, robin=True)
    exact = 0.5 * (np.linalg.slogdet(q)[1] - x @ q @ x - len(x) * np.log(2 * np.pi))
    value, slopes = _density(mesh, "robin", 0.5, RANGE, SCALE, x)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert np.all(np.isfinite(slopes))
    assert np.isnan(_density(mesh, "robin", 0.5, -RANGE, SCALE, x)[0])


def test_the_class_and_its_arguments():
    mesh = interval(5)
    field = Matern(mesh, range=jnp.array([0.5, 0.6]), scale=1.0, smoothness=0.5, mean=jnp.arange(5.0))
    assert isinstance(field, MaternMesh)
    assert (field.batch_shape, field.event_shape) == ((2,), (5,))
    assert jax.tree.unflatten(jax.tree.structure(field), jax.tree.leaves(field)).domain == mesh
    assert isinstance(Matern(ni.domains.Grid(5), range=0.5, scale=1.0, smoothness=0.7), Matern)


OK = {"range": 0.5, "scale": 1.0, "smoothness": 1.0}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"range": -1.0}, ValueError, "`range` must be positive"),
        ({"scale": np.nan}, ValueError, "`scale` must be positive"),
        ({"smoothness": 0.0}, ValueError, "`smoothness` must be positive"),
        ({"smoothness": 4.0}, ValueError, "dimension 2 `smoothness` must be one of 1, 2, 3, so that alpha"),
        ({"smoothness": 0.7, "tolerance": 0.0}, ValueError, "`tolerance` must be positive"),
        ({"boundary": "periodic"}, ValueError, "`boundary` must be one of neumann, robin"),
        ({"robin_coefficient": 1.0}, ValueError, 'say boundary="robin"'),
        ({"boundary": "robin", "robin_coefficient": -1.0}, ValueError, "`robin_coefficient` must be finite and not"),
        ({"mean": np.zeros(3)}, ValueError, "`mean` must broadcast to batch"),
        ({"range": np.ones(2), "scale": np.ones(3)}, ValueError, "do not broadcast"),
    ],
    ids=["range", "scale", "zero", "smooth", "tolerance", "boundary", "coefficient", "sign", "mean", "batch"],
)
def test_bad_arguments(change, error, match):
    with pytest.raises(error, match=match):
        Matern(square(4), **(OK | change))


def test_bad_kinds():
    with pytest.raises(TypeError, match="a Grid or a Mesh"):
        Matern(np.zeros((3, 2)), **OK)
    with pytest.raises(TypeError, match="`smoothness` must be a number known outside of `jit`"):
        jax.jit(lambda nu: Matern(square(4), range=1.0, scale=1.0, smoothness=nu).log_prob(jnp.zeros(16)))(1.0)
    with pytest.raises(ValueError, match=r"the trailing axes of `value` must be \(16,\)"):
        Matern(square(4), **OK).log_prob(jnp.zeros(15))


def _model(mesh, points, y=None):
    range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.4))
    u = numpyro.sample("u", Matern(mesh, range=range_, scale=1.0, smoothness=0.5))
    numpyro.sample("y", dist.Normal(points(u), 0.5).to_event(1), obs=y)


@pytest.mark.statistical
def test_whitened_and_exported_as_on_a_grid(key):
    """Posterior means against quadrature over the range and dense algebra, within five Monte Carlo standard errors by
    the effective sample size (false alarms 1e-5)."""
    az = pytest.importorskip("arviz")
    mesh = interval(9)
    seen = mesh.interpolation(np.linspace(0.03, 0.97, 6))
    y = jnp.asarray([0.3, 1.2, 0.8, -0.4, -0.9, 0.2])
    settings = {"num_chains": 2, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(NUTS(ni.whiten(_model)), num_warmup=150, num_samples=300, **settings)
    mcmc.run(key, mesh, seen, y)
    arguments = {"model_args": (mesh, seen, y)}
    tree = ni.to_arviz(mcmc, **arguments)
    posterior = tree["posterior"].to_dataset()
    assert posterior["u"].dims == ("chain", "draw", "node")
    a = np.asarray(seen.as_matrix())
    log_weights, means, grid = [], [], np.linspace(-2.8, 0.8, 80)
    for log_range in grid:
        covariance = np.linalg.inv(precision(mesh, 0.5, np.exp(log_range)))
        data = a @ covariance @ a.T + 0.25 * np.eye(6)
        misfit = y @ np.linalg.solve(data, y) + np.linalg.slogdet(data)[1]
        log_weights.append(-0.5 * (misfit + (log_range + 1) ** 2 / 0.16))
        means.append(covariance @ a.T @ np.linalg.solve(data, y))
    weights = np.exp(np.asarray(log_weights) - np.max(log_weights))
    weights /= weights.sum()
    for draws, exact in ((np.log(posterior["range"]), grid), (posterior["u"], np.asarray(means))):
        ess = np.asarray(az.ess(draws.to_dataset(name="it"))["it"])
        error = (np.asarray(draws).mean(axis=(0, 1)) - weights @ exact) / np.asarray(draws).std(axis=(0, 1))
        assert ess.min() > 60
        assert np.max(np.abs(error) * np.sqrt(ess)) < 5
    at = ni.infer.predict(mcmc, "u", np.array([0.125, 0.1875]), **arguments)["u"]
    np.testing.assert_allclose(at[..., 0], posterior["u"][..., 1], rtol=1e-3, atol=1e-4)


# Single precision.


@pytest.mark.slow
@pytest.mark.parametrize(("smoothness", "hidden"), [(2.5, False), (3.5, True)])
def test_a_density_that_rounding_hides_is_refused(smoothness, hidden):
    """The density of a draw, rounded to single precision, moves by less than the limit or by more, and is refused."""
    with jax.enable_x64(True):
        exact = Matern(interval(400), range=0.5, scale=1.0, smoothness=smoothness)
        draw = exact.sample(jax.random.key(1))
        rounded = np.asarray(draw, np.float32)
        density = float(exact.log_prob(draw))
        moved = abs(float(exact.log_prob(rounded.astype(float))) - density)
    limit = 0.1 * np.sqrt(400 / 2)
    field = Matern(interval(400), range=0.5, scale=1.0, smoothness=smoothness)
    if hidden:
        assert moved > limit
        with pytest.raises(ValueError, match="rounding to float32 hides"):
            field.log_prob(rounded)
        assert np.isnan(jax.jit(field.log_prob)(rounded))
    else:
        assert moved < limit
        assert abs(float(field.log_prob(rounded)) - density) < limit
