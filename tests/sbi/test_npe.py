"""A learned posterior: closed forms, supports, studies of calibration that see what is wrong, rounds, guides, files."""

import copy
import warnings
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.util import log_density
from scipy import stats

from numpyro_inverse import nn, to_arviz
from numpyro_inverse.calibration import conformalize, coverage, lc2st, sbc, tarp
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi import NLE, NPE, simulate
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._neural_posterior import DataContext
from numpyro_inverse.sbi._npe import Learned
from numpyro_inverse.sbi._region import Region

QUIET = {"progress_bar": False}
PRIOR, NOISE = np.array([1.0, 0.6, 2.0]), 0.5
MIX = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -0.5], [0.3, 0.0, 1.0]])


def _linear(key, theta):
    return jnp.asarray(MIX, theta.dtype) @ theta + NOISE * random.normal(key, (3,))


def linear_model(x=None):
    theta = numpyro.sample("theta", dist.Normal(0.0, jnp.asarray(PRIOR)).to_event(1))
    numpyro.sample("x", Simulator(_linear, theta, event_dims=1), obs=x)


def _exact(x):
    covariance = np.linalg.inv(np.diag(PRIOR**-2) + MIX.T @ MIX / NOISE**2)
    return covariance @ MIX.T @ x / NOISE**2, covariance


@pytest.fixture(scope="module")
def linear():
    return NPE(linear_model).fit(random.key(0), num_simulations=10_000, max_epochs=3, **QUIET)


X = np.array([0.8, -0.5, 1.5], np.float32)


