r"""A least-squares classifier whose permutation null costs one matrix product.

Features: the standardised numbers, their products two by two, and random Fourier features
:math:`\cos(\omega^T x + b)`. Ridge regression of labels :math:`\pm 1` is linear in the labels, so predictions, also
those that leave each point out, :math:`(Hy - \operatorname{diag}(H) y) / (1 - \operatorname{diag}(H))`, follow for any
number of relabellings from one hat matrix H.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

NUM_WAVES = 100
MAX_PRODUCTS = 300  # of pairs of numbers; beyond, squares only
RIDGE = 1e-2  # of the mean squared feature, times the number of points


def features_of(
    reference: Float[np.ndarray, "n d"], key: Array, waves: float = 1.0
) -> Callable[[Array], Float[Array, "... p"]]:
    """A feature map, scaled by ``reference``; ``waves`` is the weight of the random ones."""
    centre, spread = np.mean(reference, axis=0), np.std(reference, axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    d = reference.shape[1]
    rows, columns = np.triu_indices(d) if d * (d + 1) // 2 <= MAX_PRODUCTS else (np.arange(d), np.arange(d))
    key_frequency, key_phase = jax.random.split(key)
    frequency = jax.random.normal(key_frequency, (d, NUM_WAVES)) / np.sqrt(d)
    phase = jax.random.uniform(key_phase, (NUM_WAVES,), maxval=2 * np.pi)

    def features(x: Array) -> Array:
        z = (x - centre) / spread
        random = waves * jnp.cos(z @ frequency + phase)
        return jnp.concatenate([jnp.ones((*z.shape[:-1], 1)), z, z[..., rows] * z[..., columns], random], axis=-1)

    return features


def ridge(phi: Float[Array, "n p"]) -> Float[Array, "p n"]:
    """The matrix from labels to coefficients."""
    p = phi.shape[1]
    scale = RIDGE * jnp.sum(phi**2) / p
    return jnp.linalg.solve(phi.T @ phi + scale * jnp.eye(p), phi.T)
