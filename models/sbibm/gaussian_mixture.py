r"""The common mean of two normal laws, one wide and one narrow.

:What: :math:`x = \theta + s\, \epsilon`, s = 1 or 0.1 with probability 1/2 each, drawn anew for each x.
:Dimension: 2 unknowns, 2 data.
:Prior: uniform on :math:`[-10, 10]^2`.
:Likelihood: :math:`\tfrac12 N(\theta, I) + \tfrac12 N(\theta, 0.01\, I)`.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: the same mixture about x, truncated to the square; draws of sbibm. The figures first published for
    this task were made with one s for 1,000 simulations; those to compare with are the rerun's.
:Source: S. A. Sisson, Y. Fan and M. M. Tanaka, PNAS 104 (2007); sbibm 1.1.0 (MIT, ``models/data/README.md``).
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.sbibm import _published
from numpyro_inverse.distributions import Simulator

SCALES = (1.0, 0.1)


def model(x=None):
    """The NumPyro model: sites ``theta`` and ``x``, shape (2,)."""
    theta = numpyro.sample("theta", dist.Uniform(-10.0, 10.0).expand((2,)).to_event(1))
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    key_scale, key_noise = jax.random.split(rng_key)
    scale = jnp.where(jax.random.bernoulli(key_scale), *SCALES)
    return theta + scale * jax.random.normal(key_noise, theta.shape)


def log_likelihood(theta, x):
    """Log density of the data at one parameter."""
    each = jnp.stack([jnp.sum(dist.Normal(theta, scale).log_prob(x)) for scale in SCALES])
    return jax.nn.logsumexp(each) - jnp.log(2.0)


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("gaussian_mixture", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("gaussian_mixture", "true_parameters", k)
