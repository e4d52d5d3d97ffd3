"""The bilevel problem: minimize over the parameters, with the inner problem solved each time."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from numpyro_inverse._checks import check_count, check_flag, check_instance, check_positive_number
from numpyro_inverse.pinn._parameters import check_theta
from numpyro_inverse.pinn._reduced_potential import ReducedPotential
from numpyro_inverse.pinn._training import Fit


def reduced(
    potential: ReducedPotential,
    theta: Any,
    *,
    max_steps: int = 100,
    tolerance: float = 1e-5,
    progress_bar: bool = True,
) -> Fit:
    r"""Minimize a reduced potential over :math:`\theta`, by BFGS with the implicit gradient.

    Each inner solve begins where the last one ended.

    Args:
        potential: :class:`PhysicsConstrainedPotential`, or :class:`PenalizedPotential`.
        theta: where the parameters begin.
        max_steps: most steps of BFGS.
        tolerance: stop where the largest component of the gradient is below it times that at the start.
        progress_bar: show the steps and the potential.

    Returns:
        The fit; ``decrement`` is the gradient's length in the metric of the inverse Hessian that BFGS has estimated, in
        standard deviations of the posterior with a flat prior.

    Raises:
        TypeError, ValueError: arguments of the wrong kind.
        InnerSolveError: an inner solve missed its tolerance, with the theta at which it did.
    """
    here = "reduced"
    check_instance(here, "potential", potential, ReducedPotential, "a ReducedPotential")
    theta = check_theta(here, theta)
    max_steps = check_count(here, "max_steps", max_steps)
    tolerance = check_positive_number(here, "tolerance", tolerance)
    progress_bar = check_flag(here, "progress_bar", progress_bar)
    flat_theta, unravel = ravel_pytree(theta)
    phi, losses = potential.problem.trial, []

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal phi
        value, grad, phi = potential.started(phi)._evaluate(unravel(jnp.asarray(x, flat_theta.dtype)))
        return value, np.asarray(ravel_pytree(grad)[0], float)

    from tqdm.auto import tqdm

    first = np.abs(evaluate(np.asarray(flat_theta, float))[1]).max()
    with tqdm(total=max_steps, desc=here, unit="step", disable=not progress_bar) as bar:

        def look(intermediate_result) -> None:
            losses.append(float(intermediate_result.fun))
            bar.update()
            bar.set_postfix_str(f"potential {losses[-1]:.5g}")

        found = minimize(
            evaluate,
            np.asarray(flat_theta, float),
            jac=True,
            method="BFGS",
            callback=look,
            options={"maxiter": max_steps, "gtol": tolerance * max(first, np.finfo(float).tiny)},
        )
    value, grad = evaluate(found.x)
    decrement = float(np.sqrt(max(grad @ found.hess_inv @ grad, 0.0)))
    good = bool(np.abs(grad).max() <= tolerance * first or decrement <= 1e-3)
    return Fit(
        phi, unravel(jnp.asarray(found.x, flat_theta.dtype)), value, np.array(losses), decrement, good, found.nit
    )
