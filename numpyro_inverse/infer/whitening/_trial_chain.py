"""A short trial of Hamiltonian Monte Carlo, to choose the step size of NUTS on a near-standard-normal target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numpyro_inverse.infer._trajectory import step_for_turn

TREE_DEPTHS = (4, 5, 6, 7)  # NUTS trajectories of 2^depth - 1 steps
MIN_ACCEPTANCE = 0.7
TRIALS = 16


def trial_step_size(value_and_grad: Callable, size: int) -> float | None:
    r"""The largest step :math:`1.2 \pi / (2^j - 1)`, j = 4, ..., 7, that is accepted often enough, if any.

    Why that angle: ``numpyro_inverse.infer._trajectory``.

    Args:
        value_and_grad: potential and gradient on numpy vectors of length ``size``.
        size: dimension.
    """
    for depth in TREE_DEPTHS:
        step = step_for_turn(depth)
        with np.errstate(over="ignore", invalid="ignore"):  # an unstable step is not accepted
            if _acceptance(value_and_grad, size, step, 2**depth - 1) >= MIN_ACCEPTANCE:
                return step
    return None


def _acceptance(value_and_grad: Callable, size: int, step: float, steps: int) -> float:
    """Mean acceptance along the trajectories of the second half of a short chain from a standard normal draw."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal(size)
    energy, force = value_and_grad(u)
    means = []
    for _ in range(TRIALS):
        p = rng.standard_normal(size)
        start = energy + p @ p / 2
        here, energy_here, force_here, accepted = u, energy, force, []
        for _ in range(steps):
            p = p - step / 2 * force_here
            here = here + step * p
            energy_here, force_here = value_and_grad(here)
            p = p - step / 2 * force_here
            change = energy_here + p @ p / 2 - start
            accepted.append(np.exp(-max(change, 0.0)) if np.isfinite(change) else 0.0)
        if rng.uniform() < accepted[-1]:
            u, energy, force = here, energy_here, force_here
        means.append(np.mean(accepted))
    return float(np.mean(means[TRIALS // 2 :]))
