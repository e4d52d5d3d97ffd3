"""Solution and parameters at once, as physics-informed networks are usually inverted."""

from __future__ import annotations

from typing import Any

from numpyro_inverse._checks import check_count, check_nonnegative_number, check_positive_number
from numpyro_inverse.pinn._adam import adam
from numpyro_inverse.pinn._levenberg_marquardt import levenberg_marquardt
from numpyro_inverse.pinn._problem import Problem
from numpyro_inverse.pinn._training import Fit


def joint(
    problem: Problem,
    theta: Any,
    phi: Any = None,
    *,
    warm_start: int = 0,
    learning_rate: float = 1e-3,
    max_steps: int = 200,
    tolerance: float = 1e-3,
    progress_bar: bool = True,
) -> Fit:
    r"""Minimize :math:`J(\phi, \theta)` over both: Adam for ``warm_start`` steps, then Levenberg-Marquardt.

    At the minimum :math:`\theta` minimizes the *penalized* reduced objective :math:`\min_\phi J`, which differs from
    the one of the equation as a constraint by what the residual is allowed. Before the minimum its gradient with
    respect to :math:`\theta` may have the wrong sign: :func:`~numpyro_inverse.pinn.gradient_report`.

    Args:
        problem: what to minimize.
        theta: where the equation's parameters begin.
        phi: where the trial function begins; default: the problem's.
        warm_start: steps of Adam before.
        learning_rate: of Adam.
        max_steps: of Levenberg-Marquardt.
        tolerance: of Levenberg-Marquardt, in standard deviations.
        progress_bar: show the steps.

    Raises:
        TypeError, ValueError: as :func:`~numpyro_inverse.pinn.levenberg_marquardt`.
    """
    warm_start = check_count("joint", "warm_start", warm_start, 0)
    learning_rate = check_positive_number("joint", "learning_rate", learning_rate)
    max_steps = check_count("joint", "max_steps", max_steps)
    tolerance = check_nonnegative_number("joint", "tolerance", tolerance)
    if warm_start:
        fit = adam(problem, theta, phi, num_steps=warm_start, learning_rate=learning_rate, progress_bar=progress_bar)
        theta, phi = fit.theta, fit.phi
    return levenberg_marquardt(problem, theta, phi, max_steps=max_steps, tolerance=tolerance, progress_bar=progress_bar)
