"""Finite-element matrices of equations whose coefficients vary from place to place, or from direction to direction."""

from __future__ import annotations

from itertools import combinations_with_replacement

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from numpyro_inverse._checks import check_instance
from numpyro_inverse.domains._barycentric import BarycentricInterpolation
from numpyro_inverse.domains._finite_elements import (
    assemble,
    gradients,
    volumes,
)
from numpyro_inverse.domains._mesh import Mesh
from numpyro_inverse.sparse._row_sums import row_sums, runs


class ElementMatrices(eqx.Module):
    r"""The mass matrix of a mesh simplex by simplex, and its stiffness matrix direction by direction:

    .. math:: C(w)_{ij} = \sum_e w_e \int_e \phi_i \phi_j, \qquad
        G(H)_{ij} = \int \nabla \phi_i \cdot H \nabla \phi_j = \sum_{a \le b} H_{ab} G^{ab}_{ij} .

    For :class:`~numpyro_inverse.distributions.NonstationaryMatern`. Made once, on the host; a pytree: give it to a
    model as an argument.

    Args:
        mesh: the mesh.

    Raises:
        TypeError: ``mesh`` is no mesh.
    """

    mesh: Mesh
    average: BarycentricInterpolation  # from the nodes to the simplices
    local_mass: Float[Array, "e entries"]  # lower triangles
    sums: tuple[Int[Array, "rows width"], ...]
    directions: Float[Array, "pairs nnz"] | None

    def __init__(self, mesh: Mesh):
        self.mesh = check_instance("ElementMatrices", "mesh", mesh, Mesh, "a Mesh")
        corners = mesh.simplices
        e, k = corners.shape
        first, second = np.tril_indices(k)
        rows = np.maximum(corners[:, first], corners[:, second]).ravel()
        columns = np.minimum(corners[:, first], corners[:, second]).ravel()
        with jax.ensure_compile_time_eval():
            key = np.asarray(mesh.pattern.rows).astype(np.int64) * mesh.size + np.asarray(mesh.pattern.cols)
            order = np.argsort(key)
            place = order[np.searchsorted(key, rows.astype(np.int64) * mesh.size + columns, sorter=order)]
            self.sums = runs(place, mesh.pattern.num_values)
            local = (1 + np.eye(k))[first, second] / (k * (k + 1))
            self.local_mass = jnp.asarray(volumes(mesh.points, corners)[:, None] * local)
            self.average = BarycentricInterpolation(corners, np.full((e, k), 1 / k), mesh.size)
            self.directions = self._directions() if mesh.manifold_dim == mesh.ndim else None

    def mass(self, weight: Float[Array, " n"]) -> Float[Array, " nnz"]:
        """C(w) on the mesh's pattern, with the mean of a weight over the corners of each simplex."""
        entries = self.average(weight)[:, None] * self.local_mass.astype(weight.dtype)
        return row_sums(self.sums, entries.ravel())

    def stiffness(self, tensor: Float[Array, "d d"]) -> Float[Array, " nnz"]:
        """G(H) on the mesh's pattern, of a symmetric tensor."""
        if self.directions is None:
            raise ValueError("ElementMatrices: on a surface there are no fixed directions, so no tensor.")
        a, b = np.asarray(list(combinations_with_replacement(range(self.mesh.ndim), 2))).T
        return tensor[a, b] @ self.directions.astype(tensor.dtype)

    def _directions(self) -> Array:
        mesh = self.mesh
        found = []
        slopes, volume = gradients(mesh.points, mesh.simplices), volumes(mesh.points, mesh.simplices)
        for a, b in combinations_with_replacement(range(mesh.ndim), 2):
            local = np.einsum("e,ei,ej->eij", volume, slopes[:, :, a], slopes[:, :, b])
            local = local if a == b else local + local.swapaxes(1, 2)
            found.append(mesh.pattern.values(assemble(mesh.size, mesh.simplices, local)))
        return jnp.stack(found)
