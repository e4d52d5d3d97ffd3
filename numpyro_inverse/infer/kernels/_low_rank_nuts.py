"""NUTS with a low-rank mass matrix and an integrator that is exact on Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_count, check_flag, check_fraction, check_positive_number
from numpyro_inverse.infer._trajectory import TURN
from numpyro_inverse.infer.kernels._base import KernelState, Move, Point
from numpyro_inverse.infer.kernels._failures import Failure, has_failed
from numpyro_inverse.infer.kernels._informed import InformedKernel
from numpyro_inverse.infer.kernels._raise_if import raise_if
from numpyro_inverse.infer.kernels._warmup import WarmUp
from numpyro_inverse.infer.laplace import LaplaceReference

OTHER_ARGUMENTS = (
    "LowRankNUTS: the state of iteration {} is for other model arguments, and so are the mode and the directions "
    "around which its trajectories turn; start a new run instead of continuing it."
)
MAX_TURN = 1.5 * np.pi  # beyond 2 pi it would be back


class LowRankNUTS(InformedKernel):
    r"""NUTS with the mass matrix :math:`M = S^{-1} (I + V \Lambda V^T) S^{-1}`, diagonal plus low rank: S the prior's
    standard deviations, :math:`V \Lambda V^T` the dominant part of the misfit's Gauss-Newton Hessian in their units.

    It is BlackJAX's NUTS in the coordinates :math:`u = (I + V \Lambda V^T)^{1/2} S^{-1} (x - m)`, m the mode, in which
    the Laplace approximation is standard normal, with unit mass and

    .. math::

        p \gets p - \tfrac\epsilon2 \nabla \Phi(u), \qquad
        \begin{pmatrix} u \\ p \end{pmatrix} \gets
        \begin{pmatrix} \cos\epsilon & \sin\epsilon \\ -\sin\epsilon & \cos\epsilon \end{pmatrix}
        \begin{pmatrix} u \\ p \end{pmatrix}, \qquad p \gets p - \tfrac\epsilon2 \nabla \Phi(u), \qquad
        \Phi(u) = U - \tfrac12 |u|^2,

    in place of leapfrog. The energy error comes from :math:`\Phi` alone, to which a finer grid adds nothing, so that
    the step need not shrink as the grid is refined; leapfrog's would, like :math:`n^{-1/4}`. A step costs a gradient
    and O(n rank). The law is exact whatever V and :math:`\Lambda` are. They are found, and
    chains start, as for :class:`InformedPCN`.

    The Laplace approximation is a sketch. Warm-up replaces its covariance in the span of V, rank x rank, by that of the
    draws in Stan's windows, mixed with as many draws as there are directions that would agree with Laplace. That helps
    where the posterior is far from Gaussian; where it is close, ``adapt_mass_matrix=False`` is better, for the estimate
    then only adds noise.

    Warm-up also brings the mean acceptance to ``target_accept_prob`` by dual averaging of :math:`\epsilon`, an angle.
    With :math:`2^j - 1` the length at which a Gaussian trajectory has turned by :math:`1.2 \pi` or more, j at least 2,
    the step is shortened, if need be, for that turn to be :math:`1.5 \pi` at most (:math:`1.2 \pi` for j = 2).
    Trajectories that come back to where they were miss every turn, and double until the maximum depth.

    Extra fields: ``accept_prob``, ``step_size`` (:math:`\epsilon`), ``potential_energy``, ``num_grads`` (per draw),
    ``diverging``; the eigenvalues are ``constants.directions.values``.

    Args:
        model: a NumPyro model; whiten fields.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed, and the Hessian is
            that of :math:`\Phi`.
        rank: number of eigenpairs, at most; memory is n rank.
        step_size: first :math:`\epsilon`, in radians; kept if there is no warm-up.
        target_accept_prob: mean acceptance along trajectories.
        adapt_mass_matrix: learn the covariance in the informed directions; without, it stays Laplace's.
        max_tree_depth: of a trajectory; its length is at most :math:`2^{10} - 1` steps by default.
        init_strategy: NumPyro's, for the point where the search for the mode begins.

    Raises:
        ValueError: as :class:`MALA`; ``rank`` or ``max_tree_depth`` less than 1.
        RuntimeError: a state made with other model arguments is continued; JAX shows it as ``JaxRuntimeError``.

    References:
        Hoffman & Gelman, JMLR 15 (2014) 1593-1623; Beskos, Pinski, Sanz-Serna & Stuart, Stoch. Process. Appl. 121
        (2011) 2201-2230 (the integrator); Cui, Law & Marzouk, J. Comput. Phys. 304 (2016) 109-137 (the directions).
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        rank: int = 64,
        step_size: float = 0.3,
        target_accept_prob: float = 0.8,
        adapt_mass_matrix: bool = True,
        max_tree_depth: int = 10,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        self._first_step_size = check_positive_number(self._name, "step_size", step_size)
        self._target_accept_prob = check_fraction(self._name, "target_accept_prob", target_accept_prob)
        self._rank = check_count(self._name, "rank", rank)
        self._max_tree_depth = check_count(self._name, "max_tree_depth", max_tree_depth)
        self._adapt_mass_matrix = check_flag(self._name, "adapt_mass_matrix", adapt_mass_matrix)

    @property
    def _warmup(self) -> WarmUp:
        return WarmUp(self._num_warmup, self._target_accept_prob, self._adapt_mass_matrix, dense=True)

    def _adaptation(self, point: Point) -> Any:
        rank, dtype = min(self._rank, point.x.size), point.x.dtype
        values = jnp.zeros(rank, dtype)
        return _with_prior(self._warmup.begin(values, self._first_step_size, jnp.eye(rank, dtype=dtype)), values)

    def _step_size(self, adapt_state: Any) -> Float[Array, ""]:
        epsilon = adapt_state.step_size
        steps = 2 ** jnp.maximum(jnp.ceil(jnp.log2(TURN / epsilon + 1)), 2) - 1
        return jnp.minimum(epsilon, jnp.where(steps == 3, TURN, MAX_TURN) / steps)

    def _check_arguments(self, state: KernelState, args: tuple, kwargs: dict[str, Any] | None) -> tuple:
        state, stale = super()._check_arguments(state, args, kwargs)
        if stale is not None:
            state = state._replace(i=raise_if(stale, state.i, OTHER_ARGUMENTS, state.i))
        return state, None

    def _move(self, key: Array, here: Point, state: KernelState, target: Callable) -> Move:
        from blackjax.mcmc.hmc import HMCState  # importing BlackJAX starts JAX's backends
        from blackjax.mcmc.integrators import IntegratorState
        from blackjax.mcmc.nuts import build_kernel

        key_move, key_target = jax.random.split(key)
        laplace: LaplaceReference = state.constants
        scales = jnp.linalg.cholesky(state.adapt_state.inverse_mass_matrix)
        reference = laplace._replace(root=jnp.matmul(laplace.root, scales, precision="highest"))

        def at(u: Array) -> tuple[Array, Array]:
            """Log density and its gradient in u."""
            point = target(reference.value(u), key_target)
            return -point.potential_energy, -reference.pull(point.grad)

        def integrator(*_: Callable) -> Callable:
            def step(now: IntegratorState, epsilon: Array) -> IntegratorState:
                u, p, _, slope = now
                p = p + epsilon / 2 * (slope + u)
                u, p = jnp.cos(epsilon) * u + jnp.sin(epsilon) * p, jnp.cos(epsilon) * p - jnp.sin(epsilon) * u
                log_density, slope = at(u)
                return IntegratorState(u, p + epsilon / 2 * (slope + u), log_density, slope)

            return step

        start = HMCState(reference.noise(here.x), -here.potential_energy, -reference.pull(here.grad))
        epsilon = self._step_size(state.adapt_state)
        nuts = build_kernel(integrator)
        end, info = nuts(key_move, start, lambda _: None, epsilon, jnp.ones_like(here.x), self._max_tree_depth)
        point = Point(reference.value(end.position), -end.logdensity, reference.push(-end.logdensity_grad))
        accept_prob = jnp.minimum(info.acceptance_rate, 1)  # rounding
        failure = _failure(reference, info.trajectory_leftmost_state, info.trajectory_rightmost_state)
        values = laplace.directions.components(laplace.noise(point.x))
        adapt_state = self._warmup.update(
            state.i, accept_prob, values, state.adapt_state, then=partial(_with_prior, values=values)
        )
        return Move(point, point, accept_prob, info.is_divergent, info.num_integration_steps, adapt_state, failure)


def _failure(reference: LaplaceReference, first: Any, last: Any) -> Failure:
    """Whether the trajectory ended at a point without a log density: it goes no further than that."""
    at_first, at_last = (has_failed(Point(end.position, -end.logdensity, end.logdensity_grad)) for end in (first, last))
    u = jnp.where(at_first, first.position, last.position)
    return Failure(at_first | at_last, reference.value(u))


def _with_prior(state: Any, values: Float[Array, "r"]) -> Any:
    """The state, with r draws of the Laplace approximation's covariance in place of an empty estimate of it."""
    _, _, count = state.mm_state
    rank = values.size
    prior = (values, rank * jnp.eye(rank, dtype=values.dtype), jnp.full_like(count, rank))
    return state._replace(mm_state=jax.tree.map(partial(jnp.where, count == 0), prior, state.mm_state))
