"""Convolution with a product kernel, one matrix product per axis."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse.operators._boundary import check_boundary, source
from numpyro_inverse.operators._inputs import finite_real, grid_shape, is_traced, per_axis
from numpyro_inverse.operators._kronecker import Kronecker


class SeparableConvolution(Kronecker):
    r"""Convolution with :math:`k^{(1)} \otimes \dots \otimes k^{(d)}`: one kernel per axis, :math:`A_1 \otimes \dots`.

    Same meaning as :class:`~numpyro_inverse.operators.Convolution` with the outer product of the kernels. Each axis
    is a dense ``n x n`` matrix with the boundary folded in, so kernels of any length are exact and both directions
    are plain matrix products. Cost :math:`O(N \sum_i n_i)`: on CPU faster than the FFT up to axes of about 256
    cells, slower from 512 on, where the ``Convolution`` with the outer product serves better (measured in
    ``docs/operators.md``, with the alternatives).

    Args:
        kernels: one real vector per axis, centre at index ``size // 2``. May be traced.
        shape: the shape of the array acted on.
        boundary: ``"circular"``, ``"reflect"`` or ``"zero"``, as for ``Convolution``.

    Raises:
        ValueError: a kernel that is empty, not a vector, complex or not finite; a number of kernels other than that
            of axes; an unknown ``boundary``.
    """

    def __init__(self, kernels: Sequence[Float[Array, " m"]], shape: int | Sequence[int], boundary: str = "circular"):
        shape = grid_shape("SeparableConvolution", shape)
        check_boundary("SeparableConvolution", boundary)
        kernels = [finite_real("SeparableConvolution", "kernels", k) for k in kernels]
        if len(kernels) != len(shape) or any(k.ndim != 1 or k.size == 0 for k in kernels):
            raise ValueError(
                f"SeparableConvolution: `kernels` must be {len(shape)} non-empty vectors, one per axis of `shape` "
                f"{shape}; got shapes {[k.shape for k in kernels]}."
            )
        self.factors = tuple(_toeplitz(k, n, boundary) for k, n in zip(kernels, shape, strict=True))

    @classmethod
    def gaussian(
        cls,
        width: Any,
        shape: int | Sequence[int],
        boundary: str = "circular",
        radius: int | Sequence[int] | None = None,
    ) -> "SeparableConvolution":
        """A Gaussian blur; see :meth:`numpyro_inverse.operators.Convolution.gaussian`."""
        shape = grid_shape("Convolution.gaussian", shape)
        widths = per_axis("Convolution.gaussian", "width", width, len(shape))
        if radius is None:
            if is_traced(*widths):
                raise ValueError("Convolution.gaussian: `width` is traced; say where the kernel ends with `radius=`.")
            if not all(np.isfinite(w) and w >= 0 for w in widths):
                raise ValueError(f"Convolution.gaussian: `width` must be finite and not negative; got {width}.")
            radius = [int(np.ceil(5 * w)) for w in widths]
        radii = per_axis("Convolution.gaussian", "radius", radius, len(shape))
        if any(int(r) != r or r < 0 for r in radii):
            raise ValueError(f"Convolution.gaussian: `radius` must be non-negative integers; got {radius}.")
        return cls([_gaussian(w, int(r)) for w, r in zip(widths, radii, strict=True)], shape, boundary)


def _gaussian(width: Any, radius: int) -> Array:
    if radius == 0:
        return jnp.ones(1)
    j = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (j / width) ** 2)
    return weights / jnp.sum(weights)


def _toeplitz(kernel: Array, n: int, boundary: str) -> Array:
    """Row ``i`` holds the weights of ``sum_j kernel[j] x[i - (j - size // 2)]``, positions folded into ``0..n-1``."""
    i, j = np.mgrid[:n, : kernel.size]
    column, shown = source(boundary, i - j + kernel.size // 2, n)
    return jnp.zeros((n, n), kernel.dtype).at[i, column].add(jnp.where(shown, kernel, 0))
