"""Convolution with a product kernel, one matrix product per axis."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._arrays import as_jax
from numpyro_inverse._checks import check_nonnegative_number, check_real, describe, is_traced, show
from numpyro_inverse.operators._boundary import check_boundary, source
from numpyro_inverse.operators._inputs import RegularGrid, check_grid, finite_real, grid_shape, per_axis
from numpyro_inverse.operators._kronecker import Kronecker

REACH = 5  # where a Gaussian is cut off, in standard deviations
WIDEST = 100  # of a Gaussian, in lengths of the domain


class SeparableConvolution(Kronecker):
    r"""Convolution with :math:`k^{(1)} \otimes \dots \otimes k^{(d)}`: one kernel per axis, :math:`A_1 \otimes \dots`.

    Same meaning as :class:`~numpyro_inverse.operators.Convolution` with the outer product of the kernels. Each axis
    is a dense ``n x n`` matrix with the boundary folded in, so kernels of any length are exact and both directions
    are plain matrix products. Cost :math:`O(N \sum_i n_i)`: on CPU faster than the FFT up to axes of about 256
    cells, slower from 512 on, where the ``Convolution`` with the outer product serves better (measured in
    ``docs/operators.md``, with the alternatives).

    Args:
        kernels: one real vector per axis, center at index ``size // 2``. May be traced.
        shape: the shape of the array acted on.
        boundary: ``"periodic"``, ``"neumann"``, ``"dirichlet"`` or ``"zero"``, as for ``Convolution``; one for all axes
            or one each.

    Raises:
        TypeError: a kernel that is not of real numbers.
        ValueError: a kernel that is empty, not a vector or not finite; a number of kernels other than that of axes; an
            unknown ``boundary``.
    """

    def __init__(
        self,
        kernels: Sequence[Float[Array, " m"]],
        shape: int | Sequence[int],
        boundary: str | Sequence[str] = "periodic",
    ):
        shape = grid_shape("SeparableConvolution", shape)
        boundaries = check_boundary("SeparableConvolution", boundary, len(shape))
        if isinstance(kernels, str) or not hasattr(kernels, "__iter__"):
            raise TypeError(f"SeparableConvolution: `kernels` must be a list of vectors; got {describe(kernels)}.")
        kernels = [finite_real("SeparableConvolution", "kernels", k) for k in kernels]
        if len(kernels) != len(shape) or any(k.ndim != 1 or k.size == 0 for k in kernels):
            raise ValueError(
                f"SeparableConvolution: `kernels` must be {len(shape)} non-empty vectors, one per axis of `shape` "
                f"{shape}; got shapes {[k.shape for k in kernels]}."
            )
        kernels = [k if is_traced(k) else np.asarray(k) for k in kernels]  # NumPy's need no compilation
        factors = [_toeplitz(k, n, b) for k, n, b in zip(kernels, shape, boundaries, strict=True)]
        self.factors = tuple(f if is_traced(f) else as_jax(f) for f in factors)

    @classmethod
    def gaussian(
        cls,
        grid: RegularGrid,
        width: Any,
        *,
        boundary: str | Sequence[str] | None = None,
        radius: float | Sequence[float] | None = None,
    ) -> "SeparableConvolution":
        """A Gaussian blur; see :meth:`numpyro_inverse.operators.Convolution.gaussian`."""
        here = "Convolution.gaussian"
        shape = check_grid(here, grid).shape
        widths = per_axis(here, "width", width, len(shape))
        if radius is None and is_traced(*widths):
            raise ValueError(f"{here}: `width` is traced; say where the kernel ends with `radius=`.")
        widths = tuple(check_real(here, "width", w) if is_traced(w) else _length(here, "width", w) for w in widths)
        radii = [REACH * w for w in widths] if radius is None else per_axis(here, "radius", radius, len(shape))
        kernels = []
        for w, r, n, h in zip(widths, radii, shape, grid.spacing, strict=True):
            cells = _length(here, "radius", r) / h
            if cells > REACH * WIDEST * n:
                raise ValueError(
                    f"{here}: `width` {show(width)} is over {WIDEST} times an axis of {n} cells of {h}, or `radius` "
                    f"over {REACH * WIDEST} times; nothing but a mean would be left."
                )
            kernels.append(_gaussian(w / h, int(np.ceil(cells - 1e-9))))
        return cls(kernels, shape, grid.boundary if boundary is None else boundary)


def _length(where: str, argument: str, value: Any) -> float:
    return check_nonnegative_number(where, argument, value)


def _gaussian(cells: Any, radius: int) -> Any:
    if radius == 0:
        return np.ones(1)
    xp = jnp if is_traced(cells) else np
    if is_traced(cells):
        cells = jnp.where(cells >= 0, cells, jnp.nan)
    j = np.arange(-radius, radius + 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a width of 0: one weight
        weights = xp.where(j == 0, 1.0, xp.exp(-0.5 * (j / cells) ** 2))
    return weights / xp.sum(weights)


def _toeplitz(kernel: Any, n: int, boundary: str) -> Any:
    """Row ``i`` holds the weights of ``sum_j kernel[j] x[i - (j - size // 2)]``, positions folded into ``0..n-1``."""
    kernel = _folded(kernel, n, boundary)
    i, j = np.mgrid[:n, : kernel.size]
    column, sign = source(boundary, i - j + kernel.size // 2, n)
    return _added((n, n), (i, column), kernel * np.asarray(sign, kernel.dtype))


def _added(shape: tuple[int, ...], places: Any, values: Any) -> Any:
    """An array of sums of the values at their places."""
    if not isinstance(values, np.ndarray):
        return jnp.zeros(shape, values.dtype).at[places].add(values)
    total = np.zeros(shape, values.dtype)
    np.add.at(total, places, values)
    return total


def _folded(kernel: Any, n: int, boundary: str) -> Any:
    """A kernel longer than two arrays, in the 2 n offsets that differ: the continued array has that period, or ends."""
    period = 2 * n
    if kernel.size <= period:
        return kernel
    middle = kernel.size // 2
    if boundary == "zero":
        return kernel[middle - n : middle + n]
    offset = (np.arange(kernel.size) - middle + n) % period
    return _added((period,), offset, kernel)
