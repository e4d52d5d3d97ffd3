"""Coordinates fitted to data: ridges between fields and other sites, and between fields."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import Predictive
from numpyro.infer.util import log_density, potential_energy

import numpyro_inverse as ni
from numpyro_inverse import nn
from numpyro_inverse.distributions._reparametrized import unwrapped
from numpyro_inverse.infer.whitening import _fit_coordinates
from numpyro_inverse.infer.whitening._fit_coordinates import _Problem
from numpyro_inverse.infer.whitening._settle import potential_in, settled

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


def kriging(y=None):
    """Everything unknown, and effects of four groups whose spread is unknown too."""
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 4):
        effect = numpyro.sample("effect", dist.Normal(0.0, tau))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    field = numpyro.sample("field", matern(scale=scale))
    numpyro.sample("y", dist.Normal(mu + effect[np.arange(32) % 4] + field, noise).to_event(1), obs=y)


MODELS = {"trend": trend, "late": late_intercept, "two": two_fields, "many": two_fields, "kriging": kriging}


class Fitted(dict):
    """Coordinates of each model, found when asked for; ``many`` as if the data were too many to find all directions."""

    def __missing__(self, name):
        with pytest.MonkeyPatch.context() as patch, jax.enable_x64(False):
            if name == "many":
                patch.setattr(_fit_coordinates, "FEW", 0)
            self[name] = ni.fit_coordinates(MODELS[name], jnp.asarray(Y))
        return self[name]


@pytest.fixture(scope="module")
def fitted():
    return Fitted()


def dense_trend():
    """Exact posterior covariance of (mu, slope), the field integrated out."""
    design = np.stack([np.ones(32), covariate()], axis=1)
    covariance = np.asarray(matern().covariance_matrix, float) + NOISE**2 * np.eye(32)
    return np.linalg.inv(design.T @ np.linalg.solve(covariance, design) + np.eye(2))


@pytest.mark.slow
def test_the_spread_of_an_intercept_is_marginal(fitted):
    """The model is Gaussian, so the covariance is exact but for rounding: single precision at a condition of 1e4."""
    found = np.asarray(fitted["trend"].hyper_covariance, float)
    np.testing.assert_allclose(found, dense_trend(), rtol=1e-3)
    assert fitted["trend"].coupled_sites == ("mu", "slope")
    assert not fitted["trend"].has_ridge


@pytest.mark.slow
def test_double_precision(x64):
    """As in single precision, where the intercept's spread depends on scales that are unknown, and is averaged."""
    found = ni.fit_coordinates(kriging, jnp.asarray(Y))
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(found) if jnp.issubdtype(leaf.dtype, jnp.floating))
    with jax.enable_x64(False):
        single = ni.fit_coordinates(kriging, jnp.asarray(Y, jnp.float32))
    for name in ("mu", "noise", "scale"):  # by other random numbers
        assert 0.5 < found.hyper_spread[name] / single.hyper_spread[name] < 2


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [1 / 25, 25.0])
def test_a_short_chain_corrects_the_covariance(fitted, wrong):
    """A covariance 25 times too small or too large ends within a factor of 3 of the exact one in every direction.

    72 nearly independent draws of two numbers give eigenvalues within a factor of 2.2 of the true ones, but for a
    chance of 1e-4 (Wishart); a ratio up to 2 is left as it is.
    """
    coordinates = eqx.tree_at(lambda c: c.hyper_covariance, fitted["trend"], wrong * fitted["trend"].hyper_covariance)
    found = settled(coordinates, potential_in(trend, (jnp.asarray(Y),), {}, coordinates))
    ratios = np.real(np.linalg.eigvals(np.linalg.solve(dense_trend(), np.asarray(found.hyper_covariance, float))))
    assert np.all((ratios > 1 / 3) & (ratios < 3))
    assert np.isfinite(found.step_size)
    np.testing.assert_allclose(found.hyper_spread["mu"] ** 2, found.hyper_covariance[0, 0], rtol=1e-5)


def amplitudes_at(model, values):
    """Prior standard deviations of fields' coefficients and of group effects."""
    sites = handlers.trace(handlers.seed(handlers.substitute(model, values), 0)).get_trace(jnp.asarray(Y))
    laws = {name: unwrapped(sites[name]["fn"]) for name in ("field", "long", "short", "effect") if name in sites}
    return {
        name: jnp.broadcast_to(law.scale, (4,)) if isinstance(law, dist.Normal) else law.amplitudes
        for name, law in laws.items()
    }


