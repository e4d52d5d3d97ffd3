"""Levenberg-Marquardt: solution and parameters in the same step, from the Jacobian of all residuals."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_flag, check_nonnegative_number, check_positive_number
from numpyro_inverse.pinn import _damped_least_squares as damped
from numpyro_inverse.pinn._problem import Problem
from numpyro_inverse.pinn._training import CHUNK, Fit, Unknowns, begin, check_beginning, checked, unknowns


def levenberg_marquardt(
    problem: Problem,
    theta: Any,
    phi: Any = None,
    *,
    max_steps: int = 200,
    tolerance: float = 1e-3,
    damping: float = 1e-3,
    progress_bar: bool = True,
) -> Fit:
    r"""Minimize J over :math:`\phi` and :math:`\theta` together by damped Gauss-Newton steps

    .. math:: -(J^T J + \lambda I)^{-1} J^T r = -J^T (J J^T + \lambda I)^{-1} r,

    J the Jacobian of all residuals in standard deviations, one reverse pass a row. The second form is used where there
    are fewer residuals than unknowns: :math:`O(N^2 P)` a step. A step that does not lower the objective is taken back
    and :math:`\lambda` raised. :math:`\theta` is measured in units that give its columns the size of the others.

    All blocks move :math:`\phi`, and all in which :math:`\theta` occurs move it: see :meth:`Problem.gradients`. Take
    double precision for residuals below 1e-5.

    Args:
        problem: what to minimize.
        theta: where the equation's parameters begin.
        phi: where the trial function begins; default: the problem's.
        max_steps: most steps, those taken back included.
        tolerance: stop where the linearized residuals can fall by no more than this many standard deviations.
        damping: first :math:`\lambda`, in mean squared singular values of J.
        progress_bar: show the steps and the objective.

    Returns:
        The fit. Where ``max_steps`` were not enough, ``converged`` is false.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; shapes that do not fit; residuals that are not finite at the
            start; a theta that moves nothing.

    References:
        Jnini & Vella, arXiv 2505.21404; Guzmán-Cordero et al., arXiv 2505.12149 (the form in the residuals'
        space).
    """
    here = "levenberg_marquardt"
    max_steps = check_count(here, "max_steps", max_steps)
    tolerance = check_nonnegative_number(here, "tolerance", tolerance)
    damping = check_positive_number(here, "damping", damping)
    progress_bar = check_flag(here, "progress_bar", progress_bar)
    problem, theta, phi = checked(here, problem, theta, phi)
    both, state, losses = optimize(here, problem, theta, phi, max_steps, tolerance, damping, progress_bar)
    return Fit(
        both.phi(state.x),
        both.theta(state.x),
        losses[-1],
        np.array(losses),
        float(state.decrement),
        bool(state.decrement <= tolerance),
        int(state.steps),
    )


def optimize(
    here: str,
    problem: Problem,
    theta: Any,
    phi: Any,
    max_steps: int,
    tolerance: float,
    damping: float,
    progress_bar: bool,
) -> tuple[Unknowns, damped.State, list[float]]:
    """The iteration, with the last Jacobian in the state."""
    beginning = begin(problem, phi, theta, damping)
    check_beginning(here, problem, theta, beginning)
    units, state = beginning.units, beginning.state
    losses = [float(state.loss)]
    stop = jnp.asarray(tolerance, state.x.dtype)
    from tqdm.auto import tqdm

    with tqdm(total=max_steps, desc=here, unit="step", disable=not progress_bar) as bar:
        while True:
            before = int(state.steps)
            end = jnp.asarray(min(before + CHUNK, max_steps))  # an int would be compiled in, once a chunk
            state = _advance(problem, phi, theta, units, state, stop, end)
            losses.append(float(state.loss))
            bar.update(int(state.steps) - before)
            bar.set_postfix_str(f"objective {losses[-1]:.5g}, decrement {float(state.decrement):.2g}")
            if int(state.steps) == before or int(state.steps) >= max_steps:
                break
    return unknowns(phi, theta, units)[0], state, losses


@eqx.filter_jit
def _advance(
    problem: Problem, phi: Any, theta: Any, units: Float[Array, " q"], state: damped.State, tolerance: Array, end: Array
) -> damped.State:
    both, _ = unknowns(phi, theta, units)
    return damped.run(
        both.system(problem),
        both.residual(problem),
        state,
        tolerance=tolerance,
        max_steps=end,
    )
