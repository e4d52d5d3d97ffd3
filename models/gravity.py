r"""Gravity surveying: the density of a line mass at depth :math:`d` from vertical gravity at the surface.

:What: a Fredholm equation of the first kind,
    :math:`g(s) = \int_0^1 d \, (d^2 + (s - t)^2)^{-3/2} f(t) \, dt`, by the midpoint rule.
:Dimension: n = 64 unknowns, 64 data (any n).
:Prior: Matérn field on [0, 1]: range 0.5, scale 1, smoothness 1.5.
:Data: ``g`` at the midpoints, from a draw of the prior or the classical ``truth``.
:Likelihood: independent normal, standard deviation 0.05 (1 % of the classical signal's root mean square).
:Parameters: ``depth`` 0.25 (length of the line); ``range`` (the same unit); ``scale`` (density); ``noise`` (gravity).
:Reference posterior: Gaussian in closed form, :func:`exact_posterior`. The data inform 8 directions.
:Source: P. C. Hansen, Regularization Tools, Numerical Algorithms 46 (2007) 189-194, test problem ``gravity``;
    G. M. Wing, A Primer on Integral Equations of the First Kind, SIAM 1991, p. 17.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from models._linear_gaussian import dense_posterior, matern_covariance
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Matrix

PRIOR = {"range": 0.5, "scale": 1.0, "smoothness": 1.5}
NOISE = 0.05


def matrix(n=64, depth=0.25):
    """The integral operator by the midpoint rule, shape ``(n, n)``, float64."""
    t = (np.arange(n) + 0.5) / n
    return depth * (depth**2 + (t[:, None] - t) ** 2) ** -1.5 / n


def truth(n=64):
    """Hansen's first solution, sin(pi t) + sin(2 pi t) / 2."""
    t = (np.arange(n) + 0.5) / n
    return np.sin(np.pi * t) + 0.5 * np.sin(2 * np.pi * t)


def model(data=None, *, n=64, depth=0.25, range=0.5, scale=1.0, smoothness=1.5, noise=NOISE):
    """The NumPyro model: sites ``density`` and ``data``, both of shape ``(n,)``."""
    density = numpyro.sample("density", Matern(Grid(n), range=range, scale=scale, smoothness=smoothness))
    gravity = Matrix(matrix(n, depth)) @ density
    numpyro.sample("data", dist.Normal(gravity, noise).to_event(1), obs=data)


def simulate(key, *, n=64, depth=0.25, noise=NOISE):
    """A density from the prior and its data."""
    key_density, key_noise = jax.random.split(key)
    density = Matern(Grid(n), **PRIOR).sample(key_density)
    return density, Matrix(matrix(n, depth)) @ density + noise * jax.random.normal(key_noise, (n,))


def exact_posterior(data, *, depth=0.25, noise=NOISE, **prior):
    """The posterior of ``density`` in closed form; ``prior`` overrides ``range``, ``scale``, ``smoothness``."""
    n = len(data)
    return dense_posterior(matrix(n, depth), data, noise, matern_covariance(Grid(n), **(PRIOR | prior)), (n,))
