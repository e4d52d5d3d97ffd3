"""Learned priors: normalizing flows, decoders, and how they are trained and kept."""

from numpyro_inverse.nn._autoregressive_flow import AutoregressiveFlow
from numpyro_inverse.nn._context_embedding import ContextEmbedding
from numpyro_inverse.nn._coupling_flow import CouplingFlow
from numpyro_inverse.nn._embedding_networks import (
    ConvolutionalNetwork,
    DeepSet,
    RecurrentNetwork,
    TransformerNetwork,
)
from numpyro_inverse.nn._energy_score import energy_score
from numpyro_inverse.nn._ensemble import Ensemble
from numpyro_inverse.nn._equivariant import Canonicalized, ReynoldsAverage
from numpyro_inverse.nn._equivariant_convolutions import P4MConvolution, P4MLifting, circular_convolution, p4m_pool
from numpyro_inverse.nn._fit_density import fit_density
from numpyro_inverse.nn._fit_flow import fit_flow
from numpyro_inverse.nn._fit_function_vae import fit_function_vae, pad_fields
from numpyro_inverse.nn._fit_gan import fit_gan
from numpyro_inverse.nn._fit_module import fit_module
from numpyro_inverse.nn._fit_vae import fit_vae
from numpyro_inverse.nn._flow_density import flow_log_prob
from numpyro_inverse.nn._flow_matching import FlowMatching
from numpyro_inverse.nn._function_vae import FunctionVAE
from numpyro_inverse.nn._mixture_autoregressive import MixtureAutoregressive
from numpyro_inverse.nn._multiscale_flow import MultiscaleFlow
from numpyro_inverse.nn._persistence import load, load_metadata, save
from numpyro_inverse.nn._prepare import dequantize
from numpyro_inverse.nn._ratio_network import RatioNetwork, contrastive_ratio_loss
from numpyro_inverse.nn._training import Fit, TrainingSettings, train
from numpyro_inverse.nn._vae import VAE
from numpyro_inverse.nn.pretrained import load_pretrained

__all__ = [
    "VAE",
    "AutoregressiveFlow",
    "Canonicalized",
    "ContextEmbedding",
    "ConvolutionalNetwork",
    "CouplingFlow",
    "DeepSet",
    "Ensemble",
    "Fit",
    "FlowMatching",
    "FunctionVAE",
    "MixtureAutoregressive",
    "MultiscaleFlow",
    "P4MConvolution",
    "P4MLifting",
    "RatioNetwork",
    "RecurrentNetwork",
    "ReynoldsAverage",
    "TrainingSettings",
    "TransformerNetwork",
    "circular_convolution",
    "contrastive_ratio_loss",
    "dequantize",
    "energy_score",
    "fit_density",
    "fit_flow",
    "fit_function_vae",
    "fit_gan",
    "fit_module",
    "fit_vae",
    "flow_log_prob",
    "load",
    "load_metadata",
    "load_pretrained",
    "p4m_pool",
    "pad_fields",
    "save",
    "train",
]
