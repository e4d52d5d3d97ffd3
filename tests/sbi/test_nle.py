"""A learned law in its model: exact posteriors, plates, replicates, counts, derivatives, files, guards."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density
from scipy import stats

from numpyro_inverse import to_arviz
from numpyro_inverse.calibration import surrogate_check
from numpyro_inverse.distributions import Simulator, VectorOf
from numpyro_inverse.sbi import NLE, NeuralLikelihood, simulate
from numpyro_inverse.sbi._arguments import Features

NOISE, SPREAD, GROUPS = 0.4, 0.7, 6
QUIET = {"progress_bar": False}


def _noisy(key, loc):
    return loc + NOISE * random.normal(key)


def hierarchy(x=None):
    """A normal-normal hierarchy whose likelihood is a simulator."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("groups", GROUPS):
        effect = numpyro.sample("effect", dist.Normal(mean, SPREAD))
        numpyro.sample("x", Simulator(_noisy, effect), obs=x)


@pytest.fixture(scope="module")
def nle():
    return NLE(hierarchy).fit(random.key(0), num_simulations=2000, max_epochs=2, **QUIET)


X = np.array([1.2, -0.3, 0.6, 2.0, 0.9, -0.8], np.float32)


def _posterior():
    """Mean and covariance of (mean, effects) given X."""
    prior = np.ones((GROUPS + 1, GROUPS + 1)) + np.diag([0.0] + [SPREAD**2] * GROUPS)
    gain = prior[:, 1:] @ np.linalg.inv(prior[1:, 1:] + NOISE**2 * np.eye(GROUPS))
    return gain @ X, prior - gain @ prior[1:]


@pytest.fixture(scope="module")
def run(nle):
    mcmc = MCMC(NUTS(nle.model), num_warmup=300, num_samples=1500, num_chains=2, chain_method="vectorized", **QUIET)
    mcmc.run(random.key(1), x=X)
    return mcmc


@pytest.mark.slow
def test_a_hierarchy_in_closed_form(run):
    """Each of 7 means and variances within 3 % (of a standard deviation) and 4.9 standard errors; alarm 1e-5."""
    mean, covariance = _posterior()
    draws = run.get_samples(group_by_chain=True)
    all_draws = np.concatenate([np.asarray(draws["mean"])[..., None], np.asarray(draws["effect"])], axis=-1)
    for i in range(GROUPS + 1):
        z = (all_draws[..., i] - mean[i]) / np.sqrt(covariance[i, i])
        ess = numpyro.diagnostics.effective_sample_size(z)
        ess_square = numpyro.diagnostics.effective_sample_size(z**2)
        assert abs(z.mean()) < 0.03 + 4.9 / np.sqrt(ess)
        assert abs(np.mean(z**2) - 1) < 0.06 + 4.9 * np.sqrt(2 / ess_square)


@pytest.mark.slow
def test_the_density_of_the_model_is_the_exact_one(nle):
    """Where the posterior is, to 0.02 nats a group: a wrong noise (0.44 for 0.4) is off by 0.1."""
    rng = np.random.default_rng(0)
    mean, covariance = _posterior()
    points = rng.multivariate_normal(mean, covariance, size=50)
    exact = stats.norm.logpdf(X, points[:, 1:], NOISE).sum(axis=1)

    def likelihood(effect):
        values = {"mean": 0.0, "effect": effect}
        prior = dist.Normal(0.0, 1.0).log_prob(0.0) + dist.Normal(0.0, SPREAD).log_prob(effect).sum()
        return log_density(nle.model, (), {"x": X}, values)[0] - prior

    found = jax.jit(jax.vmap(likelihood))(jnp.asarray(points[:, 1:]))
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.02 * GROUPS


@pytest.mark.slow
def test_all_that_numpyro_does_with_a_model(nle, run):
    tree = to_arviz(run)
    assert tree.log_likelihood["x"].shape == (2, 1500, GROUPS)
    assert tree.posterior_predictive["x"].shape == (2, 1500, GROUPS)
    assert tree.observed_data["x"].shape == (GROUPS,)
    replicates = Predictive(nle.model, posterior_samples=run.get_samples())(random.key(2))["x"]
    residuals = (np.asarray(replicates) - np.asarray(run.get_samples()["effect"])) / NOISE
    assert abs(residuals.std() - 1) < 0.03 + 4.9 / np.sqrt(2 * residuals.size / 50)
    guide = AutoNormal(nle.model)
    svi = SVI(nle.model, guide, numpyro.optim.Adam(0.02), Trace_ELBO())
    fit = svi.run(random.key(3), 800, x=X, **QUIET)
    median = guide.median(fit.params)
    assert np.abs(np.asarray(median["effect"]) - _posterior()[0][1:]).max() < 0.15


