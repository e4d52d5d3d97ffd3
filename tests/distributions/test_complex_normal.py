"""The complex normal distribution: its convention, its sampler, and what reads its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from numpyro_inverse.distributions import ComplexNormal
from numpyro_inverse.infer.laplace import fisher_information

LOC = np.array([1.0 + 2.0j, -0.5j, 0.3 + 0.0j])
SCALE = np.array([0.2, 1.0, 3.0])


def test_the_density_is_that_of_both_parts(x64):
    z = np.random.default_rng(0).standard_normal((5, 3)) * (1 + 2j) - 0.3j
    expected = stats.norm.logpdf(z.real, LOC.real, SCALE) + stats.norm.logpdf(z.imag, LOC.imag, SCALE)
    np.testing.assert_allclose(ComplexNormal(LOC, SCALE).log_prob(jnp.asarray(z)), expected, rtol=1e-12)
    one = ComplexNormal(LOC, SCALE).to_event(1)
    np.testing.assert_allclose(one.log_prob(jnp.asarray(z)), expected.sum(axis=1), rtol=1e-12)


def test_the_parts_are_independent_with_the_stated_spread(key):
    """Chi-squared of the variances and a z test of the correlation of 4000 draws; false-alarm rate 1e-5."""
    draws = np.asarray(ComplexNormal(LOC, SCALE).sample(key, (4000,)), complex)
    white = (draws - LOC) / SCALE
    squares = np.concatenate([np.sum(white.real**2, axis=0), np.sum(white.imag**2, axis=0)])
    p = 2 * np.minimum(stats.chi2(4000).cdf(squares), stats.chi2(4000).sf(squares))
    assert np.all(p > 1e-5 / 9)
    correlation = np.mean(white.real * white.imag, axis=0) * np.sqrt(4000)
    assert np.all(np.abs(correlation) < stats.norm.isf(1e-5 / 18))


def test_moments_and_shapes():
    found = ComplexNormal(LOC, 2.0)
    np.testing.assert_allclose(found.mean, LOC, rtol=1e-6)
    np.testing.assert_allclose(found.variance, 8.0)
    assert ComplexNormal(1.0, SCALE).batch_shape == (3,)
    assert ComplexNormal(0.0, 1.0).sample(jax.random.key(0)).dtype == jnp.complex64
    with pytest.raises(TypeError, match="`scale` must be real numbers"):
        ComplexNormal(0.0, 1.0j)


def model(y=None):
    """y = (1 + 2i) a + (0.5 - i) b + noise."""
    x = numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
    numpyro.sample("y", ComplexNormal(x @ jnp.array([1 + 2j, 0.5 - 1j]), 0.5), obs=y)


@pytest.mark.slow
def test_the_information_is_that_of_both_parts(x64):
    """A^T A / sigma^2 with a row for each part."""
    a = np.array([[1, 0.5], [2, -1.0]])
    product = fisher_information(model, (jnp.asarray(0.3 + 0.1j),), {}, {"x": jnp.zeros(2)}, jax.random.key(0))
    np.testing.assert_allclose(jax.vmap(product)(jnp.eye(2)), a.T @ a / 0.25, rtol=1e-10)


@pytest.mark.slow
def test_in_nuts(key):
    """A regression on complex data; means over 16 chains, false-alarm rate 1e-5."""
    a, y = np.array([[1, 0.5], [2, -1.0]]), np.array([0.7, -0.4])
    covariance = np.linalg.inv(np.eye(2) + a.T @ a / 0.25)
    mean = covariance @ a.T @ y / 0.25
    mcmc = MCMC(
        NUTS(model), num_warmup=200, num_samples=200, num_chains=16, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(key, jnp.asarray(y[0] + 1j * y[1]))
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], float)
    found = np.concatenate([x, x[..., :1] * x[..., 1:], x**2], axis=-1).mean(axis=1)
    expected = np.concatenate([mean, [covariance[0, 1] + mean[0] * mean[1]], np.diag(covariance) + mean**2])
    t = (found.mean(axis=0) - expected) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))
    assert np.all(np.abs(t) < stats.t.isf(1e-5 / (2 * t.size), len(found) - 1)), t
