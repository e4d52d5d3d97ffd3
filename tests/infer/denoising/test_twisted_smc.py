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


def levels(steps=STEPS):
    return np.asarray(noise_levels(FIRST, LAST, steps), float)


def prior_of_the_steps():
    """The covariance of the last state of the reverse diffusion."""
    spread = FIRST**2 * np.eye(3)
    for sigma, after in itertools.pairwise(levels()):
        h = sigma**2 - after**2
        step = np.eye(3) - h * np.linalg.inv(COVARIANCE + sigma**2 * np.eye(3))
        spread = step @ spread @ step.T + h * np.eye(3)
    return spread


def z_scores(found, site, statistics, expected, log_evidence):
    """Of the evidence, and of the evidence times each statistic's average over a chain, in their Monte Carlo errors."""
    ratio = np.exp(np.asarray(found.log_evidence, float) - log_evidence)[:, None]
    averages = np.mean(statistics(np.asarray(found.samples[site], float)), axis=1)
    parts = np.concatenate([ratio - 1, ratio * (averages - expected)], axis=1)
    return parts.mean(0) / (parts.std(0, ddof=1) / np.sqrt(len(parts)))


@pytest.mark.filterwarnings("ignore:twisted_smc. at some noise level")
def test_unbiased_for_a_gaussian_prior(x64, key):
    """1,000 chains of eight particles: evidence, means and second moments (false alarm of ``assert_agree``: 1e-5)."""
    prior = prior_of_the_steps()
    marginal = FORWARD @ prior @ FORWARD.T + NOISE**2 * np.eye(2)
    gain = prior @ FORWARD.T @ np.linalg.inv(marginal)
    mean, covariance = gain @ DATA, prior - gain @ FORWARD @ prior
    found = twisted_smc(
        model, linear, rng_key=key, num_particles=8, num_chains=1000, sigma_max=FIRST, sigma_min=LAST,
        num_steps=STEPS, model_args=(jnp.asarray(DATA),),
    )  # fmt: skip
    upper = np.triu_indices(3)

    def moments(x):
        second = (x[..., :, None] * x[..., None, :])[..., upper[0], upper[1]]
        return np.concatenate([x, second], axis=-1)

    expected = np.concatenate([mean, (covariance + np.outer(mean, mean))[upper]])
    assert_agree(z_scores(found, "x", moments, expected, multivariate_normal(np.zeros(2), marginal).logpdf(DATA)))
    assert found.effective_sample_size.shape == (1000, STEPS)
    assert np.all((found.effective_sample_size >= 1 - 1e-9) & (found.effective_sample_size <= 8 + 1e-9))


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


@pytest.mark.filterwarnings("ignore:twisted_smc. at some noise level")
def test_unbiased_for_a_mixture(x64, key):
    """One datum between two modes; 2,000 chains of four particles against quadrature of the 24 steps themselves.

    Guided diffusion without the weights is wrong by 0.1 in the mode's probability, as a second comparison tells.
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


def test_many_particles_make_one_chain_exact(key):
    """Single precision, one chain: the evidence of the prior that the denoiser stands for, to the steps' error."""
    found = twisted_smc(
        model, linear, rng_key=key, num_particles=2000, sigma_max=FIRST, sigma_min=LAST, num_steps=200,
        model_args=(jnp.asarray(DATA),),
    )  # fmt: skip
    marginal = FORWARD @ (COVARIANCE + LAST**2 * np.eye(3)) @ FORWARD.T + NOISE**2 * np.eye(2)
    exact = multivariate_normal(np.zeros(2), marginal).logpdf(DATA)
    assert float(found.log_evidence[0]) == pytest.approx(exact, abs=0.1)
    tree = ni.to_arviz(found.samples)
    assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 2000, "x_dim_0": 3}


@pytest.mark.slow
def test_sixty_four_values(key):
    """Forty data; the evidence to the 400 steps' error and the particles', means to a tenth of their spread."""
    _, data, noise = levy.simulate(jax.random.key(7), law="gauss", operator="imputation")
    root = 0.5 * np.tril(np.ones((levy.LENGTH, levy.LENGTH)))
    found = twisted_smc(
        partial(levy.likelihood, operator="imputation"), GaussianDenoiser(np.zeros(levy.LENGTH), root @ root.T),
        rng_key=key, num_particles=200, num_chains=2, sigma_max=100.0, sigma_min=float(noise) / 20, num_steps=400,
        model_args=(data,), model_kwargs={"noise": noise},
    )  # fmt: skip
    forward = levy.matrix("imputation") @ root
    marginal = multivariate_normal(np.zeros(40), forward @ forward.T + float(noise) ** 2 * np.eye(40))
    exact = levy.exact_posterior(data, operator="imputation", noise=noise)
    np.testing.assert_allclose(found.log_evidence, marginal.logpdf(np.asarray(data)), atol=0.5)
    x = np.asarray(found.samples["signal"]).reshape(-1, levy.LENGTH)
    away = (x.mean(0) - exact.mean) / np.sqrt(np.diagonal(exact.covariance))
    assert np.sqrt(np.mean(away**2)) < 0.15
    assert np.min(found.effective_sample_size) > 60


@pytest.mark.filterwarnings("ignore:twisted_smc. at some noise level")
def test_inside_jit(key):
    """The same numbers, with the data traced."""
    given = {"num_particles": 4, "sigma_max": FIRST, "sigma_min": LAST, "num_steps": 3}

    def run(data):
        return twisted_smc(model, linear, rng_key=key, model_args=(data,), **given).log_evidence

    data = jnp.asarray(DATA)
    np.testing.assert_allclose(jax.jit(run)(data), run(data), rtol=1e-5)


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
