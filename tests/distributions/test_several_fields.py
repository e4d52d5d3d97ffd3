"""Fields in time, and correlated fields: against dense covariances, in the doors, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_inverse as ni
from numpyro_inverse._model import trace_at
from numpyro_inverse.distributions import AutoregressiveField, Coregionalized, Matern, Pushforward, SpectralField
from numpyro_inverse.domains import Grid, Mesh
from numpyro_inverse.domains._stacked import Stacked
from numpyro_inverse.sparse import BlockTridiagonal
from tests.distributions.mesh_reference import precision
from tests.domains.meshes import interval

MIXING = np.array([[1.2, 0.0], [-0.7, 0.5]])
STEPS, RHO = 4, -0.6


def in_time(mesh, range, rho):
    return AutoregressiveField(Matern(mesh, range=range, scale=1.1, smoothness=1.5, mean=0.3), rho, STEPS)


def together(mesh, range, mixing):
    fields = [Matern(mesh, range=r, scale=1.0, smoothness=0.5, mean=m) for r, m in ((range, 0.4), (0.3, -0.2))]
    return Coregionalized(fields, mixing)


@jax.jit
def in_time_numbers(mesh, u):
    value = jax.value_and_grad(lambda r, rho: in_time(mesh, r, rho).log_prob(u), (0, 1))(0.6, RHO)
    field = in_time(mesh, 0.6, RHO)
    z = jnp.zeros(field.event_shape)
    return value, jax.jacobian(field.from_base)(z), field.from_base(z), field.variance


@jax.jit
def together_numbers(mesh, u):
    value = jax.value_and_grad(lambda r, m: together(mesh, r, m).log_prob(u), (0, 1))(0.6, jnp.asarray(MIXING))
    field = together(mesh, 0.6, jnp.asarray(MIXING))
    z = jnp.zeros(field.event_shape)
    return value, jax.jacobian(field.from_base)(z), field.from_base(z), field.variance


def log_normal(r, covariance):
    return -0.5 * (r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(covariance)[1] + len(r) * np.log(2 * np.pi))


def slope(function, x, step=1e-4):
    return (8 * (function(x + step) - function(x - step)) - (function(x + 2 * step) - function(x - 2 * step))) / (
        12 * step
    )


def check(found, r, covariance, mean):
    """Density, map of white noise, mean and variance against a dense normal law."""
    (value, _), root, center, variance = found
    n = len(covariance)
    np.testing.assert_allclose(value, log_normal(r, covariance), rtol=1e-9)
    root = np.reshape(root, (n, n))
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-9)
    np.testing.assert_allclose(np.ravel(center), mean, atol=1e-12)
    np.testing.assert_allclose(np.ravel(variance), np.diag(covariance), rtol=1e-9)


@pytest.mark.slow
def test_a_field_in_time_against_dense_algebra(x64):
    """Density to 1e-9, gradients by differences, the log determinant to 1e-10, by BlockTridiagonal too."""
    mesh = interval(6)
    u = np.random.default_rng(0).normal(size=(STEPS, 6)) + 0.3
    lags = np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))

    def covariance(range_, rho):
        return np.kron(float(rho) ** lags, np.linalg.inv(precision(mesh, 1.5, range_, 1.1)))

    found = in_time_numbers(mesh, u)
    r = np.ravel(u - 0.3)
    check(found, r, covariance(0.6, RHO), np.full(STEPS * 6, 0.3))
    slopes = found[0][1]
    np.testing.assert_allclose(slopes[0], slope(lambda x: log_normal(r, covariance(x, RHO)), 0.6), rtol=1e-6)
    np.testing.assert_allclose(slopes[1], slope(lambda x: log_normal(r, covariance(0.6, x)), RHO), rtol=1e-6)

    q = precision(mesh, 1.5, 0.6, 1.1)
    inner = np.array([1, 1 + RHO**2, 1 + RHO**2, 1]) / (1 - RHO**2)
    blocks = BlockTridiagonal(inner[:, None, None] * q, np.stack([-RHO / (1 - RHO**2) * q] * 3))
    logdet = 2 * float(in_time_numbers(mesh, np.full((STEPS, 6), 0.3))[0][0]) + STEPS * 6 * np.log(2 * np.pi)
    exact = STEPS * np.linalg.slogdet(q)[1] + 6 * -(STEPS - 1) * np.log(1 - RHO**2)
    np.testing.assert_allclose([logdet, float(blocks.logdet())], exact, rtol=1e-10)


@pytest.mark.slow
def test_correlated_fields_against_dense_algebra(x64):
    mesh = interval(6)
    u = np.random.default_rng(1).normal(size=(2, 6))
    means = MIXING @ [0.4, -0.2]

    def covariance(range_, mixing=MIXING):
        each = [np.linalg.inv(precision(mesh, 0.5, r, 1.0)) for r in (range_, 0.3)]
        return sum(np.kron(np.outer(mixing[:, b], mixing[:, b]), each[b]) for b in (0, 1))

    def density(range_, mixing=MIXING):
        return log_normal(np.ravel(u - (mixing @ [0.4, -0.2])[:, None]), covariance(range_, mixing))

    found = together_numbers(mesh, u)
    check(found, np.ravel(u - means[:, None]), covariance(0.6), np.repeat(means, 6))
    slopes = found[0][1]
    np.testing.assert_allclose(slopes[0], slope(density, 0.6), rtol=1e-6)
    for a, b in ((0, 0), (1, 0), (1, 1)):
        step = np.zeros((2, 2))
        step[a, b] = 1
        along = slope(lambda x, step=step: density(0.6, MIXING + x * step), 0.0)
        np.testing.assert_allclose(slopes[1][a, b], along, rtol=1e-6)


def _grid_field():
    grid = Grid(5)
    return SpectralField(grid, 1 / (1 + grid.eigenvalues))


@pytest.mark.slow
def test_batches_and_shapes():
    """A batch of parameters gives what each gives by itself."""
    field = _grid_field()

    @jax.jit
    def densities(rho, mixing):
        found = []
        for make, parameter in (
            (lambda r: AutoregressiveField(field, r, 3), rho),
            (lambda m: Coregionalized([field, field], m), mixing),
        ):
            u = make(parameter).sample(jax.random.key(0), (4,))
            found.append((u, make(parameter).log_prob(u), [make(x).log_prob(u[:, k]) for k, x in enumerate(parameter)]))
        return found

    (u, many, one), (v, both, each) = densities(jnp.array([0.2, 0.7]), jnp.stack([jnp.eye(2), 2 * jnp.eye(2)]))
    assert (u.shape, v.shape) == ((4, 2, 3, 5), (4, 2, 2, 5))
    np.testing.assert_allclose(many, np.stack(one, axis=1), rtol=1e-5)
    np.testing.assert_allclose(both, np.stack(each, axis=1), rtol=1e-5)
    assert np.isnan(jax.jit(lambda r: AutoregressiveField(field, r, 3).log_prob(jnp.zeros((3, 5))))(1.5))
    mixed = jax.jit(lambda m: Coregionalized([field, field], m).log_prob(jnp.zeros((2, 5))))
    wrong = jnp.stack([jnp.ones((2, 2)), jnp.diag(jnp.array([1.0, 0.0])), jnp.eye(2)])
    np.testing.assert_array_equal(np.isnan(mixed(wrong)), [True, True, False])


class Loud(SpectralField):
    """A field whose base is not standard: its own noise is of mean 1 and scale 3."""

    @property
    def base_dist(self):
        return dist.Normal(1.0, 3.0).expand(self.batch_shape + self.domain.shape).to_event(1)

    def from_base(self, z):
        return super().from_base((z - 1) / 3)


def test_a_base_that_is_not_standard_is_standardized():
    """The latent is white, and the law that of the field."""
    grid, key = Grid(5), jax.random.key(0)
    plain, loud = (kind(grid, 1 / (1 + grid.eigenvalues), mean=0.3) for kind in (SpectralField, Loud))
    for make in (lambda f: AutoregressiveField(f, 0.5, 3), lambda f: Coregionalized([f, f], MIXING)):
        np.testing.assert_allclose(make(loud).sample(key), make(plain).sample(key), rtol=1e-5, atol=1e-6)


def _generated(field):
    return Pushforward(lambda z: jnp.tanh(field.from_base(z)), field.base_dist)


def _longer():
    grid = Grid(5, extent=2.0)
    return SpectralField(grid, 1 / (1 + grid.eigenvalues))


def _model(y=None):
    u = numpyro.sample("u", AutoregressiveField(_grid_field(), 0.5, 3))
    w = numpyro.sample("w", Coregionalized([_grid_field()] * 2, MIXING.astype(np.float32)))
    numpyro.sample("y", dist.Normal(u[-1] + w[0], 0.5).to_event(1), obs=y)


def test_in_whitening_and_export():
    trace = trace_at(ni.whiten(_model))
    assert trace["u_latent"]["value"].shape == (3, 5)
    draws = {name: np.asarray(trace[name]["value"])[None, None] for name in ("u", "w", "u_latent", "w_latent")}
    tree = ni.to_arviz(draws, ni.whiten(_model), model_kwargs={"y": jnp.zeros(5)}, log_likelihood=False)
    assert tree["posterior"]["u"].dims[:3] == ("chain", "draw", "time")
    assert tree["posterior"]["w"].dims[:3] == ("chain", "draw", "component")


def test_stacked_domains():
    stacked = Stacked(Grid(5), "time", 3)
    assert (stacked.shape, stacked.size, stacked.ndim) == ((3, 5), 15, 1)
    assert stacked == Stacked(Grid(5), "time", 3) != Stacked(Grid(5), "time", 4)
    np.testing.assert_allclose(stacked.weights.sum(), 3.0, rtol=1e-6)
    u = jnp.arange(15.0).reshape(3, 5)
    at = stacked.interpolation(np.array([[0.3], [0.5]]))
    np.testing.assert_allclose(at(u), Grid(5).interpolation(np.array([[0.3], [0.5]]))(u), rtol=1e-5)
    with pytest.raises(TypeError, match="`space` must be a domain"):
        Stacked(3, "time", 2)
    with pytest.raises(ValueError, match="`name` 'x' is a coordinate of `space` already"):
        Stacked(Grid(5), "x", 2)
    assert isinstance(Stacked(Mesh(np.linspace(0, 1, 3), np.array([[0, 1], [1, 2]])), "time", 2).space, Mesh)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda f: AutoregressiveField(f, 1.0, 3), ValueError, "`correlation` must be between -1 and 1; got 1.0"),
        (lambda f: AutoregressiveField(f, 0.5, 0), ValueError, "`num_steps` must be a positive integer"),
        (
            lambda f: AutoregressiveField(dist.Normal(0, 1), 0.5, 3),
            TypeError,
            "`field` must be a Gaussian field made of",
        ),
        (lambda f: AutoregressiveField(3, 0.5, 3), TypeError, "`field` must be a field, such as Matern"),
        (lambda f: AutoregressiveField(f.expand([2]), 0.5, 3), TypeError, "not expanded"),
        (lambda f: AutoregressiveField(_generated(f), 0.5, 3), TypeError, "must be a Gaussian field.*got Pushforward"),
        (
            lambda f: Coregionalized([f, _generated(f)], jnp.eye(2)),
            TypeError,
            r"`fields\[1\]` must be a Gaussian field",
        ),
        (lambda f: Coregionalized([f, _longer()], jnp.eye(2)), ValueError, "`fields` must be on one domain; got Grid"),
        (
            lambda f: Coregionalized([f], jnp.ones((3, 1, 1))).log_prob(jnp.zeros((2, 1, 5))),
            ValueError,
            r"`value` \(2,\)",
        ),
        (lambda f: AutoregressiveField(f, 0.5, 3).log_prob(jnp.zeros(5)), ValueError, r"must be \(3, 5\)"),
        (lambda f: Coregionalized([], jnp.eye(2)), ValueError, "`fields` is empty"),
        (lambda f: Coregionalized([f, f], jnp.eye(3)), ValueError, "the trailing axes of `mixing` must be"),
        (lambda f: Coregionalized([f, f], jnp.ones((2, 2))), ValueError, "`mixing` must be a lower triangle"),
        (lambda f: Coregionalized([f, f], jnp.diag(jnp.array([1.0, 0]))), ValueError, "without zeros on its diagonal"),
        (lambda f: Coregionalized(f, jnp.eye(2)), TypeError, "`fields` must be a sequence"),
        (
            lambda f: Coregionalized([f, dist.Normal(0, 1)], jnp.eye(2)),
            TypeError,
            r"`fields\[1\]` must be a Gaussian field",
        ),
    ],
    ids=[
        "one",
        "steps",
        "normal",
        "number",
        "expanded",
        "pushforward",
        "generated",
        "domains",
        "batch",
        "value",
        "none",
        "shape",
        "upper",
        "zero",
        "field",
        "kind",
    ],
)
def test_bad_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make(_grid_field())
