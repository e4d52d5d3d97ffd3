"""Lipschitz constants and the step sizes derived from them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from numpyro_inverse.factors import RED
from numpyro_inverse.infer import ULA, lipschitz_constant, suggest_step_size

MATRIX = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)


def model(y=None):
    x = numpyro.sample("x", dist.Normal(0, 2).expand([8]).to_event(1))
    numpyro.sample("y", dist.Normal(MATRIX @ x, 0.5).to_event(1), obs=y)


EXACT = np.linalg.eigvalsh(MATRIX.T @ MATRIX / 0.25 + np.eye(8) / 4)[-1]


@pytest.mark.slow
def test_suggested_step_is_stable_and_a_fraction_of_the_limit(key):
    # 2 / L of a Gaussian posterior, whose L is an eigenvalue.
    delta = suggest_step_size(model, key, model_kwargs={"y": jnp.ones(12)}, safety=0.9, num_warmup=50)
    assert delta == pytest.approx(0.9 * 2 / EXACT, rel=5e-3)
    mcmc = MCMC(ULA(model, step_size=delta), num_warmup=0, num_samples=1000, progress_bar=False)
    mcmc.run(key, y=jnp.ones(12))
    assert np.all(np.isfinite(mcmc.get_samples()["x"]))
    mcmc = MCMC(ULA(model, step_size=1.2 * delta), num_warmup=0, num_samples=1000, progress_bar=False)
    with pytest.raises(Exception, match="unstable at iteration"):  # noqa: PT012
        mcmc.run(key, y=jnp.ones(12))
        jax.block_until_ready(mcmc.get_samples())


@pytest.mark.slow
def test_a_model_without_a_density(key):
    # The prior's curvature is that of 1 - W, W = I / 2; there is no value of it that MALA could use.
    red = RED(lambda x, sigma: 0.5 * x, sigma=0.2)

    def without(y=None):
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (8,)))
        red("red", x)
        numpyro.sample("y", dist.Normal(MATRIX @ x, 0.5).to_event(1), obs=y)

    found = lipschitz_constant(without, key, model_kwargs={"y": jnp.ones(12)}, num_warmup=20)
    exact = np.linalg.eigvalsh(MATRIX.T @ MATRIX / 0.25)[-1] + 0.5 / 0.2**2
    assert found == pytest.approx(exact, rel=1e-3)


def test_bad_parameters(key):
    for safety in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="`safety`"):
            suggest_step_size(model, key, model_args=(jnp.ones(12),), safety=safety)
    with pytest.raises(ValueError, match="`num_points` must be a positive integer"):
        lipschitz_constant(model, key, model_args=(jnp.ones(12),), num_points=0)
    with pytest.raises(TypeError, match="`rng_key` must be a random key"):
        lipschitz_constant(model, 0, model_args=(jnp.ones(12),))


@pytest.mark.slow
def test_a_model_whose_arguments_have_our_names(key):
    # The model's `num_points` is its own.
    def named(num_points, safety):
        numpyro.sample("x", dist.Normal(0, safety).expand([num_points]).to_event(1))

    found = lipschitz_constant(named, key, model_kwargs={"num_points": 3, "safety": 0.5}, num_warmup=20)
    assert found == pytest.approx(4, rel=1e-4)
