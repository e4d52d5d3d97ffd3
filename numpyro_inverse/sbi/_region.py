"""Where data lie among the simulated ones: what a surrogate says of others is an extrapolation."""

from __future__ import annotations

import warnings
from typing import NamedTuple, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import KDTree
from scipy.stats import binom

NEIGHBORS = 5
POINTS, OTHERS = 5000, 1000  # simulations that make the region, and others that tell how far from it is usual
FAR = 2.0  # times the largest usual distance
DIRECTIONS = 64  # at random, to which distances among more numbers are reduced


class Position(NamedTuple):
    """How far data are from the simulated ones.

    Attributes:
        distance: of the farthest: mean distance to the nearest simulations, in their standard deviations.
        usual: the median of that distance for simulations themselves.
        p_value: probability that so many of them are farther than all simulations that were compared.
        outside: whether that is less likely than 1 in 1000, or the farthest is twice as far as any simulation.
    """

    distance: float
    usual: float
    p_value: float
    outside: bool


class Region(eqx.Module):
    r"""The region of some simulations: distances to the five nearest of 5000, against those of 1000 others.

    For data like the simulated ones a warning is a false alarm once in 1000.

    Attributes:
        points: simulations, standardized, reduced to random directions where there are many numbers.
        usual: distances of other simulations, sorted.
        mean: of the simulations.
        scale: their standard deviations.
    """

    points: Float[Array, "n k"]
    usual: Float[Array, " m"]
    mean: Float[Array, " d"]
    scale: Float[Array, " d"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "n d"]) -> Self:
        """The region of simulations, in the coordinates in which distances are taken once standardized."""
        rows = np.asarray(rows[: OTHERS + POINTS], float)
        spread = rows.std(axis=0)
        bare = cls.empty(len(rows), rows.shape[1])
        region = eqx.tree_at(
            lambda r: (r.mean, r.scale),
            bare,
            (jnp.asarray(rows.mean(axis=0)), jnp.asarray(np.where(spread > 0, spread, 1))),
        )
        reduced, others = region._reduced(rows), len(bare.usual)
        region = eqx.tree_at(lambda r: r.points, region, jnp.asarray(reduced[others:]))
        return eqx.tree_at(lambda r: r.usual, region, jnp.asarray(np.sort(region._distances(reduced[:others]))))

    @classmethod
    def empty(cls, num: int, size: int) -> Self:
        """Of ``num`` simulations of ``size`` numbers, none of them known yet."""
        others, directions = min(OTHERS, num // 3), min(size, DIRECTIONS)
        return cls(jnp.zeros((num - others, directions)), jnp.zeros(others), jnp.zeros(size), jnp.ones(size))

    @property
    def num(self) -> int:
        """Simulations in it."""
        return len(self.points) + len(self.usual)

    def _reduced(self, rows: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        standard = (rows - np.asarray(self.mean)) / np.asarray(self.scale)
        size, directions = standard.shape[1], self.points.shape[1]
        if size == directions:
            return standard
        return standard @ (np.random.default_rng(0).normal(size=(size, directions)) / np.sqrt(directions))

    def _distances(self, reduced: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " m"]:
        nearest, _ = KDTree(np.asarray(self.points)).query(reduced, NEIGHBORS)
        return nearest.mean(axis=1)

    def position(self, rows: Float[np.ndarray, "m d"]) -> Position:
        """Of some data, such as the simulations are."""
        usual, found = np.asarray(self.usual), self._distances(self._reduced(np.asarray(rows, float)))
        beyond, chance = int(np.sum(found > usual[-1])), 1 / (len(usual) + 1)
        p_value = float(binom.sf(beyond - 1, len(found), chance))
        outside = p_value < 1.5 * chance or float(found.max()) > FAR * usual[-1]
        return Position(float(found.max()), float(np.median(usual)), p_value, outside)

    def share_outside(self, rows: Float[np.ndarray, "m d"]) -> float:
        """How many rows are farther than all simulations that were compared."""
        return float(np.mean(self._distances(self._reduced(np.asarray(rows, float))) > np.max(self.usual)))

    def tell(self, where: str, what: str, rows: Float[np.ndarray, "m d"]) -> None:
        """Warn if data are farther than all simulations that were compared."""
        found = self.position(rows)
        if found.outside:
            warnings.warn(
                f"{where}: {what} is farther from the simulations than any of {len(self.usual)} of them: "
                f"{found.distance:.3g} standard deviations from the nearest, where {found.usual:.3g} is usual. What "
                "was learned does not hold there: the model cannot produce such data, or too few simulations did.",
                stacklevel=4,
            )
