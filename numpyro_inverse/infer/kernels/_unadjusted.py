"""Base of the kernels without an accept-reject step, and how they notice that they are unstable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox.internal as eqxi
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from numpyro_inverse._checks import check_positive_number, check_real
from numpyro_inverse.infer.kernels._base import GradientKernel, KernelState, Move, Point
from numpyro_inverse.infer.kernels._failures import Failure, has_failed, site_densities
from numpyro_inverse.infer.kernels._raise_if import raise_if

PATIENCE = 20  # moves in a row that look unstable before it is called an instability


class UnadjustedState(NamedTuple):
    """What an unadjusted kernel remembers: its step size, and for how many moves it looked unstable."""

    step_size: Float[Array, ""]
    steep: Int[Array, ""]


class GaussianLaw(NamedTuple):
    """The stationary law of a mode of a Gaussian under a linear kernel, at the kernel's own step: an AR(1) process.

    Attributes:
        variance: of the mode, whose mean is exact.
        correlation: between one draw and the next.
    """

    variance: Float[np.ndarray, "..."]
    correlation: Float[np.ndarray, "..."]


class UnadjustedKernel(GradientKernel):
    """A kernel without an accept-reject step: biased by its step size, which is given and never adapted.

    A subclass defines :meth:`_next` and :meth:`gaussian_law`.
    """

    needs_density = False

    def __init__(self, model, potential_fn, *, step_size: float, init_strategy: Callable):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        self._delta = check_positive_number(self._name, "step_size", step_size)

    @abstractmethod
    def gaussian_law(self, curvature: Float[Array | np.ndarray, "..."] | float) -> GaussianLaw:
        """The stationary law of a mode of a Gaussian target."""

    @abstractmethod
    def _next(self, key: Array, here: Point, target: Callable) -> tuple[Point, int, Failure]:
        """The next point, the gradients it took, and whether one of them was not a number."""

    def _too_steep(self, here: Point, there: Point) -> Bool[Array, ""]:
        """Whether the step is too large for the curvature between two points."""
        return jnp.zeros((), bool)

    def _adaptation(self, point: Point) -> UnadjustedState:
        return UnadjustedState(jnp.asarray(self._delta, point.x.dtype), jnp.zeros((), int))

    def _step_size(self, adapt_state: UnadjustedState) -> Float[Array, ""]:
        return adapt_state.step_size

    def _move(self, key: Array, here: Point, state: KernelState, target: Callable) -> Move:
        there, num_grads, failure = self._next(key, here, target)
        steep = jnp.where(self._too_steep(here, there), state.adapt_state.steep + 1, 0)
        finite = jnp.all(jnp.asarray([jnp.all(jnp.isfinite(part)) for part in there]))
        # A chain that has run away may overflow to what is not a number; that is no failure of the model.
        near = jnp.max(jnp.abs(failure.x)) < 1 / jnp.finfo(here.x.dtype).eps  # false for NaN
        failure = failure._replace(happened=failure.happened & near & (steep == 0))
        unstable = (~finite | (steep >= PATIENCE)) & ~failure.happened
        one = jnp.ones((), here.x.dtype)
        return Move(there, there, one, unstable, num_grads, state.adapt_state._replace(steep=steep), failure)

    def _sample_one(self, state: KernelState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> KernelState:
        """The next state, or a RuntimeError: no step can be taken from a point without a gradient."""
        after = super()._sample_one(state, model_args, model_kwargs)
        x, unravel = ravel_pytree(after.z)
        unstable = (
            f"{self._name}: unstable at iteration {{}}: step_size = {self._delta:.3g} is too large for the curvature "
            "of the potential. Take a smaller one; `suggest_step_size(model, ...)` measures it."
        )
        x = raise_if(after.diverging, state.i, unstable, x)
        failed = after.num_failures > state.num_failures
        names: list[str] = []

        def details() -> tuple[Array, ...]:
            largest = eqxi.unvmap_max(jnp.where(failed, jnp.max(jnp.abs(after.failed_at)), 0))
            if self._model is None:
                return (largest,)
            found = site_densities(self._density, model_args, model_kwargs or {}, unravel(after.failed_at))
            names[:] = list(found)
            return largest, *(eqxi.unvmap_any(failed & jnp.isnan(value)) for value in found.values())

        def message(iteration: int, largest: Any, *bad: Any) -> str:
            site = next((name for name, wrong in zip(names, bad, strict=True) if wrong), None)
            what = "the log density or its gradient" if site is None else f"the log density of site {site!r}"
            return (
                f"{self._name}: {what} is not a number at iteration {iteration}, where the largest latent is "
                f"{float(largest):.3g}: the forward map or the likelihood fails there, and this kernel cannot reject. "
                "Make the model finite wherever its prior is; if the chain has run away, take a smaller step_size than "
                f"{self._delta:.3g} (`suggest_step_size(model, ...)`)."
            )

        return after._replace(z=unravel(raise_if(failed, state.i, message, x, details)))


def euler_law(kernel: str, curvature: Any, step_size: float, temperature: float = 1.0) -> GaussianLaw:
    r"""The law of :math:`x^+ = (1 - \delta h)\, x + \sqrt{2 \delta \tau}\, \xi`: variance
    :math:`\tau h^{-1} (1 - \delta h / 2)^{-1}`, correlation :math:`1 - \delta h`.

    Raises:
        ValueError: :math:`\delta h` not in (0, 2), where there is no stationary law.
    """
    h = np.asarray(check_real(kernel, "curvature", curvature), float)
    if not np.all((h > 0) & (step_size * h < 2)):
        raise ValueError(
            f"{kernel}: no stationary law: `curvature` must be in (0, 2 / step_size = {2 / step_size:.3g})."
        )
    return GaussianLaw(temperature / (h * (1 - step_size * h / 2)), 1 - step_size * h)


def failure_at(point: Point) -> Failure:
    """Whether the point has no log density or no gradient."""
    return Failure(has_failed(point), point.x)
