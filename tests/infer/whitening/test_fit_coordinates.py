"""Coordinates fitted to data: ridges between fields and other sites, and between fields."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density

import numpyro_inverse as ni
from numpyro_inverse import nn
from numpyro_inverse.distributions._reparametrized import unwrapped

LINE = ni.domains.Grid(32)
NOISE = 0.1
Y = 1 + np.sin(5 * LINE.axes[0]) + NOISE * np.random.default_rng(0).normal(size=32)


def matern(**options):
    return ni.distributions.Matern(LINE, **({"range": 0.5, "scale": 1.0, "smoothness": 1.5, "padding": 0.5} | options))


def covariate():
    """Made anew at each call: a compiled function that captures an array keeps its single-precision copy."""
    return np.cos(7 * LINE.axes[0])


def trend(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    field = numpyro.sample("field", matern())
    numpyro.sample("y", dist.Normal(mu + slope * covariate() + field, NOISE).to_event(1), obs=y)


def late_intercept(y=None):
    """The intercept comes after the field, and one site depends on the field."""
    field = numpyro.sample("field", matern())
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("downstream", dist.Normal(field[0], 1.0))
    numpyro.sample("y", dist.Normal(mu + field, NOISE).to_event(1), obs=y)


def two_fields(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    long = numpyro.sample("long", matern())
    short = numpyro.sample("short", matern(range=0.3, scale=0.5))
    numpyro.sample("y", dist.Normal(mu + long + short, NOISE).to_event(1), obs=y)


MODELS = {"trend": trend, "late": late_intercept, "two": two_fields}


@pytest.fixture(scope="module")
def fitted():
    return {name: ni.fit_coordinates(model, jnp.asarray(Y)) for name, model in MODELS.items()}


def dense_trend():
    """Exact posterior covariance of (mu, slope), the field integrated out."""
    design = np.stack([np.ones(32), covariate()], axis=1)
    covariance = np.asarray(matern().covariance_matrix, float) + NOISE**2 * np.eye(32)
    return np.linalg.inv(design.T @ np.linalg.solve(covariance, design) + np.eye(2))


def test_the_spread_of_an_intercept_is_marginal(fitted):
    """The model is Gaussian, so the covariance is exact but for rounding: single precision at a condition of 1e4."""
    found = np.asarray(fitted["trend"].hyper_covariance, float)
    np.testing.assert_allclose(found, dense_trend(), rtol=1e-3)
    assert fitted["trend"].coupled_sites == ("mu", "slope")
    assert not fitted["trend"].has_ridge


def prior_sites(model):
    sites = handlers.trace(handlers.seed(model, 0)).get_trace(jnp.asarray(Y))
    return {name: site for name, site in sites.items() if name in ("field", "long", "short")}


def white_values(model, coordinates, key):
    """A prior draw in the coordinates, its field values, and the same draw as white noise: v' plus the shift."""
    whitened = ni.whiten(model, coordinates)
    draw = handlers.trace(handlers.seed(whitened, key)).get_trace(jnp.asarray(Y))
    latents = {k: s["value"] for k, s in draw.items() if s["type"] == "sample" and not s["is_observed"]}
    white = dict(latents)
    for field in coordinates.centering:
        law = unwrapped(draw[f"{field}_latent"]["fn"])
        white[f"{field}_latent"] = latents[f"{field}_latent"] - law.loc
    return whitened, latents, white, {f: draw[f]["value"] for f in coordinates.centering}


@pytest.mark.parametrize("name", MODELS)
def test_the_joint_law_is_unchanged(fitted, name, x64, key):
    """With the hyperparameters fixed v is white noise, and v' is v less a shift that earlier sites determine."""
    coordinates = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), fitted[name])
    amplitudes = {f: unwrapped(site["fn"]).amplitudes for f, site in prior_sites(MODELS[name]).items()}
    coordinates = eqx.tree_at(lambda c: c.reference, coordinates, amplitudes)  # in double precision, as in the model
    whitened, latents, white, fields = white_values(MODELS[name], coordinates, key)
    assert any(not np.array_equal(latents[k], white[k]) for k in white)  # there is a shift
    plain = ni.whiten(MODELS[name])
    here, _ = log_density(whitened, (jnp.asarray(Y),), {}, latents)
    there, _ = log_density(plain, (jnp.asarray(Y),), {}, white)
    assert np.isclose(here, there, rtol=1e-9)
    sites = handlers.trace(handlers.seed(handlers.substitute(plain, white), 0)).get_trace(jnp.asarray(Y))
    for field, value in fields.items():
        np.testing.assert_allclose(sites[field]["value"], value, rtol=1e-9, atol=1e-9)


