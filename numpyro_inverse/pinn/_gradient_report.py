"""Which gradient is one following? The joint, the unrolled and the implicit one beside the exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_count, check_positive_number
from numpyro_inverse.pinn._problem import Problem, all_residuals, rows_and_jacobian, split
from numpyro_inverse.pinn._reduced_potential import InnerSolveError, PhysicsConstrainedPotential
from numpyro_inverse.pinn._training import checked

KINDS = ("joint", "unrolled", "implicit", "converged", "reference")


@dataclass(frozen=True)
class GradientReport:
    r"""Gradients with respect to :math:`\theta`, each beside the exact one.

    Attributes:
        gradients: by kind, flat arrays: "joint", "unrolled", "implicit", "converged" (the implicit gradient at the
            solution of the inner problem, where it was found), and "reference" (where a solver was given).
        exact: the kind that the others are held against: "reference", else "converged".
        angles: with the exact gradient, in degrees; NaN where one of the two is zero.
        ratios: signed lengths along the exact gradient, :math:`\langle g, e \rangle / |e|^2`; for one parameter g / e.
        wrong_signs: by kind, for each parameter whether the sign is not that of the exact gradient; zero counts as
            wrong.
        inner_residual: the decrement of the physics' residuals where the first three were taken, in standard
            deviations.
        failure: what kept the inner problem from being solved, or "".
    """

    gradients: dict[str, np.ndarray]
    exact: str
    angles: dict[str, float]
    ratios: dict[str, float]
    wrong_signs: dict[str, np.ndarray]
    inner_residual: float
    failure: str = ""

    def trusted(self, kind: str) -> bool:
        """Whether a gradient has the exact one's sign in each parameter; never without an exact one."""
        return kind in self.wrong_signs and not bool(np.any(self.wrong_signs[kind]))

    def __str__(self) -> str:
        lines = [f"inner residual: {self.inner_residual:.3g} standard deviations above its minimum"]
        if self.failure:
            lines.append(f"the inner problem was not solved: {self.failure}")
        lines.append(f"{'gradient':<11}{'norm':>11}{'ratio':>11}{'angle':>8}  sign")
        for kind, g in self.gradients.items():
            if kind not in self.ratios:
                lines.append(f"{kind:<11}{np.linalg.norm(g):>11.4g}{'-':>11}{'-':>8}  unknown: nothing exact beside it")
                continue
            if kind == self.exact:
                verdict = "exact"
            elif not np.any(g):
                verdict = "no gradient at all"
            else:
                verdict = "right" if self.trusted(kind) else "wrong sign"
            lines.append(
                f"{kind:<11}{np.linalg.norm(g):>11.4g}{self.ratios[kind]:>11.3g}{self.angles[kind]:>8.1f}  {verdict}"
            )
        return "\n".join(lines)


def gradient_report(
    problem: Problem,
    theta: Any,
    phi: Any = None,
    *,
    num_steps: int = 0,
    step_size: float | None = None,
    reference: Callable[[Any], Any] | None = None,
    tolerance: float | None = None,
    max_steps: int = 200,
) -> GradientReport:
    r"""Compare the gradients that inversions with networks follow, at :math:`\phi_m`: m plain gradient steps on the
    physics' residuals R from ``phi``.

    - joint: :math:`\partial_\theta J(\phi_m, \theta)`;
    - unrolled: the derivative of the misfit :math:`L(\phi_m(\theta), \theta)` through the m steps;
    - implicit: :math:`\partial_\theta L - (\partial^2_{\theta\phi} R)(\partial^2_{\phi\phi} R)^{-1} \partial_\phi L` at
      :math:`\phi_m`, where it is not solved;
    - converged: the same at the minimum of R, the gradient of :class:`PhysicsConstrainedPotential`;
    - reference: the gradient of a misfit that another solver gives.

    At :math:`r = 0` the joint gradient is zero exactly: alternating between solving the equation with a network and a
    step of :math:`\theta` on its loss goes nowhere. With m plain steps an error of a mode of small curvature decays
    like :math:`(1 - \eta h)^m`, and the condition number grows like the fourth power of the wave number: 100 steps are
    not enough for six modes, and both other gradients have the wrong sign there.

    Args:
        problem: equation, trial space and data.
        theta: the parameters.
        phi: where the inner steps begin; default: the problem's trial function. With ``num_steps=0`` it is the network
            that one has, as it is.
        num_steps: m.
        step_size: :math:`\eta` of a step on half the sum of squares of the physics' residuals in standard deviations;
            default: 1 over the largest squared singular value of their Jacobian at the start.
        reference: the misfit as a function of theta alone, that JAX can differentiate, by another solver.
        tolerance: of the converged inner solve, in standard deviations.
        max_steps: most steps of it.

    Returns:
        The report; printed, it is a table.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; shapes that do not fit; inner steps that diverge.
    """
    here = "gradient_report"
    num_steps = check_count(here, "num_steps", num_steps, 0)
    if reference is not None:
        check_callable(here, "reference", reference, "a function of theta")
    if tolerance is not None:
        check_positive_number(here, "tolerance", tolerance)
    check_count(here, "max_steps", max_steps)
    if step_size is not None:
        step_size = check_positive_number(here, "step_size", step_size)
    problem, theta, phi = checked(here, problem, theta, phi)
    if not problem.data:
        raise ValueError(f"{here}: `problem` has no data.")
    eta = _largest_step(problem, theta, phi) if step_size is None else step_size
    phi_m, decrement, found = _gradients(problem, theta, phi, eta, jnp.asarray(num_steps))
    if not all(np.all(np.isfinite(np.asarray(g))) for g in [*found.values(), decrement]):
        raise ValueError(f"{here}: {num_steps} inner steps of size {float(eta):.3g} diverge. Lower `step_size`.")
    gradients = {kind: np.asarray(g, float) for kind, g in found.items()}
    failure = ""
    try:
        potential = PhysicsConstrainedPotential(problem, tolerance=tolerance, max_steps=max_steps)  # type: ignore[call-arg]
        potential = potential.started(phi_m)  # type: ignore[assignment]
        gradients["converged"] = np.asarray(ravel_pytree(potential.value_and_grad(theta)[1])[0], float)
    except InnerSolveError as error:
        failure = str(error)
    if reference is not None:
        gradients["reference"] = np.asarray(ravel_pytree(eqx.filter_jit(jax.grad(reference))(theta))[0], float)
    exact = "reference" if reference is not None else "converged"
    angles, ratios, wrong = {}, {}, {}
    if exact in gradients:
        e = gradients[exact]
        for kind, g in gradients.items():
            lengths, product = np.linalg.norm(g) * np.linalg.norm(e), float(g @ e)
            angles[kind] = float(np.degrees(np.arccos(np.clip(product / lengths, -1, 1)))) if lengths else float("nan")
            ratios[kind] = product / float(e @ e) if np.any(e) else float("nan")
            wrong[kind] = np.sign(g) != np.sign(e)
    ordered = {kind: gradients[kind] for kind in KINDS if kind in gradients}
    return GradientReport(ordered, exact, angles, ratios, wrong, float(decrement), failure)


