"""Functions with a gradient that is given, for potentials that are known by it, better or alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float


class Function(eqx.Module):
    """A plain function as a pytree without leaves."""

    function: Callable = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def as_module(function: Any) -> Any:
    """A pytree: a plain function has no arrays that could be traced or replaced."""
    return function if isinstance(function, eqx.Module) else Function(function)


def with_gradient(
    value: Callable[[Any, Array], Array],
    gradient: Callable[[Any, Array], Array],
    parts: Any,
    x: Float[Array, "*shape"],
) -> Float[Array, ""]:
    """``value(parts, x)`` with ``gradient(parts, x)`` for its gradient in x.

    Derivatives in the arrays of ``parts`` are those of the value; second derivatives are those of the gradient.
    """
    return _custom(value, gradient, parts, x, _along_value)


def gradient_alone(
    name: str, gradient: Callable[[Any, Array], Array], parts: Any, x: Float[Array, "*shape"]
) -> Float[Array, ""]:
    """Zero, with ``gradient(parts, x)`` for its gradient in x.

    Raises:
        ValueError: a derivative in the arrays of ``parts`` is asked for.
    """

    def refuse(value: Callable, x: Array, arrays: Any, moves: Any) -> Array:
        raise ValueError(
            f"{name}: a derivative in a parameter of the potential was asked for (noise level, strength, weights), but "
            "a potential that is known by its gradient alone has none: fix the parameters, or use a denoiser with a "
            "potential."
        )

    return _custom(lambda parts, x: jnp.zeros((), x.dtype), gradient, parts, x, refuse)


def _custom(value: Callable, gradient: Callable, parts: Any, x: Array, along_parts: Callable) -> Array:
    arrays, rest = eqx.partition(parts, eqx.is_inexact_array)
    x = jnp.asarray(x, jnp.result_type(float, x))

    def whole(arrays: Any, x: Array) -> Array:
        return value(eqx.combine(arrays, rest), x).astype(x.dtype)

    def rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        (arrays, x), (moves, dx) = primals, tangents
        slope = jnp.zeros((), x.dtype)
        if not _is_zero(dx):
            slope = slope + jnp.vdot(gradient(eqx.combine(arrays, rest), x).astype(x.dtype), dx)
        if any(not _is_zero(move) for move in jax.tree.leaves(moves, is_leaf=_is_zero)):
            slope = slope + along_parts(whole, x, arrays, moves)
        return energy(arrays, x), slope

    energy = jax.custom_jvp(whole)
    energy.defjvp(rule, symbolic_zeros=True)
    return energy(arrays, x)


def _along_value(value: Callable, x: Array, arrays: Any, moves: Any) -> Array:
    moves = jax.tree.map(
        lambda move: jnp.zeros(move.shape, move.dtype) if _is_zero(move) else move, moves, is_leaf=_is_zero
    )
    return jax.jvp(lambda arrays: value(arrays, x), (arrays,), (moves,))[1]


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)
