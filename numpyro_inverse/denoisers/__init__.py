"""Denoisers: maps that take noise off an array, and what each is known to be."""

from numpyro_inverse.denoisers._certificate import Certificate as Certificate
from numpyro_inverse.denoisers._denoiser import Denoiser as Denoiser
from numpyro_inverse.denoisers._firmly_nonexpansive import FirmlyNonexpansiveDenoiser as FirmlyNonexpansiveDenoiser
from numpyro_inverse.denoisers._firmly_nonexpansive import LipschitzConvolution as LipschitzConvolution
from numpyro_inverse.denoisers._gradient_step import ConvolutionalNetwork as ConvolutionalNetwork
from numpyro_inverse.denoisers._gradient_step import GradientStepDenoiser as GradientStepDenoiser
