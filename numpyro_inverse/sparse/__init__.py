"""Sparse Cholesky factorization in pure JAX: analyzed once on the host, factorized, differentiated and vectorized on
any device."""

from numpyro_inverse.sparse._analysis import analyze
from numpyro_inverse.sparse._cholesky import Cholesky
from numpyro_inverse.sparse._functions import inverse_upper, logdet, normal_log_density, solve, solve_and_logdet
from numpyro_inverse.sparse._pattern import Pattern

__all__ = [
    "Cholesky",
    "Pattern",
    "analyze",
    "inverse_upper",
    "logdet",
    "normal_log_density",
    "solve",
    "solve_and_logdet",
]
