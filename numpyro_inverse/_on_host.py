"""``jax.pure_callback`` in the precision of the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def on_host(function: Callable[..., Any], outs: Any, *args: Array, vmap_method: str | None = None) -> Any:
    """Call a function of NumPy arrays, as :func:`jax.pure_callback` does.

    JAX calls from threads of its own, in which ``with jax.enable_x64(True)`` of the caller's thread is not in force,
    and halves the precision of numbers of 8 bytes there. So these travel as pairs of integers of 4.

    Args:
        function: from arrays to arrays like ``outs``, of any real dtype.
        outs: pytree of ``jax.ShapeDtypeStruct``.
        args: arrays.
        vmap_method: as of :func:`jax.pure_callback`.
    """
    wide = [a.dtype if a.dtype.itemsize == 8 else None for a in args]
    dtypes = jax.tree.map(lambda out: out.dtype, outs)

    def call(*arrays: Any) -> Any:
        values = [
            np.asarray(a) if dtype is None else np.ascontiguousarray(a).view(dtype)[..., 0]
            for a, dtype in zip(arrays, wide, strict=True)
        ]
        with np.errstate(over="ignore"):  # too large for single precision: infinite, which samplers reject
            return jax.tree.map(lambda dtype, value: _packed(np.asarray(value, dtype)), dtypes, function(*values))

    sent = [a if w is None else jax.lax.bitcast_convert_type(a, jnp.uint32) for a, w in zip(args, wide, strict=True)]
    back = jax.pure_callback(call, jax.tree.map(_wanted, outs), *sent, vmap_method=vmap_method)
    return jax.tree.map(
        lambda dtype, v: jax.lax.bitcast_convert_type(v, dtype) if dtype.itemsize == 8 else v, dtypes, back
    )


def _wanted(out: Any) -> Any:
    return jax.ShapeDtypeStruct((*out.shape, 2), jnp.uint32) if out.dtype.itemsize == 8 else out


def _packed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[..., None]).view(np.uint32) if array.dtype.itemsize == 8 else array
