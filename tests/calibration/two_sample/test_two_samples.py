"""Tests between samples, and against Gaussians and scores."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.distributions import constraints

from numpyro_inverse.calibration import (
    c2st,
    gaussian_wasserstein,
    ksd,
    lc2st,
    mahalanobis,
    mmd,
    mmd_to_gaussian,
    wasserstein,
)
from numpyro_inverse.calibration.two_sample._ksd import _stein_kernel, _unconstrained
from numpyro_inverse.calibration.two_sample._mahalanobis import _wishart_null

COVARIANCE = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.6], [0.3, 0.6, 1.0]])
ROOT, PRECISION = np.linalg.cholesky(COVARIANCE), np.linalg.inv(COVARIANCE)


def sample(seed, n=300, scale=1.0, shift=0.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(n, 3)) @ ROOT.T


TESTS = {
    "c2st": lambda x, key: c2st(x, sample(99), key, num_permutations=99),
    "mmd": lambda x, key: mmd(x, sample(99), key, num_permutations=99),
    "mmd_to_gaussian": lambda x, key: mmd_to_gaussian(x, np.zeros(3), COVARIANCE, key, num_simulations=99),
    "ksd": lambda x, key: ksd(x, lambda v: -PRECISION @ v, key, num_bootstrap=199),
    "wasserstein": lambda x, key: wasserstein(x, sample(99), key, num_permutations=99),
}


@pytest.mark.parametrize("name", TESTS)
def test_equal_laws_pass_and_others_do_not(key, name):
    result = TESTS[name](sample(0), key)
    assert result.p_value > 0.01
    assert TESTS[name](sample(1, scale=0.6), key).p_value <= 0.02
    assert TESTS[name](sample(2, shift=0.6), key).p_value <= 0.02
    assert "p = " in result.verdict()
    result.plot()


@pytest.mark.parametrize("name", TESTS)
def test_bad_draws(key, name):
    with pytest.raises(ValueError, match="10 draws"):
        TESTS[name](sample(0, n=5), key)
    with pytest.raises(ValueError, match="identical"):
        TESTS[name](np.zeros((300, 3)), key)
    with pytest.raises(ValueError, match="must be finite"):
        TESTS[name](np.full((300, 3), np.nan), key)
    if name != "ksd":  # whose score says what is wrong
        with pytest.raises(ValueError, match="numbers"):
            TESTS[name](np.random.default_rng(0).normal(size=(300, 2)), key)


def test_bad_options(key):
    x = sample(0)
    with pytest.raises(ValueError, match="num_permutations"):
        mmd(x, x, key, num_permutations=5)
    with pytest.raises(ValueError, match="bandwidth"):
        mmd(x, x, key, bandwidth=-1.0)
    with pytest.raises(ValueError, match="equal size"):
        wasserstein(x, x[:-1], key)
    with pytest.raises(ValueError, match="order"):
        wasserstein(x, x, key, order=3)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        ksd(x, lambda v: v[:2], key)


@pytest.mark.slow
def test_the_classifier_knows_its_accuracy(key):
    x, y = np.random.default_rng(0).normal(size=(2, 1000, 1)) + np.array([0.0, 2.0])[:, None, None]
    found = c2st(x, y, key, num_permutations=19)
    best = scipy.stats.norm.cdf(1.0)  # Bayes' rule for means two standard deviations apart
    assert abs(found.statistic - best) < 4 * np.sqrt(best * (1 - best) / 2000)
    assert abs(np.mean(found.null) - 0.5) < 0.01


def test_the_mmd_of_gaussians(key):
    """The unbiased estimate against the closed form."""
    width = 1.5
    shift = np.array([0.4, 0.0, 0.0])

    def mean_kernel(m, s):
        wide = s + width**2 * np.eye(3)
        return width**3 / np.sqrt(np.linalg.det(wide)) * np.exp(-0.5 * m @ np.linalg.solve(wide, m))

    exact = 2 * mean_kernel(0 * shift, 2 * COVARIANCE) - 2 * mean_kernel(shift, 2 * COVARIANCE)
    pairs = [(sample(2 * i), sample(2 * i + 1) + shift) for i in range(20)]
    for found in (
        [mmd(x, y, key, bandwidth=width, num_permutations=19).statistic for x, y in pairs],
        [
            mmd_to_gaussian(y, 0 * shift, COVARIANCE, key, bandwidth=width, num_simulations=19).statistic
            for _, y in pairs
        ],
    ):
        assert abs(np.mean(found) - exact) < 4 * np.std(found) / np.sqrt(20)


@pytest.mark.slow
def test_the_stein_kernel_against_autodiff():
    x, s = sample(3, n=4), sample(4, n=4)

    def k(a, b):
        return (1 + jax.numpy.sum((a - b) ** 2)) ** -0.5

    def u(a, b, sa, sb):
        da, db = jax.grad(k, 0)(a, b), jax.grad(k, 1)(a, b)
        mixed = jax.jacobian(jax.grad(k, 0), 1)(a, b)
        return sa @ sb * k(a, b) + sa @ db + sb @ da + jax.numpy.trace(mixed)

    with jax.enable_x64(True):
        found = _stein_kernel(x, s)
        expected = [[u(x[i], x[j], s[i], s[j]) for j in range(4)] for i in range(4)]
        np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-9)


def test_gaussian_wasserstein():
    assert gaussian_wasserstein(np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1)) == pytest.approx(np.sqrt(10))
    assert gaussian_wasserstein(np.zeros(3), COVARIANCE, np.zeros(3), COVARIANCE) == pytest.approx(0, abs=1e-6)
    draws = wasserstein(sample(5, 500), sample(6, 500), jax.random.key(0), num_permutations=19)
    assert draws.statistic > 0.3  # far from zero for equal laws
    assert abs(draws.statistic - np.mean(draws.null)) < 4 * np.std(draws.null)


@pytest.mark.slow
def test_lc2st(key):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(2000, 1))
    y = theta + rng.normal(size=theta.shape)
    here = np.array([1.5])

    def run(scale):
        draws = y / 2 + scale * np.sqrt(0.5) * rng.normal(size=theta.shape)
        at = here / 2 + scale * np.sqrt(0.5) * rng.normal(size=(500, 1))
        return lc2st(theta, draws, y, at, here, key, num_permutations=199).p_value

    assert run(1.0) > 0.01  # the smallest that 199 permutations allow is 0.005
    assert run(0.7) <= 0.01
    with pytest.raises(ValueError, match="one row each"):
        lc2st(theta, theta[:-1], y, theta, here, key)
    with pytest.raises(ValueError, match="data_at"):
        lc2st(theta, theta, y, theta, np.zeros(2), key)


def test_mahalanobis():
    rng = np.random.default_rng(0)
    truths = rng.normal(size=(500, 3)) @ ROOT.T
    means = np.zeros((500, 3))
    right = mahalanobis(truths, means, COVARIANCE)
    assert right.p_value > 1e-3
    each = mahalanobis(truths, means, np.tile(COVARIANCE, (500, 1, 1)))
    np.testing.assert_allclose(each.squared_distances, right.squared_distances)
    assert each.p_values == pytest.approx(right.p_values)
    wide = mahalanobis(truths, means, 0.64 * COVARIANCE)
    assert max(wide.p_values["distances"], wide.p_values["covariance"]) <= 2e-3  # the smallest that 999 draws allow
    shifted = mahalanobis(truths, means + 0.2, COVARIANCE)  # missed once in two hundred times
    assert 3 * shifted.p_values["mean"] == shifted.p_value < 0.05
    assert shifted.p_values["distances"] > 1e-3  # nearly blind to small shifts
    assert mahalanobis(truths, means, np.eye(3)).p_values["covariance"] <= 2e-3
    assert "rejected" in wide.verdict()
    each.plot()


def test_the_null_of_the_covariance_test(x64):
    """Simulated through Bartlett's decomposition against samples, from both sides of n = d; 4.5 standard errors."""
    rng = np.random.default_rng(1)
    for n, d in ((20, 3), (4, 7)):
        white = rng.normal(size=(999, n, d))
        s = np.einsum("rni,rnj->rij", white, white) / n - np.eye(d)
        plain, found = np.sum(s**2, axis=(1, 2)), _wishart_null(n, d)
        for power in (1, 2):
            error = np.hypot(np.std(plain**power), np.std(found**power)) / np.sqrt(999)
            assert abs(np.mean(found**power) - np.mean(plain**power)) < 4.5 * error
    assert mahalanobis(rng.normal(size=(4, 7)), np.zeros((4, 7)), np.eye(7)).p_value > 0.01