@pytest.mark.slow
def test_any_number_of_repetitions_and_another_prior(nle):
    """The law was learned for one simulation; a model with other priors and more data has it too."""
    law = nle._law

    def model(x):
        loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
        numpyro.sample("x", law(Simulator(_noisy, loc)), obs=x)

    x = 0.5 + NOISE * np.random.default_rng(1).normal(size=40)
    grid = jnp.linspace(0.0, 1.0, 201)
    found = jax.vmap(lambda loc: log_density(model, (jnp.asarray(x),), {}, {"loc": loc})[0])(grid)
    weights = np.exp(found - np.max(found))
    precision = 40 / NOISE**2 + 1 / 9
    mean = x.sum() / NOISE**2 / precision
    assert abs(np.average(grid, weights=weights) - mean) < 0.2 / np.sqrt(precision)


@pytest.mark.slow
def test_the_derivative_in_the_arguments(x64):
    """Against central differences: a law whose gradient is stopped would give zero."""
    rng = np.random.default_rng(0)

    def simulator(key, loc, scale):
        return loc + jnp.exp(scale) * random.normal(key, (2,))

    def model(x=None):
        loc = numpyro.sample("loc", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        scale = numpyro.sample("scale", dist.Normal(0.0, 0.5))
        numpyro.sample("x", Simulator(simulator, loc, scale, event_dims=(1, 0)), obs=x)

    nle, pairs = NLE(model), (rng.normal(size=(50, 2)), rng.normal(size=(50, 3)))
    start = nle._start(Features.empty([(2,), ()]), pairs, random.key(0), {})
    law = jax.tree.map(lambda v: v + 0.1 * rng.normal(size=v.shape) if eqx.is_inexact_array(v) else v, start)
    x = jnp.asarray(rng.normal(size=2))

    @jax.jit
    def log_prob(theta):
        return NeuralLikelihood(law, Simulator(simulator, theta[:2], theta[2], event_dims=(1, 0))).log_prob(x)

    theta = jnp.asarray(rng.normal(size=3))
    gradient = jax.jit(jax.grad(log_prob))(theta)
    differences = [(log_prob(theta + e) - log_prob(theta - e)) / 2e-5 for e in 1e-5 * jnp.eye(3)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-7)
    assert np.abs(gradient).min() > 1e-3


# Supports.


mixed_support = VectorOf(constraints.nonnegative_integer, constraints.positive, constraints.real)


def _mixed(key, rate):
    keys = random.split(key, 3)
    count = random.poisson(keys[0], jnp.exp(rate))
    wait = jnp.exp(-rate + 0.3 * random.normal(keys[1]))
    return jnp.stack([count.astype(float), wait, rate + 0.5 * random.normal(keys[2])])


def mixed_model(x=None):
    rate = numpyro.sample("rate", dist.Normal(0.5, 0.5))
    numpyro.sample("x", Simulator(_mixed, rate, support=mixed_support), obs=x)


def _exact_mixed(x, rate):
    return (
        stats.poisson.logpmf(x[:, 0], np.exp(rate))
        + stats.lognorm.logpdf(x[:, 1], 0.3, scale=np.exp(-rate))
        + stats.norm.logpdf(x[:, 2], rate, 0.5)
    )


@pytest.fixture(scope="module")
def mixed():
    return NLE(mixed_model).fit(random.key(0), num_simulations=4000, max_epochs=12, **QUIET)


@pytest.mark.slow
def test_counts_beside_positive_and_real_numbers(mixed):
    """Kullback-Leibler divergence below 0.03 nats, on 4000 fresh simulations, whose standard error is about 0.004."""
    fresh = simulate(mixed_model, random.key(9), 4000, **QUIET)
    (rate,), x = fresh.pairs("x")
    law = mixed._law(Simulator(_mixed, jnp.asarray(rate)))
    gap = _exact_mixed(x, rate) - np.asarray(law.log_prob(x))
    assert -0.02 < gap.mean() < 0.03
    log_prob = jax.jit(law.log_prob)
    assert np.isneginf(log_prob(np.asarray(x) * np.array([1, -1, 1]))).all()  # a negative time
    assert np.isneginf(log_prob(np.asarray(x) + np.array([0.5, 0, 0]))).all()  # half a count
    drawn = np.asarray(jax.jit(law.sample)(random.key(10)))
    assert mixed_support(drawn).all()


@pytest.mark.statistical
def test_masses_of_a_count_sum_to_one():
    def coin(key, p):
        return random.binomial(key, 5, p)

    def model(x=None):
        p = numpyro.sample("p", dist.Uniform(0.0, 1.0))
        numpyro.sample("x", Simulator(coin, p, support=constraints.integer_interval(0, 5)), obs=x)

    nle = NLE(model).fit(random.key(0), num_simulations=10_000, max_epochs=40, **QUIET)
    p = jnp.asarray([0.1, 0.5, 0.8])[:, None]
    found = np.exp(nle._law(Simulator(coin, p, support=constraints.integer_interval(0, 5))).log_prob(jnp.arange(6.0)))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(found, stats.binom.pmf(np.arange(6), 5, np.asarray(p)), atol=0.05)


# Files.


@pytest.mark.slow
def test_files(tmp_path, nle):
    nle.save(tmp_path / "law.safetensors")
    again = NLE(hierarchy).load(tmp_path / "law.safetensors")
    x, effect = jnp.asarray(X), jnp.linspace(-1, 1, GROUPS)
    law = Simulator(_noisy, effect)
    one, two = (jax.jit(lambda x, e=e: e._law(law).log_prob(x))(x) for e in (nle, again))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match=r"of another model: `event shape` is \[\]"):
        NLE(mixed_model).load(tmp_path / "law.safetensors")


