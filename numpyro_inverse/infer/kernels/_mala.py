"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_positive
from numpyro_inverse.infer.kernels._adjusted import AdjustedKernel
from numpyro_inverse.infer.kernels._base import KernelState, Point


class MALA(AdjustedKernel):
    r"""The Metropolis-adjusted Langevin algorithm with a diagonal preconditioner M,

    .. math:: x' = x - \delta M\, \nabla U(x) + \sqrt{2 \delta M}\, \xi, \qquad \xi \sim N(0, I),

    accepted with probability :math:`\min(1, e^{-U(x') + U(x)}\, q(x \mid x') / q(x' \mid x))`, so that
    :math:`e^{-U}` is sampled exactly. One gradient a draw. Warm-up brings the mean acceptance to
    ``target_accept_prob`` by dual averaging and takes for M the variances seen in Stan's windows.

    Extra fields: ``accept_prob``, ``step_size``, ``potential_energy``, ``num_grads`` (per draw), ``diverging``.

    Args:
        model: a NumPyro model.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed.
        step_size: first :math:`\delta`; kept if there is no warm-up.
        preconditioner: M as a pytree like the unconstrained latents, of variances; then it is not adapted.
        target_accept_prob: 0.574 is optimal for targets with many similar coordinates.
        init_strategy: NumPyro's, for the first point.

    Raises:
        ValueError: not exactly one of ``model`` and ``potential_fn``; a parameter out of range. When a run starts,
            naming the site: a discrete latent, no latent, a subsampling plate, a first point that is not finite; or a
            preconditioner whose size is not that of the latents.

    References:
        Roberts & Tweedie, Bernoulli 2 (1996) 341-363; Roberts & Rosenthal, J. R. Stat. Soc. B 60 (1998) 255-268.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        step_size: float = 0.1,
        preconditioner: PyTree | None = None,
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
        self._variances: Array | None = None
        if preconditioner is not None:
            positive = partial(check_positive, self._name, "preconditioner")
            self._variances = ravel_pytree(jax.tree.map(positive, preconditioner))[0]

    def _scaled(self, x: Float[Array, "n"]) -> tuple[Array, Array | None, bool]:
        if self._variances is None:
            return x, None, True
        if self._variances.shape != x.shape:
            raise ValueError(f"MALA: `preconditioner` has {self._variances.size} numbers for {x.size} latent ones.")
        return x, self._variances.astype(x.dtype), False

    def _propose(self, key: Array, here: Point, state: KernelState, target: Callable) -> tuple[Point, Array, int]:
        key_noise, key_target = jax.random.split(key)
        step, variance = state.adapt_state.step_size, state.adapt_state.inverse_mass_matrix
        scale = jnp.sqrt(2 * step * variance)
        noise = jax.random.normal(key_noise, here.x.shape, here.x.dtype)
        there = target(here.x - step * variance * here.grad + scale * noise, key_target)
        # The noise of the way back: (x - x' + step M grad U(x')) / scale.
        back = -noise + 0.5 * scale * (here.grad + there.grad)
        log_ratio = here.potential_energy - there.potential_energy + 0.5 * (noise @ noise - back @ back)
        return there, log_ratio, 1
