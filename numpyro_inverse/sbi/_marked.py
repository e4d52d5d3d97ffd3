"""The sites of a model that a surrogate is to learn: which ones are simulators, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution, ExpandedDistribution, Independent
from numpyro.distributions.distribution import MaskedDistribution

from numpyro_inverse._checks import check_model_call, describe
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
        TypeError: ``model`` is not callable, ``model_args`` no tuple, ``model_kwargs`` no dictionary or ``observed`` no
            names.
        ValueError: no latent; a discrete latent, a plate that subsamples, a ``numpyro.factor``: each named.
    """
    model, args, kwargs = check_model_call(where, model, model_args, model_kwargs)
    data = site_names(where, observed)
    trace = abstract_trace(model, args, kwargs)
    for name in subsampling_plates(trace):
        raise ValueError(f"{where}: plate {name!r} takes batches of its data; simulate the whole model instead.")
    for name, site in sample_sites(trace).items():
        if is_factor(site):
            raise ValueError(
                f"{where}: site {name!r} is a `numpyro.factor`: a simulation cannot follow it. Write it as a "
                "distribution."
            )
    for name in discrete_latents(trace):
        if simulator_in(trace[name]["fn"]) is None and name not in data:
            raise ValueError(
                f"{where}: latent site {name!r} is discrete, and gradients and flows are of continuous ones; sum it "
                "out in the model, or make it part of the simulator. If it is data, call the model with them "
                "(`model_args`, `model_kwargs`)."
            )
    return trace, args, kwargs


def site_names(where: str, observed: Any) -> tuple[str, ...]:
    """The names in ``observed``, one or several.

    Raises:
        TypeError: it is neither a name nor a sequence of names.
    """
    names = (observed,) if isinstance(observed, str) else observed
    if not isinstance(names, tuple | list | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{where}: `observed` must be the name of a site, or a tuple of names; got {describe(observed)}."
        )
    return tuple(names)


def only_marked(where: str, trace: Trace, site: str | None) -> str:
    """The name of the marked site, or of the one that was asked for.

    Raises:
        ValueError: there is none, there are several and none was named, or the named one is no simulator.
    """
    found = list(marked_sites(trace))
    if not isinstance(site, str | None):
        raise TypeError(f"{where}: `site` must be the name of a site; got {describe(site)}.")
    if site is not None:
        if site not in found:
            what = f"is {type(trace[site]['fn']).__name__}" if site in sample_sites(trace) else "is not in the model"
            raise ValueError(
                f"{where}: site {site!r} {what}; the simulators are {', '.join(map(repr, found)) or 'none'}. Give "
                "one of them as `site`, or mark a site by `distributions.Simulator(fn, *args)`."
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
