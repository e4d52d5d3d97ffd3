r"""Two moons: a posterior of two crescents, each as thin as the noise.

:What: :math:`x = (r \cos a + 0.25, r \sin a) + (-|\theta_1 + \theta_2|, -\theta_1 + \theta_2) / \sqrt 2`.
:Dimension: 2 unknowns, 2 data.
:Prior: uniform on :math:`[-1, 1]^2`.
:Likelihood: the law of x for :math:`a \sim U(-\pi/2, \pi/2)`, :math:`r \sim N(0.1, 0.01^2)`. In polar coordinates about
    the shifted center the angle has the density :math:`1 / \pi` and the radius a normal one; the Jacobian of polar
    coordinates, :math:`1 / \rho`, belongs to the density of x. Negative radii (ten standard deviations) are left out.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: draws of sbibm, exact. Its likelihood function lacks the Jacobian and they do not follow it.
:Source: D. S. Greenberg, M. Nonnenmacher and J. H. Macke, ICML 2019, appendix; sbibm 1.1.0 (MIT,
    ``models/data/README.md``).
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.sbibm import _published
from numpyro_inverse.distributions import Simulator

RADIUS, SPREAD = 0.1, 0.01


def model(x=None):
    """The NumPyro model: sites ``theta``, shape (2,), and ``x``, shape (2,)."""
    theta = numpyro.sample("theta", dist.Uniform(-1.0, 1.0).expand((2,)).to_event(1))
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    key_angle, key_radius = jax.random.split(rng_key)
    angle = jax.random.uniform(key_angle, minval=-jnp.pi / 2, maxval=jnp.pi / 2)
    radius = RADIUS + SPREAD * jax.random.normal(key_radius)
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)]) + _center(theta)


def log_likelihood(theta, x):
    """Log density of the data at one parameter."""
    right, up = x - _center(theta)
    radius = jnp.hypot(right, up)
    log_density = dist.Normal(RADIUS, SPREAD).log_prob(radius) - jnp.log(radius) - jnp.log(jnp.pi)
    return jnp.where(right > 0, log_density, -jnp.inf)


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("two_moons", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("two_moons", "true_parameters", k)


def _center(theta):
    return jnp.stack([0.25 - jnp.abs(theta[0] + theta[1]) / jnp.sqrt(2.0), (theta[1] - theta[0]) / jnp.sqrt(2.0)])
