"""Gaussian sketches of a posterior: the prior's moments, and the directions that the data inform."""

from numpyro_inverse.infer.laplace._gauss_newton import fisher_information as fisher_information
from numpyro_inverse.infer.laplace._gauss_newton import laplace_reference as laplace_reference
