"""What diagnostics say of chains under a symmetry; the chains are made, so that what is wrong with them is known."""

import numpy as np
import pytest
from scipy.signal import lfilter

from numpyro_inverse.infer import orbit_diagnostics, to_arviz
from numpyro_inverse.symmetry import CyclicShift, GlobalPhase, Reflection, SignFlip, Symmetry

FLIP = Symmetry(SignFlip(), "u")
CHAINS, DRAWS = 4, 2000


def chains(correlation, seed=0):
    """|u| is log-normal, an autoregression in each chain."""
    noise = np.random.default_rng(seed).normal(size=(CHAINS, DRAWS))
    noise[:, 0] /= np.sqrt(1 - correlation**2)
    return np.exp(0.3 * np.sqrt(1 - correlation**2) * lfilter([1], [1, -correlation], noise))


def signs(seed=1):
    return np.random.default_rng(seed).choice([-1, 1], (CHAINS, DRAWS))


def test_chains_that_are_stuck_in_a_copy_each():
    found = orbit_diagnostics({"u": chains(0.3) * np.array([[1], [-1], [1], [-1]])}, FLIP)
    assert found.mixed_within
    assert not found.mixed_among_copies
    assert found.rhat["raw"] > 1.5
    assert found.rhat["copy"] == np.inf
    assert found.ess["copy"] == found.switches == 0
    np.testing.assert_array_equal(found.weights_by_chain, [[1, 0], [0, 1], [1, 0], [0, 1]])
    np.testing.assert_array_equal(found.weights, [0.5, 0.5])
    assert "Modulo the symmetry the chains have mixed" in found.verdict()
    assert "do NOT go from copy to copy" in found.verdict()


def test_chains_that_are_all_stuck_in_one_copy():
    found = orbit_diagnostics({"u": chains(0.3)}, FLIP)
    assert found.rhat["raw"] < 1.01  # nothing of it is seen in raw coordinates
    assert found.mixed_within
    assert not found.mixed_among_copies


def test_random_flips_do_not_fool():
    """The rule: R-hat and ESS of invariants. Raw ones are content with a chain that crawls."""
    found = orbit_diagnostics({"u": chains(0.99) * signs()}, FLIP)
    assert found.ess["raw"] > 0.8 * CHAINS * DRAWS
    assert found.ess["invariants"] < 0.03 * CHAINS * DRAWS
    assert found.rhat["invariants"] > found.rhat["raw"] + 0.01
    assert not found.mixed_within
    assert "have NOT mixed" in found.verdict()
    assert found.mixed_among_copies


def test_chains_that_mix():
    found = orbit_diagnostics({"u": (chains(0.3) * signs()).reshape(-1)}, FLIP, num_chains=CHAINS)
    assert found.mixed_within
    assert found.mixed_among_copies
    assert abs(found.switches - 0.5) < 5 * 0.5 / np.sqrt(CHAINS * DRAWS)
    np.testing.assert_allclose(found.weights, 0.5, atol=5 * 0.5 / np.sqrt(CHAINS * DRAWS))
    assert "They go freely from copy to copy" in found.verdict()
    assert list(found.table.index) == ["invariants", "canonical", "copy", "raw"]


def test_other_groups():
    rng = np.random.default_rng(2)
    u = 1.0 + np.arange(4) + 0.1 * rng.normal(size=(CHAINS, DRAWS, 4))
    shifts = Symmetry(CyclicShift((4,)), "u")
    rows = np.arange(4) + rng.integers(0, 4, (CHAINS, DRAWS, 1))
    found = orbit_diagnostics({"u": np.take_along_axis(u, rows % 4, axis=-1)}, shifts)
    assert found.mixed_within
    assert found.mixed_among_copies
    np.testing.assert_allclose(found.weights, 0.25, atol=0.03)
    z = (u + 1j * u[..., ::-1]) * np.exp(2j * np.pi * rng.uniform(size=(CHAINS, DRAWS, 1)))
    found = orbit_diagnostics({"z": z}, Symmetry(GlobalPhase(), "z"))
    assert found.weights is None
    assert found.mixed_among_copies
    assert found.rhat["canonical"] < 1.01


def test_to_arviz_with_a_symmetry_has_canonical_forms_and_invariants():
    import arviz

    draws = {"u": chains(0.99) * signs(), "other": chains(0.3)}
    tree = to_arviz(draws, symmetry=FLIP)
    np.testing.assert_allclose(tree.posterior["u"], np.abs(draws["u"]), rtol=1e-6)
    np.testing.assert_allclose(tree.posterior["u_invariants"][..., 0], draws["u"] ** 2, rtol=1e-5)
    np.testing.assert_array_equal(tree.posterior["other"], draws["other"])
    assert float(arviz.ess(tree)["u"]) < 0.03 * CHAINS * DRAWS  # what is read from the tree is true
    assert float(arviz.ess(to_arviz(draws))["u"]) > 0.8 * CHAINS * DRAWS


def test_bad_input():
    with pytest.raises(ValueError, match="moves site 'v', which is not there"):
        orbit_diagnostics({"u": np.zeros((2, 9))}, Symmetry(SignFlip(), "v"))
    with pytest.raises(ValueError, match="4 draws a chain are needed"):
        orbit_diagnostics({"u": np.zeros((2, 3))}, FLIP)
    with pytest.raises(TypeError, match="`symmetry` must be a Symmetry"):
        orbit_diagnostics({"u": np.zeros((2, 9))}, Reflection())
    with pytest.raises(ValueError, match="there is a site 'u_invariants' already"):
        to_arviz({"u": np.ones((2, 9)), "u_invariants": np.ones((2, 9))}, symmetry=FLIP)
