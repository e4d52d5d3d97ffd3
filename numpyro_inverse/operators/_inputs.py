"""Checks at the door and precision rules shared by the operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact


def grid_shape(owner: str, shape: Any, *, any_ndim: bool = False) -> tuple[int, ...]:
    """``shape`` as a tuple of positive integers, or a ValueError."""
    sizes = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    allowed = len(sizes) >= 1 if any_ndim else 1 <= len(sizes) <= 3
    if not allowed or any(isinstance(n, bool) or int(n) != n or n < 1 for n in sizes):
        number = "one or more" if any_ndim else "one to three"
        raise ValueError(f"{owner}: `shape` must be {number} positive integers; got {shape}.")
    return tuple(int(n) for n in sizes)


def per_axis(owner: str, name: str, value: Any, ndim: int) -> tuple[Any, ...]:
    """``value`` for each axis: one for all, or one each."""
    if np.ndim(value) == 0:
        return (value,) * ndim
    if len(value) != ndim:
        raise ValueError(f"{owner}: `{name}` must be one value or one per axis ({ndim}); got {value}.")
    return tuple(value)


def is_traced(*values: Any) -> bool:
    """Whether any value is known only inside ``jit``, ``grad`` or ``vmap``, so that it cannot be checked."""
    return any(isinstance(v, jax.core.Tracer) for v in values)


def finite_real(owner: str, name: str, value: Any) -> Array:
    """``value`` as a floating-point array; a ValueError if it is complex, not numeric or not finite."""
    array = value if is_traced(value) else np.asarray(value)
    if array.dtype.kind not in "biuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{owner}: `{name}` must be real numbers; got dtype {array.dtype}.")
    if not is_traced(array) and not np.all(np.isfinite(array)):
        bad = int(np.sum(~np.isfinite(array)))
        raise ValueError(f"{owner}: `{name}` must be finite; {bad} of its {array.size} entries are NaN or infinite.")
    return jnp.asarray(array, jnp.result_type(float))


def boolean_mask(owner: str, mask: Any) -> np.ndarray:
    """``mask`` as a NumPy boolean array that keeps at least one entry."""
    if is_traced(mask):
        raise ValueError(f"{owner}: `mask` decides the shape of the data, so it must be known outside `jit`.")
    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise ValueError(f"{owner}: `mask` must be boolean; got dtype {mask.dtype}. Pass e.g. `mask > 0`.")
    if mask.ndim == 0 or not mask.any():
        raise ValueError(f"{owner}: `mask` of shape {mask.shape} keeps no entry; nothing would be observed.")
    return mask


def in_precision_of(x: Array, array: Array) -> Array:
    """``array`` in the precision of ``x``, complex if either is: float32 in, float32 (or complex64) out."""
    dtype = jnp.finfo(x.dtype).dtype
    if jnp.iscomplexobj(x) or jnp.iscomplexobj(array):
        dtype = jnp.result_type(dtype, jnp.complex64)
    return array.astype(dtype)


def acts_on_real(mv: Callable[[Any, Inexact[Array, "..."]], Array]) -> Callable[[Any, Inexact[Array, "..."]], Array]:
    """Extend a real operator's ``mv`` to complex input: it acts on the real and the imaginary part."""

    @wraps(mv)
    def extended(self: Any, x: Array) -> Array:
        return jax.lax.complex(mv(self, x.real), mv(self, x.imag)) if jnp.iscomplexobj(x) else mv(self, x)

    return extended
