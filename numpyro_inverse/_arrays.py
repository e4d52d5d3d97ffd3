"""Arrays that NumPy has made, for JAX."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array


def as_jax(values: np.ndarray, dtype: Any = None) -> Array:
    """An array of NumPy as one of JAX's; nobody may change it afterwards, for no copy is made where none is needed.

    ``jnp.asarray`` compiles a program for every shape, which makes dozens of them for a mesh.
    """
    return jax.device_put(np.asarray(values, dtype))
