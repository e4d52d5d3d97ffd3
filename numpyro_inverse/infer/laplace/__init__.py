"""Gaussian sketches of a posterior: the prior's moments, and the directions that the data inform."""

from numpyro_inverse.infer.laplace._fisher_information import fisher_information as fisher_information
from numpyro_inverse.infer.laplace._informed_directions import InformedDirections as InformedDirections
from numpyro_inverse.infer.laplace._laplace_reference import LaplaceReference as LaplaceReference
from numpyro_inverse.infer.laplace._laplace_reference import informed_reference as informed_reference
from numpyro_inverse.infer.laplace._laplace_reference import laplace_reference as laplace_reference
from numpyro_inverse.infer.laplace._prior_reference import Reference as Reference
from numpyro_inverse.infer.laplace._prior_reference import prior_reference as prior_reference