def test_a_linear_gaussian_posterior(linear):
    """Means within 3 % of a standard deviation, covariances within 3 % and 4.9 standard errors (12 limits, 1e-5)."""
    mean, covariance = _exact(X)
    root = np.linalg.cholesky(covariance)
    n = 20_000
    draws = np.asarray(linear.sample(random.key(1), X, num_samples=n // 4)["theta"], float).reshape(n, 3)
    white = np.linalg.solve(root, (draws - mean).T).T
    assert np.abs(white.mean(axis=0)).max() < 0.03 + 4.9 / np.sqrt(n)
    assert np.abs(white.T @ white / n - np.eye(3)).max() < 0.03 + 4.9 * np.sqrt(2 / n)


@pytest.mark.slow
def test_the_density_of_a_posterior(linear):
    mean, covariance = _exact(X)
    posterior = linear.posterior(X)
    draws = posterior.sample(random.key(2), (4, 100))["theta"]
    found = posterior.log_prob({"theta": draws})
    assert found.shape == (4, 100)
    gap = found - stats.multivariate_normal.logpdf(draws, mean, covariance)
    assert np.abs(gap.mean()) < 0.01
    assert gap.std() < 0.1


@pytest.mark.slow
def test_draws_go_to_arviz(linear):
    tree = to_arviz(linear.sample(random.key(1), X, num_samples=50))
    assert tree.posterior["theta"].shape == (4, 50, 3)


# Supports.


def _box(key, theta):
    return theta + 0.3 * random.normal(key, (2,))


def dependent_model(x=None):
    """A support that depends on another latent, and a simplex."""
    top = numpyro.sample("top", dist.LogNormal(0.0, 0.3))
    theta = numpyro.sample("theta", dist.Uniform(0.0, top).expand([2]).to_event(1))
    numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("x", Simulator(_box, theta, event_dims=1), obs=x)


@pytest.mark.slow
def test_no_draw_leaves_its_support():
    """Whatever was learned: the network here has random weights."""
    npe, rng = NPE(dependent_model), np.random.default_rng(0)
    shape, context = (2,), DataContext(npe._events, Features.empty([(2,)]))
    density = jax.tree.map(
        lambda v: v + jnp.asarray(0.2 * rng.normal(size=v.shape), v.dtype) if eqx.is_inexact_array(v) else v,
        npe._start(shape, None, random.key(0), {}),
    )
    npe._learned = Learned(density, context, Region.of(rng.normal(size=(50, 2))))
    posterior = npe.posterior(np.array([-0.4, 1.0], np.float32))
    draws = posterior.sample(random.key(1), (4000,))
    assert (draws["top"] > 0).all()
    assert (draws["theta"] >= 0).all()
    assert (draws["theta"] <= draws["top"][:, None]).all()
    np.testing.assert_allclose(draws["shares"].sum(axis=1), 1.0, atol=1e-5)
    inner = {"top": 1.2, "theta": jnp.array([0.3, 0.9]), "shares": jnp.array([0.2, 0.5, 0.3])}
    assert np.isfinite(posterior.log_prob(inner))


# Calibration sees what is wrong.


class Narrow:
    """A posterior whose draws are too close together, by name."""

    def __init__(self, npe, factor):
        self.npe, self.factor = npe, factor

    def __call__(self, key, y):
        draws = self.npe(key, y)["theta"]
        center = draws.mean(axis=0)
        return {"theta": center + self.factor * (draws - center)}


STUDY = {"observed": "x", "progress_bar": False, "num_datasets": 300, "rng_key": random.key(5)}


@pytest.mark.slow
def test_the_right_posterior_is_not_rejected(linear):
    """Three studies and one test at 1e-4 each."""
    assert sbc(linear_model, linear, log_likelihood=False, **STUDY).p_value > 1e-4
    held_out = simulate(linear_model, random.key(6), 1000, **QUIET)
    theta, x = held_out.latents["theta"], held_out.data["x"]
    one = jax.jit(jax.vmap(lambda key, y: linear(key, y)["theta"][0]))(random.split(random.key(7), 1000), x)
    here = linear.posterior(X).sample(random.key(8), (1000,))["theta"]
    assert lc2st(theta, one, x, here, X, random.key(9), num_permutations=199).p_value > 1e-3


@pytest.mark.statistical
def test_an_overconfident_posterior_is_rejected_by_every_diagnostic(linear):
    """Draws 0.6 times as spread: SBC, coverage, TARP, L-C2ST and the conformal depths."""
    narrow = Narrow(linear, 0.6)
    assert sbc(linear_model, narrow, log_likelihood=False, **STUDY).p_value < 1e-6
    assert tarp(linear_model, narrow, **STUDY).p_value < 1e-3
    assert coverage(linear_model, narrow, joint=False, **STUDY).p_value < 1e-3
    held_out = simulate(linear_model, random.key(6), 1000, **QUIET)
    theta, x = held_out.latents["theta"], held_out.data["x"]
    one = jax.jit(jax.vmap(lambda key, y: narrow(key, y)["theta"][0]))(random.split(random.key(7), 1000), x)
    here = narrow(random.key(8), X)["theta"]
    assert lc2st(theta, one, x, here, X, random.key(9), num_permutations=199).p_value < 0.02


@pytest.mark.slow
def test_conformal_sets_reach_their_level(linear):
    """Of a posterior 0.6 times too narrow: on 1000 held-out data sets the corrected 90 % sets have the truth.

    Coverage given 1000 simulations of the correction is Beta(901, 100): standard deviation 0.0095; with the binomial's
    0.0095 a limit of 4.9 is 0.066. Without correction the intervals have 67 %.
    """
    narrow = Narrow(linear, 0.6)

    def log_prob(values, y):
        return linear.posterior(y).log_prob(values)

    rows = simulate(linear_model, random.key(6), 2000, **QUIET)
    theta, x = rows.latents["theta"], rows.data["x"]
    found = conformalize(narrow, {"theta": theta[:1000]}, x[:1000], random.key(7), level=0.9, log_prob=log_prob)

    @jax.jit
    @jax.vmap
    def drawn(key, y, truth):
        draws = narrow(key, y)
        low, high = found.interval(draws["theta"], "theta")
        dense = log_prob({"theta": truth[None]}, y)[0] >= found.density_threshold(log_prob(draws, y))
        plain = jnp.quantile(draws["theta"], jnp.array([0.05, 0.95]), axis=0)
        return (low <= truth) & (truth <= high), dense, (plain[0] <= truth) & (truth <= plain[1])

    inside, dense, plain = (
        np.mean(v, axis=0) for v in drawn(random.split(random.key(8), 1000), x[1000:], theta[1000:])
    )
    assert np.abs(inside - 0.9).max() < 0.066
    assert abs(dense - 0.9) < 0.066
    assert plain.max() < 0.8
    assert "theta: wider by" in found.verdict()
    few = conformalize(narrow, {"theta": theta[:20]}, x[:20], random.key(7), level=0.99)
    assert np.isinf(few.widening["theta"]).all()  # no set is safe to 1 % after 20 simulations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truths": {"theta": np.zeros((5, 1))}, "data": np.zeros(5)}, "5 simulations are too few"),
        ({"data": np.zeros(29)}, r"one row each per simulation; got \[29, 30\] rows"),
        ({"truths": {"other": np.zeros(30)}}, "`inference` draws no site 'other', only theta"),
        ({"level": 1.0}, "`level` must be in"),
        ({"inference": lambda key, y: {"theta": jnp.zeros((50, 1))}}, "all the same so that they have no interval"),
    ],
)
def test_what_conformal_sets_cannot_be_made_of(change, message):
    arguments = {
        "inference": lambda key, y: {"theta": random.normal(key, (50, 1))},
        "truths": {"theta": np.zeros((30, 1))},
        "data": np.zeros(30),
        "rng_key": random.key(0),
    } | change
    with pytest.raises(ValueError, match=message):
        conformalize(**arguments)


