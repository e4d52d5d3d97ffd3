"""The factorization as functions of values, for those who want one result of it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_real
from numpyro_inverse.sparse._cholesky import check_pattern
from numpyro_inverse.sparse._pattern import Pattern


def logdet(pattern: Pattern, values: Float[Array, " nnz"]) -> Float[Array, ""]:
    r""":math:`\log\det A`. Its gradient is :math:`[A^{-1}]_{ii}` on the diagonal and :math:`2 [A^{-1}]_{ij}` off it,
    for a value there stands at two places; NaN if :math:`A` is not positive definite."""
    return check_pattern("logdet", pattern).factor(values).logdet()


def solve(pattern: Pattern, values: Float[Array, " nnz"], b: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    r""":math:`A^{-1} b`. Its derivatives are solves with the same factor; NaN if :math:`A` is not positive definite."""
    return check_pattern("solve", pattern).factor(values).solve(b)


def solve_and_logdet(
    pattern: Pattern, values: Float[Array, " nnz"], b: Float[Array, "n *k"]
) -> tuple[Float[Array, "n *k"], Float[Array, ""]]:
    r""":math:`A^{-1} b` and :math:`\log\det A` from one factorization."""
    factor = check_pattern("solve_and_logdet", pattern).factor(values)
    return factor.solve(b), factor.logdet()


def inverse_upper(pattern: Pattern, values: Float[Array, " nnz"], z: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    r""":math:`L^{-\mathsf T} z`, a draw from :math:`N(0, A^{-1})` if z is white noise; differentiable by both."""
    return check_pattern("inverse_upper", pattern).factor(values).inverse_upper(z)


def normal_log_density(pattern: Pattern, values: Float[Array, " nnz"], x: Float[Array, " n"]) -> Float[Array, ""]:
    r"""The log density of :math:`N(0, A^{-1})`, the normal law whose precision is on the pattern:

    .. math:: \tfrac12 \log\det A - \tfrac12 x^{\mathsf T} A x - \tfrac n2 \log 2\pi.

    Raises:
        TypeError: no pattern, no numbers.
        ValueError: numbers of another shape; several x need ``jax.vmap``.
    """
    where = "normal_log_density"
    x = check_real(where, "x", x)
    if jnp.shape(x) != (check_pattern(where, pattern).size,):
        raise ValueError(
            f"{where}: `x` must have shape ({pattern.size},); got shape {jnp.shape(x)}. `jax.vmap` makes batches."
        )
    x, factor = jnp.asarray(x), pattern.factor(values)
    quadratic = jnp.vdot(x, pattern.mv(factor.values, x))
    return 0.5 * (factor.logdet() - quadratic - pattern.size * jnp.log(2 * jnp.pi))
