"""Arrays that are part of a trial space and no parameters of it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Constant:
    """An array compared and hashed by its content: no leaf of a pytree, so that nothing trains or samples it."""

    __slots__ = ("_key", "value")

    def __init__(self, value: Any):
        self.value = np.array(value)
        self.value.setflags(write=False)
        self._key = (self.value.shape, self.value.dtype.str, self.value.tobytes())

    def like(self, x: Array) -> Array:
        """The array in the precision of another."""
        return jnp.asarray(self.value, x.dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
