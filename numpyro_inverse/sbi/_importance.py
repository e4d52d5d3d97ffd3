"""Draws of a learned posterior, weighted by a likelihood that can be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_key
from numpyro_inverse._model import log_probs, sample_sites, trace_at
from numpyro_inverse.sbi._neural_posterior import NeuralPosterior


class Importance(NamedTuple):
    """Draws with weights.

    Attributes:
        draws: by site, draws first.
        log_weights: normalized.
        pareto_k: the shape of the weights' tail: below 0.7 they can be used.
    """

    draws: dict[str, Array]
    log_weights: Float[np.ndarray, " draws"]
    pareto_k: float

    @property
    def ess(self) -> float:
        """The effective number of draws, :math:`1 / \\sum w^2`."""
        return float(1 / np.sum(np.exp(2 * self.log_weights)))

    def resampled(self, rng_key: PRNGKeyArray, num: int) -> dict[str, Array]:
        """Draws taken anew with these weights."""
        check_key("Importance.resampled", "rng_key", rng_key)
        num = check_count("Importance.resampled", "num", num)
        chosen = jax.random.choice(rng_key, len(self.log_weights), (num,), p=np.exp(self.log_weights))
        return {name: v[chosen] for name, v in self.draws.items()}


def weighted(
    posterior: NeuralPosterior, model: Callable, data: Mapping[str, Array], rng_key: PRNGKeyArray, num: int
) -> Importance:
    """Draws and their weights, smoothed; taken in unconstrained space, where no draw is on an edge."""
    from arviz_stats.base import array_stats

    latents, law = posterior.latents, posterior.unconstrained

    @jax.jit
    def drawn(key: Array) -> tuple[dict[str, Array], Array]:
        def one(z: Array) -> tuple[dict[str, Array], Array]:
            values, change = latents.constrained(z)
            sites = sample_sites(trace_at(model, latents.args, latents.kwargs, values | dict(data)))
            return values, sum(log_probs(sites).values(), change)

        z = law.sample(key, (num,))
        draws, log_joint = jax.vmap(one)(z)
        return draws, log_joint - law.log_prob(z)

    draws, log_weights = drawn(rng_key)
    # ArviZ's are log likelihoods to be divided by.
    smoothed, k = array_stats.psislw(-np.asarray(log_weights, float))
    return Importance(draws, np.asarray(smoothed), float(k))
