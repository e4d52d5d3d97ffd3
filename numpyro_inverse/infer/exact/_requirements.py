"""What a model must be to be drawn from exactly, as far as its sites tell; each refusal names the site."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import ImproperUniform

from numpyro_inverse._model import (
    Site,
    Trace,
    check_complex_data,
    has_complex_parameters,
    is_complex,
    latent_sites,
    not_finite,
    observed_sites,
    resting_value,
    sample_sites,
)
from numpyro_inverse.distributions._reparametrized import unwrapped
from numpyro_inverse.infer.exact._gaussian_site import (
    describe,
    is_gaussian,
    is_masked,
)

UNOBSERVED = "_unobserved"  # what NumPyro appends to the name of a site with `obs_mask`, for the data to be imputed


def require_gaussian_sites(trace: Trace, caller: str) -> None:
    """Raise unless all latent sites are Gaussian and the observed ones have data that fit them.

    Args:
        trace: of the model; values of latent sites are not looked at.
        caller: the kernel that errors name.

    Raises:
        ValueError: no sample, latent or observed site; a latent that is discrete, masked, complex or not Gaussian; a
            site with ``obs_mask``; a scaled density; data that are not numbers, not finite, complex under a real
            distribution, or of another shape.
    """
    sites, latent, observed = sample_sites(trace), latent_sites(trace), observed_sites(trace)
    if not sites:
        raise ValueError(
            f"{caller}: `model` has no sample site. It must be a NumPyro model, not a potential function: the affine "
            "map and the covariances are read off its sites."
        )
    if not latent:
        raise ValueError(f"{caller}: `model` has no latent site.")
    if not observed:
        raise ValueError(f"{caller}: `model` has no observed site; call it with the data (`obs=...`).")
    for name, site in latent.items():
        _require_gaussian_latent(name, site, latent, caller)
    for name, site in sites.items():
        if site["scale"] is not None:
            raise ValueError(
                f"{caller}: the log density of site {name!r} is scaled (a subsampling plate or `handlers.scale`); "
                "the result would not be this model's posterior."
            )
    for name, site in observed.items():
        _require_data(name, site, caller)


def _require_gaussian_latent(name: str, site: Site, latent: Trace, caller: str) -> None:
    fn, kind = site["fn"], describe(site["fn"])
    if name.endswith(UNOBSERVED) and is_masked(fn):
        raise ValueError(
            f"{caller}: site {name.removesuffix(UNOBSERVED)!r} has an `obs_mask`, whose missing data would be latent. "
            "Leave them out: observe with `fn.mask(mask)`, or through `operators.Mask`."
        )
    if fn.support.is_discrete:
        raise ValueError(f"{caller}: latent site {name!r} is discrete ({kind}).")
    if is_masked(fn):
        raise ValueError(f"{caller}: latent site {name!r} ({kind}) is masked, so it has no proper prior.")
    if isinstance(unwrapped(fn), ImproperUniform):
        raise ValueError(
            f"{caller}: latent site {name!r} is ImproperUniform, which has no covariance. Give it a wide proper prior, "
            "such as Normal(0, 1e3)."
        )
    if is_complex(fn) or has_complex_parameters(fn):
        raise ValueError(
            f"{caller}: latent site {name!r} ({kind}) is complex. Sample its real and its imaginary part as two sites."
        )
    if not is_gaussian(fn):
        raise ValueError(
            f"{caller}: latent site {name!r} is {kind}, not Gaussian. Fix it "
            f'(`numpyro.handlers.condition(model, {{"{name}": value}})`), or use NUTS, or `ExactGibbs` with the '
            "Gaussian sites alone in `sites`."
        )


def _require_data(name: str, site: Site, caller: str) -> None:
    fn, value = site["fn"], site["value"]
    dtype = np.asarray(value).dtype if not hasattr(value, "dtype") else value.dtype
    if not (jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)):
        raise ValueError(f"{caller}: data at site {name!r} must be numbers; got {type(value).__name__} of {dtype}.")
    check_complex_data(caller, {name: site})
    if is_gaussian(fn):
        law, shape = tuple(fn.shape()), jnp.shape(value)
        try:
            together = jnp.broadcast_shapes(law, shape)
        except ValueError:
            together = None
        if together not in (law, shape):
            broadcast = "do not broadcast" if together is None else f"would be broadcast to {together}"
            raise ValueError(
                f"{caller}: data at site {name!r} have shape {shape}, their distribution has {law}, and these "
                f"{broadcast}. Give one the shape of the other."
            )
    if bad := not_finite(site):
        raise ValueError(
            f"{caller}: {bad} of the {np.size(value)} data at site {name!r} are not finite; leave missing values out "
            "with `operators.Mask`."
        )


def improper_at_rest(model: Callable) -> Callable:
    """The model with latent sites that cannot be drawn at a value in their support, so that it can be traced."""

    def value(site: Site) -> object:
        latent = site["type"] == "sample" and not site["is_observed"]
        return resting_value(site) if latent and isinstance(unwrapped(site["fn"]), ImproperUniform) else None

    return handlers.substitute(model, substitute_fn=value)
