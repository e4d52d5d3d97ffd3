"""Regular grids on intervals, rectangles and boxes: where a field lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import (
    check_choice,
    check_count,
    check_nonnegative_number,
    check_positive_number,
    check_real,
    check_static,
    check_trailing,
    describe,
    show,
)
from numpyro_inverse.domains import _transforms
from numpyro_inverse.domains._interpolation import MultilinearInterpolation, TrigonometricInterpolation
from numpyro_inverse.operators._inputs import grid_shape, per_axis
from numpyro_inverse.operators._kronecker import Kronecker
from numpyro_inverse.operators._linear_operator import as_numbers

NAMES = ("x", "y", "z")
LARGEST = 2**26  # cells of a torus that pads a smaller grid
WIDEST = 100  # padding, in lengths of the grid


@jax.tree_util.register_static
@dataclass(frozen=True, init=False)
class Grid:
    r"""A regular grid of cells on the box :math:`[0, L_1] \times \dots \times [0, L_d]`, in physical units.

    Values sit at cell centers :math:`x_i = (i + \tfrac12) h`, :math:`h = L / n`, under every boundary condition, so a
    field means the same whatever its boundary. The Laplacian's eigenfunctions there are orthonormal cosines
    (Neumann), sines (Dirichlet) or both (periodic); :meth:`transform` maps to their coefficients.

    A grid is a :class:`Domain`, static and hashable: it crosses ``jit`` as part of the program, not as data.

    Args:
        shape: numbers of cells, 1 to 3 axes.
        extent: side lengths in length units; one number for all axes or one each. Default: square cells, longest
            side 1.
        boundary: ``"neumann"`` (zero normal derivative), ``"dirichlet"`` (zero value) or ``"periodic"``; one for all
            axes or one each.

    Raises:
        TypeError: a size or an extent that is no number.
        ValueError: a size below 1, more than three axes, an extent that is not positive and finite, or a boundary
            that does not exist.
    """

    shape: tuple[int, ...]
    extent: tuple[float, ...]
    boundary: tuple[str, ...]

    def __init__(
        self,
        shape: int | Sequence[int],
        extent: float | Sequence[float] | None = None,
        boundary: str | Sequence[str] = "neumann",
    ):
        shape = grid_shape("Grid", shape)
        if extent is None:
            extent = tuple(n / max(shape) for n in shape)
        check_static("Grid", "extent", extent)
        lengths = per_axis("Grid", "extent", extent, len(shape))
        names = per_axis("Grid", "boundary", boundary, len(shape))
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "extent", tuple(check_positive_number("Grid", "extent", v) for v in lengths))
        object.__setattr__(
            self, "boundary", tuple(check_choice("Grid", "boundary", b, _transforms.BOUNDARIES) for b in names)
        )

    @classmethod
    def from_xarray(cls, array: Any, boundary: str | Sequence[str] = "neumann") -> Grid:
        """The grid whose cell centers are the coordinates of an ``xarray.DataArray``, one axis a dimension, in order.

        A grid begins at 0 and the coordinates may not: a place has ``place - first + spacing / 2`` on the grid. Give
        back what was found by ``array.copy(data=field)``, which has the coordinates again.

        Raises:
            TypeError: ``array`` has no dimensions with coordinates, or they are not numbers.
            ValueError: coordinates that do not rise in equal steps, to 1e-4 of a step, or are fewer than two.
        """
        where = "Grid.from_xarray"
        if not hasattr(array, "dims") or not hasattr(array, "coords"):
            raise TypeError(f"{where}: `array` must be an xarray.DataArray; got {describe(array)}.")
        extent = []
        for name in array.dims:
            if name not in array.coords:
                raise TypeError(f"{where}: dimension {name!r} has no coordinates; assign them, or make a Grid.")
            x = np.asarray(check_real(where, str(name), array.coords[name].to_numpy()), float)
            steps = np.diff(x)
            if len(x) < 2 or not np.all(np.abs(steps - steps.mean()) <= 1e-4 * steps.mean()):
                raise ValueError(
                    f"{where}: coordinates {name!r} must rise in equal steps; got {show(x)}. Turn them by "
                    f"`array.sortby({name!r})`, or interpolate from a Grid by `PointObservation`."
                )
            extent.append(float(steps.mean()) * len(x))
        return cls(array.shape, extent, boundary)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of cells."""
        return prod(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Cell widths, in length units."""
        return tuple(length / n for length, n in zip(self.extent, self.shape, strict=True))

    @property
    def cell_volume(self) -> float:
        """Volume of a cell, in length units to the power ``ndim``."""
        return prod(self.spacing)

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """Cell-center coordinates along each axis, in length units."""
        return tuple((np.arange(n) + 0.5) * h for n, h in zip(self.shape, self.spacing, strict=True))

    @property
    def coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """``x``, ``y``, ``z``: the cell centers along an axis of that name, in length units."""
        return {name: ((name,), values) for name, values in zip(NAMES, self.axes, strict=False)}

    @property
    def weights(self) -> Float[Array, "*shape"]:
        """Quadrature weights of the midpoint rule: the cell volume, everywhere."""
        return jnp.full(self.shape, self.cell_volume, jnp.result_type(float))

    @property
    def points(self) -> Float[Array, "*shape ndim"]:
        """Cell-center coordinates."""
        return jnp.asarray(np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1), jnp.result_type(float))

    @property
    def wavenumbers(self) -> tuple[np.ndarray, ...]:
        """Wavenumbers of the modes along each axis, in radians per length unit."""
        return tuple(
            np.pi * _transforms.mode_numbers(b, n) / length
            for b, n, length in zip(self.boundary, self.shape, self.extent, strict=True)
        )

    @property
    def eigenvalues(self) -> Float[Array, "*shape"]:
        """Eigenvalues of the negative Laplacian, one per mode: the sum of squared wavenumbers."""
        total = np.zeros(self.shape)
        for axis, k in enumerate(self.wavenumbers):
            total += np.expand_dims(k**2, tuple(a for a in range(self.ndim) if a != axis))
        return jnp.asarray(total, jnp.result_type(float))

    @property
    def difference_eigenvalues(self) -> Float[Array, "*shape"]:
        r"""Eigenvalues of the negative second-difference Laplacian, :math:`\sum_i (2/h_i)^2 \sin^2(k_i h_i / 2)`.

        The modes are the same as the continuum's; a first-order Gaussian Markov random field is
        ``SpectralField(grid, 1 / (precision * grid.difference_eigenvalues))``.
        """
        total = np.zeros(self.shape)
        for axis, (k, h) in enumerate(zip(self.wavenumbers, self.spacing, strict=True)):
            values = (2 / h * np.sin(k * h / 2)) ** 2
            total += np.expand_dims(values, tuple(a for a in range(self.ndim) if a != axis))
        return jnp.asarray(total, jnp.result_type(float))

    def transform(self, x: Float[Array, "*batch_and_shape"]) -> Float[Array, "*batch_and_shape"]:
        """Coefficients of a field in the orthonormal eigenbasis (trailing axes; leading ones are batch axes).

        Raises:
            TypeError: ``x`` is not an array of numbers.
            ValueError: its trailing axes are not ``shape``.
        """
        return self._along_axes("transform", x, _transforms.analysis)

    def inverse_transform(self, w: Float[Array, "*batch_and_shape"]) -> Float[Array, "*batch_and_shape"]:
        """The field with the given coefficients: inverse, and transpose, of :meth:`transform`."""
        return self._along_axes("inverse_transform", w, _transforms.synthesis)

    def _along_axes(self, name: str, x: Any, function: Callable[[Array, str, int], Array]) -> Array:
        x = as_numbers(f"Grid.{name}", x)
        if jnp.iscomplexobj(x):
            return jax.lax.complex(self._along_axes(name, x.real, function), self._along_axes(name, x.imag, function))
        check_trailing(f"Grid.{name}", "x", x, self.shape)
        for axis, boundary in enumerate(self.boundary):
            x = function(x, boundary, axis - self.ndim)
        return x

    def interpolation(self, points: Float[Array, "m ndim"]) -> TrigonometricInterpolation:
        """Evaluation of the field's own cosine, sine or Fourier series at scattered points: exact for its modes.

        A field whose coefficients are independent, such as a ``Matern``, keeps its variance between the cells. Cost:
        the number of points times that of cells.

        A field that is seen through a window (``padding``) has its modes on the torus ``grid.extended(padding)``, whose
        points are the grid's: ``torus.interpolation(points)`` of a field on the torus is exact. Of the windowed values
        this grid's own series is off near the edges, where it bends to the boundary condition (docs/fields.md).

        Raises:
            TypeError: ``points`` are no real numbers, or traced.
            ValueError: ``points`` is not of shape ``(m, ndim)``, or a point lies outside the domain.
        """
        t = self._inside(points) / np.asarray(self.extent)
        return TrigonometricInterpolation(
            [
                _transforms.cardinal(b, n, t[:, a])
                for a, (b, n) in enumerate(zip(self.boundary, self.shape, strict=True))
            ]
        )

    def multilinear_interpolation(self, points: Float[Array, "m ndim"]) -> MultilinearInterpolation:
        r"""Multilinear interpolation at scattered points: cheap, local, positive for positive fields, and too smooth.

        In the middle between two cells of correlation :math:`\rho(h)` the value's variance is
        :math:`(1 + \rho(h)) / 2` of the field's; in the middle of :math:`2^d` cells, of the mean of their correlations.
        At 12 cells a range and smoothness 1 that is a loss of 3 % in the middle in 1-D and of 5 % in 2-D, which a noise
        level that is inferred makes up for. :meth:`interpolation` loses nothing.

        Between the outermost cell centers and the boundary the field continues as its boundary condition says:
        constant (Neumann), linearly to zero (Dirichlet), or round the torus (periodic).

        Raises:
            TypeError, ValueError: as for :meth:`interpolation`.
        """
        return MultilinearInterpolation(self._inside(points), self.shape, self.spacing, self.boundary)

    def _inside(self, points: Any) -> np.ndarray:
        check_static("Grid", "points", points)
        points = np.asarray(check_real("Grid", "points", points), float)
        if points.ndim == 1 and self.ndim == 1:
            points = points[:, None]
        if points.ndim != 2 or points.shape[1] != self.ndim or len(points) == 0:
            raise ValueError(f"Grid: `points` must have shape (m, {self.ndim}), m >= 1; got {points.shape}.")
        extent = np.asarray(self.extent)
        slack = 1e-6 * extent  # for coordinates in single precision
        outside = ~np.all((points >= -slack) & (points <= extent + slack), axis=1)  # also true for NaN
        if outside.any():
            first = int(np.argmax(outside))
            raise ValueError(
                f"Grid: {int(outside.sum())} of {len(points)} `points` lie outside the domain [0, L], "
                f"L = {self.extent}; the first is points[{first}] = {points[first].tolist()}."
            )
        return np.clip(points, 0, extent)

    def refined(self, factor: int = 2) -> Grid:
        """The grid with cells ``factor`` times smaller on the same domain.

        Raises:
            ValueError: ``factor`` is not a positive integer.
        """
        factor = check_count("Grid.refined", "factor", factor)
        return Grid([n * factor for n in self.shape], self.extent, self.boundary)

    def coarsened(self, factor: int = 2) -> Grid:
        """The grid with cells ``factor`` times larger on the same domain.

        Raises:
            ValueError: ``factor`` is not a positive integer, or does not divide every size.
        """
        factor = check_count("Grid.coarsened", "factor", factor)
        if any(n % factor for n in self.shape):
            raise ValueError(f"Grid: `factor` {factor} does not divide the shape {self.shape}.")
        return Grid([n // factor for n in self.shape], self.extent, self.boundary)

    def prolongation(self, factor: int = 2) -> Kronecker:
        """The map to :meth:`refined`: each axis' series evaluated at the finer cell centers (no new modes)."""
        fine = self.refined(factor).shape
        t = [(np.arange(m) + 0.5) / m for m in fine]
        return Kronecker(
            [_transforms.cardinal(b, n, t[a]) for a, (b, n) in enumerate(zip(self.boundary, self.shape, strict=True))]
        )

    def restriction(self, factor: int = 2) -> Kronecker:
        """The map to :meth:`coarsened`: averages over the larger cells."""
        coarse, factor = self.coarsened(factor), int(factor)
        return Kronecker([np.kron(np.eye(n), np.full((1, factor), 1 / factor)) for n in coarse.shape])

    def extended(self, padding: float | Sequence[float]) -> Grid:
        """The torus that holds this grid with at least ``padding`` (length units) of extra room along each axis.

        This grid's cells are the torus' leading cells, so a field on the torus restricts by slicing, and a point of the
        grid has the same coordinates on the torus.

        Raises:
            TypeError: ``padding`` is no number, or traced.
            ValueError: it is negative, not finite, or so large that the torus cannot be sampled.
        """
        check_static("Grid", "padding", padding)
        each = per_axis("Grid", "padding", padding, self.ndim)
        lengths = [check_nonnegative_number("Grid", "padding", p) for p in each]
        if any(p > WIDEST * length for p, length in zip(lengths, self.extent, strict=True)):
            raise ValueError(
                f"Grid: `padding` {padding} is over {WIDEST} times the extent {self.extent}; a few ranges are enough."
            )
        shape = [n + int(np.ceil(p / h - 1e-9)) for n, p, h in zip(self.shape, lengths, self.spacing, strict=True)]
        if prod(shape) > max(LARGEST, 2**self.ndim * self.size):
            raise ValueError(
                f"Grid: `padding` {padding} makes a torus of {tuple(shape)} cells, too large to sample; pad less, "
                "or use a coarser grid."
            )
        return Grid(shape, [n * h for n, h in zip(shape, self.spacing, strict=True)], "periodic")
