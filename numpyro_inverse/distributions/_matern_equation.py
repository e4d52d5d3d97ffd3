"""Which equation a Matérn field on a mesh solves: its order, and its condition at the boundary."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq

from numpyro_inverse._checks import check_choice, check_nonnegative_number, check_positive_number, is_traced, show

ORDERS = (1, 2, 3, 4)


def check_order(smoothness: Any, d: int) -> tuple[float, int]:
    r"""The smoothness as a number, and :math:`\alpha`, which must be an integer."""
    if is_traced(smoothness):
        raise TypeError(
            "Matern: on a mesh `smoothness` must be a number known outside of `jit`, for it decides which equation is "
            "solved; got a traced value."
        )
    nu = check_positive_number("Matern", "smoothness", smoothness)
    order = round(nu + d / 2)
    if abs(nu + d / 2 - order) > 1e-6 or order not in ORDERS or order <= d / 2:
        allowed = ", ".join(f"{a - d / 2:g}" for a in ORDERS if a > d / 2)
        raise ValueError(
            f"Matern: on a mesh of dimension {d} `smoothness` must be one of {allowed}, so that alpha = smoothness + "
            f"{d} / 2 is an integer of up to {ORDERS[-1]}; got {show(smoothness)}."
        )
    return order - d / 2, order


def check_robin(boundary: Any, coefficient: Any, smoothness: float) -> float:
    r"""The coefficient :math:`c` of :math:`\partial_n u + c \kappa u = 0`, 0 for Neumann's condition."""
    check_choice("Matern", "boundary", boundary, ("neumann", "robin"))
    if coefficient is None:
        return robin_coefficient(smoothness) if boundary == "robin" else 0.0
    if boundary == "neumann":
        raise ValueError('Matern: `robin_coefficient` is given, but `boundary` is "neumann"; say boundary="robin".')
    return check_nonnegative_number("Matern", "robin_coefficient", coefficient)


@cache
def robin_coefficient(smoothness: float) -> float:
    """The coefficient, over kappa, with which the variance at a straight edge is that inside."""

    def integral(c: float) -> float:
        return quad(lambda k: k**2 / (c**2 + k**2) * (1 + k**2) ** (-smoothness - 0.5), 0, np.inf)[0]

    return brentq(lambda c: 2 * integral(c) - integral(0.0), 1e-3, 10.0)
