r"""Magnetotelluric sounding: resistivity at depth from natural electromagnetic fields at the surface.

:What: the impedance of a layered earth, upwards from the half space below,
    :math:`Z_j = \zeta_j \frac{Z_{j+1} + \zeta_j \tanh(k_j h_j)}{\zeta_j + Z_{j+1} \tanh(k_j h_j)}`,
    :math:`k_j = \sqrt{i \omega \mu_0 / \rho_j}`, :math:`\zeta_j = i \omega \mu_0 / k_j`; apparent resistivity
    :math:`\rho_a = |Z|^2 / (\omega \mu_0)` and phase :math:`\arg Z`.
:Dimension: 60 layers, thicknesses growing from 10 m to 2 km; 2 x 25 data.
:Prior: ``log_resistivity``, decimal logarithm of ohm metres: Matérn field over the layers, so over the logarithm of
    depth, about 2, standard deviation 0.7, range 20 layers, smoothness 1.5.
:Data: 25 periods from 1 ms to 1000 s: logarithm of the apparent resistivity, and phase.
:Likelihood: independent normal: 0.02 decades, and 1.3 degrees (5 % of the impedance).
:Reference posterior: none in closed form (nonlinear); a half space has :math:`\rho_a = \rho` and phase 45 degrees.
:Source: L. Cagniard, Geophysics 18 (1953) 605-635; J. R. Wait, Geophysics 19 (1954) 281-289.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid

MU_0 = 4e-7 * np.pi  # H / m
LAYERS = 60
PERIODS = np.logspace(-3, 3, 25)  # s
NOISE = np.array([[0.02], [1.3]])  # decades, degrees
PRIOR = {"range": 20.0, "scale": 0.7, "smoothness": 1.5, "mean": 2.0}


def thicknesses():
    """Of the layers in metres; the last of them is followed by a half space of its resistivity."""
    return np.geomspace(10.0, 2000.0, LAYERS)


def depths():
    """Of the layers' centers, in metres."""
    h = thicknesses()
    return np.cumsum(h) - h / 2


def response(log_resistivity, thickness, periods=PERIODS):
    """Decimal logarithm of the apparent resistivity, and phase in degrees, shape ``(2, periods)``.

    Args:
        log_resistivity: decimal logarithm of ohm metres, from the surface down.
        thickness: of the layers, metres.
        periods: seconds.
    """
    omega = 2 * np.pi / jnp.asarray(periods)
    wave = jnp.sqrt(1j * omega * MU_0)
    square_root = 10 ** (jnp.asarray(log_resistivity) / 2)

    def layer(z, below):  # impedances in units of sqrt(i omega mu_0), so that single precision is enough
        root, h = below
        decay = jnp.exp(-2 * wave * h / root)
        tanh = (1 - decay) / (1 + decay)
        return root * (z + root * tanh) / (root + z * tanh), None

    bottom = square_root[-1] * jnp.ones_like(wave)
    impedance, _ = jax.lax.scan(layer, bottom, (square_root, jnp.asarray(thickness)), reverse=True)
    return jnp.stack([2 * jnp.log10(jnp.abs(impedance)), 45 + jnp.rad2deg(jnp.angle(impedance))])


def model(data=None):
    """The NumPyro model: sites ``log_resistivity`` of shape ``(60,)`` and ``data`` of shape ``(2, 25)``."""
    field = numpyro.sample("log_resistivity", Matern(Grid(LAYERS, extent=LAYERS), **PRIOR))
    numpyro.sample("data", dist.Normal(response(field, thicknesses()), NOISE).to_event(2), obs=data)


def simulate(key, truth=None):
    """Decimal logarithm of the resistivity (of the prior, or ``truth``), and its data."""
    key_field, key_noise = jax.random.split(key)
    field = Matern(Grid(LAYERS, extent=LAYERS), **PRIOR).sample(key_field) if truth is None else jnp.asarray(truth)
    clean = response(field, thicknesses())
    return field, clean + NOISE * jax.random.normal(key_noise, clean.shape)
