"""Base of the kernels whose proposals leave a Gaussian reference unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from numpyro_inverse._checks import check_fraction
from numpyro_inverse._model import Trace
from numpyro_inverse.infer.kernels._adjusted import AdjustedKernel
from numpyro_inverse.infer.kernels._base import KernelState, Point
from numpyro_inverse.infer.laplace import LaplaceReference, Reference, prior_reference


class FunctionSpaceKernel(AdjustedKernel):
    """Base of kernels whose proposals leave a Gaussian reference unchanged, at any step.

    The step size is ``beta`` in (0, 1), the share of fresh noise. What is adapted is :math:`t > 0` with
    ``beta = t / sqrt(1 + t^2)`` and ``rho = 1 / sqrt(1 + t^2)``.
    """

    def __init__(self, model, potential_fn, *, step_size: float, target_accept_prob: float, init_strategy: Callable):
        step_size = check_fraction(self._name, "step_size", step_size)
        super().__init__(
            model,
            potential_fn,
            step_size=step_size / (1 - step_size**2) ** 0.5,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )

    def _constants(self, trace: Trace, z: PyTree, args: tuple, kwargs: dict[str, Any]) -> Any:
        return prior_reference(trace, z)

    def _step_size(self, adapt_state: Any) -> Float[Array, ""]:
        return adapt_state.step_size / jnp.hypot(adapt_state.step_size, 1.0)

    @staticmethod
    def _rotation(state: KernelState) -> tuple[Array, Array]:
        """``rho`` and ``beta``."""
        t = state.adapt_state.step_size
        length = jnp.hypot(t, 1.0)
        return 1 / length, t / length


def misfit(point: Point, reference: Reference | LaplaceReference) -> Float[Array, ""]:
    """The potential relative to the reference: minus the log likelihood where the reference is the prior."""
    u = reference.noise(point.x)
    return point.potential_energy - 0.5 * u @ u
