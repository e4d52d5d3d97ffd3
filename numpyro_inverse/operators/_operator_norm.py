"""The spectral norm of an operator: an estimate from below and, where one is known, a bound from above."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_key, check_positive_number
from numpyro_inverse.operators._linear_operator import LinearOperator, check_operator

HERE = "operator_norm"


class OperatorNorm(NamedTuple):
    """What is known of a largest singular value.

    Attributes:
        estimate: a **lower** bound of the norm, up to rounding: never a safe step-size limit by itself.
        upper_bound: a provable upper bound, infinite where none is known.
        certified: whether ``upper_bound`` is finite.
        iterations: power iterations spent.
    """

    estimate: Float[Array, ""]
    upper_bound: Float[Array, ""]
    certified: Bool[Array, ""]
    iterations: Array


def operator_norm(
    operator: LinearOperator, rng_key: PRNGKeyArray, *, tolerance: float = 1e-4, max_iterations: int = 1000
) -> OperatorNorm:
    r"""Estimate :math:`\|A\| = \max_{\|x\| = 1} \|A x\|` by power iteration on :math:`A^{\mathsf H} A`.

    The estimate :math:`\|A v\|`, :math:`\|v\| = 1`, rises towards the norm from below; iteration stops when it grows
    by a factor less than ``1 + tolerance * 0.1`` or after ``max_iterations``. A small growth does not prove
    convergence (two close singular values look the same), so only ``upper_bound``, which comes from
    ``operator.norm_bound()``, certifies anything. Can be compiled with ``jit``.

    Args:
        operator: real or complex.
        rng_key: for the starting vector.
        tolerance: relative accuracy aimed at.
        max_iterations: limit on applications of :math:`A^{\mathsf H} A`.

    Raises:
        TypeError: ``operator`` is no operator, ``rng_key`` no random key.
        ValueError: ``tolerance`` is not positive or ``max_iterations`` is below 1.

    References:
        G. H. Golub and C. F. Van Loan, *Matrix Computations*, 4th ed., section 8.2.
    """
    check_operator(HERE, "operator", operator)
    check_key(HERE, "rng_key", rng_key)
    tolerance = check_positive_number(HERE, "tolerance", tolerance)
    max_iterations = check_count(HERE, "max_iterations", max_iterations)
    real = jax.ShapeDtypeStruct(operator.in_shape, jnp.result_type(float))
    domain = jnp.result_type(real.dtype, jax.eval_shape(operator.mv, real).dtype)  # complex if the operator is

    def grow(state):
        v, estimate, _, iterations = state
        image = operator.mv(v / jnp.linalg.norm(v))
        return operator.H.mv(image), jnp.linalg.norm(image), estimate, iterations + 1

    def growing(state):
        v, estimate, previous, iterations = state
        unfinished = (estimate > previous * (1 + 0.1 * tolerance)) | (iterations < 3)
        return unfinished & (iterations < max_iterations) & (jnp.linalg.norm(v) > 0)

    zero = jnp.zeros((), real.dtype)
    start = (jax.random.normal(rng_key, operator.in_shape, domain), zero, zero, 0)
    _, estimate, previous, iterations = jax.lax.while_loop(growing, grow, start)
    bound = operator.norm_bound()
    return OperatorNorm(
        estimate=jnp.maximum(estimate, previous),
        upper_bound=jnp.asarray(jnp.inf if bound is None else bound, real.dtype),
        certified=jnp.asarray(bound is not None),
        iterations=iterations,
    )
