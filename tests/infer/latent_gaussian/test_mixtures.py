"""Latent Gaussian models of fields in time and of correlated fields, by sparse algebra, against dense covariances."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree

from numpyro_inverse._model import trace_at
from numpyro_inverse.distributions import AutoregressiveField, Coregionalized, Matern
from numpyro_inverse.domains import Mesh
from numpyro_inverse.domains._stacked import Stacked
from numpyro_inverse.infer import LatentGaussian
from numpyro_inverse.infer.latent_gaussian._reading import read_model
from numpyro_inverse.infer.latent_gaussian._sparse_latents import SparseLatents, _places, _side_by_side, sparse_latents
from tests.domains.meshes import square_arrays

STEPS, STATIONS = 3, 5
PLACES = np.random.default_rng(0).uniform(0.05, 0.95, (STATIONS, 2))
SERIES = jnp.asarray(np.random.default_rng(1).normal(size=(STEPS, STATIONS)) + 0.5)
PAIRS = jnp.asarray(np.random.default_rng(2).normal(size=(2, STATIONS)))


def _law(mesh, range_, scale=1.0):
    return Matern(mesh, range=range_, scale=scale, smoothness=1.0)


def monitoring(mesh, seen, y=None):
    """A field that changes in time over one that does not, and an intercept."""
    range_ = numpyro.sample("range", dist.LogNormal(-0.7, 0.3))
    rho = numpyro.sample("rho", dist.Uniform(-1.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.3))
    a = numpyro.sample("a", dist.Normal(0.3, 2.0))
    still = numpyro.sample("still", _law(mesh, 0.4, 0.7))
    moving = numpyro.sample("moving", AutoregressiveField(_law(mesh, range_), rho, STEPS))
    eta = numpyro.deterministic("eta", a + seen(still) + jax.vmap(seen)(moving))
    numpyro.sample("y", dist.Normal(eta, noise).to_event(2), obs=y)


def correlated(mesh, seen, y=None):
    """Two quantities with a cross-correlation, of different noise; the second is not everywhere seen."""
    range_ = numpyro.sample("range", dist.LogNormal(-0.7, 0.3))
    scales = numpyro.sample("scales", dist.LogNormal(0.0, 0.3).expand([2]).to_event(1))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    mixing = jnp.diag(scales).at[1, 0].set(slope)
    both = numpyro.sample("both", Coregionalized([_law(mesh, range_), _law(mesh, 0.3)], mixing))
    one = numpyro.deterministic("one", seen(both[0]))
    two = numpyro.deterministic("two", seen(both[1])[:-1])
    numpyro.sample("y", dist.Normal(one, 0.3).to_event(1), obs=y[0])
    numpyro.sample("z", dist.Normal(two, 0.5).to_event(1), obs=y[1, :-1])


def _fitted(model, predictor, y):
    mesh = Mesh(*square_arrays(4))
    latent = LatentGaussian(model, predictor, model_args=(mesh, mesh.interpolation(PLACES), y))
    assert isinstance(latent.latents, SparseLatents)
    return latent


@eqx.filter_jit
def value_and_grad(latent, hyper):
    return jax.value_and_grad(latent.log_marginal)(hyper)


def _affine_map(latent, hyper):
    """The predictor and the latents as affine maps of white noise, from the laws' `from_base`."""
    names, model, args = latent.reading.latents, latent.reading.model, latent.reading.args

    def sites(z):
        laws = {name: site["fn"] for name, site in latent.reading.trace(hyper).items() if name in names}
        values = {
            k: fn.from_base(z[k]) if hasattr(fn, "from_base") else fn.loc + fn.scale * z[k] for k, fn in laws.items()
        }
        trace = trace_at(model, args, values=dict(hyper) | values)
        eta = jnp.concatenate([jnp.ravel(trace[name]["value"]) for name in latent.reading.predictors])
        return {"eta": eta} | values

    zero, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, latent.reading.means(hyper)))
    return sites(unravel(zero)), jax.jacobian(lambda z: sites(unravel(z)))(zero)


