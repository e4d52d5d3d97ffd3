"""The posterior that a network gives for data: a law of a model's latents, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, biject_to, constraints

from numpyro_inverse._checks import check_instance, check_key, check_sample_shape, check_trailing, is_traced
from numpyro_inverse._model import (
    Trace,
    abstract_trace,
    latent_sites,
    sample_sites,
    simulate,
    trace_at,
    unconstrained_trace,
)
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._event import Event
from numpyro_inverse.sbi._marked import simulator_in


class ConditionalLaw(Distribution):
    """A conditional density of vectors, given one context, as a NumPyro distribution.

    Args:
        density: a module with ``log_prob(z, context)``, ``sample(key, context)`` and ``shape``.
        context: what it is given.
    """

    arg_constraints: dict = {}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("context", "_arrays")
    pytree_aux_fields = ("_rest",)

    def __init__(self, density: Any, context: Array, *, validate_args: bool | None = None):
        self.context = context
        self._arrays, self._rest = eqx.partition(density, eqx.is_array)
        super().__init__((), tuple(density.shape), validate_args=validate_args)

    @property
    def density(self) -> Any:
        """The module."""
        return eqx.combine(self._arrays, self._rest)

    def log_prob(self, value: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """By the module, mapped over batch axes."""
        value = jnp.asarray(value)
        flat = value.reshape((prod(value.shape[:-1]), *self.event_shape))
        found = jax.vmap(self.density.log_prob, (0, None))(flat, self.context)
        return found.reshape(value.shape[:-1])

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*batch n"]:
        """By the module."""
        keys = jax.random.split(key, prod(sample_shape))
        draws = jax.vmap(self.density.sample, (0, None))(keys, self.context)
        return draws.reshape(tuple(sample_shape) + self.event_shape)


class Latents(eqx.Module):
    """Between a model's latents by name and one unconstrained vector.

    Supports may depend on other latents: the model is run to find them.

    Attributes:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments, without data.
        shapes: of each latent in unconstrained space, in the model's order.
    """

    model: Callable = eqx.field(static=True)
    args: tuple
    kwargs: dict[str, Any]
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return sum(prod(shape) for _, shape in self.shapes)

    def named(self, z: Float[Array, " n"]) -> dict[str, Array]:
        """The unconstrained latents in a vector."""
        ends = np.cumsum([prod(shape) for _, shape in self.shapes])
        parts = jnp.split(z, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)}

    def vector(self, unconstrained: Mapping[str, Array]) -> Float[Array, " n"]:
        """The vector of one set of unconstrained latents."""
        return jnp.concatenate([jnp.ravel(unconstrained[name]) for name, _ in self.shapes])

    def constrained(self, z: Float[Array, " n"]) -> tuple[dict[str, Array], Float[Array, ""]]:
        r"""Latents by name, and :math:`\log |\det \partial \theta / \partial z|`."""
        named = self.named(z)
        trace = unconstrained_trace(self.model, self.args, self.kwargs, named)
        change = jnp.zeros(())
        for name, value in named.items():
            transform = biject_to(trace[name]["fn"].support)
            change = change + jnp.sum(transform.log_abs_det_jacobian(value, trace[name]["value"]))
        return {name: trace[name]["value"] for name in named}, change

    def unconstrained(self, values: Mapping[str, Array]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        r"""The vector of one set of latents, and :math:`\log |\det \partial \theta / \partial z|`."""
        trace = trace_at(self.model, self.args, self.kwargs, {name: values[name] for name, _ in self.shapes})
        z, change = {}, jnp.zeros(())
        for name, _ in self.shapes:
            transform = biject_to(trace[name]["fn"].support)
            z[name] = transform.inv(values[name])
            change = change + jnp.sum(transform.log_abs_det_jacobian(z[name], values[name]))
        return self.vector(z), change

    def prior(self, rng_key: Array) -> dict[str, Array]:
        """One draw from the prior, by name."""
        trace = simulate(self.model, self.args, self.kwargs, rng_key)
        return {name: trace[name]["value"] for name, _ in self.shapes}


class DataContext(eqx.Module):
    """What a posterior network sees of data: the coordinates of every data site, one after the other.

    With a network for arrays (an image, a series, exchangeable rows), what it sees is the only data site as it is.

    Attributes:
        events: by site, shape and support of all its data.
        features: of the coordinates; None for an array as it is.
    """

    events: tuple[tuple[str, Event], ...]
    features: Features | None

    def __call__(self, data: Mapping[str, Array]) -> Array:
        """Of one data set."""
        if self.features is None:
            ((name, _),) = self.events
            return jnp.asarray(data[name], jnp.result_type(float))
        return self.features(*(event.vector(data[name])[0] for name, event in self.events))


def latent_shapes(trace: Trace, observed: tuple[str, ...]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Unconstrained shapes of what is not data, in the model's order."""
    sites = {name: site["fn"] for name, site in sample_sites(trace).items() if name not in observed}
    return tuple((name, tuple(biject_to(fn.support).inverse_shape(fn.shape()))) for name, fn in sites.items())


