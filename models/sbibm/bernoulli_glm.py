r"""A neuron's filter from the spikes that a known stimulus evokes, by sufficient statistics.

:What: spikes :math:`y_t \sim \mathrm{Bernoulli}(\sigma(X \theta)_t)` in 100 bins of time,
    :math:`\theta = (\beta, f)`: an offset and a filter of length 9. X has a column of ones, then the stimulus, white
    noise, delayed by 0, ..., 8 bins.
:Dimension: 10 unknowns, 10 data.
:Prior: :math:`\beta \sim N(0, 2)`, :math:`f \sim N(0, (F^T F)^{-1})`,
    :math:`F = D^2 + \mathrm{diag}(\sqrt{(i - 1) / 9})`, D the differences of first order: a smooth filter that ends
    at zero.
:Likelihood: of :math:`x = X^T y`, the number of spikes and the stimulus' sum before them, which are sufficient.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: draws of sbibm, by Pólya-Gamma Gibbs.
:Source: P. J. Gonçalves et al., eLife 9 (2020) e56261; sbibm 1.1.0 (MIT, ``models/data/README.md``). Its stimulus is
    NumPy's ``RandomState(42)``, here again.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.sbibm import _published
from numpyro_inverse.distributions import Simulator

BINS, FILTER = 100, 9


def model(x=None):
    """The NumPyro model: sites ``theta`` and ``x``, shape (10,)."""
    theta = numpyro.sample("theta", prior())
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1), obs=x)


def prior():
    """The law of the offset and the filter."""
    root = np.linalg.cholesky(np.linalg.inv(prior_precision()))
    return dist.MultivariateNormal(jnp.zeros(1 + FILTER), scale_tril=jnp.asarray(root, float))


def simulate(rng_key, theta):
    """Data at one parameter."""
    spikes = jax.random.bernoulli(rng_key, jax.nn.sigmoid(logits(theta)))
    return jnp.asarray(design(), theta.dtype).T @ spikes.astype(theta.dtype)


def log_likelihood(theta, x):
    r"""Log probability of the data at one parameter, :math:`\theta^T x - \sum_t \log(1 + e^{(X \theta)_t})`.

    Two trains of spikes with the same x would add a term that depends on x alone; with this stimulus there are none.
    """
    return theta @ x - jnp.sum(jax.nn.softplus(logits(theta)))


def logits(theta):
    """Log odds of a spike in each bin."""
    return jnp.matmul(jnp.asarray(design(), theta.dtype), theta, precision="highest")


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("bernoulli_glm", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("bernoulli_glm", "true_parameters", k)


@cache
def design():
    """X, (100, 10), float64."""
    stimulus = np.random.RandomState(42).randn(BINS)  # the benchmark's own numbers
    columns = [np.concatenate([np.zeros(delay), stimulus[: BINS - delay]]) for delay in range(FILTER)]
    return np.stack([np.ones(BINS), *columns], axis=1)


@cache
def prior_precision():
    """(10, 10), float64."""
    differences = np.eye(FILTER) - np.eye(FILTER, k=-1)
    smooth = differences @ differences + np.diag(np.sqrt(np.arange(FILTER) / FILTER))
    precision = np.zeros((1 + FILTER, 1 + FILTER))
    precision[0, 0] = 0.5
    precision[1:, 1:] = smooth.T @ smooth
    return precision
