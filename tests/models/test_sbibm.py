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
from models.sbibm import bernoulli_glm, gaussian_linear, lotka_volterra, sir, slcp, slcp_distractors, two_moons

ALARM = 1e-5  # of one test function, shared among the numbers that it compares
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


@pytest.mark.parametrize("name", [name for name in sbibm.TASKS if name != "two_moons"])
def test_likelihood_of_simulated_data(name):
    r"""E[p(x | t') / p(x | t)] = 1 under p(x | t), for t' a third of a standard deviation from t along each axis.

    That is the score's mean and the information identity at once, and needs the values alone.
    """
    module = task(name)
    theta = module.true_parameters(2)
    step = 0.1 if name.startswith("slcp") else 0.3 * sbibm.reference_draws(_stored(name)).std(0)
    moved = theta + jnp.concatenate([jnp.eye(len(theta)), -jnp.eye(len(theta))]) * step

    @jax.jit
    def ratios(key):
        x = jax.vmap(module.simulate, (0, None))(jax.random.split(key, 2000), theta)
        each = jax.vmap(jax.vmap(module.log_likelihood, (None, 0)), (0, None))
        return jnp.exp(each(moved, x) - each(theta[None], x)).T

    assert_mean_zero(ratios(jax.random.key(1)) - 1)


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


@pytest.mark.parametrize("name", [name for name in sbibm.TASKS if name not in SAME])
def test_reference_draws_are_stationary(name):
    """Metropolis chains at the posterior of observation 1, started at the published draws, leave them in law.

    Paired differences between chains' averages and starts, of coordinates, their products and the log density.
    """
    module = task(name)
    moves = _moves(name, module.log_likelihood)
    start, path = moves(jnp.asarray(sbibm.reference_draws(name)), module.observation(1), jax.random.key(2))
    assert_mean_zero(np.asarray(path, float).mean(0) - np.asarray(start, float))


def test_a_density_without_jacobian_is_rejected():
    """The published draws of two_moons are those of the density with 1 / radius."""

    def without(theta, x):
        radius = jnp.linalg.norm(x - two_moons._center(theta))
        return two_moons.log_likelihood(theta, x) + jnp.log(radius)

    moves = _moves("two_moons", without)
    start, path = moves(jnp.asarray(sbibm.reference_draws("two_moons")), two_moons.observation(1), jax.random.key(2))
    with pytest.raises(AssertionError):
        assert_mean_zero(np.asarray(path, float).mean(0) - np.asarray(start, float))


def _moves(name, log_likelihood):
    """Statistics of the draws, and of the chains at each of the later steps."""
    num_steps = 25 if name in ("sir", "lotka_volterra") else 100  # a solution a step
    law = prior(name)
    draws = sbibm.reference_draws(name)
    mean, root = draws.mean(0), np.linalg.cholesky(np.cov(draws.T))
    products = np.triu_indices(draws.shape[1])
    modes = name in ("two_moons", "slcp", "gaussian_mixture")  # far wider together than each is

    def log_density(theta, x):
        inside = jnp.all(law.support.base_constraint(theta) if hasattr(law.support, "base_constraint") else True)
        value = law.log_prob(theta) + log_likelihood(theta, x)
        return jnp.where(inside, value, -jnp.inf)

    def statistics(theta, x):
        z = jax.scipy.linalg.solve_triangular(root, theta - mean, lower=True)
        radius = jnp.linalg.norm(x - two_moons._center(theta))[None] if name == "two_moons" else jnp.zeros(0)
        return jnp.concatenate([z, (z[:, None] * z)[products], radius])

    def step(state, key, x):
        theta, value = state
        key_size, key_move, key_accept = jax.random.split(key, 3)
        size = 2.4 / np.sqrt(len(mean)) * 10 ** -jax.random.uniform(key_size, maxval=2.0 if modes else 0.5)
        proposed = theta + size * root @ jax.random.normal(key_move, theta.shape)
        proposed_value = log_density(proposed, x)
        accept = jnp.log(jax.random.uniform(key_accept)) < proposed_value - value
        return jnp.where(accept, proposed, theta), jnp.where(accept, proposed_value, value)

    @jax.jit
    def run(draws, x, key):
        state = draws, jax.vmap(log_density, (0, None))(draws, x)
        seen = lambda s: jnp.column_stack([jax.vmap(statistics, (0, None))(s[0], x), s[1]])  # noqa: E731

        def sweep(state, key):
            keys = jax.random.split(key, len(draws))
            state = jax.vmap(step, (0, 0, None))(state, keys, x)
            return state, seen(state)

        _, path = jax.lax.scan(sweep, state, jax.random.split(key, num_steps))
        return seen(state), path[num_steps // 5 :]

    return run


def _stored(name):
    return {"slcp_distractors": "slcp", "bernoulli_glm_raw": "bernoulli_glm"}.get(name, name)


def test_tasks_that_share_a_posterior(x64):
    """Their log likelihoods differ by what does not depend on theta: for the published spikes, by nothing."""
    for name, other in SAME.items():
        module = task(name)
        for k in (1, 5):
            for theta in (other.true_parameters(1), other.true_parameters(2)):
                ours = module.log_likelihood(theta, module.observation(k))
                np.testing.assert_allclose(ours, other.log_likelihood(theta, other.observation(k)), rtol=1e-5)
    spikes = task("bernoulli_glm_raw").observation(3)
    np.testing.assert_allclose(bernoulli_glm.design().T @ spikes, bernoulli_glm.observation(3), atol=1e-5)


def test_closed_forms(x64):
    rng = np.random.default_rng(0)
    theta, x = rng.normal(size=10), rng.normal(size=10)
    mean, covariance, log_evidence = gaussian_linear.exact_posterior(x)
    joint = prior("gaussian_linear").log_prob(theta) + gaussian_linear.log_likelihood(theta, x)
    posterior = stats.multivariate_normal(mean, covariance).logpdf(theta)
    np.testing.assert_allclose(joint, posterior + log_evidence, rtol=1e-10)

    theta, x = rng.uniform(-3, 3, 5), rng.normal(size=8)
    s, t, c = theta[2] ** 2, theta[3] ** 2, np.tanh(theta[4])
    law = stats.multivariate_normal(theta[:2], np.array([[s**2, c * s * t], [c * s * t, t**2]]) + 1e-6 * np.eye(2))
    np.testing.assert_allclose(slcp.log_likelihood(theta, x), law.logpdf(x.reshape(4, 2)).sum(), rtol=1e-9)


@pytest.mark.parametrize("name", ["sir", "lotka_volterra"])
def test_differential_equations(name):
    """In single precision against SciPy's solver of order 8 in double precision, in the equations' own variables."""
    theta = np.asarray(task(name).true_parameters(3), float)
    if name == "sir":
        flow = lambda t, z: [-theta[0] * z[0] * z[1] / 1e6, theta[0] * z[0] * z[1] / 1e6 - theta[1] * z[1]]  # noqa: E731
        start, times, ours = [1e6 - 1, 1.0], sir.TIMES, sir.infected(jnp.asarray(theta, jnp.float32))
    else:
        a, b, c, d = theta
        flow = lambda t, z: [a * z[0] - b * z[0] * z[1], d * z[0] * z[1] - c * z[1]]  # noqa: E731
        start, times = [30.0, 1.0], lotka_volterra.TIMES
        ours = lotka_volterra.log_populations(jnp.asarray(theta, jnp.float32), np.log(start), times)
    exact = scipy.integrate.solve_ivp(flow, (0, times[-1]), start, "DOP853", times, rtol=1e-11, atol=1e-9).y.T
    expected = exact[:, 1] / 1e6 if name == "sir" else np.log(exact)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)  # a hundredth of the noise


