"""Several copies of a domain, one for each time or component."""

from __future__ import annotations

from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_instance
from numpyro_inverse.domains._domain import Domain
from numpyro_inverse.operators._linear_operator import LinearOperator

COUNTED = "1"  # the unit of the numbers of copies


class Stacked(eqx.Module):
    """Copies of a domain along a further first axis, such as time; a field has one value for each place and copy.

    >>> Stacked(Grid((4, 5)), "time", 3).shape
    (3, 4, 5)

    Args:
        space: the domain.
        name: of the axis, which is numbered from 0.
        count: number of copies.

    Raises:
        TypeError: ``space`` is no domain, or ``name`` no string.
        ValueError: ``count`` is no positive integer, or ``space`` has a coordinate of that name.
    """

    space: Domain
    name: str = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __init__(self, space: Domain, name: str, count: int):
        self.space = check_instance("Stacked", "space", space, Domain, "a domain")
        self.name = check_instance("Stacked", "name", name, str, "the name of an axis")
        self.count = check_count("Stacked", "count", count)
        if name in space.coordinates:
            raise ValueError(f"Stacked: `name` {name!r} is a coordinate of `space` already.")

    def __hash__(self) -> int:
        return hash((self.space, self.name, self.count))

    def __eq__(self, other: object) -> Any:
        mine = (self.space, self.name, self.count)
        return isinstance(other, Stacked) and mine == (other.space, other.name, other.count)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(count, *space.shape)``."""
        return (self.count, *self.space.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of coordinates of a point in space."""
        return self.space.ndim

    @property
    def coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """The number of the copy, and the coordinates in space."""
        return {self.name: ((self.name,), np.arange(self.count)), **self.space.coordinates}

    @property
    def weights(self) -> Float[Array, "*shape"]:
        """Those of ``space``, for each copy."""
        return jnp.broadcast_to(self.space.weights, self.shape)

    def interpolation(self, points: Float[Array, "m ndim"]) -> CopyByCopy:
        """From values to values at points of space, of each copy: shape ``(count, m)``."""
        return CopyByCopy(self.space.interpolation(points), self.count)


class CopyByCopy(LinearOperator):
    """The same operator on each copy; made by ``Stacked.interpolation``."""

    each: LinearOperator
    count: int = eqx.field(static=True)

    def __init__(self, each: LinearOperator, count: int):
        self.each, self.count = each, count

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.count, *self.each.in_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.count, *self.each.out_shape)

    def mv(self, x):
        return jax.vmap(self.each.mv)(x)

    def norm_bound(self):
        """That of the operator."""
        return self.each.norm_bound()


def place_of(domain: Any) -> Any:
    """The domain of which this one has copies, however often, or itself."""
    while hasattr(getattr(domain, "space", None), "coordinates"):
        domain = domain.space
    return domain
