"""The posterior of the equation's parameters alone: the solution is a function of them, found by an inner solve."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_instance, check_positive_number, is_traced, show
from numpyro_inverse.factors import Potential
from numpyro_inverse.pinn._inner_solution import InnerSolution, Settings, inner_solution
from numpyro_inverse.pinn._parameters import check_theta
from numpyro_inverse.pinn._problem import Problem, check_trial, split


class InnerSolveError(ValueError):
    """The inner problem was not solved to the tolerance; its message has the decrement and the residuals."""


class ReducedPotential(Potential):
    r"""Minus a log likelihood of :math:`\theta`, with the solution :math:`\phi^*(\theta)` of an inner problem in it.

    As a factor of a model it makes the posterior of :math:`\theta` a low-dimensional one, for NUTS, Laplace, and
    anything else of NumPyro's; derivatives are those of the implicit function theorem, of all orders.

    >>> from numpyro_inverse import pinn
    >>> # not run: docs/physics_informed_networks.md does it
    >>> potential = pinn.PhysicsConstrainedPotential(problem)  # doctest: +SKIP
    >>> def model():  # doctest: +SKIP
    ...     theta = numpyro.sample("theta", dist.HalfNormal(5.0))  # doctest: +SKIP
    ...     potential("likelihood", theta)  # doctest: +SKIP

    An inner solve that misses its tolerance raises :class:`InnerSolveError`; inside ``jit`` and under ``grad`` the
    value is NaN, which is a divergence to a sampler and never a silent gradient.

    Args:
        problem: equation, trial space and data; the inner solve begins at its trial function, and :meth:`started` sets
            another one. With a linear trial space and equation one step solves it from anywhere.
        tolerance: of the inner solve, in standard deviations: how far its linearized residuals, and the data's, may
            still move; default 1e-6 in double, 1e-2 in single precision.
        max_steps: most steps of the inner solve.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; a problem without data.
    """

    problem: Problem
    settings: Settings = eqx.field(static=True)

    def __init__(self, problem: Problem, *, tolerance: float | None = None, max_steps: int = 100):
        here = type(self).__name__
        self.problem = check_instance(here, "problem", problem, Problem, "a Problem")
        if not problem.data:
            raise ValueError(f"{here}: `problem` has no data, so there is nothing that theta could be inferred from.")
        if tolerance is None:
            tolerance = 1e-6 if jnp.finfo(jnp.result_type(float)).bits == 64 else 1e-2
        self.settings = Settings(
            check_positive_number(here, "tolerance", tolerance), check_count(here, "max_steps", max_steps)
        )

    @property
    @abstractmethod
    def inner(self) -> Problem:
        """The problem that is minimized over the trial function."""

    @abstractmethod
    def outer(self, phi: Any, theta: Any) -> Float[Array, ""]:
        """What is left as a function of theta."""

    def started(self, phi: Any) -> ReducedPotential:
        """The same potential with an inner solve that begins elsewhere: at a solution nearby, say.

        Raises:
            TypeError, ValueError: ``phi`` is no function of a point with parameters.
        """
        check_trial(type(self).__name__, "phi", phi)
        return eqx.tree_at(lambda p: p.problem.trial, self, phi)

    def solve(self, theta: Any) -> Any:
        r"""The trial function :math:`\phi^*(\theta)`, which has derivatives: a forward map for a model's sample sites.

        Raises:
            TypeError, ValueError: ``theta`` is no finite real numbers.
            InnerSolveError: outside ``jit`` and ``grad``, the inner solve missed its tolerance; inside, its parameters
                are NaN.
        """
        theta = check_theta(type(self).__name__, theta)
        return self._phi(self._checked_solution(theta))

    def energy(self, theta: Any) -> Float[Array, ""]:
        """The potential.

        Raises:
            TypeError, ValueError: ``theta`` is no finite real numbers.
            InnerSolveError: outside ``jit`` and ``grad``, the inner solve missed its tolerance.
        """
        theta = check_theta(type(self).__name__, theta)
        return self.outer(self._phi(self._checked_solution(theta)), theta)

    def value_and_grad(self, theta: Any) -> tuple[float, Any]:
        """The potential and its gradient, outside ``jit``.

        Raises:
            TypeError, ValueError: ``theta`` is no finite real numbers.
            InnerSolveError: the inner solve, or the adjoint one, missed its tolerance.
        """
        theta = check_theta(type(self).__name__, theta)
        value, grad, _ = self._evaluate(theta)
        return value, grad

    def _evaluate(self, theta: Any) -> tuple[float, Any, Any]:
        value, grad, solution = _value_and_grad(self, theta)
        self._check(solution, theta)
        if not np.all(np.isfinite(ravel_pytree(grad)[0])):
            raise InnerSolveError(
                f"{type(self).__name__}: at theta = {show(theta)} the adjoint problem has no solution: the inner "
                "problem has a flat direction that the data see. Use fewer parameters in the trial space, or "
                "`weight_scale`."
            )
        return float(value), grad, self._phi(solution)

    def _checked_solution(self, theta: Any) -> InnerSolution:
        """Checked where it can be, which is outside transformations."""
        if is_traced(theta, self):
            return self._solution(theta)
        solution = _solved(self, theta)
        self._check(solution, theta)
        return solution

    def _solution(self, theta: Any) -> InnerSolution:
        return inner_solution((theta, self.inner, self.problem, self.problem.trial), settings=self.settings)

    def _phi(self, solution: InnerSolution) -> Any:
        arrays, rest = split(self.problem.trial)
        return eqx.combine(ravel_pytree(arrays)[1](solution.x), rest)

    def _check(self, solution: InnerSolution, theta: Any) -> None:
        if not bool(solution.converged):
            raise InnerSolveError(
                f"{type(self).__name__}: the inner problem at theta = {show(theta)} was not solved: after at most "
                f"{self.settings.max_steps} steps the residuals can still fall by {float(solution.decrement):.3g} "
                f"standard deviations, or the data's move by as much; `tolerance` is {self.settings.tolerance:.3g}. "
                "Begin at a solution nearby (`started`), raise `max_steps`, or take double precision."
            )


class PhysicsConstrainedPotential(ReducedPotential):
    r"""The data's misfit at the solution of the equation,
    :math:`F(\theta) = L(\phi_*(\theta), \theta)`, :math:`\phi_*` = argmin of the physics' residuals alone.

    As the trial space grows and the inner problem's residual vanishes it is the likelihood of the inverse problem with
    the equation as a constraint. Its gradient is

    .. math:: F' = \partial_\theta L - (\partial^2_{\theta \phi} R) (\partial^2_{\phi \phi} R)^{-1} \partial_\phi L.
    """

    @property
    def inner(self):
        return self.problem.physics()

    def outer(self, phi, theta):
        return self.problem.misfit(phi, theta)


class PenalizedPotential(ReducedPotential):
    r"""The profiled objective :math:`j(\theta) = \min_\phi J(\phi, \theta)`: data and residuals bargain.

    Where it is smooth :math:`j' = \partial_\theta J` at the minimum. It treats the residual as noise of standard
    deviation s, and tends to :class:`PhysicsConstrainedPotential` as :math:`s \to 0`, at the rate :math:`s^2`.
    """

    @property
    def inner(self):
        return self.problem

    def outer(self, phi, theta):
        return self.problem.objective(phi, theta)


@eqx.filter_jit
def _solved(potential: ReducedPotential, theta: Any) -> InnerSolution:
    return potential._solution(theta)


@eqx.filter_jit
def _value_and_grad(potential: ReducedPotential, theta: Any) -> tuple[Array, Any, InnerSolution]:
    def value(theta: Any) -> tuple[Array, InnerSolution]:
        solution = potential._solution(theta)
        return potential.outer(potential._phi(solution), theta), solution

    (found, solution), grad = jax.value_and_grad(value, has_aux=True)(theta)
    return found, grad, solution
