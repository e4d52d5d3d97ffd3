"""Forward maps as pytrees: linear operators with exact adjoints."""

from numpyro_inverse.operators.convolution import Convolution as Convolution
from numpyro_inverse.operators.downsample import Downsample as Downsample
from numpyro_inverse.operators.fourier import Fourier as Fourier
from numpyro_inverse.operators.kronecker import Kronecker as Kronecker
from numpyro_inverse.operators.linear_operator import Composition as Composition
from numpyro_inverse.operators.linear_operator import LinearOperator as LinearOperator
from numpyro_inverse.operators.linear_operator import Stack as Stack
from numpyro_inverse.operators.linear_operator import Sum as Sum
from numpyro_inverse.operators.mask import Mask as Mask
from numpyro_inverse.operators.matrix import Matrix as Matrix
from numpyro_inverse.operators.operator_norm import OperatorNorm as OperatorNorm
from numpyro_inverse.operators.operator_norm import operator_norm as operator_norm
from numpyro_inverse.operators.point_observation import PointObservation as PointObservation
from numpyro_inverse.operators.radon import Radon as Radon
from numpyro_inverse.operators.separable_convolution import SeparableConvolution as SeparableConvolution
