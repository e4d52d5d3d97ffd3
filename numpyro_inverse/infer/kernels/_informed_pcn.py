"""The preconditioned Crank-Nicolson kernel with the directions that the data inform."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_count
from numpyro_inverse.infer.kernels._base import KernelState, Point
from numpyro_inverse.infer.kernels._function_space import misfit
from numpyro_inverse.infer.kernels._informed import InformedKernel
from numpyro_inverse.infer.kernels._pcn import PCN


class InformedPCN(InformedKernel, PCN):
    r"""Likelihood-informed pCN: with :math:`V \Lambda V^T` the dominant part of the misfit's Gauss-Newton Hessian in
    the reference's units,

    .. math::

        u' = (I - B^2)^{1/2} u + B\, \xi, \qquad B = \beta\, (I + V \Lambda V^T)^{-1/2}, \quad \xi \sim N(0, I),

    accepted as in :class:`PCN`. A direction that the data inform is moved by :math:`\beta` times its Laplace standard
    deviation :math:`(1 + \lambda_i)^{-1/2}`, the complement by pCN, so that :math:`\beta` no longer has to suit the
    direction the data know best. The proposal is reversible for the reference whatever V and :math:`\Lambda` are: the
    law is exact, the acceptance does not fall as the grid is refined, and no gradient is needed but for the
    eigenpairs. Those are found when a run starts, at the mode nearest to the first chain's first point
    (``infer.laplace.laplace_reference``); they cost some 4 (rank + 10) forward and adjoint
    products each and up to 200 iterations of L-BFGS. All chains share them, and each starts from
    a draw of the Laplace approximation unless ``init_params`` are given.

    Extra fields: as :class:`PCN`; the eigenvalues are ``constants.directions.values``.

    Args:
        model: a NumPyro model, whitened.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed, and the Hessian is
            that of :math:`\Phi`, negative eigenvalues left out.
        rank: number of eigenpairs, at most; memory is n rank.
        step_size: first :math:`\beta`, in (0, 1); kept if there is no warm-up.
        target_accept_prob: mean acceptance.
        init_strategy: NumPyro's, for the point where the search for the mode begins.

    Raises:
        ValueError: as :class:`PCN`; ``rank`` less than 1.

    References:
        Cui, Law & Marzouk, J. Comput. Phys. 304 (2016) 109-137 (likelihood-informed subspaces); Rudolf & Sprungk,
        Found. Comput. Math. 18 (2018) 309-343 (this proposal and its spectral gap).
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        rank: int = 64,
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
        self._rank = check_count(self._name, "rank", rank)

    def _propose(self, key: Array, here: Point, state: KernelState, target: Callable) -> tuple[Point, Array, int]:
        key_noise, key_target = jax.random.split(key)
        prior, directions = state.constants.prior, state.constants.directions
        rho, beta = self._rotation(state)
        noise = jax.random.normal(key_noise, here.x.shape, here.x.dtype)
        fresh = beta / jnp.sqrt(1 + jnp.maximum(directions.values, 0))
        kept = jnp.sqrt(1 - fresh**2)

        old = prior.noise(here.x)
        new = rho * old + beta * noise  # right in the complement
        informed = kept * directions.components(old) + fresh * directions.components(noise)
        there = target(prior.value(directions.change(new, lambda _: informed)), key_target)
        return there, misfit(here, prior) - misfit(there, prior), 0
