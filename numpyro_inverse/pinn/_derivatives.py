"""Derivatives of functions of a point, in forward mode: they compose, and work for numbers and for systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_count, check_instance
from numpyro_inverse.pinn._parameters import as_point

Function = Callable[[Float[Array, " d"]], Float[Array, "*m"]]


def derivative(u: Function, *axes: int) -> Function:
    r"""The partial derivative of a function of a point, :math:`\partial_{i} \partial_{j} \cdots u`.

    >>> from numpyro_inverse import pinn
    >>> u = lambda x: x[0] ** 2 * x[1]
    >>> float(pinn.derivative(u, 0, 0, 1)(jnp.array([3.0, 5.0])))
    2.0

    Args:
        u: from a point of shape (d,) to a number or an array.
        axes: the coordinates, one for each order; negative ones count from the last.

    Raises:
        TypeError: ``u`` cannot be called, or an axis is no integer.
        ValueError: the point has no such axis.
    """
    check_callable("derivative", "u", u, "a function of a point")
    for axis in axes:
        u = along("derivative", u, check_count("derivative", "axes", axis, least=-32))
    return u


def laplacian(u: Function, axes: Sequence[int] | None = None) -> Function:
    r"""The Laplacian :math:`\sum_i \partial_i^2 u`, over all coordinates or ``axes`` (those of space, with time).

    Raises:
        TypeError: ``u`` cannot be called, or ``axes`` are no integers.
        ValueError: an axis twice, or one that the point does not have.
    """
    where = "laplacian"
    check_callable(where, "u", u, "a function of a point")
    if axes is not None:
        check_instance(where, "axes", axes, tuple | list | range | np.ndarray, "integers")
        axes = [check_count(where, "axes", axis, least=-32) for axis in axes]
        if len(set(axes)) < len(axes):
            raise ValueError(f"{where}: `axes` must have each axis once; got {axes}.")

    def value(x: Float[Array, " d"]) -> Float[Array, "*m"]:
        x = as_point(where, x)
        chosen = range(x.shape[0]) if axes is None else axes
        return sum((along(where, along(where, u, i), i)(x) for i in chosen), start=jnp.zeros((), x.dtype))

    return value


def along(where: str, u: Function, axis: int, argument: str = "axes") -> Function:
    """The derivative along one axis."""

    def value(x: Float[Array, " d"]) -> Float[Array, "*m"]:
        x = as_point(where, x)
        if not -x.size <= axis < x.size:
            raise ValueError(f"{where}: `{argument}` must be below {x.size}, the axes of a point; got {axis}.")
        direction = jnp.zeros_like(x).at[axis].set(1)
        return jax.jvp(u, (x,), (direction,))[1]

    return value
