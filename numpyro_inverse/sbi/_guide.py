"""A learned posterior as an SVI guide, whose parameters start as they were learned."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions import Delta, biject_to

from numpyro_inverse._model import trace_at
from numpyro_inverse.sbi._neural_posterior import ConditionalLaw, Latents


def sample_guide(density: Any, context: Array, latents: Latents, args: tuple, kwargs: dict[str, Any]) -> None:
    """Samples the latents in a guide: noise through a bijection, whose arrays are parameters, to every site.

    Each site is a point mass with the log determinant of its transform as density, so that NumPyro's evidence bound has
    the density of the constrained values.

    Raises:
        TypeError: the density is no bijection of noise, so that its draws have no gradient.
    """
    if not hasattr(density, "forward_and_log_det"):
        raise TypeError(
            f"NPE.guide: draws of {type(density).__name__} have no gradient; fit with one flow, "
            "`density=nn.CouplingFlow`."
        )
    arrays, rest = eqx.partition(density, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(arrays)
    learned = [numpyro.param(f"npe_{i}", leaf) for i, leaf in enumerate(leaves)]
    law = ConditionalLaw(eqx.combine(jax.tree.unflatten(structure, learned), rest), context)
    z = latents.named(numpyro.sample("npe_latent", law, infer={"is_auxiliary": True}))
    with handlers.block():
        sites = trace_at(latents.model, args, kwargs, substitute_fn=lambda site: _constrained(site, z))
    for name, value in z.items():
        constrained = sites[name]["value"]
        change = biject_to(sites[name]["fn"].support).log_abs_det_jacobian(value, constrained)
        numpyro.sample(name, Delta(constrained, log_density=-jnp.sum(change), event_dim=jnp.ndim(constrained)))


def _constrained(site: dict[str, Any], z: dict[str, Array]) -> Any:
    """The value of a latent site at unconstrained latents; None for others."""
    return biject_to(site["fn"].support)(z[site["name"]]) if site["name"] in z else None
