"""The Wasserstein distance between two samples, with the null that its bias calls for."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from numpyro_inverse._checks import check_count, check_finite, check_key, check_static
from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_covariance,
    check_permutations,
    checked_pair,
)

LARGEST = 500


def wasserstein(
    x: Float[Array, "n *shape"],
    y: Float[Array, "n *shape"],
    rng_key: Key[Array, ""],
    *,
    order: int = 2,
    num_permutations: int = 99,
) -> SignificanceTest:
    r"""The Wasserstein distance of two samples of n draws,

    .. math:: W_p = \min_\pi \Bigl( \frac1n \sum_i |x_i - y_{\pi(i)}|^p \Bigr)^{1/p}.

    Between samples of the *same* law it is far from zero (200 draws in 5 dimensions: 1.1), so it means nothing without
    its null distribution, here by permutation; the p-value is exact for independent draws.
    It has little power with few draws: of 200 each in three dimensions, a standard deviation of 0.8 was told in 64 % of
    cases and a shift of 0.2 sd in 56 %; of 500 each in 99 % and 89 %, but a variance of 0.8 in 50 % only.

    Args:
        x: independent draws, at most 500.
        y: as many of the other law.
        rng_key: a JAX random key.
        order: p, 1 or 2.
        num_permutations: labellings.

    Raises:
        ValueError: samples of different size, more than 500 draws, and as :func:`~numpyro_inverse.calibration.mmd`.
    """
    check_key("wasserstein", "rng_key", rng_key)
    check_permutations("wasserstein", num_permutations)
    first, second = checked_pair("wasserstein", x, y)
    n = len(first)
    if len(second) != n or n > LARGEST:
        raise ValueError(
            f"wasserstein: `x` and `y` must be of equal size, up to {LARGEST} draws; got {n} and {len(second)}."
        )
    if check_count("wasserstein", "order", order) not in (1, 2):
        raise ValueError(f"wasserstein: `order` must be 1 or 2; got {order}.")
    both = np.concatenate([first, second])
    cost = cdist(both, both, "euclidean" if order == 1 else "sqeuclidean")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).ravel())

    def distance(order_of: np.ndarray) -> float:
        block = cost[np.ix_(order_of[:n], order_of[n:])]
        return float(np.mean(block[linear_sum_assignment(block)]) ** (1 / order))

    null = np.array([distance(rng.permutation(2 * n)) for _ in range(num_permutations)])
    return against_null(f"Wasserstein-{order} distance", distance(np.arange(2 * n)), null)


def gaussian_wasserstein(
    mean: Float[np.ndarray, " d"],
    covariance: Float[np.ndarray, "d d"],
    other_mean: Float[np.ndarray, " d"],
    other_covariance: Float[np.ndarray, "d d"],
) -> float:
    r"""The Wasserstein-2 distance of two Gaussians,

    .. math:: W_2^2 = |m_1 - m_2|^2 + \operatorname{tr}\bigl(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2}\bigr).

    Args:
        mean: :math:`m_1`.
        covariance: :math:`S_1`, possibly singular.
        other_mean: :math:`m_2`.
        other_covariance: :math:`S_2`, likewise.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a covariance that is asymmetric or indefinite.
        TypeError: what are no real numbers.

    References:
        Givens & Shortt, Michigan Math. J. 31 (1984) 231-240, proposition 7.
    """
    name = "gaussian_wasserstein"
    given = {"mean": mean, "other_mean": other_mean, "covariance": covariance, "other_covariance": other_covariance}
    m1, m2, s1, s2 = (np.asarray(check_finite(name, k, check_static(name, k, v)), float) for k, v in given.items())
    m1, m2, s1, s2 = np.ravel(m1), np.ravel(m2), np.atleast_2d(s1), np.atleast_2d(s2)
    d = m1.size
    if m2.size != d or s1.shape != (d, d) or s2.shape != (d, d):
        raise ValueError(
            f"{name}: the means `mean` and `other_mean` must have d numbers, `covariance` and `other_covariance` shape "
            f"(d, d); got {m1.size} and {m2.size}, {s1.shape} and {s2.shape}."
        )
    s1 = check_covariance(name, "covariance", s1, singular=True)
    s2 = check_covariance(name, "other_covariance", s2, singular=True)
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s2 @ root), 0))
    return float(np.sqrt(max(np.sum((m1 - m2) ** 2) + np.trace(s1) + np.trace(s2) - 2 * np.sum(cross), 0.0)))
