"""The step size chosen for NUTS on a near-standard-normal target."""

import numpy as np
import pytest
from scipy import stats

from numpyro_inverse.infer._trajectory import TURN
from numpyro_inverse.infer.whitening import _trial_chain
from numpyro_inverse.infer.whitening._trial_chain import trial_draws, trial_step_size


def gaussian(precision):
    return lambda u: (0.5 * np.sum(precision * u**2), precision * u)


@pytest.mark.parametrize(("size", "steps"), [(10, 15), (500, 15), (60_000, 31)])
def test_larger_problems_take_smaller_steps(size, steps):
    assert trial_step_size(gaussian(1.0), size) == TURN / steps


@pytest.mark.statistical
def test_acceptance_on_a_standard_normal_is_the_closed_form(monkeypatch):
    """Leapfrog is a matrix on each (u, p); after it the energy has changed by a quadratic form of 2n normals.

    That is nearly normal, so E min(1, exp(-change)) is known. The chain's 500 trajectories have a Monte-Carlo error of
    about 0.35 / sqrt(500), 0.02 with their correlation; 0.08 is four of these (false-alarm rate 1e-4).
    """
    monkeypatch.setattr(_trial_chain, "TRIALS", 1000)
    n, steps = 20_000, 31
    h = TURN / steps
    one = np.array([[1 - h**2 / 2, h], [-h * (1 - h**2 / 4), 1 - h**2 / 2]])
    expected, total = [], np.eye(2)
    for _ in range(steps):
        total = one @ total
        form = (total.T @ total - np.eye(2)) / 2
        mean, sd = n * np.trace(form), np.sqrt(2 * n * np.sum(form**2))
        expected.append(stats.norm.cdf(-mean / sd) + np.exp(-mean + sd**2 / 2) * stats.norm.cdf(mean / sd - sd))
    assert abs(_trial_chain._acceptance(gaussian(1.0), n, h, steps) - np.mean(expected)) < 0.08


def test_draws_are_nearly_independent(monkeypatch):
    """Means and variances of 2,000 draws of three normals, within 5 standard errors (false alarms below 1e-5).

    At these precisions the autocorrelations are, by integrals of cosines, -0.49 to 0.42 for values and 0.18 to 0.45 for
    squares, so that three draws are worth one at least.
    """
    monkeypatch.setattr(_trial_chain, "DRAWS", 2000)
    precision = np.array([1.0, 2.0, 0.5])
    draws, accepted = trial_draws(gaussian(precision), 3, TURN / 15, 3)
    standard = draws * np.sqrt(precision)
    n = len(standard) / 3
    assert np.max(np.abs(standard.mean(axis=0))) < 5 / np.sqrt(n)
    assert np.max(np.abs(standard.var(axis=0) - 1)) < 5 * np.sqrt(2 / n)
    assert accepted.min() > 0.8
    lagged = np.mean(standard[1:] * standard[:-1], axis=0)
    np.testing.assert_allclose(lagged, [0.0, -0.49, 0.42], atol=5 / np.sqrt(n))


def test_a_stiff_target_has_no_step():
    assert trial_step_size(gaussian(np.array([1e6, 1.0])), 2) is None


def test_a_target_that_is_not_finite_has_no_step():
    assert trial_step_size(lambda u: (np.nan, np.full_like(u, np.nan)), 3) is None
