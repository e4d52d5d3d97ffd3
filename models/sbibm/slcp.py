r"""Simple likelihood, complex posterior: four draws of a normal law of the plane with five parameters.

:What: four points of :math:`N(m, S)`, :math:`m = (\theta_1, \theta_2)`,
    :math:`S = \begin{pmatrix} s_1^2 & c s_1 s_2 \\ c s_1 s_2 & s_2^2 \end{pmatrix} + 10^{-6} I`,
    :math:`s_1 = \theta_3^2`, :math:`s_2 = \theta_4^2`, :math:`c = \tanh \theta_5`.
:Dimension: 5 unknowns, 8 data, [point, coordinate] in one row.
:Prior: uniform on :math:`[-3, 3]^5`.
:Likelihood: the normal law above; the signs of :math:`\theta_3` and :math:`\theta_4` do not matter, so there are four
    modes.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: draws of sbibm.
:Source: G. Papamakarios, D. C. Sterratt and I. Murray, AISTATS 2019; sbibm 1.1.0 (MIT, ``models/data/README.md``).
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.sbibm import _published
from numpyro_inverse.distributions import Simulator

POINTS = 4
JITTER = 1e-6


def model(x=None):
    """The NumPyro model: sites ``theta``, shape (5,), and ``x``, shape (8,)."""
    theta = numpyro.sample("theta", dist.Uniform(-3.0, 3.0).expand((5,)).to_event(1))
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    first, _, shared, determinant = _covariance(theta)
    noise = jax.random.normal(rng_key, (POINTS, 2))
    horizontal = jnp.sqrt(first) * noise[:, 0]
    vertical = (shared * noise[:, 0] + jnp.sqrt(determinant) * noise[:, 1]) / jnp.sqrt(first)
    return (theta[:2] + jnp.stack([horizontal, vertical], axis=1)).ravel()


def log_likelihood(theta, x):
    """Log density of the data at one parameter."""
    first, second, shared, determinant = _covariance(theta)
    right, up = (x.reshape(POINTS, 2) - theta[:2]).T
    squares = (second * right**2 - 2 * shared * right * up + first * up**2) / determinant
    return jnp.sum(-0.5 * squares - 0.5 * jnp.log(determinant) - jnp.log(2 * jnp.pi))


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("slcp", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("slcp", "true_parameters", k)


def _covariance(theta):
    """The two variances, the covariance, and the determinant as a sum of positive terms."""
    s, t = theta[2] ** 2, theta[3] ** 2
    determinant = (s * t / jnp.cosh(theta[4])) ** 2 + JITTER * (s**2 + t**2) + JITTER**2
    return s**2 + JITTER, t**2 + JITTER, jnp.tanh(theta[4]) * s * t, determinant
