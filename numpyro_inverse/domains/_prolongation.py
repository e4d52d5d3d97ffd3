"""From the nodes of a mesh to those of a refinement."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from numpyro_inverse._checks import check_instance
from numpyro_inverse.domains._barycentric import BarycentricInterpolation, locate
from numpyro_inverse.domains._mesh import Mesh

NESTED = 1e-8  # of the largest entry of a mass matrix
ZERO = 1e-12  # barycentric coordinate


def prolongation(name: str, coarse: Mesh, fine: Mesh) -> BarycentricInterpolation:
    """Interpolation from the nodes of a mesh to those of a refinement."""
    matrix = prolongation_matrix(name, coarse, fine)
    width = np.diff(matrix.indptr).max()
    index, weight = np.zeros((fine.size, width), int), np.zeros((fine.size, width))
    row = np.repeat(np.arange(fine.size), np.diff(matrix.indptr))
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    index[row, place], weight[row, place] = matrix.indices, matrix.data
    return BarycentricInterpolation(index, weight, coarse.size)


def prolongation_matrix(name: str, coarse: Mesh, fine: Mesh) -> sp.csr_array:
    """The same, on the host in double precision."""
    check_instance(name, "coarse", coarse, Mesh, "a Mesh")
    nested = (coarse.ndim, coarse.manifold_dim) == (fine.ndim, fine.manifold_dim)
    if nested:
        simplex, weight, _ = locate(coarse.points, coarse.simplices, fine.points)
        weight = np.where(np.abs(weight) < ZERO, 0.0, weight)
        index = coarse.simplices[simplex]
        row = np.repeat(np.arange(fine.size), index.shape[1])
        matrix = sp.csr_array(sp.coo_array((weight.ravel(), (row, index.ravel())), shape=(fine.size, coarse.size)))
        matrix.eliminate_zeros()
        gap = abs(matrix.T @ fine.mass_matrix @ matrix - coarse.mass_matrix).max()
        nested = gap <= NESTED * coarse.mass_matrix.max()
    if not nested:
        raise ValueError(
            f"{name}: every simplex of the fine mesh must lie within one of the coarse mesh, as in `coarse.refined()`."
        )
    return matrix
