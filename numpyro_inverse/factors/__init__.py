"""Potentials for ``numpyro.factor`` sites."""

from numpyro_inverse.factors._patches import expected_patch_log_likelihood as expected_patch_log_likelihood
