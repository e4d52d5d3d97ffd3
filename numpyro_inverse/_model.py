"""What is read off a NumPyro model: its sites, their values at given latents, simulated data, log likelihoods.

A *trace* is NumPyro's: a dictionary of sites in the model's order. Three functions make one: :func:`abstract_trace`
for types and shapes alone, :func:`trace_at` at constrained values of some sites, :func:`unconstrained_trace` at
unconstrained latents. The others take traces apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from numpyro import handlers
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, Unit, biject_to, constraints
from numpyro.distributions.distribution import MaskedDistribution
from numpyro.infer.util import constrain_fn
from numpyro.primitives import Messenger

Site = dict[str, Any]
Trace = dict[str, Site]


def abstract_trace(model: Callable, args: tuple = (), kwargs: Mapping[str, Any] | None = None) -> Trace:
    """The model's sites; their types, shapes and supports may be used, their values may not (they are abstract).

    Nothing is computed or compiled. Values that do not depend on a draw, such as the data, are there. Nothing is drawn
    either, so that improper priors are as good as others.
    """
    found: Trace = {}

    def of_its_shape(site: Site) -> Any:
        if site["type"] != "sample" or site["is_observed"]:
            return None
        return jnp.zeros(site["fn"].shape(), int if site["fn"].support.is_discrete else float)

    def run() -> None:
        found.update(trace_at(model, args, kwargs, substitute_fn=of_its_shape))

    jax.eval_shape(run)
    return found


def trace_at(
    model: Callable,
    args: tuple = (),
    kwargs: Mapping[str, Any] | None = None,
    values: Mapping[str, Array] | None = None,
    *,
    substitute_fn: Callable[[Site], Any] | None = None,
    rng_key: Array | None = None,
) -> Trace:
    """The model's sites with constrained ``values`` of some of them; the others are drawn from their priors.

    Args:
        model: a NumPyro model.
        args: its arguments.
        kwargs: its keyword arguments.
        values: by site; deterministic sites among them are computed again.
        substitute_fn: from a site to its value, or None; instead of ``values``.
        rng_key: of the draws; default: ``jax.random.key(0)``, for traces in which nothing random is used.
    """
    seeded = handlers.seed(model, jax.random.key(0) if rng_key is None else rng_key)
    if substitute_fn is not None:
        seeded = handlers.substitute(seeded, substitute_fn=substitute_fn)
    elif values is not None:
        seeded = handlers.substitute(seeded, data=dict(values))
    with handlers.block():
        return handlers.trace(seeded).get_trace(*args, **(kwargs or {}))


def unconstrained_trace(
    model: Callable, args: tuple, kwargs: Mapping[str, Any] | None, z: Mapping[str, Array]
) -> Trace:
    """The model's sites at unconstrained latents ``z``; supports may depend on other latents."""
    seeded = handlers.seed(model, jax.random.key(0))
    with handlers.block():
        values = constrain_fn(seeded, args, dict(kwargs or {}), dict(z))
    return trace_at(model, args, kwargs, values)


def simulate(
    model: Callable,
    args: tuple,
    kwargs: Mapping[str, Any] | None,
    rng_key: Array,
    values: Mapping[str, Array] | None = None,
) -> Trace:
    """The model's sites with the observed ones drawn too, given ``values`` of some latents or from the joint law.

    What depends on the data in the model sees the simulated data. A ``numpyro.factor`` is not simulated.
    """
    return trace_at(_Unobserved(model), args, kwargs, values, rng_key=rng_key)


def resting_value(site: Site) -> Array:
    """A value in the support of a site's distribution that is not drawn: unconstrained zeros."""
    fn = site["fn"]
    if fn.support.is_discrete:
        return jnp.zeros(fn.shape(), int)
    transform = biject_to(fn.support)
    return transform(jnp.zeros(transform.inverse_shape(fn.shape())))


class _Unobserved(Messenger):
    """Observed sites are sampled instead, in the data's shape also where that is broader than the distribution's."""

    def process_message(self, msg: Site) -> None:
        if msg["type"] == "sample" and msg["is_observed"] and not msg["infer"].get("is_auxiliary", False):
            msg["fn"] = _in_shape_of_data(msg)
            msg["is_observed"] = False
            msg["value"] = None


def _in_shape_of_data(site: Site) -> Any:
    """The distribution of all data of a site, replicates too, each with randomness of its own."""
    fn, shape = site["fn"], jnp.shape(site["value"])
    batch = jnp.broadcast_shapes(fn.batch_shape, shape[: len(shape) - fn.event_dim])
    return fn if batch == fn.batch_shape else fn.expand(batch)


# Parts of a trace.


def sample_sites(trace: Trace) -> Trace:
    """Latent and observed sites, factors among them."""
    return {name: site for name, site in trace.items() if site["type"] == "sample"}


def latent_sites(trace: Trace) -> Trace:
    """Sample sites without data."""
    return {name: site for name, site in sample_sites(trace).items() if not site["is_observed"]}


def observed_sites(trace: Trace) -> Trace:
    """Sample sites with data, and factors."""
    return {name: site for name, site in sample_sites(trace).items() if site["is_observed"]}


