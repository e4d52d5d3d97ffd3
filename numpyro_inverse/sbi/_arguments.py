"""What a simulator is given, as one vector that a network sees."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

WIDE = 10.0  # largest over smallest number from which positive ones are seen as logarithms


class Features(eqx.Module):
    """Arrays one after the other, numbers that are positive and spread over more than a factor of ten as logarithms.

    A network is a smooth function of these, and so of the arguments. Below the smallest number that training saw a
    logarithm is continued by its tangent, so that what is zero or negative gives no NaN.

    Args:
        rows: arrays with rows first, as training has them.
    """

    logarithmic: Bool[Array, " n"]
    smallest: Float[Array, " n"]
    size: int = eqx.field(static=True)

    def __init__(self, rows: Sequence[np.ndarray]):
        flat = np.concatenate([np.asarray(row, float).reshape(len(row), -1) for row in rows], axis=1)
        low, high = flat.min(axis=0), flat.max(axis=0)
        wide = (low > 0) & (high > WIDE * np.where(low > 0, low, 1))
        self.logarithmic = jnp.asarray(wide)
        self.smallest = jnp.asarray(np.where(wide, low, 1.0), jnp.result_type(float))
        self.size = flat.shape[1]

    def __call__(self, *args: Array) -> Float[Array, " n"]:
        """Of one set of arguments."""
        x = jnp.concatenate([jnp.ravel(jnp.asarray(arg, self.smallest.dtype)) for arg in args])
        below = x < self.smallest
        inner = jnp.where(self.logarithmic & ~below, x, self.smallest)
        logarithm = jnp.log(inner) + jnp.where(below, (x - self.smallest) / self.smallest, 0)
        return jnp.where(self.logarithmic, logarithm, x)
