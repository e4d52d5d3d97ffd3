r"""The inverse heat equation: the heat put in at the surface of a half-space, from the temperature inside it.

:What: a Volterra equation of the first kind on [0, 1], :math:`g(s) = \int_0^s k(s - t) f(t) \, dt` with
    :math:`k(t) = \frac{t^{-3/2}}{2 \kappa \sqrt\pi} \exp\bigl(-\frac{1}{4 \kappa^2 t}\bigr)`, by the midpoint rule: a
    lower triangular Toeplitz matrix.
:Dimension: n = 64 unknowns, 64 data (any n).
:Prior: Matérn field on [0, 1]: range 0.2, scale 0.5, smoothness 1.5.
:Data: ``g`` at the ends of the cells, from a draw of the prior or the classical ``truth``.
:Likelihood: independent normal, standard deviation 0.0005 (1 % of the classical signal's root mean square).
:Parameters: ``kappa`` 1 (severely ill-posed; 5 is mild), dimensionless; ``range`` (time); ``scale`` (heat);
    ``noise`` (temperature).
:Reference posterior: Gaussian in closed form, :func:`exact_posterior`. The data inform 20 directions.
:Source: A. Carasso, SIAM J. Appl. Math. 42 (1982) 558-574; P. C. Hansen, Regularization Tools, Numerical Algorithms 46
    (2007) 189-194, test problem ``heat``.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.linalg

from models._linear_gaussian import dense_posterior, matern_covariance
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Matrix

PRIOR = {"range": 0.2, "scale": 0.5, "smoothness": 1.5}
NOISE = 0.0005


def matrix(n=64, kappa=1.0):
    """The integral operator by the midpoint rule, shape ``(n, n)``, float64: row i is at time (i + 1) / n."""
    t = (np.arange(n) + 0.5) / n
    kernel = t**-1.5 / (2 * kappa * np.sqrt(np.pi)) * np.exp(-1 / (4 * kappa**2 * t))
    return scipy.linalg.toeplitz(kernel / n, np.zeros(n))


def truth(n=64):
    """Hansen's solution: a ramp, a bump and a decay in the first half, zero in the second."""
    i = np.arange(1, n + 1)
    t = 20 * i / n
    rising = np.where(t < 2, 0.75 * t**2 / 4, 0.75 + (t - 2) * (3 - t))
    return np.where(2 * i <= n, np.where(t < 3, rising, 0.75 * np.exp(-2 * (t - 3))), 0.0)


def model(data=None, *, n=64, kappa=1.0, range=0.2, scale=0.5, smoothness=1.5, noise=NOISE):
    """The NumPyro model: sites ``heat`` and ``data``, both of shape ``(n,)``."""
    heat = numpyro.sample("heat", Matern(Grid(n), range=range, scale=scale, smoothness=smoothness))
    temperature = Matrix(matrix(n, kappa)) @ heat
    numpyro.sample("data", dist.Normal(temperature, noise).to_event(1), obs=data)


def simulate(key, *, n=64, kappa=1.0, noise=NOISE):
    """A heat input from the prior and its data."""
    key_heat, key_noise = jax.random.split(key)
    heat = Matern(Grid(n), **PRIOR).sample(key_heat)
    return heat, Matrix(matrix(n, kappa)) @ heat + noise * jax.random.normal(key_noise, (n,))


def exact_posterior(data, *, kappa=1.0, noise=NOISE, **prior):
    """The posterior of ``heat`` in closed form; ``prior`` overrides ``range``, ``scale``, ``smoothness``."""
    n = len(data)
    return dense_posterior(matrix(n, kappa), data, noise, matern_covariance(Grid(n), **(PRIOR | prior)), (n,))
