"""Whitened coordinates for field sites, as an effect handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, update_wrapper
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.handlers import block, substitute, trace

from numpyro_inverse._model import Trace, resting_value
from numpyro_inverse.infer.whitening._coordinates import Coordinates
from numpyro_inverse.infer.whitening._directions import Growth, Standardized
from numpyro_inverse.infer.whitening._reparam import reparametrize


def whiten(model: Callable, centering: float | Float[Array, "..."] | Coordinates = 0.0) -> Callable:
    r"""The same model with every field site sampled in whitened coordinates.

    A field site ``u`` becomes a deterministic site computed from the sampled site ``u_latent``; the joint law of
    everything else is unchanged, hyperparameters included. For a field with independent coefficients of standard
    deviation :math:`a_k` the latent site is :math:`v_k \sim N(0, (a_k / b_k)^{2 c_k})` and the field's coefficients are
    :math:`v_k a_k^{1-c_k} b_k^{c_k}`; other maps of a base distribution are sampled through their base.

    >>> mcmc = MCMC(NUTS(whiten(model)), num_warmup=500, num_samples=500)
    >>> coordinates = fit_coordinates(model, data=y)
    >>> kernel = NUTS(whiten(model, coordinates), **coordinates.nuts_settings())

    Args:
        model: a NumPyro model.
        centering: :math:`c`: 0 (white noise, right for weak data), 1 (centered coefficients, right for strong data), an
            array with one number per coefficient, or the :class:`Coordinates` that :func:`fit_coordinates` found. These
            change how the posterior is explored, not the posterior: the model may be called with other data, or none.
            Sites to which they couple a field are then sampled before the others, in the model's order.

    Returns:
        A callable with the model's arguments.

    Raises:
        ValueError: ``centering`` has numbers outside [0, 1]. When the model runs, naming the site: a field with a
            scaled or masked log density, or to which a handler around ``whiten`` gives a value; coordinates of another
            model.
        TypeError: ``model`` cannot be called, or ``centering`` is neither numbers nor coordinates.
    """
    if not callable(model):
        raise TypeError(f"whiten: `model` must be a NumPyro model; got {type(model).__name__}.")
    if isinstance(centering, Coordinates):
        whitened: Callable = partial(_in_coordinates, model, centering)
    else:
        whitened = reparametrize(model, _numbers(centering))
    return update_wrapper(whitened, model, updated=())  # a handler's own attributes stay its own


def _numbers(centering: Any) -> Any:
    message = "whiten: `centering` must be numbers in [0, 1], or what `fit_coordinates(model, ...)` returns; got "
    try:
        kind = centering.dtype if isinstance(centering, jax.Array) else np.asarray(centering, dtype=None).dtype
    except ValueError:  # a ragged list
        kind = np.dtype(object)
    numeric = np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)
    if not numeric:
        hint = " Coordinates are fitted to data: `whiten(model, fit_coordinates(model, data=y))`."
        raise TypeError(f"{message}{centering!r}.{hint if isinstance(centering, str) else ''}")
    if not np.all((np.asarray(centering) >= 0) & (np.asarray(centering) <= 1)):
        raise ValueError(f"{message}{centering}.")
    return centering


def _in_coordinates(model: Callable, fitted: Coordinates, *args: Any, **kwargs: Any) -> Any:
    """The model called in fitted coordinates; where a field is coupled to other sites, these are sampled first."""
    ahead = _sampled_ahead(model, fitted, args, kwargs) if fitted.coupled_sites else {}
    departures = {
        name: biject_to(site["fn"].support).inv(site["value"]) - fitted.hyper_location[name]
        for name, site in ahead.items()
        if name in fitted.coupled_sites
    }
    white = reparametrize(model, fitted.centering, fitted.reference, _Transforms(fitted, departures).by_site)
    if not ahead:
        return white(*args, **kwargs)
    values = {name: site["value"] for name, site in ahead.items()}
    with block(hide=list(values)), substitute(data=values):
        return white(*args, **kwargs)


def _sampled_ahead(model: Callable, fitted: Coordinates, args: tuple, kwargs: dict[str, Any]) -> Trace:
    """The sites that depend on no field, sampled in the model's order; of the rest of the model nothing is seen."""
    shown = set(fitted.hyper_location) - set(fitted.downstream_sites)

    def at_rest(site: dict[str, Any]) -> Any:
        if site["type"] != "sample" or site["is_observed"] or site["name"] in shown:
            return None
        return resting_value(site)

    # NumPyro adds the Jacobian of a constrained site as a factor of this name, when it meets the site: here.
    seen = shown | {f"_{name}_log_det" for name in shown}
    white = reparametrize(model, fitted.centering, fitted.reference)
    with block(hide_fn=lambda site: site["name"] not in seen), trace() as sites, substitute(substitute_fn=at_rest):
        white(*args, **kwargs)
    missing = [name for name in fitted.coupled_sites if name not in sites]
    if missing:
        raise ValueError(f"whiten: the coordinates are of another model: this one has no site {missing[0]!r}.")
    return {name: site for name, site in sites.items() if name in shown}


