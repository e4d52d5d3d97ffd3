"""The projection of a field on a mesh that is orthogonal in the norm of its equation."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from numpyro_inverse.distributions._mass_functions import symmetric_product
from numpyro_inverse.domains import Mesh
from numpyro_inverse.operators._linear_operator import LinearOperator
from numpyro_inverse.sparse import Cholesky, Pattern


@jax.jit
def factorized(pattern: Pattern, values: Array) -> Cholesky:
    """Compiled by itself, for matrices that are factorized outside of a model."""
    return pattern.factor(values)


class RitzProjection(LinearOperator):
    r""":math:`u \mapsto K_H^{-1} R K_h u`; made by ``MaternMesh.ritz_projection``."""

    factor: Cholesky
    interpolation: LinearOperator
    fine: Mesh
    values: Float[Array, " nnz"]

    def __init__(self, factor: Cholesky, interpolation: LinearOperator, fine: Mesh, values: Float[Array, " nnz"]):
        self.factor, self.interpolation, self.fine, self.values = factor, interpolation, fine, values

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.interpolation.out_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.interpolation.in_shape

    def mv(self, x):
        return self.factor.solve(self.interpolation.T(symmetric_product(self.fine, self.values, x)))
