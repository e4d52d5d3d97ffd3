r"""An epidemic: rates of contact and recovery from ten small surveys.

:What: :math:`\dot S = -\beta S I / N`, :math:`\dot I = \beta S I / N - \gamma I`, :math:`\dot R = \gamma I`;
    N = 1,000,000, one infected at time 0, none recovered; 160 days.
:Dimension: 2 unknowns, :math:`\theta = (\beta, \gamma)`, per day; 10 data.
:Prior: :math:`\log \beta \sim N(\log 0.4, 0.5^2)`, :math:`\log \gamma \sim N(\log 0.125, 0.2^2)`.
:Likelihood: :math:`x_i \sim \mathrm{Binomial}(1000, I(t_i) / N)`, :math:`t_i = 0, 17, \dots, 153`, independent.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: draws of sbibm.
:Source: J.-M. Lueckmann et al., AISTATS 2021, T.9; sbibm 1.1.0 (MIT, ``models/data/README.md``).

The equations are solved for log(S/N) and log(I/N), which stay exact to rounding where I is one in a million.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models._ode import solve
from models.sbibm import _published
from numpyro_inverse.distributions import Simulator

POPULATION, TESTED = 1_000_000, 1_000
TIMES = 17.0 * np.arange(10)  # days
LOG_RATES = np.log([0.4, 0.125])
SPREADS = np.array([0.5, 0.2])


def model(x=None):
    """The NumPyro model: sites ``theta``, shape (2,), positive, and ``x``, shape (10,), of counts."""
    theta = numpyro.sample("theta", dist.LogNormal(LOG_RATES, SPREADS).to_event(1))
    support = constraints.integer_interval(0, TESTED)
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1, support=support), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    return dist.Binomial(TESTED, probs=infected(theta)).sample(rng_key)


def log_likelihood(theta, x):
    """Log probability of the data at one parameter."""
    return jnp.sum(dist.Binomial(TESTED, probs=infected(theta)).log_prob(x))


def infected(theta):
    """I / N at the ten times."""
    return jnp.exp(jnp.minimum(solve(_field, np.log([1 - 1 / POPULATION, 1 / POPULATION]), TIMES, theta)[:, 1], 0.0))


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("sir", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("sir", "true_parameters", k)


def _field(z, theta):
    return jnp.stack([-theta[0] * jnp.exp(z[1]), theta[0] * jnp.exp(z[0]) - theta[1]])
