"""Control and inverse reinforcement learning: likelihoods and policies by another road, posteriors by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from scipy.linalg import solve_discrete_are
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import multivariate_normal, t

from models import grid_world, heating_choice, linear_quadratic
from numpyro_inverse.symmetry import Scaling, Symmetry, check_invariance

ALARM = 1e-5


def draws_of(model, *args, site, num_samples=500, **kwargs):
    """Draws of 8 chains, shape (chain, draw, *site)."""
    options = {"num_chains": 8, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=num_samples, **options)
    mcmc.run(jax.random.key(0), *args, **kwargs)
    return np.asarray(mcmc.get_samples(group_by_chain=True)[site], float)


def assert_moments(draws, mean, covariance):
    """Means and products of deviations over independent chains. False-alarm rate 1e-5."""
    deviation = draws - mean
    found = np.concatenate([deviation, deviation**2, deviation[..., :1] * deviation[..., 1:]], axis=-1)
    expected = np.concatenate([[0, 0], np.diagonal(covariance), covariance[:1, 1]])
    error = found.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(found))
    limit = t.isf(ALARM / (2 * len(expected)), len(found) - 1) * error
    assert np.all(np.abs(found.mean(axis=(0, 1)) - expected) < limit), (found.mean(axis=(0, 1)), expected, error)


# Heating.


@pytest.fixture(scope="module")
def heating():
    costs, choice = heating_choice.costs().astype(float), heating_choice.choices()
    found = minimize(
        lambda theta: -heating_choice.log_likelihood(theta, choice, costs), np.zeros(2), method="BFGS", tol=1e-8
    )
    return costs, choice, found


def test_the_published_maximum(heating):
    """Dollars' fifth digits: the source's tables are rounded to three significant digits more than are compared."""
    _, _, found = heating
    np.testing.assert_allclose(found.x, heating_choice.PUBLISHED_MAXIMUM, rtol=1e-5)
    np.testing.assert_allclose(-found.fun, heating_choice.PUBLISHED_LOG_LIKELIHOOD, atol=1e-4)


@pytest.mark.slow
def test_the_posterior_of_what_people_value(heating):
    costs, choice, found = heating
    probability = softmax(costs @ found.x, axis=-1)
    centered = costs - np.einsum("ij,ijc->ic", probability, costs)[:, None]
    information = np.einsum("ij,ijc,ijd->cd", probability, centered, centered)
    spread = np.sqrt(np.diagonal(np.linalg.inv(information + np.eye(2))))
    mean, covariance, _ = heating_choice.exact_posterior(choice, costs, center=found.x, spread=spread)
    np.testing.assert_allclose(mean, found.x, atol=0.1 * spread.min())  # Laplace: the likelihood dominates
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance)), spread, rtol=0.03)
    assert_moments(draws_of(heating_choice.model, choice, site="coefficients", costs=costs), mean, covariance)


def test_the_density_of_choices(heating):
    costs, choice, _ = heating
    theta = np.array([-0.4, -0.3])
    found, _ = log_density(heating_choice.model, (choice,), {"costs": costs}, {"coefficients": jnp.asarray(theta)})
    expected = heating_choice.log_likelihood(theta, choice, costs) - 0.5 * theta @ theta - np.log(2 * np.pi)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# A grid world.


@pytest.mark.slow
def test_soft_values_are_exact(x64):
    reward = jnp.asarray(grid_world.features() @ [2.0, -1.5])
    q = grid_world.soft_q_values(reward, tolerance=1e-12)
    np.testing.assert_allclose(q, grid_world.value_iteration(reward), atol=1e-10)
    np.testing.assert_allclose(grid_world.transitions().sum(axis=-1), 1, atol=1e-15)
    probability = np.exp(q - jax.nn.logsumexp(q, axis=1, keepdims=True))
    assert probability[grid_world.SIDE * 4 + 5].argmax() == 0  # the goal is below

    def total(weights):
        return jnp.sum(jnp.sin(grid_world.soft_q_values(jnp.asarray(grid_world.features()) @ weights, tolerance=1e-13)))

    check_grads(total, (jnp.array([2.0, -1.5]),), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.slow
def test_the_density_of_actions():
    states, actions = grid_world.simulate(jax.random.key(1), [2.0, -1.5])
    weights = np.array([1.0, 0.5])
    found, _ = log_density(grid_world.model, (states, actions), {}, {"weights": jnp.asarray(weights)})
    q = grid_world.value_iteration(grid_world.features() @ weights)
    policy = q - np.log(np.exp(q - q.max()).sum(axis=1, keepdims=True)) - q.max()
    prior = -0.5 * weights @ weights / grid_world.PRIOR_SCALE**2 - np.log(2 * np.pi * grid_world.PRIOR_SCALE**2)
    np.testing.assert_allclose(found, policy[np.asarray(states), np.asarray(actions)].sum() + prior, rtol=1e-5)


@pytest.mark.statistical
def test_the_posterior_of_what_an_agent_wants():
    states, actions = grid_world.simulate(jax.random.key(1), [2.0, -1.5])
    draws = draws_of(grid_world.model, states, actions, site="weights", num_samples=250)
    center, spread = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
    assert_moments(draws, *grid_world.exact_posterior(states, actions, center=center, spread=spread))
    assert np.all(np.abs(center - [2.0, -1.5]) < 5 * spread)


# Linear systems.


@pytest.mark.slow
def test_the_filter_against_the_dense_normal(x64):
    n, key = 20, jax.random.key(0)
    a = np.asarray(linear_quadratic.oscillator(jnp.asarray(1.3), jnp.asarray(0.2))[0])
    y = linear_quadratic.KalmanOutput(jnp.asarray(a), n).sample(key)
    powers = [np.linalg.matrix_power(a, k) for k in range(n)]
    covariance = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            shared = powers[i] @ powers[j].T
            shared += linear_quadratic.PROCESS**2 * sum(
                powers[i - 1 - k] @ powers[j - 1 - k].T for k in range(min(i, j))
            )
            covariance[i, j] = shared[0, 0]
    covariance += linear_quadratic.NOISE**2 * np.eye(n)
    expected = multivariate_normal(np.zeros(n), covariance).logpdf(y)
    np.testing.assert_allclose(linear_quadratic.kalman_log_likelihood(y, a), expected, rtol=1e-10)
    sample = linear_quadratic.KalmanOutput(jnp.asarray(a), n).sample(key, (4000,))
    z = np.linalg.solve(np.linalg.cholesky(covariance), np.asarray(sample).T)
    assert abs(np.mean(z**2) - 1) < 5 * np.sqrt(2 / z.size)  # false-alarm rate 6e-7


def test_the_exact_step_of_an_oscillator(x64):
    a, b = linear_quadratic.oscillator(jnp.asarray(2.0), jnp.asarray(0.0))
    angle = 2.0 * linear_quadratic.STEP
    np.testing.assert_allclose(a[0], [np.cos(angle), np.sin(angle) / 2.0], atol=1e-12)
    np.testing.assert_allclose(b[0, 0], (1 - np.cos(angle)) / 4.0, atol=1e-12)


@pytest.mark.slow
def test_the_regulator_and_its_gradient(x64):
    a, b = (np.asarray(m) for m in linear_quadratic.oscillator(jnp.asarray(1.0), jnp.asarray(0.1)))

    def gain(weights):
        return linear_quadratic.regulator(weights[:2], weights[2], jnp.asarray(a), jnp.asarray(b))

    weights = jnp.array([2.0, 0.5, 0.7])
    p = solve_discrete_are(a, b, np.diag(weights[:2]), np.atleast_2d(weights[2]))
    np.testing.assert_allclose(gain(weights), np.linalg.solve(weights[2] + b.T @ p @ b, b.T @ p @ a), rtol=1e-9)
    np.testing.assert_allclose(gain(7.0 * weights), gain(weights), rtol=1e-9)
    jacobian = np.asarray(jax.jacrev(gain)(weights))[0]
    step = 1e-5
    differences = [(gain(weights + step * e) - gain(weights - step * e))[0] / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(jacobian, np.stack(differences, axis=-1), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jacobian @ weights, 0, atol=1e-9)  # Euler: no change along the scale


@pytest.mark.slow
def test_the_weights_of_a_cost_are_known_up_to_scale(x64):
    states, controls = linear_quadratic.simulate_expert(jax.random.key(0), [2.0, 0.5, 0.7])
    scale = Symmetry(Scaling(), ["position", "velocity", "effort"])
    found = check_invariance(linear_quadratic.inverse_model, scale, model_args=(states, controls))
    assert not found.holds
    assert "controls" not in str(found)  # the prior breaks it, the likelihood does not
