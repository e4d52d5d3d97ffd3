"""What lies beyond the edge of an array: the boundary conditions of a convolution."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from numpyro_inverse._checks import check_choice
from numpyro_inverse.operators._inputs import per_axis

PAD_MODES = {"periodic": "wrap", "neumann": "symmetric", "dirichlet": "symmetric", "zero": "constant"}
MIRRORED = ("neumann", "dirichlet")


def check_boundary(owner: str, boundary: str | Sequence[str], ndim: int) -> tuple[str, ...]:
    """One boundary for each axis, each one that exists."""
    each = per_axis(owner, "boundary", boundary, ndim)
    return tuple(check_choice(owner, "boundary", name, tuple(PAD_MODES)) for name in each)


def source(boundary: str, i: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell in ``0..n-1`` that position ``i`` (any integer) shows, and with which sign; 0 where it shows none."""
    if boundary == "periodic":
        return i % n, np.ones_like(i)
    if boundary == "zero":
        return np.clip(i, 0, n - 1), ((i >= 0) & (i < n)).astype(i.dtype)
    odd = (i // n) % 2
    i = i % (2 * n)
    return np.where(i < n, i, 2 * n - 1 - i), 1 - 2 * odd if boundary == "dirichlet" else np.ones_like(i)


def continued(
    x: Inexact[Array, "..."], padding: Sequence[tuple[int, int]], boundaries: Sequence[str]
) -> Inexact[Array, "..."]:
    """``x`` with cells before and after along each axis, as its boundaries say."""
    for axis, ((before, after), boundary) in enumerate(zip(padding, boundaries, strict=True)):
        n = x.shape[axis]
        x = jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)], mode=PAD_MODES[boundary])
        if boundary == "dirichlet" and before + after:
            signs = source(boundary, np.arange(-before, n + after), n)[1]
            x = x * jnp.asarray(signs, x.real.dtype)[(..., *(None,) * (x.ndim - 1 - axis))]
    return x
