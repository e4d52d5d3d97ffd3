"""The kernel of no latents, which stays where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import identity, is_prng_key


class StillState(NamedTuple):
    """State of :class:`Still`; the fields are those of other kernels, with nothing to tell."""

    z: dict[str, Array]
    accept_prob: Array
    diverging: Array
    num_steps: Array
    potential_energy: Array
    step_size: Array


class Still(MCMCKernel):
    """Moves nothing: the hyperparameters' kernel of :class:`ExactGibbs` where all of them are fixed."""

    @property
    def sample_field(self) -> str:
        """``"z"``, an empty dictionary."""
        return "z"

    def init(
        self, rng_key: Array, num_warmup: int, init_params: Any, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> StillState:
        """The one state there is."""
        chains = () if is_prng_key(rng_key) else rng_key.shape[:1]
        zero = jnp.zeros(chains)
        return StillState({}, zero + 1, jnp.zeros(chains, bool), jnp.zeros(chains, int), zero, zero)

    def sample(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> StillState:
        """The same state."""
        return state

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> StillState:
        """The same state."""
        return state

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """The identity."""
        return identity
