r"""The problem of :mod:`models.sbibm.bernoulli_glm` from the spikes themselves.

:What: as there; the data are the 100 spikes, 0 or 1.
:Dimension: 10 unknowns, 100 data.
:Prior: as there.
:Likelihood: :math:`y_t \sim \mathrm{Bernoulli}(\sigma(X \theta)_t)`, independent.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5: those of :mod:`models.sbibm.bernoulli_glm`.
:Reference posterior: as there, for the statistics are sufficient.
:Source: as there.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models.sbibm import _published
from models.sbibm.bernoulli_glm import logits, prior
from models.sbibm.bernoulli_glm import true_parameters as true_parameters
from numpyro_inverse.distributions import Simulator


def model(x=None):
    """The NumPyro model: sites ``theta``, shape (10,), and ``x``, shape (100,)."""
    theta = numpyro.sample("theta", prior())
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1, support=constraints.boolean), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    return jax.random.bernoulli(rng_key, jax.nn.sigmoid(logits(theta))).astype(int)


def log_likelihood(theta, x):
    """Log probability of the data at one parameter."""
    return jnp.sum(dist.Bernoulli(logits=logits(theta)).log_prob(x))


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("bernoulli_glm_raw", "observations", k)
