"""Learned priors: normalizing flows, decoders, and how they are trained and kept."""

from numpyro_inverse.nn.adversarial import energy_score, fit_gan
from numpyro_inverse.nn.coupling_flow import AutoregressiveFlow, CouplingFlow
from numpyro_inverse.nn.fit_flow import dequantize, fit_flow, flow_log_prob
from numpyro_inverse.nn.multiscale_flow import MultiscaleFlow
from numpyro_inverse.nn.persistence import load, load_about, save
from numpyro_inverse.nn.pretrained import load_pretrained
from numpyro_inverse.nn.training import Fit, Settings
from numpyro_inverse.nn.variational_autoencoder import VAE, fit_vae

__all__ = [
    "VAE",
    "AutoregressiveFlow",
    "CouplingFlow",
    "Fit",
    "MultiscaleFlow",
    "Settings",
    "dequantize",
    "energy_score",
    "fit_flow",
    "fit_gan",
    "fit_vae",
    "flow_log_prob",
    "load",
    "load_about",
    "load_pretrained",
    "save",
]
