"""The unadjusted Langevin algorithm."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse.infer.kernels._base import Point
from numpyro_inverse.infer.kernels._failures import Failure
from numpyro_inverse.infer.kernels._unadjusted import GaussianLaw, UnadjustedKernel, euler_law, failure_at


class ULA(UnadjustedKernel):
    r"""The unadjusted Langevin algorithm,

    .. math:: x^+ = x - \delta\, \nabla U(x) + \sqrt{2 \delta}\, \xi, \qquad \xi \sim N(0, I),

    with :math:`U` minus the log density in unconstrained space and :math:`\delta` the ``step_size``. One gradient a
    draw.

    **Biased**: it samples :math:`e^{-U}` only as :math:`\delta \to 0`. For a Gaussian of precision H the mean is exact
    and the covariance is :math:`H^{-1} (I - \delta H / 2)^{-1}`; the chain is stable for :math:`\delta < 2/L`, L the
    largest eigenvalue of H, and :func:`suggest_step_size` measures it. Mode by mode the lag-1 correlation is
    :math:`1 - \delta h` (:meth:`gaussian_law`).

    Nothing is adapted: warm-up only forgets the starting point. Extra fields: ``potential_energy``, ``step_size``,
    ``num_grads`` (per draw), ``accept_prob`` (1).

    Args:
        model: a NumPyro model.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed.
        step_size: :math:`\delta`, in squared units of the latents.
        init_strategy: NumPyro's, for the first point.

    Raises:
        ValueError: not exactly one of ``model`` and ``potential_fn``; ``step_size`` not positive. When a run starts,
            naming the site: a discrete latent, no latent, a subsampling plate, a first point that is not finite.
        RuntimeError: the log density or its gradient is not a number, with the site; or the step is too large: a value
            is not finite, or :math:`\delta` times the curvature along the last move,
            :math:`\delta\, |\Delta \nabla U| / |\Delta x|`, was above 2 in 20 moves in a row. It names the iteration.
            JAX shows errors in compiled code as ``JaxRuntimeError``, when the draws are first looked at.

    References:
        Roberts & Tweedie, Bernoulli 2 (1996) 341-363; Durmus & Moulines, Ann. Appl. Probab. 27 (2017) 1551-1587.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        step_size: float,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, step_size=step_size, init_strategy=init_strategy)

    def gaussian_law(self, curvature: Float[Array | np.ndarray, "..."] | float) -> GaussianLaw:
        r"""Stationary variance :math:`h^{-1} (1 - \delta h / 2)^{-1}` and lag-1 correlation :math:`1 - \delta h` of a
        mode with :math:`U = h x^2 / 2`.

        Args:
            curvature: h, of any shape.

        Raises:
            ValueError: :math:`\delta h` not in (0, 2), where there is no stationary law.
        """
        return euler_law(self._name, curvature, self._delta)

    def _next(self, key: Array, here: Point, target: Callable) -> tuple[Point, int, Failure]:
        key_noise, key_target = jax.random.split(key)
        noise = jax.random.normal(key_noise, here.x.shape, here.x.dtype)
        there = target(here.x - self._delta * here.grad + np.sqrt(2 * self._delta) * noise, key_target)
        return there, 1, failure_at(there)

    def _too_steep(self, here: Point, there: Point) -> Array:
        return self._delta * jnp.linalg.norm(there.grad - here.grad) > 2.0 * jnp.linalg.norm(there.x - here.x)
