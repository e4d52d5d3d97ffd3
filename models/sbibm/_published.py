"""The benchmark's own data: observations, the parameters behind them, draws of the reference posteriors."""

from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from numpyro_inverse._checks import check_count

OBSERVATIONS = 5


@cache
def arrays():
    """All that is stored, by name."""
    with np.load(Path(__file__).parents[1] / "data" / "sbibm.npz") as stored:
        return dict(stored)


def published(task, what, k):
    """Observation or true parameters ``k`` of a task, counted from 1; counts are integers."""
    k = check_count(f"models.sbibm.{task}", "k", k)
    if k > OBSERVATIONS:
        raise ValueError(f"models.sbibm.{task}: `k` must be from 1 to {OBSERVATIONS}; got {k}.")
    value = arrays()[f"{task}_{what}"][k - 1]
    return jnp.asarray(value, int if np.issubdtype(value.dtype, np.integer) else float)


def reference_draws(task):
    """Independent draws of the reference posterior of observation 1: 500, of two_moons 4,000."""
    return arrays()[f"{task}_reference"]
