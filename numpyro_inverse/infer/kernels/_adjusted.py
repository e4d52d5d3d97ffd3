"""Base of the kernels with an accept-reject step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_fraction, check_positive_number
from numpyro_inverse.infer.kernels._base import GradientKernel, KernelState, Move, Point
from numpyro_inverse.infer.kernels._metropolis import accept_or_reject, probability
from numpyro_inverse.infer.kernels._warmup import WarmUp

HOPELESS = -1000.0  # log acceptance ratio below which a proposal is called divergent


class AdjustedKernel(GradientKernel):
    """A kernel with an accept-reject step; dual averaging brings its mean acceptance to ``target_accept_prob``.

    A subclass defines :meth:`_propose`.
    """

    def __init__(self, model, potential_fn, *, step_size: float, target_accept_prob: float, init_strategy: Callable):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        self._first_step_size = check_positive_number(self._name, "step_size", step_size)
        self._target_accept_prob = check_fraction(self._name, "target_accept_prob", target_accept_prob)

    @abstractmethod
    def _propose(self, key: Array, here: Point, state: KernelState, target: Callable) -> tuple[Point, Array, int]:
        """A proposal, its log acceptance ratio, and the gradients it took."""

    def _scaled(self, x: Float[Array, "n"]) -> tuple[Array, Array | None, bool]:
        """What has its variances adapted, the first variances, and whether they are adapted."""
        return jnp.zeros(1, x.dtype), None, False

    def _warmup(self, adapt_scales: bool) -> WarmUp:
        return WarmUp(self._num_warmup, self._target_accept_prob, adapt_scales)

    def _adaptation(self, point: Point) -> Any:
        values, variances, adapt_scales = self._scaled(point.x)
        return self._warmup(adapt_scales).begin(values, self._first_step_size, variances)

    def _step_size(self, adapt_state: Any) -> Float[Array, ""]:
        return adapt_state.step_size

    def _move(self, key: Array, here: Point, state: KernelState, target: Callable) -> Move:
        key_propose, key_accept = jax.random.split(key)
        there, log_ratio, num_grads = self._propose(key_propose, here, state, target)
        point, log_ratio, failure = accept_or_reject(key_accept, here, there, log_ratio)
        accept_prob = probability(log_ratio)
        values, _, adapt_scales = self._scaled(point.x)
        adapt_state = self._warmup(adapt_scales).update(state.i, accept_prob, values, state.adapt_state)
        return Move(point, there, accept_prob, log_ratio < HOPELESS, num_grads, adapt_state, failure)
