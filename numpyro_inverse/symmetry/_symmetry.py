"""One group acting on the sites of a model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import check_instance, check_number, describe
from numpyro_inverse.symmetry._group import (
    Element,
    Group,
    alike,
    default_reference,
    inexact,
    safe_sqrt,
)
from numpyro_inverse.symmetry._product import scales

Values = Mapping[str, Any]  # arrays by site


class Symmetry(eqx.Module):
    r"""A group that moves some sites of a model at once, each by g or by :math:`g^{-1}`.

    It acts on a dictionary of sites; other sites of the dictionary stay as they are. What a blind deconvolution cannot
    tell, a shift of the image and the opposite one of the kernel, a common sign, and a factor, is

    >>> from numpyro_inverse import symmetry
    >>> group = symmetry.CyclicShift((8,)) * symmetry.SignFlip() * symmetry.Scaling()
    >>> blind = symmetry.Symmetry(group, {"image": 1, "kernel": -1})

    Its methods are those of :class:`Group`, for dictionaries: one element moves all sites, so that an orbit is an orbit
    of them together, and the canonical form puts all of them in order by one element.

    Args:
        group: the group.
        sites: a name, or several, moved by g; or the power by name, 1 for g and -1 for its inverse.

    Raises:
        TypeError: ``group`` is no group, ``sites`` no names.
        ValueError: no site, a power that is neither 1 nor -1, or -1 for a group whose elements do not commute.
    """

    group: Group
    powers: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def __init__(self, group: Group, sites: str | Sequence[str] | Mapping[str, int]):
        self.group = check_instance("Symmetry", "group", group, Group, "a group")
        powers = {sites: 1} if isinstance(sites, str) else sites
        if not isinstance(powers, Mapping):
            check_instance("Symmetry", "sites", sites, list | tuple, "names of sites, or powers by name")
            powers = dict.fromkeys(sites, 1)
        if not powers:
            raise ValueError("Symmetry: `sites` is empty; name a site.")
        for name, power in powers.items():
            check_instance("Symmetry", "sites", name, str, "names of sites")
            if check_number("Symmetry", f"sites[{name!r}]", power) not in (1, -1):
                raise ValueError(
                    f"Symmetry: `sites`: the power of site {name!r} must be 1 (moved by g) or -1 (by its inverse); got "
                    f"{describe(power)}."
                )
            if power == -1 and not group.is_abelian:
                raise ValueError(
                    f"Symmetry: `sites`: site {name!r} cannot be moved by inverses: the elements of "
                    f"{type(group).__name__} do not commute, so that inverses are no action of it."
                )
        self.powers = tuple((name, int(power)) for name, power in powers.items())

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites that are moved."""
        return tuple(name for name, _ in self.powers)

    def action(self, g: Element, values: Values) -> dict[str, Array]:
        """The values with the symmetric sites moved.

        Raises:
            ValueError: a site of the symmetry is missing.
        """
        self.check_sites("Symmetry", values)
        return dict(values) | {
            name: self.group.action(self._element(g, power), self._value(name, values)) for name, power in self.powers
        }

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        """Draw an element from the uniform law; as the group's."""
        return self.group.sample(rng_key)

    def log_abs_det(self, g: Element, values: Values) -> Float[Array, ""]:
        """Of the action on all symmetric sites together."""
        self.check_sites("Symmetry", values)
        return sum(
            (self.group.log_abs_det(self._element(g, power), self._value(name, values)) for name, power in self.powers),
            jnp.zeros(()),
        )

    def canonicalizer(self, values: Values, reference: Values | None = None) -> Element:
        """The element that takes the values to their canonical form."""
        self.check_sites("Symmetry", values)
        if reference is not None:
            self.check_sites("Symmetry", reference, "reference")
        total = None
        for name, power in self.powers:
            x = self._value(name, values)
            if reference is not None:
                x, r = alike(f"Symmetry: site {name!r}", values=x, reference=reference[name])
            else:
                r = default_reference(x)
            found = self.group.correlation(x, r)
            found = self.group.reversed(found) if power == -1 else found
            total = found if total is None else jax.tree.map(jnp.add, total, found)
        return self.group.maximizer(total)[0]

    def canonical(self, values: Values, reference: Values | None = None) -> dict[str, Array]:
        """The member of the orbit nearest to ``reference``, as :meth:`Group.canonical`."""
        return self.action(self.canonicalizer(values, reference), values)

    def invariants(self, values: Values) -> dict[str, Float[Array, " k"]]:
        """The group's invariants of each symmetric site; what they say of sites taken together is not among them."""
        self.check_sites("Symmetry", values)
        return {name: self.group.invariants(self._value(name, values)) for name in self.sites}

    def squared_orbit_distance(self, u: Values, v: Values) -> Float[Array, ""]:
        r""":math:`\min_g \sum_s |v_s - g^{p_s} u_s|^2` over the symmetric sites s.

        Raises:
            ValueError: a scaling that moves several sites; compare their canonical forms instead.
        """
        self.check_sites("Symmetry", u, "u")
        self.check_sites("Symmetry", v, "v")
        pairs = {name: alike(f"Symmetry: site {name!r}", u=u[name], v=v[name]) for name in self.sites}
        if len(self.powers) == 1:
            return self.group.squared_orbit_distance(*pairs[self.sites[0]])
        if scales(self.group):
            raise ValueError(
                "Symmetry: a scaling of several sites has no orbit distance in closed form; compare canonical forms."
            )
        here, there = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
        nearest = self.action(self.canonicalizer(*jax.lax.stop_gradient((here, there))), here)
        return sum((jnp.sum(jnp.abs(there[name] - nearest[name]) ** 2) for name in self.sites), jnp.zeros(()))

    def orbit_distance(self, u: Values, v: Values) -> Float[Array, ""]:
        """The root of :meth:`squared_orbit_distance`."""
        return safe_sqrt(self.squared_orbit_distance(u, v))

    def check_sites(self, where: str, values: Values, argument: str = "values") -> None:
        """Raise if a symmetric site is missing."""
        check_instance(where, argument, values, Mapping, "a dictionary by site")
        for name in self.sites:
            if name not in values:
                raise ValueError(
                    f"{where}: the symmetry moves site {name!r}, which is not there; `{argument}` has "
                    f"{', '.join(map(repr, values)) or 'none'}."
                )

    def _value(self, name: str, values: Values) -> Array:
        return inexact(f"Symmetry: site {name!r}", values[name], "values")

    def _element(self, g: Element, power: int) -> Element:
        return g if power == 1 else self.group.inverse(g)
