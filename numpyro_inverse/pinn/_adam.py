"""Adam on the objective: the warm start of a network, and what least squares is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_choice, check_count, check_flag, check_instance, check_positive_number
from numpyro_inverse.pinn._problem import Problem, split
from numpyro_inverse.pinn._training import Fit, checked


def adam(
    problem: Problem,
    theta: Any,
    phi: Any = None,
    *,
    num_steps: int = 2000,
    learning_rate: float = 1e-3,
    theta_from: Sequence[str] | None = None,
    progress_bar: bool = True,
) -> Fit:
    r"""Lower J by Adam with a cosine learning rate, :math:`\phi` and :math:`\theta` together.

    Args:
        problem: what to lower.
        theta: where the equation's parameters begin.
        phi: where the trial function begins; default: the problem's.
        num_steps: steps, each with all collocation points.
        learning_rate: the first one; it falls to zero.
        theta_from: names of the blocks whose gradient moves :math:`\theta`; default: all. The trial function is always
            moved by all.
        progress_bar: show the steps and the objective.

    Returns:
        The fit at the last step; ``converged`` is false, for Adam has no test of its own.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; shapes that do not fit; a block that is none; an objective
            that is not finite, at the start or later.
    """
    here = "adam"
    num_steps = check_count(here, "num_steps", num_steps)
    rate = check_positive_number(here, "learning_rate", learning_rate)
    progress_bar = check_flag(here, "progress_bar", progress_bar)
    problem, theta, phi = checked(here, problem, theta, phi)
    names = tuple(dict.fromkeys(problem.row_names(theta)))
    moving = names
    if theta_from is not None:
        check_instance(here, "theta_from", theta_from, tuple | list | set, f"a list of some of {', '.join(names)}")
        moving = tuple(check_choice(here, "theta_from", name, names) for name in theta_from)
        if not moving:
            raise ValueError(f"{here}: `theta_from` must name a block, one of {', '.join(names)}; got none.")
    from tqdm.auto import tqdm

    state = (split(phi)[0], theta)
    memory = optax.adam(optax.cosine_decay_schedule(rate, num_steps)).init(state)
    losses: list[float] = []
    chunk = max(min(num_steps, 200), 1)
    with tqdm(total=num_steps, desc=here, unit="step", disable=not progress_bar) as bar:
        for first in range(0, num_steps, chunk):
            count = min(chunk, num_steps - first)
            state, memory, values = _run(problem, phi, state, memory, rate, num_steps, count, moving)
            losses += np.asarray(values).tolist()
            if not np.isfinite(losses[-1]):
                raise ValueError(
                    f"{here}: the objective is not finite from step {first + int(np.argmin(np.isfinite(values)))} on. "
                    "Lower `learning_rate`."
                )
            bar.update(count)
            bar.set_postfix_str(f"objective {losses[-1]:.5g}")
    fitted = eqx.combine(state[0], split(phi)[1])
    loss = float(eqx.filter_jit(problem.objective)(fitted, state[1]))
    return Fit(fitted, state[1], loss, np.array([*losses, loss]), float("nan"), False, num_steps)


@eqx.filter_jit
def _run(
    problem: Problem, phi: Any, state: Any, memory: Any, rate: float, total: int, count: int, moving: tuple[str, ...]
) -> tuple[Any, Any, Float[Array, " n"]]:
    _, rest = split(phi)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, total))

    def objective(state: Any) -> Array:
        arrays, theta = state
        u = eqx.combine(arrays, rest)
        if set(moving) == set(problem.residuals(u, theta)):
            return problem.objective(u, theta)
        free, fixed = problem.residuals(u, theta), problem.residuals(u, jax.lax.stop_gradient(theta))
        parts = [jnp.sum((free if name in moving else fixed)[name] ** 2) for name in free]
        return 0.5 * jnp.sum(jnp.stack(parts))

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        state, memory = carry
        value, grad = jax.value_and_grad(objective)(state)
        change, memory = optimizer.update(grad, memory)
        return (optax.apply_updates(state, change), memory), value

    (state, memory), values = jax.lax.scan(step, (state, memory), length=count)
    return state, memory, values