@pytest.mark.parametrize("what", ["asymmetric", "indefinite"])
def test_matrices_that_are_no_covariances(key, what):
    bad = {"asymmetric": np.array([[1.0, 0.5], [0.0, 1.0]]), "indefinite": np.array([[1.0, 2.0], [2.0, 1.0]])}[what]
    told = {"asymmetric": "must be symmetric", "indefinite": "must be positive"}[what]
    zero, x = np.zeros(2), np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match=f"mahalanobis: `covariances` {told}"):
        mahalanobis(x, 0 * x, bad)
    with pytest.raises(ValueError, match=f"mahalanobis: `covariances` {told}"):
        mahalanobis(x, 0 * x, np.stack([np.eye(2)] * 19 + [bad]))
    with pytest.raises(ValueError, match=f"gaussian_wasserstein: `covariance` {told}"):
        gaussian_wasserstein(zero, bad, zero, np.eye(2))
    with pytest.raises(ValueError, match=f"gaussian_wasserstein: `other_covariance` {told}"):
        gaussian_wasserstein(zero, np.eye(2), zero, bad)
    with pytest.raises(ValueError, match=f"mmd_to_gaussian: `covariance` {told}"):
        mmd_to_gaussian(x, zero, bad, key)
    assert gaussian_wasserstein(zero, np.zeros((2, 2)), zero, np.eye(2)) == pytest.approx(np.sqrt(2))  # singular


