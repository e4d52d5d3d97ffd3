"""Each simplex of a mesh cut into smaller ones at the middles of its edges."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

# Corners 0..d, then the middles of the edges in the order of `combinations`. What is left of a tetrahedron without its
# four corners is an octahedron, which is cut along the shortest of its diagonals.
PARTS = {
    1: ((0, 2), (2, 1)),
    2: ((0, 3, 4), (3, 1, 5), (4, 5, 2), (3, 5, 4)),
    3: ((0, 4, 5, 6), (4, 1, 7, 8), (5, 7, 2, 9), (6, 8, 9, 3)),
}
DIAGONALS = (  # of the octahedron, each with the four middles around it, in a circle
    ((4, 9), (5, 6, 8, 7)),
    ((5, 8), (4, 6, 9, 7)),
    ((6, 7), (4, 5, 9, 8)),
)


def refined(
    points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"]
) -> tuple[Float[np.ndarray, "m d"], Int[np.ndarray, "f k"]]:
    """The nodes, the old ones first, and the simplices: ``2**d`` for each, all of the same volume (Bey, Computing 55,
    1995, 355-378)."""
    d = simplices.shape[1] - 1
    pairs = np.asarray(list(combinations(range(d + 1), 2)))
    ends = np.sort(simplices[:, pairs].reshape(-1, 2), axis=1)
    edges, number = np.unique(ends, axis=0, return_inverse=True)
    points = np.concatenate([points, points[edges].mean(axis=1)])
    places = np.concatenate([simplices, len(points) - len(edges) + number.reshape(-1, len(pairs))], axis=1)
    parts = [places[:, list(part)] for part in PARTS[d]]
    if d == 3:
        lengths = np.stack([np.ptp(points[places[:, axis]], axis=1) for axis, _ in DIAGONALS])
        shortest = np.argmin(np.sum(lengths**2, axis=-1), axis=0)
        for i, (axis, ring) in enumerate(DIAGONALS):
            chosen = places[shortest == i]
            around = zip(ring, (*ring[1:], ring[0]), strict=True)
            parts += [chosen[:, [*axis, *pair]] for pair in around]
    return points, np.concatenate(parts)
