"""Modes by L-BFGS, in compiled code."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

STEPS = 100  # at most
TRIALS = 10  # of step lengths in an iteration, at most
GRADIENT_TOLERANCE = 0.03  # times the square root of the dimension, for functions in standardized units


def minimize(function: Callable, start: Float[Array, "n"]) -> Float[Array, "n"]:
    """Where L-BFGS ends: the gradient is small, or 100 iterations are over."""
    solver = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(TRIALS, initial_guess_strategy="one"))
    value_and_grad = optax.value_and_grad_from_state(function)
    tolerance = GRADIENT_TOLERANCE * start.size**0.5

    def unfinished(carry: tuple) -> Array:
        _, state = carry
        count, grad = (optax.tree.get(state, name) for name in ("count", "grad"))
        return (count == 0) | ((count < STEPS) & (jnp.linalg.norm(grad) > tolerance))

    def step(carry: tuple) -> tuple:
        w, state = carry
        value, grad = value_and_grad(w, state=state)
        updates, state = solver.update(grad, state, w, value=value, grad=grad, value_fn=function)
        new = optax.apply_updates(w, updates)
        return jnp.where(jnp.all(jnp.isfinite(new)), new, w), state

    return jax.lax.while_loop(unfinished, step, (start, solver.init(start)))[0]
