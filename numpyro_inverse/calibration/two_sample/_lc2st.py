"""The local classifier two-sample test: is the posterior right for these data?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import check_finite, check_key
from numpyro_inverse.calibration.two_sample._classifier import features_of, ridge
from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_permutations,
    checked_draws,
)

WAVES = 0.1  # weight of the classifier's random features beside linear and quadratic ones
PENALTIES = np.geomspace(1e-8, 10.0, 28)  # of the regression, times its largest squared singular value


def lc2st(
    truths: Float[Array, "n *shape"],
    draws: Float[Array, "n *shape"],
    data: Float[Array, "n *data_shape"],
    draws_at: Float[Array, "m *shape"],
    data_at: Float[Array, "*data_shape"],
    rng_key: Key[Array, ""],
    *,
    num_permutations: int = 499,
) -> SignificanceTest:
    r"""Test :math:`q(\theta \mid y_o) = p(\theta \mid y_o)` at one data set :math:`y_o`, without draws of the latter.

    A classifier learns to tell simulated pairs :math:`(\theta_i, y_i)` from :math:`(\tilde\theta_i, y_i)`,
    :math:`\tilde\theta_i \sim q(\cdot \mid y_i)`. The statistic is the mean of :math:`(\hat p - \frac12)^2` over draws
    from :math:`q(\cdot \mid y_o)`. If q is exact everywhere the two members of a pair are exchangeable: the null
    distribution is that under random swaps within pairs, and the p-value is exact.

    The classifier does not see the data themselves but the linear prediction :math:`\hat\theta(y)` of
    :math:`(\theta + \tilde\theta) / 2`, which a swap does not change, and the residual
    :math:`\theta - \hat\theta(y)`: with raw data its power falls with every number in y. What differs from data set to
    data set in a way that :math:`\hat\theta` does not follow (a posterior whose mean does not depend on the data, say)
    is seen on the average over data sets only; give summaries of your own as ``data`` then.

    Args:
        truths: :math:`\theta_i`, simulated from the prior.
        draws: one draw of :math:`q(\cdot \mid y_i)` for each.
        data: :math:`y_i`.
        draws_at: draws of :math:`q(\cdot \mid y_o)`.
        data_at: :math:`y_o`.
        rng_key: a JAX random key.
        num_permutations: of swaps.

    Raises:
        ValueError: too few draws, numbers that are not finite, shapes that do not fit.

    References:
        Linhart, Gramfort & Rodrigues, NeurIPS 2023 (arXiv:2306.03580), section 3; the p-value is (1 + #) / (1 + n).
    """
    check_key("lc2st", "rng_key", rng_key)
    check_permutations("lc2st", num_permutations)
    theta, other = checked_draws("lc2st", "truths", truths), checked_draws("lc2st", "draws", draws)
    y, here = checked_draws("lc2st", "data", data), checked_draws("lc2st", "draws_at", draws_at)
    y_here = np.asarray(check_finite("lc2st", "data_at", data_at), float).reshape(1, -1)
    if theta.shape != other.shape or len(y) != len(theta) or here.shape[1] != theta.shape[1]:
        raise ValueError(
            f"lc2st: `truths`, `draws` and `data` must have one row each per simulation and `draws_at` the same "
            f"numbers a row; got {theta.shape}, {other.shape}, {y.shape} and {here.shape}."
        )
    if y_here.shape[1] != y.shape[1]:
        raise ValueError(f"lc2st: `data_at` must be {y.shape[1]} numbers; got shape {np.shape(data_at)}.")
    key_features, key_swaps = jax.random.split(rng_key)
    summary, summary_here = _summaries((theta + other) / 2, y, y_here)
    pairs = np.concatenate([np.hstack([v - summary, summary]) for v in (theta, other)])
    features = features_of(pairs, key_features, WAVES)
    at = features(jnp.asarray(np.hstack([here - summary_here, np.repeat(summary_here, len(here), 0)])))
    swaps = jax.random.rademacher(key_swaps, (num_permutations, len(theta)), float)
    signs = jnp.concatenate([jnp.ones((1, len(theta))), swaps])
    found = _statistics(features(jnp.asarray(pairs)), jnp.concatenate([signs, -signs], axis=1).T, at)
    return against_null("L-C2ST", found[0], found[1:])


def _summaries(
    targets: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], y_here: Float[np.ndarray, "1 k"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "1 d"]]:
    """Predictions of the targets by ridge regression on the data, its penalty by generalized cross-validation."""
    n, center, spread = len(y), np.mean(y, axis=0), np.std(y, axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    mean = np.mean(targets, axis=0)
    left, values, right = np.linalg.svd((y - center) / spread, full_matrices=False)
    along = left.T @ (targets - mean)
    best, chosen = np.inf, np.zeros_like(values)
    for penalty in PENALTIES * values[0] ** 2:
        kept = values**2 / (values**2 + penalty)
        error = np.sum((targets - mean - left @ (kept[:, None] * along)) ** 2)
        error = error / (1 - (1 + np.sum(kept)) / n) ** 2 if np.sum(kept) < n - 1 else np.inf
        if error < best:
            best, chosen = error, values / (values**2 + penalty)
    coefficients = right.T @ (chosen[:, None] * along)
    first, second = (mean + ((v - center) / spread) @ coefficients for v in (y, y_here))
    return first, second


@jax.jit
def _statistics(phi: Float[Array, "n p"], labels: Float[Array, "n k"], at: Float[Array, "m p"]) -> Float[Array, " k"]:
    return jnp.mean((at @ (ridge(phi) @ labels) / 2) ** 2, axis=0)
