"""Ratios: the loss against its formula, and a Gaussian pair whose absolute ratio and evidence are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from numpyro_inverse.nn import ContextEmbedding, RatioNetwork, TrainingSettings, contrastive_ratio_loss, fit_module

KEY = jax.random.key(0)
SIZE, NOISE = 2, 0.5


def pairs(n, seed):
    """c standard normal, x = c + noise; log p(x | c) - log p(x)."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(n, SIZE))
    x = c + NOISE * rng.normal(size=(n, SIZE))
    return x.astype(np.float32), c.astype(np.float32)


def log_ratio(x, c):
    return (norm.logpdf(x, c, NOISE) - norm.logpdf(x, 0, (1 + NOISE**2) ** 0.5)).sum(axis=-1)


class Known:
    """A ratio that is given."""

    def __call__(self, x, c):
        return jnp.sum(x * c)


@pytest.mark.slow
def test_the_loss_is_its_formula(x64):
    """All pairs but one are contrasts, so that the choice of them is an order only."""
    x, c = (jnp.asarray(a[:3], float) for a in pairs(3, 0))
    r = np.exp(np.asarray(x @ c.T))
    gamma, balance, k = 0.7, 3.0, 2
    found = contrastive_ratio_loss(Known(), x, c, KEY, contrasts=k, gamma=gamma, balance=balance)
    others = np.array([r[i, np.arange(3) != i] for i in range(3)])
    marginal = np.log(k / (k + gamma * others.sum(axis=1)))
    # In the second term one of the two contrasts makes room for the pair's own: one of two values for each pair.
    joint = [np.log(gamma * np.diag(r) / (k + gamma * (np.diag(r) + others[:, j]))) for j in (0, 1)]
    choices = np.array(np.meshgrid(*np.array(joint).T)).reshape(3, -1)
    sums = -(marginal.mean() + gamma * choices.mean(axis=0)) / (1 + gamma)
    balanced = np.mean(np.diag(r) / (1 + np.diag(r))) + np.mean(others / (1 + others)) - 1
    assert np.min(np.abs(found - sums - balance * balanced**2)) < 1e-12


def test_gaussian_ratios_are_there_from_the_start():
    """From 20,000 pairs: 14 moments with relative errors of 0.01 make about 0.02 together; twice that allowed."""
    x, c = pairs(20_000, 1)
    network = RatioNetwork(SIZE, ContextEmbedding((SIZE,), data=c), width=8, depth=1, data=(x, c), key=KEY)
    x, c = pairs(5000, 2)
    error = np.asarray(jax.jit(jax.vmap(network))(x, c), float) - log_ratio(x, c)
    assert np.sqrt(np.mean(error**2)) < 0.04


@pytest.mark.slow
def test_the_ratio_is_learned_and_absolute():
    """x = |c| + noise, so not Gaussian together: no constant is free, and on new pairs the log ratio is
    met within 0.15. Evidence: the prior's mean of r is 1, within 0.1 nat, at about the deciles 1, 5 and 9 of x.
    """

    def bent(n, seed):
        rng = np.random.default_rng(seed)
        c = rng.normal(size=(n, 1))
        return (np.abs(c) + NOISE * rng.normal(size=(n, 1))).astype(np.float32), c.astype(np.float32)

    rows = bent(20_000, 1)
    network = RatioNetwork(1, ContextEmbedding((1,), data=rows[1]), width=16, depth=1, data=rows, key=KEY)

    def loss(network, batch, key):
        return contrastive_ratio_loss(network, *batch, key, contrasts=5)

    options = TrainingSettings(batch_size=200, max_epochs=10, learning_rate=1e-2, progress_bar=False)
    trained = fit_module(network, loss, rows, key=KEY, settings=options).module
    grid = np.linspace(-8, 8, 4001)
    x, c = bent(2000, 2)
    given = norm.logpdf(x, np.abs(grid), NOISE)
    log_marginal = np.log(np.trapezoid(np.exp(given) * norm.pdf(grid), grid, axis=1))
    exact = norm.logpdf(x, np.abs(c), NOISE)[:, 0] - log_marginal
    error = np.asarray(jax.jit(jax.vmap(trained))(x, c), float) - exact
    assert abs(error.mean()) < 0.05
    assert error.std() < 0.15
    wide = jnp.asarray(grid, jnp.float32)[:, None]
    table = jax.jit(jax.vmap(lambda x: jax.vmap(lambda c: trained(x, c))(wide)))(jnp.array([[0.0], [0.7], [1.7]]))
    evidence = np.log(np.trapezoid(np.exp(np.asarray(table, float)) * norm.pdf(grid), grid, axis=1))
    np.testing.assert_allclose(evidence, 0, atol=0.1)


def test_bad_input():
    network = RatioNetwork(2, 3, width=4, depth=1, key=KEY)
    x, c = jnp.zeros((5, 2)), jnp.zeros((5, 3))
    with pytest.raises(TypeError, match="RatioNetwork: a ratio is that of x and a `context`"):
        RatioNetwork(2, None, key=KEY)
    with pytest.raises(ValueError, match="RatioNetwork: `data` must be a pair of rows and as many contexts"):
        RatioNetwork(2, 3, data=np.zeros((5, 2)), key=KEY)
    with pytest.raises(ValueError, match="RatioNetwork: `depth` must be 1 or more"):
        RatioNetwork(2, 3, depth=0, key=KEY)
    with pytest.raises(ValueError, match=r"RatioNetwork: `x` must have shape \(2,\); got \(3,\)"):
        network(jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"RatioNetwork: `context` must have shape \(3,\); got \(2,\)"):
        network(jnp.zeros(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="contrastive_ratio_loss: `contrasts`, 5, must be fewer than the pairs"):
        contrastive_ratio_loss(network, x, c, KEY, contrasts=5)
    with pytest.raises(ValueError, match="contrastive_ratio_loss: `gamma` must be"):
        contrastive_ratio_loss(network, x, c, KEY, contrasts=2, gamma=0.0)
    with pytest.raises(ValueError, match="contrastive_ratio_loss: `balance` must be"):
        contrastive_ratio_loss(network, x, c, KEY, contrasts=2, balance=-1.0)
