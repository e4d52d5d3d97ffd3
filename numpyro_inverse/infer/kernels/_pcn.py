"""The preconditioned Crank-Nicolson kernel."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse.infer.kernels._base import KernelState, Point
from numpyro_inverse.infer.kernels._function_space import FunctionSpaceKernel, misfit


class PCN(FunctionSpaceKernel):
    r"""Preconditioned Crank-Nicolson: with a Gaussian reference :math:`N(m, S^2)` and :math:`x = m + S u`,

    .. math:: u' = \sqrt{1 - \beta^2}\, u + \beta\, \xi, \qquad \xi \sim N(0, I),

    accepted with probability :math:`\min(1, e^{\Phi(x) - \Phi(x')})`, :math:`\Phi(x) = U(x) - \tfrac12 |u|^2`. It needs
    no gradient, and leaves the reference unchanged at any step: where that is the prior of a whitened field,
    :math:`\Phi` is minus the log likelihood and the acceptance does not fall as the grid is refined. Give it
    ``whiten(model)``. It samples :math:`e^{-U}` exactly, whatever the reference.

    The reference of a site with a normal prior is that prior, so white noise for whitened fields; of any other site a
    normal with the mean and standard deviation of its prior in unconstrained space (of 1024 draws), at the first
    point of the first chain; of a ``potential_fn``, the standard normal. Where the posterior reaches far into the tails
    of the reference, the kernel is exact but slow. Warm-up brings the mean acceptance to
    ``target_accept_prob`` by dual averaging.

    Extra fields: ``accept_prob``, ``step_size`` (:math:`\beta`), ``potential_energy``, ``num_grads`` (0).

    Args:
        model: a NumPyro model, whitened.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed.
        step_size: first :math:`\beta`, in (0, 1); kept if there is no warm-up.
        target_accept_prob: mean acceptance.
        init_strategy: NumPyro's, for the first point.

    Raises:
        ValueError: not exactly one of ``model`` and ``potential_fn``; a parameter out of range. When a run starts,
            naming the site: a discrete latent, no latent, a subsampling plate, a first point that is not finite.

    References:
        Cotter, Roberts, Stuart & White, Statistical Science 28 (2013) 424-446.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        step_size: float = 0.2,
        target_accept_prob: float = 0.25,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(
            model,
            potential_fn,
            step_size=step_size,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )

    def _evaluate(self, potential: Callable, x: Float[Array, "n"]) -> Point:
        return Point(x, potential(x), x[:0])

    def _propose(self, key: Array, here: Point, state: KernelState, target: Callable) -> tuple[Point, Array, int]:
        key_noise, key_target = jax.random.split(key)
        reference, (rho, beta) = state.constants, self._rotation(state)
        noise = jax.random.normal(key_noise, here.x.shape, here.x.dtype)
        there = target(reference.value(rho * reference.noise(here.x) + beta * noise), key_target)
        return there, misfit(here, reference) - misfit(there, reference), 0
