"""A network from a model's latents to the parameters of its observed distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import biject_to

from numpyro_inverse._checks import check_count, check_key, check_model_call
from numpyro_inverse._model import (
    abstract_trace,
    check_complex_data,
    data_sites,
    discrete_latents,
    observed_sites,
    real_parameters,
    sample_sites,
    unconstrained_trace,
)

SATURATION = 5.0  # of an input, in posterior standard deviations


class Surrogate(eqx.Module):
    r"""A residual network from the latents to the parameters of the observed sites' distributions,

    .. math:: h_1 = \sigma(W_1 z + b_1), \quad h_{k+1} = h_k + \sigma(W_k h_k + b_k), \quad
        \hat\theta = m + s \odot (W h + b + L z), \qquad
        z = t (1 + |t / 5|^4)^{-1/4}, \quad t = (x - \mu) / \varsigma,

    :math:`\sigma(t) = t / (1 + e^{-t})`, x the latents in unconstrained space, one after the other. Inputs saturate
    beyond five standard deviations: a network would extrapolate without bound, and a chain on it would never see the
    tails of the posterior. Only those parameters are emulated that depend on the latents. It is a pytree: ``nn.save``
    writes it and ``nn.load(path, like=Surrogate(model, model_args=(y,), key=key))`` reads it.

    Args:
        model: a NumPyro model; no latent may come after an observed site.
        model_args: its arguments, with the data.
        model_kwargs: its keyword arguments, likewise.
        width: of a layer.
        depth: number of layers.
        key: of the first weights.

    Raises:
        ValueError: a discrete latent, no latent, no observed site that depends on one, or one before a latent: named.
        TypeError: ``model`` is not callable, ``model_args`` not a tuple, ``model_kwargs`` not a dictionary.
    """

    layers: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear
    linear: Float[Array, "m n"]
    input_location: Float[Array, "n"]
    input_scale: Float[Array, "n"]
    output_location: Float[Array, "m"]
    output_scale: Float[Array, "m"]
    latents: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)  # name, unconstrained shape
    places: tuple[tuple[str, int, tuple[int, ...]], ...] = eqx.field(static=True)  # site, which real number, shape

    def __init__(
        self,
        model: Callable,
        *,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
        width: int = 256,
        depth: int = 3,
        key: PRNGKeyArray,
    ):
        width, depth = check_count("Surrogate", "width", width), check_count("Surrogate", "depth", depth)
        check_key("Surrogate", "key", key)
        _, args, kwargs = check_model_call("Surrogate", model, model_args, model_kwargs)
        self.latents = latent_shapes(model, args, kwargs)
        self.places = _places(model, self.latents, args, kwargs)
        inputs = sum(math.prod(shape) for _, shape in self.latents)
        outputs = sum(math.prod(shape) for *_, shape in self.places)
        keys = jax.random.split(key, depth + 1)
        sizes = [inputs, *[width] * depth]
        self.layers = tuple(eqx.nn.Linear(sizes[k], width, key=keys[k]) for k in range(depth))
        self.last = eqx.nn.Linear(width, outputs, key=keys[depth])
        self.linear = jnp.zeros((outputs, inputs))
        self.input_location, self.input_scale = jnp.zeros(inputs), jnp.ones(inputs)
        self.output_location, self.output_scale = jnp.zeros(outputs), jnp.ones(outputs)

    def __call__(self, x: Float[Array, "n"]) -> Float[Array, "m"]:
        """The parameters, one after the other."""
        fixed = jax.lax.stop_gradient
        t = (x - fixed(self.input_location)) / fixed(self.input_scale)
        z = t * (1 + (t / SATURATION) ** 4) ** -0.25
        h = jax.nn.silu(self.layers[0](z))
        for layer in self.layers[1:]:
            h = h + jax.nn.silu(layer(h))
        return fixed(self.output_location) + fixed(self.output_scale) * (self.last(h) + self.linear @ z)


def latent_shapes(model: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and unconstrained shapes, in the model's order."""
    trace = abstract_trace(model, args, kwargs)
    sites = list(sample_sites(trace).items())
    order = [site["is_observed"] for _, site in sites]
    latents = [(name, site) for name, site in sites if not site["is_observed"]]
    check_complex_data("Surrogate", data_sites(trace))
    if not latents:
        raise ValueError("Surrogate: the model has no latent site; there is nothing to infer.")
    for name in discrete_latents(trace):
        raise ValueError(f"Surrogate: latent site {name!r} is discrete; sum it out in the model.")
    if True in order and False in order[order.index(True) :]:
        early = sites[order.index(True)][0]
        late = next(name for name, site in sites[order.index(True) :] if not site["is_observed"])
        raise ValueError(
            f"Surrogate: observed site {early!r} comes before the latent {late!r}; write all latents first."
        )
    return tuple(
        (name, biject_to(site["fn"].support).inverse_shape(jnp.shape(site["value"]))) for name, site in latents
    )


def _places(model: Callable, latents: tuple, args: tuple, kwargs: dict[str, Any]) -> tuple:
    """The real numbers of the observed distributions that differ between three latents drawn at random."""

    @jax.jit
    def at(x: Array) -> dict[str, list[Array]]:
        sites = observed_sites(unconstrained_trace(model, args, kwargs, unravel(latents, x)))
        return {name: real_parameters(site["fn"])[0] for name, site in sites.items()}

    size = sum(math.prod(shape) for _, shape in latents)
    with numpyro.validation_enabled(False):
        found = [at(x) for x in jax.random.normal(jax.random.key(0), (3, size))]
    places = []
    for name, values in found[0].items():
        for which, value in enumerate(values):
            if any(not np.array_equal(value, other[name][which], equal_nan=True) for other in found[1:]):
                places.append((name, which, value.shape))
    if not places:
        raise ValueError("Surrogate: no observed site depends on a latent; there is nothing to emulate.")
    return tuple(places)


def unravel(latents: tuple, x: Float[Array, "*batch n"]) -> dict[str, Array]:
    """A vector, or several, as a dict of unconstrained latents."""
    ends = np.cumsum([math.prod(shape) for _, shape in latents])
    parts = jnp.split(x, ends[:-1], axis=-1)
    return {name: part.reshape(x.shape[:-1] + shape) for (name, shape), part in zip(latents, parts, strict=True)}
