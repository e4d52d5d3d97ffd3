"""Quarter turns of square images."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Inexact

from numpyro_inverse.symmetry._group import Element, Isometries, inexact


class Rotation90(Isometries):
    """The four turns of a square image, counterclockwise, in its last two axes; leading axes, of channels, move along.

    An element is the number of quarter turns. With mirror images it is :class:`FiniteGroup` of
    :func:`~numpyro_inverse.denoisers.square_symmetries`, for turns and mirror images do not commute.

    Raises:
        ValueError: an array whose last two axes are not of one length: turned, it has another shape.
    """

    @property
    def order(self) -> int:
        return 4

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return (g + h) % 4

    def inverse(self, g: Element) -> Element:
        return -self._element("g", g) % 4

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        x = inexact("Rotation90", x)
        if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
            raise ValueError(f"Rotation90: the last two axes of `x` must be of one length; got shape {x.shape}.")
        g = self._element("g", g)
        once = jnp.where(g % 2 == 1, jnp.rot90(x, axes=(-2, -1)), x)
        return jnp.where(g >= 2, jnp.flip(once, (-2, -1)), once)
