"""Denoisers: maps that take noise off an array, and what each is known to be."""

from numpyro_inverse.denoisers._audit import DenoiserAudit as DenoiserAudit
from numpyro_inverse.denoisers._audit import Measured as Measured
from numpyro_inverse.denoisers._audit import audit_denoiser as audit_denoiser
from numpyro_inverse.denoisers._certificate import Certificate as Certificate
from numpyro_inverse.denoisers._certify import certificate as certificate
from numpyro_inverse.denoisers._certify import jacobian_norm as jacobian_norm
from numpyro_inverse.denoisers._denoiser import Denoiser as Denoiser
from numpyro_inverse.denoisers._dncnn import DnCNN as DnCNN
from numpyro_inverse.denoisers._dncnn import load_dncnn as load_dncnn
from numpyro_inverse.denoisers._firmly_nonexpansive import FirmlyNonexpansiveDenoiser as FirmlyNonexpansiveDenoiser
from numpyro_inverse.denoisers._firmly_nonexpansive import LipschitzConvolution as LipschitzConvolution
from numpyro_inverse.denoisers._gradient_step import ConvolutionalNetwork as ConvolutionalNetwork
from numpyro_inverse.denoisers._gradient_step import GradientStepDenoiser as GradientStepDenoiser
from numpyro_inverse.denoisers._group_average import GroupAverage as GroupAverage
from numpyro_inverse.denoisers._group_average import square_symmetries as square_symmetries
from numpyro_inverse.denoisers._median import Median as Median
from numpyro_inverse.denoisers._norm_bounds import circular_convolution_norm as circular_convolution_norm
from numpyro_inverse.denoisers._norm_bounds import gram_bound as gram_bound
from numpyro_inverse.denoisers._norm_bounds import matrix_norm as matrix_norm
from numpyro_inverse.denoisers._norm_bounds import same_convolution_norm as same_convolution_norm
from numpyro_inverse.denoisers._norm_bounds import zero_padded_convolution_bound as zero_padded_convolution_bound
from numpyro_inverse.denoisers._recommendation import Recommendation as Recommendation
from numpyro_inverse.denoisers._total_variation import TotalVariation as TotalVariation
from numpyro_inverse.denoisers._wavelets import WaveletThreshold as WaveletThreshold
