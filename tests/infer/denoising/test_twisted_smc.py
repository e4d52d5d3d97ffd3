"""Twisted sequential Monte Carlo: unbiased with few particles, for priors whose reverse diffusion is known exactly.

With any number of particles the evidence, and the evidence times an average over the draws, are unbiased for the prior
that the Euler steps make. So the mean over many short chains is compared with the truth by its own Monte Carlo error.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from scipy.stats import t as student

import numpyro_inverse as ni
from models import levy
from numpyro_inverse.denoisers import GaussianDenoiser
from numpyro_inverse.infer import twisted_smc
from numpyro_inverse.infer.denoising._reverse_diffusion import noise_levels
from tests.infer._laws import assert_agree

FORWARD, NOISE, DATA = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]]), 0.4, np.array([0.7, -1.1])
COVARIANCE = np.array([[1.0, 0.6, 0.2], [0.6, 1.5, 0.5], [0.2, 0.5, 0.7]])
FIRST, LAST, STEPS = 20.0, 0.05, 24


def model(data=None, forward=FORWARD):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), (np.shape(forward)[1],)))
    numpyro.sample("data", dist.Normal(jnp.asarray(forward) @ x, NOISE).to_event(1), obs=data)


def linear(x, sigma):
    return jnp.asarray(COVARIANCE, x.dtype) @ jnp.linalg.solve(COVARIANCE + sigma**2 * jnp.eye(3, dtype=x.dtype), x)


def levels(first=FIRST, last=LAST, steps=STEPS):
    return np.asarray(noise_levels(first, last, steps), float)


def prior_of_the_steps(covariance, levels):
    """The covariance of the last state of the reverse diffusion."""
    one = np.eye(len(covariance))
    spread = levels[0] ** 2 * one
    for sigma, after in itertools.pairwise(levels):
        h = sigma**2 - after**2
        step = one - h * np.linalg.inv(covariance + sigma**2 * one)
        spread = step @ spread @ step.T + h * one
    return spread


def posterior_of_the_steps(covariance, levels, forward, noise, data):
    """Mean, covariance and log evidence under that prior."""
    prior = prior_of_the_steps(covariance, levels)
    marginal = forward @ prior @ forward.T + noise**2 * np.eye(len(forward))
    gain = prior @ forward.T @ np.linalg.inv(marginal)
    log_evidence = multivariate_normal(np.zeros(len(forward)), marginal).logpdf(data)
    return gain @ data, prior - gain @ forward @ prior, log_evidence


def z_scores(found, site, statistics, expected, log_evidence):
    """Of the evidence, and of the evidence times each statistic's average over a chain, in their Monte Carlo errors; a
    t of few chains as the z that is as rare."""
    ratio = np.exp(np.asarray(found.log_evidence, float) - log_evidence)[:, None]
    averages = np.mean(statistics(np.asarray(found.samples[site], float)), axis=1)
    parts = np.concatenate([ratio - 1, ratio * (averages - expected)], axis=1)
    t = parts.mean(0) / (parts.std(0, ddof=1) / np.sqrt(len(parts)))
    return norm.isf(student.sf(np.abs(t), len(parts) - 1))


def moments(x):
    """First and second ones, along the last axis."""
    upper = np.triu_indices(x.shape[-1])
    return np.concatenate([x, (x[..., :, None] * x[..., None, :])[..., upper[0], upper[1]]], axis=-1)


@pytest.mark.filterwarnings("ignore:twisted_smc. at some noise level")
@pytest.mark.parametrize(
    "double", [pytest.param(True, id="double"), pytest.param(False, id="single", marks=pytest.mark.slow)]
)
def test_unbiased_for_a_gaussian_prior(key, double):
    """1,000 chains of eight particles: evidence, means and second moments (false alarm of ``assert_agree``: 1e-5)."""
    mean, covariance, log_evidence = posterior_of_the_steps(COVARIANCE, levels(), FORWARD, NOISE, DATA)
    with jax.enable_x64(double):
        found = twisted_smc(
            model, linear, rng_key=key, num_particles=8, num_chains=1000, sigma_max=FIRST, sigma_min=LAST,
            num_steps=STEPS, model_args=(jnp.asarray(DATA),),
        )  # fmt: skip
    expected = np.concatenate([mean, (covariance + np.outer(mean, mean))[np.triu_indices(3)]])
    assert_agree(z_scores(found, "x", moments, expected, log_evidence))
    effective = np.asarray(found.effective_sample_size)
    assert effective.shape == (1000, STEPS)
    assert np.all((effective >= 1 - 1e-4) & (effective <= 8 + 1e-4))
    samples = {"x": np.asarray(found.samples["x"])}
    tree = ni.to_arviz(samples)
    assert dict(tree["posterior"].sizes) == {"chain": 1000, "draw": 8, "x_dim_0": 3}


WEIGHTS, CENTERS, SPREADS = np.array([0.3, 0.7]), np.array([-2.0, 1.0]), np.array([0.3, 0.5])


def mixture(x, sigma):
    """The posterior mean of a signal from two normal laws."""
    variance = jnp.asarray(SPREADS, x.dtype) ** 2 + sigma**2
    away = x[..., None] - jnp.asarray(CENTERS, x.dtype)
    share = jax.nn.softmax(jnp.log(WEIGHTS) - 0.5 * away**2 / variance - 0.5 * jnp.log(variance))
    return jnp.sum(share * (CENTERS + SPREADS**2 / variance * away), axis=-1)


def law_of_the_steps():
    """The density of the last state on a grid, by quadrature of each transition."""
    x = np.linspace(-6.0, 6.0, 1201)
    wide = np.linspace(-120.0, 120.0, 2401)
    grid, density = wide, norm.logpdf(wide, 0.0, FIRST)
    for sigma, after in itertools.pairwise(levels()):
        h = sigma**2 - after**2
        mean = grid + h * (np.asarray(mixture(jnp.asarray(grid), sigma)) - grid) / sigma**2
        # Wide enough for the next law, fine enough for the transition.
        following = x if after < 0.5 else np.linspace(-6 - 6 * after, 6 + 6 * after, 2401)
        log_weight = density + np.log(np.gradient(grid))
        transition = -0.5 * (following[:, None] - mean) ** 2 / h - 0.5 * np.log(2 * np.pi * h)
        grid, density = following, logsumexp(transition + log_weight, axis=1)
    return grid, np.exp(density)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:twisted_smc. at some noise level")
def test_unbiased_for_a_mixture(x64, key):
    """One datum between two modes; 2,000 chains of four particles against quadrature of the 24 steps themselves.

    Guided diffusion without the weights is told by the probability of a mode, at eight of its standard errors.
    """
    forward, data = np.array([[1.0]]), np.array([-0.6])
    grid, prior = law_of_the_steps()
    assert np.trapezoid(prior, grid) == pytest.approx(1.0, abs=1e-6)
    joint = prior * norm.pdf(data[0], grid, NOISE)
    evidence = np.trapezoid(joint, grid)

    def statistics(x):
        return np.concatenate([x < -0.6, x, x**2], axis=-1)

    at = statistics(grid[:, None])
    expected = np.trapezoid(joint[:, None] * at, grid, axis=0) / evidence
    given = {"sigma_max": FIRST, "sigma_min": LAST, "num_steps": STEPS}
    given |= {"model_args": (jnp.asarray(data),), "model_kwargs": {"forward": forward}}
    found = twisted_smc(model, mixture, rng_key=key, num_particles=4, num_chains=2000, **given)
    assert_agree(z_scores(found, "x", statistics, expected, np.log(evidence)))
    guided = ni.infer.diffusion_posterior(model, mixture, rng_key=key, num_samples=8000, **given)["x"]
    share = np.mean(np.asarray(guided) < -0.6)
    assert abs(share - expected[0]) > 8 * np.sqrt(share * (1 - share) / 8000)


@pytest.mark.slow
def test_sixty_four_values(key):
    """Forty data, 16 chains of a hundred particles: evidence and means; no level leaves fewer than a fifth of them."""
    _, data, noise = levy.simulate(jax.random.key(7), law="gauss", operator="imputation")
    root, last = 0.5 * np.tril(np.ones((levy.LENGTH, levy.LENGTH))), float(noise) / 20
    found = twisted_smc(
        partial(levy.likelihood, operator="imputation"), GaussianDenoiser(np.zeros(levy.LENGTH), root @ root.T),
        rng_key=key, num_particles=100, num_chains=16, sigma_max=100.0, sigma_min=last, num_steps=200,
        model_args=(data,), model_kwargs={"noise": noise},
    )  # fmt: skip
    forward, steps = levy.matrix("imputation"), levels(100.0, last, 200)
    mean, _, log_evidence = posterior_of_the_steps(root @ root.T, steps, forward, float(noise), np.asarray(data, float))
    assert_agree(z_scores(found, "signal", lambda x: x, mean, log_evidence))
    assert np.min(found.effective_sample_size) > 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:twisted_smc. at some noise level")
def test_inside_jit(key):
    """The same numbers, with the data traced."""
    given = {"num_particles": 4, "sigma_max": FIRST, "sigma_min": LAST, "num_steps": 3}

    def run(data):
        return twisted_smc(model, linear, rng_key=key, model_args=(data,), **given).log_evidence

    data = jnp.asarray(DATA)
    np.testing.assert_allclose(jax.jit(run)(data), run(data), rtol=1e-5)


@pytest.mark.slow
def test_few_effective_particles_are_told(key):
    """Precise data, and steps that are too long for them."""
    forward = np.eye(20)
    with pytest.warns(UserWarning, match=r"twisted_smc: at some noise level only .* of 200 particles were effective"):
        twisted_smc(
            model, lambda x, sigma: x / (1 + sigma**2), rng_key=key, num_particles=200, sigma_max=FIRST,
            sigma_min=LAST, num_steps=4, model_args=(jnp.ones(20),), model_kwargs={"forward": forward},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"num_particles": 1}, ValueError, "twisted_smc: `num_particles`"),
        ({"num_steps": 1}, ValueError, "twisted_smc: `num_steps`"),
        ({"sigma_min": 30.0}, ValueError, "twisted_smc: `sigma_min` must be below"),
        ({"num_chains": 0}, ValueError, "twisted_smc: `num_chains`"),
        ({"denoiser": 3}, TypeError, "twisted_smc: `denoiser`"),
        ({"denoiser": lambda x, sigma: x[:1]}, ValueError, "twisted_smc"),
        ({"denoiser": lambda x, sigma: jnp.nan * x}, RuntimeError, "twisted_smc: draws are not finite"),
        ({"model": 3}, TypeError, "twisted_smc: `model`"),
        ({"rng_key": 3}, TypeError, "twisted_smc: `rng_key`"),
    ],
)
def test_bad_input(given, error, message, key):
    usual = {
        "model": model,
        "denoiser": linear,
        "rng_key": key,
        "num_particles": 4,
        "sigma_max": FIRST,
        "sigma_min": LAST,
        "num_steps": 3,
    }
    given = usual | given
    with pytest.raises(error, match=message):
        twisted_smc(given.pop("model"), given.pop("denoiser"), model_args=(jnp.asarray(DATA),), **given)