# Sites whose names are not in the model's order.


def unsorted_model(b=None, a=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    offset = numpyro.sample("offset", dist.Normal(2.0, 0.5))
    numpyro.sample("b", Simulator(lambda key, s: s + 0.5 * random.normal(key), slope), obs=b)
    numpyro.sample("a", Simulator(lambda key, o: o + 1.0 * random.normal(key), offset), obs=a)


@pytest.mark.slow
def test_latents_and_data_keep_their_names():
    """Two independent normal problems, means and widths against closed forms within 0.1 standard deviations.

    JAX sorts dictionaries by name, and a model does not: exchanged sites would be off by several.
    """
    npe = NPE(unsorted_model).fit(random.key(0), num_simulations=4000, max_epochs=1, **QUIET)
    assert tuple(npe.simulations.latents) == ("slope", "offset")
    assert npe.observed == tuple(npe.simulations.data) == ("b", "a")
    draws = npe.posterior({"b": 1.0, "a": 1.0}).sample(random.key(1), (20_000,))
    for name, mean, noise, center, y in (("slope", 0.0, 0.5, 1.0, 1.0), ("offset", 2.0, 1.0, 0.5, 1.0)):
        gain = center**2 / (center**2 + noise**2)
        sd = np.sqrt(1 - gain) * center
        assert abs(draws[name].mean() - (mean + gain * (y - mean))) < 0.1 * sd
        assert abs(draws[name].std() / sd - 1) < 0.1


# Rounds.


def _bumps(key, theta):
    return jnp.stack([theta[0] ** 2 / 4 + theta[1], theta[1]]) + 0.1 * random.normal(key, (2,))


def bumps_model(x=None):
    theta = numpyro.sample("theta", dist.Uniform(-4.0, 4.0).expand([2]).to_event(1))
    numpyro.sample("x", Simulator(_bumps, theta, event_dims=1), obs=x)


@pytest.mark.statistical
def test_rounds_for_one_observation():
    """Two modes, theta_0 = +-2.4; the second round simulates where the posterior is and finds its width."""
    y = np.array([2.44, 1.0], np.float32)
    npe = NPE(bumps_model).fit(
        random.key(0), num_simulations=4000, observation=y, rounds=2, max_epochs=40, patience=8, **QUIET
    )
    assert not npe.amortized
    late = npe.simulations.latents["theta"][2000:]
    assert np.mean(np.abs(late[:, 1] - 1) < 1) > 0.75  # of the prior it would be a quarter
    draws = np.asarray(npe.posterior(y).sample(random.key(1), (4000,))["theta"])
    assert 0.25 < np.mean(draws[:, 0] > 0) < 0.75
    exact = dist.Normal(1.0, 0.1)
    assert abs(draws[:, 1].mean() - exact.mean) < 0.05
    assert 0.07 < draws[:, 1].std() < 0.15
    with pytest.raises(ValueError, match="holds for that one alone"):
        npe.posterior(y + 1)
    with pytest.raises(ValueError, match="for one observation"):
        npe.save("nowhere")


# With a likelihood.


def tractable(x=None):
    theta = numpyro.sample("theta", dist.Normal(0.0, jnp.asarray(PRIOR)).to_event(1))
    numpyro.sample("x", dist.Normal(jnp.asarray(MIX, theta.dtype) @ theta, NOISE).to_event(1), obs=x)


class Moved(eqx.Module):
    """A density and a shift."""

    density: Any
    move: Any

    @property
    def shape(self):
        return self.density.shape

    def log_prob(self, z, context):
        return self.density.log_prob(z - self.move, context)

    def sample(self, key, context):
        return self.density.sample(key, context) + self.move


@pytest.mark.slow
def test_importance_weights_correct_a_poor_posterior(linear):
    """Moved by half a standard deviation; the weighted mean is within 4.9 of its standard errors."""
    mean, covariance = _exact(X)
    poor = copy.copy(linear)
    move = jnp.asarray(0.5 * np.sqrt(np.diag(covariance)), jnp.float32)
    poor._learned = linear.learned._replace(density=Moved(linear.learned.density, move))
    found = poor.importance(random.key(4), X, model=tractable, num_samples=4000)
    assert found.pareto_k < 0.7
    weights = np.exp(found.log_weights)
    assert abs(weights.sum() - 1) < 1e-6
    error = (weights @ np.asarray(found.draws["theta"]) - mean) / np.sqrt(np.diag(covariance))
    assert np.abs(error).max() < 4.9 / np.sqrt(found.ess)
    assert found.resampled(random.key(5), 7)["theta"].shape == (7, 3)


@pytest.mark.slow
def test_where_a_kernel_starts(linear):
    mcmc = MCMC(
        NUTS(tractable, init_strategy=linear.init_strategy(random.key(0), X)), num_warmup=1, num_samples=1, **QUIET
    )
    mcmc.run(random.key(1), x=X)
    assert np.isfinite(mcmc.get_samples()["theta"]).all()


@pytest.mark.statistical
def test_a_guide_is_adapted_to_one_observation(linear):
    """Trained shortly, then by SVI on one data set: the evidence bound reaches the log evidence within 0.1."""
    npe = NPE(tractable, "x").fit(
        random.key(0),
        num_simulations=2000,
        density=partial(nn.CouplingFlow, layers=3, width=16, bins=0),
        max_epochs=2,
        **QUIET,
    )
    svi = SVI(tractable, npe.guide, numpyro.optim.Adam(3e-3), Trace_ELBO(num_particles=16))
    fit = svi.run(random.key(1), 600, x=X, **QUIET)
    evidence = stats.multivariate_normal.logpdf(X, np.zeros(3), MIX @ np.diag(PRIOR**2) @ MIX.T + NOISE**2 * np.eye(3))
    late = -np.mean(np.asarray(fit.losses[-100:]))
    assert evidence - 0.1 < late < evidence + 0.05
    assert late > -np.mean(np.asarray(fit.losses[:20])) + 0.02
    with pytest.raises(TypeError, match="have no gradient"):
        linear.guide(x=X)


# Networks for arrays, files.


def _series(key, rate):
    return jnp.cumsum(rate + 0.3 * random.normal(key, (20,)))


def series_model(x=None):
    rate = numpyro.sample("rate", dist.Normal(0.0, 1.0))
    numpyro.sample("x", Simulator(_series, rate), obs=x)


def _last(x):
    """A network that is none: the last number of a standardized series, which is sufficient."""
    return x[-1:]


@pytest.mark.slow
def test_a_network_sees_the_array_and_files_keep_all(tmp_path):
    npe = NPE(series_model).fit(random.key(0), num_simulations=2000, embedding=_last, max_epochs=3, **QUIET)
    x = jnp.linspace(0.5, 10.0, 20)
    draws = np.asarray(npe.posterior(x).sample(random.key(1), (4000,))["rate"])
    variance = 1 / (1 + 20 / 0.3**2)
    assert abs(draws.mean() - 0.5) < 0.05
    assert abs(draws.std() / np.sqrt(variance) - 1) < 0.25
    seen = npe.learned.density.embedding
    np.testing.assert_allclose(npe.summaries(x), (x[-1:] - seen.mean[-1]) / seen.scale[-1], rtol=1e-6)
    several = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(npe.summaries)(several)[1], npe.summaries(2 * x), rtol=1e-6)
    with pytest.raises(ValueError, match=r"must have shape \(20,\)"):
        npe.summaries(x[:5])
    npe.save(tmp_path / "npe.safetensors")
    again = NPE(series_model).load(tmp_path / "npe.safetensors", embedding=_last)
    np.testing.assert_array_equal(draws, again.posterior(x).sample(random.key(1), (4000,))["rate"])
    with pytest.raises(ValueError, match="of another model: `latents`"):
        NPE(linear_model).load(tmp_path / "npe.safetensors")


