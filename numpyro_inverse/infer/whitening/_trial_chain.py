"""A short trial of Hamiltonian Monte Carlo, to choose the step size of NUTS on a near-standard-normal target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from jaxtyping import Float

from numpyro_inverse.infer._trajectory import TURN, step_for_turn

TREE_DEPTHS = (4, 5, 6, 7)  # NUTS trajectories of 2^depth - 1 steps
MIN_ACCEPTANCE = 0.7
TRIALS = 16
DRAWS = 64


def trial_step_size(value_and_grad: Callable, size: int, below: float = np.inf) -> float | None:
    r"""The largest step :math:`1.2 \pi / (2^j - 1)`, j = 4, ..., 7, that is accepted often enough, if any.

    Why that angle: ``numpyro_inverse.infer._trajectory``.

    Args:
        value_and_grad: potential and gradient on numpy vectors of length ``size``.
        size: dimension.
        below: a step that is too large.
    """
    for step in (step for step in map(step_for_turn, TREE_DEPTHS) if step < below):
        with np.errstate(over="ignore", invalid="ignore"):  # an unstable step is not accepted
            if _acceptance(value_and_grad, size, step, round(TURN / step)) >= MIN_ACCEPTANCE:
                return step
    return None


def trial_draws(
    value_and_grad: Callable, size: int, step: float, keep: int
) -> tuple[Float[np.ndarray, "draws keep"], Float[np.ndarray, "draws"]]:
    r"""The first ``keep`` coordinates of a short chain's draws, 64 and four more for each of them, and acceptances.

    Trajectories turn by :math:`\pi / 4` to :math:`3 \pi / 4`, at random, so that neither values nor squares are much
    correlated on a standard normal.
    """
    quarter = np.pi / 4 / step
    chain = _trajectories(value_and_grad, size, step, lambda rng: round(rng.uniform(quarter, 3 * quarter)))
    with np.errstate(over="ignore", invalid="ignore"):
        draws, accepted = zip(
            *((u[:keep], a) for u, a in islice(chain, TRIALS // 2, TRIALS // 2 + DRAWS + 4 * keep)), strict=True
        )
    return np.stack(draws), np.asarray(accepted)


def _acceptance(value_and_grad: Callable, size: int, step: float, steps: int) -> float:
    """Mean acceptance along the trajectories of the second half of a short chain from a standard normal draw."""
    chain = _trajectories(value_and_grad, size, step, lambda _: steps)
    return float(np.mean([accepted for _, accepted in islice(chain, TRIALS // 2, TRIALS)]))


def _trajectories(
    value_and_grad: Callable, size: int, step: float, steps: Callable[[np.random.Generator], int]
) -> Iterator[tuple[np.ndarray, float]]:
    """Draws of Hamiltonian Monte Carlo, and the mean acceptance along the trajectory to each."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal(size)
    energy, force = value_and_grad(u)
    while True:
        p = rng.standard_normal(size)
        start = energy + p @ p / 2
        here, energy_here, force_here, accepted = u, energy, force, []
        for _ in range(steps(rng)):
            p = p - step / 2 * force_here
            here = here + step * p
            energy_here, force_here = value_and_grad(here)
            p = p - step / 2 * force_here
            change = energy_here + p @ p / 2 - start
            accepted.append(np.exp(-max(change, 0.0)) if np.isfinite(change) else 0.0)
        if rng.uniform() < accepted[-1]:
            u, energy, force = here, energy_here, force_here
        yield u, float(np.mean(accepted))
