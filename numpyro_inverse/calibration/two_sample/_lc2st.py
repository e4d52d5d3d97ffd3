"""The local classifier two-sample test: is the posterior right for these data?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from numpyro_inverse._checks import check_finite, check_key, check_static
from numpyro_inverse.calibration.two_sample._classifier import features_of, ridge
from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_permutations,
    checked_draws,
)

WAVES = 0.1  # weight of the classifier's random features beside linear and quadratic ones
NEAR = 0.8  # share of the simulations, the nearest, that the second classifier learns from
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
    :math:`\tilde\theta_i \sim q(\cdot \mid y_i)`; its score is the mean of :math:`(\hat p - \frac12)^2` over draws
    from :math:`q(\cdot \mid y_o)`. If q is exact everywhere the two members of a pair are exchangeable: the null
    distribution is that under random swaps within pairs, and the p-value is exact.

    The classifiers do not see the data themselves but the linear prediction :math:`\hat\theta(y)` of
    :math:`(\theta + \tilde\theta) / 2`, which a swap does not change, and the residual
    :math:`\theta - \hat\theta(y)`: with raw data the power falls with every number in y. There are two. One sees both,
    and so how the error changes with the data; what it pays for that is power against an error that does not change.
    The other sees the residual alone, and learns from the four fifths of the simulations whose
    :math:`\hat\theta(y_i)` is nearest to :math:`\hat\theta(y_o)`. The statistic is the larger of their scores, each
    standardized by its mean and standard deviation over the swaps and what was found.

    What differs from data set to data set in a way that :math:`\hat\theta` does not follow (a posterior whose mean does
    not depend on the data, say) is seen on the average over data sets only; give summaries of your own as ``data``
    then.

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
    y_here = np.asarray(check_finite("lc2st", "data_at", check_static("lc2st", "data_at", data_at)), float)
    y_here = y_here.reshape(1, -1)
    if theta.shape != other.shape or len(y) != len(theta) or here.shape[1] != theta.shape[1]:
        raise ValueError(
            f"lc2st: `truths`, `draws` and `data` must have one row each per simulation and `draws_at` the same "
            f"numbers a row; got {theta.shape}, {other.shape}, {y.shape} and {here.shape}."
        )
    if y_here.shape[1] != y.shape[1]:
        raise ValueError(f"lc2st: `data_at` must be {y.shape[1]} numbers; got shape {np.shape(data_at)}.")
    key_features, key_swaps = jax.random.split(rng_key)
    summary, summary_here = _summaries((theta + other) / 2, y, y_here)
    swaps = jax.random.rademacher(key_swaps, (num_permutations, len(theta)), float)
    signs = jnp.concatenate([jnp.ones((1, len(theta))), swaps])
    near = _nearest(summary, summary_here)
    first, second, at = theta - summary, other - summary, here - summary_here
    scores = jnp.stack(
        [
            _scores(
                np.hstack([first, summary]),
                np.hstack([second, summary]),
                np.hstack([at, np.repeat(summary_here, len(at), 0)]),
                signs,
                key_features,
            ),
            _scores(first[near], second[near], at, signs[:, near], key_features),
        ]
    )
    spread = jnp.std(scores, axis=1, keepdims=True)
    scores = (scores - jnp.mean(scores, axis=1, keepdims=True)) / jnp.where(spread > 0, spread, 1.0)
    found = jnp.max(scores, axis=0)
    return against_null("L-C2ST", found[0], found[1:])


def _summaries(
    targets: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], y_here: Float[np.ndarray, "1 k"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "1 d"]]:
    """Predictions of the targets by ridge regression on the data, its penalty by generalized cross-validation."""
    n, center, spread = len(y), np.mean(y, axis=0), _positive(np.std(y, axis=0))
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


def _nearest(summary: Float[np.ndarray, "n d"], here: Float[np.ndarray, "1 d"]) -> Int[np.ndarray, " near"]:
    """The simulations whose prediction is nearest to the one here, in standard deviations."""
    distance = np.sum(((summary - here) / _positive(np.std(summary, axis=0))) ** 2, axis=1)
    return np.sort(np.argsort(distance)[: int(np.ceil(NEAR * len(summary)))])


def _positive(spread: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return np.where(spread > 0, spread, 1.0)


def _scores(
    first: Float[np.ndarray, "n k"],
    second: Float[np.ndarray, "n k"],
    at: Float[np.ndarray, "m k"],
    signs: Float[Array, "s n"],
    key: Array,
) -> Float[Array, " s"]:
    """Of a classifier of ``first`` against ``second``, whose pairs are swapped where a sign is negative."""
    pairs = np.concatenate([first, second])
    features = features_of(pairs, key, WAVES)
    labels = jnp.concatenate([signs, -signs], axis=1).T
    return _mean_squares(features(jnp.asarray(pairs)), labels, features(jnp.asarray(at)))


@jax.jit
def _mean_squares(phi: Float[Array, "n p"], labels: Float[Array, "n k"], at: Float[Array, "m p"]) -> Float[Array, " k"]:
    return jnp.mean((at @ (ridge(phi) @ labels) / 2) ** 2, axis=0)
