"""Restoration: the posterior under a Gaussian prior in closed form, and what the denoiser's prior does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy

from models import restoration
from numpyro_inverse import nn, solvers

SHAPE = (16, 20)


def test_the_data_have_the_published_quality():
    truth, data = restoration.simulate(jax.random.key(0))
    assert abs(restoration.decibels(data, truth) - 20.80) < 0.02
    seen = restoration.inpainting()
    assert seen.out_shape[0] == np.sum(np.random.default_rng(0).random(restoration.SHAPE) < 0.5)


@pytest.mark.slow
def test_exact_posterior_is_where_the_model_is_stationary(x64):
    """The mean by a Newton step of the model's own potential, the standard deviation by its Hessian."""
    prior = restoration.gaussian_prior(SHAPE)
    _, data = restoration.simulate(jax.random.key(1), image=np.full(SHAPE, 0.4), noise=0.02)
    options = {"prior": prior, "shape": SHAPE, "noise": 0.02}
    start, unravel = ravel_pytree({"image": jnp.full(SHAPE, 0.5)})

    def energy(x):
        return potential_energy(restoration.model, (data,), options, unravel(x))

    hessian = jax.jit(jax.hessian(energy))(start)
    mean = start - jnp.linalg.solve(hessian, jax.grad(energy)(start))
    expected, sd = restoration.exact_posterior(data, noise=0.02)
    np.testing.assert_allclose(mean.reshape(SHAPE), expected, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(np.linalg.inv(hessian))).reshape(SHAPE), sd, rtol=1e-5)


@pytest.mark.slow
def test_plug_and_play_restores_the_photograph():
    """PnP-ADMM with the gradient-step denoiser, above the best of the peers in the notes (26.9 dB)."""
    truth, data = restoration.simulate(jax.random.key(0))
    term = solvers.LeastSquares(restoration.blur(), data, restoration.NOISE)
    denoiser = nn.load_pretrained("gradient_step_denoiser")
    found = solvers.pnp_admm(term, denoiser, data, sigma=0.05, step=0.05**2, max_steps=30)
    assert restoration.decibels(found.x, truth) > 27.5
