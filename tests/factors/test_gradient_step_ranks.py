"""NUTS under the prior of a gradient-step denoiser: ranks of the truth among posterior draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from numpyro_inverse.calibration import sbc
from numpyro_inverse.denoisers import ConvolutionalNetwork, GradientStepDenoiser
from numpyro_inverse.distributions import Energy
from numpyro_inverse.factors import GradientStep

SHAPE = (4, 4)
NETWORK = GradientStepDenoiser(ConvolutionalNetwork(width=8, depth=3, key=jax.random.key(3)))
PRIOR = GradientStep(NETWORK, sigma=0.1, strength=0.3)


def energy(x):
    """The denoiser's potential, which leaves a constant free, held by a normal law."""
    return PRIOR.energy(x) + 0.5 * jnp.sum(((x - 0.5) / 0.3) ** 2)


class Drawn(Energy):
    """The same law with draws that a long run has made, so that data can be simulated."""

    pytree_data_fields = (*Energy.pytree_data_fields, "draws")

    def __init__(self, potential, draws):
        self.draws = draws
        super().__init__(potential, SHAPE)

    def sample(self, key, sample_shape=()):
        return self.draws[jax.random.randint(key, sample_shape, 0, len(self.draws))]


def problem(draws, potential=energy):
    def model(data=None):
        image = numpyro.sample("image", Drawn(potential, draws))
        numpyro.sample("data", dist.Normal(image[::2], 0.2).to_event(2), obs=data)

    return model


def prior_draws():
    """4,000 of 200 chains, ten moves apart."""
    kernel = NUTS(lambda: numpyro.sample("image", Energy(energy, SHAPE)))
    mcmc = MCMC(
        kernel,
        num_warmup=300,
        num_samples=200,
        thinning=10,
        num_chains=200,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0))
    return mcmc.get_samples()["image"]


@pytest.mark.statistical
def test_ranks():
    """Uniform for the potential, at a false-alarm rate of 1e-4; not for one of another strength."""
    draws = prior_draws()
    options = {"rng_key": jax.random.key(1), "num_datasets": 300, "num_draws": 49, "progress_bar": False}
    right = sbc(problem(draws), NUTS(problem(draws)), **options)
    assert right.p_value > 1e-4, right.table
    wrong = problem(draws, lambda x: 3 * energy(x))
    assert sbc(problem(draws), NUTS(wrong), **options).p_value < 1e-6


def test_the_prior_is_not_gaussian():
    """Else the test of ranks would be one of something simpler: its Hessian differs from place to place."""
    hessian = jax.jit(jax.hessian(lambda x: PRIOR.energy(x.reshape(SHAPE))))
    at = np.random.default_rng(0).normal(0.5, 0.3, (2, 16)).astype(np.float32)
    first, second = hessian(at[0]), hessian(at[1])
    assert np.linalg.norm(first - second) > 0.1 * np.linalg.norm(first)
    np.testing.assert_allclose(first, first.T, atol=1e-3 * np.max(np.abs(first)))
