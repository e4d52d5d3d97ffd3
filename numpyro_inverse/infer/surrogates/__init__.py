"""Emulators of forward maps, and their training where the posterior is."""

from numpyro_inverse.infer.surrogates._emulate import emulate as emulate
from numpyro_inverse.infer.surrogates._fit_surrogate import SurrogateFit as SurrogateFit
from numpyro_inverse.infer.surrogates._fit_surrogate import fit_surrogate as fit_surrogate
from numpyro_inverse.infer.surrogates._surrogate import Surrogate as Surrogate
