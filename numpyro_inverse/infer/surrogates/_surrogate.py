"""Emulators of a model's forward map, and the effect handler that puts one in its place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from numpyro_inverse._model import observed_sites, real_parameters, unconstrained_trace

SATURATION = 5.0  # of an input, in posterior standard deviations


class Surrogate(eqx.Module):
    r"""A residual network from the latents to the parameters of the observed sites' distributions,

    .. math:: h_1 = \sigma(W_1 z + b_1), \quad h_{k+1} = h_k + \sigma(W_k h_k + b_k), \quad
        \hat\theta = m + s \odot (W h + b + L z), \qquad
        z = t (1 + |t / 5|^4)^{-1/4}, \quad t = (x - \mu) / \varsigma,

    :math:`\sigma(t) = t / (1 + e^{-t})`, x the latents in unconstrained space, one after the other. Inputs saturate
    beyond five standard deviations: a network would extrapolate without bound, and a chain on it would never see the
    tails of the posterior. Only those parameters are emulated that depend on the latents. It is a pytree: ``nn.save``
    writes it and ``nn.load(path, like=Surrogate(model, *args, key=key))`` reads it.

    Args:
        model: a NumPyro model; no latent may come after an observed site.
        *args: its arguments, with the data.
        width: of a layer.
        depth: number of layers.
        key: of the first weights.
        **kwargs: the model's keyword arguments.

    Raises:
        ValueError: a discrete latent, no latent, no observed site that depends on one, or one before a latent: named.
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

    def __init__(self, model: Callable, *args: Any, width: int = 256, depth: int = 3, key: PRNGKeyArray, **kwargs: Any):
        if width < 1 or depth < 1:
            raise ValueError(f"Surrogate: `width` and `depth` must be at least 1; got {width} and {depth}.")
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


class emulate(Messenger):
    """Effect handler: the observed sites' distributions get the parameters that a surrogate predicts.

    ``emulate(model, surrogate)`` is a NumPyro model with the same sites, priors and data. The forward map is still
    written in it, but nothing depends on its result, and compilation leaves it out. Its posterior is that of the
    surrogate; :class:`DelayedAcceptance` makes it that of the model.

    Args:
        fn: the model that the surrogate was made for.
        surrogate: the surrogate.

    Raises:
        ValueError: when the model runs: another order, other shapes or other sites than the surrogate's.
    """

    def __init__(self, fn: Callable | None = None, surrogate: Surrogate | None = None):
        if not isinstance(surrogate, Surrogate):
            raise TypeError(f"emulate: `surrogate` must be a Surrogate; got {type(surrogate).__name__}.")
        self.surrogate = surrogate
        self._values: dict[str, Array] = {}
        self._parameters: Array | None = None
        super().__init__(fn)

    def __enter__(self) -> emulate:
        self._values, self._parameters = {}, None
        return super().__enter__()

    def process_message(self, msg: dict[str, Any]) -> None:
        """Put the predicted parameters into the distribution of an emulated site."""
        name = msg["name"]
        places = [(k, p) for k, p in enumerate(self.surrogate.places) if p[0] == name]
        if msg["type"] != "sample" or not places:
            return
        if self._parameters is None:
            self._parameters = self.surrogate(self._vector(name))
        ends = np.cumsum([math.prod(shape) for *_, shape in self.surrogate.places])
        values, rebuild = real_parameters(msg["fn"])
        for k, (_, which, shape) in places:
            if which >= len(values) or values[which].shape != shape:
                raise ValueError(
                    f"emulate: site {name!r} is not as it was when the surrogate was made; make a new one."
                )
            part = self._parameters[ends[k] - math.prod(shape) : ends[k]]
            values[which] = part.reshape(shape).astype(values[which].dtype)
        msg["fn"] = rebuild(values)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Remember the latents, in unconstrained space."""
        if msg["type"] == "sample" and msg["name"] in dict(self.surrogate.latents):
            self._values[msg["name"]] = biject_to(msg["fn"].support).inv(msg["value"])

    def _vector(self, site: str) -> Array:
        parts = []
        for name, shape in self.surrogate.latents:
            if name not in self._values or self._values[name].shape != shape:
                raise ValueError(
                    f"emulate: before site {site!r} the model must sample the latent {name!r}, of shape {shape} in "
                    f"unconstrained space; found {self._values[name].shape if name in self._values else 'none'}."
                )
            parts.append(jnp.ravel(self._values[name]))
        return jnp.concatenate(parts)


def latent_shapes(model: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and unconstrained shapes, in the model's order."""
    with handlers.block():
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)
    sites = [(name, site) for name, site in trace.items() if site["type"] == "sample"]
    order = [site["is_observed"] for _, site in sites]
    latents = [(name, site) for name, site in sites if not site["is_observed"]]
    if not latents:
        raise ValueError("Surrogate: the model has no latent site; there is nothing to infer.")
    for name, site in latents:
        if site["fn"].support.is_discrete:
            raise ValueError(f"Surrogate: latent site {name!r} is discrete; sum it out in the model.")
    if True in order and False in order[order.index(True) :]:
        early = sites[order.index(True)][0]
        late = next(name for name, site in sites[order.index(True) :] if not site["is_observed"])
        raise ValueError(
            f"Surrogate: observed site {early!r} comes before the latent {late!r}; write all latents first."
        )
    return tuple((name, jnp.shape(biject_to(site["fn"].support).inv(site["value"]))) for name, site in latents)


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
