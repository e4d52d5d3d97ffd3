r"""The rates of a predator-prey system from noisy populations: parameters of a system of ordinary equations.

:What: :math:`\dot x = \alpha x - \beta x y`, :math:`\dot y = -\gamma y + \delta x y` on [0, 4], from (1, 1).
:Dimension: the logarithms of :math:`(\alpha, \beta, \gamma, \delta)`; 2 x 20 data.
:Prior: each logarithm :math:`N(0, 1)`.
:Data: both populations at 20 equidistant times, noise 0.02, for (1.1, 0.8, 1.0, 0.9).
:Likelihood: normal.
:Reference posterior: that of the solution by diffrax, :func:`solve`.
:Source: after A. J. Lotka, Elements of Physical Biology (1925).
"""

import jax.numpy as jnp
import numpy as np

from models import _ode
from numpyro_inverse import pinn

RATES, NOISE = (1.1, 0.8, 1.0, 0.9), 0.02
DOMAIN = pinn.Box(0.0, 4.0, time=True)
TIMES = np.linspace(0.2, 4.0, 20)
START = (1.0, 1.0)


def field(z, theta):
    """The right side, at logarithms of the rates."""
    a, b, c, d = jnp.exp(theta)
    return jnp.stack([a * z[0] - b * z[0] * z[1], -c * z[1] + d * z[0] * z[1]])


def residual(u, x, theta):
    """The equations, shape (2,)."""
    return pinn.derivative(u, 0)(x) - field(u(x), theta)


def solve(theta):
    """Both populations at the data's times, shape (20, 2)."""
    return _ode.solve(field, jnp.asarray(START), TIMES, theta)


def simulate(rng):
    """Noisy populations, shape (20, 2)."""
    return np.asarray(solve(jnp.log(jnp.asarray(RATES)))) + NOISE * rng.normal(size=(20, 2))


def since_start(x):
    """Zero at the first time."""
    return x[0] / DOMAIN.upper[0]


def start(x):
    """The initial value, at all times."""
    return jnp.asarray(START, x.dtype)


def problem(trial, values, num_points=60, scale=0.01):
    """For a trial space with two outputs, made to begin at the initial value."""
    pde = pinn.PDE(residual, DOMAIN, points=DOMAIN.grid(num_points), initial=())
    return pinn.Problem(
        pde, pinn.Enforced(trial, since_start, start), pinn.Data(TIMES[:, None], values, NOISE), scale=scale
    )


def misfit(values):
    """The data's misfit as a function of theta, by :func:`solve`."""
    seen = jnp.asarray(values)
    return lambda theta: 0.5 * jnp.sum(((solve(theta) - seen) / NOISE) ** 2)
