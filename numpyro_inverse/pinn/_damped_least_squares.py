"""Levenberg and Marquardt's iteration on a vector of residuals, as one loop; the smaller Gram matrix is solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

UP, DOWN = 4.0, 0.2
HOPELESS = 1e8  # damping, in mean squared singular values, beyond which a step is no step


class State(NamedTuple):
    """Where the iteration is.

    ``decrement`` is :math:`|P r|`, P the projection on the range of J: how far, in standard deviations, the linearized
    residuals can still fall; half its square is the fall of the objective that is predicted.
    """

    x: Float[Array, " p"]
    r: Float[Array, " n"]
    jacobian: Float[Array, "n p"]
    gram: Float[Array, "k k"]
    factor: Float[Array, "k k"]
    loss: Float[Array, ""]
    damping: Float[Array, ""]
    decrement: Float[Array, ""]
    steps: Int[Array, ""]


def run(
    system: Callable,
    residual: Callable,
    state: State,
    *,
    tolerance: Array | float,
    max_steps: Array | int,
    watched: Callable | None = None,
) -> State:
    """Iterate until the decrement is below ``tolerance`` or ``max_steps`` steps were tried.

    ``watched(state, step)`` is another length that has to be below it, of the undamped step.
    """

    def unfinished(state: State) -> Bool[Array, ""]:
        return (state.steps < max_steps) & ~converged(state, tolerance, watched) & (state.damping < HOPELESS)

    def advance(state: State) -> State:
        change = _step(state.jacobian, _factor(state.gram, state.damping), state.r)
        x = state.x + change
        r = residual(x)
        loss = 0.5 * jnp.sum(r**2)
        # Fine differences of a loss at its minimum are rounding: such a step is taken.
        slack = 8 * jnp.finfo(x.dtype).eps * state.loss
        good = jnp.isfinite(loss) & (loss <= state.loss + slack)

        def accept(_: None) -> State:
            r, jacobian = system(x)
            predicted = state.loss - 0.5 * jnp.sum((state.r + state.jacobian @ change) ** 2)
            gain = (state.loss - loss) / jnp.maximum(predicted, jnp.finfo(x.dtype).tiny)
            factor = jnp.where(gain > 0.75, DOWN, jnp.where(gain < 0.25, UP / 2, 1.0))
            least = floor_of(x.dtype)
            damping = jnp.where(loss <= slack, least, jnp.maximum(state.damping * factor, least))
            return at(x, r, jacobian, damping, state.steps + 1)

        def reject(_: None) -> State:
            return state._replace(damping=jnp.maximum(state.damping, floor_of(x.dtype)) * UP, steps=state.steps + 1)

        return jax.lax.cond(good, accept, reject, None)

    return jax.lax.while_loop(unfinished, advance, state)


def converged(state: State, tolerance: Array | float, watched: Callable | None = None) -> Bool[Array, ""]:
    """Whether the decrement, and what is watched, are below the tolerance."""
    small = state.decrement <= tolerance
    if watched is None:
        return small
    return small & (watched(state, solve(state, -(state.jacobian.T @ state.r))) <= tolerance)


def floor_of(dtype) -> float:
    """The least damping, in mean squared singular values."""
    return 8 * float(jnp.finfo(dtype).eps)


def damped_step(jacobian: Float[Array, "n p"], r: Float[Array, " n"], damping: Array) -> Float[Array, " p"]:
    r""":math:`-(J^T J + \lambda I)^{-1} J^T r = -J^T (J J^T + \lambda I)^{-1} r`, by the smaller matrix.

    ``damping`` is :math:`\lambda` over the mean squared singular value.
    """
    return _step(jacobian, _factor(_gram(jacobian), damping), r)


def solve(state: State, b: Float[Array, " p"]) -> Float[Array, " p"]:
    """:math:`(J^T J)^+ b` for b in the range of :math:`J^T`, with the factor at the state, least damped."""
    return normal_solve(state.jacobian, state.factor, b)


def normal_solve(
    jacobian: Float[Array, "n p"], factor: Float[Array, "k k"], b: Float[Array, " p"]
) -> Float[Array, " p"]:
    """:math:`(J^T J)^+ b` with the factor of the smaller Gram matrix."""
    if jacobian.shape[0] < jacobian.shape[1]:
        inner = _cho_solve(factor, jacobian @ b)
        return jacobian.T @ _cho_solve(factor, inner)
    return _cho_solve(factor, b)


def _cho_solve(factor: Array, b: Array) -> Array:
    return jax.scipy.linalg.cho_solve((factor, True), b)


def _step(jacobian: Array, factor: Array, r: Array) -> Array:
    if jacobian.shape[0] < jacobian.shape[1]:
        return -(jacobian.T @ _cho_solve(factor, r))
    return -_cho_solve(factor, jacobian.T @ r)


def _gram(jacobian: Array) -> Array:
    """The smaller of both."""
    if jacobian.shape[0] < jacobian.shape[1]:
        return jnp.matmul(jacobian, jacobian.T, precision="highest")
    return jnp.matmul(jacobian.T, jacobian, precision="highest")


def _factor(gram: Array, damping: Array) -> Array:
    trace = jnp.trace(gram)
    size = len(gram)
    # A Gram matrix is known to its largest eigenvalue's rounding, which the trace bounds.
    relative = jnp.maximum(damping / size, floor_of(gram.dtype) / 2)
    shift = relative * trace + jnp.finfo(gram.dtype).tiny
    return jnp.linalg.cholesky(gram + shift * jnp.eye(size, dtype=gram.dtype))


def at(
    x: Float[Array, " p"], r: Float[Array, " n"], jacobian: Float[Array, "n p"], damping: Array, steps: Array | int = 0
) -> State:
    """The state at a point with its residuals and Jacobian; ``damping`` is in mean squared singular values."""
    gram = _gram(jacobian)
    factor = _factor(gram, jnp.zeros((), x.dtype))
    if jacobian.shape[0] < jacobian.shape[1]:
        square = r @ (jacobian @ (jacobian.T @ _cho_solve(factor, r)))
    else:
        gradient = jacobian.T @ r
        square = gradient @ _cho_solve(factor, gradient)
    decrement = jnp.where(jnp.isfinite(square), jnp.sqrt(jnp.maximum(square, 0)), jnp.inf)
    return State(x, r, jacobian, gram, factor, 0.5 * jnp.sum(r**2), damping, decrement, jnp.asarray(steps))