@pytest.mark.slow
def test_learned_summaries_are_data_of_a_likelihood():
    """Their law given the rate is normal: the likelihood's posterior of the rate beside the exact one, on a grid."""
    npe = NPE(series_model).fit(random.key(0), num_simulations=2000, embedding=_last, max_epochs=1, **QUIET)

    def short(x=None):
        rate = numpyro.sample("rate", dist.Normal(0.0, 1.0))
        numpyro.sample("x", Simulator(lambda key, rate: npe.summaries(_series(key, rate)), rate), obs=x)

    nle = NLE(short).fit(random.key(1), num_simulations=4000, max_epochs=30, **QUIET)
    observed, rates = npe.summaries(jnp.linspace(0.5, 10.0, 20)), jnp.linspace(0.0, 1.0, 201)
    at = jax.jit(jax.vmap(lambda rate: log_density(nle.model, (), {"x": observed}, {"rate": rate})[0]))
    weights = jax.nn.softmax(at(rates))
    mean = jnp.sum(weights * rates)
    sd = jnp.sqrt(jnp.sum(weights * (rates - mean) ** 2))
    exact = 1 / np.sqrt(1 + 20 / 0.3**2)
    assert abs(mean - 10 / 0.3**2 * exact**2) < 0.2 * exact
    assert abs(sd / exact - 1) < 0.15