class _Transforms:
    """From fields' centered coefficients to what is sampled, given what was sampled before them."""

    def __init__(self, fitted: Coordinates, departures: Mapping[str, Array]):
        self.fitted, self.departures = fitted, departures
        self.residuals: dict[str, Array] = {}
        coupled = {name for name in fitted.centering if fitted.hyper_coupling.get(name)} | set(fitted.directions)
        for later, earlier in fitted.field_coupling.items():
            coupled |= {later, *earlier} if earlier else set()
        self.by_site = {name: (partial(self.transform, name), partial(self.keep, name)) for name in coupled}

    def from_sites(self, field: str) -> Any:
        """C (eta - its center)."""
        return self._times_departures(self.fitted.hyper_coupling.get(field, {}))

    def _times_departures(self, matrices: Mapping[str, Array]) -> Any:
        total: Any = 0.0
        for name, matrix in matrices.items():
            departure = self.departures[name]
            total = total + jnp.tensordot(matrix, departure, axes=jnp.ndim(departure))
        return total

    def transform(self, field: str, event_dim: int) -> Standardized:
        """What is done to the centered coefficients."""
        shift = self.from_sites(field)
        for earlier, factor in self.fitted.field_coupling.get(field, {}).items():
            shift = shift + factor * self._residual(field, earlier)
        if field not in self.fitted.directions:
            return Standardized(jnp.asarray(shift), event_dim)
        directions = self.fitted.directions[field]
        shift = shift + directions.mean
        for earlier, factor in directions.coupling.items():
            fall = jnp.tensordot(factor, self._residual(field, earlier), axes=factor.ndim - 1, precision="highest")
            shift = shift - jnp.tensordot(fall, directions.vectors, axes=1, precision="highest")
        rates, coupled = self.fitted.growth_rates.get(field, {}), self.fitted.hyper_coupling.get(field, {})
        growth = self._growth(rates)
        mean = directions.follow(shift, self._growth({k: rate for k, rate in rates.items() if k not in coupled}))
        return Standardized(mean, event_dim, (directions.vectors, directions.spread(growth)))

    def _growth(self, rates: Mapping[str, Array]) -> Growth:
        return Growth(*(jnp.zeros((3, 1)) + self._times_departures(rates)))

    def _residual(self, field: str, earlier: str) -> Array:
        if earlier not in self.residuals:
            raise ValueError(
                f"whiten: the coordinates are of another model: site {field!r} is coupled to {earlier!r}, which "
                "this one does not sample before it."
            )
        return self.residuals[earlier]

    def keep(self, field: str, v: Array) -> None:
        """Remember a field's coefficients."""
        self.residuals[field] = v - self.from_sites(field)
