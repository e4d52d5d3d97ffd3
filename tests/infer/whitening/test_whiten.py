"""Whitening changes coordinates, never the law."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.initialization import init_to_value
from numpyro.infer.util import log_density
from scipy import stats

import numpyro_inverse as ni

GRID = ni.domains.Grid((5, 6), extent=(1.0, 1.2), boundary=("neumann", "periodic"))


def hierarchical(data=None):
    range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.5))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    field = numpyro.sample("field", ni.distributions.Matern(GRID, range=range_, scale=scale, smoothness=1.0, mean=0.3))
    numpyro.sample("data", dist.Normal(field, 0.1).to_event(2), obs=data)


@pytest.mark.parametrize("centering", [0.0, 1.0, 0.4, np.linspace(0, 1, 30).reshape(5, 6)], ids=str)
def test_joint_density_is_the_original_one_times_the_jacobian(x64, key, centering):
    """log p(latent, rest) = log p(field, rest) + log |d field / d latent|, the latter by automatic differentiation."""
    whitened = ni.whiten(hierarchical, centering=centering)
    values = {"range": jnp.array(0.4), "scale": jnp.array(0.7)}

    @jax.jit
    def both(data, latent):
        def field(v):
            model = handlers.seed(handlers.substitute(whitened, data=values | {"field_latent": v}), 0)
            return handlers.trace(model).get_trace(data)["field"]["value"]

        here, _ = log_density(whitened, (data,), {}, values | {"field_latent": latent})
        there, _ = log_density(hierarchical, (data,), {}, values | {"field": field(latent)})
        return here, there, jax.jacobian(field)(latent)

    here, there, jacobian = both(*jax.random.normal(key, (2, *GRID.shape)))
    np.testing.assert_allclose(here, there + np.linalg.slogdet(jacobian.reshape(30, 30))[1], rtol=1e-10)


@pytest.mark.slow
def test_prior_draws_through_whitened_sites_have_the_fields_covariance(key):
    """Chi-square of 2,000 draws in the field's own covariance; false-alarm rate 1e-4."""
    prior = ni.distributions.Matern(GRID, range=0.4, scale=0.7, smoothness=1.5)

    def model():
        numpyro.sample("field", prior)

    for centering in (0.0, 0.6):
        draws = Predictive(ni.whiten(model, centering), num_samples=2000)(key)["field"].reshape(2000, -1)
        white = np.linalg.solve(np.linalg.cholesky(prior.covariance_matrix), np.asarray(draws).T)
        low, high = stats.chi2.ppf([0.5e-4, 1 - 0.5e-4], white.size)
        assert low < np.sum(white**2) < high


@pytest.mark.slow
def test_every_kind_of_field_site(key):
    """Batches, plates, `expand`, `to_event` and windows keep the shapes and the density of the original site."""

    def model():
        with numpyro.plate("three", 3):
            numpyro.sample("plated", ni.distributions.Matern(GRID, range=0.4, scale=1.0, smoothness=1.0))
        batch = ni.distributions.Matern(GRID, range=jnp.array([0.2, 0.4]), scale=1.0, smoothness=1.0)
        numpyro.sample("batch", batch.expand((4, 2)).to_event(1))
        numpyro.sample("window", ni.distributions.Matern(GRID, range=0.4, scale=1.0, smoothness=1.0, padding=0.3))

    trace = handlers.trace(handlers.seed(ni.whiten(model), key)).get_trace()
    original = handlers.trace(handlers.seed(model, key)).get_trace()
    for name in ("plated", "batch", "window"):
        assert trace[name]["type"] == "deterministic"
        assert trace[name]["value"].shape == original[name]["value"].shape
    assert trace["plated_latent"]["fn"].batch_shape == (3,)
    assert trace["batch_latent"]["fn"].batch_shape == (4,)
    assert trace["window_latent"]["value"].size > trace["window"]["value"].size


