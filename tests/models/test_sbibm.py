"""The benchmark's ten tasks: each likelihood against its simulator, and the published draws against each posterior."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from numpyro import handlers
from scipy import stats

from models import sbibm
from models.sbibm import (
    bernoulli_glm,
    gaussian_linear,
    gaussian_mixture,
    lotka_volterra,
    sir,
    slcp,
    slcp_distractors,
    two_moons,
)

ALARM = 1e-5  # of one test function, shared among the numbers that it compares
SLOW = ["sir", "lotka_volterra"]
SAME = {"slcp_distractors": slcp, "bernoulli_glm_raw": bernoulli_glm}  # likelihoods that are those of another task


def task(name):
    return importlib.import_module(f"models.sbibm.{name}")


def prior(name):
    return handlers.trace(handlers.seed(task(name).model, 0)).get_trace()["theta"]["fn"]


def assert_mean_zero(values):
    """Each column of independent rows, by its t statistic."""
    values = np.asarray(values, float)
    values = values.reshape(len(values), -1)
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    t = np.abs(values.mean(0)) / np.maximum(error, 1e-12)
    p = 2 * stats.t.sf(t, len(values) - 1)
    assert p.min() > ALARM / len(p), f"t = {t}"


@functools.cache
def compiled(name):
    """Simulator, log prior and log likelihood for one batch of as many rows as there are published draws: one program
    of each, for differential equations take seconds to compile."""
    module, law = task(name), prior(name)
    sampler = jax.jit(lambda key, theta: jax.vmap(module.simulate)(jax.random.split(key, len(theta)), theta))
    densities = jax.jit(jax.vmap(lambda theta, x: (law.log_prob(theta), module.log_likelihood(theta, x))))
    return sampler, densities


def reference(name):
    return sbibm.reference_draws({"slcp_distractors": "slcp", "bernoulli_glm_raw": "bernoulli_glm"}.get(name, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in sbibm.TASKS if name != "two_moons"])
def test_likelihood_of_simulated_data(name):
    r"""E[p(x | t') / p(x | t)] = 1 under p(x | t), for t' on both sides of t along each axis.

    They are 0.3 standard deviations from t, given the other axes. That is the score's mean and the information identity
    at once, and needs the values alone.
    """
    sampler, densities = compiled(name)
    theta, batch = np.asarray(task(name).true_parameters(2)), len(reference(name))
    precision = np.diag(np.linalg.inv(np.cov(reference(name).T)))
    steps = np.diag(np.full(5, 0.05) if name.startswith("slcp") else 0.3 / np.sqrt(precision))
    values = []
    for seed in range(2 if name in SLOW else 6):
        x = sampler(jax.random.key(seed), np.tile(theta, (batch, 1)))
        at, *moved = (densities(np.tile(t, (batch, 1)), x)[1] for t in (theta, *(theta + steps), *(theta - steps)))
        values.append(np.exp(np.stack(moved, axis=1) - np.asarray(at)[:, None]) - 1)
    assert_mean_zero(np.concatenate(values))


def test_two_moons_law():
    """Counts in cells of the half disc against the density, chi-squared; a density without 1 / radius fails by far."""
    theta = two_moons.true_parameters(1)
    x = jax.jit(jax.vmap(two_moons.simulate, (0, None)))(jax.random.split(jax.random.key(0), 50_000), theta)
    shifted = np.asarray(x, float) - np.asarray(two_moons._center(theta), float)
    edges, fine = (np.linspace(0, 0.15, 16), np.linspace(-0.15, 0.15, 31)), 20
    counts, *_ = np.histogram2d(*shifted.T, bins=edges)
    middles = [(np.arange((len(e) - 1) * fine) + 0.5) * (e[1] - e[0]) / fine + e[0] for e in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), -1) + np.asarray(two_moons._center(theta))
    density = jax.jit(jax.vmap(jax.vmap(lambda x: jnp.exp(two_moons.log_likelihood(theta, x)))))(jnp.asarray(points))
    mass = np.asarray(density, float).reshape(15, fine, 30, fine).sum((1, 3)) * (0.01 / fine) ** 2
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    expected = 50_000 * mass
    kept = expected > 10
    observed = np.append(counts[kept], 50_000 - counts[kept].sum())
    expected = np.append(expected[kept], 50_000 - expected[kept].sum())
    assert stats.chi2.sf(np.sum((observed - expected) ** 2 / expected), len(observed) - 1) > ALARM
    assert np.isneginf(two_moons.log_likelihood(theta, two_moons._center(theta) - 0.1))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in sbibm.TASKS if name not in SAME])
def test_reference_draws_are_stationary(name):
    """Metropolis chains at the posterior of observation 1, started at the published draws, leave them in law.

    Paired differences between chains' averages and starts, of coordinates, their products and the log density.
    """
    moved_less_start = chains(name, lambda draws, x: compiled(name)[1](draws, x))
    assert_mean_zero(moved_less_start)


def test_a_density_without_jacobian_is_rejected():
    """The published draws of two_moons are those of the density with 1 / radius."""

    def without(draws, x):
        log_prior, log_likelihood = compiled("two_moons")[1](draws, x)
        return log_prior, log_likelihood + np.log(radius(draws, x))

    with pytest.raises(AssertionError):
        assert_mean_zero(chains("two_moons", without))


def radius(draws, x):
    return np.linalg.norm(x - np.asarray(two_moons._center(draws.T)).T, axis=1)


def chains(name, densities):
    """Statistics of Metropolis chains, averaged over their later states, less those of where they started."""
    rng, draws, law = np.random.default_rng(0), reference(name), prior(name)
    x = np.broadcast_to(task(name).observation(1), (len(draws), *task(name).observation(1).shape))
    mean, root = draws.mean(0), np.linalg.cholesky(np.cov(draws.T))
    products = np.triu_indices(len(mean))
    widths = 2.0 if name in ("two_moons", "slcp", "gaussian_mixture") else 0.5  # decades; those have narrow parts

    def log_density(draws):
        inside = np.asarray(law.support(draws))
        return np.where(inside, np.sum(densities(np.where(inside[:, None], draws, state), x), axis=0), -np.inf)

    def statistics(draws, value):
        z = np.linalg.solve(root, (draws - mean).T).T
        more = [radius(draws, x)] if name == "two_moons" else []
        if name == "gaussian_mixture":
            more = [np.linalg.norm(draws - x, axis=1) < 0.25]  # in the narrow part
        return np.column_stack([z, (z[:, :, None] * z[:, None])[:, *products], *more, value])

    state = draws
    value = log_density(state)
    start, later, num_steps = statistics(state, value), 0.0, 25 if name in SLOW else 100
    for step in range(num_steps):
        size = 2.4 / np.sqrt(len(mean)) * 10 ** -rng.uniform(0, widths, (len(draws), 1))
        proposed = (state + size * rng.normal(size=draws.shape) @ root.T).astype(draws.dtype)
        proposed_value = log_density(proposed)
        accept = np.log(rng.uniform(size=len(draws))) < proposed_value - value
        state, value = np.where(accept[:, None], proposed, state), np.where(accept, proposed_value, value)
        if step >= num_steps // 5:
            later += statistics(state, value) / (num_steps - num_steps // 5)
    return later - start


@pytest.mark.slow
def test_tasks_that_share_a_posterior():
    """Their log likelihoods differ by what does not depend on theta: for the published spikes, by nothing."""
    for name, other in SAME.items():
        module = task(name)
        for k in (1, 5):
            for theta in (other.true_parameters(1), other.true_parameters(2)):
                ours = module.log_likelihood(theta, module.observation(k))
                np.testing.assert_allclose(ours, other.log_likelihood(theta, other.observation(k)), rtol=1e-4)
    spikes = task("bernoulli_glm_raw").observation(3)
    np.testing.assert_allclose(bernoulli_glm.design().T @ spikes, bernoulli_glm.observation(3), atol=1e-5)


@pytest.mark.slow
def test_closed_forms(x64):
    rng = np.random.default_rng(0)
    theta, x = rng.normal(size=10), rng.normal(size=10)
    mean, covariance, log_evidence = gaussian_linear.exact_posterior(x)
    joint = prior("gaussian_linear").log_prob(theta) + gaussian_linear.log_likelihood(theta, x)
    posterior = stats.multivariate_normal(mean, covariance).logpdf(theta)
    np.testing.assert_allclose(joint, posterior + log_evidence, rtol=1e-10)

    x = theta + 0.15
    wide, narrow = (stats.multivariate_normal(theta[:2], s**2).pdf(x[:2]) for s in (1, 0.1))
    found = gaussian_mixture.log_likelihood(theta[:2], x[:2])
    np.testing.assert_allclose(found, np.log((wide + narrow) / 2), rtol=1e-10)

    theta, x = rng.uniform(-3, 3, 5), rng.normal(size=8)
    s, t, c = theta[2] ** 2, theta[3] ** 2, np.tanh(theta[4])
    law = stats.multivariate_normal(theta[:2], np.array([[s**2, c * s * t], [c * s * t, t**2]]) + 1e-6 * np.eye(2))
    np.testing.assert_allclose(slcp.log_likelihood(theta, x), law.logpdf(x.reshape(4, 2)).sum(), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_differential_equations(name):
    """Log likelihoods in single precision against SciPy's solver of order 8, in the equations' own variables.

    Solutions off by a hundredth of the noise would change them by about 0.05.
    """
    draws, x = reference(name), np.asarray(task(name).observation(1))
    ours = compiled(name)[1](draws, np.tile(x, (len(draws), 1)))[1]
    for k in range(3):
        theta = draws[k].astype(float)
        if name == "sir":
            flow = lambda t, z: [-theta[0] * z[0] * z[1] / 1e6, theta[0] * z[0] * z[1] / 1e6 - theta[1] * z[1]]  # noqa: E731
            start, times = [1e6 - 1, 1.0], sir.TIMES
        else:
            flow = lambda t, z: [(theta[0] - theta[1] * z[1]) * z[0], (theta[3] * z[0] - theta[2]) * z[1]]  # noqa: E731
            start, times = [30.0, 1.0], lotka_volterra.TIMES
        exact = scipy.integrate.solve_ivp(flow, (0, times[-1]), start, "DOP853", times, rtol=1e-11, atol=1e-9).y
        if name == "sir":
            expected = stats.binom(1000, exact[1] / 1e6).logpmf(x).sum()
        else:
            expected = stats.lognorm(0.1, scale=exact.ravel()).logpdf(x).sum()
        np.testing.assert_allclose(ours[k], expected, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SLOW, "bernoulli_glm_raw"])
def test_counts_and_positive_data(name):
    """What a support promises holds for data from the prior, and none fails."""
    theta = prior(name).sample(jax.random.key(0), (len(reference(name)),))
    x = compiled(name)[0](jax.random.key(1), theta)
    trace = handlers.trace(handlers.seed(task(name).model, 0)).get_trace()
    assert np.all(trace["x"]["fn"].support(x))
    assert np.all(np.isfinite(x))
    assert jnp.issubdtype(x.dtype, jnp.integer) == (name != "lotka_volterra")


@pytest.mark.slow
def test_distractors():
    """The constants against the published ones; projections of the noise are mixtures of t laws."""
    locations, roots = slcp_distractors.noise()
    np.testing.assert_allclose(locations[0, :3], [7.4507123, -2.07396452, 9.71532807], rtol=1e-8)
    np.testing.assert_allclose(locations[1, :2], [-10.53079641, -4.9149322], rtol=1e-8)
    np.testing.assert_allclose(roots[0, 2, :3], [-9.05853647, 0.55154863, 8.4459413], rtol=1e-8)
    assert list(slcp_distractors.positions()) == [22, 33, 23, 67, 42, 21, 16, 90]
    np.testing.assert_array_equal(
        slcp_distractors.observation(4)[slcp_distractors.positions()], slcp.observation(4), strict=True
    )
    theta = slcp.true_parameters(1)
    sampler = compiled("slcp_distractors")[0]
    x = np.concatenate([sampler(jax.random.key(seed), np.tile(theta, (500, 1))) for seed in range(8)])
    noise = np.asarray(x, float)[:, np.argsort(slcp_distractors.permutation())[8:]]
    for direction in np.concatenate([np.eye(92)[[0, 91]], np.random.default_rng(0).normal(size=(3, 92))]):
        t = stats.t(2, locations @ direction, np.linalg.norm(direction @ roots, axis=1))
        cdf = lambda z: t.cdf(z[:, None]).mean(1)  # noqa: E731
        assert stats.kstest(noise @ direction, cdf).pvalue > ALARM / 6
    tail = np.abs(noise @ direction - np.median(locations @ direction)) > 2000  # where the degrees of freedom show
    center = np.median(locations @ direction)
    expected = (t.sf(center + 2000) + t.cdf(center - 2000)).mean()
    assert stats.binomtest(int(tail.sum()), len(tail), expected).pvalue > ALARM / 6


@functools.cache
def _prior_covariance():
    return np.linalg.inv(bernoulli_glm.prior_precision())


def test_bernoulli_glm_prior(key):
    draws = np.asarray(bernoulli_glm.prior().sample(key, (4000,)), float)
    whitened = draws @ np.linalg.inv(np.linalg.cholesky(_prior_covariance())).T
    assert_mean_zero(np.concatenate([whitened, whitened**2 - 1], axis=1))
    assert _prior_covariance()[0, 0] == pytest.approx(2)


@pytest.mark.parametrize("name", sbibm.TASKS)
def test_what_is_published(name):
    module = task(name)
    trace = handlers.trace(handlers.seed(module.model, 0)).get_trace(module.observation(5))
    assert trace["theta"]["value"].shape == module.true_parameters(5).shape
    assert trace["x"]["fn"].event_shape == trace["x"]["value"].shape
    with pytest.raises(ValueError, match=r"`k` must be from 1 to 5; got 6"):
        module.observation(6)
    with pytest.raises(ValueError, match="`k` must be a positive integer"):
        module.true_parameters(0)