def data_event(site: dict[str, Any]) -> Event:
    """All data of a site as one event; as they are where their support depends on latents."""
    simulator = simulator_in(site["fn"])
    shape = tuple(jnp.shape(site["value"]) if site["is_observed"] else site["fn"].shape())
    support = site["fn"].support if simulator is None else simulator.support
    return Event(shape, constraints.independent(constraints.real, len(shape)) if is_traced(support) else support)


class NeuralPosterior:
    r"""The posterior :math:`q(\theta \mid y)` of :class:`~numpyro_inverse.sbi.NPE` at one data set, over sites by name.

    Draws are within the supports by construction: the network's law is one of unconstrained numbers.

    Attributes:
        unconstrained: that law, a NumPyro distribution of vectors.
        latents: from vectors to sites.
    """

    def __init__(self, unconstrained: ConditionalLaw, latents: Latents):
        self.unconstrained, self.latents = unconstrained, latents

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Float[Array, "*sample *site"]]:
        """Draws, by site."""
        check_key("NeuralPosterior.sample", "key", key)
        shape = check_sample_shape("NeuralPosterior.sample", "sample_shape", sample_shape)
        draws = _draws(self.unconstrained, self.latents, key, prod(shape))
        return {name: value.reshape(shape + value.shape[1:]) for name, value in draws.items()}

    def log_prob(self, values: Mapping[str, Float[Array, "*batch *site"]]) -> Float[Array, "*batch"]:
        """Log density of latents by site, all of them, with the same batch axes."""
        where = "NeuralPosterior.log_prob"
        check_instance(where, "values", values, Mapping, "a dictionary of latents by site")
        trace = abstract_trace(self.latents.model, self.latents.args, self.latents.kwargs)
        shapes = {name: site["fn"].shape() for name, site in latent_sites(trace).items()}
        missing = [name for name, _ in self.latents.shapes if name not in values]
        if missing:
            raise ValueError(f"NeuralPosterior.log_prob: `values` has no site {missing[0]!r}.")
        arrays = {
            name: jnp.asarray(check_trailing(where, f"values[{name!r}]", values[name], shapes[name]))
            for name, _ in self.latents.shapes
        }
        batches = {v.shape[: v.ndim - len(shapes[name])] for name, v in arrays.items()}
        if len(batches) > 1:
            raise ValueError(f"{where}: sites in `values` must have the same batch axes; got {sorted(batches)}.")
        (batch,) = batches
        flat = {name: v.reshape((prod(batch), *shapes[name])) for name, v in arrays.items()}
        return _log_prob(self.unconstrained, self.latents, flat).reshape(batch)


@eqx.filter_jit
def _draws(law: ConditionalLaw, latents: Latents, key: Array, count: int) -> dict[str, Array]:
    return jax.vmap(lambda z: latents.constrained(z)[0])(law.sample(key, (count,)))


@eqx.filter_jit
def _log_prob(law: ConditionalLaw, latents: Latents, values: dict[str, Array]) -> Array:
    def one(values: dict[str, Array]) -> Array:
        z, change = latents.unconstrained(values)
        return law.log_prob(z) - change

    return jax.vmap(one)(values)