def test_other_sites_are_left_alone(key):
    trace = handlers.trace(handlers.seed(ni.whiten(hierarchical), key)).get_trace(jnp.zeros(GRID.shape))
    assert list(trace) == ["range", "scale", "field_latent", "field", "data"]
    assert trace["data"]["is_observed"]


def test_observed_fields_are_not_whitened():
    def model(field):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("field", ni.distributions.Matern(GRID, range=0.4, scale=scale, smoothness=1.0), obs=field)

    trace = handlers.trace(handlers.seed(ni.whiten(model), 0)).get_trace(jnp.zeros(GRID.shape))
    assert trace["field"]["is_observed"]


# --- coordinates fitted to data ---

LINE = ni.domains.Grid(24)
OBSERVED = np.arange(0, 24, 2)
NOISE = 0.2


def on_a_line(data=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.7))
    field = numpyro.sample("field", ni.distributions.Matern(LINE, range=0.4, scale=scale, smoothness=1.5))
    numpyro.sample("data", dist.Normal(field[OBSERVED], NOISE).to_event(1), obs=data)


def line_data():
    return Predictive(handlers.condition(on_a_line, {"scale": jnp.array(1.3)}), num_samples=1)(jax.random.key(5))[
        "data"
    ][0]


def line_log_posterior(log_scale, data):
    """Unnormalised density of log scale with the field integrated out, by a dense Gaussian."""
    unit = ni.distributions.Matern(LINE, range=0.4, scale=1.0, smoothness=1.5).covariance_matrix
    unit = np.asarray(unit, float)[np.ix_(OBSERVED, OBSERVED)]
    values = []
    for s in log_scale:
        covariance = np.exp(2 * s) * unit + NOISE**2 * np.eye(len(OBSERVED))
        values.append(stats.multivariate_normal.logpdf(data, cov=covariance) + stats.norm.logpdf(s, 0.0, 0.7))
    return np.array(values)


@pytest.mark.slow
def test_coordinates_centering_follows_the_expected_information():
    """c = b^2 I / (1 + b^2 I) with I the diagonal of Gauss-Newton, estimated from 32 simulations.

    Each I_k estimate is I_k chi2(32) / 32: all 24 stay within the quantiles that a chance of 1e-4 allows.
    """
    data = line_data()
    fitted = ni.fit_coordinates(on_a_line, data)
    modes = np.asarray(LINE.inverse_transform(jnp.eye(24)))[:, OBSERVED]
    information = np.sum(modes**2, axis=1) / NOISE**2
    c, b = np.asarray(fitted.centering["field"], float), np.asarray(fitted.reference["field"], float)
    ratio = c / (1 - c) / b**2 / information
    low, high = stats.chi2.ppf([0.5e-4 / 24, 1 - 0.5e-4 / 24], 32) / 32
    assert low < ratio.min()
    assert ratio.max() < high


@pytest.mark.slow
def test_coordinates_centering_finds_the_hyperparameters(key):
    """The rough mode lies within one posterior standard deviation of the exact marginal's mean, from quadrature."""
    data = line_data()
    fitted = ni.fit_coordinates(on_a_line, data)
    x = np.linspace(-3, 3, 600)
    weight = np.exp(line_log_posterior(x, data))
    weight /= weight.sum()
    mean = np.sum(weight * x)
    sd = np.sqrt(np.sum(weight * (x - mean) ** 2))
    assert abs(float(fitted.hyper_location["scale"]) - mean) < sd
    assert 0.3 < float(fitted.hyper_spread["scale"]) / sd < 2.0  # a curvature at the mode, not the marginal's spread


