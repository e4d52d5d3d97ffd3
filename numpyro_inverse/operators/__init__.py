"""Forward maps as pytrees: linear operators with exact adjoints; external models; checks of derivatives."""

from numpyro_inverse.operators._block_average import BlockAverage as BlockAverage
from numpyro_inverse.operators._check_adjoint import AdjointCheck as AdjointCheck
from numpyro_inverse.operators._check_adjoint import check_adjoint as check_adjoint
from numpyro_inverse.operators._check_gradient import GradientCheck as GradientCheck
from numpyro_inverse.operators._check_gradient import check_gradient as check_gradient
from numpyro_inverse.operators._convolution import Convolution as Convolution
from numpyro_inverse.operators._external import ExternalError as ExternalError
from numpyro_inverse.operators._external import ExternalLinear as ExternalLinear
from numpyro_inverse.operators._external import ExternalMap as ExternalMap
from numpyro_inverse.operators._external import external as external
from numpyro_inverse.operators._fourier import Fourier as Fourier
from numpyro_inverse.operators._kronecker import Kronecker as Kronecker
from numpyro_inverse.operators._linear_operator import Composition as Composition
from numpyro_inverse.operators._linear_operator import LinearOperator as LinearOperator
from numpyro_inverse.operators._linear_operator import Stack as Stack
from numpyro_inverse.operators._linear_operator import Sum as Sum
from numpyro_inverse.operators._mask import Mask as Mask
from numpyro_inverse.operators._matrix import Matrix as Matrix
from numpyro_inverse.operators._operator_norm import OperatorNorm as OperatorNorm
from numpyro_inverse.operators._operator_norm import operator_norm as operator_norm
from numpyro_inverse.operators._point_observation import PointObservation as PointObservation
from numpyro_inverse.operators._radon import Radon as Radon
from numpyro_inverse.operators._separable_convolution import SeparableConvolution as SeparableConvolution
from numpyro_inverse.operators._umbridge import umbridge as umbridge
