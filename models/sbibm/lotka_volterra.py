r"""Predators and prey: four rates from ten counts of each.

:What: :math:`\dot X = \alpha X - \beta X Y`, :math:`\dot Y = -\gamma Y + \delta X Y`, (X, Y)(0) = (30, 1).
:Dimension: 4 unknowns, :math:`\theta = (\alpha, \beta, \gamma, \delta)`; 20 data, the prey's ten first.
:Prior: :math:`\log \alpha, \log \gamma \sim N(-0.125, 0.5^2)`, :math:`\log \beta, \log \delta \sim N(-3, 0.5^2)`.
:Likelihood: :math:`\log x_i \sim N(\log X(t_i), 0.1^2)`, :math:`t_i = 0, 2.1, \dots, 18.9`, and so for Y, independent.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: draws of sbibm.
:Source: J.-M. Lueckmann et al., AISTATS 2021, T.10; sbibm 1.1.0 (MIT, ``models/data/README.md``).

The equations are solved for the logarithms, which stay exact to rounding where a population nearly dies out.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models._ode import solve
from models.sbibm import _published
from numpyro_inverse.distributions import Simulator

START = np.array([30.0, 1.0])
TIMES = 2.1 * np.arange(10)
NOISE = 0.1
LOG_RATES = np.array([-0.125, -3.0, -0.125, -3.0])
SPREAD = 0.5


def model(x=None):
    """The NumPyro model: sites ``theta``, shape (4,), and ``x``, shape (20,), both positive."""
    theta = numpyro.sample("theta", dist.LogNormal(LOG_RATES, SPREAD).to_event(1))
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1, support=constraints.positive), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    return _law(theta).sample(rng_key)


def log_likelihood(theta, x):
    """Log density of the data at one parameter."""
    return jnp.sum(_law(theta).log_prob(x))


def log_populations(theta, log_start, times):
    """Logarithms of X and Y at given times, shape (len(times), 2)."""
    return solve(_field, log_start, times, theta)


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("lotka_volterra", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("lotka_volterra", "true_parameters", k)


def _law(theta):
    return dist.LogNormal(log_populations(theta, np.log(START), TIMES).T.ravel(), NOISE)


def _field(z, theta):
    growth, predation, death, reproduction = theta
    prey, predators = jnp.exp(jnp.minimum(z, 20.0))  # trial steps that go too far must not overflow
    return jnp.stack([growth - predation * predators, reproduction * prey - death])
