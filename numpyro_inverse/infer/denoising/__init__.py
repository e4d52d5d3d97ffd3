"""Posteriors under a denoiser's prior: split Gibbs sampling, reverse diffusion, with particles or without."""

from numpyro_inverse.infer.denoising._diffusion_posterior import diffusion_posterior as diffusion_posterior
from numpyro_inverse.infer.denoising._diffusion_posterior import dps as dps
from numpyro_inverse.infer.denoising._reverse_diffusion import LangevinDenoising as LangevinDenoising
from numpyro_inverse.infer.denoising._reverse_diffusion import ReverseDiffusion as ReverseDiffusion
from numpyro_inverse.infer.denoising._split_gibbs import SplitGibbs as SplitGibbs
from numpyro_inverse.infer.denoising._twisted_smc import ParticleDraws as ParticleDraws
from numpyro_inverse.infer.denoising._twisted_smc import twisted_smc as twisted_smc