def test_a_density_of_one_s_own_without_its_network_has_no_summaries():
    class Plain:
        pass

    npe = NPE(series_model)
    npe._learned = Learned(Plain(), DataContext(npe._events, None), Region.empty(1, 20))
    with pytest.raises(TypeError, match="Plain, has no `embedding`"):
        npe.summaries(jnp.zeros(20))


@pytest.mark.statistical
def test_double_precision(x64):
    npe = NPE(linear_model).fit(random.key(0), num_simulations=300, max_epochs=1, **QUIET)
    assert npe.posterior(X).sample(random.key(1), (3,))["theta"].dtype == jnp.float64


# What is data, and what is not.


def _counts(counts=None):
    rate = numpyro.sample("rate", dist.LogNormal(0.0, 0.5))
    numpyro.sample("counts", dist.Poisson(rate).expand([3]).to_event(1), obs=counts)


def _within(x=None):
    top = numpyro.sample("top", dist.LogNormal(0.0, 0.5))
    numpyro.sample("x", dist.Uniform(0.0, top).expand([2]).to_event(1), obs=x)


@pytest.mark.slow
def test_data_may_be_discrete_or_have_a_support_that_depends_on_latents():
    assert NPE(_counts, "counts").simulate(random.key(0), 50, **QUIET).data["counts"].shape == (50, 3)
    npe = NPE(_within, "x")
    assert npe.checked_data(np.array([0.1, 40.0]))["x"].shape == (2,)
    simulations = npe.simulate(random.key(0), 50, **QUIET)
    assert (simulations.data["x"] <= simulations.latents["top"][:, None]).all()
    ((_, event),) = npe._events
    np.testing.assert_array_equal(event.vectors(simulations.data["x"]), simulations.data["x"])


