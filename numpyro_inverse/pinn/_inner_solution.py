"""The solution of the inner problem as a differentiable function of the rest, by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from numpyro_inverse.pinn import _damped_least_squares as damped
from numpyro_inverse.pinn._problem import Problem, all_residuals, rows_and_jacobian, split


class InnerSolution(NamedTuple):
    """Parameters of the trial function, NaN where the iteration did not converge, and how it went.

    ``decrement`` is in standard deviations; ``factor`` is that of the smaller Gram matrix, without a derivative.
    """

    x: Float[Array, " p"]
    factor: Float[Array, "k k"]
    decrement: Float[Array, ""]
    converged: Bool[Array, ""]


class Settings(NamedTuple):
    """Of the inner iteration."""

    tolerance: float
    max_steps: int


@eqx.filter_custom_jvp
def inner_solution(inputs: tuple[Any, Problem, Problem, Any], *, settings: Settings) -> InnerSolution:
    r""":math:`\phi^*` = argmin of the objective of a problem, at fixed :math:`\theta`.

    ``inputs`` are theta, the problem whose objective is minimized, a problem whose data residuals must not move by more
    than the tolerance either, and the trial function at the start. Derivatives of all orders, in both modes, with
    respect to theta and to the problem: with :math:`g = \nabla_\phi \tfrac12 |r|^2`,
    :math:`\partial \phi^* = -(\partial_\phi g)^{-1} \partial g`, by conjugate gradients that the Gauss-Newton factor of
    the last step preconditions; with fewer residuals than parameters :math:`-J^+ \partial r`, the shortest change that
    keeps the residuals at zero.
    """
    theta, problem, observed, start = inputs
    arrays, rest = split(start)
    x, unravel = ravel_pytree(arrays)

    def system(x: Array) -> tuple[Array, Array]:
        return rows_and_jacobian(problem, rest, unravel, lambda _: theta, x)

    def residual(x: Array) -> Array:
        return all_residuals(problem, eqx.combine(unravel(x), rest), theta)

    def data(x: Array) -> Array:
        u = eqx.combine(unravel(x), rest)
        found = observed.residuals(u, theta).get("data")
        return jnp.zeros(1, x.dtype) if found is None else found

    def watched(state: damped.State, step: Array) -> Array:
        return jnp.linalg.norm(jax.jvp(data, (state.x,), (step,))[1])

    state = damped.at(x, *system(x), jnp.asarray(damped.floor_of(x.dtype), x.dtype))
    tolerance = jnp.asarray(settings.tolerance, x.dtype)
    state = damped.run(system, residual, state, tolerance=tolerance, max_steps=settings.max_steps, watched=watched)
    good = damped.converged(state, tolerance, watched)
    return InnerSolution(jnp.where(good, state.x, jnp.nan), state.factor, state.decrement, good)


@inner_solution.def_jvp
def _derivative(primals, tangents, *, settings):
    (inputs,), (changes,) = primals, tangents
    solution = inner_solution(inputs, settings=settings)
    theta, problem, _, start = inputs
    change_theta, change_problem, _, _ = changes
    arrays, rest = split(start)
    _, unravel = ravel_pytree(arrays)
    x, factor = solution.x, jax.lax.stop_gradient(solution.factor)

    def residual(x: Array, theta: Any, problem: Problem) -> Array:
        return all_residuals(problem, eqx.combine(unravel(x), rest), theta)

    def moved(function: Callable) -> Array:
        """The derivative along the change of theta and of the problem."""
        moving = (theta, problem)
        return eqx.filter_jvp(lambda t, p: function(t, p), moving, (change_theta, change_problem))[1]

    def here(x: Array) -> Array:
        return residual(x, theta, problem)

    if len(factor) < x.size:
        _, push = jax.linearize(here, x)
        _, pull = jax.vjp(here, x)
        change = moved(lambda t, p: residual(x, t, p))
        inner = jax.lax.custom_linear_solve(
            lambda z: push(pull(z)[0]),
            change,
            lambda product, b: _refined(product, b, lambda v: jax.scipy.linalg.cho_solve((factor, True), v)),
            symmetric=True,
        )
        dx = -pull(inner)[0]
    else:

        def gradient(x: Array, theta: Any, problem: Problem) -> Array:
            return jax.grad(lambda x: 0.5 * jnp.sum(residual(x, theta, problem) ** 2))(x)

        _, hessian = jax.linearize(lambda x: gradient(x, theta, problem), x)
        change = moved(lambda t, p: gradient(x, t, p))
        dx = -jax.lax.custom_linear_solve(
            hessian,
            change,
            lambda product, b: _refined(product, b, lambda v: jax.scipy.linalg.cho_solve((factor, True), v)),
            symmetric=True,
        )
    still = jax.tree.map(lambda v: jnp.zeros_like(v) if eqx.is_inexact_array(v) else None, solution)
    return solution, still._replace(x=dx)


def _refined(product: Callable, b: Array, precondition: Callable) -> Array:
    """Preconditioned conjugate gradients, NaN where the residual stays above what is asked for."""
    tolerance = 1e-10 if b.dtype == jnp.float64 else 1e-5
    v, _ = jax.scipy.sparse.linalg.cg(product, b, M=precondition, tol=tolerance, maxiter=200)
    error = jnp.linalg.norm(product(v) - b)
    return jnp.where(error <= 1e3 * tolerance * jnp.linalg.norm(b), v, jnp.nan)
