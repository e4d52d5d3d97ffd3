"""Conditions that a trial space satisfies by construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_finite
from numpyro_inverse.pinn._parameters import as_point


class Enforced(eqx.Module):
    r"""Functions :math:`u(x) = g(x) + d(x)\, v(x)`, v of another trial space: what holds where d vanishes is exact.

    With d that vanishes linearly on the boundary, :math:`u = g` there whatever the parameters of v are.

    >>> from numpyro_inverse import pinn
    >>> box = pinn.Box(0.0, 1.0)
    >>> u = pinn.Enforced(pinn.ChebyshevBasis(box, 8), box.distance)

    Args:
        inner: v.
        distance: d, a function of a point; :meth:`Box.distance` for all of the boundary.
        lift: g, a function of a point, or a number; it holds the values that are imposed.

    Raises:
        TypeError: a part that cannot be called, a lift that is neither a function nor numbers.
        ValueError: a lift that is not finite.
    """

    inner: Any
    distance: Callable = eqx.field(static=True)
    lift: Callable | float = eqx.field(static=True)

    def __init__(self, inner: Any, distance: Callable, lift: Callable | float = 0.0):
        self.inner = check_callable("Enforced", "inner", inner, "a trial function")
        self.distance = check_callable("Enforced", "distance", distance, "a function of a point")
        self.lift = lift if callable(lift) else check_finite("Enforced", "lift", lift)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "*m"]:
        x = as_point("Enforced", x)
        lift = self.lift(x) if callable(self.lift) else jnp.asarray(self.lift, x.dtype)
        return lift + self.distance(x) * self.inner(x)
