"""The sites of a model that a surrogate is to learn: which ones are simulators, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution, ExpandedDistribution, Independent
from numpyro.distributions.distribution import MaskedDistribution

from numpyro_inverse._checks import check_callable, check_instance
from numpyro_inverse._model import (
    Site,
    Trace,
    abstract_trace,
    discrete_latents,
    is_factor,
    sample_sites,
    subsampling_plates,
)
from numpyro_inverse.distributions import Simulator


def simulator_in(fn: Any) -> Simulator | None:
    """The simulator under plates, masks and reinterpreted axes; None if it is another law."""
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist
    return fn if isinstance(fn, Simulator) else None


def programs_that_count(trace: Trace) -> list[Any]:
    """The simulators' programs that count their failures."""
    found = [simulator_in(site["fn"]) for site in marked_sites(trace).values()]
    return [simulator.fn for simulator in found if simulator is not None and hasattr(simulator.fn, "failures")]


def with_law(fn: Any, law: Callable[[Simulator], Distribution]) -> Any:
    """The same distribution with another law in the simulator's place, under the same plates and masks."""
    if isinstance(fn, Independent):
        return Independent(with_law(fn.base_dist, law), fn.reinterpreted_batch_ndims)
    if isinstance(fn, ExpandedDistribution):
        return with_law(fn.base_dist, law).expand(fn.batch_shape)
    if isinstance(fn, MaskedDistribution):
        return with_law(fn.base_dist, law).mask(fn._mask)
    return law(fn)


def arguments_of(fn: Any) -> tuple[Array, ...]:
    """What each simulation of a site is given: rows of all batch axes of the site."""
    simulator = simulator_in(fn)
    assert simulator is not None
    batch = fn.shape()[: len(fn.shape()) - len(simulator.event_shape)]
    return tuple(
        jnp.broadcast_to(arg, batch + arg.shape[arg.ndim - n :])
        for arg, n in zip(simulator.args, simulator.event_dims, strict=True)
    )


def marked_sites(trace: Trace) -> dict[str, Site]:
    """The sites whose law is a simulator."""
    return {name: site for name, site in sample_sites(trace).items() if simulator_in(site["fn"]) is not None}


def checked_model(
    where: str, model: Any, model_args: Any, model_kwargs: Any, observed: str | tuple[str, ...] = ()
) -> tuple[Trace, tuple, dict[str, Any]]:
    """The model's abstract trace and its arguments, if all of it can be simulated and inferred.

    ``observed`` names sites that are data although they have none.

    Raises:
        TypeError: ``model`` is not callable, ``model_args`` no tuple or ``model_kwargs`` no dictionary.
        ValueError: no latent; a discrete latent, a plate that subsamples, a ``numpyro.factor``: each named.
    """
    check_callable(where, "model", model, "a NumPyro model")
    check_instance(where, "model_args", model_args, tuple | list, "a tuple, such as (y,)")
    if model_kwargs is not None:
        check_instance(where, "model_kwargs", model_kwargs, Mapping, "a dictionary")
    args, kwargs = tuple(model_args), dict(model_kwargs or {})
    trace = abstract_trace(model, args, kwargs)
    for name in subsampling_plates(trace):
        raise ValueError(f"{where}: plate {name!r} takes batches of its data; simulate the whole model instead.")
    for name, site in sample_sites(trace).items():
        if is_factor(site):
            raise ValueError(
                f"{where}: site {name!r} is a `numpyro.factor`: a simulation cannot follow it. Write it as a "
                "distribution."
            )
    data = (observed,) if isinstance(observed, str) else tuple(observed)
    for name in discrete_latents(trace):
        if simulator_in(trace[name]["fn"]) is None and name not in data:
            raise ValueError(
                f"{where}: latent site {name!r} is discrete, and gradients and flows are of continuous ones; sum it "
                "out in the model, or make it part of the simulator. If it is data, call the model with them "
                "(`model_args`, `model_kwargs`)."
            )
    return trace, args, kwargs


def only_marked(where: str, trace: Trace, site: str | None) -> str:
    """The name of the marked site, or of the one that was asked for.

    Raises:
        ValueError: there is none, there are several and none was named, or the named one is no simulator.
    """
    found = list(marked_sites(trace))
    if site is not None:
        if site not in found:
            what = f"is {type(trace[site]['fn']).__name__}" if site in sample_sites(trace) else "is not in the model"
            raise ValueError(
                f"{where}: site {site!r} {what}; the simulators are {', '.join(map(repr, found)) or 'none'}. Mark a "
                "site by `distributions.Simulator(fn, *args)`."
            )
        return site
    if len(found) != 1:
        how = "the model has no simulator" if not found else f"the model has the simulators {', '.join(found)}"
        then = (
            "mark the site whose law is to be learned by `distributions.Simulator(fn, *args)`"
            if not found
            else "name one in `site`, and learn the other from the model that results"
        )
        raise ValueError(f"{where}: {how}; {then}.")
    return found[0]