# Guards.


def test_data_far_from_all_simulations(nle):
    with pytest.warns(
        UserWarning, match=r"farther from the simulations than any .* standard deviations from the nearest"
    ):
        nle.checked_data(np.full(GROUPS, 40.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nle.checked_data(X)


@pytest.mark.slow
def test_the_surrogate_at_the_posterior(nle, run):
    """A right one is not rejected at 0.005; one with 1.5 times the noise is, and so is one moved by a noise."""
    draws = run.get_samples()
    right = surrogate_check(nle, draws, random.key(4), num=400, num_permutations=199)
    assert right.test.p_value > 0.005
    assert right.outside < 0.01
    for simulator in (
        lambda key, loc: loc + 1.5 * NOISE * random.normal(key),
        lambda key, loc: _noisy(key, loc + NOISE),
    ):

        def other(x=None, simulator=simulator):
            mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
            with numpyro.plate("groups", GROUPS):
                effect = numpyro.sample("effect", dist.Normal(mean, SPREAD))
                numpyro.sample("x", Simulator(simulator, effect), obs=x)

        wrong = NLE(hierarchy)
        wrong._learned = nle.learned
        wrong.original = other
        found = surrogate_check(wrong, draws, random.key(4), num=400, num_permutations=199)
        assert found.test.p_value < 0.01
        assert "rejected" in found.verdict()


def test_arguments_outside_of_training(nle):
    assert nle.learned.trained_at.share_outside(np.full((5, 1), 30.0)) == 1.0
    assert nle.learned.trained_at.share_outside(np.zeros((5, 1))) == 0.0


# Separate modes.


@pytest.mark.statistical
def test_separate_modes_are_found():
    """x = theta^2 + noise: half of the draws have each sign; the standard error with 512 particles is 0.02 or so."""

    def square(key, theta):
        return theta**2 + 0.2 * random.normal(key)

    def model(x=None):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.5))
        numpyro.sample("x", Simulator(square, theta), obs=x)

    nle = NLE(model).fit(random.key(0), num_simulations=3000, max_epochs=25, **QUIET)
    draws = np.asarray(nle.sample(random.key(1), 2.25, num_samples=256, num_chains=2, num_particles=256)["theta"])
    assert draws.shape == (2, 256)
    assert 0.3 < (draws > 0).mean() < 0.7
    assert abs(np.abs(draws).mean() - 1.5) < 0.05
    assert np.abs(draws).std() < 0.15


# Bad input.


def _no_simulator(x=None):
    loc = numpyro.sample("loc", dist.Normal())
    numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def _two(x=None, y=None):
    loc = numpyro.sample("loc", dist.Normal())
    numpyro.sample("x", Simulator(_noisy, loc), obs=x)
    numpyro.sample("y", Simulator(_noisy, loc), obs=y)


