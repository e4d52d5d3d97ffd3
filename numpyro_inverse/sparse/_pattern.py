"""Where a symmetric sparse matrix has entries, and how its Cholesky factorization goes through them."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from numpyro_inverse._arrays import as_jax
from numpyro_inverse._checks import check_callable, check_real
from numpyro_inverse.sparse._matrix import canonical
from numpyro_inverse.sparse._row_sums import row_sums

if TYPE_CHECKING:
    from numpyro_inverse.sparse._cholesky import Cholesky

Solver = Callable[
    [Int[Array, " nnz"], Int[Array, " nnz"], Float[Array, " nnz"], Float[Array, "n *k"]], Float[Array, "n *k"]
]


class Level(eqx.Module):
    """The fronts at one depth of the tree of separators, all padded to the same size.

    A front is a dense matrix over its own nodes (S of them) followed by its border (U): the nodes further up the tree
    that its part of the graph touches. The last place of every border is empty.
    """

    nodes: Int[Array, "B S"]  # own nodes; n where there is none
    slots: Int[Array, " entries"]  # where the matrix's entries go in the fronts' first S columns, shape (B, S + U, S)
    children: Int[Array, "B 2 F"] | None  # for each place of a front, the place in the border of each child; the last
    parent: Int[Array, "B U"] | None  # for each place of a border, the place in the parent's front

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of fronts, own nodes and border."""
        number, own = self.nodes.shape
        return number, own, 1 if self.parent is None else self.parent.shape[1]


