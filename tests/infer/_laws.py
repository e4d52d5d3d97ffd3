"""Targets with known laws, and the tests of agreement that the kernels' tests share.

Every test states its false-alarm rate: ``ALARM`` for one test function's worth of draws, shared among the numbers it
compares (Bonferroni).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC
from scipy import stats

ALARM = 1e-5


class Target(NamedTuple):
    """A potential on vectors of length ``size``; ``statistics`` of a draw have means ``expected``."""

    size: int
    potential: object
    statistics: object
    expected: np.ndarray


def gaussian(condition, size=6, seed=0):
    """A Gaussian with mean in (-1, 1), variances from 1 to ``condition`` and rotated axes."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
    scales = np.geomspace(1, np.sqrt(condition), size).astype(np.float32) / np.float32(np.sqrt(condition))
    mean = rng.uniform(-1, 1, size).astype(np.float32)

    def whitened(x):
        return (x - mean) @ axes / scales

    def statistics(x):
        u = whitened(x)
        return jnp.concatenate([u, u**2, u[1:] * u[:-1]])

    expected = np.concatenate([np.zeros(size), np.ones(size), np.zeros(size - 1)])
    return Target(size, lambda x: 0.5 * jnp.sum(whitened(x) ** 2), statistics, expected)


def banana():
    """x1 ~ N(0, 0.6^2), x2 | x1 ~ N(x1^2, 0.4^2)."""

    def whitened(x):
        return jnp.stack([x[0] / 0.6, (x[1] - x[0] ** 2) / 0.4])

    def statistics(x):
        u = whitened(x)
        return jnp.stack([u[0], u[1], u[0] ** 2, u[1] ** 2, u[0] * u[1], x[1]])

    return Target(2, lambda x: 0.5 * jnp.sum(whitened(x) ** 2), statistics, np.array([0, 0, 1, 1, 0, 0.36]))


def mixture():
    """0.3 N(-m, s^2 I) + 0.7 N(m, s^2 I) in the plane, m = (1, 0.5), s = 0.6."""
    centre, s, weights = np.array([1.0, 0.5], np.float32), 0.6, np.array([0.3, 0.7])

    def potential(x):
        logs = jnp.stack([-0.5 * jnp.sum((x + centre) ** 2) / s**2, -0.5 * jnp.sum((x - centre) ** 2) / s**2])
        return -jax.scipy.special.logsumexp(logs + np.log(weights).astype(np.float32))

    def statistics(x):
        return jnp.stack([x[0], x[1], x[0] ** 2, x[1] ** 2, x[0] * x[1], jnp.where(x @ centre < 0, 1.0, 0.0)])

    below = stats.norm.cdf(0, [-np.linalg.norm(centre), np.linalg.norm(centre)], s) @ weights
    m, products = 0.4 * centre, np.outer(centre, centre) + s**2 * np.eye(2)
    return Target(2, potential, statistics, np.array([*m, products[0, 0], products[1, 1], products[0, 1], below]))


TARGETS = {
    "round Gaussian": gaussian(1.5),
    "Gaussian, variances 1 to 100": gaussian(100.0, seed=1),
    "banana": banana(),
    "mixture": mixture(),
}


def run(kernel, key, size, num_warmup, num_samples, num_chains, start=0.0):
    """Draws of shape (chains, draws, size) of vectorised chains from a potential on vectors."""
    first = start + jnp.zeros((num_chains, size))
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, init_params=first if num_chains > 1 else first[0])
    return mcmc.get_samples(group_by_chain=num_chains > 1)


def chain_z(draws, target):
    """t statistics of the means of ``target.statistics`` over independent chains, as standard normal quantiles.

    Chain means are independent whatever the correlation within a chain, so that no autocorrelation time is estimated.
    """
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(target.statistics)))(draws), np.float64).mean(axis=1)
    count = len(values)
    t = (values.mean(axis=0) - target.expected) / (values.std(axis=0, ddof=1) / np.sqrt(count))
    return stats.norm.isf(stats.t.sf(np.abs(t), count - 1))


def assert_agree(z):
    """No number is further off than chance allows once in ``1 / ALARM`` runs."""
    z = np.asarray(z)
    limit = stats.norm.isf(ALARM / (2 * z.size))
    assert np.all(np.abs(z) < limit), f"largest |z| = {np.max(np.abs(z)):.1f}, limit {limit:.1f}; z = {np.round(z, 1)}"


def linear_chain_z(draws, variance, correlation):
    """z of the means, variances and lag-1 correlations of stationary AR(1) chains with mean 0.

    Standard errors are those of a Gaussian AR(1) process with the claimed law: exact for means, asymptotic for the
    other two. ``draws`` has shape (draws, modes).
    """
    draws = np.asarray(draws, np.float64)
    n = len(draws)
    mean = draws.mean(axis=0) / np.sqrt(variance / n * (1 + correlation) / (1 - correlation))
    spread = (np.mean(draws**2, axis=0) / variance - 1) / np.sqrt(2 / n * (1 + correlation**2) / (1 - correlation**2))
    lagged = np.mean(draws[1:] * draws[:-1], axis=0) / np.mean(draws**2, axis=0)
    return np.concatenate([mean, spread, (lagged - correlation) / np.sqrt((1 - correlation**2) / n)])
