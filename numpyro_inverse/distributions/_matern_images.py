"""What comes round a torus: the variance that a Matérn field's mirror images add to it."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from scipy.special import gammaln, kve

MOST = 10  # images along an axis, either way; more are there only where one is far too many


def matern_correlation(distance: np.ndarray, smoothness: float) -> np.ndarray:
    r"""Matérn's :math:`\frac{2^{1-\nu}}{\Gamma(\nu)} t^\nu K_\nu(t)`, :math:`t = \sqrt{8\nu}\, r`, at r ranges."""
    t = np.sqrt(8 * smoothness) * np.asarray(distance, float)
    safe = np.where(t > 0, t, 1.0)
    log_front = np.log(2.0) * (1 - smoothness) - gammaln(smoothness) + smoothness * np.log(safe) - safe
    return np.where(t > 0, np.exp(log_front) * kve(smoothness, safe), 1.0)


@lru_cache(maxsize=256)
def added_variance(lengths: tuple[float, ...], smoothness: float) -> float:
    """The sum of correlations with the images of a point on a torus whose sides are ``lengths`` ranges.

    It is also what the images at the middle of a Neumann box of these sides add there.
    """
    last = 2 + 12 / np.sqrt(8 * smoothness)  # ranges, beyond which a correlation is below 1e-5
    axes = [np.arange(-m, m + 1) * side for side in lengths for m in [int(min(MOST, np.ceil(last / side)))]]
    squares = sum(np.asarray(list(product(*axes))).T ** 2)
    return float(np.sum(matern_correlation(np.sqrt(squares[squares > 0]), smoothness)))
