"""Bayesian inverse problems in NumPyro."""
