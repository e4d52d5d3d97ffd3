"""The denoiser of signals with independent increments: closed forms, brute-force quadrature, and its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from numpyro_inverse.denoisers import IncrementsDenoiser

LENGTH = 24
ALARM = 1e-5  # false-alarm rate of a statistical test
LAWS = {
    "Laplace": (dist.Laplace(0.0, 1.0), stats.laplace.pdf, 1.0),
    "jumps": (dist.Laplace(0.0, 1.0), stats.laplace.pdf, 0.3),
    "Cauchy": (dist.StudentT(1.0), stats.cauchy.pdf, 1.0),
}


def gaussian_signal(sigma):
    """Noisy values of a Gaussian random walk of step 0.5, the posterior mean, its Jacobian, minus the log evidence."""
    rng = np.random.default_rng(0)
    root = 0.5 * np.tril(np.ones((LENGTH, LENGTH)))
    x = root @ rng.normal(size=LENGTH) + sigma * rng.normal(size=LENGTH)
    covariance = root @ root.T
    marginal = covariance + sigma**2 * np.eye(LENGTH)
    jacobian = np.linalg.solve(marginal, covariance).T
    return x, jacobian @ x, jacobian, -stats.multivariate_normal(np.zeros(LENGTH), marginal).logpdf(x)


@jax.jit
def gaussian_denoiser(x, sigma):
    denoiser = IncrementsDenoiser(dist.Normal(0.0, 0.5))
    return denoiser(x, sigma), jax.jacfwd(denoiser)(x, sigma), denoiser.potential(x, sigma)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "allowed"), [(jnp.float32, 1e-5), (jnp.float64, 1e-6)])
def test_gaussian_increments(precision, allowed):
    """Rounding, and what the window leaves out (2e-9 a place, of values 6 sigma away), in units of sigma."""
    with jax.enable_x64(precision is jnp.float64):
        for sigma in (0.02, 0.2, 1.0, 2.0):
            x, mean, jacobian, potential = gaussian_signal(sigma)
            found = gaussian_denoiser(jnp.asarray(x, precision), jnp.asarray(sigma, precision))
            assert found[0].dtype == precision
            np.testing.assert_allclose(found[0], mean, atol=allowed * sigma + allowed * np.max(np.abs(x)) / 10)
            np.testing.assert_allclose(found[1], jacobian, atol=30 * allowed)
            np.testing.assert_allclose(found[2], potential, atol=LENGTH * allowed, rtol=allowed)


def brute_force(law, x, sigma):
    """Two places, summed on a fine square grid and, where increments may be zero, on its lines: the evidence, the
    means, and the probabilities that either increment is zero."""
    _, density, jump = LAWS[law]
    s = np.arange(-12, 12.005, 0.01)
    cell = 0.01
    likelihood = [stats.norm.pdf(x[k], s, sigma) for k in range(2)]
    at_zero = [stats.norm.pdf(x[k], 0, sigma) for k in range(2)]
    both = jump**2 * cell**2 * np.outer(density(s) * likelihood[0], likelihood[1]) * density(s - s[:, None])
    first = jump * (1 - jump) * cell * density(s) * likelihood[0] * likelihood[1]  # then stays
    second = (1 - jump) * jump * cell * at_zero[0] * density(s) * likelihood[1]
    none = (1 - jump) ** 2 * at_zero[0] * at_zero[1]
    evidence = both.sum() + first.sum() + second.sum() + none
    means = [(both.sum(1) @ s + first @ s) / evidence, (both.sum(0) @ s + first @ s + second @ s) / evidence]
    still = [(second.sum() + none) / evidence, (first.sum() + none) / evidence]
    return evidence, np.array(means), np.array(still)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_other_laws(law):
    """Against a grid of 0.01. The kink of Laplace costs h^2 / 12 of a jump's variance, h = 12 sigma / n: 5e-4 of
    quantities of order 1 at sigma = 0.4 with 64 points; allowed is twice that, and four times more with 32."""
    fn, _, jump = LAWS[law]
    x, sigma = np.array([0.5, 1.6]), 0.4
    evidence, means, _ = brute_force(law, x, sigma)
    for points, allowed in ((32, 4e-3), (64, 1e-3)):
        denoiser = IncrementsDenoiser(fn, jump_probability=jump, points=points)
        mean, potential = jax.jit(lambda x: (denoiser(x, sigma), denoiser.potential(x, sigma)))(x)
        np.testing.assert_allclose(mean, means, atol=allowed)
        np.testing.assert_allclose(potential, -np.log(evidence), atol=allowed)


@pytest.mark.slow
def test_draws(key):
    """Means, variances and probabilities of an increment of exactly zero; z tests of the 6 numbers together."""
    fn, _, jump = LAWS["jumps"]
    x, sigma = np.array([0.5, 0.9]), 0.4
    denoiser = IncrementsDenoiser(fn, jump_probability=jump)
    draws = jax.jit(jax.vmap(denoiser.sample, (0, None, None)))(jax.random.split(key, 4000), x, sigma)
    _, means, still = brute_force("jumps", x, sigma)
    variances = sigma**2 * np.diagonal(jax.jit(jax.jacfwd(denoiser))(jnp.asarray(x, jnp.float32), sigma))
    draws = np.asarray(draws, float)
    zero = np.stack([draws[:, 0] == 0, draws[:, 1] == draws[:, 0]], axis=1)
    values = np.concatenate([draws, (draws - means) ** 2, zero], axis=1)
    expected = np.concatenate([means, variances, still])
    z = (values.mean(0) - expected) / (values.std(0) / np.sqrt(len(values)))
    assert np.max(np.abs(z)) < stats.norm.isf(ALARM / (2 * len(z))), z


def test_draws_have_no_lattice(key):
    """Without an atom a draw takes every value: the lattice is shifted at random."""
    denoiser = IncrementsDenoiser(dist.Normal(0.0, 0.5))
    sample = jax.jit(jax.vmap(denoiser.sample, (0, None, None)))
    draws = sample(jax.random.split(key, 400), jnp.array([0.3, 0.2]), 0.3)
    places = np.asarray(draws[:, 0]) / (12 * 0.3 / 64)
    assert stats.kstest(places - np.floor(places), "uniform").pvalue > ALARM


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3.0,), {}, TypeError, "`increments`"),
        ((dist.Normal(0.0, jnp.ones(2)),), {}, ValueError, r"one real number; got shape \(2,\)"),
        ((dist.Poisson(1.0),), {}, ValueError, "discrete"),
        ((dist.Normal(),), {"jump_probability": 0.0}, ValueError, "`jump_probability`"),
        ((dist.Normal(),), {"points": 4}, ValueError, "`points`"),
        ((dist.Normal(),), {"reach": -1.0}, ValueError, "`reach`"),
    ],
)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error, match=f"IncrementsDenoiser.*{message}"):
        IncrementsDenoiser(*arguments, **options)


@pytest.mark.parametrize(
    ("x", "sigma", "message"),
    [
        (np.ones((2, 2)), 1.0, r"a vector; got shape \(2, 2\)"),
        (np.ones(3), 0.0, "`sigma`"),
        (np.ones(3), -1.0, "`sigma`"),
        (np.ones(3), np.ones(2), "`sigma`"),
    ],
)
def test_bad_signals(x, sigma, message):
    denoiser = IncrementsDenoiser(dist.Normal())
    for door in (denoiser, denoiser.potential, lambda *call: denoiser.sample(jax.random.key(0), *call)):
        with pytest.raises(ValueError, match=message):
            door(x, sigma)
