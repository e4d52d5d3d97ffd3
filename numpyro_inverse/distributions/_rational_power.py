"""Fractional powers of an operator by best rational approximation."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log, pi, sin, sqrt
from warnings import catch_warnings, simplefilter

import numpy as np

LARGEST = 16  # degree
SEEN = np.concatenate([np.linspace(0, 1, 4001), np.logspace(-24, 0, 4001)])


@lru_cache(maxsize=64)
def rational_power(exponent: float, tolerance: float) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    r"""Numbers k, :math:`r_i` and :math:`p_i < 1` with :math:`|\lambda^{-a} - k - \sum_i r_i / (\lambda - p_i)| \le`
    ``tolerance`` for all :math:`\lambda \ge 1`, as few as possible.

    They come from the best uniform approximation :math:`c + \sum_i s_i / (x - q_i)` of :math:`x^a` on [0, 1] by the
    BRASIL algorithm (Hofreither, Numerical Algorithms 88, 2021, 365-388), with :math:`x = 1 / \lambda`:
    :math:`p_i = 1 / q_i`, :math:`r_i = -s_i / q_i^2`, and k the value at zero. The search begins where Stahl's estimate
    of the error, :math:`4^{1 + a} |\sin \pi a| e^{-2 \pi \sqrt{a m}}`, says.

    Raises:
        ImportError: the extra ``meshes`` is not installed.
        ValueError: a tolerance that no degree up to 16 reaches.
    """
    try:
        from baryrat import brasil
    except ImportError as error:
        raise ImportError(
            "Matern: a fractional smoothness on a mesh needs baryrat; install the extra `numpyro_inverse[meshes]`."
        ) from error
    front = 4 ** (1 + exponent) * abs(sin(pi * exponent))
    first = ceil((max(log(front / tolerance), 0.0) / (2 * pi)) ** 2 / exponent)
    for degree in range(max(1, first - 1), LARGEST + 1):
        with catch_warnings():
            simplefilter("ignore")
            found = brasil(lambda x: x**exponent, (0.0, 1.0), degree, tol=1e-3, maxiter=1000, info=False)
            error = np.max(np.abs(found(SEEN.copy()) - SEEN**exponent))
            poles, residues = (np.real(part) for part in found.polres())
            k = float(found(np.zeros(1))[0])
        if error <= tolerance:
            return k, tuple((-residues / poles**2).tolist()), tuple((1 / poles).tolist())
    raise ValueError(
        f"Matern: `tolerance` {tolerance:g} is not reached by a rational function of degree {LARGEST} for the power "
        f"{exponent:.3g} (about {front * np.exp(-2 * pi * sqrt(exponent * LARGEST)):.1g} is); allow more, or take an "
        "integer alpha."
    )
