r"""Parallel-beam X-ray tomography: an image from its line integrals.

:What: :math:`y_{ab}`, the mean of the line integrals of :math:`u` over detector bin :math:`b` at angle
    :math:`\theta_a` (exact strip integrals of the pixels), plus noise.
:Dimension: 32 x 32 pixels on the unit square; 30 angles times 46 bins (any shape and number).
:Prior: Matérn field with mean 0: range 0.3, scale 1, smoothness 1.
:Data: a draw of the prior, or the classical ``disc_phantom``, projected, with noise.
:Likelihood: independent normal of standard deviation 0.01 (about 3 % of the signal's root mean square).
:Parameters: ``range`` in lengths of the square's side; ``scale`` in attenuation; ``noise`` in attenuation times length;
    ``num_angles``, evenly over half a turn.
:Reference posterior: Gaussian in closed form, :func:`exact_posterior` (dense: up to about 64 x 64 pixels).
:Source: A. C. Kak and M. Slaney, Principles of Computerized Tomographic Imaging, IEEE Press 1988, chapter 3.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models._linear_gaussian import dense_posterior, matern_covariance
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Radon

SHAPE = (32, 32)
NUM_ANGLES = 30
PRIOR = {"range": 0.3, "scale": 1.0, "smoothness": 1.0}
NOISE = 0.01


def scanner(shape=SHAPE, num_angles=NUM_ANGLES):
    """The forward map, with bins as wide as pixels."""
    return Radon(Grid(shape), np.arange(num_angles) * np.pi / num_angles)


def model(data=None, *, shape=SHAPE, num_angles=NUM_ANGLES, range=0.3, scale=1.0, smoothness=1.0, noise=NOISE):
    """The NumPyro model: sites ``attenuation`` (``shape``) and ``data`` (angles, bins)."""
    prior = Matern(Grid(shape), range=range, scale=scale, smoothness=smoothness)
    attenuation = numpyro.sample("attenuation", prior)
    numpyro.sample("data", dist.Normal(scanner(shape, num_angles) @ attenuation, noise).to_event(2), obs=data)


def disc_phantom(shape=SHAPE):
    """A disc of radius 0.4 and attenuation 1 with a hole of radius 0.1 beside its centre."""
    x, y = np.moveaxis(np.asarray(Grid(shape).points), -1, 0)
    x, y = x - Grid(shape).extent[0] / 2, y - Grid(shape).extent[1] / 2
    return (x**2 + y**2 < 0.4**2).astype(float) - ((x - 0.15) ** 2 + y**2 < 0.1**2)


def simulate(key, *, shape=SHAPE, num_angles=NUM_ANGLES, noise=NOISE, truth=None):
    """An image and its data: a draw of the prior, or ``truth`` (such as :func:`disc_phantom`)."""
    key_image, key_noise = jax.random.split(key)
    image = (
        Matern(Grid(shape), **PRIOR).sample(key_image) if truth is None else jnp.asarray(truth, jnp.result_type(float))
    )
    clean = scanner(shape, num_angles) @ image
    return image, clean + noise * jax.random.normal(key_noise, clean.shape)


def matrix(shape=SHAPE, num_angles=NUM_ANGLES):
    """The forward map's matrix on raveled images, float64."""
    with jax.enable_x64(True):
        return np.asarray(scanner(shape, num_angles).as_matrix())


def exact_posterior(data, *, shape=SHAPE, noise=NOISE, **prior):
    """The posterior of ``attenuation`` in closed form; ``prior`` overrides ``range``, ``scale``, ``smoothness``."""
    covariance = matern_covariance(Grid(shape), **(PRIOR | prior))
    return dense_posterior(matrix(shape, len(data)), data, noise, covariance, shape)
