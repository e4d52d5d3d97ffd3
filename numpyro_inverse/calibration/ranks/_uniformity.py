r"""Uniformity of ranks: exact simultaneous bands for their distribution function, and the exact test they define.

Under the null N ranks are independent and uniform on {0, ..., S}. At the grid points :math:`z_i = i / (S + 1)` the
count of ranks below i is :math:`\operatorname{Bin}(N, z_i)`; its two-sided tail probability, smallest over the grid,

.. math:: \gamma = 2 \min_i \min\{ P(X_i \le x_i),\, P(X_i \ge x_i) \},

is the statistic of Säilynoja, Bürkner & Vehtari (Statistics and Computing 32, 2022, eq. 5-8). Its distribution is
computed here, not simulated: the counts are a Poisson process on equal cells given its total, so the probability that
they stay between two boundaries is a chain of convolutions with one Poisson kernel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import fftconvolve
from scipy.stats import binom, poisson

BISECTIONS = 40
SMALLEST = 1e-30  # statistics below are taken for this; the p-value is then below its rounding error, 1e-13
DIRECT = 512  # length up to which a plain convolution beats a Fourier one


class Bands(NamedTuple):
    """Simultaneous bands for the number of ranks below i, i = 1, ..., S."""

    lower: Int[np.ndarray, " grid"]
    upper: Int[np.ndarray, " grid"]
    coverage: float


def staying_probability(
    lower: Int[np.ndarray, " grid"], upper: Int[np.ndarray, " grid"], num_ranks: int
) -> Float[np.ndarray, ""]:
    """Probability that N uniform ranks on S + 1 values have between ``lower`` and ``upper`` ranks below i, all i."""
    cells = len(lower) + 1
    kernel = poisson.pmf(np.arange(num_ranks + 1), num_ranks / cells)
    kernel = kernel[: np.max(np.nonzero(kernel > 1e-30)[0]) + 1]
    counts, first = np.ones(1), 0  # probabilities of the counts first, first + 1, ...
    for low, high in zip(lower, upper, strict=True):
        convolve = np.convolve if max(len(counts), len(kernel)) <= DIRECT else fftconvolve
        counts = np.maximum(convolve(counts, kernel), 0.0)
        counts, first = counts[max(low - first, 0) : high - first + 1], max(low, first)
        if not len(counts):
            return np.asarray(0.0)
    last = num_ranks - first - np.arange(len(counts))  # ranks left for the last value
    total = np.sum(counts * poisson.pmf(last, num_ranks / cells))
    return np.asarray(total / poisson.pmf(num_ranks, num_ranks))


def _grid(num_draws: int) -> Float[np.ndarray, " grid"]:
    return np.arange(1, num_draws + 1) / (num_draws + 1)


def _bands_at(gamma: float, num_ranks: int, num_draws: int, strict: bool) -> tuple[np.ndarray, np.ndarray]:
    """Counts whose two-sided tail probability is at least (or, ``strict``, more than) ``gamma``."""
    z = _grid(num_draws)
    allowed = (lambda p: 2 * p > gamma) if strict else (lambda p: 2 * p >= gamma)
    lower = binom.ppf(gamma / 2, num_ranks, z).astype(int)
    upper = num_ranks - binom.ppf(gamma / 2, num_ranks, 1 - z).astype(int)
    for _ in range(2):  # the quantile function is off by one where the distribution function meets gamma / 2
        lower = np.where(allowed(binom.cdf(lower - 1, num_ranks, z)) & (lower > 0), lower - 1, lower)
        lower = np.where(allowed(binom.cdf(lower, num_ranks, z)), lower, lower + 1)
        upper = np.where(allowed(binom.sf(upper, num_ranks, z)) & (upper < num_ranks), upper + 1, upper)
        upper = np.where(allowed(binom.sf(upper - 1, num_ranks, z)), upper, upper - 1)
    return lower, upper


@lru_cache(maxsize=64)
def rank_bands(num_ranks: int, num_draws: int, coverage: float = 0.94) -> Bands:
    """The narrowest bands of this family that hold all counts with probability ``coverage`` or more.

    Args:
        num_ranks: N, the number of data sets.
        num_draws: S, the draws each rank is among; ranks are 0, ..., S.
        coverage: the wanted simultaneous probability.

    Raises:
        ValueError: ``coverage`` not in (0, 1), fewer than two ranks, or no draw.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"rank_bands: `coverage` must lie in (0, 1); got {coverage}.")
    if num_ranks < 2 or num_draws < 1:
        raise ValueError(f"rank_bands: needs 2 data sets and 1 draw at least; got {num_ranks} and {num_draws}.")
    low, high = np.log((1 - coverage) / (2 * num_draws)), np.log(2 * (1 - coverage))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        held = staying_probability(*_bands_at(np.exp(middle), num_ranks, num_draws, False), num_ranks)
        low, high = (middle, high) if held >= coverage else (low, middle)
        if high - low < 1e-4:
            break
    lower, upper = _bands_at(np.exp(low), num_ranks, num_draws, False)
    return Bands(lower, upper, float(staying_probability(lower, upper, num_ranks)))


def counts_below(ranks: Int[np.ndarray, "n ..."], num_draws: int) -> Int[np.ndarray, "grid ..."]:
    """Number of ranks below i, i = 1, ..., S, along the first axis."""
    ranks = np.asarray(ranks)
    flat = ranks.reshape(len(ranks), -1)
    cells = flat + (num_draws + 1) * np.arange(flat.shape[1])
    counts = np.bincount(cells.ravel(), minlength=(num_draws + 1) * flat.shape[1]).reshape(flat.shape[1], -1)
    return np.cumsum(counts, axis=1)[:, :-1].T.reshape(num_draws, *ranks.shape[1:])


def rank_statistics(ranks: Int[np.ndarray, "n ..."], num_draws: int) -> Float[np.ndarray, "..."]:
    """The statistic gamma of the module's formula, along the first axis: small values speak against uniformity."""
    counts, n = counts_below(ranks, num_draws), len(ranks)
    z = _grid(num_draws).reshape(-1, *(1,) * (counts.ndim - 1))
    return np.minimum(1.0, 2 * np.min(np.minimum(binom.cdf(counts, n, z), binom.sf(counts - 1, n, z)), axis=0))


def p_value_of_statistic(gamma: float, num_ranks: int, num_draws: int) -> float:
    """Exact probability, under uniformity, of a statistic of ``gamma`` or less."""
    return _tail(float(gamma), num_ranks, num_draws)


def rank_p_value(ranks: Int[np.ndarray, " n"], num_draws: int) -> float:
    """The exact p-value of one sample of ranks."""
    return _tail(float(rank_statistics(ranks, num_draws)), len(ranks), num_draws)


@lru_cache(maxsize=4096)
def _tail(gamma: float, num_ranks: int, num_draws: int) -> float:
    if gamma >= 1:
        return 1.0
    gamma = max(gamma, SMALLEST) * (1 + 1e-9)  # rounding must not let the observed counts in
    return float(np.clip(1 - staying_probability(*_bands_at(gamma, num_ranks, num_draws, True), num_ranks), 0, 1))
