"""Prediction from draws, against the dense Gaussian conditional law (kriging) and direct evaluation of modes.

Every statistical test has a false-alarm rate of 1e-6, shared among its numbers (Bonferroni).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, Predictive
from scipy import special, stats

from numpyro_inverse import whiten
from numpyro_inverse.distributions import AutoregressiveField, Coregionalized, Matern, SpectralField
from numpyro_inverse.domains import Grid, Stacked
from numpyro_inverse.infer import ExactGaussian, predict, predict_data, to_arviz
from numpyro_inverse.infer.export._predict_data import crps
from numpyro_inverse.infer.whitening._directions import Standardized
from numpyro_inverse.infer.whitening._reparam import reparametrize
from tests.domains.meshes import interval
from tests.domains.test_domain import Points

ALARM = 1e-6
GRID = Grid(24, extent=3.0)
PADDING = 3.0
TORUS = GRID.extended(PADDING)
LINE = interval(6)
RANGE, SCALE, NU, NOISE, MEAN = 1.0, 2.0, 1.5, 0.3, 7.0
STATIONS = np.array([0.21, 0.33, 1.02, 1.9, 2.55])
Y = np.array([8.0, 8.4, 5.9, 7.2, 9.1])
PLACES = np.array([0.05, 0.4, 0.71, 1.45, 2.3, 2.98])


def matern_on_torus(r, length=6.0):
    """The continuum's covariance on a torus: the sum of the free-space covariance over its images."""
    r = np.abs(np.asarray(r)[..., None] + length * np.arange(-6, 7)) * np.sqrt(8 * NU) / RANGE
    safe = np.where(r == 0, 1, r)
    c = 2 ** (1 - NU) / special.gamma(NU) * safe**NU * special.kv(NU, safe)
    return SCALE**2 * np.sum(np.where(r == 0, 1.0, c), axis=-1)


