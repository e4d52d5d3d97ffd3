"""The local classifier two-sample test: is the posterior right for these data?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from numpyro_inverse.calibration.two_sample._classifier import features_of, ridge
from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_permutations,
    checked_draws,
)


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
    r"""Tests :math:`q(\theta \mid y_o) = p(\theta \mid y_o)` at one data set :math:`y_o`, without draws of the latter.

    A classifier learns to tell simulated pairs :math:`(\theta_i, y_i)` from :math:`(\tilde\theta_i, y_i)`,
    :math:`\tilde\theta_i \sim q(\cdot \mid y_i)`. The statistic is the mean of :math:`(\hat p - \frac12)^2` over draws
    from :math:`q(\cdot \mid y_o)`. If q is exact everywhere the two members of a pair are exchangeable: the null
    distribution is that under random swaps within pairs, and the p-value is exact.

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
    check_permutations("lc2st", num_permutations)
    theta, other = checked_draws("lc2st", "truths", truths), checked_draws("lc2st", "draws", draws)
    y, here = checked_draws("lc2st", "data", data), checked_draws("lc2st", "draws_at", draws_at)
    y_here = np.asarray(data_at, float).reshape(1, -1)
    if theta.shape != other.shape or len(y) != len(theta) or here.shape[1] != theta.shape[1]:
        raise ValueError(
            f"lc2st: `truths`, `draws` and `data` must have one row each per simulation and `draws_at` the same "
            f"numbers a row; got {theta.shape}, {other.shape}, {y.shape} and {here.shape}."
        )
    if y_here.shape[1] != y.shape[1] or not np.all(np.isfinite(y_here)):
        raise ValueError(f"lc2st: `data_at` must be {y.shape[1]} finite numbers; got shape {np.shape(data_at)}.")
    key_features, key_swaps = jax.random.split(rng_key)
    pairs = np.concatenate([np.hstack([theta, y]), np.hstack([other, y])])
    features = features_of(pairs, key_features)
    at = features(jnp.asarray(np.hstack([here, np.repeat(y_here, len(here), 0)])))
    swaps = jax.random.rademacher(key_swaps, (num_permutations, len(theta)), float)
    signs = jnp.concatenate([jnp.ones((1, len(theta))), swaps])
    found = _statistics(features(jnp.asarray(pairs)), jnp.concatenate([signs, -signs], axis=1).T, at)
    return against_null("L-C2ST", found[0], found[1:])


@jax.jit
def _statistics(phi: Float[Array, "n p"], labels: Float[Array, "n k"], at: Float[Array, "m p"]) -> Float[Array, " k"]:
    return jnp.mean((at @ (ridge(phi) @ labels) / 2) ** 2, axis=0)
