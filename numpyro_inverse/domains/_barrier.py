"""A mesh with a physical barrier in it."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.linalg import splu

from numpyro_inverse._checks import check_fraction, check_instance
from numpyro_inverse.domains._finite_elements import padded_rows, stiffness_matrix, weighted_mass
from numpyro_inverse.domains._mesh import Mesh
from numpyro_inverse.sparse import Pattern


class Barrier(eqx.Module):
    r"""A mesh some of whose simplices are a physical barrier, such as land in the sea: for
    :class:`~numpyro_inverse.distributions.BarrierMatern`.

    Within the barrier the range is a small fraction f of that outside, so that nothing comes through it.

    Args:
        mesh: the mesh, which covers the barrier, too.
        inside: for each simplex, whether it belongs to the barrier.
        fraction: f.

    Raises:
        TypeError: ``mesh`` is no mesh, or ``inside`` no array of booleans.
        ValueError: not one for each simplex; all or none of them; a fraction that is not between 0 and 1.
    """

    mesh: Mesh
    inside: Bool[Array, " e"]
    stiffness: Float[Array, " nnz"]  # G_1 + f^2 G_2
    noise: WeightedMass  # C_1 + f^d C_2
    fraction: float = eqx.field(static=True)

    def __init__(self, mesh: Mesh, inside: Bool[np.ndarray, " e"], *, fraction: float = 0.1):
        name = "Barrier"
        self.mesh = check_instance(name, "mesh", mesh, Mesh, "a Mesh")
        inside = np.asarray(inside)
        if inside.dtype != bool:
            raise TypeError(f"{name}: `inside` must be booleans, one for each simplex; got an array of {inside.dtype}.")
        if inside.shape != (len(mesh.simplices),) or inside.all() or not inside.any():
            raise ValueError(
                f"{name}: `inside` must be true for some of the {len(mesh.simplices)} simplices and false for others; "
                f"got shape {inside.shape}, {int(inside.sum())} of them true."
            )
        f = self.fraction = check_fraction(name, "fraction", fraction)
        parts = [mesh.simplices[~inside], mesh.simplices[inside]]
        stiffness = sum(w * stiffness_matrix(mesh.points, part) for w, part in zip((1.0, f**2), parts, strict=True))
        weight = np.where(inside, f**mesh.manifold_dim, 1.0)
        with jax.ensure_compile_time_eval():
            self.inside = jnp.asarray(inside)
            self.stiffness = mesh.pattern.values(stiffness)
            self.noise = WeightedMass(mesh, weighted_mass(mesh.points, mesh.simplices, weight))


class WeightedMass(eqx.Module):
    """A mass matrix with a weight in each simplex, as :class:`Mesh` holds its own; the bounds of its spectrum after
    scaling hold for each simplex, so for any weights."""

    pattern: Pattern
    mass: Float[Array, " nnz"]
    neighbors: Int[Array, "n w"]
    scaled_mass: Float[Array, "n w"]
    logdet: float = eqx.field(static=True)
    manifold_dim: int = eqx.field(static=True)

    def __init__(self, mesh: Mesh, matrix: sp.csr_array):
        self.pattern, self.manifold_dim = mesh.pattern, mesh.manifold_dim
        self.mass = mesh.pattern.values(matrix)
        neighbors, scaled = padded_rows(matrix)
        self.neighbors, self.scaled_mass = jnp.asarray(neighbors, jnp.int32), jnp.asarray(scaled)
        self.logdet = float(np.sum(np.log(np.abs(splu(matrix.tocsc()).U.diagonal()))))
