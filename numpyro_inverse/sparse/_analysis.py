"""Symbolic analysis, once on the host: from a sparse matrix to the pattern of its factorization."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float

from numpyro_inverse._arrays import as_jax
from numpyro_inverse._checks import check_count, check_finite
from numpyro_inverse.sparse._matrix import canonical
from numpyro_inverse.sparse._ordering import neighbors, nested_dissection
from numpyro_inverse.sparse._pattern import Level, Pattern
from numpyro_inverse.sparse._row_sums import runs

LEAF_SIZE = 48


def analyze(
    matrix: sp.sparray,
    coordinates: Float[Array, "n d"] | None = None,
    *,
    leaf_size: int = LEAF_SIZE,
) -> Pattern:
    r"""Orders the nodes of a symmetric sparse matrix and finds where its Cholesky factor has entries.

    The order is nested dissection: a separator splits the graph into two halves that do not touch, and is eliminated
    after both; the halves are split in the same way, down to ``leaf_size`` nodes. All separators of one depth are
    factorized at the same time, as one batch of dense matrices padded to the size of the largest (the multifrontal
    method: Duff and Reid, ACM Trans. Math. Softw. 9, 1983; Liu, SIAM Review 34, 1992). On a mesh of
    :math:`n` nodes the factor has :math:`O(n \log n)` numbers in two dimensions and :math:`O(n^{4/3})` in three, and
    takes :math:`O(n^{3/2})` and :math:`O(n^2)` operations (George, SIAM J. Numer. Anal. 10, 1973).

    Args:
        matrix: a symmetric scipy matrix, with all the entries that a matrix on the pattern may have. Explicit zeros
            count; the numbers do not matter. The diagonal is always in the pattern.
        coordinates: places of the nodes, with which halves are found by cutting across the widest extent. Without
            them, cuts go along distances in the graph: for any matrix, with larger separators on a mesh.
        leaf_size: the largest number of nodes that are not split further.

    Returns:
        the pattern: all index arrays of the numeric factorization, which is pure JAX.

    Raises:
        TypeError: ``matrix`` is no scipy sparse matrix of real numbers.
        ValueError: it is not square, not finite or not symmetric, ``coordinates`` do not have a finite row for each
            node, or ``leaf_size`` is no positive integer.
    """
    matrix = canonical("analyze", matrix)
    n = matrix.shape[0]
    leaf_size = check_count("analyze", "leaf_size", leaf_size)
    if coordinates is not None:
        coordinates = np.asarray(check_finite("analyze", "coordinates", coordinates), float)
        if coordinates.ndim != 2 or coordinates.shape[0] != n or coordinates.shape[1] == 0:
            raise ValueError(f"analyze: `coordinates` must have shape ({n}, d), d > 0; got {coordinates.shape}.")
    matrix.data[:] = 1
    matrix = sp.csr_array(matrix + matrix.T + sp.eye_array(n, format="csr"))
    matrix.sort_indices()
    own = nested_dissection(matrix, coordinates, leaf_size)
    return _pattern(matrix, own, _borders(matrix, own))


def _borders(matrix: sp.csr_array, own: list[np.ndarray]) -> list[np.ndarray]:
    """For each part, the nodes further up that are reached from below it: the rows of its columns of the factor."""
    part = _part(own, matrix.shape[0])
    borders: list[np.ndarray] = [np.zeros(0, int)] * len(own)
    for i in range(len(own) - 1, 0, -1):
        reached = [neighbors(matrix, own[i])[1]]
        if 2 * i + 1 < len(own):
            reached += [borders[2 * i + 1], borders[2 * i + 2]]
        nodes = np.unique(np.concatenate(reached))
        nodes = nodes[_depth(part[nodes]) < _depth(i)]
        borders[i] = nodes[np.argsort(-part[nodes], kind="stable")]  # the nearest ancestor first
    return borders


def _part(own, n):
    part = np.zeros(n, int)
    for i, nodes in enumerate(own):
        part[nodes] = i
    return part


def _depth(i):
    return np.frexp(np.asarray(i) + 1.0)[1] - 1  # floor of log2, exactly


def _pattern(matrix: sp.csr_array, own: list[np.ndarray], borders: list[np.ndarray]) -> Pattern:
    n = matrix.shape[0]
    part = _part(own, n)
    lower = sp.coo_array(sp.tril(matrix, format="coo"))
    rows, cols = (np.asarray(axis, int) for axis in lower.coords)
    # Each entry belongs to the front of its deeper node; the entries of one front follow one another.
    home = np.where(_depth(part[rows]) >= _depth(part[cols]), part[rows], part[cols])
    order = np.argsort(home, kind="stable")
    first = np.searchsorted(home[order], np.arange(len(own) + 1))
    local = np.full(n, -1)

    levels: list[Level] = []
    chosen, places = [], np.zeros(n, int)
    offset = 0
    for depth in range(int(_depth(len(own) - 1)), -1, -1):
        parts = range(2**depth - 1, 2 ** (depth + 1) - 1)
        number = len(parts)
        size = max(1, max(len(own[i]) for i in parts))
        border = 1 + max(len(borders[i]) for i in parts)
        below = 1 + max((len(borders[2 * i + j]) for i in parts for j in (1, 2)), default=0) if levels else 0
        above = _parent_size(own, borders, depth)
        nodes = np.full((number, size), n)
        children = np.full((number, 2, size + border), below - 1)
        parent = np.full((number, border), sum(above) - 1)
        slots = []
        for b, i in enumerate(parts):
            s, u = own[i], borders[i]
            nodes[b, : len(s)] = s
            places[s] = offset + b * size + np.arange(len(s))
            if depth:
                up = (i - 1) // 2
                local[own[up]] = np.arange(len(own[up]))
                local[borders[up]] = above[0] + np.arange(len(borders[up]))
                parent[b, : len(u)] = local[u]
            local[s], local[u] = np.arange(len(s)), size + np.arange(len(u))
            entries = order[first[i] : first[i + 1]]
            row, col = local[rows[entries]], local[cols[entries]]
            slots.append((b * (size + border) + np.maximum(row, col)) * size + np.minimum(row, col))
            if levels:
                for c in (0, 1):
                    children[b, c, local[borders[2 * i + 1 + c]]] = np.arange(len(borders[2 * i + 1 + c]))
        chosen.append(order[first[parts[0]] : first[parts[-1] + 1]])
        levels.append(
            Level(
                _index(nodes),
                _index(np.concatenate(slots)),
                _index(children) if levels else None,
                _index(parent) if depth else None,
            )
        )
        offset += number * size
    entries = np.concatenate(chosen)
    rows, cols = rows[entries], cols[entries]
    diagonal = np.flatnonzero(rows == cols)
    diagonal = diagonal[np.argsort(rows[diagonal])]
    sums = runs(np.concatenate([rows, np.where(rows != cols, cols, n)]), n)
    return Pattern(_index(rows), _index(cols), _index(diagonal), tuple(levels), _index(places), sums, n)


def _parent_size(own, borders, depth):
    """Padded numbers of own nodes and of border of the level above."""
    if depth == 0:
        return 1, 1
    parts = range(2 ** (depth - 1) - 1, 2**depth - 1)
    return max(1, max(len(own[i]) for i in parts)), 1 + max(len(borders[i]) for i in parts)


def _index(array: np.ndarray) -> Array:
    return as_jax(array, np.int32)