@pytest.mark.slow
@pytest.mark.parametrize(
    "chain_method",
    ["vectorized", *(pytest.param(m, marks=pytest.mark.statistical) for m in ("sequential", "parallel"))],
)
def test_nuts_in_automatic_coordinates_samples_the_exact_posterior(key, chain_method):
    """Probability integral transforms of log scale against quadrature: Kolmogorov-Smirnov with 1e-4 false alarms.

    Draws are thinned to be nearly independent (ESS about the number of draws before thinning by 4).
    """
    data = line_data()
    coordinates = ni.fit_coordinates(on_a_line, data)
    kernel = NUTS(ni.whiten(on_a_line, coordinates), **coordinates.nuts_settings())
    mcmc = MCMC(kernel, num_warmup=200, num_samples=1000, num_chains=2, chain_method=chain_method, progress_bar=False)
    mcmc.run(key, data)
    draws = np.log(np.asarray(mcmc.get_samples()["scale"], float))[::4]
    x = np.linspace(-4, 4, 1600)
    cdf = np.cumsum(np.exp(line_log_posterior(x, data)))
    assert stats.kstest(np.interp(draws, x, cdf / cdf[-1]), "uniform").pvalue > 1e-4


@pytest.mark.slow
def test_fitted_coordinates_map_draws_back_without_data(key):
    data = line_data()
    whitened = ni.whiten(on_a_line, ni.fit_coordinates(on_a_line, data))
    mcmc = MCMC(
        NUTS(whitened, max_tree_depth=2), num_warmup=5, num_samples=5, num_chains=2, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(key, data)
    samples = mcmc.get_samples()
    replayed = Predictive(whitened, {k: samples[k] for k in ("scale", "field_latent")})(key)
    np.testing.assert_allclose(replayed["field"], samples["field"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_svi_runs_on_a_whitened_model(key):
    data = line_data()
    whitened = ni.whiten(on_a_line, ni.fit_coordinates(on_a_line, data))
    result = SVI(whitened, AutoNormal(whitened), numpyro.optim.Adam(0.05), Trace_ELBO()).run(
        key, 200, data, progress_bar=False
    )
    assert np.mean(result.losses[-20:]) < np.mean(result.losses[:20])


@pytest.mark.slow
def test_count_data_have_information_too(key):
    """A Poisson likelihood: Fisher's information about mode k is sum_i phi_k(x_i)^2 rate_i, here at a flat field."""
    grid = ni.domains.Grid(16)

    def model(counts=None):
        field = numpyro.sample("field", ni.distributions.Matern(grid, range=0.3, scale=0.1, smoothness=1.0, mean=3.0))
        numpyro.sample("counts", dist.Poisson(jnp.exp(field)).to_event(1), obs=counts)

    fitted = ni.fit_coordinates(model, jnp.full(16, 20))
    c, b = np.asarray(fitted.centering["field"], float), np.asarray(fitted.reference["field"], float)
    low, high = stats.chi2.ppf([0.5e-4 / 16, 1 - 0.5e-4 / 16], 32) / 32
    ratio = c / (1 - c) / b**2 / 20.0
    assert 0.9 * low < ratio.min()  # the rough mode is within 10 % of a flat rate of 20
    assert ratio.max() < 1.1 * high


@pytest.mark.slow
def test_no_hyperparameters(key):
    def model(data=None):
        field = numpyro.sample("field", ni.distributions.Matern(LINE, range=0.4, scale=1.0, smoothness=1.5))
        numpyro.sample("data", dist.Normal(field, 0.2).to_event(1), obs=data)

    data = jnp.sin(jnp.arange(24.0))
    coordinates = ni.fit_coordinates(model, data)
    kernel = NUTS(ni.whiten(model, coordinates), **coordinates.nuts_settings())
    mcmc = MCMC(kernel, num_warmup=20, num_samples=20, progress_bar=False)
    mcmc.run(key, data)
    assert mcmc.get_samples()["field"].shape == (20, 24)


# --- errors ---


@pytest.mark.parametrize("centering", [-0.1, 1.5, float("nan"), np.full(3, 2.0)])
def test_a_centering_that_does_not_exist(centering):
    with pytest.raises(ValueError, match="`centering` must be"):
        ni.whiten(hierarchical, centering=centering)


@pytest.mark.parametrize("centering", ["auto", None, [0.5, "a"], True])
def test_a_centering_that_is_no_number(centering):
    with pytest.raises(TypeError, match="`centering` must be"):
        ni.whiten(hierarchical, centering=centering)


def test_a_model_that_is_none():
    with pytest.raises(TypeError, match="`model` must be a NumPyro model; got int"):
        ni.whiten(3)


def test_a_centering_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"site 'field'.*\(5, 6\)"):
        handlers.seed(ni.whiten(hierarchical, centering=np.zeros((2, 7))), 0)()


def test_coordinates_without_data():
    with pytest.raises(ValueError, match="no observed site"):
        ni.fit_coordinates(hierarchical)


def test_coordinates_with_data_that_are_not_finite():
    with pytest.raises(ValueError, match=r"site 'data'.*not finite"):
        ni.fit_coordinates(hierarchical, jnp.full(GRID.shape, jnp.nan))


def test_coordinates_without_a_field():
    def model(data):
        numpyro.sample("data", dist.Normal(numpyro.sample("x", dist.Normal()), 1.0), obs=data)

    with pytest.raises(ValueError, match="no field"):
        ni.fit_coordinates(model, 1.0)


def test_coordinates_with_traced_data():
    with pytest.raises(ValueError, match="being traced"):
        jax.jit(lambda data: ni.fit_coordinates(hierarchical, data).reference)(jnp.zeros(GRID.shape))


def test_coordinates_with_a_large_other_site():
    def model(data):
        numpyro.sample("weights", dist.Normal().expand([600]).to_event(1))
        hierarchical(data)

    with pytest.raises(ValueError, match=r"600 latent numbers|60\d latent numbers"):
        ni.fit_coordinates(model, jnp.zeros(GRID.shape))


def test_coordinates_with_a_discrete_site():
    def model(data):
        numpyro.sample("k", dist.Bernoulli(0.5))
        hierarchical(data)

    with pytest.raises(ValueError, match="site 'k' is discrete"):
        ni.fit_coordinates(model, jnp.zeros(GRID.shape))


# --- handlers that white coordinates would ignore, or that would mean something else in them ---


@pytest.mark.parametrize("centering", [0.0, 0.5], ids=["white", "partly centered"])
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda w: handlers.condition(w, {"field": jnp.zeros(GRID.shape)}), r"`condition` around `whiten`.*'field'"),
        (lambda w: handlers.do(w, {"field": jnp.zeros(GRID.shape)}), r"`do` around `whiten`.*'field'"),
    ],
    ids=["condition", "do"],
)
def test_a_value_from_outside_is_refused(centering, wrap, message):
    with pytest.raises(ValueError, match=message):
        handlers.seed(wrap(ni.whiten(hierarchical, centering)), 0)()


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda m: handlers.scale(m, scale=0.5), r"site 'field' is scaled"),
        (lambda m: handlers.mask(m, mask=False), r"site 'field' is masked"),
        (lambda m: handlers.substitute(m, {"field": jnp.zeros(GRID.shape)}), r"site 'field' has a value already"),
    ],
    ids=["scale", "mask", "substitute"],
)
def test_what_changes_the_prior_inside_is_refused(wrap, message):
    with pytest.raises(ValueError, match=message):
        handlers.seed(ni.whiten(wrap(hierarchical)), 0)()


def test_initial_values_of_the_field_are_refused():
    strategy = init_to_value(values={"field": jnp.zeros(GRID.shape)})
    mcmc = MCMC(NUTS(ni.whiten(hierarchical), init_strategy=strategy), num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match=r"initial value of site 'field' would be ignored.*'field_latent'"):
        mcmc.run(jax.random.key(0), jnp.zeros(GRID.shape))


def test_a_condition_inside_is_an_observation(x64):
    """The field observed in the model, whitened or not: the same density."""
    field = jnp.linspace(-1.0, 1.0, 30).reshape(GRID.shape)
    observed = handlers.condition(hierarchical, {"field": field})
    values = {"range": jnp.array(0.4), "scale": jnp.array(0.7)}
    here, _ = log_density(ni.whiten(observed), (field,), {}, values)
    there, _ = log_density(observed, (field,), {}, values)
    assert np.isclose(here, there, rtol=1e-12)
