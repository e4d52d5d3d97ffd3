"""Penalized-complexity priors: densities and quantiles against quadrature, draws against their law, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import Exponential
from scipy import stats
from scipy.integrate import quad

from numpyro_inverse.distributions import PCRange, PCScale

CASES = {
    "range, line": (lambda: PCRange(0.3, 0.1, ndim=1), lambda d: d.cdf(0.3), 0.1),
    "range, plane": (lambda: PCRange(0.3, 0.05), lambda d: d.cdf(0.3), 0.05),
    "range, space": (lambda: PCRange(2.0, 0.5, ndim=3), lambda d: d.cdf(2.0), 0.5),
    "scale": (lambda: PCScale(1.5, 0.01), lambda d: 1 - d.cdf(1.5), 0.01),
}


@pytest.mark.parametrize("name", CASES)
def test_density_quantiles_and_statement(name, x64):
    make, stated, probability = CASES[name]
    d = make()
    np.testing.assert_allclose(stated(d), probability, rtol=1e-12)
    for q in (0.02, 0.4, 0.9):
        x = float(d.icdf(q))
        np.testing.assert_allclose(d.cdf(x), q, rtol=1e-12)
        density = lambda t: float(np.exp(d.log_prob(np.exp(t)) + t))  # noqa: E731
        below = quad(density, -25, np.log(x), epsabs=1e-10, limit=200)[0]
        np.testing.assert_allclose(below, q, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_law(name, key):
    """Kolmogorov-Smirnov with 2000 draws, at a false-alarm rate of 1e-5."""
    d = CASES[name][0]()
    draws = d.sample(key, (2000,))
    assert stats.kstest(np.asarray(d.cdf(draws), float), "uniform").pvalue > 1e-5


def test_the_density_of_fuglstad_et_al(x64):
    """(d / 2) l1 l2 rho^(-1 - d / 2) exp(-l1 rho^(-d / 2) - l2 sigma), l1 = -log(a1) rho0^(d / 2)."""
    l1, l2, d = -np.log(0.05) * 0.3**0.5, -np.log(0.01) / 1.5, 1
    rho, sigma = 0.7, 0.4
    joint = d / 2 * l1 * l2 * rho ** (-1 - d / 2) * np.exp(-l1 * rho ** (-d / 2) - l2 * sigma)
    both = PCRange(0.3, 0.05, ndim=1).log_prob(rho) + PCScale(1.5, 0.01).log_prob(sigma)
    np.testing.assert_allclose(both, np.log(joint), rtol=1e-12)


def test_moments_and_batches(x64):
    d = PCRange(jnp.array([0.5, 1.0]), 0.2, ndim=5)
    assert d.batch_shape == (2,)
    for i, lower in enumerate((0.5, 1.0)):
        one = PCRange(lower, 0.2, ndim=5)
        moments = [
            quad(lambda t, k=k: float(np.exp(one.log_prob(np.exp(t)) + (k + 1) * t)), -6, 60, limit=400)[0]
            for k in (1, 2)
        ]
        np.testing.assert_allclose(d.mean[i], moments[0], rtol=1e-6)
        np.testing.assert_allclose(d.variance[i], moments[1] - moments[0] ** 2, rtol=1e-5)
    assert np.isinf(PCRange(0.5).mean)
    assert isinstance(jax.jit(lambda upper: PCScale(upper, 0.1))(1.0), Exponential)
    inside = jax.jit(lambda: PCRange(0.5, 0.2, ndim=5).mean)()  # as in a model that is traced
    np.testing.assert_allclose(inside, d.mean[0])


@pytest.mark.parametrize("kind", [PCRange, PCScale])
def test_bad_arguments(kind):
    name = "lower" if kind is PCRange else "upper"
    with pytest.raises(ValueError, match=f"`{name}` must be positive"):
        kind(-1.0)
    for probability in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"`probability` must be in \(0, 1\)"):
            kind(1.0, probability)
    with pytest.raises(TypeError, match="`probability` must be real"):
        kind(1.0, "small")
    with pytest.raises(ValueError, match="do not broadcast"):
        kind(np.ones(2), np.full(3, 0.1))
    with pytest.raises(ValueError, match="`ndim` must be a positive integer"):
        PCRange(1.0, ndim=0)
