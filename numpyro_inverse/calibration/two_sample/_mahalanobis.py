"""Truths against the Gaussians that claim to be their posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import solve_triangular
from scipy.stats import chi2, kstest

from numpyro_inverse._checks import check_finite, check_fraction, check_static
from numpyro_inverse.calibration.two_sample._significance import check_covariance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIMULATIONS = 999  # of the null of the covariance test


@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distances of truths, and tests that whitened truths are standard normal.

    Attributes:
        squared_distances: one per truth.
        degrees: of freedom.
        statistic: the Kolmogorov-Smirnov distance of the squared distances from their chi-square law.
        p_values: of the distances, of the mean and of the covariance of the whitened truths.
    """

    squared_distances: Float[np.ndarray, " n"]
    degrees: int
    statistic: float
    p_values: dict[str, float]

    @property
    def p_value(self) -> float:
        """Of the three together (Bonferroni)."""
        return min(1.0, len(self.p_values) * min(self.p_values.values()))

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        level = check_fraction("Mahalanobis.verdict", "level", level)
        outcome = "rejected" if self.p_value <= level else "not rejected"
        ratio = np.mean(self.squared_distances) / self.degrees
        worst = min(self.p_values, key=self.p_values.__getitem__)
        return (
            f"Mahalanobis: mean squared distance {ratio:.3g} per degree of freedom; the Gaussian is {outcome} at level "
            f"{level:g} (p = {self.p_value:.3g}, smallest for the {worst})."
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
    r"""Test truths of the prior against their Gaussian posteriors :math:`N(m_i, \Gamma_i)`.

    The whitened truths :math:`w_i = L_i^{-1} (\theta^*_i - m_i)`, :math:`L_i L_i^T = \Gamma_i`, are independent and
    standard normal. Three tests, each with its exact null distribution:

    - distances: :math:`|w_i|^2 \sim \chi^2_d`, by Kolmogorov and Smirnov; sees width, hardly a shift;
    - mean: :math:`n |\bar w|^2 \sim \chi^2_d`; sees a shift that is common to the data sets;
    - covariance: :math:`\operatorname{tr} (S - I)^2`, :math:`S = \frac1n \sum_i w_i w_i^T`, against 999 simulated
      Wishart matrices; sees width and correlations.

    Args:
        truths: :math:`\theta^*_i`.
        means: posterior means, one per truth.
        covariances: one for all, or one each.

    Raises:
        ValueError: shapes that do not fit, fewer than two truths, numbers that are not finite, a covariance that is
            not symmetric and positive definite.
        TypeError: what are no real numbers.

    References:
        Nagao, Annals of Statistics 1 (1973) 700-709, on the test of a covariance.
    """
    theta, m, cov = (
        np.asarray(check_finite("mahalanobis", name, check_static("mahalanobis", name, value)), float)
        for name, value in (("truths", truths), ("means", means), ("covariances", covariances))
    )
    if theta.ndim != 2 or len(theta) < 2 or not theta.size or m.shape != theta.shape:
        raise ValueError(
            f"mahalanobis: `truths` and `means` must be (n, d), n 2 or more; got {theta.shape} and {m.shape}."
        )
    n, d = theta.shape
    if cov.shape not in ((d, d), (n, d, d)):
        raise ValueError(f"mahalanobis: `covariances` must be {(d, d)} or {(n, d, d)}; got {cov.shape}.")
    roots = np.linalg.cholesky(check_covariance("mahalanobis", "covariances", cov))
    off = theta - m
    if cov.ndim == 2:
        white = solve_triangular(roots, off.T, lower=True).T
    else:
        white = np.linalg.solve(roots, off[..., None])[..., 0]
    squares = np.sum(white**2, axis=1)
    found = kstest(squares, chi2(d).cdf)
    null = _wishart_null(n, d)
    departure = _departure(white.T @ white if d <= n else white @ white.T, n, d)
    p_values = {
        "distances": float(found.pvalue),
        "mean": float(chi2.sf(n * np.sum(np.mean(white, axis=0) ** 2), d)),
        "covariance": float((1 + np.sum(null >= departure)) / (1 + len(null))),
    }
    return Mahalanobis(squares, d, float(found.statistic), p_values)


def _departure(gram: Float[np.ndarray, "k k"], n: int, d: int) -> float:
    """tr (S - I)^2 from the Gram matrix of rows or of columns, whichever is smaller."""
    return float(np.sum(gram**2) / n**2 - 2 * np.trace(gram) / n + d)


@lru_cache(maxsize=16)
def _wishart_null(n: int, d: int) -> Float[np.ndarray, " simulations"]:
    """Departures of standard normal samples, through Bartlett's decomposition of the smaller Gram matrix."""
    small, large = min(n, d), max(n, d)
    rng = np.random.default_rng(0)
    found = np.empty(SIMULATIONS)
    for i in range(SIMULATIONS):
        root = np.tril(rng.normal(size=(small, small)), -1)
        np.fill_diagonal(root, np.sqrt(rng.chisquare(large - np.arange(small))))
        found[i] = _departure(root.T @ root, n, d)  # the square of either product has the same trace
    return found
