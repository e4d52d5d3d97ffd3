"""What every reference problem is held to."""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal

from numpyro_inverse import whiten


def matches_brute_force(posterior, matrix, data, noise, prior_covariance):
    """Mean and covariance by the information form, evidence by scipy's multivariate normal: another route to each."""
    precision = np.linalg.inv(prior_covariance) + matrix.T @ matrix / noise**2
    covariance = np.linalg.inv(precision)
    y = np.asarray(data, float).ravel()
    mean = covariance @ matrix.T @ y / noise**2
    scale = np.sqrt(np.max(np.diagonal(covariance)))
    np.testing.assert_allclose(posterior.covariance, covariance, atol=1e-7 * scale**2)
    np.testing.assert_allclose(posterior.mean.ravel(), mean, atol=1e-6 * scale)
    np.testing.assert_allclose(posterior.sd.ravel(), np.sqrt(np.diagonal(covariance)), rtol=1e-6)
    marginal = matrix @ prior_covariance @ matrix.T + noise**2 * np.eye(len(y))
    evidence = multivariate_normal(np.zeros(len(y)), marginal, allow_singular=False).logpdf(y)
    np.testing.assert_allclose(posterior.log_evidence, evidence, rtol=1e-9, atol=1e-6)
    np.testing.assert_array_equal(posterior.covariance, posterior.covariance.T)
    assert np.linalg.eigvalsh(posterior.covariance).min() > -1e-12 * scale**2


def agrees_with_model(model, site, data, posterior, **kwargs):
    """In x64: joint density of the centred model = posterior density + log evidence, at several fields; and of the
    whitened model, up to the Jacobian, which does not depend on the field."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        data = jnp.asarray(data, jnp.float64)
        density = multivariate_normal(posterior.mean.ravel(), posterior.covariance, allow_singular=True)
        centred, whitened, expected = [], [], []
        white = whiten(model)

        @jax.jit
        def densities(z):
            value, trace = log_density(white, (data,), kwargs, {f"{site}_latent": z})
            field = trace[site]["value"]
            return field, value, log_density(model, (data,), kwargs, {site: field})[0]

        for _ in range(3):
            field, *values = densities(jnp.asarray(rng.normal(size=posterior.mean.shape)))
            whitened.append(values[0])
            centred.append(values[1])
            expected.append(density.logpdf(np.asarray(field).ravel()))
        np.testing.assert_allclose(np.array(centred) - posterior.log_evidence, expected, rtol=1e-5)
        np.testing.assert_allclose(np.diff(whitened), np.diff(expected), rtol=1e-5)
