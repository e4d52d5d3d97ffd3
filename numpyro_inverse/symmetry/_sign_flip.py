"""The two signs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Key

from numpyro_inverse._checks import check_key, is_traced, show
from numpyro_inverse.symmetry._group import Element, Group, Statistic, alike, inexact, inner, lagged_products


class SignFlip(Group):
    r"""The group :math:`\{1, -1\}`: :math:`u \mapsto -u`. Phase retrieval of a real signal, :math:`y = |A u|`.

    An element is the sign, an integer. Invariants: :math:`u_i^2` and :math:`u_i u_{i+1}`, which give u but for the sign
    if no entry is zero.
    """

    @property
    def order(self) -> int:
        return 2

    @property
    def identity(self) -> Element:
        return jnp.ones((), int)

    def elements(self) -> Element:
        return jnp.array([1, -1])

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return g * h

    def inverse(self, g: Element) -> Element:
        return self._element("g", g)

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        x = inexact("SignFlip", x)
        return self._element("g", g).astype(x.dtype) * x

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        return jax.random.rademacher(check_key("SignFlip", "rng_key", rng_key), (), int)

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        return lagged_products(inexact("SignFlip", x))

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        return inner(*alike("SignFlip", x=x, reference=reference))

    def reversed(self, statistic: Statistic) -> Statistic:
        return statistic

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        return jnp.where(statistic < 0, -1, 1), jnp.abs(statistic)

    def _element(self, argument: str, g: Any) -> Element:
        g = super()._element(argument, g)
        if not is_traced(g) and abs(int(g)) != 1:
            raise ValueError(f"SignFlip: `{argument}` must be 1 or -1; got {show(g)}.")
        return g
