"""Coverage of credible regions, and TARP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.calibration import coverage, tarp
from numpyro_inverse.calibration.ranks._coverage import nearness
from numpyro_inverse.calibration.ranks._tarp import _directions
from tests.calibration import linear

QUIET = {"progress_bar": False}


def test_an_exact_posterior_covers(key):
    result = coverage(linear.model, linear.exact, num_datasets=400, rng_key=key, **QUIET)
    assert result.p_value > 1e-3
    assert result.empirical("central x", 0.9).shape == (3,)
    for level in (0.5, 0.9):  # false alarm 7e-6 each
        allowed = 4.5 * np.sqrt(level * (1 - level) / 400)
        assert np.all(np.abs(result.empirical("highest density all sites", level) - level) < allowed)
        assert np.all(np.abs(result.empirical("central x", level) - level) < allowed)
    assert "90 %" in result.table
    result.plot()


@pytest.mark.slow
def test_a_narrow_posterior_does_not(key):
    result = coverage(linear.model, linear.narrow, num_datasets=400, rng_key=key, **QUIET)
    assert all(p < 0.01 for p in result.p_values.values())
    # a central 90 % interval 0.8 times as wide holds 2 Phi(0.8 * 1.645) - 1 = 81 %
    assert np.all(np.abs(result.empirical("central x", 0.9) - 0.812) < 4.5 * 0.02)
    assert "rejected" in result.verdict()


@pytest.mark.slow
def test_the_joint_region_sees_the_prior_as_posterior(key):
    result = coverage(linear.model, linear.prior, num_datasets=300, rng_key=key, **QUIET)
    assert result.p_values["central x"] > 1e-3
    assert result.p_values["highest density all sites"] < 1e-6


def test_nearness_by_hand():
    values = jnp.array([[0.0], [1.0], [1.5], [9.0], [4.0]])
    valid = jnp.array([True, True, True, True, False])
    found = np.asarray(nearness(1, values, valid))[:, 0]
    np.testing.assert_allclose(found[:4], [-1.0, -0.5, -0.5, -7.5])


def test_nearness_treats_all_alike(key):
    values = jax.random.normal(key, (30, 2))
    order = jax.random.permutation(key, 30)
    valid = jnp.ones(30, bool)
    np.testing.assert_allclose(nearness(5, values, valid)[order], nearness(5, values[order], valid))


def test_bad_levels(key):
    result = coverage(linear.model, linear.exact, num_datasets=20, rng_key=key, joint=False, **QUIET)
    with pytest.raises(ValueError, match="no region 'x'"):
        result.empirical("x", 0.9)
    with pytest.raises(ValueError, match="level"):
        result.empirical("central x", 1.5)


@pytest.mark.slow
def test_tarp_passes_an_exact_posterior(key):
    assert tarp(linear.model, linear.exact, num_datasets=400, rng_key=key, **QUIET).p_value > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("inference", [linear.narrow, linear.shifted, linear.uncorrelated, linear.prior])
def test_tarp_rejects(key, inference):
    assert tarp(linear.model, inference, num_datasets=500, rng_key=key, **QUIET).p_value < 0.05


@pytest.mark.slow
def test_the_prior_passes_when_the_reference_ignores_the_data(key):
    def reference(data):
        return {"x": jnp.array([0.3, -0.2, 0.5])}

    study = tarp(linear.model, linear.prior, num_datasets=400, rng_key=key, reference=reference, **QUIET)
    assert study.p_value > 1e-3


def test_bad_references(key):
    def run(**options):
        return tarp(linear.model, linear.exact, num_datasets=20, rng_key=key, **QUIET, **options)

    with pytest.raises(ValueError, match="num_references"):
        run(num_references=1)
    with pytest.raises(ValueError, match="num_directions"):
        run(num_directions=-1)
    with pytest.raises(ValueError, match=r"site 'x' of shape \(3,\)"):
        run(reference=lambda data: {"x": jnp.zeros(2)})


@pytest.mark.slow
def test_far_out_references_are_orthonormal_and_few(key):
    frame = _directions(key, {"a": (2,), "b": ()}, 10)
    flat = np.array([np.concatenate([u["a"], u["b"][None]]) for u in frame])
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-6)
    assert _directions(key, {"a": (2,)}, 0) == []
    study = tarp(linear.model, linear.exact, num_datasets=20, rng_key=key, num_directions=2, **QUIET)
    assert list(study.ranks) == ["distance to reference", "direction 1", "direction 2"]
