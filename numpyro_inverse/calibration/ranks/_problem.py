"""A model as something to simulate from: truths, data, and the densities of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_instance, describe
from numpyro_inverse._model import abstract_trace, is_factor, log_probs, sample_sites, simulate, trace_at
from numpyro_inverse.calibration._arguments import model_arguments

Data = dict[str, Array]
Quantity = Callable[[dict[str, Array], Data], Array]


class Problem(NamedTuple):
    """A model to simulate from."""

    model: Callable
    args: tuple
    kwargs: Mapping[str, Any]
    observed: tuple[str, ...]

    def simulate(self, rng_key: Array) -> tuple[dict[str, Array], Data]:
        """Values of the latent and deterministic sites from the prior, and data given them."""
        trace = simulate(self.model, self.args, self.kwargs, rng_key)
        data = {name: trace[name]["value"] for name in self.observed}
        kinds = ("sample", "deterministic")
        return {k: s["value"] for k, s in trace.items() if s["type"] in kinds and k not in data}, data

    def latent_sites(self) -> tuple[str, ...]:
        """Names of the sample sites that have no data."""
        sites = sample_sites(abstract_trace(self.model, self.args, self.kwargs))
        return tuple(name for name in sites if name not in self.observed)

    def log_likelihood(self, values: dict[str, Array], data: Data) -> Float[Array, ""]:
        """Log density of the observed sites given the others."""
        found = self._log_probs(values, data)
        return sum((found[name] for name in self.observed), jnp.zeros(()))

    def log_density(self, values: dict[str, Array], data: Data) -> Float[Array, ""]:
        """Log joint density of all sites: the posterior's up to a constant."""
        return sum(self._log_probs(values, data).values(), jnp.zeros(()))

    def _log_probs(self, values: dict[str, Array], data: Data) -> dict[str, Array]:
        return log_probs(sample_sites(trace_at(self.model, self.args, self.kwargs, values | data)))


def problem_of(
    model: Callable, model_args: tuple, model_kwargs: Mapping[str, Any] | None, observed: str | tuple[str, ...]
) -> Problem:
    """The model, checked: all that it says can be simulated, and it has the observed sites.

    Raises:
        ValueError: a site of ``observed`` that the model does not have; any site that has data already or a scaled
            density, and any ``numpyro.factor``, none of which a simulation follows; no latent site.
        TypeError: ``model`` is not callable, ``model_args`` no tuple or ``model_kwargs`` no mapping.
    """
    check_callable("calibration", "model", model, "a NumPyro model")
    args, kwargs = model_arguments("calibration", model_args, model_kwargs)
    observed = names_of("calibration", "observed", observed)
    if not observed:
        raise ValueError("calibration: `observed` must name a site.")
    sites = sample_sites(abstract_trace(model, args, kwargs))
    for name in observed:
        if name not in sites:
            raise ValueError(
                f"calibration: the model has no sample site {name!r} to simulate data from; its sites are "
                f"{', '.join(sites) or 'none'}. Name the data's sites in `observed`."
            )
    for name, site in sites.items():
        if is_factor(site):
            raise ValueError(
                f"calibration: site {name!r} is a `numpyro.factor`: simulation cannot follow it, so ranks would be "
                "wrong. Write it as a distribution."
            )
        if site["is_observed"]:
            raise ValueError(
                f"calibration: site {name!r} has data already; the study simulates its own, so call the model without "
                "(its other arguments are passed on, and each simulated data set goes to the keyword of the site's "
                "name)."
            )
        if site["scale"] is not None:
            raise ValueError(
                f"calibration: the density of site {name!r} is scaled by {site['scale']} (a subsampling plate, or "
                "`handlers.scale`): its posterior is not that of the data that the model simulates."
            )
    if not any(name not in observed for name in sites):
        raise ValueError("calibration: the model has no latent site, so there is no posterior to check.")
    return Problem(model, args, kwargs, observed)


def tested_sites(problem: Problem, sites: tuple[str, ...] | None) -> tuple[str, ...]:
    """The sites to test; all latent ones if none are named.

    Raises:
        ValueError: a site that the model does not have.
    """
    truth, _ = jax.eval_shape(problem.simulate, jax.random.key(0))
    if sites is None:
        return problem.latent_sites()
    sites = names_of("calibration", "sites", sites)
    missing = [name for name in sites if name not in truth]
    if missing:
        raise ValueError(
            f"calibration: the model has no site {missing[0]!r} to test; `sites` must be among {', '.join(truth)}."
        )
    return sites


def names_of(where: str, argument: str, value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names as a tuple; one may be given by itself."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (tuple, list)) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{where}: `{argument}` must be names; got {describe(value)}.")
    return tuple(value)


def check_quantities(where: str, quantities: Mapping[str, Quantity] | None) -> Mapping[str, Quantity]:
    """Test quantities by name."""
    return check_instance(where, "quantities", {} if quantities is None else quantities, Mapping, "a mapping by name")


def site_quantity(name: str) -> Quantity:
    """The site itself as a test quantity."""
    return partial(_value, name)


def _value(name: str, values: dict[str, Array], data: Data) -> Array:
    return values[name]
