"""From a grid to scattered points: multilinear and trigonometric interpolation as linear operators."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from numpyro_inverse._arrays import as_jax
from numpyro_inverse.operators._linear_operator import LinearOperator

GRAM_LIMIT = 4096  # points up to which the norm is bounded


class MultilinearInterpolation(LinearOperator):
    """Values at points from the ``2**d`` surrounding cell centers; made by ``Grid.multilinear_interpolation``."""

    index: Int[Array, "corners m"]
    weight: Float[Array, "corners m"]
    in_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        points: np.ndarray,
        shape: tuple[int, ...],
        spacing: tuple[float, ...],
        boundary: tuple[str, ...],
    ):
        stencils = [
            _linear_stencil(points[:, a] / h - 0.5, n, b)
            for a, (n, h, b) in enumerate(zip(shape, spacing, boundary, strict=True))
        ]
        index, weight = [], []
        for corner in product((0, 1), repeat=len(shape)):
            sides = [stencils[a][side] for a, side in enumerate(corner)]
            index.append(np.ravel_multi_index(tuple(i for i, _ in sides), shape))
            weight.append(np.prod([w for _, w in sides], axis=0))
        self.index = as_jax(np.stack(index))
        self.weight = as_jax(np.stack(weight), jnp.result_type(float))
        self.in_shape = shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.index.shape[1],)

    def mv(self, x):
        return jnp.sum(self.weight.astype(x.dtype) * jnp.ravel(x)[self.index], axis=0)

    def norm_bound(self):
        """The bound sqrt(largest row sum x largest column sum), which holds for every matrix."""
        w = jnp.abs(self.weight)
        columns = jnp.zeros(prod(self.in_shape), w.dtype).at[self.index].add(w)
        return jnp.sqrt(jnp.max(jnp.sum(w, axis=0)) * jnp.max(columns))


def _linear_stencil(t: np.ndarray, n: int, boundary: str):
    """The two neighbors of position ``t`` (in cells from the first center), as ((index, weight), (index, weight))."""
    left = np.floor(t).astype(int)
    fraction = t - left
    sides = []
    for i, w in ((left, 1 - fraction), (left + 1, fraction)):
        ghost = (i < 0) | (i >= n)
        if boundary == "dirichlet":
            w = np.where(ghost, -w, w)
        sides.append((i % n if boundary == "periodic" else np.clip(i, 0, n - 1), w))
    return sides


class TrigonometricInterpolation(LinearOperator):
    """Values of a field's series at scattered points; made by ``Grid.interpolation``.

    Row ``j`` is the outer product of one row of each factor: ``u(x_j) = sum_i prod_a F_a[j, i_a] u[i]``.
    """

    factors: tuple[Float[Array, "m n"], ...]

    def __init__(self, factors: Sequence[np.ndarray]):
        self.factors = tuple(as_jax(f, jnp.result_type(float)) for f in factors)

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(f.shape[1] for f in self.factors)

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.factors[0].shape[0],)

    def mv(self, x):
        *others, last = [f.astype(x.dtype) for f in self.factors]
        y = jnp.einsum("...n,mn->...m", x, last, precision="highest")
        for f in reversed(others):
            y = jnp.einsum("...nm,mn->...m", y, f, precision="highest")
        return y

    def norm_bound(self):
        r"""A bound by :math:`\|A\|^2 \le \max_j \sum_k |A A^{\mathsf T}|_{jk}` for up to 4096 points, else None.

        The products of rows of A are products of rows of the factors.
        """
        m = self.out_shape[0]
        if m > GRAM_LIMIT:
            return None
        gram = jnp.ones((m, m), self.factors[0].dtype)
        for f in self.factors:
            gram = gram * jnp.matmul(f, f.T, precision="highest")
        margin = 1 + (m + sum(self.in_shape)) * jnp.finfo(gram.dtype).eps
        return margin * jnp.sqrt(jnp.max(jnp.sum(jnp.abs(gram), axis=1)))
