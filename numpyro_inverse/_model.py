"""The observed sites of a model as functions of its latents: the numbers in their distributions, simulated data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
from numpyro import handlers
from numpyro.infer.util import constrain_fn


def observed_sites(model: Callable, args: tuple, kwargs: dict[str, Any], z: PyTree) -> dict[str, Any]:
    """The observed sites of a trace with the unconstrained latents ``z``."""
    seeded = handlers.seed(model, jax.random.key(0))
    values = constrain_fn(seeded, args, kwargs, z)
    trace = handlers.trace(handlers.substitute(seeded, data=values)).get_trace(*args, **kwargs)
    return {k: site for k, site in trace.items() if site["type"] == "sample" and site["is_observed"]}


def real_parameters(distributions: PyTree) -> tuple[list[Array], Callable]:
    """The real numbers in the distributions, and how to put others in their place."""
    leaves, structure = jax.tree.flatten(distributions)
    real = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]

    def rebuild(values: list[Array]) -> PyTree:
        values_left = iter(values)
        fresh = [next(values_left) if r else leaf for r, leaf in zip(real, leaves, strict=True)]
        return jax.tree.unflatten(structure, fresh)

    return [jnp.asarray(leaf) for leaf, r in zip(leaves, real, strict=True) if r], rebuild


def simulated_data(sites: dict[str, Any], key: Array, count: int) -> dict[str, Array]:
    """``count`` data sets like the observed one, stacked; the data themselves where a site cannot be sampled."""
    keys = jax.random.split(key, (max(len(sites), 1), count))
    return {name: _simulated(site, keys[i]) for i, (name, site) in enumerate(sites.items())}


def _simulated(site: dict[str, Any], keys: Array) -> Array:
    shape = jnp.shape(site["value"])
    try:
        draws = jax.vmap(site["fn"].sample)(keys)
    except NotImplementedError:
        return jnp.asarray(site["value"])[None]
    return jnp.broadcast_to(draws, (len(keys), *shape)) if draws.ndim <= len(shape) else draws
