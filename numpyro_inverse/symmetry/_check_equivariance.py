"""Does a function commute with a group?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_instance,
    check_key,
    check_numeric,
    check_positive_number,
)
from numpyro_inverse.symmetry._group import Element, Group, finite
from numpyro_inverse.symmetry._symmetry import Symmetry


@dataclass(frozen=True)
class Equivariance:
    """What :func:`check_equivariance` found.

    Attributes:
        violation: the largest :math:`|f(g x) - g f(x)|`, relative to the largest entry of :math:`f(x)`.
        element: the element for which it is largest.
        tolerance: of ``violation``.
    """

    violation: float
    element: Element
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the function is equivariant to within the tolerance."""
        return self.violation <= self.tolerance

    def __str__(self) -> str:
        if self.holds:
            return f"equivariant: |f(g x) - g f(x)| is {self.violation:.2g} of |f(x)| at most."
        return (
            f"not equivariant: |f(g x) - g f(x)| is {self.violation:.2g} of |f(x)| (allowed: {self.tolerance:.2g}), at "
            f"g = {self.element}."
        )


def check_equivariance(
    f: Callable[[PyTree], PyTree],
    group_in: Group | Symmetry,
    group_out: Group | Symmetry | None,
    x: PyTree,
    *,
    rng_key: Key[Array, ""] | None = None,
    num_elements: int = 16,
    tolerance: float = 1e-4,
) -> Equivariance:
    r"""Measure whether :math:`f(g x) = g f(x)`, at one x and random elements g: of a network, or a posterior mean.

    >>> from numpyro_inverse.symmetry import CyclicShift, check_equivariance
    >>> group = CyclicShift((8,))
    >>> check_equivariance(jnp.cumsum, group, group, jnp.arange(8.0)).holds
    False

    Args:
        f: a function of an array or a dictionary of sites.
        group_in: acts on its argument.
        group_out: acts on its value, with the same elements, possibly otherwise (a field's shift, and that of its
            derivative's channels); None: f is to be invariant.
        x: where; without symmetry of its own.
        rng_key: of the elements; default: ``jax.random.key(0)``.
        num_elements: how many.
        tolerance: relative.

    Raises:
        TypeError: ``f`` cannot be called or returns no numbers, a group is none, ``x`` is no numbers.
        ValueError: f changes the shape of its value with g; x or f is not finite.
    """
    where = "check_equivariance"
    check_callable(where, "f", f)
    check_instance(where, "group_in", group_in, Group | Symmetry, "a group")
    if group_out is not None:
        check_instance(where, "group_out", group_out, Group | Symmetry, "a group, or None")
    laws = group_in.group if isinstance(group_in, Symmetry) else group_in
    if isinstance(group_in, Symmetry):
        group_in.check_sites(where, x, "x")
        jax.tree.map(lambda leaf: finite(where, leaf, "x"), x)
    else:
        finite(where, x, "x")
    count, tolerance = (
        check_count(where, "num_elements", num_elements),
        check_positive_number(where, "tolerance", tolerance),
    )
    keys = jax.random.split(jax.random.key(0) if rng_key is None else check_key(where, "rng_key", rng_key), count)
    plain = f(x)
    jax.tree.map(partial(check_numeric, where, "f(x)"), plain, is_leaf=lambda leaf: leaf is None)
    worst, element = 0.0, laws.identity
    for key in keys:
        g = laws.propose(key)
        found, wanted = f(group_in.action(g, x)), plain if group_out is None else group_out.action(g, plain)
        violation = _relative(where, found, wanted)
        if violation > worst:
            worst, element = violation, g
    return Equivariance(worst, element, tolerance)


def _relative(where: str, found: PyTree, wanted: PyTree) -> float:
    one, other = jax.tree.leaves(found), jax.tree.leaves(wanted)
    if not one or len(one) != len(other):
        raise ValueError(f"{where}: `f` must return arrays, as many at g x as at x; got {len(one)} and {len(other)}.")
    pairs: list[tuple[Any, Any]] = list(zip(one, other, strict=True))
    for one, other in pairs:
        check_numeric(where, "f(g x)", one)
        if jnp.shape(one) != jnp.shape(other):
            raise ValueError(f"{where}: `f` returns shape {jnp.shape(one)} at g x and {jnp.shape(other)} at x.")
        if not np.all(np.isfinite(one)):
            raise ValueError(f"{where}: `f` is not finite at g x.")
    largest = max(float(np.max(np.abs(other))) for _, other in pairs)
    return max(float(np.max(np.abs(one - other))) for one, other in pairs) / max(largest, 1e-30)
