"""From a field on a fine domain to one on a coarse domain: two maps by which laws of fields are compared."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from numpyro_inverse._checks import check_instance
from numpyro_inverse.domains._domain import Domain, axis_names
from numpyro_inverse.domains._grid import Grid
from numpyro_inverse.domains._mesh import Mesh
from numpyro_inverse.domains._prolongation import prolongation_matrix
from numpyro_inverse.operators._kronecker import Kronecker
from numpyro_inverse.operators._linear_operator import LinearOperator
from numpyro_inverse.operators._matrix import Matrix

SAME = 1e-6  # distance of two points that are one, over the extent and the number of points


def l2_projection(coarse: Grid | Mesh, fine: Grid | Mesh) -> LinearOperator:
    r"""The nearest function on the coarse domain in the mean square.

    Of a grid's field, constant in each cell, these are the averages over the larger cells. Of a mesh's piecewise linear
    field they are :math:`C_H^{-1} R C_h u`, with the mass matrices of both and :math:`R` the transpose of interpolation
    to the finer nodes.

    Args:
        coarse: a grid, or a mesh.
        fine: a refinement of it: ``coarse.refined()``.

    Raises:
        TypeError: a domain of another kind, or of two kinds.
        ValueError: ``fine`` does not refine ``coarse``.
    """
    name = "l2_projection"
    check_instance(name, "coarse", coarse, (Grid, Mesh), "a Grid or a Mesh")
    if isinstance(coarse, Grid):
        fine = check_instance(name, "fine", fine, Grid, "a Grid, as `coarse` is")
        same = coarse.ndim == fine.ndim and np.allclose(coarse.extent, fine.extent, rtol=1e-6, atol=0)
        if not same or any(n % m for n, m in zip(fine.shape, coarse.shape, strict=True)):
            raise ValueError(f"{name}: `fine` must be a refinement of `coarse` {coarse}; got {fine}.")
        factors = [(m, n // m) for m, n in zip(coarse.shape, fine.shape, strict=True)]
        return Kronecker([np.kron(np.eye(m), np.full((1, k), 1 / k)) for m, k in factors])
    fine = check_instance(name, "fine", fine, Mesh, "a Mesh, as `coarse` is")
    restriction = prolongation_matrix(name, coarse, fine).T
    return Matrix(splu(coarse.mass_matrix.tocsc()).solve((restriction @ fine.mass_matrix).toarray()))


def point_values(coarse: Any, fine: Any) -> LinearOperator:
    """The values at those points of the fine domain that the coarse one has.

    A refinement of a mesh keeps its nodes. One of a grid keeps the centers of its cells if the factor is odd:
    ``grid.refined(3)``.

    Args:
        coarse: a domain.
        fine: a domain whose points are those and others.

    Raises:
        TypeError: not two domains.
        ValueError: a point of ``coarse`` is none of ``fine``.
    """
    for argument, value in (("coarse", coarse), ("fine", fine)):
        check_instance("point_values", argument, value, Domain, "a domain")
    wanted, points = domain_points(coarse), domain_points(fine)
    near = _nearest(wanted, points) if wanted.shape[1] == points.shape[1] else None
    if near is None:
        raise ValueError(
            "point_values: the points of `coarse` must be among those of `fine`; refine a grid by an odd factor, "
            f"`grid.refined(3)`, or a mesh. Got {coarse.shape} and {fine.shape} values."
        )
    return _Selection(near, tuple(fine.shape), tuple(coarse.shape))


class _Selection(LinearOperator):
    index: Int[Array, " m"]
    in_shape: tuple[int, ...] = eqx.field(static=True)
    out_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, index: np.ndarray, in_shape: tuple[int, ...], out_shape: tuple[int, ...]):
        self.index, self.in_shape, self.out_shape = jnp.asarray(index, jnp.int32), in_shape, out_shape

    def mv(self, x):
        return x.ravel()[self.index].reshape(self.out_shape)


def _nearest(wanted: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    distance, index = cKDTree(points).query(wanted)
    return None if np.max(distance) > SAME * np.ptp(points, axis=0).max() / len(points) else index


def domain_points(domain: Any) -> np.ndarray:
    """The points of a domain's values, flattened, of shape ``(size, ndim)``, from its coordinates."""
    axes = axis_names(domain)
    columns = []
    for along, values in domain.coordinates.values():
        placed = np.asarray(values, float)
        order = np.argsort([axes.index(a) for a in along])
        placed = placed.transpose(order)
        shape = [1] * len(axes)
        for size, a in zip(placed.shape, sorted(along, key=axes.index), strict=True):
            shape[axes.index(a)] = size
        columns.append(np.broadcast_to(placed.reshape(shape), domain.shape).ravel())
    return np.stack(columns, axis=-1)
