"""Solutions by CHOLMOD, a host library."""

from functools import lru_cache
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from numpyro_inverse._checks import check_real, describe
from numpyro_inverse._on_host import on_host

PATTERNS = 16  # whose analyses are kept
FACTORS = 4  # of the last matrices on a pattern, which are kept: of so many vectorized chains


def cholmod(
    rows: Int[Array, " nnz"], cols: Int[Array, " nnz"], values: Float[Array, " nnz"], b: Float[Array, "n *k"]
) -> Float[Array, "n *k"]:
    r""":math:`A^{-1} b` by CHOLMOD's supernodes on the host, in double precision; needs the extra ``cholmod``.

    For :meth:`Pattern.with_solver` and :meth:`~numpyro_inverse.domains.Mesh.with_solver`, where a field on a large
    mesh is whitened: at :math:`10^5` nodes in the plane a value and gradient takes half the time of our own solutions,
    and next to none to compile. A pattern is analyzed once, and the factors of its last four matrices are kept, so that
    the solutions of a gradient share one. Several matrices are factorized one after the other, also those of parallel
    chains.

    NaN if :math:`A` is not positive definite, which a sampler counts as a divergence.

    Args:
        rows: row of each value.
        cols: its column, not above the row.
        values: the lower triangle.
        b: a vector, or the columns of a matrix.

    Raises:
        TypeError: no integers, or no real numbers.
        ValueError: shapes that do not fit.
        ImportError: the extra is not installed.

    References:
        Chen, Davis, Hager & Rajamanickam, ACM Trans. Math. Softw. 35 (2008) 22 (CHOLMOD). The binding is CVXOPT.
    """
    try:
        import cvxopt  # noqa: F401
    except ImportError as error:
        raise ImportError("cholmod needs CVXOPT: `pip install numpyro-inverse[cholmod]`.") from error
    where = "cholmod"
    values, b = (jnp.asarray(check_real(where, name, x)) for name, x in (("values", values), ("b", b)))
    for name, places in (("rows", rows), ("cols", cols)):
        if not jnp.issubdtype(jnp.asarray(check_real(where, name, places)).dtype, jnp.integer):
            raise TypeError(f"{where}: `{name}` must be integers; got {describe(places)}.")
    shapes = {jnp.shape(rows), jnp.shape(cols), values.shape}
    if len(shapes) > 1 or values.ndim != 1:
        raise ValueError(
            f"{where}: `rows`, `cols` and `values` must have one shape (nnz,); got {jnp.shape(rows)}, "
            f"{jnp.shape(cols)} and {values.shape}."
        )
    if b.ndim not in (1, 2) or len(b) == 0:
        raise ValueError(f"{where}: `b` must have shape (n,) or (n, k), n > 0; got {b.shape}.")
    rows, cols = (jnp.asarray(places, jnp.int32) for places in (rows, cols))
    return on_host(_solve, jax.ShapeDtypeStruct(b.shape, b.dtype), rows, cols, values, b, vmap_method="sequential")


class _Analysis:
    """CHOLMOD's analysis of a pattern, and the factors of the last matrices on it."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, size: int):
        from cvxopt import spmatrix

        self.order = np.lexsort((rows, cols))  # column by column
        self.matrix = spmatrix(1.0, rows, cols, (size, size))
        self.kept: list[tuple[np.ndarray, Any]] = []  # values and factor, the last one used at the end
        self.lock = Lock()

    def solve(self, values: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The solution, or NaN."""
        from cvxopt import cholmod, matrix

        with self.lock:
            try:
                factor = self._factor(values)
            except ArithmeticError:  # a pivot that is not positive
                return np.full_like(b, np.nan)
            x = matrix(b)
            cholmod.solve(factor, x)
        return np.asarray(x).reshape(b.shape)

    def _factor(self, values: np.ndarray) -> Any:
        from cvxopt import cholmod, matrix

        known = next((k for k, (other, _) in enumerate(self.kept) if np.array_equal(values, other)), None)
        if known is None:
            factor = self.kept.pop(0)[1] if len(self.kept) == FACTORS else cholmod.symbolic(self.matrix)
            self.matrix.V = matrix(values[self.order])
            cholmod.numeric(self.matrix, factor)
        else:
            values, factor = self.kept.pop(known)
        self.kept.append((values, factor))
        return factor


@lru_cache(PATTERNS)
def _analyzed(rows: bytes, cols: bytes, size: int) -> _Analysis:
    return _Analysis(np.frombuffer(rows, np.int32), np.frombuffer(cols, np.int32), size)


def _solve(rows: np.ndarray, cols: np.ndarray, values: np.ndarray, b: np.ndarray) -> np.ndarray:
    analysis = _analyzed(rows.tobytes(), cols.tobytes(), len(b))
    return analysis.solve(np.array(values, float), np.array(b, float))