class Pattern(eqx.Module):
    r"""Where a symmetric matrix :math:`A` of :math:`n` rows has entries, analyzed for Cholesky factorization.

    A matrix on the pattern is the vector ``values`` of its lower triangle: ``values[k]`` stands at row ``rows[k]`` and
    column ``cols[k] <= rows[k]``, *and* at the mirrored place. The order is the factorization's own. Each value of the
    vector is one parameter, so the derivative with respect to one off the diagonal counts both places.

    A pytree of integer arrays: give it to a compiled function as an argument, not by closure. Made by :func:`analyze`.

    Attributes:
        rows: row of each value.
        cols: column of each value, not above the row.
        diagonal: where the diagonal stands among the values: ``values[diagonal[i]]`` is the entry ``(i, i)``.
        size: number :math:`n` of rows.
        solver: what solves in the place of the pattern's own factorization, or None; see :meth:`with_solver`.
    """

    rows: Int[Array, " nnz"]
    cols: Int[Array, " nnz"]
    diagonal: Int[Array, " n"]
    levels: tuple[Level, ...]  # the deepest first
    places: Int[Array, " n"]  # of each node among the nodes of all levels, one after the other
    sums: tuple[Int[Array, "rows width"], ...]  # sum over the entries of a row by gathers alone; see `row_sums`
    size: int = eqx.field(static=True)
    solver: Solver | None = eqx.field(static=True, default=None)

    @property
    def num_values(self) -> int:
        """Number of entries of the lower triangle, the diagonal included."""
        return self.rows.shape[-1]

    @property
    def num_factor_values(self) -> int:
        """Numbers that a factor holds, padding included; times 8 bytes in double precision is its memory."""
        return sum(number * own * (own + border) for number, own, border in (level.size for level in self.levels))

    def values(self, matrix: sp.sparray) -> Float[Array, " nnz"]:
        """The values of a scipy matrix whose entries lie within the pattern, in the pattern's order. Not traced.

        Raises:
            TypeError: ``matrix`` is no scipy sparse matrix of real numbers.
            ValueError: it is not square, finite and symmetric, is of another size, or has an entry outside the pattern.
        """
        lower = sp.coo_array(sp.tril(canonical("Pattern.values", matrix, self.size), format="coo"))
        order = np.argsort(key := self._key(np.asarray(self.rows), np.asarray(self.cols)))
        wanted = self._key(*lower.coords)
        found = order[np.minimum(np.searchsorted(key, wanted, sorter=order), len(order) - 1)]
        outside = (key[found] != wanted) & (lower.data != 0)
        if outside.any():
            i = np.argmax(outside)
            raise ValueError(
                f"Pattern.values: `matrix` has {outside.sum()} entries outside the pattern, the first at row "
                f"{lower.coords[0][i]}, column {lower.coords[1][i]}; analyze a matrix that has all of them."
            )
        values = np.zeros(self.num_values)
        inside = key[found] == wanted
        values[found[inside]] = lower.data[inside]
        return as_jax(values)

    def _key(self, rows, cols):
        return rows.astype(np.int64) * self.size + cols

    def matrix(self, values: Float[Array, " nnz"]) -> sp.csr_array:
        """The scipy matrix, both triangles, of some values. Not traced."""
        values = np.asarray(self._check("Pattern.matrix", values))
        lower = sp.coo_array((values, (np.asarray(self.rows), np.asarray(self.cols))), shape=(self.size, self.size))
        return sp.csr_array(lower + sp.tril(lower, -1).T)

    def mv(self, values: Float[Array, " nnz"], x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        """The product of the matrix with a vector, or with the columns of a matrix."""
        self._check("Pattern.mv", values)
        self._check_rows("Pattern.mv", "x", x)
        tail = (slice(None), *[None] * (jnp.ndim(x) - 1))
        x, values = jnp.asarray(x), jnp.asarray(values)[tail]
        below = values * x[self.cols]
        above = jnp.where((self.rows != self.cols)[tail], values * x[self.rows], 0)
        return row_sums(self.sums, jnp.concatenate([below, above]))

    def factor(self, values: Float[Array, " nnz"]) -> "Cholesky":
        """The Cholesky factor of the matrix with these values; see :class:`Cholesky`. NaN if not positive definite.

        Raises:
            TypeError: ``values`` are not real numbers.
            ValueError: there are not as many values as the pattern has.
        """
        from numpyro_inverse.sparse._cholesky import Cholesky  # the factor refers to its pattern

        return Cholesky(self, jnp.asarray(self._check("Pattern.factor", values)))

    def with_solver(self, solver: Solver | None) -> "Pattern":
        r"""The same pattern, whose :meth:`Cholesky.solve` is another library's, such as :func:`cholmod`.

        Everything else that a factor gives (log determinant, triangular products, the inverse on the pattern) stays
        our own and is computed only where it is asked for. The solver needs no derivatives: those of
        :meth:`Cholesky.solve` are products with the matrix, and solutions.

        >>> import jax.scipy, scipy.sparse as sp
        >>> pattern = ni.sparse.analyze(sp.eye_array(3))
        >>> def dense(rows, cols, values, b):  # or one on a GPU
        ...     lower = jnp.zeros((len(b), len(b))).at[rows, cols].set(values)
        ...     return jax.scipy.linalg.solve(lower + jnp.tril(lower, -1).T, b, assume_a="pos")
        >>> pattern.with_solver(dense).factor(2 * jnp.ones(3)).solve(jnp.ones(3)).round(4)
        Array([0.5, 0.5, 0.5], dtype=float32)

        Args:
            solver: a function of rows, columns and values of the lower triangle and of the right-hand side, a vector or
                the columns of a matrix, which returns :math:`A^{-1} b` in JAX; NaN if :math:`A` is not positive
                definite. None: the pattern's own.

        Raises:
            TypeError: ``solver`` is no function.
        """
        if solver is not None:
            check_callable("Pattern.with_solver", "solver", solver, "a function of rows, columns, values and b")
        return dataclasses.replace(self, solver=solver)

    def _check(self, where, values):
        values = check_real(where, "values", values)
        if jnp.shape(values) != (self.num_values,):
            raise ValueError(
                f"{where}: `values` must have shape ({self.num_values},), one for each entry of the lower triangle; "
                f"got shape {jnp.shape(values)}. Use `jax.vmap` for several matrices."
            )
        return values

    def _check_rows(self, where, argument, x):
        x = check_real(where, argument, x)
        if jnp.ndim(x) not in (1, 2) or jnp.shape(x)[0] != self.size:
            raise ValueError(
                f"{where}: `{argument}` must have shape ({self.size},) or ({self.size}, k); got {jnp.shape(x)}."
            )
        return x
