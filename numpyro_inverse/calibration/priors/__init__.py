"""Does a learned prior draw what it should, can it make the truth, and where in it is the posterior?"""

from numpyro_inverse.calibration.priors._effective_dimension import EffectiveDimension as EffectiveDimension
from numpyro_inverse.calibration.priors._effective_dimension import effective_dimension as effective_dimension
from numpyro_inverse.calibration.priors._latent_shift import LatentShift as LatentShift
from numpyro_inverse.calibration.priors._latent_shift import latent_shift as latent_shift
from numpyro_inverse.calibration.priors._manifold_distance import ManifoldDistance as ManifoldDistance
from numpyro_inverse.calibration.priors._manifold_distance import manifold_distance as manifold_distance
from numpyro_inverse.calibration.priors._prior_predictive import PriorPredictiveCheck as PriorPredictiveCheck
from numpyro_inverse.calibration.priors._prior_predictive import prior_predictive_check as prior_predictive_check
from numpyro_inverse.calibration.priors._projective_consistency import ProjectiveConsistency as ProjectiveConsistency
from numpyro_inverse.calibration.priors._projective_consistency import (
    check_projective_consistency as check_projective_consistency,
)
