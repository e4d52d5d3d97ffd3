"""The one loop of all solvers: a map is applied until it moves nothing, and what goes wrong is told."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import gmres
from jaxtyping import Array, Bool, Float, Int

from numpyro_inverse._checks import check_count, check_finite, check_positive_number, is_traced

FIRST = 10  # iterations whose moves are the measure of later ones
GROWTH = 100.0  # times the longest of the first moves: divergence
RESTART, RESTARTS = 50, 40  # of GMRES
DATA_STEP = "the step towards the data (conjugate gradients that miss their tolerance count: try a shorter step)"
SINGULAR = (
    "the derivative of a fixed point: its linear system could not be solved, for the solver's map has a Jacobian with "
    "an eigenvalue (nearly) 1 there, as where a direction is seen neither by the data nor by the denoiser."
)


class Solution(NamedTuple):
    """What a solver found.

    Attributes:
        x: the last iterate; where the iteration diverged, the one that was moved least, relative to its size.
        residuals: :math:`|T(z_k) - z_k| / |T(z_k)|` of each iteration, T the solver's map; NaN after the last.
        num_steps: iterations.
        converged: whether the last residual is no more than the tolerance.
        diverged: whether a number was not finite, or a move was 100 times longer than the longest of the first ten.
        best_step: the iteration with the smallest residual, counted from 1.
    """

    x: Float[Array, "*shape"]
    residuals: Float[Array, " max_steps"]
    num_steps: Int[Array, ""]
    converged: Bool[Array, ""]
    diverged: Bool[Array, ""]
    best_step: Int[Array, ""]


class Divergence(RuntimeError):
    """An iteration ran away or met a number that is not finite.

    Attributes:
        solution: the :class:`Solution`; its ``x`` is the iterate that was moved least.
    """

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution


class Iteration(eqx.Module):
    """A map of arrays whose fixed points are sought; a pytree of all that it depends on."""

    @abstractmethod
    def __call__(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """:math:`T(z)`."""

    def start(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Where to begin, given a first guess of the solution."""
        return x

    def solution(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The solution, given the fixed point."""
        return z


class Scheme(eqx.Module):
    """What becomes of :math:`z_k` and :math:`T(z_k)`: the next point. The default takes :math:`T(z_k)` (Picard)."""

    def memory(self, z: Array) -> Any:
        """What is remembered from iteration to iteration."""
        return ()

    def next(self, z: Array, image: Array, memory: Any, k: Array) -> tuple[Array, Any]:
        """:math:`z_{k+1}` and what is remembered, k counted from 0."""
        return image, memory


class _State(NamedTuple):
    z: Array  # the point that T is applied to next; after a divergence, the last that it was applied to
    image: Array  # the last value of T
    best: Array  # the value of T with the smallest residual
    memory: Any
    k: Array
    residuals: Array
    least: Array
    best_step: Array
    longest: Array
    converged: Array
    diverged: Array


def solve(
    where: str, iteration: Iteration, x0: Any, scheme: Scheme, *, max_steps: Any, tolerance: Any, shape: Any = None
) -> Solution:
    """The fixed point that the iteration finds from ``x0``, with its derivatives by the implicit function theorem.

    Args:
        where: the solver that errors name.
        iteration: the map.
        x0: the first guess.
        scheme: how its values are used.
        max_steps: iterations at most.
        tolerance: the relative residual at which to stop; None: 1e-5 in single, 1e-8 in double precision.
        shape: that x0 must have, if known.

    Raises:
        TypeError: ``x0`` is not of real numbers.
        ValueError: ``x0`` not finite, empty or of another shape; ``max_steps`` or ``tolerance`` not positive.
        Divergence: as its name says; within ``jit``, ``vmap`` and ``grad`` the solution says so.
    """
    x = check_finite(where, "x0", x0)
    if np.size(x) == 0:
        raise ValueError(f"{where}: `x0` must be an array of one number or more; got shape {np.shape(x)}.")
    x = jnp.asarray(x, jnp.result_type(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else float)
    if shape is not None and jnp.shape(x) != tuple(shape):
        raise ValueError(
            f"{where}: `x0` must have the shape {tuple(shape)} that the data term acts on; got {jnp.shape(x)}. "
            "`jax.vmap` makes batches."
        )
    max_steps = check_count(where, "max_steps", max_steps)
    if tolerance is None:
        tolerance = 1e-8 if jnp.finfo(x.dtype).bits == 64 else 1e-5
    tolerance = check_positive_number(where, "tolerance", tolerance)
    solution, last = _run(iteration, x, scheme, max_steps, jnp.asarray(tolerance, x.dtype))
    if not is_traced(solution) and bool(solution.diverged):
        raise Divergence(_what_happened(where, iteration, solution, last), solution)
    return solution


@eqx.filter_jit
def _run(
    iteration: Iteration, x: Array, scheme: Scheme, max_steps: int, tolerance: Array
) -> tuple[Solution, tuple[Array, Array]]:
    def gap(z: Array) -> Array:
        return iteration(z) - z

    def find(_: Any, z: Array) -> tuple[Array, _State]:
        state = _iterate(iteration, z, scheme, max_steps, tolerance)
        return jnp.where(state.diverged, state.best, state.image), state

    root, state = jax.lax.custom_root(gap, iteration.start(x), find, _solve_tangent, has_aux=True)
    found = iteration.solution(root)
    good = jnp.all(jnp.isfinite(found))
    solution = Solution(
        x=jnp.where(good, found, jax.lax.stop_gradient(x)),
        residuals=state.residuals,
        num_steps=state.k,
        converged=state.converged & good,
        diverged=state.diverged | ~good,
        best_step=state.best_step,
    )
    return solution, (state.z, state.longest)


def _iterate(iteration: Iteration, z: Array, scheme: Scheme, max_steps: int, tolerance: Array) -> _State:
    tiny = jnp.finfo(z.dtype).tiny
    floor = jnp.finfo(z.dtype).eps * _length(z)  # a fixed point at zero is reached too

    def advance(state: _State) -> _State:
        image = iteration(state.z)
        move, size = _length(image - state.z), _length(image)
        residual = move / jnp.maximum(jnp.maximum(size, floor), tiny)
        broken = ~(jnp.isfinite(move) & jnp.isfinite(size))
        longest = jnp.where((state.k < FIRST) & ~broken, jnp.maximum(state.longest, move), state.longest)
        diverged = broken | (move > GROWTH * longest)
        better = ~broken & (residual < state.least)
        following, memory = scheme.next(state.z, image, state.memory, state.k)
        return _State(
            z=jnp.where(diverged, state.z, following),
            image=jnp.where(broken, state.image, image),
            best=jnp.where(better, image, state.best),
            memory=memory,
            k=state.k + 1,
            residuals=state.residuals.at[state.k].set(residual),
            least=jnp.where(better, residual, state.least),
            best_step=jnp.where(better, state.k + 1, state.best_step),
            longest=longest,
            converged=residual <= tolerance,
            diverged=diverged,
        )

    def unfinished(state: _State) -> Array:
        return (state.k < max_steps) & ~state.converged & ~state.diverged

    no, zero = jnp.zeros((), bool), jnp.zeros((), int)
    start = _State(
        z=z,
        image=z,
        best=z,
        memory=scheme.memory(z),
        k=zero,
        residuals=jnp.full(max_steps, jnp.nan, z.dtype),
        least=jnp.full((), jnp.inf, z.dtype),
        best_step=zero,
        longest=jnp.zeros((), z.dtype),
        converged=no,
        diverged=no,
    )
    return jax.lax.while_loop(unfinished, advance, start)


def _length(z: Array) -> Array:
    return jnp.linalg.norm(jnp.ravel(z))


def _solve_tangent(linear: Any, right: Array) -> Array:
    """:math:`(J - I)^{-1} r`, J the Jacobian of the map; in reverse mode with its transpose."""
    return jax.lax.custom_linear_solve(linear, right, _checked_gmres, _checked_gmres)


def _checked_gmres(product: Any, right: Array) -> Array:
    """GMRES whose residual is looked at, for it stops in silence."""
    wanted = 1e-10 if jnp.finfo(right.dtype).bits == 64 else 1e-5
    found, _ = gmres(product, right, tol=wanted, restart=RESTART, maxiter=RESTARTS, solve_method="incremental")
    missed = ~(_length(product(found) - right) <= wanted**0.5 * _length(right))
    return eqx.error_if(found, missed, SINGULAR)


def _what_happened(where: str, iteration: Iteration, solution: Solution, last: tuple[Array, Array]) -> str:
    """The message: what was not finite and where, or how far the moves have grown, and which iterate was best."""
    (z, longest), step = last, int(solution.num_steps)
    image = iteration(z)
    move = float(_length(image - z))
    if bool(jnp.isfinite(move)):
        what = (
            f"a move is {move / max(float(longest), 1e-30):.3g} times longer than the longest of the first {FIRST}. "
            "The map is not nonexpansive there: `convergence_report` says what is missing"
        )
    else:
        what = f"{_culprit(iteration, z)} is not finite, where it was given finite numbers"
    best = int(solution.best_step)
    if best == 0:
        return f"{where}: in iteration {step}, {what}. No iterate was finite but the first guess."
    least = float(solution.residuals[best - 1])
    return (
        f"{where}: diverged in iteration {step}: {what}. The iterate that was moved least is that of iteration {best} "
        f"(by {least:.2g} of its length); it is `error.solution.x`."
    )


class _Watched:
    """A denoiser that notes whether it turned finite numbers into others."""

    def __init__(self, denoiser: Any):
        self.denoiser, self.failed = denoiser, False
        self.__name__ = getattr(denoiser, "__name__", type(denoiser).__name__)

    def __call__(self, x: Array, sigma: Any) -> Array:
        found = self.denoiser(x, sigma)
        self.failed |= bool(jnp.all(jnp.isfinite(x)) & ~jnp.all(jnp.isfinite(found)))
        return found


def _culprit(iteration: Iteration, z: Array) -> str:
    """What of the map returns a number that is not finite."""
    denoiser = getattr(iteration, "denoiser", None)
    if denoiser is None:
        return "what the map returns"
    watched = _Watched(denoiser)
    eqx.tree_at(lambda it: it.denoiser, iteration, watched)(z)
    return f"what the denoiser {watched.__name__} returns" if watched.failed else DATA_STEP
