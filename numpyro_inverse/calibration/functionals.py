"""Test quantities of a field: scalars in which a wrong posterior shows that no single pixel would betray."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from numpyro_inverse._checks import check_instance
from numpyro_inverse.domains import Grid
from numpyro_inverse.symmetry import Symmetry

Quantity = Callable[[dict[str, Array], dict[str, Array]], Array]


def region_mean(site: str, region: Bool[np.ndarray, "*shape"]) -> Quantity:
    """The mean of ``site`` over the cells where ``region`` is true.

    Raises:
        ValueError: ``region`` is not boolean or is empty.
    """
    region = np.asarray(region)
    if region.dtype != bool or not region.any():
        raise ValueError(
            f"region_mean({site!r}): `region` must be a boolean array with a true cell; got {region.dtype}."
        )
    return lambda values, data: jnp.sum(jnp.where(region, values[site], 0.0)) / np.sum(region)


def maximum(site: str) -> Quantity:
    """The largest value of ``site``."""
    return lambda values, data: jnp.max(values[site])


def minimum(site: str) -> Quantity:
    """The smallest value of ``site``."""
    return lambda values, data: jnp.min(values[site])


def energy(site: str) -> Quantity:
    """The mean square of ``site``: too narrow or too wide in every direction at once."""
    return lambda values, data: jnp.mean(values[site] ** 2)


def spectral_energy(site: str, domain: Grid, low: float, high: float) -> Quantity:
    r"""The sum of squared coefficients of ``site`` at wavenumbers :math:`|k|` in [``low``, ``high``).

    Args:
        site: a field on ``domain``.
        domain: its grid; the coefficients are in its orthonormal eigenfunctions.
        low: wavenumber, in radians per length unit.
        high: wavenumber, in radians per length unit.

    Raises:
        ValueError: no mode lies in the band.
    """
    squares: Float[np.ndarray, "..."] = np.zeros(())
    for axis, k in enumerate(domain.wavenumbers):
        squares = squares + np.asarray(k)[(slice(None), *(None,) * (domain.ndim - 1 - axis))] ** 2
    band = (np.sqrt(squares) >= low) & (np.sqrt(squares) < high)
    if not band.any():
        raise ValueError(
            f"spectral_energy({site!r}): none of the {prod(domain.shape)} modes has a wavenumber in [{low}, {high}); "
            f"the largest is {np.sqrt(squares.max()):.3g}."
        )
    return lambda values, data: jnp.sum(jnp.where(band, domain.transform(values[site]), 0.0) ** 2)


def invariants(symmetry: Symmetry, site: str) -> Quantity:
    """The invariants of ``site`` under a symmetry: what may be ranked when a sampler need not find all copies of a
    mode.

    Raises:
        ValueError: the symmetry does not move ``site``.
    """
    _check_site("invariants", symmetry, site)
    return lambda values, data: symmetry.group.invariants(values[site])


def canonical(symmetry: Symmetry, site: str) -> Quantity:
    """``site`` in the canonical form of all symmetric sites together.

    Raises:
        ValueError: the symmetry does not move ``site``.
    """
    _check_site("canonical", symmetry, site)
    return lambda values, data: symmetry.canonical(values)[site]


def _check_site(where: str, symmetry: Symmetry, site: str) -> None:
    check_instance(where, "symmetry", symmetry, Symmetry, "a Symmetry")
    if site not in symmetry.sites:
        raise ValueError(
            f"{where}: the symmetry does not move site {site!r}, but {', '.join(map(repr, symmetry.sites))}; give "
            "the site itself."
        )
