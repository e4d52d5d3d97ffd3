"""Where data lie among the simulated ones: what a surrogate says of others is an extrapolation."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

NEIGHBORS = 5
POINTS, OTHERS = 5000, 1000  # simulations that make the region, and others that tell how far from it is usual
DIRECTIONS = 64  # at random, to which distances among more numbers are reduced


class Position(NamedTuple):
    """How far data are from the simulated ones.

    Attributes:
        distance: mean distance to the nearest simulations, in their standard deviations.
        usual: the median of that distance for simulations themselves.
        p_value: the share of simulations that are as far.
    """

    distance: float
    usual: float
    p_value: float

    @property
    def outside(self) -> bool:
        """Whether data are farther than all simulations that were compared."""
        return self.p_value <= 1.5 / OTHERS


class Region:
    r"""The region of some simulations: distances to the five nearest of 5000, against those of 1000 others.

    For data like the simulated ones, ``outside`` is a false alarm once in 1000.

    Args:
        rows: simulations, in the coordinates in which distances are taken once standardized.
    """

    def __init__(self, rows: Float[np.ndarray, "n d"]):
        rows = np.asarray(rows, float)
        self._mean, spread = rows.mean(axis=0), rows.std(axis=0)
        self._scale = np.where(spread > 0, spread, 1.0)
        size = rows.shape[1]
        noise = np.random.default_rng(0).normal(size=(size, DIRECTIONS)) / np.sqrt(DIRECTIONS)
        self._projection = noise if size > DIRECTIONS else np.eye(size)
        rows = self._standardized(rows[: OTHERS + POINTS])
        others = min(OTHERS, len(rows) // 3)
        self._tree = KDTree(rows[others : others + POINTS])
        self._reference = np.sort(self._distances(rows[:others]))

    def _standardized(self, rows: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        return (rows - self._mean) / self._scale @ self._projection

    def _distances(self, standardized: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        nearest, _ = self._tree.query(standardized, min(NEIGHBORS, self._tree.n))
        return nearest.reshape(len(standardized), -1).mean(axis=1)

    def position(self, row: Float[np.ndarray, " d"]) -> Position:
        """Of one data set, or the farthest of several."""
        row = np.atleast_2d(np.asarray(row, float))
        distance = float(self._distances(self._standardized(row)).max())
        as_far = len(self._reference) - np.searchsorted(self._reference, distance)
        # Of several the farthest counts: Bonferroni's correction.
        p_value = min(1.0, len(row) * (as_far + 1) / (len(self._reference) + 1))
        return Position(distance, float(np.median(self._reference)), p_value)

    def share_outside(self, rows: Float[np.ndarray, "m d"]) -> float:
        """How many rows are farther than all simulations that were compared."""
        return float(np.mean(self._distances(self._standardized(np.asarray(rows, float))) > self._reference[-1]))

    def tell(self, where: str, what: str, row: Float[np.ndarray, " d"]) -> None:
        """Warn if data are outside."""
        found = self.position(row)
        if found.outside:
            warnings.warn(
                f"{where}: {what} is farther from the simulations than any of {len(self._reference)} of them: "
                f"{found.distance:.3g} standard deviations from the nearest, where {found.usual:.3g} is usual. What "
                "was learned does not hold there: the model cannot produce such data, or too few simulations did.",
                stacklevel=4,
            )
