"""SPRING: Gauss-Newton steps on batches of collocation points, with the momentum of a projection."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_flag, check_fraction, check_key, check_positive_number
from numpyro_inverse.pinn import _damped_least_squares as damped
from numpyro_inverse.pinn._problem import Problem
from numpyro_inverse.pinn._training import CHUNK, Fit, Unknowns, begin, check_beginning, checked, unknowns

LENGTHS = 2.0 ** -np.arange(0, 12)


def spring(
    problem: Problem,
    theta: Any,
    phi: Any = None,
    *,
    key: PRNGKeyArray,
    batch_size: int,
    num_steps: int = 200,
    momentum: float = 0.9,
    damping: float = 1e-3,
    progress_bar: bool = True,
) -> Fit:
    r"""Lower J by Gauss-Newton steps on batches of collocation points, where all of them are too many:

    .. math:: d_k = \mu d_{k-1} - J^T (J J^T + \lambda I)^{-1} (r + \mu J d_{k-1}),

    the step nearest to :math:`\mu d_{k-1}` that the batch's linearized residuals ask for. Its length is the best of
    :math:`1, \tfrac12, \tfrac14, \dots` on the batch. Data and conditions are in every batch; the equation's residuals
    in one stand for all of them.

    Args:
        problem: what to lower.
        theta: where the equation's parameters begin.
        phi: where the trial function begins; default: the problem's.
        key: a random key, of the batches.
        batch_size: collocation points in a batch.
        num_steps: steps.
        momentum: :math:`\mu`, in (0, 1).
        damping: :math:`\lambda`, in mean squared singular values of J.
        progress_bar: show the steps and the objective.

    Returns:
        The fit at the last step; ``losses`` are those of the batches, the last one of all points, and ``converged`` is
        false, for a batch is no test.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; shapes that do not fit; a batch of more points than there
            are.

    References:
        Goldshlager, Abrahamsen & Lin, J. Comput. Phys. 516 (2024) 113351; Guzmán-Cordero et al.,
        arXiv 2505.12149.
    """
    here = "spring"
    check_key(here, "key", key)
    batch_size, num_steps = check_count(here, "batch_size", batch_size), check_count(here, "num_steps", num_steps)
    momentum = check_fraction(here, "momentum", momentum)
    damping = check_positive_number(here, "damping", damping)
    progress_bar = check_flag(here, "progress_bar", progress_bar)
    problem, theta, phi = checked(here, problem, theta, phi)
    if batch_size > len(problem.pde.points):
        raise ValueError(
            f"{here}: `batch_size` must be at most the number of collocation points, {len(problem.pde.points)}; got "
            f"{batch_size}."
        )
    beginning = begin(problem, phi, theta, damping)
    check_beginning(here, problem, theta, beginning)
    units = beginning.units
    both, x = unknowns(phi, theta, units)
    carry, losses = (x, jnp.zeros_like(x)), []
    from tqdm.auto import tqdm

    with tqdm(total=num_steps, desc=here, unit="step", disable=not progress_bar) as bar:
        for first in range(0, num_steps, CHUNK):
            count = min(CHUNK, num_steps - first)
            keys = jax.random.split(jax.random.fold_in(key, first), count)
            carry, values = _run(problem, phi, theta, units, carry, keys, batch_size, momentum, damping)
            losses += np.asarray(values).tolist()
            bar.update(count)
            bar.set_postfix_str(f"batch's objective {losses[-1]:.5g}")
    u, parameters = both.phi(carry[0]), both.theta(carry[0])
    loss = float(eqx.filter_jit(problem.objective)(u, parameters))
    return Fit(u, parameters, loss, np.array([*losses, loss]), float("nan"), False, num_steps)


@eqx.filter_jit
def _run(
    problem: Problem,
    phi: Any,
    theta: Any,
    units: Float[Array, " q"],
    carry: tuple[Array, Array],
    keys: Array,
    batch_size: int,
    momentum: float,
    damping: float,
) -> tuple[tuple[Array, Array], Float[Array, " n"]]:
    both: Unknowns = unknowns(phi, theta, units)[0]
    points = problem.pde.points
    share = (batch_size / len(points)) ** 0.5

    def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
        x, last = carry
        chosen = jax.random.choice(key, len(points), (batch_size,), replace=False)
        batch = eqx.tree_at(lambda p: (p.pde.points, p.scale), problem, (points[chosen], problem.scale * share))
        r, jacobian = both.system(batch)(x)
        ahead = momentum * last
        change = ahead + damped.damped_step(jacobian, r + jacobian @ ahead, jnp.asarray(damping, x.dtype))
        residual = both.residual(batch)
        lengths = jnp.asarray(LENGTHS, x.dtype)
        losses = jax.lax.map(lambda length: 0.5 * jnp.sum(residual(x + length * change) ** 2), lengths)
        losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
        now = 0.5 * jnp.sum(r**2)
        best = jnp.argmin(losses)
        change = jnp.where(losses[best] < now, lengths[best], 0.0) * change
        return (x + change, change), jnp.minimum(losses[best], now)

    return jax.lax.scan(step, carry, keys)
