"""Warm-up in Stan's windows: dual averaging of the step size, variances or a covariance of what is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from numpyro.infer.hmc_util import warmup_adapter
from numpyro.util import identity


@dataclass(frozen=True)
class WarmUp:
    """NumPyro's ``warmup_adapter`` on a flat vector of values; its state holds ``step_size``, ``inverse_mass_matrix``.

    Attributes:
        num_steps: iterations; without any, nothing is adapted.
        target_accept_prob: mean acceptance that the step size is brought to.
        adapt_mass_matrix: take the variances of the values, or their covariance if ``dense``.
        dense: a covariance instead of variances.
    """

    num_steps: int
    target_accept_prob: float
    adapt_mass_matrix: bool = True
    dense: bool = False

    def begin(self, values: Float[Array, "m"], step_size: float, inverse_mass_matrix: Array | None = None) -> Any:
        """The first state, with a first ``inverse_mass_matrix`` (default: ones)."""
        begin, _ = self._adapter()
        step = jnp.asarray(step_size, values.dtype)
        state = begin((values,), jax.random.key(0), step, inverse_mass_matrix, mass_matrix_size=values.size)
        return state._replace(rng_key=None)

    def update(
        self,
        i: Int[Array, ""],
        accept_prob: Float[Array, ""],
        values: Float[Array, "m"],
        state: Any,
        then: Callable[[Any], Any] = identity,
    ) -> Any:
        """The state after iteration i, changed by ``then``; as it is once the warm-up is over."""
        if self.num_steps == 0:
            return state
        _, update = self._adapter()
        return jax.lax.cond(
            i < self.num_steps,
            lambda old: then(update(i, accept_prob, (values,), old)),
            identity,
            state,
        )

    def _adapter(self) -> tuple[Callable, Callable]:
        return warmup_adapter(
            self.num_steps,
            adapt_mass_matrix=self.adapt_mass_matrix,
            dense_mass=self.dense,
            target_accept_prob=self.target_accept_prob,
        )
