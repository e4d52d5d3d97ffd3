"""A linear-Gaussian model with its exact posterior, and wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

DRAWS = 99
rng = np.random.default_rng(9)
MATRIX = 0.4 * rng.normal(size=(6, 3)) + 0.8  # posterior correlations about -0.4
COVARIANCE = np.linalg.inv(MATRIX.T @ MATRIX + np.eye(3))
ROOT = np.linalg.cholesky(COVARIANCE)


def model(data=None):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([3]).to_event(1))
    numpyro.sample("data", dist.Normal(MATRIX @ x, 1.0).to_event(1), obs=data)


def exact(key, y, scale=1.0, shift=0.0, draws=DRAWS):
    mean = COVARIANCE @ (MATRIX.T @ y) + shift * np.sqrt(np.diag(COVARIANCE))
    return {"x": mean + scale * jax.random.normal(key, (draws, 3)) @ ROOT.T}


def narrow(key, y):
    return exact(key, y, scale=0.8)


def variance(key, y):
    return exact(key, y, scale=np.sqrt(0.8))


def shifted(key, y):
    return exact(key, y, shift=0.2)


def uncorrelated(key, y):
    mean = COVARIANCE @ (MATRIX.T @ y)
    return {"x": mean + np.sqrt(np.diag(COVARIANCE)) * jax.random.normal(key, (DRAWS, 3))}


def prior(key, y):
    return {"x": jax.random.normal(key, (DRAWS, 3))}


WRONG = {"narrow": narrow, "variance": variance, "shifted": shifted, "uncorrelated": uncorrelated, "prior": prior}


def nothing(key, y):
    return {"x": jnp.full((DRAWS, 3), jnp.nan)}
