"""The directions that the data inform: eigenpairs of the misfit's Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._linalg import randomized_eigenpairs

SMALLEST = -0.9  # eigenvalue that is kept: beyond -1 the reference would have no covariance


class InformedDirections(NamedTuple):
    r""":math:`\Lambda` and :math:`V`: what the data say beyond the prior, in whitened coordinates.

    Attributes:
        values: eigenvalues of the misfit's Gauss-Newton Hessian, descending; the data shrink the prior's standard
            deviation along a direction by :math:`(1 + \lambda)^{-1/2}`.
        vectors: orthonormal columns.
    """

    values: Float[Array, "r"]
    vectors: Float[Array, "n r"]

    def components(self, u: Float[Array, "n"]) -> Float[Array, "r"]:
        r""":math:`V^T u`."""
        return jnp.matmul(u, self.vectors, precision="highest")

    def change(self, u: Float[Array, "n"], function: Callable) -> Float[Array, "n"]:
        r""":math:`(I - V V^T) u + V f(V^T u)`, in O(n r)."""
        old = self.components(u)
        return u + jnp.matmul(self.vectors, function(old) - old, precision="highest")


def informed_directions(product: Callable, like: Float[Array, "n"], rank: int, key: Array) -> InformedDirections:
    """The dominant eigenpairs of the misfit's Hessian, known by its products; no eigenvalue is below -0.9."""
    values, vectors = randomized_eigenpairs(product, like, rank, key)
    return InformedDirections(jnp.maximum(values, SMALLEST), vectors)
