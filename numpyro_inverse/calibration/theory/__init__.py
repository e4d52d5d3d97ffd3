"""Studies of what theory says: contraction rates, dropout against the posterior, the temperature of a chain."""

from numpyro_inverse.calibration.theory._contraction import Contraction as Contraction
from numpyro_inverse.calibration.theory._contraction import GeneratorFamily as GeneratorFamily
from numpyro_inverse.calibration.theory._contraction import SobolevFamily as SobolevFamily
from numpyro_inverse.calibration.theory._contraction import contraction as contraction
from numpyro_inverse.calibration.theory._dropout import LinearProblem as LinearProblem
from numpyro_inverse.calibration.theory._dropout import dropconnect_covariance as dropconnect_covariance
from numpyro_inverse.calibration.theory._dropout import dropout_vs_posterior as dropout_vs_posterior
from numpyro_inverse.calibration.theory._dropout import hidden_dropout_covariance as hidden_dropout_covariance
from numpyro_inverse.calibration.theory._dropout import input_dropout_covariance as input_dropout_covariance
from numpyro_inverse.calibration.theory._dropout import mc_dropout as mc_dropout
from numpyro_inverse.calibration.theory._dropout import output_dropout_covariance as output_dropout_covariance
from numpyro_inverse.calibration.theory._dropout import two_layer_dropout_covariance as two_layer_dropout_covariance
from numpyro_inverse.calibration.theory._tempering import Tempering as Tempering
from numpyro_inverse.calibration.theory._tempering import measure_temperature as measure_temperature
