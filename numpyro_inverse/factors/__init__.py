"""Potentials as priors: factor sites of a model, and what ``distributions.Energy`` takes."""

from numpyro_inverse.factors._denoising import RED as RED
from numpyro_inverse.factors._denoising import GradientStep as GradientStep
from numpyro_inverse.factors._denoising import Score as Score
from numpyro_inverse.factors._moreau_envelope import MoreauEnvelope as MoreauEnvelope
from numpyro_inverse.factors._patches import expected_patch_log_likelihood as expected_patch_log_likelihood
from numpyro_inverse.factors._potential import Potential as Potential
