"""Solvers with trained parts: a few iterations, or infinitely many, as a network."""

from numpyro_inverse.solvers.unrolled._deep_equilibrium import DeepEquilibrium as DeepEquilibrium
from numpyro_inverse.solvers.unrolled._learned_primal_dual import LearnedPrimalDual as LearnedPrimalDual
from numpyro_inverse.solvers.unrolled._learned_proximal_gradient import (
    LearnedProximalGradient as LearnedProximalGradient,
)
from numpyro_inverse.solvers.unrolled._lista import AnalyticLISTA as AnalyticLISTA
from numpyro_inverse.solvers.unrolled._lista import CoupledLISTA as CoupledLISTA
from numpyro_inverse.solvers.unrolled._lista import analytic_weights as analytic_weights
from numpyro_inverse.solvers.unrolled._lista import coherence as coherence
from numpyro_inverse.solvers.unrolled._lista import soft_threshold as soft_threshold
from numpyro_inverse.solvers.unrolled._modl import MoDL as MoDL
from numpyro_inverse.solvers.unrolled._nonexpansive import NonexpansiveNetwork as NonexpansiveNetwork
