"""The smoothest functions on a mesh: eigenfunctions of its Laplacian."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

from numpyro_inverse._checks import check_count, check_instance
from numpyro_inverse.domains._mesh import Mesh
from numpyro_inverse.operators._linear_operator import LinearOperator
from numpyro_inverse.operators._matrix import Matrix

DENSE = 1500  # nodes up to which the dense eigensolver is used


class Eigenbasis(eqx.Module):
    r"""The first eigenfunctions of the negative Laplacian on a mesh, under Neumann's boundary condition:

    .. math:: G \phi_k = \lambda_k C \phi_k, \qquad \phi_j^{\mathsf T} C \phi_k = \delta_{jk}, \qquad
        0 = \lambda_0 \le \lambda_1 \le \dots

    They are computed once, on the host: a second for a thousand nodes, a minute for 512 of ten thousand nodes. A
    pytree: give it to a model as an argument.

    Args:
        mesh: the mesh.
        num_modes: how many.

    Raises:
        TypeError: ``mesh`` is no mesh, or ``num_modes`` no integer.
        ValueError: ``num_modes`` is not from 1 to the number of nodes.
    """

    mesh: Mesh
    eigenvalues: Float[Array, " m"]
    modes: Float[Array, "n m"]

    def __init__(self, mesh: Mesh, num_modes: int):
        self.mesh = check_instance("Eigenbasis", "mesh", mesh, Mesh, "a Mesh")
        m = check_count("Eigenbasis", "num_modes", num_modes)
        if m > mesh.size:
            raise ValueError(f"Eigenbasis: `num_modes` must be at most {mesh.size}, the number of nodes; got {m}.")
        stiffness, mass = mesh.stiffness_matrix, mesh.mass_matrix
        if mesh.size <= DENSE or m > mesh.size // 8:  # then the sparse solver would take longer
            values, vectors = eigh(stiffness.toarray(), mass.toarray(), subset_by_index=(0, m - 1))
        else:
            shift = -stiffness.diagonal().mean() / mass.diagonal().mean() / mesh.size
            start = np.random.default_rng(0).normal(size=mesh.size)
            values, vectors = eigsh(stiffness.tocsc(), m, mass.tocsc(), sigma=shift, v0=start)
            order = np.argsort(values)
            values, vectors = values[order], vectors[:, order]
        vectors = vectors * np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(m)])
        with jax.ensure_compile_time_eval():
            self.eigenvalues = jnp.asarray(np.maximum(values, 0.0))
            self.modes = jnp.asarray(vectors)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(num_modes,)``: of the coefficients of a function."""
        return (self.num_modes,)

    def interpolation(self, points: Float[Array, "m d"]) -> LinearOperator:
        """From the coefficients of a function to its values at scattered points: one matrix, of points by modes, where
        the points are fewer than the nodes.

        Raises:
            TypeError, ValueError: as :meth:`Mesh.interpolation`.
        """
        at = self.mesh.interpolation(points)
        if at.out_shape[0] >= self.mesh.size:
            return at @ Matrix(self.modes)
        return Matrix(jax.vmap(at, in_axes=1, out_axes=1)(self.modes))

    @property
    def num_modes(self) -> int:
        """Number of eigenfunctions."""
        return self.modes.shape[-1]
