"""The effective sample size so far, by batch means: sums over blocks and chains, of every kept number.

With :math:`m` blocks over all chains, :math:`s^2` the variance of the :math:`n` draws and :math:`s_b^2` that of the
blocks' means, it is :math:`m s^2 / s_b^2` (Flegal & Jones, Ann. Stat. 38, 2010).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

SUMS = ("shift", "sum", "squares", "batch_sum", "batch_squares")
Sums = dict[str, np.ndarray]


def no_sums(size: int) -> Sums:
    """Before the first block, of ``size`` numbers."""
    return {name: np.zeros(size) for name in SUMS} | {name: np.zeros((), np.int64) for name in ("n", "m")}


def updated(sums: Sums, draws: Mapping[str, np.ndarray]) -> Sums:
    """Sums with one block more, whose draws of each site have shape (chain, draw, ...).

    ``n`` counts draws, ``m`` blocks times chains. ``shift`` is the first draw, which keeps the squares small.
    """
    if not draws:
        return sums
    x = np.concatenate([x.reshape((*x.shape[:2], -1)) for _, x in sorted(draws.items())], axis=2).astype(np.float64)
    shift = np.where(sums["m"] > 0, sums["shift"], x[0, 0])
    x = x - shift
    means = x.mean(axis=1)
    return {
        "n": sums["n"] + x.shape[0] * x.shape[1],
        "m": sums["m"] + x.shape[0],
        "shift": shift,
        "sum": sums["sum"] + x.sum(axis=(0, 1)),
        "squares": sums["squares"] + (x**2).sum(axis=(0, 1)),
        "batch_sum": sums["batch_sum"] + means.sum(axis=0),
        "batch_squares": sums["batch_squares"] + (means**2).sum(axis=0),
    }


def smallest_ess(sums: Sums) -> float:
    """The smallest over all numbers that vary; NaN before there are two batches."""
    n, m = float(sums["n"]), float(sums["m"])
    if m < 2:
        return math.nan
    spread = sums["squares"] / n - (sums["sum"] / n) ** 2
    batches = (sums["batch_squares"] - sums["batch_sum"] ** 2 / m) / (m - 1)
    moving = (spread > 0) & (batches > 0)
    if not np.any(moving):
        return math.nan
    return float(np.min(m * spread[moving] / batches[moving]))