def data_sites(trace: Trace) -> Trace:
    """Sample sites with data; factors are not data."""
    return {name: site for name, site in observed_sites(trace).items() if not is_factor(site)}


def is_factor(site: Site) -> bool:
    """Whether the site is a ``numpyro.factor``."""
    return isinstance(site["fn"], Unit)


def subsampling_plates(trace: Trace) -> list[str]:
    """Names of the plates that draw batches."""
    plates = {name: site["args"] for name, site in trace.items() if site["type"] == "plate"}
    return [name for name, (size, batch, *_) in plates.items() if batch is not None and size > batch]


def discrete_latents(trace: Trace) -> list[str]:
    """Names of the latent sites with a discrete support."""
    return [name for name, site in latent_sites(trace).items() if site["fn"].support.is_discrete]


def transforms(trace: Trace) -> dict[str, Any]:
    """From unconstrained to constrained values, by latent site."""
    return {name: biject_to(site["fn"].support) for name, site in latent_sites(trace).items()}


def log_probs(sites: Trace) -> dict[str, Array]:
    """Log density of each sample site at its value, scaled, summed over its elements."""
    return {name: scale_of(site) * jnp.sum(site["fn"].log_prob(site["value"])) for name, site in sites.items()}


def scale_of(site: Site) -> Any:
    """By how much the log density of a site counts: the factor of subsampling plates and of ``handlers.scale``."""
    return 1.0 if site["scale"] is None else site["scale"]


def not_finite(site: Site) -> int:
    """How many data of a site are not finite; 0 where they are traced."""
    value = site["value"]
    return 0 if isinstance(value, jax.core.Tracer) else int(np.sum(~np.isfinite(value)))


def has_complex_parameters(fn: Any) -> bool:
    """Whether a distribution was given complex numbers; NumPyro's take them without a word."""
    return any(jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating) for leaf in jax.tree.leaves(fn))


def is_complex(fn: Any) -> bool:
    """Whether it is a law of complex numbers, by its support."""
    support = fn.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support == constraints.complex


def check_complex_data(caller: str, sites: Trace) -> None:
    """Raise where complex data or parameters meet a law of real numbers, which would lose an imaginary part.

    Raises:
        ValueError: such an observed site, named.
    """
    for name, site in sites.items():
        data = jnp.issubdtype(_dtype(site["value"]), jnp.complexfloating)
        if (data or has_complex_parameters(site["fn"])) and not is_complex(site["fn"]):
            kind = site["fn"]
            while isinstance(kind, Independent | ExpandedDistribution | MaskedDistribution):
                kind = kind.base_dist
            raise ValueError(
                f"{caller}: {'the data' if data else 'parameters'} of site {name!r} are complex, but "
                f"{type(kind).__name__} is a law of real numbers. Use `distributions.ComplexNormal(loc, scale)` of "
                "numpyro_inverse, `scale` being the standard deviation of each part."
            )


def _dtype(value: Any) -> Any:
    return value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype


# The laws of the observed sites as functions of numbers.


def real_parameters(distributions: PyTree) -> tuple[list[Array], Callable[[list[Array]], PyTree]]:
    """The real numbers in the distributions, by the names of their fields, and how to put others in their place.

    The order of a distribution's leaves differs from process to process (NumPyro collects the fields in a set of
    strings); that of what is returned does not.
    """
    leaves, structure = jax.tree.flatten(distributions)
    names = _leaf_names(distributions)
    real = [k for k in range(len(leaves)) if jnp.issubdtype(jnp.result_type(leaves[k]), jnp.floating)]
    real = sorted(real, key=names.__getitem__)

    def rebuild(values: list[Array]) -> PyTree:
        fresh = dict(enumerate(leaves)) | dict(zip(real, values, strict=True))
        return jax.tree.unflatten(structure, [fresh[k] for k in range(len(leaves))])

    return [jnp.asarray(leaves[k]) for k in real], rebuild


def _leaf_names(tree: PyTree) -> list[str]:
    """A name for each leaf, in the order of the leaves."""
    if isinstance(tree, Distribution):
        fields = zip(type(tree).gather_pytree_data_fields(), tree.tree_flatten()[0], strict=True)
        return [f".{field}{name}" for field, value in fields for name in _leaf_names(value)]
    parts, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda part: isinstance(part, Distribution))
    found = []
    for path, part in parts:
        inner = _leaf_names(part) if isinstance(part, Distribution) else [""]
        found += [jax.tree_util.keystr(path) + name for name in inner]
    return found


def simulated_data(sites: Trace, rng_key: Array, count: int) -> dict[str, Array]:
    """``count`` data sets given the latents of a trace, stacked; the data themselves where a site cannot be sampled."""
    keys = jax.random.split(rng_key, (max(len(sites), 1), count))
    return {name: _simulated(site, keys[i]) for i, (name, site) in enumerate(sites.items())}


def _simulated(site: Site, keys: Array) -> Array:
    shape = jnp.shape(site["value"])
    try:
        draws = jax.vmap(_in_shape_of_data(site).sample)(keys)
    except NotImplementedError:
        return jnp.asarray(site["value"])[None]
    return jnp.broadcast_to(draws, (len(keys), *shape)) if draws.ndim <= len(shape) else draws