def test_ksd_does_not_depend_on_units(key):
    """Draws at 273.15 with spread 0.01, as they are and standardized."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    for scale in (1.0, 0.6):
        plain = ksd(scale * x, lambda v: -v, key, num_bootstrap=99)
        moved = ksd(273.15 + 0.01 * scale * x, lambda v: -(v - 273.15) / 1e-4, key, num_bootstrap=99)
        assert moved.statistic == pytest.approx(plain.statistic, abs=0.5 * np.std(plain.null))  # float32 at 273
        assert (plain.p_value <= 0.05) == (moved.p_value <= 0.05) == (scale < 1)


def test_ksd_on_a_density_that_does_not_vanish_at_its_end(key):
    """Exact exponential draws: refused without their support, passed with it; others are seen."""
    x = np.random.default_rng(0).exponential(size=500)

    def score(v):
        return -jax.numpy.ones_like(v)

    with pytest.raises(ValueError, match=r"pile up at the lower end of element 0.*`support`"):
        ksd(x, score, key)
    with pytest.raises(ValueError, match=r"pile up at the upper end of element 1"):
        ksd(np.stack([np.random.default_rng(1).normal(size=500), -x], 1), lambda v: v, key)
    assert ksd(x, score, key, support=constraints.real).p_value <= 0.01  # what is refused
    assert ksd(x, score, key, support=constraints.positive).p_value > 0.01  # the smallest is 0.002
    assert ksd(0.8 * x, score, key, support=constraints.positive).p_value <= 0.01
    with pytest.raises(ValueError, match="outside `support`"):
        ksd(-x, score, key, support=constraints.positive)


@pytest.mark.slow
def test_the_score_on_a_support_is_that_of_the_mapped_density(key):
    """Against the gradient of the log density in the unconstrained space."""
    law = dist.Dirichlet(jax.numpy.array([2.0, 3.0, 4.0]))
    x = law.sample(key, (5,))
    z, found = _unconstrained(x, jax.grad(law.log_prob), constraints.simplex)
    bijection = dist.biject_to(constraints.simplex)
    mapped = dist.TransformedDistribution(law, bijection.inv)
    np.testing.assert_allclose(found, jax.vmap(jax.grad(mapped.log_prob))(z), rtol=1e-3, atol=1e-4)
