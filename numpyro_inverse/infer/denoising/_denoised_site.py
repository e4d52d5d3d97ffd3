"""What a model must be for a denoiser to be the prior of its latent site, and the site given a center."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import ImproperUniform, Normal
from numpyro.primitives import Messenger

from numpyro_inverse._model import Site, abstract_trace, latent_sites
from numpyro_inverse.distributions._reparametrized import unwrapped


def denoised_site(where: str, model: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the one latent site.

    Raises:
        ValueError: not exactly one latent site, or one that has a prior.
    """
    latent = latent_sites(abstract_trace(model, args, kwargs))
    if len(latent) != 1:
        found = ", ".join(map(repr, latent)) or "none"
        raise ValueError(f"{where}: `model` must have one latent site, the denoiser's; it has {found}.")
    ((name, site),) = latent.items()
    fn = unwrapped(site["fn"])
    if not isinstance(fn, ImproperUniform):
        raise ValueError(
            f"{where}: latent site {name!r} has a prior of its own, {type(fn).__name__}, and the denoiser is its "
            "prior. Write `ImproperUniform(constraints.real, (), shape)`."
        )
    return name, tuple(site["fn"].shape())


class Coupled(Messenger):
    """The model with the site normal around a center."""

    def __init__(self, model: Callable, name: str, center: Array, scale: Any):
        super().__init__(model)
        self.name, self.center, self.scale = name, center, scale

    def process_message(self, msg: Site) -> None:
        """Replace the site's distribution."""
        if msg["type"] == "sample" and msg["name"] == self.name:
            msg["fn"] = Normal(self.center, self.scale).to_event(jnp.ndim(self.center))
