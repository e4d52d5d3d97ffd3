"""Checks at the door and precision rules shared by the operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from numpyro_inverse._checks import check_finite, check_numeric, check_static, describe, is_traced, show


@runtime_checkable
class RegularGrid(Protocol):
    """What an operator needs of a grid (``domains.Grid``)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""

    @property
    def spacing(self) -> tuple[float, ...]:
        """Side lengths of a cell, in length units."""

    @property
    def boundary(self) -> tuple[str, ...]:
        """What lies beyond each axis' ends."""


def check_grid(owner: str, grid: Any) -> RegularGrid:
    """A grid, or a TypeError that says how to have one."""
    if isinstance(grid, type) or not isinstance(grid, RegularGrid):
        raise TypeError(
            f"{owner}: `grid` must be a `domains.Grid`; got {describe(grid)}. An array without lengths is on "
            "`Grid(shape, extent=shape)`, whose cells have sides of 1."
        )
    return grid


def grid_shape(owner: str, shape: Any, *, name: str = "shape", any_ndim: bool = False) -> tuple[int, ...]:
    """``shape`` as a tuple of positive integers, or an error."""
    check_static(owner, name, shape)
    number = "one or more" if any_ndim else "one to three"
    wrong = f"{owner}: `{name}` must be {number} positive integers; got"
    if shape is None or isinstance(shape, str | dict):
        raise TypeError(f"{wrong} {describe(shape)}.")
    sizes = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    if any(not isinstance(n, int | float | np.integer | np.floating) or isinstance(n, bool) for n in sizes):
        raise TypeError(f"{wrong} {show(shape)}.")
    allowed = len(sizes) >= 1 if any_ndim else 1 <= len(sizes) <= 3
    if not allowed or any(not np.isfinite(n) or int(n) != n or n < 1 for n in sizes):
        raise ValueError(f"{wrong} {show(shape)}.")
    return tuple(int(n) for n in sizes)


def per_axis(owner: str, name: str, value: Any, ndim: int) -> tuple[Any, ...]:
    """``value`` for each axis: one for all, or one each."""
    if not isinstance(value, list | tuple) and (np.ndim(value) == 0 or not hasattr(value, "__len__")):
        return (value,) * ndim
    if len(value) != ndim:
        raise ValueError(f"{owner}: `{name}` must be one value or one per axis ({ndim}); got {show(value)}.")
    return tuple(value)


def finite_real(owner: str, name: str, value: Any) -> Array:
    """``value`` as a floating-point array; an error if it is complex, not numeric or not finite."""
    return jnp.asarray(check_finite(owner, name, value), jnp.result_type(float))


def finite_numbers(owner: str, name: str, value: Any) -> Any:
    """Real or complex numbers, as floating-point ones; an error if not numeric or not finite."""
    array = check_numeric(owner, name, value)
    if not is_traced(array):
        found = np.asarray(array)
        if found.dtype.kind in "iu":
            return found.astype(float)
        if not np.all(np.isfinite(found)):
            bad = int(np.sum(~np.isfinite(found)))
            raise ValueError(
                f"{owner}: `{name}` must be finite; {bad} of its {found.size} entries are NaN or infinite."
            )
    return array


def boolean_mask(owner: str, mask: Any) -> np.ndarray:
    """``mask`` as a NumPy boolean array that keeps at least one entry."""
    if is_traced(mask):
        raise ValueError(f"{owner}: `mask` decides the shape of the data, so it must be known outside `jit`.")
    try:
        mask = np.asarray(mask)
    except ValueError:  # ragged
        raise ValueError(f"{owner}: `mask` must be a boolean array; got {describe(mask)}.") from None
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
