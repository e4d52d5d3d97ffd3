"""Learned priors: normalizing flows, decoders, and how they are trained and kept."""

from numpyro_inverse.nn._coupling_flow import AutoregressiveFlow, CouplingFlow
from numpyro_inverse.nn._fit_flow import dequantize, fit_flow, flow_log_prob
from numpyro_inverse.nn._gan import energy_score, fit_gan
from numpyro_inverse.nn._multiscale_flow import MultiscaleFlow
from numpyro_inverse.nn._persistence import load, load_metadata, save
from numpyro_inverse.nn._training import Fit, TrainingSettings
from numpyro_inverse.nn._vae import VAE, fit_vae
from numpyro_inverse.nn.pretrained import load_pretrained

__all__ = [
    "VAE",
    "AutoregressiveFlow",
    "CouplingFlow",
    "Fit",
    "MultiscaleFlow",
    "TrainingSettings",
    "dequantize",
    "energy_score",
    "fit_flow",
    "fit_gan",
    "fit_vae",
    "flow_log_prob",
    "load",
    "load_metadata",
    "load_pretrained",
    "save",
]
