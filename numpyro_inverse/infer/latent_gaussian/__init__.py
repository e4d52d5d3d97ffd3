"""Latent Gaussian models, by the Laplace approximation."""

from numpyro_inverse.infer.latent_gaussian._hyper_points import HyperPoints as HyperPoints
from numpyro_inverse.infer.latent_gaussian._latent_gaussian import LatentGaussian as LatentGaussian
from numpyro_inverse.infer.latent_gaussian._latent_gaussian import Marginal as Marginal
