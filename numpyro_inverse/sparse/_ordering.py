"""Nested dissection: a binary tree of separators, by coordinates or by the levels of a breadth-first search."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order, connected_components

DENSE_ROW = 10.0  # a row with more entries than this times sqrt(n) joins the root: no cut separates its node

Position = Callable[[np.ndarray], np.ndarray]


def nested_dissection(matrix: sp.csr_array, coordinates: np.ndarray | None, leaf_size: int) -> list[np.ndarray]:
    """The nodes of each part of a complete binary tree, in heap order (parts ``2 i + 1`` and ``2 i + 2`` lie under
    part ``i``): separators above, what is left over in the leaves. A part may be empty.

    Every set of nodes is cut in half by the position along a line, and those on one side that touch the other are its
    separator (George, SIAM J. Numer. Anal. 10, 1973). The position is the widest coordinate, or, without coordinates,
    the distance in the graph from a node at its end (George and Liu, SIAM J. Numer. Anal. 15, 1978).
    """
    n = matrix.shape[0]
    position = _along_graph(matrix) if coordinates is None else _along_coordinates(coordinates)
    depth = max(0, int(np.ceil(np.log2(n / leaf_size))))
    parts: list[np.ndarray] = [np.zeros(0, int)] * (2 ** (depth + 1) - 1)
    dense = np.diff(matrix.indptr) > DENSE_ROW * np.sqrt(n) + leaf_size
    sets = {0: np.flatnonzero(~dense)}
    side = np.zeros(n, np.int8)
    for i in range(2**depth - 1):
        nodes = sets.pop(i)
        order = np.argsort(position(nodes), kind="stable")
        below, above = nodes[order[: len(nodes) // 2]], nodes[order[len(nodes) // 2 :]]
        side[below], side[above] = 1, 2
        at_above, at_below = _touches(matrix, above, side, 1), _touches(matrix, below, side, 2)
        side[nodes] = 0
        if at_above.sum() <= at_below.sum():
            parts[i], sets[2 * i + 1], sets[2 * i + 2] = above[at_above], below, above[~at_above]
        else:
            parts[i], sets[2 * i + 1], sets[2 * i + 2] = below[at_below], below[~at_below], above
    for i, nodes in sets.items():
        parts[i] = nodes
    parts[0] = np.concatenate([parts[0], np.flatnonzero(dense)])
    return parts


def _touches(matrix: sp.csr_array, nodes: np.ndarray, side: np.ndarray, other: int) -> np.ndarray:
    """Which nodes have a neighbor on the other side."""
    row, column = neighbors(matrix, nodes)
    found = np.zeros(len(nodes), bool)
    found[row[side[column] == other]] = True
    return found


def neighbors(matrix: sp.csr_array, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries in the rows of some nodes: position of the row among ``nodes``, and column."""
    counts = np.diff(matrix.indptr)[nodes]
    row = np.repeat(np.arange(len(nodes)), counts)
    first = np.repeat(matrix.indptr[nodes] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return row, matrix.indices[first + np.arange(len(row))]


def _along_coordinates(coordinates: np.ndarray) -> Position:
    def position(nodes):
        if not len(nodes):
            return np.zeros(0)
        here = coordinates[nodes]
        return here[:, np.argmax(np.ptp(here, axis=0))]

    return position


def _along_graph(matrix: sp.csr_array) -> Position:
    local = np.full(matrix.shape[0], -1)

    def position(nodes):
        if not len(nodes):
            return np.zeros(0)
        row, column = neighbors(matrix, nodes)
        local[nodes] = np.arange(len(nodes))
        column = local[column]
        local[nodes] = -1
        inside = column >= 0
        graph = sp.csr_array((np.ones(inside.sum(), np.int8), (row[inside], column[inside])), shape=(len(nodes),) * 2)
        count, component = connected_components(graph, directed=False)
        found = np.zeros(len(nodes))
        sizes = np.bincount(component)
        start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        # Components follow one another; only one that the middle of the set cuts needs distances of its own.
        cut = int(np.searchsorted(np.cumsum(sizes), len(nodes) // 2, side="right"))
        found = start[component].astype(float)
        cut = min(cut, count - 1)
        members = np.flatnonzero(component == cut)
        found[members] += _levels(graph, members[0], len(nodes))[members]
        return found

    return position


def _levels(graph: sp.csr_array, start: int, n: int) -> np.ndarray:
    """Distances, scaled below 1, from a node at the end of the component of ``start``."""
    for _ in range(3):
        order, predecessors = breadth_first_order(graph, start, directed=False)
        start = order[-1]
    depth = np.zeros(n)
    # In breadth-first order a node's predecessor comes first, so the depths are found front by front.
    position = np.full(n, -1)
    position[order] = np.arange(len(order))
    parent = np.where(predecessors[order] >= 0, position[np.maximum(predecessors[order], 0)], 0)
    # Positions of parents never decrease along the order: front k + 1 are the nodes whose parents are in front k.
    front, last = 0, 1
    level = np.zeros(len(order))
    while last < len(order):
        following = int(np.searchsorted(parent, last, side="left"))
        following = max(following, last + 1)
        level[last:following] = front + 1
        front, last = front + 1, following
    # Ties within a front are broken by the order of the search, which keeps neighbors together.
    depth[order] = (level + np.arange(len(order)) / (len(order) + 1)) / (level[-1] + 2)
    return depth
