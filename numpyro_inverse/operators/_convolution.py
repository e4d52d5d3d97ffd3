"""Convolution with an arbitrary kernel, by FFT."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float
from scipy.fft import next_fast_len

from numpyro_inverse.operators._boundary import MIRRORED, check_boundary, continued
from numpyro_inverse.operators._inputs import RegularGrid, acts_on_real, finite_real, grid_shape, in_precision_of
from numpyro_inverse.operators._linear_operator import LinearOperator
from numpyro_inverse.operators._separable_convolution import SeparableConvolution


class Convolution(LinearOperator):
    r"""Convolution of an array of one to three axes with a kernel whose center is at index ``size // 2``:

    .. math:: (A x)_i = \sum_j k_j \, \bar x_{i - (j - c)}, \qquad c = \lfloor \mathrm{size} / 2 \rfloor,

    where :math:`\bar x` continues :math:`x` beyond its edge as ``boundary`` says. The kernel may be asymmetric, of
    even size, or larger than the array. It is an array of weights and acts in cells: for a kernel that samples a
    function of length, multiply by the cell volume. Cost: two FFTs of the array padded by the kernel. For a Gaussian,
    whose width is a length, see :meth:`gaussian`.

    Args:
        kernel: real, with as many axes as ``shape``. May be traced (a kernel that is itself inferred).
        shape: the shape of the array acted on.
        boundary: what lies beyond the edge, one for all axes or one each. ``"periodic"``: the other side.
            ``"neumann"``: the mirror image at the cell's outer face, so the edge cell is repeated and the normal
            derivative zero. ``"dirichlet"``: the mirror image with the opposite sign, so the value at the face is zero.
            These mean what they mean for a ``Grid``. ``"zero"``, which no grid has: zeros. In :mod:`scipy.ndimage` they
            are ``"grid-wrap"``, ``"reflect"``, none and ``"constant"``.

    Raises:
        TypeError: ``kernel`` or ``shape`` are no real numbers.
        ValueError: ``kernel`` is empty, not finite, or has another number of axes than ``shape``; ``boundary`` does
            not exist.
    """

    kernel: Float[Array, "*kernel_shape"]
    transfer: Complex[Array, "*half_spectrum"]
    in_shape: tuple[int, ...] = eqx.field(static=True)
    boundary: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        kernel: Float[Array, "*kernel_shape"],
        shape: int | Sequence[int],
        boundary: str | Sequence[str] = "periodic",
    ):
        self.in_shape = grid_shape("Convolution", shape)
        self.boundary = check_boundary("Convolution", boundary, len(self.in_shape))
        self.kernel = finite_real("Convolution", "kernel", kernel)
        if self.kernel.ndim != len(self.in_shape) or self.kernel.size == 0:
            raise ValueError(
                f"Convolution: `kernel` must have the {len(self.in_shape)} axes of `shape` {self.in_shape} and not be "
                f"empty; got shape {self.kernel.shape}."
            )
        self.transfer = _transfer(self.kernel, self._fft_shape)

    @staticmethod
    def gaussian(
        grid: RegularGrid,
        width: Any,
        *,
        boundary: str | Sequence[str] | None = None,
        radius: float | Sequence[float] | None = None,
    ) -> SeparableConvolution:
        r"""A Gaussian blur, :math:`k_j \propto \exp(-(j h)^2 / 2 w^2)` along each axis, of sum 1.

        Args:
            grid: where the field lives; :math:`h` is its spacing.
            width: standard deviation :math:`w` in the grid's length units; one for all axes or one each. 0 leaves an
                axis alone.
            boundary: as for :class:`Convolution`; default: the grid's own.
            radius: where the kernel is cut off, in length units; default :math:`5 w`, which drops less than 1e-6 of its
                mass. Needed where ``width`` is traced, as in a model that infers it.

        Raises:
            TypeError: ``grid`` is no grid, or ``width`` or ``radius`` no real numbers.
            ValueError: a ``width`` that is negative, not finite or 100 times the domain, or traced without ``radius``.
        """
        return SeparableConvolution.gaussian(grid, width, boundary=boundary, radius=radius)

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.in_shape

    @property
    def _padding(self) -> tuple[tuple[int, int], ...]:
        """Cells needed before and after the array along each axis: none on a torus."""
        return tuple(
            (0, 0) if b == "periodic" else ((m - 1) - m // 2, m // 2)
            for m, b in zip(self.kernel.shape, self.boundary, strict=True)
        )

    @property
    def _fft_shape(self) -> tuple[int, ...]:
        return tuple(
            n if b == "periodic" else next_fast_len(n + before + after, real=True)
            for n, b, (before, after) in zip(self.in_shape, self.boundary, self._padding, strict=True)
        )

    @acts_on_real
    def mv(self, x):
        return self._apply(self.transfer, x)

    def _apply(self, transfer, x):
        padding = self._padding
        x = continued(x, padding, self.boundary)
        axes = tuple(range(x.ndim))
        y = jnp.fft.irfftn(
            jnp.fft.rfftn(x, self._fft_shape, axes) * in_precision_of(x, transfer), self._fft_shape, axes
        )
        return y[tuple(slice(b, b + n) for n, (b, _) in zip(self.in_shape, padding, strict=True))]

    def norm_bound(self):
        r"""On a torus the norm itself, :math:`\max |\hat k|`; with other boundaries a bound.

        ``"zero"``: the operator is a corner of a periodic one on the padded array, so that one's norm bounds it.
        ``"neumann"`` and ``"dirichlet"``: the smaller of the periodic norm on the mirrored array, twice as long, times
        :math:`\sqrt 2` for each such axis, and of the Schur test
        :math:`\|A\|^2 \le \max_i \sum_j |A_{ij}| \max_j \sum_i |A_{ij}|`, which is sharp for non-negative symmetric
        kernels. (The sum of :math:`|k|` alone is not a bound for an asymmetric kernel: a shift can show a cell twice.)
        All carry a margin for the rounding of the FFT.
        """
        margin = 1 + 8 * jnp.finfo(self.kernel.dtype).eps * (1 + jnp.log2(self.transfer.size))
        mirrors = sum(b in MIRRORED for b in self.boundary)
        if not mirrors:
            return margin * jnp.max(jnp.abs(self.transfer))
        torus = tuple(
            2 * n if b in MIRRORED else fft
            for n, b, fft in zip(self.in_shape, self.boundary, self._fft_shape, strict=True)
        )
        mirrored = jnp.max(jnp.abs(_transfer(self.kernel, torus)))
        even = tuple("neumann" if b == "dirichlet" else b for b in self.boundary)  # its weights, without their signs
        magnitude = Convolution(jnp.abs(self.kernel), self.in_shape, even)
        columns = magnitude.T(jnp.ones(self.in_shape, self.kernel.dtype))
        schur = jnp.sqrt(jnp.sum(magnitude.kernel) * jnp.max(columns))
        return margin * jnp.minimum(2 ** (mirrors / 2) * mirrored, schur)


def _transfer(kernel: Array, shape: tuple[int, ...]) -> Array:
    """The transform of the kernel laid on a torus of ``shape``, its center at the origin, its overhang wrapped."""
    for axis, (m, n) in enumerate(zip(kernel.shape, shape, strict=True)):
        wraps = -(-m // n)
        padded = jnp.pad(kernel, [(0, wraps * n - m if a == axis else 0) for a in range(kernel.ndim)])
        folded = padded.reshape((*kernel.shape[:axis], wraps, n, *kernel.shape[axis + 1 :])).sum(axis)
        kernel = jnp.roll(folded, -(m // 2), axis)
    return jnp.fft.rfftn(kernel)
