"""Deconvolution: blur against the integral, spectral against dense posteriors, and UM-Bridge's stored ones."""

import jax
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal, norm

from models import deconvolution
from models._linear_gaussian import matern_covariance
from numpyro_inverse.domains import Grid
from tests.models._checks import agrees_with_model, matches_brute_force


def dense_blur(shape, width=deconvolution.WIDTH):
    with jax.enable_x64(True):
        return np.asarray(deconvolution.blur(shape, width).as_matrix())


def test_blur_is_the_gaussian_integral():
    """Away from the edges the blur of a step is the normal distribution function; error below (h / width)^2 / 24."""
    n, width = 400, 0.05
    step = (np.arange(n) >= n // 2).astype(float)
    x = (np.arange(n) + 0.5) / n
    blurred = deconvolution.blur((n,), width) @ step
    np.testing.assert_allclose(blurred, norm.cdf((x - 0.5) / width), atol=(1 / n / width) ** 2 / 24 + 1e-5)


@pytest.mark.parametrize("shape", [(9,), (5, 7)])
def test_transfer_diagonalises_the_blur(shape, x64):
    grid = Grid(shape)
    x = np.random.default_rng(0).normal(size=shape)
    expected = grid.inverse_transform(deconvolution.transfer(shape, 0.3) * grid.transform(x))
    np.testing.assert_allclose(deconvolution.blur(shape, 0.3) @ x, expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20,), (5, 4)])
def test_exact_posterior(shape, key):
    width = 0.2
    field, data = deconvolution.simulate(key, shape=shape, width=width)
    assert field.shape == data.shape == shape
    posterior = deconvolution.exact_posterior(data, width=width)
    covariance = matern_covariance(Grid(shape), **deconvolution.PRIOR)
    symmetric = type(posterior)(posterior.mean, posterior.coefficient_variance, posterior.log_evidence)
    object.__setattr__(symmetric, "covariance", 0.5 * (posterior.covariance + posterior.covariance.T))
    matches_brute_force(symmetric, dense_blur(shape, width), data, deconvolution.NOISE, covariance)
    agrees_with_model(deconvolution.model, "field", data, posterior, shape=shape, width=width)


def test_full_size_simulation(key):
    """Residual chi-squared, 4096 degrees of freedom, within 5 standard deviations; posterior sd below the prior's."""
    phantom = deconvolution.square_phantom()
    field, data = deconvolution.simulate(key, truth=phantom)
    np.testing.assert_array_equal(field, phantom)
    chi2 = np.sum(((np.asarray(data) - deconvolution.blur() @ field) / deconvolution.NOISE) ** 2)
    assert abs(chi2 - 4096) < 5 * np.sqrt(2 * 4096)
    posterior = deconvolution.exact_posterior(data)
    assert posterior.sd.shape == (64, 64)
    assert posterior.sd[32, 32] < 0.4
    assert np.sqrt(np.mean((posterior.mean - phantom) ** 2)) < 0.15


def test_phantoms():
    assert set(np.unique(deconvolution.square_phantom((40,)))) == {0.0, 1.0}
    assert set(np.unique(deconvolution.square_phantom((64, 64)))) == {0.0, 0.5, 1.0}


@pytest.mark.slow
def test_hierarchical_model_has_the_stated_priors(key, x64):
    """Its density at a point: log-normals, times the model at those hyperparameters."""
    shape, values = (4, 5), {"range": 0.3, "scale": 1.2, "noise": 0.08}
    field, data = (np.asarray(v, float) for v in deconvolution.simulate(key, shape=shape))
    total, trace = log_density(deconvolution.hierarchical_model, (data,), {"shape": shape}, {**values, "field": field})
    assert {name for name, site in trace.items() if site["type"] == "sample"} == {*values, "field", "data"}
    given, _ = log_density(deconvolution.model, (data,), {"shape": shape, **values}, {"field": field})
    medians = {"range": 0.2, "scale": 1.0, "noise": 0.05}
    prior = sum(norm.logpdf(np.log(v), np.log(medians[k]), 0.7) - np.log(v) for k, v in values.items())
    np.testing.assert_allclose(total, given + prior, rtol=1e-10)


@pytest.mark.parametrize("prior", ["gaussian", "gmrf"])
def test_umbridge_posterior_is_the_stored_one(prior):
    """Mean, standard deviations and a row of the covariance to 1e-9 of the largest standard deviation."""
    stored = deconvolution.umbridge_data()
    posterior = deconvolution.umbridge_posterior(prior=prior)
    scale = stored[f"{prior}_sd"].max()
    np.testing.assert_allclose(posterior.mean, stored[f"{prior}_mean"], atol=1e-9 * scale)
    np.testing.assert_allclose(posterior.sd, stored[f"{prior}_sd"], atol=1e-9 * scale)
    np.testing.assert_allclose(posterior.covariance[64], stored[f"{prior}_covariance_row"], atol=1e-9 * scale**2)


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["gaussian", "gmrf"])
def test_umbridge_model_is_the_benchmark(prior, x64):
    """Joint density = posterior density + evidence at the truth and at the mean: model, matrix and constants agree."""
    stored = deconvolution.umbridge_data()
    posterior = deconvolution.umbridge_posterior(prior=prior)
    density = multivariate_normal(posterior.mean, posterior.covariance)
    for field in (stored["truth"], posterior.mean):
        joint, _ = log_density(deconvolution.umbridge_model, (stored["data"],), {"prior": prior}, {"field": field})
        np.testing.assert_allclose(joint, density.logpdf(field) + posterior.log_evidence, rtol=1e-5)


def test_umbridge_blur_fits_the_data():
    stored = deconvolution.umbridge_data()
    residual = stored["data"] - deconvolution.umbridge_blur() @ stored["truth"]
    np.testing.assert_allclose(np.std(residual), 0.0105, atol=1e-4)


def test_umbridge_unknown_prior():
    with pytest.raises(ValueError, match="'gaussian' or 'gmrf'; got 'lmrf'"):
        deconvolution.umbridge_precision("lmrf")


@pytest.mark.slow
def test_models_sample_from_the_prior(key):
    for model in (deconvolution.model, deconvolution.hierarchical_model):
        trace = handlers.trace(handlers.seed(model, key)).get_trace(shape=(6, 8))
        assert trace["field"]["value"].shape == trace["data"]["value"].shape == (6, 8)
