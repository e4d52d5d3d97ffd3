"""Parallel-beam tomography: strip integrals of a pixel image."""

from math import ceil, hypot

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_positive_number
from numpyro_inverse.operators._inputs import RegularGrid, check_grid, finite_real
from numpyro_inverse.operators._linear_operator import LinearOperator

NARROWEST = 0.01  # bin, in pixels


class Radon(LinearOperator):
    r"""Parallel-beam Radon transform of an image that is constant on its pixels, averaged over detector bins:

    .. math:: (A x)_{a b} = \frac{1}{w} \int_{s_b - w/2}^{s_b + w/2} \int_{\mathbb{R}}
        x\bigl(s \, n_a + t \, n_a^\perp\bigr) \, dt \, ds, \qquad n_a = (\cos\theta_a, \sin\theta_a),

    with the origin at the center of the image, :math:`s_b = (b - (B - 1)/2) w`, and the first coordinate along
    axis 0: at :math:`\theta = 0` the result sums over axis 1. Values are line integrals, in image units times length
    units; the sum over bins times :math:`w` is the integral of the image at every angle, if the detector holds it.

    The integral is exact: a pixel's shadow is a trapezoid (a box of width :math:`h_0 |\cos\theta|` convolved with
    one of width :math:`h_1 |\sin\theta|`), and each bin receives the part of its area that falls there (Long,
    Fessler and Balter, IEEE Trans. Med. Imaging 29, 2010, for parallel beams). No weight is stored: they are found
    again for every angle, in time proportional to pixels times angles and memory of one image.

    Args:
        grid: where the image lives, two axes; :math:`h` is its spacing. The rotation is about its center; its boundary
            does not matter.
        angles: :math:`\theta`, in radians, any number and order. May be traced.
        num_bins: number :math:`B` of detector bins; by default enough to hold the image at every angle. What falls
            beside the detector is not measured.
        bin_width: :math:`w`, in the grid's length units; by default the smaller side of a pixel.

    Raises:
        TypeError: ``grid`` is no grid, or an argument no real number.
        ValueError: ``grid`` has not two axes, ``angles`` is empty, not a vector or not finite, or a bin is not positive
            or narrower than a hundredth of a pixel.
    """

    angles: Float[Array, " angles"]
    in_shape: tuple[int, ...] = eqx.field(static=True)
    num_bins: int = eqx.field(static=True)
    pixel_size: tuple[float, float] = eqx.field(static=True)
    bin_width: float = eqx.field(static=True)

    def __init__(
        self,
        grid: RegularGrid,
        angles: Float[Array, " angles"],
        *,
        num_bins: int | None = None,
        bin_width: float | None = None,
    ):
        self.in_shape = check_grid("Radon", grid).shape
        if len(self.in_shape) != 2:
            raise ValueError(f"Radon: `grid` must have two axes; got shape {self.in_shape}.")
        self.angles = finite_real("Radon", "angles", angles)
        if self.angles.ndim != 1 or self.angles.size == 0:
            raise ValueError(f"Radon: `angles` must be a vector of at least one angle; got shape {self.angles.shape}.")
        h0, h1 = grid.spacing
        self.pixel_size = (h0, h1)
        self.bin_width = check_positive_number("Radon", "bin_width", min(h0, h1) if bin_width is None else bin_width)
        if self.bin_width < NARROWEST * max(h0, h1):
            raise ValueError(
                f"Radon: `bin_width` {self.bin_width} is less than {NARROWEST} of a pixel of sides {self.pixel_size}."
            )
        if num_bins is None:
            diagonal = hypot(*(n * h for n, h in zip(self.in_shape, self.pixel_size, strict=True)))
            num_bins = ceil(diagonal / self.bin_width * (1 - 1e-12))
        self.num_bins = check_count("Radon", "num_bins", num_bins)

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.angles.size, self.num_bins)

    @property
    def bins(self) -> np.ndarray:
        """Bin centers on the detector, in length units; 0 is the projection of the image's center."""
        return (np.arange(self.num_bins) - (self.num_bins - 1) / 2) * self.bin_width

    def mv(self, x):
        dtype = jnp.finfo(x.dtype).dtype
        (n0, n1), (h0, h1), w = self.in_shape, self.pixel_size, self.bin_width
        x0 = jnp.asarray((np.arange(n0) - (n0 - 1) / 2) * h0 / w, dtype)[:, None]
        x1 = jnp.asarray((np.arange(n1) - (n1 - 1) / 2) * h1 / w, dtype)
        touched = ceil(hypot(h0, h1) / w) + 1

        @jax.checkpoint  # the adjoint finds the weights again rather than keep an image of them for each angle
        def project(angle):
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            narrow, wide = jnp.sort(jnp.abs(jnp.stack([h0 / w * cos, h1 / w * sin])))
            center = x0 * cos + x1 * sin + self.num_bins / 2  # in bins from the detector's end
            first = jnp.floor(center - (narrow + wide) / 2)
            # One value of `first` for the weights and for the indices: recomputed within two fused loops it may be
            # rounded to either side of an integer, and a pixel's shadow would land a whole bin away from its weights.
            center, first = jax.lax.optimization_barrier((center, first))
            shares = [_shadow_before(first + k - center, narrow, wide) for k in range(1, touched)]
            start = jnp.clip(first.astype(int) + touched, 0, self.num_bins + touched)
            projection = jnp.zeros(self.num_bins + 2 * touched, x.dtype)  # the ends catch what misses the detector
            for k, (before, until) in enumerate(zip([0.0, *shares], [*shares, 1.0], strict=True)):
                projection = projection.at[start + k].add((until - before) * x, mode="promise_in_bounds")
            projection = projection[touched:-touched]
            return h0 * h1 / w * projection

        return jax.lax.map(project, self.angles.astype(dtype))

    def norm_bound(self):
        r"""The Schur bound :math:`(\max A 1 \, \max A^{\mathsf T} 1)^{1/2}`, as all weights are non-negative."""
        dtype = self.angles.dtype
        rows, columns = self.mv(jnp.ones(self.in_shape, dtype)), self.T.mv(jnp.ones(self.out_shape, dtype))
        margin = 1 + sum(self.in_shape) * jnp.finfo(dtype).eps
        return margin * jnp.sqrt(jnp.max(rows) * jnp.max(columns))


def _shadow_before(t: Array, narrow: Array, wide: Array) -> Array:
    """The share of a unit pixel's trapezoidal shadow, centered at 0, that lies below ``t``."""
    distance = jnp.abs(t)
    on_ramp = jnp.clip((narrow + wide) / 2 - distance, 0, narrow)
    on_plateau = jnp.maximum((wide - narrow) / 2 - distance, 0)
    beyond = on_ramp**2 / (2 * wide * jnp.maximum(narrow, jnp.finfo(t.dtype).tiny)) + on_plateau / wide
    return jnp.where(t >= 0, 1 - beyond, beyond)