@pytest.mark.parametrize(
    "name", ["trend", *(pytest.param(name, marks=pytest.mark.slow) for name in ("late", "many", "two", "kriging"))]
)
def test_the_joint_law_is_unchanged(fitted, name, x64, key):
    """The density in the coordinates, unconstrained, is the model's times the Jacobian of all maps, by hand.

    Sites that are constrained are among those that are sampled ahead of the fields.
    """
    model, y = MODELS[name], jnp.asarray(Y)
    coordinates = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), fitted[name])
    whitened = ni.whiten(model, coordinates)
    draw = handlers.trace(handlers.seed(whitened, key)).get_trace(y)
    latents = {k: s for k, s in draw.items() if s["type"] == "sample" and not s["is_observed"]}
    unconstrained = {k: biject_to(s["fn"].support).inv(s["value"]) for k, s in latents.items()}
    values = {k: draw[k]["value"] for k in fitted[name].hyper_location if k in draw}
    log_jacobian = sum(
        float(jnp.sum(biject_to(s["fn"].support).log_abs_det_jacobian(unconstrained[k], s["value"])))
        for k, s in latents.items()
    )
    white, log_det = {}, 0.0
    for field, amplitude in amplitudes_at(model, values).items():
        z, law = latents[f"{field}_latent"]["value"], latents[f"{field}_latent"]["fn"]
        for transform in getattr(law, "transforms", []):
            v = transform.inv(z)
            log_det, z = log_det - float(transform.log_abs_det_jacobian(v, z)), v
        c, b = coordinates.centering[field], coordinates.reference[field]
        white[f"{field}_latent"] = z * (b / amplitude) ** c  # w = v a^(1-c) b^c, in units of a
        log_det += float(jnp.sum(c * jnp.log(b / amplitude)))
    assert abs(log_det) > 1 or name in ("many", "late")
    here = -potential_energy(whitened, (y,), {}, unconstrained)
    effects = {"effect": white.pop("effect_latent") * values["tau"]} if name == "kriging" else {}
    if effects:
        log_det += 4 * float(jnp.log(values["tau"]))
    plain = ni.whiten(model)
    there, sites = log_density(plain, (y,), {}, values | effects | white)
    assert np.isclose(here, there + log_jacobian + log_det, rtol=1e-9)
    for field in white:
        at = field.removesuffix("_latent")
        np.testing.assert_allclose(sites[at]["value"], draw[at]["value"], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_site_that_depends_on_the_field_is_left_in_its_place(fitted):
    assert fitted["late"].downstream_sites == ("downstream",)
    assert fitted["late"].coupled_sites == ("mu",)
    sites = handlers.trace(handlers.seed(ni.whiten(late_intercept, fitted["late"]), 0)).get_trace(jnp.asarray(Y))
    order = [name for name, site in sites.items() if site["type"] == "sample"]
    assert order == ["mu", "field_latent", "downstream", "y"]


@pytest.mark.slow
def test_fields_that_the_data_see_together_are_coupled(fitted):
    """Mode by mode short follows long as -h_21 / h_22, here exactly: both enter by their sum."""
    factor = np.asarray(fitted["many"].field_coupling["short"]["long"], float)
    reference = {k: np.asarray(v, float) for k, v in fitted["many"].reference.items()}
    c = np.asarray(fitted["many"].centering["short"], float)  # g / (1 + g)
    np.testing.assert_allclose(factor, -c * reference["long"] / reference["short"], rtol=2e-3)
    assert not fitted["many"].has_ridge


def test_prior_draws_are_those_of_the_model(fitted, key):
    """Mean and variance of 4,000 prior draws of the intercept plus the field at one point; false alarms 1e-4."""
    whitened = ni.whiten(trend, fitted["trend"])
    draws = Predictive(whitened, num_samples=4000)(key)
    total = np.asarray(draws["mu"] + draws["field"][:, 5], float)
    variance = 1 + float(matern().variance[5])
    assert abs(total.mean()) < 3.9 * np.sqrt(variance / 4000)
    assert abs(total.var() / variance - 1) < 3.9 * np.sqrt(2 / 4000)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_information_is_told_by_site_whatever_their_names():
    """`a_b` comes before `a` where latents are sorted by name, and after it where sites are: only `a` has data."""

    def model(y=None):
        grid = ni.domains.Grid(4)
        a = numpyro.sample("a", ni.distributions.Matern(grid, range=0.3, scale=1.0, smoothness=1.0))
        numpyro.sample("a_b", ni.distributions.Matern(grid, range=0.3, scale=1.0, smoothness=1.0))
        numpyro.sample("y", dist.Normal(a, 0.5).to_event(1), obs=y)

    problem = _Problem(model, (), {"y": np.zeros(4)})
    x, _ = problem.start(jax.random.key(0))
    found = jax.jit(jax.vmap(problem.information_product(x, problem.first_modes(x), jax.random.key(1))))(jnp.eye(8))
    assert np.all(np.linalg.eigvalsh(found[:4, :4]) > 0.1)
    np.testing.assert_array_equal(found[4:], 0)
    np.testing.assert_array_equal(found[:, 4:], 0)
