"""Exact draws for linear-Gaussian models: all of the posterior, or all of it given hyperparameters."""

from numpyro_inverse.infer.exact._exact_gaussian import ExactGaussian as ExactGaussian
from numpyro_inverse.infer.exact._exact_gibbs import ExactGibbs as ExactGibbs
