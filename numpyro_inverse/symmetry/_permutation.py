"""Permutations of labels."""

from __future__ import annotations

from itertools import permutations
from math import factorial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Key

from numpyro_inverse._checks import check_count, check_key, is_traced, show
from numpyro_inverse.symmetry._group import Element, Group, Statistic, alike, as_real, inexact

MOST_LABELS = 7  # 5,040 elements that may be listed


class Permutation(Group):
    r"""All permutations of n entries along an axis, :math:`(\pi u)_i = u_{\pi(i)}`: labels of mixture components.

    An element is a vector of n integers. The best permutation is an assignment, which the Hungarian algorithm solves
    exactly in :math:`O(n^3)`, also for several arrays at once (the weights and the means of components). The canonical
    form of a vector is sorted, largest first. Invariants: the entries sorted, each column by itself, which do not say
    which belong together.

    Args:
        n: the number of labels.
        axis: the axis that is permuted.

    Raises:
        TypeError: ``n`` is no integer.
        ValueError: ``n`` less than 1, or an array whose axis has another length.
    """

    n: int = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    def __init__(self, n: int, axis: int = 0):
        self.n = check_count("Permutation", "n", n)
        self.axis = check_count("Permutation", "axis", axis, least=-32)

    @property
    def order(self) -> int:
        return factorial(self.n)

    @property
    def is_abelian(self) -> bool:
        return self.n < 3

    @property
    def identity(self) -> Element:
        return jnp.arange(self.n)

    def elements(self) -> Element:
        if self.n > MOST_LABELS:
            raise ValueError(f"Permutation: {self.n} labels have {self.order} `elements`, too many to list; draw some.")
        return jnp.asarray(np.array(list(permutations(range(self.n)))))

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return h[g]

    def inverse(self, g: Element) -> Element:
        return jnp.argsort(self._element("g", g))

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return jnp.take(self._checked(x), self._element("g", g), self.axis)

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        return jax.random.permutation(check_key("Permutation", "rng_key", rng_key), self.n)

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        return jnp.sort(self._rows(x), axis=0).ravel()

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        x, reference = alike("Permutation", x=x, reference=reference)
        return self._rows(reference) @ self._rows(x).T

    def reversed(self, statistic: Statistic) -> Statistic:
        return statistic.T

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        from optax.assignment import hungarian_algorithm

        rows, columns = hungarian_algorithm(-statistic)
        best = columns[jnp.argsort(rows)]
        return best, jnp.sum(statistic[jnp.arange(self.n), best])

    def _element(self, argument: str, g: Any) -> Element:
        g = super()._element(argument, g)
        if not is_traced(g) and sorted(np.asarray(g).tolist()) != list(range(self.n)):
            raise ValueError(f"Permutation: `{argument}` must have each of 0, ..., {self.n - 1} once; got {show(g)}.")
        return g

    def _rows(self, x: Inexact[Array, "*shape"]) -> Float[Array, "n m"]:
        return as_real(jnp.moveaxis(self._checked(x), self.axis, 0)).reshape(self.n, -1)

    def _checked(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        x = inexact("Permutation", x)
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] != self.n:
            raise ValueError(f"Permutation: axis {self.axis} of `x` must have length {self.n}; got shape {x.shape}.")
        return x
