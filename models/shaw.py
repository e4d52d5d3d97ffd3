r"""Shaw's problem: a light source seen through a long slit, as a function of angle.

:What: a Fredholm equation of the first kind on :math:`[-\pi/2, \pi/2]`,
    :math:`g(s) = \int (\cos s + \cos t)^2 \bigl(\tfrac{\sin u}{u}\bigr)^2 f(t) \, dt` with
    :math:`u = \pi (\sin s + \sin t)`, by the midpoint rule.
:Dimension: n = 64 unknowns, 64 data (any n).
:Prior: Matérn field on an interval of length pi: range 1, scale 1, smoothness 1.5.
:Data: ``g`` at the midpoints, from a draw of the prior or the classical ``truth``.
:Likelihood: independent normal, standard deviation 0.02 (1 % of the classical signal's root mean square).
:Parameters: ``range`` (radians); ``scale`` (intensity); ``noise`` (intensity).
:Reference posterior: Gaussian in closed form, :func:`exact_posterior`. The data inform 7 directions.
:Source: C. B. Shaw, J. Math. Anal. Appl. 37 (1972) 83-112; P. C. Hansen, Regularization Tools, Numerical Algorithms 46
    (2007) 189-194, test problem ``shaw``.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from models._linear_gaussian import dense_posterior, matern_covariance
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Matrix

PRIOR = {"range": 1.0, "scale": 1.0, "smoothness": 1.5}
NOISE = 0.02


def angles(n=64):
    """Midpoints of n equal cells of [-pi/2, pi/2], in radians."""
    return ((np.arange(n) + 0.5) / n - 0.5) * np.pi


def domain(n=64):
    """The grid of an interval of length pi; its origin is the angle -pi/2."""
    return Grid(n, extent=np.pi)


def matrix(n=64):
    """The integral operator by the midpoint rule, shape ``(n, n)``, float64."""
    s, t = angles(n)[:, None], angles(n)
    return np.pi / n * ((np.cos(s) + np.cos(t)) * np.sinc(np.sin(s) + np.sin(t))) ** 2


def truth(n=64):
    """Hansen's solution, 2 exp(-6 (t - 0.8)^2) + exp(-2 (t + 0.5)^2)."""
    t = angles(n)
    return 2 * np.exp(-6 * (t - 0.8) ** 2) + np.exp(-2 * (t + 0.5) ** 2)


def model(data=None, *, n=64, range=1.0, scale=1.0, smoothness=1.5, noise=NOISE):
    """The NumPyro model: sites ``source`` and ``data``, both of shape ``(n,)``."""
    source = numpyro.sample("source", Matern(domain(n), range=range, scale=scale, smoothness=smoothness))
    numpyro.sample("data", dist.Normal(Matrix(matrix(n)) @ source, noise).to_event(1), obs=data)


def simulate(key, *, n=64, noise=NOISE):
    """A source from the prior and its data."""
    key_source, key_noise = jax.random.split(key)
    source = Matern(domain(n), **PRIOR).sample(key_source)
    return source, Matrix(matrix(n)) @ source + noise * jax.random.normal(key_noise, (n,))


def exact_posterior(data, *, noise=NOISE, **prior):
    """The posterior of ``source`` in closed form; ``prior`` overrides ``range``, ``scale``, ``smoothness``."""
    n = len(data)
    return dense_posterior(matrix(n), data, noise, matern_covariance(domain(n), **(PRIOR | prior)), (n,))
