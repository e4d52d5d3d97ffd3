r"""The viscosity of Burgers' equation from values of its solution: time dependent and nonlinear.

:What: :math:`u_t + u u_x = \nu u_{xx}` on [-1, 1] x [0, 1], :math:`u(x, 0) = -\sin \pi x`, :math:`u(\pm 1, t) = 0`.
:Dimension: :math:`\log \nu`; 60 values of u.
:Prior: :math:`\log \nu \sim N(\log 0.1, 1)`.
:Data: u at 60 points of space and time, noise 0.01, for :math:`\nu = 0.1`.
:Likelihood: normal.
:Reference posterior: by quadrature over :math:`\log \nu` with :func:`exact`, the transform of Cole and Hopf.
:Source: J. D. Cole, Quart. Appl. Math. 9 (1951) 225-236; the initial value is that of C. Basdevant et al., Comput.
    Fluids 14 (1986) 23-41.
"""

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse import pinn

VISCOSITY, NOISE = 0.1, 0.01
DOMAIN = pinn.Box((-1.0, 0.0), (1.0, 1.0), time=True)
NODES, WEIGHTS = np.polynomial.hermite.hermgauss(80)


def exact(points, viscosity):
    r"""u at points (n, 2), by Gauss and Hermite's rule in the heat kernel of the transform:
    :math:`u = -\int \sin \pi (x - \eta) h\, e^{-\eta^2 / 4 \nu t} d\eta / \int h\, e^{-\eta^2 / 4 \nu t} d\eta`,
    :math:`h = e^{-\cos \pi (x - \eta) / 2 \pi \nu}`.
    """
    points, nodes, weights = jnp.asarray(points), jnp.asarray(NODES), jnp.asarray(WEIGHTS)
    place = jnp.pi * (points[:, :1] - jnp.sqrt(4 * viscosity * points[:, 1:]) * nodes)
    exponent = -jnp.cos(place) / (2 * jnp.pi * viscosity)
    largest = jax.lax.stop_gradient(jnp.max(exponent, axis=1, keepdims=True))  # it cancels
    kernel = weights * jnp.exp(exponent - largest)
    return -jnp.sum(jnp.sin(place) * kernel, axis=1) / jnp.sum(kernel, axis=1)


def residual(u, x, log_viscosity):
    """The equation."""
    spread = jnp.exp(log_viscosity) * pinn.derivative(u, 0, 0)(x)
    return pinn.derivative(u, 1)(x) + u(x) * pinn.derivative(u, 0)(x) - spread


def lift(x):
    """The initial value, at all times."""
    return -jnp.sin(jnp.pi * x[0])


def vanishing(x):
    """Zero on the boundary and at the first time."""
    return DOMAIN.distance(x, initial=True)


def simulate(rng):
    """60 points and noisy values there."""
    points = np.asarray(DOMAIN.sobol(60, seed=2))
    return points, np.asarray(exact(points, VISCOSITY)) + NOISE * rng.normal(size=60)


def problem(trial, points, values, num_points=(20, 10), scale=0.01):
    """For a trial space that :class:`~numpyro_inverse.pinn.Enforced` makes satisfy all conditions."""
    enforced = pinn.Enforced(trial, vanishing, lift)
    pde = pinn.PDE(residual, DOMAIN, points=DOMAIN.grid(num_points), boundary=(), initial=())
    return pinn.Problem(pde, enforced, pinn.Data(points, values, NOISE), scale=scale)


def misfit(points, values):
    """The data's misfit as a function of log viscosity, by :func:`exact`."""
    where, seen = jnp.asarray(points), jnp.asarray(values)
    return lambda log_viscosity: 0.5 * jnp.sum(((exact(where, jnp.exp(log_viscosity)) - seen) / NOISE) ** 2)
