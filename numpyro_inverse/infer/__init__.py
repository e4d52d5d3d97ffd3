"""Inference: coordinates, kernels, exact samplers, results."""

from numpyro_inverse.infer.arviz import to_arviz as to_arviz
from numpyro_inverse.infer.exact_gaussian import ExactGaussian as ExactGaussian
from numpyro_inverse.infer.inf_mala import InfMALA as InfMALA
from numpyro_inverse.infer.langevin import MALA as MALA
from numpyro_inverse.infer.langevin import ULA as ULA
from numpyro_inverse.infer.moreau_yosida import MoreauYosidaULA as MoreauYosidaULA
from numpyro_inverse.infer.nuts_settings import nuts_settings as nuts_settings
from numpyro_inverse.infer.pcn import PCN as PCN
from numpyro_inverse.infer.skrock import SKROCK as SKROCK
from numpyro_inverse.infer.step_size import lipschitz_constant as lipschitz_constant
from numpyro_inverse.infer.step_size import suggest_step_size as suggest_step_size
from numpyro_inverse.infer.tempered_sgld import TemperedSGLD as TemperedSGLD
from numpyro_inverse.infer.whiten import whiten as whiten
