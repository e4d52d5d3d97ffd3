"""Averages over blocks of cells."""

from collections.abc import Sequence
from math import prod

import equinox as eqx

from numpyro_inverse.operators._inputs import grid_shape, per_axis
from numpyro_inverse.operators._linear_operator import LinearOperator


class BlockAverage(LinearOperator):
    r"""Means over blocks of :math:`f_1 \times \dots \times f_d` cells: what a coarser detector sees.

    Norm :math:`(f_1 \cdots f_d)^{-1/2}`.

    Args:
        shape: the shape of the array acted on.
        factor: cells per block; one for all axes or one each.

    Raises:
        ValueError: a ``factor`` that is not a positive integer or does not divide its axis.
    """

    in_shape: tuple[int, ...] = eqx.field(static=True)
    factor: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: int | Sequence[int], factor: int | Sequence[int]):
        self.in_shape = grid_shape("BlockAverage", shape, any_ndim=True)
        factors = per_axis("BlockAverage", "factor", factor, len(self.in_shape))
        if any(isinstance(f, bool) or int(f) != f or f < 1 for f in factors):
            raise ValueError(f"BlockAverage: `factor` must be positive integers; got {factor}.")
        self.factor = tuple(int(f) for f in factors)
        if any(n % f for n, f in zip(self.in_shape, self.factor, strict=True)):
            raise ValueError(
                f"BlockAverage: `factor` {self.factor} does not divide the shape {self.in_shape}; crop or pad the "
                "array to a multiple first."
            )

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(n // f for n, f in zip(self.in_shape, self.factor, strict=True))

    def mv(self, x):
        blocks = [size for pair in zip(self.out_shape, self.factor, strict=True) for size in pair]
        return x.reshape(blocks).mean(axis=tuple(range(1, len(blocks), 2)))

    def norm_bound(self):
        """Exactly one over the square root of the number of cells in a block: the rows are orthogonal."""
        return prod(self.factor) ** -0.5
