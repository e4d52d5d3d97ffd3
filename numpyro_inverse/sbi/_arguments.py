"""What a network sees of arguments or data: one vector."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

WIDE = 10.0  # largest over smallest number from which positive ones are seen as logarithms


class Features(eqx.Module):
    """Arrays one after the other, numbers that are positive and spread over more than a factor of ten as logarithms.

    A network is a smooth function of these, and so of the arguments. Below the smallest number that training saw a
    logarithm is continued by its tangent, so that what is zero or negative gives no NaN.

    Attributes:
        logarithmic: which numbers are seen so.
        smallest: of each; 1 for the others.
    """

    logarithmic: Bool[Array, " n"]
    smallest: Float[Array, " n"]

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> Self:
        """Features of arrays such as these, rows first."""
        flat = np.concatenate([np.asarray(row, float).reshape(len(row), -1) for row in rows], axis=1)
        low, high = flat.min(axis=0), flat.max(axis=0)
        wide = (low > 0) & (high > WIDE * low)
        return cls(jnp.asarray(wide), jnp.asarray(np.where(wide, low, 1.0), jnp.result_type(float)))

    @classmethod
    def empty(cls, shapes: Sequence[tuple[int, ...]]) -> Self:
        """Features of arrays of these shapes, all as they are."""
        size = sum(map(prod, shapes))
        return cls(jnp.zeros(size, bool), jnp.ones(size))

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return len(self.smallest)

    def __call__(self, *args: Array) -> Float[Array, " n"]:
        """Of one set of arguments."""
        x = jnp.concatenate([jnp.ravel(jnp.asarray(arg, self.smallest.dtype)) for arg in args])
        below = x < self.smallest
        inner = jnp.where(self.logarithmic & ~below, x, self.smallest)
        logarithm = jnp.log(inner) + jnp.where(below, (x - self.smallest) / self.smallest, 0)
        return jnp.where(self.logarithmic, logarithm, x)