@pytest.mark.slow
def test_a_fit_is_loaded(linear, tmp_path):
    linear.save(tmp_path / "npe.safetensors")
    again = NPE(linear_model).load(tmp_path / "npe.safetensors")
    assert eqx.tree_equal(*jax.device_get((again.learned, linear.learned)))


def test_simulations_from_a_proposal_are_refused():
    proposed = simulate(linear_model, random.key(0), 200, latents={"theta": np.zeros((200, 3))}, **QUIET)
    with pytest.raises(ValueError, match="have proposed values of theta"):
        NPE(linear_model).fit(random.key(0), simulations=proposed)


@pytest.mark.slow
def test_a_new_fit_in_one_round_holds_for_all_data_again(linear, monkeypatch):
    once = copy.copy(linear)
    once.observation = {"x": X}
    assert not once.amortized
    monkeypatch.setattr(NPE, "_learn", lambda self, *_: None)
    assert once.fit(random.key(0), simulations=linear.simulations).amortized
    assert not once.amortized


# Guards and bad input.


def test_data_that_the_model_cannot_produce(linear):
    with pytest.warns(UserWarning, match="farther from the simulations"):
        linear.posterior(np.array([0.0, 30.0, 0.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear.posterior(X)


def _positive(x=None):
    loc = numpyro.sample("loc", dist.Normal())
    numpyro.sample("x", Simulator(lambda k, m: jnp.exp(m + random.normal(k)), loc, support=constraints.positive), obs=x)


def _two(x=None, z=None):
    loc = numpyro.sample("loc", dist.Normal())
    numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)
    numpyro.sample("z", dist.Normal(loc, 1.0), obs=z)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: NPE(_two), ValueError, "nothing in the model is data"),
        (lambda: NPE(_two, "w"), ValueError, "no sample site 'w'"),
        (lambda: NPE(_two, ("x", "z")).checked_data(1.0), ValueError, "must be a dictionary of the data of x, z"),
        (lambda: NPE(_two, ("x", "z")).checked_data({"x": 1.0}), ValueError, "no data of site 'z'"),
        (lambda: NPE(linear_model).checked_data(np.zeros(2)), ValueError, r"must have shape \(3,\)"),
        (lambda: NPE(linear_model).checked_data(np.full(3, np.nan)), ValueError, "is not finite"),
        (lambda: NPE(_positive).checked_data(-1.0), ValueError, "outside the support"),
        (lambda: NPE(linear_model).posterior(X), ValueError, "not fitted yet"),
        (lambda: NPE(linear_model).fit(random.key(0), rounds=2), ValueError, "give it as `observation`"),
        (lambda: NPE(linear_model).fit(random.key(0), rounds=0), ValueError, "`rounds` must be a positive integer"),
        (lambda: NPE(linear_model).fit(random.key(0), quantile=2.0), ValueError, "`quantile` must be in"),
        (lambda: NPE(linear_model).fit(random.key(0), num_simulations=10, **QUIET), ValueError, "are too few"),
        (lambda: NPE(linear_model).fit(0), TypeError, "`rng_key` must be a random key"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_simulator_has_no_likelihood_to_correct_by(linear):
    with pytest.raises(NotImplementedError, match="Simulator"):
        linear.importance(random.key(0), X, num_samples=100)
    with pytest.raises(ValueError, match="no site 'theta'"):
        linear.posterior(X).log_prob({})


@pytest.mark.slow
def test_the_prior_as_posterior_fails_where_data_are_looked_at(linear):
    """The log likelihood of an importance-corrected model has the data; TARP's references depend on them too."""

    def prior(key, y):
        return {"theta": jnp.asarray(PRIOR) * random.normal(key, (256, 3))}

    assert tarp(linear_model, prior, **STUDY).p_value < 1e-4
    assert log_density(tractable, (), {"x": X}, {"theta": jnp.zeros(3)})[0] < 0
