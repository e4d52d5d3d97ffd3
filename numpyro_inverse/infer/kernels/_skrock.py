"""SK-ROCK: an explicit stabilised Langevin kernel whose step grows with the square of its gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_count, check_positive_number, check_real
from numpyro_inverse.infer.kernels._base import Point
from numpyro_inverse.infer.kernels._failures import Failure, has_failed
from numpyro_inverse.infer.kernels._unadjusted import GaussianLaw, UnadjustedKernel


class SKROCK(UnadjustedKernel):
    r"""The stochastic orthogonal Runge-Kutta-Chebyshev kernel with s ``stages``.

    With :math:`Q = \sqrt{2 \delta}\, \xi`, :math:`\xi \sim N(0, I)`, :math:`\omega_0 = 1 + \eta / s^2`,
    :math:`\omega_1 = T_s(\omega_0) / T_s'(\omega_0)` and :math:`T_j` Chebyshev's polynomials,

    .. math::

        K_1 &= x - \mu_1 \delta \nabla U(x + \nu_1 Q) + \kappa_1 Q, \qquad
               \mu_1 = \omega_1 / \omega_0,\; \nu_1 = s \omega_1 / 2,\; \kappa_1 = s \omega_1 / \omega_0, \\
        K_j &= -\mu_j \delta \nabla U(K_{j-1}) + \nu_j K_{j-1} + (1 - \nu_j) K_{j-2}, \qquad
               \mu_j = 2 \omega_1 T_{j-1} / T_j,\; \nu_j = 2 \omega_0 T_{j-1} / T_j,

    and :math:`x^+ = K_s`, :math:`K_0 = x`, with :math:`T_j = T_j(\omega_0)`. It is stable for
    :math:`\delta \le l_s / L` (:meth:`max_step_size`), :math:`l_s = (s - \tfrac12)^2 (2 - \tfrac43 \eta) - \tfrac32`,
    so that s gradients go as far as about :math:`s^2` steps of :class:`ULA`.

    **Biased**, as every unadjusted kernel: :meth:`gaussian_law` is its exact law for a Gaussian. Nothing is adapted.
    Extra fields: ``potential_energy``, ``step_size``, ``num_grads`` (``stages`` a draw), ``accept_prob`` (1).

    Args:
        model: a NumPyro model.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed.
        step_size: :math:`\delta`.
        stages: s, at least 2; 5 to 15 is usual.
        damping: :math:`\eta`.
        init_strategy: NumPyro's, for the first point.

    Raises:
        ValueError: not exactly one of ``model`` and ``potential_fn``; a parameter out of range. When a run starts,
            naming the site: a discrete latent, no latent, a subsampling plate, a first point that is not finite.
        RuntimeError: the log density or its gradient is not a number, with the site; or the step is too large: a value
            is not finite. It names the iteration; JAX shows it as ``JaxRuntimeError``.

    References:
        Abdulle, Almuslimani & Vilmart, SIAM/ASA J. Uncertain. Quantif. 6 (2018) 937-964;
        Pereyra, Vargas Mieles & Zygalakis, SIAM J. Imaging Sci. 13 (2020) 905-935.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        step_size: float,
        stages: int = 10,
        damping: float = 0.05,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, step_size=step_size, init_strategy=init_strategy)
        self._stages = check_count(self._name, "stages", stages, least=2)
        self._damping = check_positive_number(self._name, "damping", damping)
        if not self._damping < 1.5:
            raise ValueError(f"{self._name}: `damping` must be in (0, 1.5); got {damping}.")
        self._omega_0 = 1 + self._damping / self._stages**2
        last = chebyshev.Chebyshev.basis(self._stages)
        self._omega_1 = float(last(self._omega_0) / last.deriv()(self._omega_0))

    def max_step_size(self, lipschitz: float) -> float:
        r""":math:`l_s / L`, the largest stable :math:`\delta` for a gradient with Lipschitz constant L."""
        s, largest = self._stages, check_positive_number(self._name, "lipschitz", lipschitz)
        return ((s - 0.5) ** 2 * (2 - 4 * self._damping / 3) - 1.5) / largest

    def gaussian_law(self, curvature: Float[Array | np.ndarray, "..."] | float) -> GaussianLaw:
        r"""Stationary variance and lag-1 correlation of a mode with :math:`U = h x^2 / 2`.

        With :math:`p = \omega_0 - \omega_1 \delta h` the kernel is :math:`x^+ = A x + B Q`,
        :math:`A = T_s(p) / T_s(\omega_0)`,
        :math:`B = (1 - \tfrac12 \omega_1 \delta h)\, U_{s-1}(p) / U_{s-1}(\omega_0)`, so that the variance is
        :math:`2 \delta B^2 / (1 - A^2)` and the correlation A.

        Args:
            curvature: :math:`h`, of any shape.

        Raises:
            ValueError: h not positive, or :math:`|A| \ge 1`: there is no stationary law.
        """
        h = np.asarray(check_real(self._name, "curvature", curvature), float)
        first, second = chebyshev.Chebyshev.basis(self._stages), chebyshev.Chebyshev.basis(self._stages).deriv()
        p = self._omega_0 - self._omega_1 * self._delta * h
        a = first(p) / first(self._omega_0)
        b = second(p) / second(self._omega_0) * (1 - self._omega_1 * self._delta * h / 2)
        if not np.all((h > 0) & (np.abs(a) < 1)):
            limit = 2 * self._omega_0 / (self._omega_1 * self._delta)
            raise ValueError(f"{self._name}: no stationary law: `curvature` must be in (0, {limit:.4g}).")
        return GaussianLaw(2 * self._delta * b**2 / (1 - a**2), a)

    def _next(self, key: Array, here: Point, target: Callable) -> tuple[Point, int, Failure]:
        key_noise, key_target = jax.random.split(key)
        keys = jax.random.split(key_target, self._stages + 1)
        x, dtype, s = here.x, here.x.dtype, self._stages
        noise = jnp.asarray(np.sqrt(2 * self._delta), dtype) * jax.random.normal(key_noise, x.shape, dtype)
        values = [chebyshev.Chebyshev.basis(j)(self._omega_0) for j in range(s + 1)]
        ratios = np.array([values[j - 1] / values[j] for j in range(2, s + 1)])
        inside = x + 0.5 * s * self._omega_1 * noise
        first = target(inside, keys[0]).grad
        k1 = x - self._omega_1 / self._omega_0 * (self._delta * first - s * noise)

        def seen(failure: Failure, at: Array, grad: Array) -> Failure:
            """The first stage whose gradient is not a number."""
            new = ~failure.happened & jnp.any(jnp.isnan(grad)) & jnp.all(jnp.isfinite(at))
            return Failure(failure.happened | new, jnp.where(new, at, failure.x))

        def stage(carry, inputs):
            before, now, failure = carry
            ratio, key = inputs
            nu = 2 * self._omega_0 * ratio
            grad = target(now, key).grad
            move = 2 * self._omega_1 * ratio * self._delta * grad
            return (now, nu * now + (1 - nu) * before - move, seen(failure, now, grad)), None

        failure = seen(Failure(jnp.zeros((), bool), x), inside, first)
        (_, last, failure), _ = jax.lax.scan(stage, (x, k1, failure), (jnp.asarray(ratios, dtype), keys[1:s]))
        there = self._kept(target(last, keys[s]))
        at_end = has_failed(there) & ~failure.happened
        return there, s, Failure(failure.happened | at_end, jnp.where(at_end, last, failure.x))

    def _kept(self, point: Point) -> Point:
        return point._replace(grad=point.grad[:0])  # never used, so that compiled code does not compute it
