"""Meshes of intervals, triangles and tetrahedra: where a field lives that a grid does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int
from scipy.sparse.linalg import splu

from numpyro_inverse._arrays import as_jax
from numpyro_inverse._checks import check_real, check_static
from numpyro_inverse.domains._barycentric import SLACK, BarycentricInterpolation, locate
from numpyro_inverse.domains._finite_elements import lumped_mass, mass_matrix, padded_rows, stiffness_matrix
from numpyro_inverse.domains._refined import refined
from numpyro_inverse.domains._simplices import check_mesh, facets, longest_edges
from numpyro_inverse.sparse import Pattern, Solver, analyze

NAMES = ("x", "y", "z")
OFF_SURFACE = 0.5  # distance of a point from a surface, in longest edges of the triangle there


class Geometry:
    """Nodes and simplices on the host: the static part of a mesh, compared by a digest of its content."""

    def __init__(self, points: np.ndarray, simplices: np.ndarray):
        self.points, self.simplices = points, simplices
        for array in (points, simplices):
            array.setflags(write=False)
        shapes = f"{points.shape} {simplices.shape}".encode()
        self.digest = hashlib.sha256(shapes + points.tobytes() + simplices.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Geometry) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Geometry({len(self.points)} points, {len(self.simplices)} simplices, {self.digest[:16]})"

    @cached_property
    def boundary(self) -> np.ndarray:
        """The facets that belong to one simplex alone."""
        found, counts, _ = facets(self.simplices)
        return found[counts == 1]

    @cached_property
    def mass_logdet(self) -> float:
        r""":math:`\log\det C`."""
        factor = splu(mass_matrix(self.points, self.simplices).tocsc())
        return float(np.sum(np.log(np.abs(factor.U.diagonal()))))


class Mesh(eqx.Module):
    r"""A mesh of intervals, triangles or tetrahedra; a field on it is piecewise linear, given by its values at the
    nodes.

    Points are in length units. Triangles of points in space are a surface, such as a sphere, and the field lives on it.

    A mesh is a :class:`Domain`, and a pytree: what computations need of it (the matrices on ``pattern``) are
    arrays, while nodes and simplices are static, compared by a digest of their content. Give it to a model as an
    argument: ``mcmc.run(key, mesh, y)``. A mesh that a compiled function closes over works, but XLA may take seconds to
    look at its arrays. The finite-element matrices of the hat functions :math:`\phi_i` are

    .. math:: C_{ij} = \int \phi_i \phi_j, \qquad G_{ij} = \int \nabla \phi_i \cdot \nabla \phi_j, \qquad
        B_{ij} = \int_{\partial D} \phi_i \phi_j .

    ``mass``, ``stiffness`` and ``boundary_mass`` are their values on ``pattern``, ``weights`` the row sums of
    :math:`C`. ``scaled_mass`` has the rows of :math:`D^{-1/2} C D^{-1/2}`, :math:`D` the diagonal of :math:`C`, at the
    columns ``neighbors``, for products that are read row by row.

    Args:
        points: nodes of shape ``(n, d)``, or ``(n,)`` on a line.
        simplices: the corners of each simplex as numbers of points, in any order: ``(e, 2)`` on a line, ``(e, 3)`` in
            the plane or on a surface, ``(e, 4)`` in space.

    Raises:
        TypeError: what is no array of real numbers, or of integers, or is traced.
        ValueError: points that are not finite or belong to no simplex, simplices that are degenerate, inverted (so that
            they overlap their neighbors) or name points that do not exist, a mesh that is no manifold or not connected.
    """

    geometry: Geometry = eqx.field(static=True)
    pattern: Pattern
    mass: Float[Array, " nnz"]
    stiffness: Float[Array, " nnz"]
    boundary_mass: Float[Array, " nnz"]
    weights: Float[Array, " n"]
    neighbors: Int[Array, "n w"]
    scaled_mass: Float[Array, "n w"]

    def __init__(self, points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"]):
        points, simplices = check_mesh(points, simplices)
        self.geometry = Geometry(points, simplices)
        mass = mass_matrix(points, simplices)
        with jax.ensure_compile_time_eval():  # within a model that is traced, too
            self.pattern = analyze(mass, jnp.asarray(points))
            self.mass = self.pattern.values(mass)
            self.stiffness = self.pattern.values(self.stiffness_matrix)
            self.boundary_mass = self.pattern.values(self.boundary_mass_matrix)
            self.weights = as_jax(lumped_mass(points, simplices))
            neighbors, scaled = padded_rows(mass)
            self.neighbors, self.scaled_mass = as_jax(neighbors, np.int32), as_jax(scaled)

    @classmethod
    def from_points(
        cls,
        locations: Float[np.ndarray, "m d"],
        *,
        max_edge: float | tuple[float, float],
        offset: float | tuple[float, float],
        cutoff: float | None = None,
    ) -> Mesh:
        r"""A mesh around scattered locations, with room to spare; needs the extra ``meshes`` in the plane and in space.

        The inner part reaches ``offset[0]`` beyond the locations and has edges of about ``max_edge[0]``, the outer part
        reaches further by ``offset[1]`` and may have longer ones. For a Matérn field, an eighth of its range serves
        inside; the outer part, as wide as a range, keeps the boundary's effect on the variance away from the data.

        >>> Mesh.from_points(np.linspace(0.0, 1.0, 5), max_edge=(0.1, 0.3), offset=(0.1, 0.5)).size
        17

        Args:
            locations: of shape ``(m, d)``, or ``(m,)`` on a line.
            max_edge: longest edges, inside and outside, or one number for both.
            offset: widths of the two margins, or of one margin, which is then meshed as the inside is.
            cutoff: where locations are nearer to each other than ``max_edge``, edges are as short as their distance,
                but never shorter than this. Default: edges are of one length inside.

        Raises:
            TypeError, ValueError: locations that are not finite or of another shape, lengths that are not positive.
            ImportError: the extra is not installed.

        References:
            Schöberl, Computing and Visualization in Science 1 (1997) 41-52 (Netgen, which makes the meshes).
        """
        from numpyro_inverse.domains._mesh_from_points import mesh_around

        return cls(*mesh_around(locations, max_edge, offset, cutoff))

    @classmethod
    def from_skfem(cls, mesh: Any) -> Mesh:
        """The nodes and simplices of a scikit-fem mesh of intervals, triangles or tetrahedra.

        Raises:
            TypeError: ``mesh`` is of another kind.
            ValueError: as :class:`Mesh`.
        """
        from numpyro_inverse.domains._mesh_formats import of_skfem

        return cls(*of_skfem(mesh))

    @classmethod
    def from_meshio(cls, mesh: Any) -> Mesh:
        """The nodes and the simplices of highest dimension of a meshio mesh; coordinates that are constant are left
        out.

        Raises:
            TypeError: ``mesh`` is of another kind.
            ValueError: it has no simplices, or cells of the same dimension of another kind, or as :class:`Mesh`.
        """
        from numpyro_inverse.domains._mesh_formats import of_meshio

        return cls(*of_meshio(mesh))

    def refined(self) -> Mesh:
        r"""The mesh with each simplex cut into :math:`2^d` at the middles of its edges; the old nodes come first.

        Every field on this mesh is one on the refinement. A surface keeps its flat triangles.
        """
        return Mesh(*refined(self.points, self.simplices))

    def with_solver(self, solver: Solver | None) -> Mesh:
        r"""The same mesh, on which systems :math:`(\kappa^2 C + G) u = b` are solved by another library, such as
        :func:`numpyro_inverse.sparse.cholmod`; see :meth:`~numpyro_inverse.sparse.Pattern.with_solver`. A
        whitened Matérn field consists of them where :math:`\alpha` is even.

        Raises:
            TypeError: ``solver`` is no function.
        """
        return eqx.tree_at(lambda mesh: mesh.pattern, self, self.pattern.with_solver(solver))

    def __hash__(self) -> int:
        return hash(self.geometry)

    def __eq__(self, other: object) -> Any:
        return isinstance(other, Mesh) and self.geometry == other.geometry

    @property
    def points(self) -> Float[np.ndarray, "n d"]:
        """Nodes, on the host, in length units."""
        return self.geometry.points

    @property
    def simplices(self) -> Int[np.ndarray, "e k"]:
        """Corners of each simplex, on the host."""
        return self.geometry.simplices

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.points)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(size,)``."""
        return (self.size,)

    @property
    def ndim(self) -> int:
        """Number of coordinates of a point: of the space that the mesh is in."""
        return self.points.shape[1]

    @property
    def manifold_dim(self) -> int:
        """Dimension of the simplices: 2 on a surface in space."""
        return self.simplices.shape[1] - 1

    @property
    def coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """``x``, ``y``, ``z`` of each node."""
        return {name: (("node",), column) for name, column in zip(NAMES, self.points.T, strict=False)}

    @property
    def mass_matrix(self) -> sp.csr_array:
        """The consistent mass matrix :math:`C`, on the host."""
        return mass_matrix(self.points, self.simplices)

    @property
    def stiffness_matrix(self) -> sp.csr_array:
        """The stiffness matrix :math:`G`, on the host."""
        return stiffness_matrix(self.points, self.simplices)

    @property
    def boundary_mass_matrix(self) -> sp.csr_array:
        """The mass matrix :math:`B` of the boundary, on the host; without entries on a closed surface."""
        if self.manifold_dim == 1:
            ends = np.zeros(self.size)
            ends[self.boundary_facets[:, 0]] = 1.0
            return sp.csr_array(sp.diags_array(ends))
        return mass_matrix(self.points, self.boundary_facets)

    @property
    def boundary_facets(self) -> Int[np.ndarray, "b k_1"]:
        """Corners of the facets on the boundary."""
        return self.geometry.boundary

    @property
    def longest_edges(self) -> Float[np.ndarray, " e"]:
        """The longest edge of each simplex, in length units."""
        return longest_edges(self.points, self.simplices)

    def interpolation(self, points: Float[Array, "m d"]) -> BarycentricInterpolation:
        """Values of the piecewise linear field at scattered points, of shape ``(m, ndim)`` or ``(m,)`` on a line.

        On a surface the points are projected onto it.

        Raises:
            TypeError: ``points`` are no real numbers, or traced.
            ValueError: they are not of that shape, or one lies outside the mesh or off the surface.
        """
        check_static("Mesh", "points", points)
        places = np.asarray(check_real("Mesh", "points", points), float)
        places = places[:, None] if places.ndim == 1 and self.ndim == 1 else places
        if places.ndim != 2 or places.shape[1] != self.ndim or len(places) == 0:
            raise ValueError(f"Mesh: `points` must have shape (m, {self.ndim}), m >= 1; got {places.shape}.")
        _refuse(places, ~np.isfinite(places).all(axis=1), "are not finite")
        simplex, weight, gap = locate(self.points, self.simplices, places)
        if self.manifold_dim == self.ndim:
            outside = weight.min(axis=1) < -SLACK
        else:  # a point beyond the edge of a flat triangle may still be over a curved surface
            open_end = weight.min(axis=1) < (-SLACK if len(self.boundary_facets) else -0.5)
            outside = open_end | (gap > OFF_SURFACE * self.longest_edges[simplex])
        _refuse(places, outside, "lie outside the mesh")
        weight = np.clip(weight, 0, None)
        return BarycentricInterpolation(self.simplices[simplex], weight / weight.sum(axis=1, keepdims=True), self.size)


def _refuse(places: np.ndarray, bad: Sequence[bool] | np.ndarray, what: str) -> None:
    bad = np.asarray(bad)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"Mesh: {int(bad.sum())} of {len(places)} `points` {what}; the first is points[{first}] = "
            f"{places[first].tolist()}."
        )
