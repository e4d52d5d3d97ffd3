"""Test quantities of a field: scalars in which a wrong posterior shows that no single pixel would betray."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from numpyro_inverse._checks import check_instance, check_real, check_static, check_trailing, describe
from numpyro_inverse.domains import Grid
from numpyro_inverse.symmetry import Symmetry

Quantity = Callable[[dict[str, Array], dict[str, Array]], Array]


def region_mean(site: str, region: Bool[np.ndarray, "*shape"]) -> Quantity:
    """The mean of ``site`` over the cells where ``region`` is true.

    Raises:
        TypeError: ``site`` is no name.
        ValueError: ``region`` is not boolean or is empty.
    """
    where = _where("region_mean", site)
    try:
        cells = np.asarray(check_static(where, "region", region))
    except ValueError:  # ragged
        cells = np.zeros(())
    if cells.dtype != bool or not cells.any():
        raise ValueError(f"{where}: `region` must be a boolean array with a true cell; got {describe(region)}.")

    def mean(values: dict[str, Array], data: dict[str, Array]) -> Array:
        field = check_trailing(where, "site", _field(where, site, values), cells.shape)
        return jnp.sum(jnp.where(cells, field, 0.0)) / np.sum(cells)

    return mean


def maximum(site: str) -> Quantity:
    """The largest value of ``site``."""
    where = _where("maximum", site)
    return lambda values, data: jnp.max(_field(where, site, values))


def minimum(site: str) -> Quantity:
    """The smallest value of ``site``."""
    where = _where("minimum", site)
    return lambda values, data: jnp.min(_field(where, site, values))


def energy(site: str) -> Quantity:
    """The mean square of ``site``: too narrow or too wide in every direction at once."""
    where = _where("energy", site)
    return lambda values, data: jnp.mean(_field(where, site, values) ** 2)


def spectral_energy(site: str, domain: Grid, low: float, high: float) -> Quantity:
    r"""The sum of squared coefficients of ``site`` at wavenumbers :math:`|k|` in [``low``, ``high``).

    Args:
        site: a field on ``domain``.
        domain: its grid; the coefficients are in its orthonormal eigenfunctions.
        low: wavenumber, in radians per length unit.
        high: wavenumber, in radians per length unit.

    Raises:
        TypeError: ``site`` is no name, ``domain`` no grid, ``low`` or ``high`` no number.
        ValueError: no mode lies in the band.
    """
    where = _where("spectral_energy", site)
    check_instance(where, "domain", domain, Grid, "a Grid")
    for name, value in (("low", low), ("high", high)):
        if np.ndim(check_real(where, name, check_static(where, name, value))):
            raise ValueError(f"{where}: `{name}` must be one number; got {describe(value)}.")
    squares: Float[np.ndarray, "..."] = np.zeros(())
    for axis, k in enumerate(domain.wavenumbers):
        squares = squares + np.asarray(k)[(slice(None), *(None,) * (domain.ndim - 1 - axis))] ** 2
    band = (np.sqrt(squares) >= low) & (np.sqrt(squares) < high)
    if not band.any():
        raise ValueError(
            f"{where}: none of the {prod(domain.shape)} modes has a wavenumber in [`low`, `high`) = [{low}, {high}); "
            f"the largest is {np.sqrt(squares.max()):.3g}."
        )
    return lambda values, data: jnp.sum(jnp.where(band, domain.transform(_field(where, site, values)), 0.0) ** 2)


def invariants(symmetry: Symmetry, site: str) -> Quantity:
    """The invariants of ``site`` under a symmetry: what may be ranked when a sampler need not find all copies of a
    mode.

    Raises:
        TypeError: ``symmetry`` is no ``Symmetry``, ``site`` no name.
        ValueError: the symmetry does not move ``site``.
    """
    where = _check_moved("invariants", symmetry, site)
    return lambda values, data: symmetry.group.invariants(_field(where, site, values))


def canonical(symmetry: Symmetry, site: str) -> Quantity:
    """``site`` in the canonical form of all symmetric sites together.

    Raises:
        TypeError: ``symmetry`` is no ``Symmetry``, ``site`` no name.
        ValueError: the symmetry does not move ``site``.
    """
    _check_moved("canonical", symmetry, site)
    return lambda values, data: symmetry.canonical(values)[site]


def _where(name: str, site: str) -> str:
    """What a message of a functional begins with."""
    return f"{name}({check_instance(name, 'site', site, str, 'the name of a site')!r})"


def _field(where: str, site: str, values: dict[str, Array]) -> Array:
    if site not in values:
        raise ValueError(f"{where}: `site` must be one that is drawn, {', '.join(values) or 'none'}; got {site!r}.")
    return values[site]


def _check_moved(name: str, symmetry: Symmetry, site: str) -> str:
    where = _where(name, site)
    check_instance(where, "symmetry", symmetry, Symmetry, "a Symmetry")
    if site not in symmetry.sites:
        raise ValueError(
            f"{where}: `site` must be one that the symmetry moves, {', '.join(map(repr, symmetry.sites))}; give the "
            f"site itself instead of its {name}."
        )
    return where
