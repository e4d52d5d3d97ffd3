"""Averages over blocks of cells."""

from collections.abc import Sequence
from math import prod

import equinox as eqx

from numpyro_inverse._checks import check_positive_number
from numpyro_inverse.operators._inputs import RegularGrid, check_grid, per_axis
from numpyro_inverse.operators._linear_operator import LinearOperator

ROUNDING = 1e-6  # of a cell


class BlockAverage(LinearOperator):
    r"""Means over blocks of :math:`f_1 \times \dots \times f_d` cells: what a coarser detector sees.

    Norm :math:`(f_1 \cdots f_d)^{-1/2}`.

    Args:
        grid: where the field lives.
        width: side lengths of a block, in the grid's length units; one for all axes or one each.

    Raises:
        TypeError: ``grid`` is no grid, or ``width`` no number.
        ValueError: a ``width`` that is not a whole number of cells, or does not divide its axis.
    """

    in_shape: tuple[int, ...] = eqx.field(static=True)
    factor: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, grid: RegularGrid, width: float | Sequence[float]):
        self.in_shape = check_grid("BlockAverage", grid).shape
        widths = per_axis("BlockAverage", "width", width, len(self.in_shape))
        widths = tuple(check_positive_number("BlockAverage", "width", w) for w in widths)
        cells = tuple(w / h for w, h in zip(widths, grid.spacing, strict=True))
        self.factor = tuple(round(f) for f in cells)
        if any(f < 1 or abs(f - c) > ROUNDING * max(c, 1) for f, c in zip(self.factor, cells, strict=True)):
            raise ValueError(
                f"BlockAverage: `width` must be whole cells; {widths} are {cells} cells of sides {grid.spacing}."
            )
        if any(n % f for n, f in zip(self.in_shape, self.factor, strict=True)):
            raise ValueError(
                f"BlockAverage: `width`, of {self.factor} cells, does not divide the shape {self.in_shape}; crop or "
                "pad the domain to a multiple first."
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
