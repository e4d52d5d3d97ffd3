"""SK-ROCK: its limit of stability and what it refuses. Its law: test_gaussian_law.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.infer import SKROCK
from tests.infer._laws import run

PRECISIONS = np.array([0.1, 1.0, 5.0, 50.0, 148.0])


def _potential(x):
    return 0.5 * jnp.sum(PRECISIONS * x**2)


@pytest.mark.slow
def test_stable_to_its_limit(key):
    kernel = SKROCK(potential_fn=_potential, step_size=1.0, stages=5)
    inside = SKROCK(potential_fn=_potential, step_size=0.99 * kernel.max_step_size(148.0), stages=5)
    assert np.all(np.abs(run(inside, key, 5, 0, 300, 1)) < 30)
    outside = SKROCK(potential_fn=_potential, step_size=1.5 * kernel.max_step_size(148.0), stages=5)
    with pytest.raises(Exception, match=r"(?s)SKROCK: unstable at iteration \d+.*suggest_step_size"):
        np.asarray(run(outside, key, 5, 0, 300, 1))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stages": 1}, "`stages`"),
        ({"stages": 2.5}, "`stages`"),
        ({"damping": 0}, "`damping`"),
        ({"step_size": 0}, "step"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        SKROCK(potential_fn=_potential, **{"step_size": 1.0, **parameters})
