"""Priors and likelihoods as NumPyro distributions."""

from numpyro_inverse.distributions.flow import BijectionTransform as BijectionTransform
from numpyro_inverse.distributions.flow import Flow as Flow
from numpyro_inverse.distributions.matern import Matern as Matern
from numpyro_inverse.distributions.pushforward import Pushforward as Pushforward
from numpyro_inverse.distributions.reparametrized import ReparametrizedDistribution as ReparametrizedDistribution
from numpyro_inverse.distributions.sobolev import SobolevSequence as SobolevSequence
from numpyro_inverse.distributions.stationary import StationaryField as StationaryField
