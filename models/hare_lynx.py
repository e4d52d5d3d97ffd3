r"""Hares and lynxes: predators and prey in the pelts that the Hudson's Bay Company traded.

:What: :math:`\dot u = (\alpha - \beta v) u`, :math:`\dot v = (-\gamma + \delta u) v`; u hares and v lynxes, in
    thousands of pelts a year.
:Dimension: 8 unknowns: the two numbers at the first year, four rates, two noise levels; 42 data.
:Prior: :math:`\log z_0 \sim N(\log 10, 1)` each; rates normal, cut off at zero, of means (1, 0.05, 1, 0.05) and
    standard deviations (0.5, 0.05, 0.5, 0.05); :math:`\log \sigma \sim N(-1, 1)` each.
:Data: :data:`PELTS`, real: 21 years, 1900 to 1920.
:Likelihood: :math:`\log y_{t,i} \sim N(\log z_i(t), \sigma_i^2)`, independent.
:Reference posterior: NUTS with the exact likelihood, :func:`model`, from :func:`start`; published means are
    :data:`PUBLISHED`. Chains from far away can stay where large noise explains the cycles.
:Source: E. P. Odum, Fundamentals of Ecology (1953), from the records of the Hudson's Bay Company; B. Carpenter,
    Predator-prey population dynamics: the Lotka-Volterra model in Stan (2018). The last number of lynxes is 8.6, as
    there; some copies have 8.1. Means: posteriordb, ``hudson_lynx_hare-lotka_volterra``.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models.sbibm.lotka_volterra import log_populations
from numpyro_inverse.distributions import Simulator

YEARS = np.arange(1900, 1921)
# fmt: off
HARES = [30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1,
         40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7]
LYNXES = [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4,
          8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6]
# fmt: on
PELTS = np.column_stack([HARES, LYNXES])
PUBLISHED = {  # posterior means and their Monte Carlo standard errors
    "z_init": ([34.03522, 5.93590], [0.02931, 0.00534]),
    "theta": ([0.546864, 0.0277473, 0.800095, 0.0240859], [0.000626, 0.0000412, 0.000885, 0.0000350]),
    "sigma": ([0.248057, 0.251017], [0.000439, 0.000440]),
}


def model(y=None):
    """The NumPyro model with the exact likelihood: sites ``z_init``, ``theta``, ``sigma``, and ``y``, shape (21, 2)."""
    numpyro.sample("y", _law(*unknowns()).to_event(2), obs=y)


def simulator_model(y=None):
    """The same model with a simulator at ``y``: one can draw from it only."""
    z_init, theta, sigma = unknowns()
    law = Simulator(simulate, z_init, theta, sigma, event_dims=1, support=constraints.positive)
    numpyro.sample("y", law, obs=y)


def unknowns():
    """The three latent sites, all positive: of shapes (2,), (4,) and (2,)."""
    z_init = numpyro.sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand((2,)).to_event(1))
    mean, spread = jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05])
    theta = numpyro.sample("theta", dist.TruncatedNormal(mean, spread, low=0.0).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand((2,)).to_event(1))
    return z_init, theta, sigma


def start():
    r"""Where a chain may begin: both populations turn around their averages, :math:`\gamma / \delta` and
    :math:`\alpha / \beta`, with a period of ten years, :math:`2 \pi / \sqrt{\alpha \gamma}`."""
    rate, (hares, lynxes) = 2 * np.pi / 10, PELTS.mean(axis=0)
    theta = jnp.array([rate, rate / lynxes, rate, rate / hares])
    return {"z_init": jnp.asarray(PELTS[0], float), "theta": theta, "sigma": jnp.array([0.5, 0.5])}


def simulate(rng_key, z_init, theta, sigma):
    """Data at one point."""
    return _law(z_init, theta, sigma).sample(rng_key)


def _law(z_init, theta, sigma):
    return dist.LogNormal(log_populations(theta, jnp.log(z_init), YEARS - YEARS[0]), sigma)