def test_counts_and_positive_data():
    """What a support promises holds for all of 300 draws from the prior, and none fails."""
    for name in ("sir", "lotka_volterra", "bernoulli_glm_raw"):
        module = task(name)

        @jax.jit
        def draws(key, module=module):
            def one(key):
                trace = handlers.trace(handlers.seed(module.model, key)).get_trace()
                return trace["x"]["fn"].support(trace["x"]["value"]), trace["x"]["value"]

            return jax.vmap(one)(jax.random.split(key, 300))

        inside, x = draws(jax.random.key(0))
        assert np.all(inside)
        assert np.all(np.isfinite(x))
        assert jnp.issubdtype(x.dtype, jnp.integer) == (name != "lotka_volterra")


def test_distractors():
    """The constants against the published ones; each vector is of one component, t with 2 degrees of freedom."""
    locations, roots = slcp_distractors.noise()
    np.testing.assert_allclose(locations[0, :3], [7.4507123, -2.07396452, 9.71532807], rtol=1e-8)
    np.testing.assert_allclose(locations[1, :2], [-10.53079641, -4.9149322], rtol=1e-8)
    np.testing.assert_allclose(roots[0, 2, :3], [-9.05853647, 0.55154863, 8.4459413], rtol=1e-8)
    assert list(slcp_distractors.positions()) == [22, 33, 23, 67, 42, 21, 16, 90]
    np.testing.assert_array_equal(
        slcp_distractors.observation(4)[slcp_distractors.positions()], slcp.observation(4), strict=True
    )
    theta = slcp.true_parameters(1)
    x = jax.jit(jax.vmap(slcp_distractors.simulate, (0, None)))(jax.random.split(jax.random.key(0), 400), theta)
    noise = np.asarray(x, float)[:, np.argsort(slcp_distractors.permutation())[8:]]
    whitened = np.stack([np.linalg.solve(r, (noise - m).T).T for m, r in zip(locations, roots, strict=True)])
    log_sizes = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
    component = np.argmax(-log_sizes[:, None] - 47 * np.log1p(np.sum(whitened**2, axis=2) / 2), axis=0)
    assert stats.chisquare(np.bincount(component, minlength=20)).pvalue > ALARM / 2
    own = whitened[component, np.arange(400)]
    assert stats.kstest(own[:, 5], stats.t(2).cdf).pvalue > ALARM / 2
    # Over its spread, the same for all of a vector, each is normal.
    assert abs(np.mean(own[:, 0] * own[:, 1] > 0) - 0.5) < 4.5 * 0.5 / 20


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
