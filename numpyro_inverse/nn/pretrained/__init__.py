"""Weights that ship with the package, and how to load them; the scripts that made them are in ``training/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from numpyro_inverse._checks import show
from numpyro_inverse.denoisers._firmly_nonexpansive import FirmlyNonexpansiveDenoiser
from numpyro_inverse.denoisers._gradient_step import ConvolutionalNetwork, GradientStepDenoiser
from numpyro_inverse.domains import Grid
from numpyro_inverse.nn._coupling_flow import CouplingFlow
from numpyro_inverse.nn._function_vae import FunctionVAE
from numpyro_inverse.nn._multiscale_flow import MultiscaleFlow
from numpyro_inverse.nn._persistence import load, load_metadata
from numpyro_inverse.nn._vae import VAE

PATCH = 8  # side


def fashion_mnist_flow(key: PRNGKeyArray, pixels: np.ndarray | None = None) -> MultiscaleFlow:
    """The flow of images before training; ``pixels`` give their distribution function."""
    pixels = np.linspace(0, 1, 256) if pixels is None else pixels
    return MultiscaleFlow((28, 28), pixels, width=32, depth=1, steps=2, key=key)


def fashion_mnist_vae(key: PRNGKeyArray) -> VAE:
    """The autoencoder of images before training."""
    return VAE.for_images((28, 28), 32, key=key)


def patch_flow(key: PRNGKeyArray, data: np.ndarray | None = None) -> CouplingFlow:
    """The flow of patches before training; ``data`` give their mean and covariance."""
    return CouplingFlow(PATCH**2, layers=6, width=96, bins=8, data=data, key=key)


def gradient_step_denoiser(key: PRNGKeyArray) -> GradientStepDenoiser:
    """The denoiser with a potential before training."""
    return GradientStepDenoiser(ConvolutionalNetwork(64, 5, key=key))


def cocoercive_denoiser(key: PRNGKeyArray) -> GradientStepDenoiser:
    """The denoiser with a potential and a nonnegative Jacobian before training."""
    return gradient_step_denoiser(key)


def firmly_nonexpansive_denoiser(key: PRNGKeyArray) -> FirmlyNonexpansiveDenoiser:
    """The denoiser with a certificate before training."""
    return FirmlyNonexpansiveDenoiser(4, 64, 8, key=key)


def permeability_vae(key: PRNGKeyArray) -> FunctionVAE:
    """The autoencoder of permeability fields before training."""
    return FunctionVAE(Grid((12, 12)), 24, width=96, link=jnp.tanh, key=key)


MADE = (
    fashion_mnist_flow,
    fashion_mnist_vae,
    patch_flow,
    gradient_step_denoiser,
    cocoercive_denoiser,
    firmly_nonexpansive_denoiser,
    permeability_vae,
)
BLANK = {made.__name__: made for made in MADE}


def load_pretrained(name: str) -> Any:
    r"""A trained module.

    ================================  ================================================================================
    ``fashion_mnist_flow``            :class:`~numpyro_inverse.nn.MultiscaleFlow` of 28 x 28 images with values in
                                      [0, 1]
    ``fashion_mnist_vae``             :class:`~numpyro_inverse.nn.VAE` of the same images
    ``patch_flow``                    :class:`~numpyro_inverse.nn.CouplingFlow` of 8 x 8 patches of photographs, as 64
                                      numbers in [0, 1]
    ``gradient_step_denoiser``        :class:`~numpyro_inverse.denoisers.GradientStepDenoiser` of gray photographs of
                                      any size with values in [0, 1], for noise of 0.01 to 0.2
    ``cocoercive_denoiser``           the same network with other weights: the eigenvalues of its Jacobian are between
                                      0 and 4 at noisy photographs, as far as was looked
    ``firmly_nonexpansive_denoiser``  :class:`~numpyro_inverse.denoisers.FirmlyNonexpansiveDenoiser` of the same
    ``permeability_vae``              :class:`~numpyro_inverse.nn.FunctionVAE` of log permeabilities on the unit square:
                                      two facies with soft edges, :math:`\tanh(2 g)` of a Matérn field g of range 0.6
    ================================  ================================================================================

    Args:
        name: one of these.

    Raises:
        ValueError: there is none of that name.
    """
    return load(_path(name), eqx.filter_eval_shape(BLANK[name], jax.random.key(0)))


def pretrained_about(name: str) -> dict[str, Any]:
    """How the weights were made: seed, settings, hash of the data, held-out score.

    Raises:
        ValueError: there are none of that name.
    """
    return load_metadata(_path(name))


def _path(name: str) -> Path:
    if not isinstance(name, str) or name not in BLANK:
        raise ValueError(f"load_pretrained: there are no weights {show(name)} (`name`); there are {', '.join(BLANK)}.")
    return Path(__file__).parent / f"{name}.safetensors"
