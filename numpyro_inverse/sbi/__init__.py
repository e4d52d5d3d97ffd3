"""Simulation-based inference: laws and posteriors learned from simulations of the model itself."""

from numpyro_inverse.sbi._external import External as External
from numpyro_inverse.sbi._importance import Importance as Importance
from numpyro_inverse.sbi._neural_likelihood import NeuralLikelihood as NeuralLikelihood
from numpyro_inverse.sbi._neural_posterior import NeuralPosterior as NeuralPosterior
from numpyro_inverse.sbi._nle import NLE as NLE
from numpyro_inverse.sbi._npe import NPE as NPE
from numpyro_inverse.sbi._nre import NRE as NRE
from numpyro_inverse.sbi._nre import NeuralRatio as NeuralRatio
from numpyro_inverse.sbi._shattering import Shattering as Shattering
from numpyro_inverse.sbi._shattering import shattering as shattering
from numpyro_inverse.sbi._simulate import Simulations as Simulations
from numpyro_inverse.sbi._simulate import simulate as simulate
