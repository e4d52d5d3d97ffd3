"""The exact law of the rank statistic, against enumeration and simulation."""

from itertools import product

import numpy as np
import pytest

from numpyro_inverse.calibration.ranks._uniformity import (
    counts_below,
    rank_bands,
    rank_p_value,
    rank_statistics,
    staying_probability,
)


def every_outcome(num_ranks, num_draws):
    return np.array(list(product(range(num_draws + 1), repeat=num_ranks))).T


@pytest.mark.parametrize(("num_ranks", "num_draws"), [(2, 1), (4, 3), (6, 2), (5, 4)])
def test_p_values_are_exact(num_ranks, num_draws):
    outcomes = every_outcome(num_ranks, num_draws)
    statistics = rank_statistics(outcomes, num_draws)
    for column in range(0, outcomes.shape[1], 7):
        exact = np.mean(statistics <= statistics[column] * (1 + 1e-9))
        np.testing.assert_allclose(rank_p_value(outcomes[:, column], num_draws), exact, rtol=1e-9)


@pytest.mark.parametrize(("num_ranks", "num_draws"), [(4, 3), (6, 2)])
def test_staying_probability_is_exact(num_ranks, num_draws):
    counts = counts_below(every_outcome(num_ranks, num_draws), num_draws)
    rng = np.random.default_rng(0)
    for _ in range(20):
        lower = np.sort(rng.integers(0, num_ranks + 1, num_draws)) // 2
        upper = np.minimum(np.sort(lower + rng.integers(0, num_ranks + 1, num_draws)), num_ranks)
        stays = np.all((counts >= lower[:, None]) & (counts <= upper[:, None]), axis=0)
        np.testing.assert_allclose(staying_probability(lower, upper, num_ranks), np.mean(stays), atol=1e-12)


@pytest.mark.parametrize("num_draws", [20, 99, 999])
@pytest.mark.parametrize("num_ranks", [100, 500, 1000])
def test_bands_have_their_coverage(num_ranks, num_draws):
    bands = rank_bands(num_ranks, num_draws, 0.94)
    assert 0.94 <= bands.coverage <= 0.95
    if (num_ranks, num_draws) == (100, 20):
        assert abs(bands.coverage - 0.9414) < 5e-5  # found by an independent binomial recursion


def test_bands_hold_simulated_ranks():
    bands, rng = rank_bands(200, 99, 0.94), np.random.default_rng(1)
    counts = counts_below(rng.integers(0, 100, (200, 4000)), 99)
    held = np.mean(np.all((counts >= bands.lower[:, None]) & (counts <= bands.upper[:, None]), axis=0))
    assert abs(held - bands.coverage) < 4 * np.sqrt(0.94 * 0.06 / 4000)  # false alarm 6e-5


def test_hopeless_ranks_have_a_small_p_value():
    assert rank_p_value(np.zeros(500, int), 99) < 1e-12
    assert rank_p_value(np.full(500, 99), 99) < 1e-12


def test_bad_input():
    with pytest.raises(ValueError, match="coverage"):
        rank_bands(100, 20, 1.0)
    with pytest.raises(ValueError, match="2 data sets"):
        rank_bands(1, 20)
    with pytest.raises(ValueError, match="1 draw"):
        rank_bands(100, 0)
