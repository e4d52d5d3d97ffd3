"""Noisy gradient descent at a declared temperature, with gradients of random batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_positive_number
from numpyro_inverse._model import Trace
from numpyro_inverse.infer.kernels._base import Point, seeded_potential
from numpyro_inverse.infer.kernels._failures import Failure
from numpyro_inverse.infer.kernels._unadjusted import GaussianLaw, UnadjustedKernel, euler_law, failure_at


class TemperedSGLD(UnadjustedKernel):
    r"""Noisy gradient descent,

    .. math:: x^+ = x - \eta\, \nabla f(x) + s\, z, \qquad z \sim N(0, I), \qquad s = \sqrt{2 \eta \tau},

    which samples :math:`e^{-f / \tau}` as :math:`\eta \to 0`, with f minus the log density in unconstrained space. The
    ``temperature`` :math:`\tau = s^2 / (2 \eta)` is declared: 1 is the posterior, less is a colder one, and whoever
    trains with noise s and step :math:`\eta` samples at this :math:`\tau`.

    A ``numpyro.plate`` with ``subsample_size`` makes the gradient one of a batch, a fresh one for every gradient;
    NumPyro scales its log density to that of all the data.

    **Biased**: on a quadratic with curvature h a mode is at the temperature :math:`\tau / (1 - \eta h / 2)`
    (:meth:`gaussian_law`); batches add heat of their own, for gradient noise of covariance S the solution of
    :math:`H \Sigma + \Sigma H - \eta H \Sigma H = 2 \tau I + \eta S`. Stable for :math:`\eta < 2/L`.

    Nothing is adapted. Extra fields: ``potential_energy`` (of the batch), ``step_size``, ``num_grads`` (per draw).

    Args:
        model: a NumPyro model.
        potential_fn: instead of ``model``, f on any pytree; ``init_params`` are then needed.
        step_size: :math:`\eta`.
        temperature: :math:`\tau`.
        init_strategy: NumPyro's, for the first point.

    Raises:
        ValueError: not exactly one of ``model`` and ``potential_fn``; a parameter not positive. When a run starts,
            naming the site: a discrete latent, no latent, a first point that is not finite.
        RuntimeError: the log density or its gradient is not a number, with the site; or the step is too large: a value
            is not finite. It names the iteration; JAX shows it as ``JaxRuntimeError``.

    References:
        Welling & Teh, ICML (2011); Mandt, Hoffman & Blei, J. Mach. Learn. Res. 18 (2017) 1-35.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        step_size: float,
        temperature: float = 1.0,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, step_size=step_size, init_strategy=init_strategy)
        self._temperature = check_positive_number(self._name, "temperature", temperature)

    @property
    def temperature(self) -> float:
        r""":math:`\tau`."""
        return self._temperature

    @property
    def noise_scale(self) -> float:
        r""":math:`s = \sqrt{2 \eta \tau}`."""
        return float(np.sqrt(2 * self._delta * self._temperature))

    def gaussian_law(self, curvature: Float[Array | np.ndarray, "..."] | float) -> GaussianLaw:
        r"""Stationary variance :math:`\tau h^{-1} (1 - \eta h / 2)^{-1}` and lag-1 correlation :math:`1 - \eta h` of a
        mode with :math:`f = h x^2 / 2`, with gradients of all the data.

        The mode's temperature is h times the variance.

        Args:
            curvature: h, of any shape.

        Raises:
            ValueError: :math:`\eta h` not in (0, 2), where there is no stationary law.
        """
        return euler_law(self._name, curvature, self._delta, self._temperature)

    def _check_batches(self, trace: Trace) -> None:
        """Batches are welcome."""

    def _potential(self, args: tuple, kwargs: dict[str, Any], key: Array) -> Callable:
        model = self._density
        if model is None:
            return super()._potential(args, kwargs, key)
        return seeded_potential(model, args, kwargs, key)

    def _next(self, key: Array, here: Point, target: Callable) -> tuple[Point, int, Failure]:
        key_noise, key_batch = jax.random.split(key)
        noise = jax.random.normal(key_noise, here.x.shape, here.x.dtype)
        # The gradient at a point is used once, by the move that leaves it: its batch is independent of the others.
        there = target(here.x - self._delta * here.grad + self.noise_scale * noise, key_batch)
        return there, 1, failure_at(there)
