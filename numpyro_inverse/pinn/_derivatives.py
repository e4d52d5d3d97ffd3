"""Derivatives of functions of a point, in forward mode: they compose, and work for numbers and for systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Function = Callable[[Float[Array, " d"]], Float[Array, "*m"]]


def derivative(u: Function, *axes: int) -> Function:
    r"""The partial derivative of a function of a point, :math:`\partial_{i} \partial_{j} \cdots u`.

    >>> from numpyro_inverse import pinn
    >>> u = lambda x: x[0] ** 2 * x[1]
    >>> float(pinn.derivative(u, 0, 0, 1)(jnp.array([3.0, 5.0])))
    2.0

    Args:
        u: from a point of shape (d,) to a number or an array.
        axes: the coordinates, one for each order.
    """
    for axis in axes:
        u = _along(u, axis)
    return u


def laplacian(u: Function, axes: Sequence[int] | None = None) -> Function:
    r"""The Laplacian :math:`\sum_i \partial_i^2 u`, over all coordinates or ``axes`` (those of space, with time)."""

    def value(x: Float[Array, " d"]) -> Float[Array, "*m"]:
        chosen = range(x.shape[0]) if axes is None else axes
        return sum((derivative(u, i, i)(x) for i in chosen), start=jnp.zeros((), x.dtype))

    return value


def _along(u: Function, axis: int) -> Function:
    def value(x: Float[Array, " d"]) -> Float[Array, "*m"]:
        direction = jnp.zeros_like(x).at[axis].set(1)
        return jax.jvp(u, (x,), (direction,))[1]

    return value
