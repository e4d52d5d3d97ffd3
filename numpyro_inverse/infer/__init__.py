"""Inference: coordinates, kernels, exact samplers, results."""

from numpyro_inverse.infer.arviz import to_arviz as to_arviz
from numpyro_inverse.infer.exact_gaussian import ExactGaussian as ExactGaussian
from numpyro_inverse.infer.langevin import MALA as MALA
from numpyro_inverse.infer.langevin import ULA as ULA
from numpyro_inverse.infer.nuts_settings import nuts_settings as nuts_settings
from numpyro_inverse.infer.whiten import whiten as whiten
