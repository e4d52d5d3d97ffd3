"""Solutions by CHOLMOD, a host library."""

from functools import lru_cache
from threading import Lock

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from numpyro_inverse._on_host import on_host

PATTERNS = 16  # whose analyses, and last factors, are kept


def cholmod(
    rows: Int[Array, " nnz"], cols: Int[Array, " nnz"], values: Float[Array, " nnz"], b: Float[Array, "n *k"]
) -> Float[Array, "n *k"]:
    r""":math:`A^{-1} b` by CHOLMOD's supernodes on the host, in double precision; needs the extra ``cholmod``.

    For :meth:`Pattern.with_solver` and :meth:`Mesh.with_solver`, where a field on a large mesh is whitened: at
    :math:`10^5` nodes in the plane a value and gradient takes half the time of our own solutions, and next to none to
    compile. A pattern is analyzed once, and its last factor is kept, so that the solutions of a gradient share one.
    Several matrices are factorized one after the other, those of parallel chains too.

    NaN if :math:`A` is not positive definite, which a sampler counts as a divergence.

    Args:
        rows: row of each value.
        cols: its column, not above the row.
        values: the lower triangle.
        b: a vector, or the columns of a matrix.

    Raises:
        ImportError: the extra is not installed.

    References:
        Chen, Davis, Hager & Rajamanickam, ACM Trans. Math. Softw. 35 (2008) 22 (CHOLMOD). The binding is CVXOPT.
    """
    try:
        import cvxopt  # noqa: F401
    except ImportError as error:
        raise ImportError("cholmod needs CVXOPT: `pip install numpyro-inverse[cholmod]`.") from error
    return on_host(_solve, jax.ShapeDtypeStruct(b.shape, b.dtype), rows, cols, values, b, vmap_method="sequential")


class _Analysis:
    """CHOLMOD's analysis of a pattern, and the factor of the last matrix on it."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, size: int):
        from cvxopt import cholmod, spmatrix

        self.order = np.lexsort((rows, cols))  # column by column
        self.matrix = spmatrix(1.0, rows, cols, (size, size))
        self.factor = cholmod.symbolic(self.matrix)
        self.values = np.zeros(0)
        self.lock = Lock()

    def solve(self, values: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The solution, or NaN."""
        from cvxopt import cholmod, matrix

        with self.lock:
            if not np.array_equal(values, self.values):
                self.values = np.zeros(0)
                self.matrix.V = matrix(values[self.order])
                try:
                    cholmod.numeric(self.matrix, self.factor)
                except ArithmeticError:  # a pivot that is not positive
                    return np.full_like(b, np.nan)
                self.values = values
            x = matrix(b)
            cholmod.solve(self.factor, x)
        return np.asarray(x).reshape(b.shape)


@lru_cache(PATTERNS)
def _analyzed(rows: bytes, cols: bytes, size: int) -> _Analysis:
    return _Analysis(np.frombuffer(rows, np.int32), np.frombuffer(cols, np.int32), size)


def _solve(rows: np.ndarray, cols: np.ndarray, values: np.ndarray, b: np.ndarray) -> np.ndarray:
    analysis = _analyzed(rows.tobytes(), cols.tobytes(), len(b))
    return analysis.solve(np.array(values, float), np.array(b, float))
