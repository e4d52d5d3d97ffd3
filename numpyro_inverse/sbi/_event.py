"""An event of a declared support as a vector that a density can be learned of, and back."""

from __future__ import annotations

from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import biject_to, constraints

from numpyro_inverse.distributions import VectorOf


class Event(eqx.Module):
    r"""The coordinates z in which a law on some support is learned.

    Continuous events are unconstrained by ``biject_to(support)``, so that no mass falls outside:
    :math:`\log p(x) = \log q(z) + \log |\det \partial z / \partial x|`. Integers stay as they are, and have masses.

    Args:
        shape: of an event.
        support: its NumPyro constraint.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    support: constraints.Constraint = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return len(self.kinds)

    @property
    def kinds(self) -> tuple[constraints.Constraint, ...]:
        """For each number of a vector: real, or its constraint if it is an integer."""
        if isinstance(self.support, VectorOf):
            return tuple(part if part.is_discrete else constraints.real for part in self.support.parts)
        if self.support.is_discrete:
            return (_of_numbers(self.support),) * prod(self.shape)
        return (constraints.real,) * prod(biject_to(self.support).inverse_shape(self.shape))

    @property
    def has_integers(self) -> bool:
        """Whether any number of a vector is one."""
        return any(kind.is_discrete for kind in self.kinds)

    def vector(self, value: Array) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        r"""Coordinates of one event, and :math:`\log |\det \partial z / \partial x|`."""
        value = jnp.asarray(value, jnp.result_type(float))
        if isinstance(self.support, VectorOf):
            pairs = [_unconstrained(part, value[i]) for i, part in enumerate(self.support.parts)]
            return jnp.stack([z for z, _ in pairs]), sum((change for _, change in pairs), jnp.zeros(()))
        z, change = _unconstrained(self.support, value)
        return jnp.ravel(z), jnp.sum(change)

    def safe_vector(self, value: Array) -> tuple[Bool[Array, ""], Float[Array, " size"], Float[Array, ""]]:
        """Whether an event is within the support, and its :meth:`vector`; outside, that of another one.

        So a branch that is not taken, where there is no density, has a finite gradient.
        """
        inside = self.inside(value)
        z, change = self.vector(jnp.where(inside, jnp.asarray(value, jnp.result_type(float)), self.anywhere()))
        return inside, z, change

    def value(self, vector: Float[Array, " size"]) -> Array:
        """The event with these coordinates."""
        if isinstance(self.support, VectorOf):
            return jnp.stack([_constrained(part, vector[i], ()) for i, part in enumerate(self.support.parts)])
        return _constrained(self.support, vector, self.shape)

    def anywhere(self) -> Array:
        """Some event of the support: that of coordinates zero, or the least integers."""
        zero = jnp.zeros(())
        return self.value(jnp.stack([jnp.asarray(kind.feasible_like(zero), zero.dtype) for kind in self.kinds]))

    def inside(self, value: Array) -> Bool[Array, ""]:
        """Whether one event is in the support."""
        return jnp.all(jnp.asarray(self.support(value)))

    def check(self, where: str, site: str, value: Array) -> None:
        """Raise where known data, with any batch axes, are not finite or outside of the support."""
        if not np.all(np.isfinite(np.asarray(value))):
            raise ValueError(f"{where}: `y` of site {site!r} is not finite.")
        with jax.ensure_compile_time_eval():
            inside = np.all(self.support(value))
        if not inside:
            raise ValueError(f"{where}: `y` is outside the support of site {site!r}, {self.support}.")

    def vectors(self, values: np.ndarray) -> np.ndarray:
        """Coordinates of many events, rows first."""
        with jax.ensure_compile_time_eval():
            return np.asarray(jax.jit(jax.vmap(lambda v: self.vector(v)[0]))(jnp.asarray(values)))


def _unconstrained(support: Any, value: Array) -> tuple[Array, Array]:
    if support.is_discrete:
        return value, jnp.zeros(())
    transform = biject_to(support)
    z = transform.inv(value)
    return z, -transform.log_abs_det_jacobian(z, value)


def _constrained(support: Any, z: Array, shape: tuple[int, ...]) -> Array:
    if support.is_discrete:
        return z.reshape(shape)
    transform = biject_to(support)
    return transform(z.reshape(transform.inverse_shape(shape)))


def _of_numbers(support: Any) -> Any:
    """The constraint of each number of an array."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
