"""Sparse Cholesky factorization in pure JAX: analyzed once on the host, factorized, differentiated and vectorized on
any device."""

from numpyro_inverse.sparse._analysis import analyze
from numpyro_inverse.sparse._block_tridiagonal import Blocks, BlockTridiagonal
from numpyro_inverse.sparse._cholesky import Cholesky
from numpyro_inverse.sparse._cholmod import cholmod
from numpyro_inverse.sparse._functions import inverse_upper, logdet, normal_log_density, solve, solve_and_logdet
from numpyro_inverse.sparse._pattern import Pattern, Solver
from numpyro_inverse.sparse._pivot import Pivot, first_bad_pivot

__all__ = [
    "BlockTridiagonal",
    "Blocks",
    "Cholesky",
    "Pattern",
    "Pivot",
    "Solver",
    "analyze",
    "cholmod",
    "first_bad_pivot",
    "inverse_upper",
    "logdet",
    "normal_log_density",
    "solve",
    "solve_and_logdet",
]
