"""Priors and likelihoods as NumPyro distributions."""

from numpyro_inverse.distributions._autoregressive_field import AutoregressiveField as AutoregressiveField
from numpyro_inverse.distributions._barrier_matern import BarrierMatern as BarrierMatern
from numpyro_inverse.distributions._complex_normal import ComplexNormal as ComplexNormal
from numpyro_inverse.distributions._coregionalized import Coregionalized as Coregionalized
from numpyro_inverse.distributions._energy import Energy as Energy
from numpyro_inverse.distributions._flow import BijectionTransform as BijectionTransform
from numpyro_inverse.distributions._flow import Flow as Flow
from numpyro_inverse.distributions._fractional_matern import FractionalMatern as FractionalMatern
from numpyro_inverse.distributions._function_space_generator import (
    FunctionSpaceGenerator as FunctionSpaceGenerator,
)
from numpyro_inverse.distributions._matern import Matern as Matern
from numpyro_inverse.distributions._matern_kl import MaternKL as MaternKL
from numpyro_inverse.distributions._matern_mesh import MaternMesh as MaternMesh
from numpyro_inverse.distributions._nonstationary_matern import NonstationaryMatern as NonstationaryMatern
from numpyro_inverse.distributions._pc_priors import PCRange as PCRange
from numpyro_inverse.distributions._pc_priors import PCScale as PCScale
from numpyro_inverse.distributions._pushforward import Pushforward as Pushforward
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution as ReparametrizedDistribution
from numpyro_inverse.distributions._restrict_noise import restrict_noise as restrict_noise
from numpyro_inverse.distributions._simulator import Simulator as Simulator
from numpyro_inverse.distributions._sobolev_sequence import SobolevSequence as SobolevSequence
from numpyro_inverse.distributions._spectral_field import SpectralField as SpectralField
from numpyro_inverse.distributions._vector_of import VectorOf as VectorOf
