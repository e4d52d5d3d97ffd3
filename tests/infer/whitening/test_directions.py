"""Latents that are standard normal along the directions that few data inform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import Normal, TransformedDistribution

from numpyro_inverse.infer.whitening import _directions
from numpyro_inverse.infer.whitening._directions import Directions, Growth, Standardized, field_by_field

SIZES = {"z": (2, 3), "a": (5,), "m": (4,)}  # in an order of their own


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def information(rng):
    """Eigenpairs of a rank 4 matrix on three fields, strong and weak."""
    n = sum(np.prod(shape) for shape in SIZES.values())
    vectors = np.linalg.qr(rng.normal(size=(n, 4)))[0].T
    return np.array([400.0, 20.0, 3.0, 0.4]), vectors


def parts(vectors):
    ends = np.cumsum([np.prod(shape) for shape in SIZES.values()])
    return dict(zip(SIZES, np.split(vectors, ends[:-1], axis=1), strict=True))


@pytest.mark.slow
def test_the_latents_are_standard_normal(information, rng, x64, monkeypatch):
    """Field by field, z -> v is affine; its matrix L has L L' = (I + F)^-1 and its offset is the mean, both dense."""
    monkeypatch.setattr(_directions, "INFORMED", 1e-12)
    values, vectors = information
    mean = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in SIZES.items()}
    found = field_by_field(list(SIZES), mean, values, parts(vectors))

    def values_of(z):
        v = {}
        for name, shape in SIZES.items():
            d = found[name]
            shift = d.mean
            for earlier, factor in d.coupling.items():
                shift = shift - jnp.tensordot(jnp.tensordot(factor, v[earlier], v[earlier].ndim), d.vectors, 1)
            v[name] = Standardized(shift, len(shape), (d.vectors, d.spread())).inv(z[name])
        return jnp.concatenate([jnp.ravel(v[name]) for name in SIZES])

    zero = {name: jnp.zeros(shape) for name, shape in SIZES.items()}
    matrix = np.concatenate([np.asarray(jax.jacobian(values_of)(zero)[name]).reshape(15, -1) for name in SIZES], axis=1)
    expected = np.linalg.inv(np.eye(15) + vectors.T @ np.diag(values) @ vectors)
    np.testing.assert_allclose(matrix @ matrix.T, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(values_of(zero), np.concatenate([np.ravel(mean[name]) for name in SIZES]), rtol=1e-10)


def test_data_that_tell_nothing(rng):
    """No direction has information worth the name: the latents are the coefficients, but for a shift."""
    vectors = np.linalg.qr(rng.normal(size=(15, 4)))[0].T
    mean = {name: jnp.zeros(shape) for name, shape in SIZES.items()}
    for values in (np.zeros(4), np.full(4, 1e-6)):
        for name, found in field_by_field(list(SIZES), mean, values, parts(vectors)).items():
            assert found.vectors.shape == (1, *SIZES[name])
            np.testing.assert_allclose(found.spread(), 1.0, atol=1e-5)


@pytest.fixture
def directions(rng, x64):
    vectors = np.linalg.qr(rng.normal(size=(6, 2)))[0].T.reshape(2, 2, 3)
    mean = jnp.asarray(rng.normal(size=(2, 3)))
    return Directions(mean, jnp.asarray(vectors), jnp.asarray([30.0, 2.0]), {})


def noisier(growth):
    """The noise variance is exp(-growth)."""
    return Growth(jnp.full(2, growth), jnp.zeros(2), jnp.zeros(2))


@pytest.mark.slow
@pytest.mark.parametrize("growth", [-2.0, 0.0, 3.0])
def test_the_density_is_that_of_a_dense_normal(directions, growth, key):
    """v is normal with given scales, so z is normal with covariance T diag T', T dense; leading axes are samples."""
    scales = jnp.linspace(0.5, 2.0, 6).reshape(2, 3)
    transform = Standardized(jnp.full((2, 3), 0.3), 2, (directions.vectors, directions.spread(noisier(growth))))
    law = TransformedDistribution(Normal(0.0, scales).to_event(2), transform)
    z = law.sample(key, (4,))
    rows = np.asarray(directions.vectors).reshape(2, 6)
    dense = np.eye(6) + rows.T @ np.diag(1 / np.asarray(directions.spread(noisier(growth))) - 1) @ rows
    covariance = dense @ np.diag(np.ravel(scales) ** 2) @ dense.T
    residual = np.asarray(z).reshape(4, 6) + dense @ np.full(6, 0.3)
    expected = -0.5 * (
        np.sum(residual * np.linalg.solve(covariance, residual.T).T, axis=1)
        + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    np.testing.assert_allclose(law.log_prob(z), expected, rtol=1e-10)
    np.testing.assert_allclose(transform(transform.inv(z)), z, rtol=1e-10)


@pytest.mark.parametrize("growth", [-3.0, 4.0])
def test_the_mean_and_spread_of_other_noise(directions, growth, rng):
    """Linear data with noise variance exp(-growth): mean and spread that were found at variance 1 follow exactly."""
    rows = np.asarray(directions.vectors).reshape(2, 6)
    forward = np.sqrt(np.asarray(directions.information))[:, None] * rows
    y = rng.normal(size=2)

    def posterior(variance):
        covariance = np.linalg.inv(np.eye(6) + forward.T @ forward / variance)
        return covariance @ forward.T @ y / variance, covariance

    here, _ = posterior(1.0)
    mean, covariance = posterior(np.exp(-growth))
    followed = directions.follow(jnp.asarray(here.reshape(2, 3)), noisier(growth))
    np.testing.assert_allclose(np.ravel(followed), mean, rtol=1e-10)
    np.testing.assert_allclose(np.diag(rows @ covariance @ rows.T), directions.spread(noisier(growth)) ** 2, rtol=1e-10)


@pytest.mark.parametrize("centering", [0.0, 0.3, 1.0])
def test_the_mean_and_spread_of_another_scale(directions, centering, rng):
    """w = scale^(1-c) v with v ~ N(0, scale^(2c)): mean and spread that were found at scale 1 follow exactly."""
    rows = np.asarray(directions.vectors).reshape(2, 6)
    forward = np.sqrt(np.asarray(directions.information))[:, None] * rows
    y = rng.normal(size=2)

    def posterior(scale):
        seen = forward * scale ** (1 - centering)
        covariance = np.linalg.inv(scale ** (-2 * centering) * np.eye(6) + seen.T @ seen)
        return covariance @ seen.T @ y, covariance

    log_scale = 1.2
    growth = Growth(*(jnp.full(2, log_scale * rate) for rate in (2 * (1 - centering), 1 - centering, -2 * centering)))
    here, _ = posterior(1.0)
    mean, covariance = posterior(np.exp(log_scale))
    np.testing.assert_allclose(np.ravel(directions.follow(jnp.asarray(here.reshape(2, 3)), growth)), mean, rtol=1e-10)
    np.testing.assert_allclose(np.diag(rows @ covariance @ rows.T), directions.spread(growth) ** 2, rtol=1e-10)


def test_it_is_a_pytree(directions):
    transform = Standardized(jnp.ones((2, 3)), 2, (directions.vectors, directions.spread()))
    again = jax.jit(lambda t: t)(transform)
    assert again.event_dim == 2
    assert np.array_equal(ravel_pytree(again)[0], ravel_pytree(transform)[0])
