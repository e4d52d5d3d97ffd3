"""Regular grids on intervals, rectangles and boxes: where a field lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse.domains import _transforms
from numpyro_inverse.domains._interpolation import MultilinearInterpolation, TrigonometricInterpolation
from numpyro_inverse.operators._kronecker import Kronecker

NAMES = ("x", "y", "z")  # of the axes


@jax.tree_util.register_static
@dataclass(frozen=True, init=False)
class Grid:
    r"""A regular grid of cells on the box :math:`[0, L_1] \times \dots \times [0, L_d]`, in physical units.

    Values sit at cell centres :math:`x_i = (i + \tfrac12) h`, :math:`h = L / n`, under every boundary condition, so a
    field means the same whatever its boundary. The Laplacian's eigenfunctions there are orthonormal cosines
    (Neumann), sines (Dirichlet) or both (periodic); :meth:`transform` maps to their coefficients.

    A grid is static and hashable: it crosses ``jit`` as part of the program, not as data.

    Args:
        shape: numbers of cells, 1 to 3 axes.
        extent: side lengths in length units; one number for all axes or one each. Default: square cells, longest
            side 1.
        boundary: ``"neumann"`` (zero normal derivative), ``"dirichlet"`` (zero value) or ``"periodic"``; one for all
            axes or one each.

    Raises:
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
        shape = tuple(np.atleast_1d(shape).tolist())
        if not 1 <= len(shape) <= 3 or any(int(n) != n or n < 1 for n in shape):
            raise ValueError(f"Grid: `shape` must be one to three positive integers; got {shape}.")
        shape = tuple(int(n) for n in shape)
        if extent is None:
            extent = tuple(n / max(shape) for n in shape)
        extent = _per_axis(extent, len(shape), "extent")
        if any(not (np.isfinite(length) and length > 0) for length in extent):
            raise ValueError(f"Grid: `extent` must be positive lengths; got {extent}.")
        boundary = _per_axis(boundary, len(shape), "boundary")
        for name in boundary:
            if name not in _transforms.BOUNDARIES:
                raise ValueError(f"Grid: `boundary` must be one of {', '.join(_transforms.BOUNDARIES)}; got {name!r}.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "extent", tuple(float(length) for length in extent))
        object.__setattr__(self, "boundary", boundary)

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
        """Cell-centre coordinates along each axis, in length units."""
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
        """Cell-centre coordinates."""
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
        """Coefficients of a field in the orthonormal eigenbasis (trailing axes; leading ones are batch axes)."""
        self._check(x, "transform")
        for axis, boundary in enumerate(self.boundary):
            x = _transforms.analysis(x, boundary, axis - self.ndim)
        return x

    def inverse_transform(self, w: Float[Array, "*batch_and_shape"]) -> Float[Array, "*batch_and_shape"]:
        """The field with the given coefficients: inverse, and transpose, of :meth:`transform`."""
        self._check(w, "inverse_transform")
        for axis, boundary in enumerate(self.boundary):
            w = _transforms.synthesis(w, boundary, axis - self.ndim)
        return w

    def _check(self, x: Array, name: str) -> None:
        if jnp.shape(x)[-self.ndim :] != self.shape:
            raise ValueError(f"Grid.{name}: trailing axes must be {self.shape}; got shape {jnp.shape(x)}.")

    def interpolation(self, points: Float[Array, "m ndim"]) -> MultilinearInterpolation:
        """Multilinear interpolation at scattered points, as a linear operator.

        Between the outermost cell centres and the boundary the field continues as its boundary condition says:
        constant (Neumann), linearly to zero (Dirichlet), or round the torus (periodic).

        Raises:
            ValueError: ``points`` is not of shape ``(m, ndim)``, or a point lies outside the domain.
        """
        return MultilinearInterpolation(self._inside(points), self.shape, self.spacing, self.boundary)

    def trigonometric_interpolation(self, points: Float[Array, "m ndim"]) -> TrigonometricInterpolation:
        """Evaluation of the field's own cosine, sine or Fourier series at scattered points: exact for its modes.

        Raises:
            ValueError: as for :meth:`interpolation`.
        """
        t = self._inside(points) / np.asarray(self.extent)
        factors = [
            _transforms.basis_at(b, n, t[:, a]) @ _transforms.basis(b, n).T
            for a, (b, n) in enumerate(zip(self.boundary, self.shape, strict=True))
        ]
        return TrigonometricInterpolation(factors)

    def _inside(self, points) -> np.ndarray:
        points = np.asarray(points, float)
        if points.ndim == 1 and self.ndim == 1:
            points = points[:, None]
        if points.ndim != 2 or points.shape[1] != self.ndim:
            raise ValueError(f"Grid: `points` must have shape (m, {self.ndim}); got {points.shape}.")
        outside = ~np.all((points >= 0) & (points <= np.asarray(self.extent)), axis=1)  # also true for NaN
        if outside.any():
            first = int(np.argmax(outside))
            raise ValueError(
                f"Grid: {int(outside.sum())} of {len(points)} `points` lie outside the domain [0, L], "
                f"L = {self.extent}; the first is points[{first}] = {points[first].tolist()}."
            )
        return points

    def refined(self, factor: int = 2) -> Grid:
        """The grid with cells ``factor`` times smaller on the same domain."""
        return Grid([n * factor for n in self.shape], self.extent, self.boundary)

    def coarsened(self, factor: int = 2) -> Grid:
        """The grid with cells ``factor`` times larger on the same domain.

        Raises:
            ValueError: ``factor`` does not divide every size.
        """
        if any(n % factor for n in self.shape):
            raise ValueError(f"Grid: `factor` {factor} does not divide the shape {self.shape}.")
        return Grid([n // factor for n in self.shape], self.extent, self.boundary)

    def prolongation(self, factor: int = 2) -> Kronecker:
        """The map to :meth:`refined`: each axis' series evaluated at the finer cell centres (no new modes)."""
        factors = []
        for b, n in zip(self.boundary, self.shape, strict=True):
            t = (np.arange(n * factor) + 0.5) / (n * factor)
            factors.append(_transforms.basis_at(b, n, t) @ _transforms.basis(b, n).T)
        return Kronecker(factors)

    def restriction(self, factor: int = 2) -> Kronecker:
        """The map to :meth:`coarsened`: averages over the larger cells."""
        coarse = self.coarsened(factor)
        return Kronecker([np.kron(np.eye(n), np.full((1, factor), 1 / factor)) for n in coarse.shape])

    def extended(self, padding: float | Sequence[float]) -> Grid:
        """The torus that holds this grid with at least ``padding`` (length units) of extra room along each axis.

        This grid's cells are the torus' leading cells, so a field on the torus restricts by slicing.
        """
        padding = _per_axis(padding, self.ndim, "padding")
        if any(not (np.isfinite(p) and p >= 0) for p in padding):
            raise ValueError(f"Grid: `padding` must be non-negative lengths; got {padding}.")
        shape = [n + int(np.ceil(p / h - 1e-9)) for n, p, h in zip(self.shape, padding, self.spacing, strict=True)]
        return Grid(shape, [n * h for n, h in zip(shape, self.spacing, strict=True)], "periodic")


def _per_axis(value, ndim: int, name: str) -> tuple:
    if isinstance(value, str) or np.ndim(value) == 0:
        return (value,) * ndim
    value = tuple(value)
    if len(value) != ndim:
        raise ValueError(f"Grid: `{name}` must be one value or one per axis ({ndim}); got {value}.")
    return value
