"""Mass matrix, step size and starting points for NUTS in automatically whitened coordinates."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to

from numpyro_inverse.infer.whitening._coordinates import Coordinates
from numpyro_inverse.infer.whitening._whiten import Whitened


def nuts_settings(whitened: Whitened, *args: Any, **kwargs: Any) -> dict[str, Any]:
    r"""Keyword arguments for NumPyro's ``NUTS`` on a model whitened with ``centering="auto"``.

    The mass matrix is diagonal in the modes, from prior plus the data's expected information, and dense in the other
    sites, from the curvature of the log density averaged over the modes' spread. In these coordinates the posterior is
    close to a standard normal, on which a NUTS trajectory doubles until it has turned by more than :math:`\pi`; the
    step size is the largest :math:`1.2 \pi / (2^j - 1)`, j = 4, ..., 7, whose acceptance in a short trial chain is
    0.7 or more. Both are then kept: warm-up needs only to forget the starting points, which are independent draws of a
    Gaussian with these variances, and 50 iterations do. If no such step is good enough, warm-up adapts it.

    >>> whitened = whiten(model, centering="auto")
    >>> kernel = NUTS(whitened, **nuts_settings(whitened, data=photo))

    Args:
        whitened: ``whiten(model, centering="auto")``.
        *args: the model's arguments, with the data.
        **kwargs: the model's keyword arguments, with the data.

    Raises:
        ValueError: as :func:`~numpyro_inverse.infer.whitening.fit_coordinates`.
    """
    fitted = whitened.coordinates(*args, **kwargs)
    others = tuple(sorted(fitted.hyper_location))
    modes = tuple(sorted(fitted.mode_location))
    mass = {modes: jnp.concatenate([jnp.ravel(fitted.mode_variance[name]) for name in modes])}
    if others:
        mass[others] = fitted.hyper_covariance
    settings = {
        "inverse_mass_matrix": mass,
        "dense_mass": [others] if others else [],
        "adapt_mass_matrix": False,
        "init_strategy": partial(_init_near, fitted=fitted),
    }
    if fitted.step_size is None:
        return settings
    return settings | {"step_size": fitted.step_size, "adapt_step_size": False}


def _init_near(site: dict[str, Any] | None = None, *, fitted: Coordinates) -> Any:
    """A NumPyro initialisation strategy: independent draws around the fitted location."""
    if site is None:
        return partial(_init_near, fitted=fitted)
    if site["type"] != "sample" or site["is_observed"]:
        return None
    name = site["name"]
    if name in fitted.mode_location:
        location, spread = fitted.mode_location[name], jnp.sqrt(fitted.mode_variance[name])
    else:
        location, spread = fitted.hyper_location[name], fitted.hyper_spread[name]
    noise = jax.random.normal(site["kwargs"]["rng_key"], jnp.shape(location), jnp.result_type(location))
    return biject_to(site["fn"].support)(location + spread * noise)
