"""Guided reverse diffusion: its law for a Gaussian prior without Monte Carlo, its draws, and what it refuses."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_inverse as ni
from numpyro_inverse.infer import diffusion_posterior, dps
from numpyro_inverse.infer.denoising._diffusion_posterior import dps_score, moment_matched_score
from numpyro_inverse.infer.denoising._reverse_diffusion import noise_levels, reverse_step
from numpyro_inverse.infer.exact._affine import Affine
from tests.infer._laws import assert_agree

N, M, NOISE, FIRST, LAST = 32, 12, 0.3, 80.0, 2e-3


def problem(noise=NOISE):
    """A smooth Gaussian prior's covariance, blurred samples in units of the noise, data: 32 values, 12 data."""
    j = np.arange(N)
    covariance = np.exp(-np.abs(j[:, None] - j) / 6.0)
    forward = np.exp(-0.5 * ((np.linspace(1, N - 2, M)[:, None] - j) / 1.5) ** 2)
    forward /= forward.sum(axis=1, keepdims=True) * noise
    rng = np.random.default_rng(0)
    data = forward @ np.linalg.cholesky(covariance) @ rng.normal(size=N) + rng.normal(size=M)
    return covariance, forward, data


def exact(covariance, forward, data):
    found = np.linalg.inv(np.linalg.inv(covariance) + forward.T @ forward)
    return found @ forward.T @ data, found


def law_of_the_draws(score, steps, noise=NOISE):
    """Mean and covariance of the draws, from the steps themselves: each is affine in x and in its noise."""
    covariance, forward, data = problem(noise)
    affine = Affine(jnp.asarray(data), lambda x: jnp.asarray(forward) @ x, lambda y: jnp.asarray(forward).T @ y)
    values, vectors = np.linalg.eigh(covariance)

    def denoise(x, sigma):
        return vectors @ (values / (values + sigma**2) * (vectors.T @ x))

    def step(law, levels):
        mean, spread = law
        sigma, after = levels
        zero = jnp.zeros(N)

        def move(x, noise):
            return reverse_step(score(affine, denoise, x, sigma), x, noise, sigma, after)

        pushed = move(mean, zero)
        by_x, by_noise = jax.jacfwd(move, (0, 1))(mean, zero)
        return (pushed, by_x @ spread @ by_x.T + by_noise @ by_noise.T), None

    levels = noise_levels(FIRST, LAST, steps)
    start = jnp.zeros(N), FIRST**2 * jnp.eye(N)
    return map(np.asarray, jax.jit(lambda: jax.lax.scan(step, start, (levels[:-1], levels[1:]))[0])())


def recursion(steps):
    """The same by hand: score F x + g, T = I + h F, m <- T m + h g, V <- T V T' + h I, all in float64 and NumPy."""
    covariance, forward, data = problem()
    levels = (FIRST ** (1 / 7) + np.linspace(0, 1, steps + 1) * (LAST ** (1 / 7) - FIRST ** (1 / 7))) ** 7
    mean, spread = np.zeros(N), FIRST**2 * np.eye(N)
    for sigma, after in itertools.pairwise(levels):
        h = sigma**2 - after**2
        w = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(N))
        gain = w.T @ forward.T @ np.linalg.inv(np.eye(M) + sigma**2 * forward @ w @ forward.T)
        f = (w - np.eye(N)) / sigma**2 - gain @ forward @ w
        t = np.eye(N) + h * f
        mean, spread = t @ mean + h * gain @ data, t @ spread @ t.T + h * np.eye(N)
    return mean, spread


def relative(spread, covariance):
    """Eigenvalues of one covariance relative to another."""
    root = np.linalg.cholesky(covariance)
    half = np.linalg.solve(root, spread)
    return np.linalg.eigvalsh(np.linalg.solve(root, half.T))


def test_the_law_is_that_of_the_recursion(x64):
    """Rounding: 100 steps, condition 1e3 of the covariances."""
    mean, spread = law_of_the_draws(moment_matched_score, 100)
    expected = recursion(100)
    np.testing.assert_allclose(mean, expected[0], atol=1e-9)
    np.testing.assert_allclose(spread, expected[1], atol=1e-9)


