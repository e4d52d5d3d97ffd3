"""Two groups at once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int, Key

from numpyro_inverse._checks import check_instance, check_key, describe
from numpyro_inverse.symmetry._group import Element, Group, Statistic, alike
from numpyro_inverse.symmetry._scaling import Scaling, unit


class Product(Group):
    r"""The direct product of two groups whose actions commute, :math:`(g, h) x = g (h x)`; written ``first * second``.

    Whether they commute depends on the arrays; :func:`check_action` and ``OrbitMoves`` find out. What does not commute
    (shifts and mirror images) is no product; list it as a :class:`FiniteGroup`.

    An element is a pair. Of two isometry groups one must be finite: canonical forms go through its elements (the group
    of the smaller order), with the other's own method for each. Invariants: means, over the finite group, of the
    squares of the other's invariants.

    Raises:
        ValueError: both are infinite groups of isometries, both scale, or one is itself a product with a scaling.
    """

    first: Group
    second: Group

    def __init__(self, first: Group, second: Group):
        self.first = check_instance("Product", "first", first, Group, "a group")
        self.second = check_instance("Product", "second", second, Group, "a group")
        if scales(first) and scales(second):
            raise ValueError("Product: two scalings are one; leave one out.")
        if any(scales(group) and not isinstance(group, Scaling) for group in (first, second)):
            raise ValueError(
                "Product: a `Scaling` must be the last group; write `CyclicShift(n) * SignFlip() * Scaling()`."
            )
        if not (isinstance(first, Scaling) or isinstance(second, Scaling)) and self._orders == (None, None):
            raise ValueError("Product: one of the groups must be finite, or a `Scaling`.")

    @property
    def order(self) -> int | None:
        one, other = self._orders
        return None if one is None or other is None else one * other

    @property
    def is_compact(self) -> bool:
        return self.first.is_compact and self.second.is_compact

    @property
    def is_abelian(self) -> bool:
        return self.first.is_abelian and self.second.is_abelian

    @property
    def identity(self) -> Element:
        return self.first.identity, self.second.identity

    def elements(self) -> Element:
        one, other = self.first.elements(), self.second.elements()
        n, m = (jax.tree.leaves(listed)[0].shape[0] for listed in (one, other))
        repeated = jax.tree.map(lambda e: jnp.repeat(e, m, axis=0), one)  # identity first
        return repeated, jax.tree.map(lambda e: jnp.tile(e, (n, *(1 for _ in e.shape[1:]))), other)

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return self.first.compose(g[0], h[0]), self.second.compose(g[1], h[1])

    def inverse(self, g: Element) -> Element:
        g = self._element("g", g)
        return self.first.inverse(g[0]), self.second.inverse(g[1])

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        g = self._element("g", g)
        return self.first.action(g[0], self.second.action(g[1], x))

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        one, other = jax.random.split(check_key("Product", "rng_key", rng_key))
        return self.first.sample(one), self.second.sample(other)

    def propose(self, rng_key: Key[Array, ""]) -> Element:
        one, other = jax.random.split(check_key("Product", "rng_key", rng_key))
        return self.first.propose(one), self.second.propose(other)

    def log_abs_det(self, g: Element, x: Inexact[Array, "*shape"]) -> Float[Array, ""]:
        g = self._element("g", g)
        return self.first.log_abs_det(g[0], x) + self.second.log_abs_det(g[1], x)

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        listed, other = self._split
        if isinstance(listed, Scaling):
            return other.invariants(unit(x))
        values = jax.vmap(lambda g: other.invariants(listed.action(g, x)))(listed.elements())
        return jnp.mean(values**2, axis=0)

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        x, reference = alike("Product", x=x, reference=reference)
        listed, other = self._split
        if isinstance(listed, Scaling):  # several arrays weigh the same whatever their scale
            return listed.correlation(x, reference), other.correlation(unit(x), unit(reference))
        return jax.vmap(lambda g: other.correlation(listed.action(g, x), reference))(listed.elements())

    def reversed(self, statistic: Statistic) -> Statistic:
        listed, other = self._split
        if isinstance(listed, Scaling):
            return listed.reversed(statistic[0]), other.reversed(statistic[1])
        places = _places_of_inverses(listed)
        return jax.vmap(other.reversed)(jax.tree.map(lambda s: s[places], statistic))

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        listed, other = self._split
        if isinstance(listed, Scaling):
            factor, (best, value) = listed.maximizer(statistic[0])[0], other.maximizer(statistic[1])
            return self._pair(factor, best), value
        best, values = jax.vmap(other.maximizer)(statistic)
        place = jnp.argmax(values)
        chosen, best = (jax.tree.map(lambda e: e[place], element) for element in (listed.elements(), best))
        return self._pair(chosen, best), values[place]

    def nearest(self, u: Inexact[Array, "*shape"], v: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        u, v = alike("Product", u=u, v=v)
        listed, other = self._split
        if isinstance(listed, Scaling):
            return listed.nearest(other.nearest(u, v), v)
        return super().nearest(u, v)

    def _element(self, argument: str, g: Any) -> Element:
        if not isinstance(g, tuple | list):
            raise TypeError(f"Product: `{argument}` must be a pair of elements; got {describe(g)}.")
        if len(g) != 2:
            raise ValueError(f"Product: `{argument}` must be a pair of elements; got {len(g)} of them.")
        return g

    @property
    def _orders(self) -> tuple[int | None, int | None]:
        return self.first.order, self.second.order

    @property
    def _split(self) -> tuple[Group, Group]:
        """The group whose elements are listed, or that scales, and the other."""
        one, other = (float("inf") if order is None else order for order in self._orders)
        swapped = isinstance(self.second, Scaling) or (other < one and not isinstance(self.first, Scaling))
        return (self.second, self.first) if swapped else (self.first, self.second)

    def _pair(self, listed: Element, other: Element) -> Element:
        return (listed, other) if self._split[0] is self.first else (other, listed)


@jax.ensure_compile_time_eval()
def _places_of_inverses(group: Group) -> Int[np.ndarray, " order"]:
    """Where, in the list of its elements, the inverse of each is."""
    elements = group.elements()
    rows, inverses = (
        np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(listed)], axis=1)
        for listed in (elements, jax.vmap(group.inverse)(elements))
    )
    return np.argmax(np.all(inverses[:, None] == rows[None], axis=-1), axis=1)


def scales(group: Group) -> bool:
    """Whether some element changes the norm."""
    if isinstance(group, Product):
        return scales(group.first) or scales(group.second)
    return isinstance(group, Scaling)
