"""Posteriors under a denoiser's prior: split Gibbs sampling, reverse diffusion."""

from numpyro_inverse.infer.denoising._split_gibbs import SplitGibbs as SplitGibbs
