"""Any network made equivariant: averaged over a group, or run on canonical forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from numpyro_inverse._checks import check_callable, check_instance, check_numeric
from numpyro_inverse.symmetry import Group


class ReynoldsAverage(eqx.Module):
    r"""A network averaged over a finite group,

    .. math:: \bar f(x) = \frac{1}{|G|} \sum_{g \in G} \rho(g)^{-1} f(g x),

    which is equivariant, :math:`\bar f(g x) = \rho(g) \bar f(x)`, whatever f is, and as smooth as f. It costs
    :math:`|G|` evaluations, in one batch.

    >>> from numpyro_inverse.symmetry import Rotation90
    >>> network = eqx.nn.Conv2d(1, 1, 3, padding=1, key=jax.random.key(0))
    >>> ReynoldsAverage(network, Rotation90(), Rotation90())(jnp.ones((1, 4, 4))).shape
    (1, 4, 4)

    Args:
        network: a function of an array.
        group_in: acts on its argument; finite.
        group_out: acts on its value, with the same elements; None: the average is invariant.

    Raises:
        TypeError: ``network`` cannot be called, a group is none.
        ValueError: infinitely many elements, or too many to list.
    """

    network: Callable
    group_in: Group
    group_out: Group | None

    def __init__(self, network: Callable, group_in: Group, group_out: Group | None):
        self.network = check_callable("ReynoldsAverage", "network", network)
        self.group_in, self.group_out = _groups("ReynoldsAverage", group_in, group_out)
        try:
            jax.eval_shape(group_in.elements)
        except ValueError as error:
            raise ValueError(f"ReynoldsAverage: `group_in` must be finite; {error}") from error

    def __call__(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*out"]:
        x = check_numeric("ReynoldsAverage", "x", x)

        def one(g: Any) -> Array:
            return _back(self.group_in, self.group_out, g, self.network(self.group_in.action(g, x)))

        return jnp.mean(jax.vmap(one)(self.group_in.elements()), axis=0)


class Canonicalized(eqx.Module):
    r"""A network run on the canonical form of its argument and moved back,

    .. math:: \bar f(x) = \rho(g)^{-1} f(g x), \qquad g x \text{ the canonical form of } x,

    which is equivariant for groups of any size, at the cost of one evaluation. It jumps where the canonical form does,
    at arrays for which two members of the orbit are equally near the reference; :class:`ReynoldsAverage` does not.

    Args:
        network: a function of an array.
        group_in: acts on its argument.
        group_out: acts on its value, with the same elements; None: the result is invariant.
        reference: of the canonical form, of the argument's shape; see
            :meth:`~numpyro_inverse.symmetry.Group.canonical`.

    Raises:
        TypeError: ``network`` cannot be called, a group is none, ``reference`` is no array of numbers.

    References:
        Kaba, Mondal, Zhang, Bengio & Ravanbakhsh, *Equivariance with learned canonicalization functions*, ICML 2023;
        Puny et al., *Frame averaging for invariant and equivariant network design*, ICLR 2022.
    """

    network: Callable
    group_in: Group
    group_out: Group | None
    reference: Array | None

    def __init__(
        self,
        network: Callable,
        group_in: Group,
        group_out: Group | None,
        reference: Inexact[Array, "..."] | None = None,
    ):
        self.network = check_callable("Canonicalized", "network", network)
        self.group_in, self.group_out = _groups("Canonicalized", group_in, group_out)
        self.reference = reference if reference is None else check_numeric("Canonicalized", "reference", reference)

    def __call__(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*out"]:
        x = check_numeric("Canonicalized", "x", x)
        reference = None if self.reference is None else jax.lax.stop_gradient(self.reference)
        g = self.group_in.canonicalizer(x, reference)
        return _back(self.group_in, self.group_out, g, self.network(self.group_in.action(g, x)))


def _groups(where: str, group_in: Any, group_out: Any) -> tuple[Group, Group | None]:
    check_instance(where, "group_in", group_in, Group, "a group")
    return group_in, group_out if group_out is None else check_instance(where, "group_out", group_out, Group, "a group")


def _back(group_in: Group, group_out: Group | None, g: Any, value: Array) -> Array:
    return value if group_out is None else group_out.action(group_in.inverse(g), value)