def test_moment_matching_reaches_the_posterior_with_the_number_of_steps(x64):
    """12 % too wide with 100 steps, 1 % with 1,000: the error is of order 1 / steps."""
    mean, covariance = exact(*problem())
    excess = []
    for steps in (100, 1000):
        found, spread = law_of_the_draws(moment_matched_score, steps)
        values = relative(spread, covariance)
        excess.append(values.max() - 1)
        assert values.min() > 1
        np.testing.assert_allclose(found, mean, atol=1.5 / steps * np.sqrt(np.diagonal(covariance).max()))
    assert 0.08 < excess[0] < 0.15
    assert excess[0] / excess[1] == pytest.approx(10, rel=0.15)


def test_dps_does_not(x64):
    """Too narrow by a third and more in some direction, however many steps."""
    mean, covariance = exact(*problem())
    found, spread = law_of_the_draws(dps_score, 1000)
    assert relative(spread, covariance).min() < 0.67
    assert np.max(np.abs(found - mean) / np.sqrt(np.diagonal(covariance))) > 0.05


def model(data=None, forward=None, noise=NOISE):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), (N,)))
    numpyro.sample("data", dist.Normal(forward @ x, noise).to_event(1), obs=data)


def linear_denoiser():
    values, vectors = np.linalg.eigh(problem()[0])
    return lambda x, sigma: vectors.astype(x.dtype) @ (values / (values + sigma**2) * (vectors.T.astype(x.dtype) @ x))


@pytest.mark.slow
def test_draws_have_that_law_and_go_to_arviz(x64, key):
    """Means and variances of 2,000 draws of a model with its noise in it, 64 z together."""
    _, forward, data = problem()
    draws = diffusion_posterior(
        model, linear_denoiser(), rng_key=key, num_samples=500, num_chains=4, sigma_max=FIRST, sigma_min=LAST,
        num_steps=100, model_args=(jnp.asarray(data * NOISE), jnp.asarray(forward * NOISE)),
    )  # fmt: skip
    mean, spread = recursion(100)
    x = np.asarray(draws["x"]).reshape(-1, N)
    variance = np.diagonal(spread)
    z = (x.mean(0) - mean) / np.sqrt(variance / len(x))
    assert_agree(np.concatenate([z, (((x - mean) ** 2).mean(0) / variance - 1) / np.sqrt(2 / len(x))]))
    tree = ni.to_arviz(draws)
    assert dict(tree["posterior"].sizes) == {"chain": 4, "draw": 500, "x_dim_0": N}


def test_bad_weight():
    with pytest.raises(ValueError, match="dps: `weight`"):
        dps(model, lambda x, s: x, rng_key=jax.random.key(0), num_samples=1, sigma_max=1.0, sigma_min=0.1, weight=0.0)


@pytest.mark.parametrize("sampler", [diffusion_posterior, dps])
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"denoiser": 1.0}, TypeError, "`denoiser`"),
        ({"rng_key": 0}, TypeError, "`rng_key`"),
        ({"num_samples": 0}, ValueError, "`num_samples`"),
        ({"num_steps": 0}, ValueError, "`num_steps`"),
        ({"sigma_max": -1.0}, ValueError, "`sigma_max`"),
        ({"sigma_min": 0.0}, ValueError, "`sigma_min`"),
        ({"sigma_min": 100.0}, ValueError, "`sigma_min` must be below"),
        ({"denoiser": lambda x, sigma: x[:2]}, ValueError, "must return an array of the shape of `x`"),
        ({"denoiser": lambda x, sigma: x * jnp.nan}, RuntimeError, "not finite"),
    ],
    ids=["denoiser", "key", "samples", "steps", "first", "last", "order", "shape", "nan"],
)
def test_bad_arguments(sampler, changed, error, message):
    _, forward, data = problem()
    arguments = {
        "model": partial(model, forward=jnp.asarray(forward, jnp.float32)),
        "denoiser": linear_denoiser(),
        "rng_key": jax.random.key(0),
        "num_samples": 1,
        "num_steps": 2,
        "sigma_max": FIRST,
        "sigma_min": LAST,
        "model_args": (jnp.asarray(data, jnp.float32),),
    }
    with pytest.raises(error, match=f"{sampler.__name__}.*{message}"):
        sampler(**(arguments | changed))