def _no_arguments(x=None):
    numpyro.sample("loc", dist.Normal())
    numpyro.sample("x", Simulator(lambda key: random.normal(key)), obs=x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: NLE(_no_simulator), ValueError, "the model has no simulator; mark the site"),
        (lambda: NLE(_two), ValueError, "the simulators x, y; name one in `site`"),
        (lambda: NLE(_two, "loc"), ValueError, "site 'loc' is Normal; the simulators are 'x', 'y'"),
        (lambda: NLE(_two, "z"), ValueError, "site 'z' is not in the model"),
        (lambda: NLE(_no_arguments), ValueError, "has no arguments"),
        (lambda: NLE(3), TypeError, "`model` must be a NumPyro model"),
        (lambda: NLE(hierarchy).model, ValueError, "not fitted yet"),
        (lambda: NLE(hierarchy).fit(0), TypeError, "`rng_key` must be a random key"),
        (lambda: NLE(hierarchy).fit(random.key(0), simulations=3), TypeError, "`simulations` must be what"),
        (lambda: NLE(hierarchy).fit(random.key(0), num_simulations=10, **QUIET), ValueError, "are too few"),
        (
            lambda: NLE(_two, "y").fit(random.key(0), simulations=simulate(hierarchy, random.key(0), 100, **QUIET)),
            ValueError,
            "no site 'y'; they are of another model",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_support_that_depends_on_latents_is_refused():
    def model(x=None):
        top = numpyro.sample("top", dist.LogNormal(0.0, 1.0))
        numpyro.sample("x", Simulator(_noisy, top, support=constraints.interval(0.0, top)), obs=x)

    with pytest.raises(ValueError, match="the support of site 'x' depends on latents"):
        NLE(model)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ({"z": 1.0}, "no data of site 'x'"),
        (np.full(GROUPS, np.nan), "is not finite"),
        (np.zeros(GROUPS - 1), "`y` must have shape .*, as site 'x' of the model has, with its plates"),
        (0.0, "`y` must have shape .*, as site 'x' of the model has, with its plates"),
        ({"x": np.zeros(GROUPS), "w": 0.0}, "`y` has data of 'w', which is no site of the model"),
    ],
)
def test_bad_data(nle, y, message):
    with pytest.raises(ValueError, match=message):
        nle.sample(random.key(0), y)


@pytest.mark.slow
def test_data_outside_the_support(mixed):
    with pytest.raises(ValueError, match="outside the support of site 'x'"):
        mixed.checked_data([1.0, -1.0, 0.0])
    with pytest.raises(ValueError, match=r"must end in shape \(3,\)"):
        mixed.checked_data([1.0, 1.0])


def test_two_simulators_are_learned_one_after_the_other(nle):
    one = NLE(_two, "x")
    one._learned = nle.learned
    two = NLE(one.model, "y")
    two._learned = nle.learned
    found = jax.jit(lambda loc: log_density(two.model, (), {"x": 0.3, "y": 0.1}, {"loc": loc})[0])(0.0)
    assert abs(found - stats.norm.logpdf([0.3, 0.1], 0.0, NOISE).sum() - stats.norm.logpdf(0.0)) < 0.1


def _wavy(key, loc):
    return loc + 2 * jnp.sin(loc) + 0.2 * random.normal(key, (2,))


def wavy(x=None):
    loc = numpyro.sample("loc", dist.Normal(0.0, 6.0))
    numpyro.sample("x", Simulator(_wavy, loc), obs=x)


@pytest.mark.slow
def test_rounds_go_where_the_posterior_is():
    """The second round's latents are near the observation, and the law gains by it.

    500 simulations over 20 waves of the prior show a line with noise 1.4, after which latents are within 7 of the
    observation (a chance of 1e-6 each). The law of both rounds has less than half of the Kullback-Leibler divergence
    that as many simulations from the prior alone leave, on 1,000 fresh data there.
    """
    y, settings = np.array([5.1, 4.9], np.float32), {"max_epochs": 150, "batch_size": 50, **QUIET}
    found = NLE(wavy).fit(random.key(0), num_simulations=1000, observation=y, rounds=2, **settings)
    assert len(found.simulations.latents["loc"]) == 1000
    second = found.simulations.latents["loc"][500:]
    assert np.abs(second - 5.0).max() < 7.0
    assert found.simulations.proposed == ("loc",)
    alone = NLE(wavy).fit(random.key(0), num_simulations=1000, **settings)
    loc = 5.0 + np.asarray(random.normal(random.key(1), (1000, 1)))
    mean = loc + 2 * np.sin(loc)
    fresh = mean + 0.2 * np.asarray(random.normal(random.key(2), (1000, 2)))
    exact = stats.norm.logpdf(fresh, mean, 0.2).sum(axis=1).mean()
    law = jax.vmap(lambda nle, loc, x: nle.log_prob(x, (loc,)), (None, 0, 0))
    loss = [exact - np.mean(law(nle._learned.surrogate, loc[:, 0], fresh)) for nle in (found, alone)]
    assert loss[0] < 0.5 * loss[1]


def test_rounds_need_an_observation():
    with pytest.raises(ValueError, match="NLE: `rounds` beyond one are for one data set"):
        NLE(wavy).fit(random.key(0), rounds=2)
    with pytest.raises(ValueError, match="NLE: `y` must end in shape"):
        NLE(wavy).fit(random.key(0), rounds=2, observation=np.zeros(3))