def covariance_of_modes(p, q):
    """That of the torus' Fourier modes whose values at cells have the continuum's covariance: by its lattice's FFT."""
    n, (length,) = TORUS.size, TORUS.extent
    lattice = np.fft.fft(matern_on_torus(np.arange(n) * length / n)).real / n
    k = 2 * np.pi * np.arange(n // 2) / length
    double = np.where(k == 0, 1.0, 2.0) * lattice[: n // 2]
    resolved = np.sum(double * np.cos(k * (p[:, None, None] - q[None, :, None])), axis=-1)
    nyquist = np.pi * n / length
    return resolved + lattice[n // 2] * np.sin(nyquist * p)[:, None] * np.sin(nyquist * q)


def kriging(covariance):
    """Mean and variance at PLACES given Y, and what bounds them take: the weights' and alpha's absolute sums."""
    joint = covariance(STATIONS, STATIONS) + NOISE**2 * np.eye(len(Y))
    across = covariance(PLACES, STATIONS)
    weights, alpha = np.linalg.solve(joint, across.T).T, np.linalg.solve(joint, Y - MEAN)
    variance = np.diag(covariance(PLACES, PLACES)) - np.sum(weights * across, axis=1)
    return MEAN + across @ alpha, variance, np.abs(weights).sum(1), np.abs(alpha).sum()


def field_model():
    numpyro.sample("field", Matern(GRID, range=RANGE, scale=SCALE, smoothness=NU, mean=MEAN, padding=PADDING))


@pytest.fixture(scope="module")
def posterior():
    """Independent draws of the torus' white noise given data at points, from its dense law in double precision."""
    rows = np.asarray(TORUS.interpolation(STATIONS[:, None]).factors[0], np.float64)
    with jax.enable_x64(True):
        field = Matern(TORUS, range=RANGE, scale=SCALE, smoothness=NU)
        modes = np.asarray(TORUS.inverse_transform(jnp.eye(TORUS.size))).T
        a = np.asarray(rows @ modes * np.asarray(field.amplitudes))
    precision = np.eye(TORUS.size) + a.T @ a / NOISE**2
    mean = np.linalg.solve(precision, a.T @ (Y - MEAN) / NOISE**2)
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    z = mean + np.random.default_rng(0).standard_normal((4000, TORUS.size)) @ root.T
    return {"field_latent": z.reshape((4, 1000, TORUS.size)).astype(np.float32)}


@pytest.fixture(scope="module")
def predicted(posterior):
    return predict(posterior, "field", PLACES, model=whiten(field_model), length_unit="km", batch_size=1000)


def limit(count):
    return stats.norm.isf(ALARM / (2 * count))


@pytest.mark.slow
def test_a_padded_field_between_cells_is_kriging_with_its_modes(predicted):
    mean, variance, *_ = kriging(covariance_of_modes)
    bound = limit(2 * len(PLACES))
    assert np.max(np.abs(predicted["field_mean"] - mean) / np.sqrt(variance / 4000)) < bound
    assert np.max(np.abs(predicted["field_sd"] ** 2 / variance - 1) * np.sqrt(4000 / 2)) < bound


@pytest.mark.slow
def test_a_field_between_cells_is_kriging_in_the_continuum_within_what_is_not_resolved(predicted):
    k = 2 * np.pi * np.arange(1, TORUS.size // 2) / TORUS.extent[0]
    kappa = np.sqrt(8 * NU) / RANGE
    front = SCALE**2 * 2 * np.sqrt(np.pi) * special.gamma(NU + 0.5) / special.gamma(NU) / kappa
    density = front * (1 + (np.r_[0, k] / kappa) ** 2) ** -(NU + 0.5)
    unresolved = matern_on_torus(0.0) - (density[0] + 2 * density[1:].sum()) / TORUS.extent[0]
    np.testing.assert_allclose(np.sqrt(unresolved) / SCALE, 0.033, atol=2e-3)  # as docs/prediction.md says
    delta = 2 * unresolved
    mean, variance, weights, alpha = kriging(lambda p, q: matern_on_torus(p[:, None] - q))
    _, own, own_weights, _ = kriging(covariance_of_modes)
    bound = limit(2 * len(PLACES))
    off = delta * (1 + own_weights) * alpha
    assert np.all(np.abs(predicted["field_mean"] - mean) < bound * np.sqrt(own / 4000) + off)
    off = delta * (1 + np.maximum(weights, own_weights)) ** 2
    assert np.all(np.abs(predicted["field_sd"] ** 2 - variance) < bound * own * np.sqrt(2 / 4000) + off)


@pytest.mark.slow
def test_intervals_and_coordinates(predicted):
    np.testing.assert_array_equal(predicted["x"], PLACES)
    assert predicted["field"].dims == ("chain", "draw", "point")
    assert predicted["x"].attrs["units"] == "km"
    assert predicted.attrs["probability"] == 0.9
    low, high = np.quantile(predicted["field"].values.astype(np.float64), [0.05, 0.95], axis=(0, 1))
    np.testing.assert_allclose(predicted["field_lower"], low)
    np.testing.assert_allclose(predicted["field_upper"], high)


def test_on_another_grid_as_at_its_cells(posterior):
    few = {name: x[:1, :3] for name, x in posterior.items()}
    fine = Grid(60, extent=3.0)
    by_axis = predict(few, "field", domain=fine, model=whiten(field_model))
    by_point = predict(few, "field", fine.axes[0][:, None], model=whiten(field_model))
    np.testing.assert_allclose(by_axis["field"], by_point["field"], rtol=1e-5)
    assert by_axis["field"].dims == ("chain", "draw", "x")
    own = predict(few, "field", domain=GRID, model=whiten(field_model))
    drawn = Predictive(whiten(field_model), {"field_latent": few["field_latent"][0]})(jax.random.key(0))
    np.testing.assert_allclose(own["field"][0], drawn["field"], rtol=1e-5)


@pytest.mark.parametrize("along", [None, (np.eye(2, TORUS.size), np.array([0.1, 0.5]))], ids=["shift", "scaled"])
def test_white_coefficients_of_a_torus_in_shifted_and_scaled_coordinates(along):
    """As fitted coordinates couple a field to other sites: the latent is standardized by its own law."""
    transform = Standardized(jnp.linspace(-1, 1, TORUS.size), 1, along)
    shifted = {"field": (lambda event_dim: transform, lambda v: None)}
    model = reparametrize(field_model, 0.5, 2.0, shifted)
    drawn = Predictive(model, num_samples=3)(jax.random.key(1))
    there = predict(drawn, "field", domain=GRID, model=model, num_chains=1)
    np.testing.assert_allclose(there["field"][0], drawn["field"], rtol=1e-5)
    with pytest.raises(ValueError, match="site 'field' other values than the draws have"):
        predict(drawn, "field", domain=GRID, model=whiten(field_model), num_chains=1)


PLANE = Grid((6, 5), extent=(1.2, 1.0), boundary=("dirichlet", "neumann"))
SITES = np.array([[0.05, 0.93], [0.6, 0.5], [1.17, 0.02]])


def plane_model(y=None, covariate=None, places=None):
    """Two fields in a plate, level unknown, seen at places."""
    level = numpyro.sample("level", dist.Normal(3.0, 1.0))
    with numpyro.plate("replicate", 2):
        u = numpyro.sample("u", SpectralField(PLANE, 1 / (9 + PLANE.eigenvalues) ** 2, mean=level[..., None]))
    at = PLANE.interpolation(SITES if places is None else places)
    covariate = jnp.zeros(at.out_shape) if covariate is None else covariate
    numpyro.sample("y", dist.Normal(at(u)[0] + level * covariate, 0.1).to_event(1), obs=y)


@pytest.fixture(scope="module")
def plane():
    names = ("level", "u", "u_latent")
    draws = Predictive(whiten(plane_model), num_samples=6)(jax.random.key(3))
    return {name: np.asarray(draws[name]).reshape((2, 3, *draws[name].shape[1:])) for name in names}


def direct(plane):
    """Level plus the sum of the sines and cosines, written out."""
    w = PLANE.transform(plane["u"] - plane["level"][..., None, None, None])
    k, m = np.arange(1, 7), np.arange(5)
    sines = np.sin(np.pi * np.outer(SITES[:, 0] / 1.2, k)) * np.sqrt(2 / 6) * np.where(k == 6, np.sqrt(0.5), 1)
    cosines = np.cos(np.pi * np.outer(SITES[:, 1] / 1.0, m)) * np.sqrt(2 / 5) * np.where(m == 0, np.sqrt(0.5), 1)
    return plane["level"][..., None, None] + np.einsum("...km,pk,pm->...p", np.asarray(w), sines, cosines)


@pytest.mark.slow
@pytest.mark.parametrize("centering", [0.0, 0.7, None])
def test_modes_in_a_plate_over_a_level_in_any_coordinates(plane, centering):
    draws = {k: v for k, v in plane.items() if centering is None or k != "u"}
    model = plane_model if centering is None else whiten(plane_model, centering)
    if centering is None:  # the field's values themselves
        draws.pop("u_latent")
    if centering:
        amplitudes = np.asarray(SpectralField(PLANE, 1 / (9 + PLANE.eigenvalues) ** 2).amplitudes)
        draws["u_latent"] = draws["u_latent"] * amplitudes**centering
    there = predict(draws, "u", SITES, model=model)
    assert there["u"].dims == ("chain", "draw", "replicate", "point")
    np.testing.assert_allclose(there["u"], direct(plane), atol=2e-5)


def test_the_mean_need_not_vanish_where_the_modes_do(plane):
    edge = predict(plane, "u", [[0.0, 0.3]], model=whiten(plane_model))["u"]
    np.testing.assert_allclose(edge[..., 0], np.broadcast_to(plane["level"][..., None], edge.shape[:-1]), atol=1e-5)


def test_a_domain_of_ones_own(plane):
    points = Points(tuple(map(tuple, SITES)))
    there = predict(plane, "u", domain=points, model=whiten(plane_model))
    np.testing.assert_allclose(there["u"], direct(plane), atol=2e-5)
    np.testing.assert_array_equal(there["y"], SITES[:, 1])


@pytest.mark.parametrize("space", [Grid(6, boundary="dirichlet"), LINE], ids=["grid", "mesh"])
def test_each_time_and_component_by_itself(space):
    """The mean by straight lines, what is random by the space's own interpolation; the same from each copy."""
    eigenvalues = getattr(space, "eigenvalues", None)

    def field(mean):
        if isinstance(space, Grid):
            return SpectralField(space, 1 / (1 + eigenvalues), mean=mean)
        return Matern(space, range=0.5, scale=1.0, smoothness=0.5, mean=mean)

    def model():
        both = Coregionalized([field(3.0), field(1.0)], jnp.array([[1.0, 0.0], [-1.0, 1.0]]))
        numpyro.sample("u", AutoregressiveField(both, 0.5, 3))

    u = np.random.default_rng(0).normal(size=(1, 4, 3, 2, 6)).astype(np.float32)
    places = np.array([[0.002], [0.31], [0.77]])
    mean = np.array([3.0, -2.0])[:, None]
    there = predict({"u": u}, "u", places, model=model)
    assert there["u"].dims == ("chain", "draw", "time", "component", "point")
    np.testing.assert_allclose(there["u"], space.interpolation(places)(u - mean) + mean, atol=1e-5)
    np.testing.assert_array_equal(there["x"], places[:, 0])
    assert (there["x"].attrs["units"], there["time"].attrs["units"]) == ("length unit", "1")

    on = predict({"u": u}, "u", domain=Grid(3), model=model)
    assert on["u"].dims == ("chain", "draw", "time", "component", "x")
    copies = Stacked(Stacked(Grid(3), "component", 2), "time", 3)
    np.testing.assert_array_equal(predict({"u": u}, "u", domain=copies, model=model)["u"], on["u"])
    for wrong in (Stacked(Grid(3), "time", 4), Stacked(Grid(3), "component", 3)):
        with pytest.raises(ValueError, match=r"`domain` has . copies along .*; the field has 3 along 'time'"):
            predict({"u": u}, "u", domain=wrong, model=model)
    with pytest.raises(TypeError, match="`domain` must be a domain"):
        predict({"u": u[..., 0, 0, :]}, "u", domain=copies, model=lambda: numpyro.sample("u", field(0.0)))


@pytest.mark.slow
def test_from_a_run_of_an_exact_kernel_and_a_tree_of_it():
    def model(y=None):
        field = numpyro.sample("field", Matern(GRID, range=1.0, scale=2.0, smoothness=1.5, padding=PADDING))
        numpyro.sample("y", dist.Normal(field[::6], 0.3).to_event(1), obs=y)

    mcmc = MCMC(ExactGaussian(model), num_warmup=0, num_samples=3, progress_bar=False)
    mcmc.run(jax.random.key(0), jnp.zeros(4))
    there = predict(mcmc, "field", domain=GRID)
    np.testing.assert_allclose(there["field"], mcmc.get_samples(group_by_chain=True)["field"], rtol=1e-4, atol=1e-5)
    tree = to_arviz(mcmc, model=whiten(model), keep_latent=True, posterior_predictive=False, log_likelihood=False)
    again = predict(tree.posterior, "field", domain=GRID, model=model)
    np.testing.assert_array_equal(again["field"], there["field"])
    with pytest.raises(ValueError, match=r"site 'field' is seen through a window of a torus \(48,\).*whiten"):
        predict({"field": mcmc.get_samples(group_by_chain=True)["field"]}, "field", domain=GRID, model=model)


# Data that were not seen.

NEW = {"places": np.array([[0.3, 0.3], [1.0, 0.8]]), "covariate": np.array([1.0, -2.0])}


@pytest.mark.slow
def test_data_at_new_places_with_new_covariates(plane):
    many = {name: np.repeat(x, 500, axis=1) for name, x in plane.items()}
    there = predict_data(many, model=whiten(plane_model), model_kwargs=NEW, sites=["y"], batch_size=500)
    at = PLANE.interpolation(NEW["places"])
    mean = np.asarray(at(plane["u"])[..., 0, :] + plane["level"][..., None] * NEW["covariate"])
    z = (there["y"].values.reshape((2, 3, 500, 2)).mean(2) - mean) / (0.1 / np.sqrt(500))
    assert np.max(np.abs(z)) < limit(z.size)
    variance = there["y"].values.reshape((2, 3, 500, 2)).var(2) / 0.1**2
    assert np.max(np.abs(variance - 1)) * np.sqrt(500 / 2) < limit(z.size)
    assert there["y_mean"].dims == ("y_dim_0",)


def test_scores(plane):
    at = PLANE.interpolation(NEW["places"])
    mean = np.asarray(at(plane["u"])[..., 0, :] + plane["level"][..., None] * NEW["covariate"], np.float64)
    y = (mean[0, 0] + 0.05).astype(np.float32)
    there = predict_data(plane, {"y": y}, model=whiten(plane_model), model_kwargs=NEW, probability=0.5)
    density = stats.norm.pdf(y, mean, 0.1).mean((0, 1))
    assert np.all(density > 0.1)
    np.testing.assert_allclose(np.exp(there["y_log_score"]), density, rtol=1e-3)
    draws = there["y"].values.astype(np.float64).reshape((6, 2))
    pairs = np.abs(draws[:, None] - draws).sum((0, 1)) / (6 * 5)
    np.testing.assert_allclose(there["y_crps"], np.abs(draws - y).mean(0) - pairs / 2, rtol=1e-6)
    np.testing.assert_allclose(there["y_rmse"], np.sqrt(np.mean((draws.mean(0) - y) ** 2)), rtol=1e-6)
    low, high = np.quantile(draws, [0.25, 0.75], axis=0)
    assert float(there["y_coverage"]) == np.mean((low <= y) & (y <= high))
    np.testing.assert_array_equal(there["y_observed"], y)


def test_crps_of_normal_draws(key):
    """Against the closed form: sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) (Gneiting & Raftery, section 4.2)."""
    y = np.array([-1.0, 0.3, 2.5])
    batches = np.asarray(jax.random.normal(key, (400, 50, 3)))
    found = np.stack([crps(draws, y) for draws in batches])
    expected = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    z = (found.mean(0) - expected) / (found.std(0, ddof=1) / np.sqrt(400))
    assert np.max(np.abs(z)) < stats.t.isf(ALARM / 6, 399)


@pytest.mark.slow
def test_intervals_cover_what_the_model_draws(plane):
    """Data of the same law as the predictions: coverage has the spread of independent trials."""
    draws = {name: np.broadcast_to(x[:1, :1], (1, 500, *x.shape[2:])) for name, x in plane.items()}
    places = np.stack([np.linspace(0.1, 1.1, 400), np.full(400, 0.5)], axis=1)
    truth = Predictive(whiten(plane_model), {k: v[0, :1] for k, v in draws.items()})(jax.random.key(9), places=places)
    there = predict_data(
        draws, {"y": np.asarray(truth["y"][0])}, model=whiten(plane_model), model_kwargs={"places": places}
    )
    # Of a quantile of 500 draws the probability itself varies, by sqrt(p (1 - p) / 500) for each end, per datum.
    expected, sd = 0.9 * 499 / 501, np.sqrt(0.09 / 400)
    assert abs(float(there["y_coverage"]) - expected) < limit(1) * sd


def groups_model(y=None, groups=3):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    with numpyro.plate("group", groups):
        effect = numpyro.sample("effect", dist.Normal(mean, 2.0))
        numpyro.sample("y", dist.Normal(effect, 0.1), obs=y)


def test_effects_of_new_groups_are_drawn_anew():
    draws = {"mean": np.full((1, 2000), 5.0, np.float32), "effect": np.zeros((1, 2000, 3), np.float32)}
    call = {"model": groups_model, "model_kwargs": {"groups": 4}, "sites": ["y"], "batch_size": 500}
    with pytest.raises(ValueError, match=r"site 'effect' has shape \(4,\) in the model and \(3,\) in a draw"):
        predict_data(draws, **call)
    there = predict_data(draws, **call, fresh=["effect"])
    assert there["y"].dims == ("chain", "draw", "group")
    z = (there["y_mean"] - 5.0) / np.sqrt(4.01 / 2000)
    assert np.max(np.abs(z)) < limit(4)


@pytest.mark.slow
def test_the_data_sites_of_a_run_are_those_that_it_observed():
    mcmc = MCMC(ExactGaussian(groups_model), num_warmup=0, num_samples=4, progress_bar=False)
    mcmc.run(jax.random.key(0), jnp.zeros(3))
    assert set(predict_data(mcmc)) == {"y", "y_mean", "y_sd", "y_lower", "y_upper"}
    assert set(predict_data(mcmc, model_kwargs={"groups": 3})) == {"y", "y_mean", "y_sd", "y_lower", "y_upper"}


def test_means_and_sds_in_double_precision():
    """273.15 + 0.01 N in float32: the draws' own sd, within their rounding (3e-5 / sqrt(12))."""
    x = (273.15 + 0.01 * np.random.default_rng(0).standard_normal((1, 20_000, 24))).astype(np.float32)
    there = predict({"u": x}, "u", domain=GRID, model=partial(_only, GRID))
    np.testing.assert_allclose(there["u_sd"], x.astype(np.float64).std((0, 1)), rtol=0.02)


def _only(grid):
    numpyro.sample("u", SpectralField(grid, jnp.ones(grid.shape), mean=273.15))
