"""SK-ROCK: its law on a Gaussian at a finite step, mode by mode."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.infer._laws import assert_agree, linear_chain_z, run

from numpyro_inverse.infer import SKROCK

PRECISIONS = np.array([0.1, 1.0, 5.0, 50.0, 148.0])


def _potential(x):
    return 0.5 * jnp.sum(PRECISIONS * x**2)


def _z(key, law_of, stages=10, num_samples=20_000):
    kernel = SKROCK(potential_fn=_potential, step_size=1.0, stages=stages)
    variance, correlation = law_of(kernel, PRECISIONS)
    return linear_chain_z(run(kernel, key, PRECISIONS.size, 300, num_samples, 1), variance, correlation)


def test_law_at_a_finite_step(key):
    # Variances and lag-1 correlations of modes with delta h from 0.1 to 148, l_s = 173. False-alarm rate 1e-5.
    assert_agree(_z(key, SKROCK.linear_law))


def test_the_test_has_power(key):
    # The exact Gaussian's variances, and one stage more, are told apart.
    exact = _z(key, lambda kernel, h: (1 / h, kernel.linear_law(h)[1]))
    assert np.max(np.abs(exact)) > 8
    other = SKROCK(potential_fn=_potential, step_size=1.0, stages=11)
    assert np.max(np.abs(_z(key, lambda _, h: other.linear_law(h)))) > 8


def test_law_in_figures():
    # var * h at delta h = 0.1, 1, 2, 5 and l_s, s = 10: reference values.
    kernel = SKROCK(potential_fn=_potential, step_size=1.0, stages=10)
    h = np.array([0.1, 1.0, 2.0, 5.0, kernel.max_step_size(1.0)])
    np.testing.assert_allclose(kernel.linear_law(h)[0] * h, [0.998, 0.976, 0.930, 0.047, 0.061], atol=6e-4)


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
