"""The mirror image along axes."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from numpyro_inverse._checks import check_count
from numpyro_inverse.symmetry._group import Element, Isometries, inexact, lagged_products


class Reflection(Isometries):
    r"""The identity and the reversal of some axes at once, :math:`(F u)_i = u_{n - 1 - i}`.

    An element is 0 or 1. Invariants: the even part :math:`(u + F u) / 2`, and :math:`o_i^2` and :math:`o_i o_{i+1}` of
    the odd part o, which flips its sign. For the mirrorings along each of two axes take a product:
    ``Reflection(-1) * Reflection(-2)``.

    Args:
        axes: one axis or several, which are reversed together.

    Raises:
        TypeError: no integers.
        ValueError: no axis, an axis twice, or an array without these axes.
    """

    axes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, axes: int | tuple[int, ...] = -1):
        given = axes if isinstance(axes, tuple | list) else (axes,)
        self.axes = tuple(check_count("Reflection", "axes", axis, least=-32) for axis in given)
        if not self.axes or len(set(self.axes)) < len(self.axes):
            raise ValueError(f"Reflection: `axes` must be one axis or several, each once; got {self.axes}.")

    @property
    def order(self) -> int:
        return 2

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return (g + h) % 2

    def inverse(self, g: Element) -> Element:
        return self._element("g", g)

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        x = inexact("Reflection", x)
        if any(not -x.ndim <= axis < x.ndim for axis in self.axes):
            raise ValueError(f"Reflection: `x` has no axis {self.axes}; its shape is {x.shape}.")
        return jnp.where(self._element("g", g) == 0, x, jnp.flip(x, self.axes))

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        one, other = self.images(inexact("Reflection", x))
        even = ((one + other) / 2).ravel()
        parts = [even.real, even.imag] if jnp.iscomplexobj(even) else [even]
        return jnp.concatenate([*parts, lagged_products((one - other) / 2)])
