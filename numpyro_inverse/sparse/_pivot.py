"""Where a factorization failed: a report for people, made on the host."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_static
from numpyro_inverse.sparse import _numeric
from numpyro_inverse.sparse._cholesky import check_pattern
from numpyro_inverse.sparse._pattern import Pattern


class Pivot(NamedTuple):
    """A pivot that is not positive.

    Attributes:
        node: the row of the matrix at which elimination stopped.
        value: what was left on its diagonal, in the precision of the values: zero, negative or NaN.
    """

    node: int
    value: float


def first_bad_pivot(pattern: Pattern, values: Float[Array, " nnz"]) -> Pivot | None:
    """The first pivot, in the order of elimination, that is not positive; None for a positive definite matrix.

    For the report on a run that diverged: it eliminates on the host, level after level, and then node after node within
    the first front that fails. Not traced.

    Raises:
        TypeError: ``pattern`` is no pattern, or ``values`` are no real numbers or traced.
        ValueError: there are not as many values as the pattern has.
    """
    check_pattern("first_bad_pivot", pattern)
    values = jnp.asarray(pattern._check("first_bad_pivot", check_static("first_bad_pivot", "values", values)))
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    for level, (diagonal, inverse, _) in zip(pattern.levels, _numeric.eliminate(pattern, values), strict=True):
        failed = ~np.isfinite(np.asarray(inverse)).all((1, 2))
        if failed.any():
            front = int(np.argmax(failed))
            return _eliminate(np.asarray(diagonal)[front], np.asarray(level.nodes)[front])
    return None


def _eliminate(matrix: Any, nodes: Any) -> Pivot:
    left = np.tril(matrix) + np.tril(matrix, -1).T
    pivots = []
    for k in range(len(left)):
        pivots.append(left[k, k])
        if not left[k, k] > 0:
            break
        left[k + 1 :, k + 1 :] -= np.outer(left[k + 1 :, k], left[k, k + 1 :]) / left[k, k]
    k = int(np.argmin(pivots)) if pivots[-1] > 0 else len(pivots) - 1  # positive by rounding alone
    return Pivot(int(nodes[k]), float(pivots[k]))
