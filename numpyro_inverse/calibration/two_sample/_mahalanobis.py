"""Truths against the Gaussians that claim to be their posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import solve_triangular
from scipy.stats import chi2, kstest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distances of truths, and the Kolmogorov-Smirnov test of their chi-square law.

    Attributes:
        squared_distances: one per truth.
        degrees: of freedom.
        statistic: the Kolmogorov-Smirnov distance.
        p_value: exact.
    """

    squared_distances: Float[np.ndarray, " n"]
    degrees: int
    statistic: float
    p_value: float

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        outcome = "rejected" if self.p_value <= level else "not rejected"
        ratio = np.mean(self.squared_distances) / self.degrees
        return (
            f"Mahalanobis: mean squared distance {ratio:.3g} per degree of freedom; the Gaussian is {outcome} at level "
            f"{level:g} (p = {self.p_value:.3g})."
        )

    def plot(self) -> Figure:
        """Distances against their expected quantiles."""
        from matplotlib import pyplot as plt

        n = len(self.squared_distances)
        expected = chi2.ppf((np.arange(n) + 0.5) / n, self.degrees)
        figure, ax = plt.subplots(figsize=(3.4, 3.2), layout="constrained")
        ax.plot(expected, np.sort(self.squared_distances), ".", ms=3)
        ax.plot(expected[[0, -1]], expected[[0, -1]], color="0.4", lw=0.8)
        ax.set_xlabel(f"chi-square quantile, {self.degrees} degrees of freedom")
        ax.set_ylabel("squared distance of the truth")
        ax.set_title(f"p = {self.p_value:.2g}", fontsize=9)
        return figure


def mahalanobis(
    truths: Float[Array, "n d"], means: Float[Array, "n d"], covariances: Float[Array, "d d"] | Float[Array, "n d d"]
) -> Mahalanobis:
    r""":math:`(\theta^* - m)^T \Gamma^{-1} (\theta^* - m) \sim \chi^2_d` for truths of the prior and their Gaussian
    posteriors :math:`N(m(y), \Gamma)`.

    Args:
        truths: :math:`\theta^*_i`.
        means: posterior means, one per truth.
        covariances: one for all, or one each.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a covariance that is not positive definite.
    """
    theta, m, cov = (np.asarray(v, float) for v in (truths, means, covariances))
    if theta.ndim != 2 or m.shape != theta.shape or cov.shape[-2:] != (theta.shape[1],) * 2:
        raise ValueError(
            f"mahalanobis: `truths` and `means` must be (n, d) and `covariances` (d, d) or (n, d, d); got "
            f"{theta.shape}, {m.shape} and {cov.shape}."
        )
    if not all(np.all(np.isfinite(v)) for v in (theta, m, cov)):
        raise ValueError("mahalanobis: numbers that are not finite.")
    try:
        roots = np.linalg.cholesky(cov)
    except np.linalg.LinAlgError as error:
        raise ValueError("mahalanobis: `covariances` must be positive definite.") from error
    off = theta - m
    if cov.ndim == 2:
        white = solve_triangular(roots, off.T, lower=True).T
    else:
        white = np.linalg.solve(roots, off[..., None])[..., 0]
    squares = np.sum(white**2, axis=1)
    found = kstest(squares, chi2(theta.shape[1]).cdf)
    return Mahalanobis(squares, theta.shape[1], float(found.statistic), float(found.pvalue))
