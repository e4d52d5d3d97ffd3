r"""The mean of a normal law with a normal prior: everything in closed form.

:What: :math:`x = \theta + \epsilon`.
:Dimension: 10 unknowns, 10 data.
:Prior: :math:`\theta \sim N(0, 0.1\, I)`.
:Likelihood: :math:`x \mid \theta \sim N(\theta, 0.1\, I)`. Both 0.1 are variances (sbibm calls them scales).
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: :func:`exact_posterior`, :math:`N(x / 2, 0.05\, I)`; evidence :math:`N(x; 0, 0.2\, I)`.
:Source: J.-M. Lueckmann et al., AISTATS 2021, T.1; sbibm 1.1.0 (MIT, ``models/data/README.md``).
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.sbibm import _published
from numpyro_inverse.distributions import Simulator

DIMENSION = 10
VARIANCE = 0.1


def model(x=None):
    """The NumPyro model: sites ``theta`` and ``x``, shape (10,)."""
    theta = numpyro.sample("theta", dist.Normal(0.0, VARIANCE**0.5).expand((DIMENSION,)).to_event(1))
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    return theta + VARIANCE**0.5 * jax.random.normal(rng_key, theta.shape)


def log_likelihood(theta, x):
    """Log density of the data at one parameter."""
    return jnp.sum(dist.Normal(theta, VARIANCE**0.5).log_prob(x))


def exact_posterior(x):
    """Mean, covariance and log evidence, float64."""
    x = np.asarray(x, float)
    log_evidence = -0.5 * (x @ x) / (2 * VARIANCE) - 0.5 * DIMENSION * np.log(2 * np.pi * 2 * VARIANCE)
    return x / 2, VARIANCE / 2 * np.eye(DIMENSION), log_evidence


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("gaussian_linear", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("gaussian_linear", "true_parameters", k)
