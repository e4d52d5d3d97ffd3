"""The prior where a learned posterior has its mass: the proposal of a further round."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from numpyro_inverse.sbi._neural_posterior import NeuralPosterior

POSTERIOR_DRAWS = 10_000  # for the threshold of the highest density region
AT_A_TIME = 10_000  # draws from the prior
LARGEST_SHARE = 10_000  # draws from the prior for one that is accepted, beyond which truncation is given up


def truncated_prior(posterior: NeuralPosterior, rng_key: Array, num: int, quantile: float) -> dict[str, np.ndarray]:
    r"""Draws from :math:`\tilde p(\theta) \propto p(\theta)\, 1[q(\theta \mid y) > \tau]`, by rejection.

    :math:`\tau` is the ``quantile`` of :math:`q(\theta \mid y)` over its own draws, so that the region has all but that
    much of its mass.

    Raises:
        ValueError: the prior hardly reaches the region.

    References:
        Deistler, Gonçalves & Macke, NeurIPS 2022, equation 5.
    """
    latents, law = posterior.latents, posterior.unconstrained
    key, rng_key = jax.random.split(rng_key)
    threshold = jnp.quantile(law.log_prob(law.sample(key, (POSTERIOR_DRAWS,))), quantile)

    @jax.jit
    def propose(key: Array) -> tuple[dict[str, Array], Array]:
        draws = jax.vmap(latents.prior)(jax.random.split(key, AT_A_TIME))
        z = jax.vmap(lambda values: latents.unconstrained(values)[0])(draws)
        return draws, law.log_prob(z) > threshold

    found: list[dict[str, np.ndarray]] = []
    accepted = tried = 0
    while accepted < num:
        draws, inside = propose(jax.random.fold_in(rng_key, tried))
        found.append({name: np.asarray(v)[np.asarray(inside)] for name, v in draws.items()})
        accepted, tried = accepted + int(inside.sum()), tried + AT_A_TIME
        if tried > LARGEST_SHARE * max(accepted, 10):
            raise ValueError(
                f"NPE: {accepted} of {tried} draws from the prior are where the posterior is; truncation cannot "
                "propose from so narrow a region. Take fewer `rounds`, or `NLE`, which takes any proposal."
            )
    return {name: np.concatenate([part[name] for part in found])[:num] for name in found[0]}