def test_a_site_that_depends_on_the_field_is_left_in_its_place(fitted):
    assert fitted["late"].downstream_sites == ("downstream",)
    assert fitted["late"].coupled_sites == ("mu",)
    sites = handlers.trace(handlers.seed(ni.whiten(late_intercept, fitted["late"]), 0)).get_trace(jnp.asarray(Y))
    order = [name for name, site in sites.items() if site["type"] == "sample"]
    assert order == ["mu", "field_latent", "downstream", "y"]


def test_fields_that_the_data_see_together_are_coupled(fitted):
    """Mode by mode short follows long as -h_21 / h_22, here exactly: both enter by their sum."""
    factor = np.asarray(fitted["two"].field_coupling["short"]["long"], float)
    reference = {k: np.asarray(v, float) for k, v in fitted["two"].reference.items()}
    c = np.asarray(fitted["two"].centering["short"], float)  # g / (1 + g)
    np.testing.assert_allclose(factor, -c * reference["long"] / reference["short"], rtol=2e-3)
    assert not fitted["two"].has_ridge


def test_prior_draws_are_those_of_the_model(fitted, key):
    """Mean and variance of 4,000 prior draws of the intercept plus the field at one point; false alarms 1e-4."""
    whitened = ni.whiten(trend, fitted["trend"])
    draws = Predictive(whitened, num_samples=4000)(key)
    total = np.asarray(draws["mu"] + draws["field"][:, 5], float)
    variance = 1 + float(matern().variance[5])
    assert abs(total.mean()) < 3.9 * np.sqrt(variance / 4000)
    assert abs(total.var() / variance - 1) < 3.9 * np.sqrt(2 / 4000)


def test_a_field_in_a_plate(key):
    """Replicated fields have coordinates of their own each; the draws have the plate's shape."""

    def model(y=None):
        with numpyro.plate("rows", 3):
            field = numpyro.sample("field", matern(padding=0.0))
            numpyro.sample("y", dist.Normal(field, NOISE).to_event(1), obs=y)

    y = jnp.stack([jnp.asarray(Y)] * 3)
    coordinates = ni.fit_coordinates(model, y)
    assert coordinates.centering["field"].shape == (3, 32)
    sites = handlers.trace(handlers.seed(ni.whiten(model, coordinates), key)).get_trace(y)
    assert sites["field"]["value"].shape == (3, 32)
    assert sites["field_latent"]["fn"].batch_shape == (3,)


def test_coordinates_are_saved_and_shown(fitted, tmp_path):
    coordinates = fitted["trend"]
    nn.save(tmp_path / "coordinates.safetensors", coordinates)
    again = nn.load(tmp_path / "coordinates.safetensors", like=coordinates)
    for old, new in zip(jax.tree.leaves(coordinates), jax.tree.leaves(again), strict=True):
        assert np.array_equal(old, new)
    assert "coupled to mu, slope" in str(coordinates)
    assert "RIDGE" not in str(coordinates)
    assert "RIDGE" in str(eqx.tree_at(lambda c: c.smallest_curvature, coordinates, jnp.asarray(0.01)))


def test_a_ridge_makes_warm_up_adapt(fitted):
    ridge = eqx.tree_at(lambda c: c.smallest_curvature, fitted["trend"], jnp.asarray(0.01))
    settings = ridge.nuts_settings()
    assert settings["adapt_mass_matrix"]
    assert "step_size" not in settings


def test_coordinates_of_another_model(fitted):
    def other(y=None):
        numpyro.sample("field", matern())

    with pytest.raises(ValueError, match=r"of another model.*'mu'"):
        handlers.seed(ni.whiten(other, fitted["trend"]), 0)()


def test_an_improper_prior_is_named():
    def model(y):
        mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(mu + numpyro.sample("field", matern()), NOISE).to_event(1), obs=y)

    with pytest.raises(ValueError, match=r"site 'mu' has a prior that cannot be drawn from, ImproperUniform"):
        ni.fit_coordinates(model, jnp.asarray(Y))


def test_the_point_estimate_is_where_the_posterior_is():
    """Field and intercept of a Gaussian model against exact means, within 0.2 posterior standard deviations."""
    coordinates = ni.fit_coordinates(late_intercept, jnp.asarray(Y))
    found = ni.infer.point_estimate(late_intercept, coordinates, jnp.asarray(Y))
    exact = ni.infer.ExactGaussian(late_intercept)
    mean = exact.posterior_mean(jnp.asarray(Y))
    covariance = exact.posterior_covariance(jnp.asarray(Y))
    for name in ("field", "mu", "downstream"):
        size = np.size(mean[name])
        sd = np.sqrt(np.diag(np.asarray(covariance[name], float).reshape(size, size)))
        assert np.max(np.abs(np.ravel(found[name] - mean[name])) / sd) < 0.2
    assert "field_latent" not in found


def test_a_point_estimate_needs_coordinates():
    with pytest.raises(TypeError, match=r"`coordinates` must be .* got float"):
        ni.infer.point_estimate(trend, 0.5, jnp.asarray(Y))
