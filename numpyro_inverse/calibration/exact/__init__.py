"""Posteriors known exactly, and how far another one is from them."""

from numpyro_inverse.calibration.exact.compare import Comparison as Comparison
from numpyro_inverse.calibration.exact.compare import compare as compare
from numpyro_inverse.calibration.exact.conjugate import beta_binomial as beta_binomial
from numpyro_inverse.calibration.exact.conjugate import gamma_poisson as gamma_poisson
from numpyro_inverse.calibration.exact.conjugate import inverse_gamma_normal as inverse_gamma_normal
from numpyro_inverse.calibration.exact.conjugate import normal_normal as normal_normal
from numpyro_inverse.calibration.exact.linear_gaussian import linear_gaussian as linear_gaussian
from numpyro_inverse.calibration.exact.mixture import gaussian_mixture as gaussian_mixture
from numpyro_inverse.calibration.exact.quadrature import quadrature as quadrature
from numpyro_inverse.calibration.exact.reference import Reference as Reference
from numpyro_inverse.calibration.exact.sign_symmetric import SignSymmetric as SignSymmetric
