"""Base of the kernels without an accept-reject step, and how they notice that they are unstable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from numpyro_inverse._checks import check_positive_number, check_real
from numpyro_inverse.infer.kernels._base import GradientKernel, KernelState, Move, Point

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
    def _next(self, key: Array, here: Point, target: Callable) -> tuple[Point, int]:
        """The next point and the gradients it took."""

    def _too_steep(self, here: Point, there: Point) -> Bool[Array, ""]:
        """Whether the step is too large for the curvature between two points."""
        return jnp.zeros((), bool)

    def _adaptation(self, point: Point) -> UnadjustedState:
        return UnadjustedState(jnp.asarray(self._delta, point.x.dtype), jnp.zeros((), int))

    def _step_size(self, adapt_state: UnadjustedState) -> Float[Array, ""]:
        return adapt_state.step_size

    def _move(self, key: Array, here: Point, state: KernelState, target: Callable) -> Move:
        there, num_grads = self._next(key, here, target)
        steep = jnp.where(self._too_steep(here, there), state.adapt_state.steep + 1, 0)
        finite = jnp.all(jnp.asarray([jnp.all(jnp.isfinite(part)) for part in there]))
        unstable = ~finite | (steep >= PATIENCE)
        message = (
            f"{self._name}: unstable at iteration {{}}: step_size = {self._delta:.3g} is too large for the curvature "
            "of the potential. Take a smaller one; `suggest_step_size(model, ...)` measures it."
        )
        there = there._replace(x=raise_if(unstable, state.i, message, there.x))
        one = jnp.ones((), here.x.dtype)
        return Move(there, one, jnp.zeros((), bool), num_grads, state.adapt_state._replace(steep=steep))


def raise_if(bad: Bool[Array, ""], number: Int[Array, ""], message: str, x: Array) -> Array:
    """``x``, or a RuntimeError with ``number`` in its message, inside compiled code too."""

    def fail(number):
        def stop(number):
            raise RuntimeError(message.format(int(number)))

        return jax.pure_callback(stop, jax.ShapeDtypeStruct((), x.dtype), number)

    number = eqxi.unvmap_max(jnp.where(bad, number, -1))
    return x + jax.lax.cond(eqxi.unvmap_any(bad), fail, lambda _: jnp.zeros((), x.dtype), number)


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
