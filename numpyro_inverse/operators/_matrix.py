"""A dense matrix as an operator."""

from collections.abc import Sequence
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from numpyro_inverse.operators._inputs import finite_numbers, grid_shape, in_precision_of
from numpyro_inverse.operators._linear_operator import LinearOperator


class Matrix(LinearOperator):
    """A real or complex matrix acting on raveled (row-major) arrays.

    Args:
        matrix: shape ``(out_size, in_size)``. May be traced.
        in_shape: shape of the arrays acted on, of size ``in_size``; default ``(in_size,)``.
        out_shape: shape of the result, of size ``out_size``; default ``(out_size,)``.

    Raises:
        TypeError: ``matrix`` is not of numbers, or a shape not of integers.
        ValueError: ``matrix`` is no matrix or not finite, or a shape does not have its size.
    """

    matrix: Inexact[Array, "m n"]
    in_shape: tuple[int, ...] = eqx.field(static=True)
    out_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        matrix: Inexact[Array, "m n"],
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
    ):
        matrix = jnp.asarray(finite_numbers("Matrix", "matrix", matrix))
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(f"Matrix: `matrix` must be a matrix; got shape {matrix.shape}.")
        if jnp.issubdtype(matrix.dtype, jnp.integer):
            matrix = matrix.astype(float)
        self.matrix = matrix
        self.in_shape = _shape_of_size("in_shape", in_shape, matrix.shape[1])
        self.out_shape = _shape_of_size("out_shape", out_shape, matrix.shape[0])

    def mv(self, x):
        matrix = in_precision_of(x, self.matrix)
        y = jnp.matmul(matrix, x.ravel().astype(matrix.dtype), precision=jax.lax.Precision.HIGHEST)
        return y.reshape(self.out_shape)

    def norm_bound(self):
        """The norm itself, by SVD, with a relative margin for rounding."""
        return jnp.linalg.norm(self.matrix, ord=2) * (1 + max(self.matrix.shape) * jnp.finfo(self.matrix.dtype).eps)


def _shape_of_size(name: str, shape: Sequence[int] | None, size: int) -> tuple[int, ...]:
    if shape is None:
        return (size,)
    shape = grid_shape("Matrix", shape, name=name, any_ndim=True)
    if prod(shape) != size:
        raise ValueError(f"Matrix: `{name}` {shape} has {prod(shape)} entries, but the matrix wants {size}.")
    return shape
