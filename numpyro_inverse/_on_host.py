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
    and rounds double precision to single there. So doubles travel as pairs of integers.

    Args:
        function: from arrays to arrays like ``outs``, of any real dtype.
        outs: pytree of ``jax.ShapeDtypeStruct``.
        args: arrays.
        vmap_method: as of :func:`jax.pure_callback`.
    """
    double = [a.dtype == np.float64 for a in args]
    dtypes = jax.tree.map(lambda out: out.dtype, outs)

    def call(*arrays: Any) -> Any:
        values = [
            np.ascontiguousarray(a).view(np.float64)[..., 0] if d else np.asarray(a)
            for a, d in zip(arrays, double, strict=True)
        ]
        with np.errstate(over="ignore"):  # too large for single precision: infinite, which samplers reject
            return jax.tree.map(lambda dtype, value: _packed(np.asarray(value, dtype)), dtypes, function(*values))

    sent = [jax.lax.bitcast_convert_type(a, jnp.uint32) if d else a for a, d in zip(args, double, strict=True)]
    back = jax.pure_callback(call, jax.tree.map(_wanted, outs), *sent, vmap_method=vmap_method)
    return jax.tree.map(
        lambda dtype, v: jax.lax.bitcast_convert_type(v, dtype) if dtype == np.float64 else v, dtypes, back
    )


def _wanted(out: Any) -> Any:
    return jax.ShapeDtypeStruct((*out.shape, 2), jnp.uint32) if out.dtype == np.float64 else out


def _packed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[..., None]).view(np.uint32) if array.dtype == np.float64 else array
