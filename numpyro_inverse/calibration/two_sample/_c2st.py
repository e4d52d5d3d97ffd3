"""The classifier two-sample test."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import check_key
from numpyro_inverse.calibration.two_sample._classifier import features_of, ridge
from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_permutations,
    checked_pair,
)


def c2st(
    x: Float[Array, "n *shape"], y: Float[Array, "m *shape"], rng_key: Key[Array, ""], *, num_permutations: int = 499
) -> SignificanceTest:
    r"""Can a classifier tell the draws ``x`` from the draws ``y``?

    The statistic is the balanced accuracy of leave-one-out predictions: 1/2 if the laws are equal, 1 if they have no
    point in common. The classifier is least squares on linear, quadratic and random Fourier features, so its null
    distribution is found by refitting under ``num_permutations`` permuted labellings; the p-value is exact for
    independent draws. Draws of a Markov chain must be thinned first.

    Args:
        x: independent draws.
        y: independent draws of the other law.
        rng_key: a JAX random key.
        num_permutations: labellings.

    Raises:
        ValueError: too few draws, numbers that are not finite, identical draws, different dimensions.

    References:
        Lopez-Paz & Oquab, ICLR 2017.
    """
    check_key("c2st", "rng_key", rng_key)
    check_permutations("c2st", num_permutations)
    first, second = checked_pair("c2st", x, y)
    both = np.concatenate([first, second])
    key_features, key_labels = jax.random.split(rng_key)
    phi = features_of(both, key_features)(jnp.asarray(both))
    labels = jnp.concatenate([jnp.ones(len(first)), -jnp.ones(len(second))])
    # Columns: the labels found, then permuted ones.
    permuted = jax.vmap(lambda k: jax.random.permutation(k, labels))(jax.random.split(key_labels, num_permutations))
    found = _accuracies(phi, jnp.concatenate([labels[None], permuted]).T)
    return against_null("C2ST accuracy", found[0], found[1:])


@jax.jit
def _accuracies(phi: Float[Array, "n p"], labels: Float[Array, "n k"]) -> Float[Array, " k"]:
    weight = jnp.where(labels > 0, 1 / jnp.sum(labels > 0, axis=0), 1 / jnp.sum(labels < 0, axis=0))
    coefficients = ridge(phi)
    leverage = jnp.sum(phi * coefficients.T, axis=1)[:, None]
    balanced = labels * weight * len(labels) / 2
    left_out = (phi @ (coefficients @ balanced) - leverage * balanced) / (1 - leverage)
    return jnp.sum((left_out * labels > 0) * weight, axis=0) / 2
