"""What a test returns, and what all of them ask of their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_finite, check_fraction, check_static

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SYMMETRIC = 1e-5  # of the largest entry: rounding in single precision


@dataclass(frozen=True)
class SignificanceTest:
    """A statistic beside draws of its null distribution.

    Attributes:
        name: of the test.
        statistic: large values speak against the null hypothesis.
        null: the statistic under the null hypothesis, drawn by permutation, bootstrap or simulation.
        p_value: (1 + number of ``null`` at or above ``statistic``) / (1 + their number), unless the test knows better.
    """

    name: str
    statistic: float
    null: Float[np.ndarray, " draws"]
    p_value: float

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        level = check_fraction("SignificanceTest.verdict", "level", level)
        outcome = "rejected" if self.p_value <= level else "not rejected"
        return f"{self.name}: {self.statistic:.4g}; equality is {outcome} at level {level:g} (p = {self.p_value:.3g})."

    def plot(self) -> Figure:
        """The null distribution with the statistic in it."""
        from matplotlib import pyplot as plt

        figure, ax = plt.subplots(figsize=(4.5, 2.8), layout="constrained")
        ax.hist(self.null, bins=min(40, 5 + len(self.null) // 10), color="0.8", label="if they are equal")
        ax.axvline(self.statistic, color="C3", label=f"found, p = {self.p_value:.2g}")
        ax.set_xlabel(self.name)
        ax.set_yticks([])
        ax.legend(frameon=False, fontsize=8)
        return figure


def against_null(
    name: str, statistic: float | Array, null: Float[Array, " draws"] | Float[np.ndarray, " draws"]
) -> SignificanceTest:
    """The test with the p-value of a Monte-Carlo null, which is never 0 and exact for exchangeable draws."""
    null = np.asarray(null, float)
    found = float(statistic)
    if not np.isfinite(found) or not np.all(np.isfinite(null)):
        raise ValueError(f"{name}: the statistic is not finite; scale the draws.")
    slack = 1e-6 * np.std(null) if len(null) else 0.0  # ties that differ by rounding are ties
    return SignificanceTest(name, found, null, float((1 + np.sum(null >= found - slack)) / (1 + len(null))))


def checked_draws(name: str, argument: str, draws: Float[Array, "n *shape"]) -> Float[np.ndarray, "n d"]:
    """Draws as rows.

    Raises:
        TypeError: what are no real numbers.
        ValueError: fewer than ten draws, numbers that are not finite, or draws that are all the same.
    """
    rows = np.asarray(check_finite(name, argument, check_static(name, argument, draws)))
    if rows.ndim == 0 or len(rows) < 10:
        raise ValueError(f"{name}: `{argument}` needs 10 draws at least, first axis; got shape {rows.shape}.")
    rows = rows.reshape(len(rows), -1).astype(float)
    if rows.shape[1] == 0 or np.all(rows == rows[:1]):
        raise ValueError(f"{name}: all draws of `{argument}` are identical; got shape {np.shape(draws)}.")
    return rows


def checked_pair(name: str, x: Float[Array, "n *shape"], y: Float[Array, "m *shape"]) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of the same dimension, as rows.

    Raises:
        ValueError: as :func:`checked_draws`; dimensions that differ.
    """
    first, second = checked_draws(name, "x", x), checked_draws(name, "y", y)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{name}: draws of `x` have {first.shape[1]} numbers each, those of `y` {second.shape[1]}.")
    return first, second


def check_permutations(name: str, number: int, argument: str = "num_permutations") -> int:
    """19 or more, for with fewer a p-value cannot be below 0.05."""
    return check_count(name, argument, number, 19)


def check_covariance(
    name: str, argument: str, covariance: Float[np.ndarray, "*batch d d"], *, singular: bool = False
) -> Float[np.ndarray, "*batch d d"]:
    """Symmetric, positive definite matrices, symmetric to the last bit when they leave.

    Raises:
        ValueError: an asymmetric or indefinite one; a singular one unless that is allowed.
    """
    flipped = np.swapaxes(covariance, -1, -2)
    scale = np.max(np.abs(covariance), axis=(-1, -2), keepdims=True, initial=0.0)
    if np.any(np.abs(covariance - flipped) > SYMMETRIC * scale):
        raise ValueError(
            f"{name}: `{argument}` must be symmetric; entries differ from their mirror images by as much as "
            f"{np.max(np.abs(covariance - flipped)):.3g}."
        )
    covariance = (covariance + flipped) / 2
    smallest = np.linalg.eigvalsh(covariance)[..., 0] if covariance.size else np.ones(1)
    least = -SYMMETRIC * scale[..., 0, 0] if singular else np.zeros(())
    if np.any(smallest < least) or (not singular and np.any(smallest <= 0)):
        kind = "positive semi-definite" if singular else "positive definite"
        raise ValueError(f"{name}: `{argument}` must be {kind}; the smallest eigenvalue is {np.min(smallest):.3g}.")
    return covariance
