"""A simulator's law as it was learned from simulations: a distribution with a density."""

from __future__ import annotations

from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from numpyro_inverse._checks import check_instance, check_key, check_sample_shape, check_trailing
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._event import Event


class LearnedLaw(eqx.Module):
    r"""A density of events given arguments: :math:`\log p(x \mid a) = \log q(z \mid h(a)) + \log |\det \partial z /
    \partial x|`.

    Attributes:
        density: q, a module with ``log_prob(z, context)`` and ``sample(key, context)``.
        features: h.
        event: from x to z.
    """

    density: Any
    features: Features
    event: Event

    def log_prob(self, value: Array, *args: Array) -> Float[Array, ""]:
        """Log density, or log mass, of one event; minus infinity outside of the support."""
        inside, z, change = self.event.safe_vector(value)
        return jnp.where(inside, self.density.log_prob(z, self.features(*args)) + change, -jnp.inf)

    def sample(self, key: Array, *args: Array) -> Array:
        """One event."""
        return self.event.value(self.density.sample(key, self.features(*args)))


class NeuralLikelihood(Distribution):
    r"""The law :math:`q(x \mid \theta)` that :class:`~numpyro_inverse.sbi.NLE` learned, at a simulator's arguments.

    It has the batch and event shape, the support and the arguments of the simulator in whose place it stands.

    Args:
        law: what was learned.
        simulator: whose arguments are taken.
    """

    arg_constraints: dict = {}  # noqa: RUF012
    pytree_data_fields: tuple[str, ...] = ("args", "_arrays")
    pytree_aux_fields = ("_rest", "event_dims", "_support")

    def __init__(self, law: Any, simulator: Simulator, *, validate_args: bool | None = None):
        name = type(self).__name__
        check_instance(name, "simulator", simulator, Simulator, "a `distributions.Simulator`")
        self.args, self.event_dims, self._support = simulator.args, simulator.event_dims, simulator.support
        self._arrays, self._rest = eqx.partition(law, eqx.is_array)
        super().__init__(simulator.batch_shape, simulator.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """The simulator's."""
        return self._support

    @property
    def law(self) -> Any:
        """What was learned."""
        return eqx.combine(self._arrays, self._rest)

    def log_prob(self, value: Array) -> Float[Array, "*batch"]:
        """Log density by the network, differentiable in the arguments."""
        if not (hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.bool_)):
            value = check_trailing(type(self).__name__, "value", value, self.event_shape)
        value = jnp.asarray(value)
        event = len(self.event_shape)
        batch = jnp.broadcast_shapes(value.shape[: value.ndim - event], self.batch_shape)
        flat = jnp.broadcast_to(value, batch + self.event_shape).reshape((prod(batch), *self.event_shape))
        return jax.vmap(self.law.log_prob)(flat, *self._flat_args(batch)).reshape(batch)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of the learned law."""
        check_key(type(self).__name__, "key", key)
        batch = check_sample_shape(type(self).__name__, "sample_shape", sample_shape) + self.batch_shape
        keys = jax.random.split(key, prod(batch))
        draws = jax.vmap(self.law.sample)(keys, *self._flat_args(batch))
        return draws.reshape(batch + self.event_shape)

    def _flat_args(self, batch: tuple[int, ...]) -> list[Array]:
        """Each argument once for every element, batch axes flattened."""
        events = [arg.shape[arg.ndim - n :] for arg, n in zip(self.args, self.event_dims, strict=True)]
        return [
            jnp.broadcast_to(arg, batch + event).reshape((prod(batch), *event))
            for arg, event in zip(self.args, events, strict=True)
        ]
