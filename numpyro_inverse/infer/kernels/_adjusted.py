"""Base of the kernels with an accept-reject step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.infer.hmc_util import warmup_adapter
from numpyro.util import identity

from numpyro_inverse.infer.kernels._base import GradientKernel, KernelState, Move, Point, positive


class AdjustedKernel(GradientKernel):
    """A kernel with an accept-reject step; dual averaging brings its mean acceptance to ``target_accept_prob``.

    A subclass defines :meth:`_propose`.
    """

    def __init__(self, model, potential_fn, *, step_size: float, target_accept_prob: float, init_strategy: Callable):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        self._first_step_size = positive(self._name, "step_size", step_size)
        if not 0 < target_accept_prob < 1:
            raise ValueError(f"{self._name}: `target_accept_prob` must be in (0, 1); got {target_accept_prob}.")
        self._target_accept_prob = target_accept_prob

    @abstractmethod
    def _propose(self, key: Array, here: Point, state: KernelState, target: Callable) -> tuple[Point, Array, int]:
        """A proposal, its log acceptance ratio, and the gradients it took."""

    def _scaled(self, x: Float[Array, "n"]) -> tuple[Array, Array | None, bool]:
        """What has its variances adapted, the first variances, and whether they are adapted."""
        return jnp.zeros(1, x.dtype), None, False

    def _adapter(self, adapt_scales: bool) -> tuple[Callable, Callable]:
        return warmup_adapter(
            self._num_warmup, adapt_mass_matrix=adapt_scales, target_accept_prob=self._target_accept_prob
        )

    def _adaptation(self, point: Point) -> Any:
        values, variances, adapt_scales = self._scaled(point.x)
        begin, _ = self._adapter(adapt_scales)
        step_size = jnp.asarray(self._first_step_size, point.x.dtype)
        state = begin((values,), jax.random.key(0), step_size, variances, mass_matrix_size=values.size)
        return state._replace(rng_key=None)

    def _step_size(self, adapt_state: Any) -> Float[Array, ""]:
        return adapt_state.step_size

    def _move(self, key: Array, here: Point, state: KernelState, target: Callable) -> Move:
        key_propose, key_accept = jax.random.split(key)
        there, log_ratio, num_grads = self._propose(key_propose, here, state, target)
        log_ratio = jnp.where(jnp.isfinite(there.potential_energy) & ~jnp.isnan(log_ratio), log_ratio, -jnp.inf)
        accepted = jnp.log(jax.random.uniform(key_accept, dtype=here.x.dtype)) < log_ratio
        point = jax.tree.map(partial(jnp.where, accepted), there, here)
        accept_prob = jnp.exp(jnp.minimum(log_ratio, 0))
        adapt_state = state.adapt_state
        if self._num_warmup > 0:
            values, _, adapt_scales = self._scaled(point.x)
            _, update = self._adapter(adapt_scales)
            adapt_state = jax.lax.cond(
                state.i < self._num_warmup,
                lambda old: update(state.i, accept_prob, (values,), old),
                identity,
                adapt_state,
            )
        return Move(point, accept_prob, log_ratio < -1000, num_grads, adapt_state)
