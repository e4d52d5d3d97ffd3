"""What the package needs of a place where a field lives: a protocol, for grids, meshes and domains of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse.operators._linear_operator import LinearOperator


@runtime_checkable
class Domain(Protocol):
    """A place with finitely many values of a field: cells of a grid, nodes of a mesh, scattered points.

    :class:`Grid` and :class:`Mesh` are. A class of one's own needs no base class: whatever has these members is a
    domain, and a distribution that carries it as ``domain`` is exported and plotted with its coordinates. Lengths are
    in units of the user's own, which a domain does not know; ``to_arviz(length_unit=)`` names them.

    A domain is hashable, compared by value, and either static under ``jit``, registered with
    :func:`jax.tree_util.register_static` if it is part of a pytree, or a pytree itself whose shape and coordinates are
    static. One that has ``simplices``, the nodes that each triangle joins, is drawn on them.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of a field's values: ``(n_1, ..., n_d)`` on a grid, ``(n,)`` on scattered points."""

    @property
    def size(self) -> int:
        """Number of values."""

    @property
    def ndim(self) -> int:
        """Dimension of space, the number of coordinates of a point; not that of the array."""

    @property
    def coordinates(self) -> Mapping[str, tuple[tuple[str, ...], np.ndarray]]:
        """The coordinates by name, each with the names of its axes and its values, in length units.

        All names of axes together, in order of appearance, name the axes of the array: on a grid
        ``{"x": (("x",), x), "y": (("y",), y)}``, on scattered points
        ``{"x": (("point",), x), "y": (("point",), y)}``. They are local to the domain; whoever puts several sites into
        one table makes them unique.
        """

    @property
    def weights(self) -> Float[Array, "*shape"]:
        """Quadrature weights: the integral of a field is the sum of weights times values."""

    def interpolation(self, points: Any) -> LinearOperator:
        """From a field's values to its values at points of shape ``(m, ndim)``."""


def axis_names(domain: Domain) -> tuple[str, ...]:
    """Names of the array's axes, in order."""
    return tuple(dict.fromkeys(axis for axes, _ in domain.coordinates.values() for axis in axes))
