"""Flow matching: the density and the draws of the velocity that is known for a Gaussian, and training towards it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2, multivariate_normal

from numpyro_inverse.nn import FlowMatching, fit_density
from numpyro_inverse.nn._flow_matching import carried, carried_log_density

KEY = jax.random.key(0)
MEAN, ROOT = np.array([0.5, -1.0]), np.array([[0.7, 0], [0.5, 0.2]])
COVARIANCE = ROOT @ ROOT.T


def affine(t, x):
    """E[e - x_0 | x_t] for x_0 Gaussian, x_t = (1 - t) x_0 + t e: the velocity that the loss is smallest for."""
    mean, covariance, eye = (jnp.asarray(a, x.dtype) for a in (MEAN, COVARIANCE, np.eye(2)))
    spread = (1 - t) ** 2 * covariance + t**2 * eye
    gain = t * eye - (1 - t) * covariance
    return -mean + gain @ jnp.linalg.inv(spread) @ (x - (1 - t) * mean)


@pytest.mark.slow
def test_the_density_of_the_affine_velocity(x64):
    """Exact up to the solver's tolerance, 1e-8 a step."""
    x = jnp.asarray(MEAN + np.random.default_rng(0).normal(size=(5, 2)) @ ROOT.T)
    found = jax.jit(jax.vmap(lambda x: carried_log_density(affine, x)))(x)
    np.testing.assert_allclose(found, multivariate_normal(MEAN, COVARIANCE).logpdf(x), atol=1e-6)


@pytest.mark.slow
def test_the_draws_of_the_affine_velocity():
    """The map from noise to data is affine too: its matrix times its transpose is the covariance."""
    noise = jnp.concatenate([jnp.zeros((1, 2)), jnp.eye(2)])
    found = np.asarray(jax.jit(jax.vmap(lambda z: carried(affine, z, 1.0, 0.0)))(noise), float)
    np.testing.assert_allclose(found[0], MEAN, atol=1e-3)
    matrix = (found[1:] - found[0]).T
    np.testing.assert_allclose(matrix @ matrix.T, COVARIANCE, atol=1e-3)


def test_the_loss_is_smallest_at_the_affine_velocity():
    """Mean of the loss at it, d E[Var(e - x_0 | x_t)] by quadrature over t; 4 standard errors of 40,000 paths."""
    law = FlowMatching(2, width=4, depth=1, key=KEY)

    class Known(FlowMatching):
        def velocity(self, z, t, features):
            return affine(t, z)

    known = object.__new__(Known)
    for name, value in vars(law).items():
        object.__setattr__(known, name, value)
    x = MEAN + np.random.default_rng(1).normal(size=(40_000, 2)) @ ROOT.T
    keys = jax.random.split(KEY, len(x))
    values = np.asarray(
        jax.jit(jax.vmap(lambda x, k: known.loss(x, None, k)))(jnp.asarray(x, jnp.float32), keys), float
    )
    times = (np.arange(2000) + 0.5) / 2000
    variance = []
    for t in times:
        gain = t * np.eye(2) - (1 - t) * COVARIANCE
        spread = (1 - t) ** 2 * COVARIANCE + t**2 * np.eye(2)
        variance.append(np.trace(np.eye(2) + COVARIANCE - gain @ np.linalg.solve(spread, gain.T)) / 2)
    # The paths start at a noise of 1e-3, which changes the mean by about that.
    assert abs(values.mean() - np.mean(variance)) < 4 * values.std() / len(values) ** 0.5 + 3e-3


@pytest.mark.slow
def test_training():
    """A Gaussian whose mean is the context: within 0.05 nat, and draws with its mean (false alarms 1e-5)."""

    def pairs(n, seed):
        rng = np.random.default_rng(seed)
        c = rng.normal(size=(n, 1))
        x = 3 + 2 * c + rng.normal(size=(n, 2)) @ ROOT.T
        return x.astype(np.float32), c.astype(np.float32)

    rows = pairs(4000, 0)
    law = FlowMatching(2, width=16, depth=1, context=1, data=rows[0], key=KEY)
    fit = fit_density(law, rows, key=KEY, batch_size=100, max_epochs=15, learning_rate=1e-2, progress_bar=False)
    x, c = pairs(300, 1)
    found = np.asarray(jax.jit(jax.vmap(fit.module.log_prob))(x, c), float)
    exact = multivariate_normal([0, 0], COVARIANCE).logpdf(x - 3 - 2 * c)
    error = np.std(exact - found) / len(x) ** 0.5
    assert -4 * error < np.mean(exact - found) < 0.05 + 4 * error
    draws = jax.jit(jax.vmap(lambda k: fit.module.sample(k, jnp.array([0.5]))))(jax.random.split(KEY, 500))
    off = np.mean(np.linalg.solve(ROOT, (np.asarray(draws, float) - 4).T), axis=1)
    # A bias of 0.1 deviations a number allowed for the network.
    assert np.sum(np.maximum(np.abs(off) - 0.1, 0) ** 2) * len(draws) < chi2.isf(1e-5, 2)


def test_bad_input():
    with pytest.raises(ValueError, match="FlowMatching: `width` must be 1 or more"):
        FlowMatching(2, width=0, key=KEY)
    large = FlowMatching(17, width=4, depth=1, key=KEY)
    with pytest.raises(ValueError, match=r"FlowMatching: the density .* is refused above 16 numbers; this law has 17"):
        large.log_prob(jnp.zeros(17))
    with pytest.raises(ValueError, match=r"FlowMatching: `x` must have shape \(17,\); got \(2,\)"):
        large.loss(jnp.zeros(2), None, KEY)
    with pytest.raises(TypeError, match="FlowMatching: the flow was made without `context`"):
        large.sample(KEY, jnp.zeros(1))
