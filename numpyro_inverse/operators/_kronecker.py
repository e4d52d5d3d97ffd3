"""Separable operators: one matrix per axis."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from numpyro_inverse._checks import describe
from numpyro_inverse.operators._inputs import finite_numbers, in_precision_of
from numpyro_inverse.operators._linear_operator import LinearOperator


def apply_along_axis(matrix: Inexact[Array, "m n"], x: Array, axis: int) -> Array:
    """``matrix`` applied along one axis of ``x``, in full precision on every backend."""
    axis = axis % x.ndim
    if axis == 0:  # the result is in place already: a quarter faster, forward and adjoint
        return jax.lax.dot_general(matrix, x, (((1,), (0,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
    out = jax.lax.dot_general(x, matrix, (((axis,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(out, -1, axis)


class Kronecker(LinearOperator):
    r""":math:`A_1 \otimes \dots \otimes A_d` on arrays of shape ``(n_1, ..., n_d)``: matrix ``i`` acts on axis ``i``.

    Cost :math:`O(N \sum_i n_i)`; nothing larger than the factors is stored. The spectral norm of a Kronecker
    product is the product of the factors' norms, which are found by a dense SVD.

    Args:
        factors: matrices of shape ``(m_i, n_i)``, real or complex. May be traced.

    Raises:
        TypeError: a factor that is not of numbers.
        ValueError: no factor, or one that is no matrix or not finite.
    """

    factors: tuple[Inexact[Array, "m n"], ...]

    def __init__(self, factors: Sequence[Inexact[Array, "m n"]]):
        if isinstance(factors, str) or not hasattr(factors, "__iter__"):
            raise TypeError(f"Kronecker: `factors` must be a list of matrices; got {describe(factors)}.")
        self.factors = tuple(jnp.asarray(finite_numbers("Kronecker", "factors", f)) for f in factors)
        if not self.factors or any(f.ndim != 2 or f.size == 0 for f in self.factors):
            raise ValueError(f"Kronecker: `factors` must be matrices; got shapes {[f.shape for f in self.factors]}.")

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(f.shape[1] for f in self.factors)

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(f.shape[0] for f in self.factors)

    def mv(self, x):
        for axis, factor in enumerate(self.factors):
            factor = in_precision_of(x, factor)
            x = apply_along_axis(factor, x.astype(factor.dtype), axis)
        return x

    def norm_bound(self):
        """The norm itself, by SVD of each factor, with a relative margin for rounding."""
        norms = [jnp.linalg.norm(f, ord=2) * (1 + f.shape[1] * jnp.finfo(f.dtype).eps) for f in self.factors]
        return jnp.prod(jnp.stack(norms))
