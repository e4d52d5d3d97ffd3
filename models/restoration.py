r"""Deblurring and inpainting of a photograph under the prior of a denoiser.

:What: :math:`y = A u + s \xi` with A a 9 x 9 uniform blur, periodic (:func:`blur`), or the pixels of a mask
    (:func:`inpainting`).
:Dimension: 128 x 128 (any even sides).
:Prior: :math:`e^{-\lambda g(u, \sigma) / \sigma^2}` on values in [0, 1] (:data:`UNIT`), g the potential of the
    gradient-step denoiser that ships with the package. Outside of what it was trained on, that potential is as low as
    it likes: without the bounds a chain finds images from -2 to 2 that it prefers to photographs. With
    :func:`gaussian_prior` on all real values the posterior is Gaussian.
:Data: scikit-image's camera, means of 4 x 4 pixels, in [0, 1]: held out from the training of the denoisers. The blurred
    one has 20.80 dB.
:Likelihood: independent normal of standard deviation 1/255.
:Parameters: ``sigma``, the noise level that the denoiser is asked about, and ``strength``, :math:`\lambda`.
:Reference posterior: for :func:`gaussian_prior` and the blur in closed form, :func:`exact_posterior`. Under the
    denoiser's prior none; the truth is known.
:Source: the blur is that of R. Laumont et al., SIAM J. Imaging Sci. 15 (2022) 701-737, section 5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse.denoisers import FieldDenoiser
from numpyro_inverse.distributions import Energy, SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.factors import GradientStep, Score
from numpyro_inverse.operators import Convolution, Mask

SHAPE = (128, 128)
SIDE = 9
NOISE = 1 / 255
SIGMA = 0.05
UNIT = dist.constraints.independent(dist.constraints.unit_interval, 2)


def photograph():
    """The camera in [0, 1], 128 x 128."""
    from skimage import data

    return np.asarray((data.camera() / 255.0).reshape(128, 4, 128, 4).mean(axis=(1, 3)), np.float32)


def blur(shape=SHAPE, side=SIDE):
    """Means of ``side`` x ``side`` pixels, round the torus."""
    return Convolution(np.full((side, side), 1 / side**2, np.float32), shape, boundary="periodic")


def inpainting(shape=SHAPE, fraction=0.5, seed=0):
    """A random fraction of the pixels."""
    return Mask(np.random.default_rng(seed).random(shape) < fraction)


def denoiser_prior(denoiser, sigma=SIGMA, strength=1.0):
    """The potential of a denoiser that has one."""
    return GradientStep(denoiser, sigma=sigma, strength=strength)


def gaussian_prior(shape=SHAPE, sigma=SIGMA):
    """The smoothed prior of a stationary Gaussian field with the spectrum of photographs, 1 / (1 + (k / k0)^2)^1.5."""
    return Score(FieldDenoiser(gaussian_field(shape)), sigma=sigma)


def gaussian_field(shape=SHAPE):
    """Mean 0.5, standard deviation 0.25."""
    grid = Grid(shape, boundary="periodic")
    spectrum = (1 + jnp.asarray(grid.eigenvalues) / 30.0) ** -1.5
    variance = jnp.sum(spectrum) / grid.size / grid.cell_volume
    return SpectralField(grid, spectrum * 0.25**2 / variance, mean=0.5)


def model(data=None, *, prior, support=None, forward=None, shape=SHAPE, noise=NOISE):
    """The NumPyro model: sites ``image`` of the shape, with the law of the potential ``prior``, and ``data``."""
    forward = blur(shape) if forward is None else forward
    image = numpyro.sample("image", Energy(prior, shape, support=support))
    numpyro.sample("data", dist.Normal(forward @ image, noise).to_event(len(forward.out_shape)), obs=data)


def simulate(key, *, image=None, forward=None, noise=NOISE):
    """A photograph and its data."""
    image = jnp.asarray(photograph() if image is None else image, jnp.result_type(float))
    forward = blur(image.shape) if forward is None else forward
    return image, forward @ image + noise * jax.random.normal(key, forward.out_shape)


def exact_posterior(data, *, sigma=SIGMA, side=SIDE, noise=NOISE):
    """Mean and pointwise standard deviation under :func:`gaussian_prior` and the blur, float64, by NumPy's FFT."""
    shape = np.shape(data)
    rows, columns = (np.fft.fftfreq(n) for n in shape)
    offsets = np.arange(side) - side // 2
    transfer = np.multiply.outer(*(np.cos(2 * np.pi * np.outer(f, offsets)).mean(axis=1) for f in (rows, columns)))
    waves = (2 * np.pi * max(shape)) ** 2 * np.add.outer(rows**2, columns**2)  # the longest side has length 1
    prior = (1 + waves / 30.0) ** -1.5
    prior = prior / prior.mean() * 0.25**2 + sigma**2
    precision = 1 / prior + transfer**2 / noise**2
    mean = np.fft.ifft2(np.fft.fft2(np.asarray(data, float) - 0.5) * transfer / noise**2 / precision).real + 0.5
    return mean, np.full(shape, np.sqrt(np.mean(1 / precision)))


def decibels(image, truth):
    """Peak signal-to-noise ratio, for values in [0, 1]."""
    return float(-10 * jnp.log10(jnp.mean((jnp.asarray(image) - truth) ** 2)))
