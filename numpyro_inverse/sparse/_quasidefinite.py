r"""Posterior precisions of fields whose own precision is a product of sparse matrices and an inverse.

The precision :math:`Q + H`, with :math:`Q = K^{\mathsf T} C^{-1} K` and a sparse :math:`H`, is dense where :math:`C` is
no diagonal matrix. It is a Schur complement of the sparse, quasi-definite

.. math:: M = \begin{pmatrix} C & K \\ K^{\mathsf T} & -H \end{pmatrix}, \qquad
    \log|\det M| = \log\det C + \log\det(Q + H), \qquad
    M \begin{pmatrix} p \\ x \end{pmatrix} = \begin{pmatrix} 0 \\ -b \end{pmatrix}
    \;\Leftrightarrow\; (Q + H) x = b .

Such matrices have a factorization :math:`M = L J L^{\mathsf T}`, :math:`J` a diagonal of known signs, in every order in
which both numbers of a node stand together (Vanderbei, SIAM J. Optim. 5, 1995, 100-113). So the fronts of
the sparse Cholesky factorization serve, each with twice its nodes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from numpyro_inverse.sparse import _numeric
from numpyro_inverse.sparse._analysis import LEAF_SIZE, _borders, _depth, _index, _pattern
from numpyro_inverse.sparse._ordering import nested_dissection
from numpyro_inverse.sparse._pattern import Pattern


class QuasiDefinitePattern(eqx.Module):
    r"""Where :math:`C`, :math:`K` and :math:`H` have entries, analyzed for the factorization of :math:`M`.

    A symmetric matrix on it is the vector of its lower triangle at ``(rows[k], cols[k])``, as on a :class:`Pattern`;
    :math:`K`, which need not be symmetric, is two: its values there, and those at ``(cols[k], rows[k])``.

    Attributes:
        rows: row of each value.
        cols: column of each value.
        diagonal: where the diagonal stands among the values.
        size: number of rows of each of the three matrices.
    """

    rows: Int[Array, " nnz"]
    cols: Int[Array, " nnz"]
    diagonal: Int[Array, " n"]
    doubled: Pattern  # of M: first numbers, second numbers, empty places
    source: Int[Array, " nnz_doubled"]  # where M's values come from: C, K's two triangles, H, then 1 and -1
    corner: Int[Array, " nnz"]  # where the values of -H stand among those of M
    size: int = eqx.field(static=True)

    def factor(self, c: Array, k: tuple[Array, Array], h: Array) -> QuasiDefinite:
        """The factorization of M; everything that is computed from it is NaN where it does not exist."""
        values = self._values(c, k, h)
        blocks = _factor(self.doubled, jax.lax.stop_gradient(values))
        return QuasiDefinite(self, values, jax.lax.stop_gradient(blocks))

    def _values(self, c: Array, k: tuple[Array, Array], h: Array) -> Float[Array, " nnz_doubled"]:
        dtype = jnp.result_type(c, *k, h, jnp.float32)
        parts = (c, *k, -h, jnp.asarray([1.0, -1.0]))
        return jnp.concatenate([part.astype(dtype) for part in parts])[self.source]


def analyze_quasidefinite(
    graph: sp.csr_array, coordinates: np.ndarray | None, last: int, leaf_size: int = LEAF_SIZE // 2
) -> QuasiDefinitePattern:
    """The pattern of matrices that have entries where ``graph`` has; the ``last`` nodes are in the root.

    Args:
        graph: symmetric, with its diagonal.
        coordinates: of all nodes but the last ones; None: nodes are ordered by the graph alone.
        last: number of nodes that touch most others.
        leaf_size: the largest number of nodes that are not split further.
    """
    size = graph.shape[0]
    inner = sp.csr_array(graph[: size - last, : size - last])
    inner.sort_indices()
    own = nested_dissection(inner, coordinates, leaf_size)
    own[0] = np.concatenate([own[0], np.arange(size - last, size)])
    # The same number of pairs in all fronts of a level: what is missing are empty pairs, which touch nothing.
    level = _depth(np.arange(len(own)))
    widest = [max(1, max(len(own[i]) for i in np.flatnonzero(level == d))) for d in range(int(level[-1]) + 1)]
    doubled, first = [], 2 * size
    for nodes, d in zip(own, level, strict=True):
        empty = first + np.arange(2 * (widest[d] - len(nodes)))
        first += len(empty)
        half = len(empty) // 2
        doubled.append(np.concatenate([nodes, empty[:half], size + nodes, empty[half:]]))
    pairs = sp.block_array([[graph, graph], [graph, graph]])  # `kron` would fill a small one
    whole = sp.csr_array(sp.block_diag([pairs, sp.eye_array(first - 2 * size)]))
    whole.data[:] = 1
    whole.sort_indices()
    pattern = _pattern(whole, doubled, _borders(whole, doubled))
    lower = sp.coo_array(sp.tril(graph, format="coo"))
    rows, cols = (np.asarray(axis, int) for axis in lower.coords)
    count = len(rows)
    entry = sp.csr_array((np.arange(1, count + 1), (rows, cols)), shape=(size, size))
    r, c = np.asarray(pattern.rows), np.asarray(pattern.cols)
    inside = r < 2 * size
    i, j = r % size * inside, c % size * inside
    at = np.asarray(entry[np.maximum(i, j), np.minimum(i, j)]).ravel() - 1
    corners = (r >= size) & (c >= size)
    block = np.where(r < size, 0, np.where(corners, 3, np.where(j >= i, 1, 2)))  # M[size + i, j] is K[j, i]
    negative = np.zeros(first, bool)
    for nodes in doubled:
        negative[nodes[len(nodes) // 2 :]] = True
    source = np.where(inside, at + block * count, 4 * count + negative[r])
    corner = np.zeros(count, int)
    corner[at[inside & corners]] = np.flatnonzero(inside & corners)
    diagonal = np.flatnonzero(rows == cols)
    diagonal = diagonal[np.argsort(rows[diagonal])]
    with jax.ensure_compile_time_eval():
        return QuasiDefinitePattern(
            _index(rows), _index(cols), _index(diagonal), pattern, _index(source), _index(corner), size
        )


class QuasiDefinite(eqx.Module):
    """The factorization of M, and what follows of it for Q + H; made by :meth:`QuasiDefinitePattern.factor`."""

    pattern: QuasiDefinitePattern
    values: Float[Array, " nnz_doubled"]
    blocks: Any

    def as_function_of(self, c: Array, k: tuple[Array, Array], h: Array) -> QuasiDefinite:
        """The same factorization, differentiated by other expressions of the same numbers."""
        return QuasiDefinite(self.pattern, self.pattern._values(c, k, h), self.blocks)

    def logdet(self) -> Float[Array, ""]:
        r""":math:`\log|\det M|`."""
        return _logdet(self.pattern.doubled, self.values, self.blocks)

    def solve(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        r""":math:`(Q + H)^{-1} b`; differentiable by what M is made of, too."""
        doubled, n = self.pattern.doubled, self.pattern.size
        signs = _signs(doubled, n, self.values.dtype)

        def solve(_, b):
            y = _numeric.inverse_lower(doubled, self.blocks, b[:, None])
            found = _numeric.inverse_upper(doubled, self.blocks, signs[:, None] * y)[:, 0]
            return jnp.where(jnp.isfinite(_numeric.log_determinant(self.blocks)), found, jnp.nan)

        whole = jnp.zeros(doubled.size, self.values.dtype).at[n : 2 * n].set(-b)
        return jax.lax.custom_linear_solve(partial(doubled.mv, self.values), whole, solve, symmetric=True)[n : 2 * n]

    def selected_inverse(self) -> Float[Array, " nnz"]:
        r""":math:`(Q + H)^{-1}` on the pattern."""
        return -_selected_inverse(self.pattern.doubled, self.values, self.blocks)[self.pattern.corner]


def _signs(doubled: Pattern, n: int, dtype: Any) -> Float[Array, " n_doubled"]:
    """J, node by node: what stands in the first half of its front is positive."""
    halves = [
        jnp.tile(jnp.repeat(jnp.asarray([1.0, -1.0], dtype), own // 2), number)
        for number, own, _ in (level.size for level in doubled.levels)
    ]
    return jnp.concatenate(halves)[doubled.places]


def _factor(pattern: Pattern, values: Float[Array, " nnz"]) -> _numeric.Blocks:
    """As ``_numeric.factor``, with the signs."""
    update: Array | None = None
    start, found = 0, []
    for level in pattern.levels:
        number, own, border = level.size
        stop = start + level.slots.shape[-1]
        panel = jnp.zeros(number * (own + border) * own, values.dtype)
        panel = panel.at[level.slots].set(values[start:stop], unique_indices=True, mode="promise_in_bounds")
        panel = panel.reshape(number, own + border, own)
        start = stop
        if update is not None:
            panel = panel + _numeric._extend(update, level, slice(None), slice(own))
        panel = _numeric._settled(panel)
        inverse = _signed_inverse_root(panel[:, :own])
        signs = jnp.repeat(jnp.asarray([1.0, -1.0], values.dtype), own // 2)
        l21 = (_numeric._settled(panel[:, own:]) @ _numeric._t(inverse)) * signs
        found.append((inverse, l21))
        if level.parent is not None:
            rest = -_numeric._settled((l21 * signs) @ _numeric._t(l21))
            if update is not None:
                rest = rest + _numeric._extend(update, level, slice(own, None), slice(own, None))
            update = _numeric._settled(rest)
    return tuple(found)


def _signed_inverse_root(a: Float[Array, "b s s"]) -> Float[Array, "b s s"]:
    r""":math:`L^{-1}` of :math:`A = L J L^{\mathsf T}`, half of the signs positive, by blocks:
    :math:`A_{11} = L_1 L_1^{\mathsf T}`, :math:`E = A_{21} L_1^{-\mathsf T}`,
    :math:`E E^{\mathsf T} - A_{22} = L_2 L_2^{\mathsf T}`."""
    half = a.shape[-1] // 2
    one = _numeric.inverse_root(a[:, :half, :half])
    e = a[:, half:, :half] @ _numeric._t(one)
    two = _numeric.inverse_root(e @ _numeric._t(e) - a[:, half:, half:])
    corner = -(two @ e @ one)
    return jnp.concatenate(
        [jnp.concatenate([one, jnp.zeros_like(one)], axis=2), jnp.concatenate([corner, two], axis=2)], axis=1
    )


def _invert(pattern: Pattern, blocks: _numeric.Blocks) -> Float[Array, " nnz"]:
    """As ``_numeric.selected_inverse``, with the signs."""
    found: list[Array] = []
    whole: Array | None = None
    for k in reversed(range(len(blocks))):
        level, (inverse, l21) = pattern.levels[k], blocks[k]
        own = level.size[1]
        signs = jnp.repeat(jnp.asarray([1.0, -1.0], inverse.dtype), own // 2)
        z22 = _numeric._restrict(whole, level, inverse.dtype)
        w = _numeric._settled(l21 @ inverse)
        z21 = _numeric._settled(-(_numeric._settled(z22) @ w))
        z11 = (_numeric._t(inverse) * signs) @ inverse - _numeric._t(w) @ z21
        panel = _numeric._settled(jnp.concatenate([z11, z21], axis=1))
        found.append(panel.reshape(-1).at[level.slots].get(unique_indices=True, mode="promise_in_bounds"))
        if k:
            whole = jnp.concatenate([panel, jnp.pad(z22, ((0, 0), (own, 0), (0, 0)))], axis=2)
            whole = _numeric._settled(whole)
    return jnp.concatenate(found[::-1])


@jax.custom_jvp
def _logdet(pattern, values, blocks):
    return _numeric.log_determinant(blocks)


@_logdet.defjvp
def _logdet_jvp(primals, tangents):
    pattern, values, blocks = primals
    both = jnp.where(pattern.rows == pattern.cols, 1, 2)
    inverse = _selected_inverse(pattern, values, blocks)
    return _logdet(pattern, values, blocks), jnp.sum(both * inverse * tangents[1])


@jax.custom_jvp
def _selected_inverse(pattern, values, blocks):
    found = _invert(pattern, blocks)
    return jnp.where(jnp.isfinite(_numeric.log_determinant(blocks)), found, jnp.nan)


@_selected_inverse.defjvp
def _selected_inverse_jvp(primals, tangents):
    pattern, values, blocks = primals

    def again(values):
        return _invert(pattern, _factor(pattern, values))

    return _selected_inverse(pattern, values, blocks), jax.jvp(again, (values,), (tangents[1],))[1]
