"""The maximum mean discrepancy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import check_finite, check_key, check_positive_number, check_static
from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_covariance,
    check_permutations,
    checked_draws,
    checked_pair,
)


def mmd(
    x: Float[Array, "n *shape"],
    y: Float[Array, "m *shape"],
    rng_key: Key[Array, ""],
    *,
    bandwidth: float | None = None,
    num_permutations: int = 499,
) -> SignificanceTest:
    r"""The unbiased estimate of :math:`\operatorname{MMD}^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)` with
    :math:`k(x, y) = e^{-|x - y|^2 / (2 \ell^2)}`, and its permutation null; the p-value is exact for independent draws.

    A kernel as wide as the law sees location and dependence before width: of 500 draws each in three dimensions, a
    shift of 0.2 sd is told in 96 % of cases, a variance of 0.8 in 56 %; of 1,000 in 100 % and 86 %.

    Args:
        x: independent draws.
        y: independent draws of the other law.
        rng_key: a JAX random key.
        bandwidth: :math:`\ell`; default: the median distance between the draws of both.
        num_permutations: labellings.

    Raises:
        ValueError: too few draws, numbers that are not finite, identical draws, different dimensions, a bandwidth that
            is not positive.

    References:
        Gretton et al., JMLR 13 (2012) 723-773, lemma 6.
    """
    check_key("mmd", "rng_key", rng_key)
    check_permutations("mmd", num_permutations)
    first, second = checked_pair("mmd", x, y)
    both = np.concatenate([first, second])
    if bandwidth is None:
        bandwidth = float(np.sqrt(np.median(_squared_distances(both)[np.triu_indices(len(both), 1)])))
    bandwidth = check_positive_number("mmd", "bandwidth", bandwidth)
    kernel = jnp.asarray(np.exp(-_squared_distances(both) / (2 * bandwidth**2)))
    labels = jnp.concatenate([jnp.ones(len(first)), jnp.zeros(len(second))])
    permuted = jax.vmap(lambda k: jax.random.permutation(k, labels))(jax.random.split(rng_key, num_permutations))
    found = _estimates(kernel - jnp.eye(len(both)), jnp.concatenate([labels[None], permuted]).T)
    return against_null("MMD^2", found[0], found[1:])


@jax.jit
def _estimates(kernel: Float[Array, "n n"], labels: Float[Array, "n k"]) -> Float[Array, " k"]:
    """From a kernel matrix with a zero diagonal."""
    n, m = jnp.sum(labels, axis=0), jnp.sum(1 - labels, axis=0)
    pull = kernel @ labels
    within, across = jnp.sum(labels * pull, axis=0), jnp.sum((1 - labels) * pull, axis=0)
    rest = jnp.sum(kernel) - within - 2 * across
    return within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m)


def mmd_to_gaussian(
    draws: Float[Array, "n d"],
    mean: Float[Array, " d"],
    covariance: Float[Array, "d d"],
    rng_key: Key[Array, ""],
    *,
    bandwidth: float | None = None,
    num_simulations: int = 499,
) -> SignificanceTest:
    r"""The unbiased estimate of :math:`\operatorname{MMD}^2` between draws and a Gaussian with exact kernel means:

    .. math:: E k(x, y) = \ell^d |\Sigma + \ell^2 I|^{-1/2} e^{-(x - m)^T (\Sigma + \ell^2 I)^{-1} (x - m) / 2},
        \quad y \sim N(m, \Sigma).

    The null distribution is simulated from the Gaussian, so the p-value is exact for independent draws.

    Args:
        draws: independent draws.
        mean: m.
        covariance: :math:`\Sigma`.
        rng_key: a JAX random key.
        bandwidth: :math:`\ell`; default: :math:`\sqrt{2 \operatorname{tr} \Sigma}`.
        num_simulations: of the null.

    Raises:
        ValueError: as :func:`mmd`; a mean or covariance of another dimension; a covariance that is not symmetric and
            positive definite.
    """
    check_key("mmd_to_gaussian", "rng_key", rng_key)
    check_permutations("mmd_to_gaussian", num_simulations, "num_simulations")
    rows = checked_draws("mmd_to_gaussian", "draws", draws)
    d = rows.shape[1]
    where = "mmd_to_gaussian"
    m = np.asarray(check_finite(where, "mean", check_static(where, "mean", mean)), float).ravel()
    cov = np.asarray(check_finite(where, "covariance", check_static(where, "covariance", covariance)), float)
    if m.size != d or cov.shape != (d, d):
        raise ValueError(f"{where}: `draws` have {d} numbers, `mean` {m.size}, `covariance` shape {cov.shape}.")
    cov = check_covariance("mmd_to_gaussian", "covariance", cov)
    width = float(np.sqrt(2 * np.trace(cov))) if bandwidth is None else bandwidth
    width = check_positive_number("mmd_to_gaussian", "bandwidth", width)
    keys = jax.random.split(rng_key, num_simulations)
    statistic, null = _to_gaussian(jnp.asarray(rows - m), jnp.asarray(cov), width, keys)
    return against_null("MMD^2 to the Gaussian", statistic, null)


@jax.jit
def _to_gaussian(
    centred: Float[Array, "n d"], cov: Float[Array, "d d"], width: Array, keys: Array
) -> tuple[Array, Array]:
    """The estimate, and its simulations from the Gaussian."""
    n, d = centred.shape
    wide, wider = cov + width**2 * jnp.eye(d), 2 * cov + width**2 * jnp.eye(d)
    between = jnp.exp(d * jnp.log(width) - 0.5 * jnp.linalg.slogdet(wider)[1])
    front, inverse = jnp.exp(d * jnp.log(width) - 0.5 * jnp.linalg.slogdet(wide)[1]), jnp.linalg.inv(wide)
    root = jnp.linalg.cholesky(cov)

    def estimate(z: Array) -> Array:
        squares = jnp.sum(z**2, axis=1)
        distances = jnp.maximum(squares[:, None] + squares - 2 * z @ z.T, 0)
        own = (jnp.sum(jnp.exp(-distances / (2 * width**2))) - n) / (n * (n - 1))
        return own + between - 2 * jnp.mean(front * jnp.exp(-0.5 * jnp.sum((z @ inverse) * z, axis=1)))

    return estimate(centred), jax.lax.map(lambda k: estimate(jax.random.normal(k, (n, d)) @ root.T), keys)


def _squared_distances(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    rows = rows - np.mean(rows, axis=0)
    squares = np.sum(rows**2, axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    np.fill_diagonal(distances, 0.0)
    return distances
