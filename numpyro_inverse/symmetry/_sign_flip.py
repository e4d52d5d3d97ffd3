"""The two signs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Key

from numpyro_inverse.symmetry._group import Element, Group, Statistic, inexact, inner, lagged_products


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
        return g * h

    def inverse(self, g: Element) -> Element:
        return g

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        x = inexact("SignFlip", x)
        return g.astype(x.dtype) * x

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        return jax.random.rademacher(rng_key, (), int)

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        return lagged_products(inexact("SignFlip", x))

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        return inner(x, reference)

    def reversed(self, statistic: Statistic) -> Statistic:
        return statistic

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        return jnp.where(statistic < 0, -1, 1), jnp.abs(statistic)
