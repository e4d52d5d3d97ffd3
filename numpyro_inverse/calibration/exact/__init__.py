"""Posteriors known exactly, and how far another one is from them."""

from numpyro_inverse.calibration.exact._compare import Comparison as Comparison
from numpyro_inverse.calibration.exact._compare import compare as compare
from numpyro_inverse.calibration.exact._conjugate import beta_binomial as beta_binomial
from numpyro_inverse.calibration.exact._conjugate import gamma_poisson as gamma_poisson
from numpyro_inverse.calibration.exact._conjugate import inverse_gamma_normal as inverse_gamma_normal
from numpyro_inverse.calibration.exact._conjugate import normal_normal as normal_normal
from numpyro_inverse.calibration.exact._linear_gaussian import linear_gaussian as linear_gaussian
from numpyro_inverse.calibration.exact._mixture import gaussian_mixture as gaussian_mixture
from numpyro_inverse.calibration.exact._quadrature import quadrature as quadrature
from numpyro_inverse.calibration.exact._reference import Reference as Reference
from numpyro_inverse.calibration.exact._sign_symmetric import SignSymmetric as SignSymmetric
