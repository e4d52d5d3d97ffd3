"""Delayed acceptance: NUTS on a cheap approximation of the model, each move accepted or rejected by the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_fraction,
    check_positive_number,
    check_probability,
)
from numpyro_inverse._model import Trace, abstract_trace, latent_sites
from numpyro_inverse.infer.kernels._base import GradientKernel, KernelState, Move, Point, seeded_potential
from numpyro_inverse.infer.kernels._metropolis import accept_or_reject, probability
from numpyro_inverse.infer.kernels._warmup import WarmUp

LOCAL_STEPS = 4  # a local move has 1 to 4 leapfrog steps, equally often


class _Targets(NamedTuple):
    """The model's :class:`Point` at x, and the log density of the approximation."""

    exact: Callable
    approximate: Callable

    def __call__(self, x: Float[Array, "n"], key: Array) -> Point:
        return self.exact(x, key)


class DelayedAcceptance(GradientKernel):
    r"""NUTS whose trajectories follow a cheap ``approximation`` of the model, corrected so that the law is the model's.

    A move of NUTS (or, with probability ``local_moves``, of Hamiltonian Monte Carlo with 1 to 4 steps) from x to y
    leaves the posterior :math:`\tilde\pi \propto e^{-\tilde U}` of the approximation unchanged and is reversible for
    it; it is accepted with probability

    .. math:: \min\Bigl(1, \frac{\pi(y)\, \tilde\pi(x)}{\pi(x)\, \tilde\pi(y)}\Bigr)
        = \min\bigl(1, e^{w(x) - w(y)}\bigr), \qquad w = U - \tilde U,

    which makes the chain reversible for the posterior :math:`\pi \propto e^{-U}` of the model, **whatever the
    approximation**. A draw costs one evaluation of the model's potential and no gradient of it. With w spread by s
    under the posterior, a proposal far away is accepted with probability :math:`2 \Phi(-s / \sqrt 2)`: 0.72, 0.48,
    0.16 at s = 0.5, 1, 2.

    **An approximation must have mass where the posterior has.** Where it has far too little, a chain enters rarely and
    then waits long (local moves, along which w changes little, shorten the wait); where it has none, no finite run
    shows what is missing. Compare with the draws of a short run of another kernel.

    The approximation is a NumPyro model with the same latent sites: :func:`emulate` makes one from simulations of the
    model; the same model on a coarser mesh or with its forward map linearised is another.

    Warm-up adapts the step size, to a mean acceptance of ``target_accept_prob`` along the trajectories on the
    approximation, and the mass matrix, to the draws in Stan's windows.

    Extra fields: ``accept_prob`` (of the model's decision), ``step_size``, ``potential_energy`` (of the model),
    ``num_grads`` (0: of the model), ``diverging``.

    Args:
        model: a NumPyro model.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed.
        approximation: a model with the same latent sites, called with the same arguments; with ``potential_fn``,
            :math:`\tilde U` on the same pytree.
        step_size: first leapfrog step; kept if there is no warm-up.
        target_accept_prob: mean acceptance along trajectories on the approximation.
        max_tree_depth: of a trajectory; its length is at most :math:`2^{10} - 1` steps by default.
        local_moves: probability of a local move.
        init_strategy: NumPyro's, for the first point.

    Raises:
        ValueError: as :class:`MALA`; ``max_tree_depth`` less than 1; ``local_moves`` not in [0, 1]. When a run starts:
            the approximation has other latent sites, or of other shapes; they are named.
        TypeError: ``approximation`` cannot be called.

    References:
        Christen & Fox, J. Comput. Graph. Stat. 14 (2005) 795-810 (delayed acceptance); Efendiev, Hou & Luo, SIAM J.
        Sci. Comput. 28 (2006) 776-803; Cao, O'Leary-Roseberry & Ghattas, arXiv:2403.08220 (with emulators).
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        approximation: Callable,
        step_size: float = 0.1,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
        local_moves: float = 0.1,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        self._approximation = check_callable(self._name, "approximation", approximation, "a model, as a function")
        self._first_step_size = check_positive_number(self._name, "step_size", step_size)
        self._target_accept_prob = check_fraction(self._name, "target_accept_prob", target_accept_prob)
        self._max_tree_depth = check_count(self._name, "max_tree_depth", max_tree_depth)
        self._local_moves = check_probability(self._name, "local_moves", local_moves)

    def _evaluate(self, potential: Callable, x: Float[Array, "n"]) -> Point:
        return Point(x, potential(x), x[:0])

    def _constants(self, trace: Trace, z: PyTree, args: tuple, kwargs: dict[str, Any]) -> tuple:
        if self._model is not None:
            found = abstract_trace(self._approximation, args, kwargs)
            self._check_batches(found)
            ours, theirs = _shapes(trace), _shapes(found)
            if ours != theirs:
                name = sorted(ours.items() ^ theirs.items())[0][0]
                raise ValueError(
                    f"{self._name}: the latent sites of `approximation` must be those of the model; site {name!r} is "
                    f"{ours.get(name, 'absent')} in the model and {theirs.get(name, 'absent')} in the approximation."
                )
        return ()

    def _target(self, args: tuple, kwargs: dict[str, Any] | None, unravel: Callable) -> Callable:
        def approximate(x: Float[Array, "n"]) -> Float[Array, ""]:
            if self._model is None:
                return -self._approximation(unravel(x))
            return -seeded_potential(self._approximation, args, kwargs or {}, jax.random.key(0))(unravel(x))

        return _Targets(super()._target(args, kwargs, unravel), approximate)  # type: ignore[return-value]

    def wrap_model(self, wrapper: Callable) -> GradientKernel:
        """A copy for the wrapped model, with the approximation wrapped likewise."""
        kernel = super().wrap_model(wrapper)
        kernel._approximation = wrapper(self._approximation)  # type: ignore[attr-defined]
        return kernel

    @property
    def _warmup(self) -> WarmUp:
        return WarmUp(self._num_warmup, self._target_accept_prob)

    def _adaptation(self, point: Point) -> Any:
        return self._warmup.begin(point.x, self._first_step_size, jnp.ones_like(point.x))

    def _step_size(self, adapt_state: Any) -> Float[Array, ""]:
        return adapt_state.step_size

    def _move(self, key: Array, here: Point, state: KernelState, target: Callable) -> Move:
        import blackjax  # importing BlackJAX starts JAX's backends

        key_kind, key_steps, key_move, key_target, key_accept = jax.random.split(key, 5)
        step_size, inverse_mass = state.adapt_state.step_size, state.adapt_state.inverse_mass_matrix
        approximate = target.approximate  # type: ignore[attr-defined]
        start = blackjax.nuts.init(here.x, approximate)

        def local() -> tuple:
            steps = jax.random.randint(key_steps, (), 1, LOCAL_STEPS + 1)
            end, info = blackjax.hmc.build_kernel()(key_move, start, approximate, step_size, inverse_mass, steps)
            return end, info.acceptance_rate, info.is_divergent

        def trajectory() -> tuple:
            nuts = blackjax.nuts.build_kernel()
            end, info = nuts(key_move, start, approximate, step_size, inverse_mass, self._max_tree_depth)
            return end, info.acceptance_rate, info.is_divergent

        is_local = jax.random.uniform(key_kind) < self._local_moves
        end, along, diverging = jax.lax.cond(is_local, local, trajectory)

        there = target(end.position, key_target)
        log_ratio = here.potential_energy - there.potential_energy + start.logdensity - end.logdensity
        point, log_ratio, failure = accept_or_reject(key_accept, here, there, log_ratio)
        # Local moves say nothing about trajectories; they count as if on target.
        rate = jnp.where(is_local, self._target_accept_prob, jnp.minimum(along, 1)).astype(here.x.dtype)
        adapt_state = self._warmup.update(state.i, rate, point.x, state.adapt_state)
        diverging = diverging | failure.happened
        return Move(point, there, probability(log_ratio), diverging, 0, adapt_state, failure)

    def _pinned(self, target: Any, stale: Bool[Array, ""], here: Float[Array, "n"]) -> Any:
        return target._replace(exact=super()._pinned(target.exact, stale, here))


def _shapes(trace: Trace) -> dict[str, tuple[int, ...]]:
    """Shapes of the latent sites."""
    return {name: jnp.shape(site["value"]) for name, site in latent_sites(trace).items()}