@eqx.filter_jit
def _largest_step(problem: Problem, theta: Any, phi: Any) -> Float[Array, ""]:
    arrays, rest = split(phi)
    x, unravel = ravel_pytree(arrays)
    _, jacobian = rows_and_jacobian(problem.physics(), rest, unravel, lambda _: theta, x)
    return 1 / jnp.linalg.norm(jacobian, ord=2) ** 2


@eqx.filter_jit
def _gradients(
    problem: Problem, theta: Any, phi: Any, step_size: Any, num_steps: Array
) -> tuple[Any, Float[Array, ""], dict[str, Float[Array, " q"]]]:
    arrays, rest = split(phi)
    start, unravel = ravel_pytree(arrays)
    flat_theta, unravel_theta = ravel_pytree(theta)
    physics = problem.physics()

    def u(x: Array) -> Any:
        return eqx.combine(unravel(x), rest)

    def inner(x: Array, t: Array) -> Array:
        return 0.5 * jnp.sum(all_residuals(physics, u(x), unravel_theta(t)) ** 2)

    def misfit(x: Array, t: Array) -> Array:
        return problem.misfit(u(x), unravel_theta(t))

    def steps(t: Array) -> Array:
        # A number of steps that is not compiled in: derivatives through them are in forward mode.
        return jax.lax.fori_loop(0, num_steps, lambda _, x: x - step_size * jax.grad(inner)(x, t), start)

    x = steps(flat_theta)
    r, jacobian = rows_and_jacobian(physics, rest, unravel, lambda _: unravel_theta(flat_theta), x)
    data = jax.grad(misfit, argnums=(0, 1))(x, flat_theta)
    _, pull = jax.vjp(lambda t: all_residuals(physics, u(x), unravel_theta(t)), flat_theta)
    if len(r) < x.size:
        left, values, right = jnp.linalg.svd(jacobian, full_matrices=False)
        kept = values > values[0] * max(jacobian.shape) * jnp.finfo(x.dtype).eps
        adjoint = left @ (jnp.where(kept, 1 / jnp.where(kept, values, 1), 0) * (right @ data[0]))
        correction = pull(adjoint)[0]
        along = left @ jnp.where(kept, left.T @ r, 0)
    else:
        hessian = jax.hessian(inner)(x, flat_theta)
        adjoint = jnp.linalg.solve(hessian, data[0])
        correction = jax.grad(lambda t: jax.grad(inner)(x, t) @ adjoint)(flat_theta)
        along = jacobian @ jnp.linalg.lstsq(jacobian, r)[0]
    joint = jax.grad(lambda t: problem.objective(u(x), unravel_theta(t)))(flat_theta)
    unrolled = jax.jacfwd(lambda t: misfit(steps(t), t))(flat_theta)
    found = {"joint": joint, "unrolled": unrolled, "implicit": data[1] - correction}
    return u(x), jnp.linalg.norm(along), found
