"""What lies beyond the edge of an array: the boundary conditions of a convolution."""

from __future__ import annotations

import numpy as np

PAD_MODES = {"circular": "wrap", "reflect": "symmetric", "zero": "constant"}


def check_boundary(owner: str, boundary: str) -> str:
    """``boundary`` if it is one that exists, or a ValueError."""
    if boundary not in PAD_MODES:
        raise ValueError(f"{owner}: `boundary` must be one of {', '.join(PAD_MODES)}; got {boundary!r}.")
    return boundary


def source(boundary: str, i: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell in ``0..n-1`` that position ``i`` (any integer) shows, and whether it shows one at all."""
    if boundary == "circular":
        return i % n, np.ones_like(i, bool)
    if boundary == "zero":
        return np.clip(i, 0, n - 1), (i >= 0) & (i < n)
    i = i % (2 * n)
    return np.where(i < n, i, 2 * n - 1 - i), np.ones_like(i, bool)
