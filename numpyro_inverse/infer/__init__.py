"""Inference: coordinates, kernels, exact samplers, results."""

from numpyro_inverse.infer.whiten import whiten as whiten
