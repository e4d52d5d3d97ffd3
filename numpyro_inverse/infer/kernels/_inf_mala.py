"""The Langevin kernel in function space (infinity-MALA)."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse.infer.kernels._base import KernelState, Point
from numpyro_inverse.infer.kernels._function_space import FunctionSpaceKernel, misfit
from numpyro_inverse.infer.laplace import LaplaceReference, Reference


class InfMALA(FunctionSpaceKernel):
    r"""Metropolis-adjusted Langevin in function space: with a Gaussian reference :math:`N(m, S^2)`,
    :math:`x = m + S u`, :math:`\Phi(x) = U(x) - \tfrac12 |u|^2` and :math:`g = \nabla_u \Phi`,

    .. math::

        u' = \rho\, u + \beta \Bigl( \xi - \frac{\beta}{1 + \rho}\, g(u) \Bigr), \qquad \xi \sim N(0, I), \quad
        \rho = \sqrt{1 - \beta^2},

    the semi-implicit Euler step of the Langevin equation with :math:`h = 4 (1 - \rho) / (1 + \rho)`. Relative to the
    reference's own proposal its density is :math:`e^{-s \langle g(u), w \rangle - s^2 |g(u)|^2 / 2}`,
    :math:`w = (u' - \rho u) / \beta`, :math:`s = \beta / (1 + \rho)`, so that it is accepted with probability

    .. math::

        \min\Bigl(1, \exp\bigl(\Phi(x) - \Phi(x') + s \langle g(u), w \rangle - s \langle g(u'), w' \rangle
        + \tfrac{s^2}{2} (|g(u)|^2 - |g(u')|^2)\bigr)\Bigr), \qquad w' = (u - \rho u') / \beta,

    which stays away from 0 as the grid is refined. One gradient a draw. Give it ``whiten(model)``. It samples
    :math:`e^{-U}` exactly, whatever the reference, which is that of :class:`PCN`. Warm-up brings the mean acceptance to
    ``target_accept_prob`` by dual averaging.

    Extra fields: ``accept_prob``, ``step_size`` (:math:`\beta`), ``potential_energy``, ``num_grads`` (per draw).

    Args:
        model: a NumPyro model, whitened.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed.
        step_size: first :math:`\beta`, in (0, 1); kept if there is no warm-up.
        target_accept_prob: mean acceptance.
        init_strategy: NumPyro's, for the first point.

    Raises:
        ValueError: as :class:`PCN`.

    References:
        Cotter, Roberts, Stuart & White, Statistical Science 28 (2013) 424-446; Beskos, Girolami, Lan, Farrell & Stuart,
        J. Comput. Phys. 335 (2017) 327-351.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        step_size: float = 0.2,
        target_accept_prob: float = 0.574,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(
            model,
            potential_fn,
            step_size=step_size,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )

    def _propose(self, key: Array, here: Point, state: KernelState, target: Callable) -> tuple[Point, Array, int]:
        key_noise, key_target = jax.random.split(key)
        reference, (rho, beta) = state.constants, self._rotation(state)
        drift = beta / (1 + rho)
        noise = jax.random.normal(key_noise, here.x.shape, here.x.dtype)

        u, g = reference.noise(here.x), _gradient(here, reference)
        w = noise - drift * g
        u_new = rho * u + beta * w
        there = target(reference.value(u_new), key_target)
        g_new = _gradient(there, reference)
        w_back = (u - rho * u_new) / beta

        forward = -drift * (g @ w) - 0.5 * drift**2 * (g @ g)
        backward = -drift * (g_new @ w_back) - 0.5 * drift**2 * (g_new @ g_new)
        return there, misfit(here, reference) - misfit(there, reference) + backward - forward, 1


def _gradient(point: Point, reference: Reference | LaplaceReference) -> Array:
    """The gradient of the misfit in u."""
    return reference.pull(point.grad) - reference.noise(point.x)
