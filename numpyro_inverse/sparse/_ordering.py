"""Nested dissection: a binary tree of separators, by coordinates or by the levels of a breadth-first search."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order, connected_components

DENSE_ROW = 10.0  # a row with more entries than this times sqrt(n) joins the root: no cut separates its node
UNEQUAL = 2.0  # halves that differ by a tenth of the nodes cost as much as a separator larger by a fifth
MIDDLE = 0.1  # cuts are sought within this share of the nodes from the middle

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
    rank = np.full(n, -1)
    for i in range(2**depth - 1):
        nodes = sets.pop(i)
        nodes = nodes[np.argsort(position(nodes), kind="stable")]
        sets[2 * i + 1], parts[i], sets[2 * i + 2] = _cut(matrix, nodes, rank)
    for i, nodes in sets.items():
        parts[i] = nodes
    parts[0] = np.concatenate([parts[0], np.flatnonzero(dense)])
    return parts


def _cut(matrix: sp.csr_array, nodes: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is below the best cut through nodes in a row, the separator, and what is above.

    A cut at h puts the first h nodes below. If those above it that touch something below are the separator, then node
    j is one for all cuts between its first neighbor and itself; so the sizes for all cuts are a running sum. Likewise
    with those below it that touch something above. Chosen is the smallest, with a penalty on halves that differ.
    """
    n = len(nodes)
    if n < 2:
        return nodes[:0], nodes, nodes[:0]
    place = np.arange(n)
    rank[nodes] = place
    row, column = neighbors(matrix, nodes)
    reached = rank[column]
    rank[nodes] = -1
    reached = np.where(reached < 0, row, reached)
    start = np.searchsorted(row, place)
    first, last = np.minimum.reduceat(reached, start), np.maximum.reduceat(reached, start)

    def sizes(begin, end):  # of the separator of each cut h: how many nodes have begin < h <= end
        return np.cumsum(np.bincount(begin + 1, minlength=n + 2) - np.bincount(end + 1, minlength=n + 2))[: n + 1]

    cut = np.arange(n + 1)
    options = []
    for below_left, above_left, size in (
        (cut, n - cut - (upper := sizes(first, place)), upper),
        (cut - (lower := sizes(place, last)), n - cut, lower),
    ):
        cost = (size + 1) * (1 + UNEQUAL * np.abs(below_left - above_left) / n)
        cost = np.where(np.abs(cut - n / 2) <= max(1.0, MIDDLE * n), cost, np.inf)
        options.append((cost.min(), int(cost.argmin())))
    if options[0] <= options[1]:
        h = options[0][1]
        separates = (first < h) & (place >= h)
    else:
        h = options[1][1]
        separates = (last >= h) & (place < h)
    below = place < h
    return nodes[below & ~separates], nodes[separates], nodes[~below & ~separates]


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