def _check(latent, hyper, data, noise):
    """Density and its gradient, means and standard deviations, to 1e-8."""

    def density(hyper):
        mean, root = (part["eta"] for part in _affine_map(latent, hyper))
        return dist.MultivariateNormal(mean, root @ root.T + jnp.diag(noise(hyper) ** 2)).log_prob(data)

    found = value_and_grad(latent, hyper)
    expected = jax.jit(jax.value_and_grad(density))(hyper)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8), found, expected)

    mean, root = jax.jit(lambda hyper: _affine_map(latent, hyper))(hyper)
    gain = np.linalg.solve(root["eta"] @ root["eta"].T + np.diag(noise(hyper) ** 2), root["eta"]).T
    marginals = latent.marginals(jax.tree.map(lambda x: jnp.asarray(x)[None], hyper))
    for name in latent.reading.latents:
        one = np.reshape(root[name], (-1, len(gain)))
        there = np.ravel(mean[name]) + one @ gain @ (data - mean["eta"])
        variance = np.sum(one * (one - one @ gain @ root["eta"]), axis=1)
        np.testing.assert_allclose(np.ravel(marginals[name].mean), there, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(np.ravel(marginals[name].sd), np.sqrt(variance), rtol=1e-8)


@pytest.mark.slow
def test_the_parts_of_the_precision(x64):
    """C, K and H of the whole as dense matrices give the precision of the data and of white noise mapped to latents."""
    mesh = Mesh(*square_arrays(3))
    args = (mesh, mesh.interpolation(PLACES), PAIRS)
    reading, hyper, _ = read_model(correlated, args, {}, ("one", "two"), None)
    latents = sparse_latents(reading, hyper, reading.draw_hyper(jax.random.key(1)))
    weights = jnp.arange(1.0, 2 * STATIONS)

    @eqx.filter_jit
    def parts(reading, hyper):
        law = latents.at(reading, hyper)
        field = reading.trace(hyper)["both"]["fn"]
        root = jax.jacobian(lambda z: jnp.ravel(field.from_base(z)))(jnp.zeros(field.base_dist.shape()))
        predictor = jax.jacobian(law.forward)(jnp.zeros(2 * mesh.size))
        return law._parts(weights), law.logdet, root.reshape(2 * mesh.size, -1), predictor

    (c, (lower, upper), h), logdet, root, a = parts(reading, hyper)
    rows, cols = np.asarray(latents.pattern.rows), np.asarray(latents.pattern.cols)

    def dense(values, mirror):
        matrix = np.zeros((2 * mesh.size, 2 * mesh.size))
        matrix[rows, cols], matrix[cols, rows] = values, mirror
        return matrix

    middle, outer = dense(c, c), dense(lower, upper)
    prior = np.linalg.inv(root @ root.T)
    np.testing.assert_allclose(outer.T @ np.linalg.solve(middle, outer), prior, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(dense(h, h), a.T @ np.diag(weights) @ a, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(prior)[1] + np.linalg.slogdet(middle)[1], rtol=1e-10)


@pytest.mark.slow
def test_a_field_in_time_over_one_that_stands_still(x64):
    latent = _fitted(monitoring, "eta", SERIES)
    hyper = {"range": 0.5, "rho": 0.7, "noise": 0.4}
    _check(latent, hyper, SERIES.ravel(), lambda hyper: jnp.full(SERIES.size, hyper["noise"]))


@pytest.mark.slow
def test_correlated_fields(x64):
    latent = _fitted(correlated, ("one", "two"), PAIRS)
    hyper = {"range": 0.5, "scales": jnp.array([1.2, 0.8]), "slope": -0.6}
    noise = jnp.repeat(jnp.array([0.3, 0.5]), jnp.array([STATIONS, STATIONS - 1]), total_repeat_length=2 * STATIONS - 1)
    _check(latent, hyper, jnp.concatenate([PAIRS[0], PAIRS[1, :-1]]), lambda hyper: noise)


def test_copies_of_a_mesh_lie_side_by_side():
    """Copies are a typical edge apart, centered at the meshes without copies."""
    mesh = Mesh(*square_arrays(4))
    found = _side_by_side([_places(Stacked(mesh, "time", 3)), _places(mesh)])
    edge = 1 / np.sqrt(mesh.size)
    np.testing.assert_allclose(found[:, :2], np.tile(mesh.points, (4, 1)))
    np.testing.assert_allclose(found[:, 2], np.repeat([-edge, 0, edge, 0], mesh.size), atol=1e-12)
    assert _side_by_side([_places(mesh), None]) is None
