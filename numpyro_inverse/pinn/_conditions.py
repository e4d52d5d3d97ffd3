"""What a solution satisfies on the boundary, or at the first time: residuals at points of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_count, check_finite
from numpyro_inverse.pinn._derivatives import along

Residual = Callable[[Callable, Float[Array, " d"], Any], Float[Array, "*q"]]


class Condition(eqx.Module):
    r"""A residual :math:`b(u, x, \theta)` that vanishes at some points of the boundary or of the first time.

    Args:
        residual: of the function u, a point and the parameters, as the equation's; one number, or an array for systems.
        points: where it is imposed, shape (n, d); :class:`~numpyro_inverse.pinn.PDE` checks that they are on the
            boundary, or at the first time.

    Raises:
        TypeError: ``residual`` cannot be called, ``points`` are no numbers.
        ValueError: ``points`` that are not finite, or not of shape (n, d).
    """

    residual: Residual = eqx.field(static=True)
    points: Float[Array, "n d"]

    def __init__(self, residual: Residual, points: Any):
        self.residual = check_callable("Condition", "residual", residual, "a function of u, a point and theta")
        self.points = jnp.asarray(check_finite("Condition", "points", points), jnp.result_type(float))
        if self.points.ndim != 2 or self.points.size == 0:
            raise ValueError(f"Condition: `points` must have shape (n, d), not empty; got {self.points.shape}.")


def dirichlet(value: Any, points: Any) -> Condition:
    r"""The condition :math:`u(x) = g(x)`.

    Args:
        value: g, a number, an array (systems), or a function of a point.
        points: where it is imposed.

    Raises:
        TypeError, ValueError: numbers that are none, or are not finite.
    """
    _check_value("dirichlet", value)

    def residual(u: Callable, x: Array, theta: Any) -> Array:
        return u(x) - (value(x) if callable(value) else value)

    return Condition(residual, points)


def neumann(value: Any, axis: int, points: Any) -> Condition:
    r"""The condition :math:`\partial_i u(x) = g(x)`: the derivative along an axis, not along the outward normal.

    Args:
        value: g, a number, an array, or a function of a point.
        axis: i.
        points: where it is imposed.

    Raises:
        TypeError, ValueError: numbers that are none, or are not finite; an axis that the points do not have.
    """
    _check_value("neumann", value)
    axis = check_count("neumann", "axis", axis, least=-32)

    def residual(u: Callable, x: Array, theta: Any) -> Array:
        return along("neumann", u, axis, "axis")(x) - (value(x) if callable(value) else value)

    condition = Condition(residual, points)
    if not -condition.points.shape[1] <= axis < condition.points.shape[1]:
        raise ValueError(
            f"neumann: `axis` must be below {condition.points.shape[1]}, the axes of `points`; got {axis}."
        )
    return condition


def _check_value(where: str, value: Any) -> None:
    if not callable(value):
        check_finite(where, "value", value)
