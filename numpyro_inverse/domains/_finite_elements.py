"""Matrices of piecewise linear finite elements on simplices, in the plane, in space or on a surface."""

from __future__ import annotations

from math import factorial

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int


def volumes(points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"]) -> Float[np.ndarray, " e"]:
    r"""Lengths, areas or volumes of simplices of any dimension :math:`k - 1 \le d`,
    :math:`\sqrt{\det B^{\mathsf T} B} / (k - 1)!` with the edges from the first corner as columns of :math:`B`."""
    edges = points[simplices[:, 1:]] - points[simplices[:, :1]]
    gram = edges @ edges.swapaxes(1, 2)
    return np.sqrt(np.maximum(np.linalg.det(gram), 0)) / factorial(simplices.shape[1] - 1)


def mass_matrix(points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"]) -> sp.csr_array:
    r""":math:`C_{ij} = \int \phi_i \phi_j`: on a simplex of :math:`k` corners its volume times
    :math:`(1 + \delta_{ij}) / (k (k + 1))`. Of the facets of a mesh it is the matrix of a Robin boundary condition."""
    k = simplices.shape[1]
    local = (1 + np.eye(k)) / (k * (k + 1))
    return assemble(len(points), simplices, volumes(points, simplices)[:, None, None] * local)


def weighted_mass(
    points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"], weight: Float[np.ndarray, " e"]
) -> sp.csr_array:
    """The mass matrix with a weight in each simplex."""
    k = simplices.shape[1]
    local = (1 + np.eye(k)) / (k * (k + 1))
    return assemble(len(points), simplices, (weight * volumes(points, simplices))[:, None, None] * local)


def gradients(points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"]) -> Float[np.ndarray, "e k d"]:
    """Of the hat functions of the corners of each simplex, which fill the space."""
    inverse = np.linalg.inv(points[simplices[:, 1:]] - points[simplices[:, :1]]).swapaxes(1, 2)
    return np.concatenate([-inverse.sum(axis=1, keepdims=True), inverse], axis=1)


def lumped_mass(points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"]) -> Float[np.ndarray, " n"]:
    r""":math:`\int \phi_i`, the row sums of the mass matrix: weights of a quadrature at the nodes."""
    k = simplices.shape[1]
    return np.bincount(simplices.ravel(), np.repeat(volumes(points, simplices) / k, k), minlength=len(points))


def stiffness_matrix(points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"]) -> sp.csr_array:
    r""":math:`G_{ij} = \int \nabla \phi_i \cdot \nabla \phi_j`. With the edges :math:`B` from the first corner, the
    gradients of the other corners' functions have the inner products :math:`(B^{\mathsf T} B)^{-1}`, on surfaces
    too."""
    edges = points[simplices[:, 1:]] - points[simplices[:, :1]]
    inner = np.linalg.inv(edges @ edges.swapaxes(1, 2))
    k = simplices.shape[1]
    local = np.empty((len(simplices), k, k))
    local[:, 1:, 1:] = inner
    local[:, 0, 1:] = local[:, 1:, 0] = -inner.sum(axis=1)
    local[:, 0, 0] = inner.sum(axis=(1, 2))
    return assemble(len(points), simplices, volumes(points, simplices)[:, None, None] * local)


def assemble(n: int, simplices: np.ndarray, local: np.ndarray) -> sp.csr_array:
    """The symmetric matrix of local ones, ``(e, k, k)``."""
    k = simplices.shape[1]
    rows, columns = np.repeat(simplices, k, axis=1).ravel(), np.tile(simplices, (1, k)).ravel()
    matrix = sp.csr_array(sp.coo_array((local.ravel(), (rows, columns)), shape=(n, n)))
    return sp.csr_array((matrix + matrix.T) / 2)  # symmetric to the last bit


def padded_rows(matrix: sp.csr_array) -> tuple[Int[np.ndarray, "n w"], Float[np.ndarray, "n w"]]:
    r"""The columns and the values of each row of :math:`D^{-1/2} A D^{-1/2}`, :math:`D` the diagonal; zeros fill up."""
    root = sp.diags_array(matrix.diagonal() ** -0.5)
    scaled = sp.csr_array(root @ matrix @ root)
    counts = np.diff(scaled.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(scaled.nnz) - np.repeat(scaled.indptr[:-1], counts)
    columns, values = np.zeros((len(counts), counts.max()), int), np.zeros((len(counts), counts.max()))
    columns[row, place], values[row, place] = scaled.indices, scaled.data
    return columns, values
