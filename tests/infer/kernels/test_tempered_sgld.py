"""Noisy gradient descent: the heat of its batches, and what it refuses. With full gradients: test_gaussian_law.py."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from numpyro_inverse.infer import TemperedSGLD
from tests.infer._laws import assert_agree, linear_chain_z, run

HESSIAN = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 5.0]], np.float32)


def _quadratic(x):
    return 0.5 * x @ HESSIAN @ x


def test_noise_and_temperature():
    kernel = TemperedSGLD(potential_fn=_quadratic, step_size=0.02, temperature=4.0)
    assert kernel.noise_scale == pytest.approx(0.4)
    assert kernel.temperature == pytest.approx(kernel.noise_scale**2 / (2 * 0.02))


COUNT, BATCH, ETA = 20, 4, 0.04


def _batch_law(fresh):
    """Posterior mean, and variance of SGLD on the mean of COUNT numbers with N(0, 1) noise and a N(0, 1) prior."""
    y = np.random.default_rng(0).normal(2.0, 3.0, COUNT)
    h = COUNT + 1
    noise = COUNT**2 * y.var(ddof=1) / BATCH * (1 - BATCH / COUNT) if fresh else 0.0
    return y, y.sum() / h, (2 + ETA * noise) / (h * (2 - ETA * h))


def _batch_z(key, fresh):
    y, mean, variance = _batch_law(fresh)

    def model(y):
        x = numpyro.sample("x", dist.Normal())
        with numpyro.plate("data", COUNT, subsample_size=BATCH):
            numpyro.sample("y", dist.Normal(x), obs=numpyro.subsample(y, 0))

    mcmc = MCMC(TemperedSGLD(model, step_size=ETA), num_warmup=200, num_samples=40_000, progress_bar=False)
    mcmc.run(key, jnp.asarray(y, jnp.float32))
    draws = np.asarray(mcmc.get_samples()["x"], float)[:, None] - mean
    return linear_chain_z(draws, np.array([variance]), np.array([1 - ETA * (COUNT + 1)]))


@pytest.mark.slow
def test_fresh_batches(key):
    # The heat of batches drawn afresh for every gradient, without replacement. The batches' noise has
    # lighter tails than a Gaussian (20 numbers), so the standard errors are too wide. False-alarm rate at most 1e-5.
    assert_agree(_batch_z(key, fresh=True))
    assert np.max(np.abs(_batch_z(key, fresh=False))) > 10


def test_bad_parameters():
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        TemperedSGLD(potential_fn=_quadratic, step_size=0.5, temperature=0.0)


def test_an_unstable_step_raises(key):
    with pytest.raises(Exception, match=r"(?s)TemperedSGLD: unstable at iteration \d+"):
        jax.block_until_ready(run(TemperedSGLD(potential_fn=_quadratic, step_size=0.8), key, 3, 0, 600, 1))
