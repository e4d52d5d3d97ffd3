"""Inference: coordinates, kernels, exact samplers, results."""

from numpyro_inverse.infer.arviz import to_arviz as to_arviz
from numpyro_inverse.infer.whiten import nuts_settings as nuts_settings
from numpyro_inverse.infer.whiten import whiten as whiten
