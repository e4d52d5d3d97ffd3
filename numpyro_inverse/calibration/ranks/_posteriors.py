"""Anything that draws from a posterior, as one function ``(key, data) -> Draws``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool
from numpyro.infer import MCMC, SVI
from numpyro.infer.mcmc import MCMCKernel

from numpyro_inverse.infer import ExactGaussian

Data = dict[str, Array]


class Draws(NamedTuple):
    """Posterior draws by site, draws first, and whether a transition diverged."""

    sites: dict[str, Array]
    diverging: Bool[Array, ""]


class Call(NamedTuple):
    """How the model is called, and how many draws are made."""

    args: tuple
    kwargs: Mapping[str, Any]
    num_draws: int
    num_warmup: int
    num_samples: int
    num_steps: int


class Posterior(NamedTuple):
    """A function that draws, and whether its draws are independent of each other."""

    draw: Callable[[Array, Data], Draws]
    independent: bool


@singledispatch
def posterior_of(inference: Any, call: Call, example: Data) -> Posterior:
    """``inference`` as a function of key and data; ``example`` is one simulated data set."""
    if not callable(inference):
        raise TypeError(
            "calibration: `inference` must be a NumPyro MCMC kernel, an `SVI`, or a function `(key, data) -> {site: "
            f"draws}}`; got {type(inference).__name__}."
        )
    only = next(iter(example)) if len(example) == 1 else None

    def draw(key: Array, data: Data) -> Draws:
        sites = inference(key, data if only is None else data[only])
        if not isinstance(sites, Mapping):
            raise TypeError(
                f"calibration: `inference(key, data)` must return a dict of draws by site; got {type(sites).__name__}."
            )
        return Draws({name: jnp.asarray(value) for name, value in sites.items()}, jnp.zeros((), bool))

    return Posterior(draw, independent=True)


@posterior_of.register
def _(kernel: MCMCKernel, call: Call, example: Data) -> Posterior:
    state = jax.eval_shape(
        lambda key: copy.copy(kernel).init(key, call.num_warmup, None, call.args, dict(call.kwargs) | example),
        jax.random.key(0),
    )
    fields = ("diverging",) if "diverging" in getattr(state, "_fields", ()) else ()

    def draw(key: Array, data: Data) -> Draws:
        mcmc = MCMC(
            copy.copy(kernel),
            num_warmup=call.num_warmup,
            num_samples=call.num_samples,
            num_chains=1,
            progress_bar=False,
        )
        mcmc.run(key, *call.args, extra_fields=fields, **dict(call.kwargs) | data)
        diverging = mcmc.get_extra_fields().get("diverging", jnp.zeros(1, bool))
        return Draws(mcmc.get_samples(), jnp.any(diverging))

    return Posterior(draw, independent=False)


@posterior_of.register
def _(kernel: ExactGaussian, call: Call, example: Data) -> Posterior:
    state = kernel.init(
        jax.random.split(jax.random.key(0), call.num_draws), 0, None, call.args, dict(call.kwargs) | example
    )

    def draw(key: Array, data: Data) -> Draws:
        kwargs = dict(call.kwargs) | data
        renewed = kernel.with_data(state, call.args, kwargs)
        renewed = renewed._replace(rng_key=jax.random.split(key, call.num_draws))
        z = kernel.sample(renewed, call.args, kwargs).z
        return Draws(jax.vmap(kernel.postprocess_fn(call.args, kwargs))(z), jnp.zeros((), bool))

    return Posterior(draw, independent=True)


@posterior_of.register
def _(svi: SVI, call: Call, example: Data) -> Posterior:
    if not hasattr(svi.guide, "sample_posterior"):
        raise TypeError("calibration: the guide of an `SVI` must be an autoguide, with a method `sample_posterior`.")
    svi.init(jax.random.key(0), *call.args, **dict(call.kwargs) | example)  # builds the guide outside traced code

    def draw(key: Array, data: Data) -> Draws:
        key_fit, key_draw = jax.random.split(key)
        kwargs = dict(call.kwargs) | data
        fit = svi.run(key_fit, call.num_steps, *call.args, progress_bar=False, **kwargs)
        sites = svi.guide.sample_posterior(key_draw, fit.params, *call.args, sample_shape=(call.num_draws,), **kwargs)
        return Draws(sites, ~jnp.isfinite(fit.losses[-1]))

    return Posterior(draw, independent=True)
