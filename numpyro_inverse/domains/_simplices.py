"""What is wrong with a mesh: checks at the door, and the facets between its simplices."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from numpyro_inverse._checks import check_finite, check_real, check_static, describe
from numpyro_inverse.domains._finite_elements import volumes

FLAT = 1e-10  # volume over that of a cube on the longest edge, below which a simplex is degenerate
KINDS = {
    (1, 2): "intervals of a line",
    (2, 3): "triangles of the plane",
    (3, 4): "tetrahedra of space",
    (3, 3): "triangles of a surface in space",
}


def check_mesh(points: Any, simplices: Any) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, "e k"]]:
    """Nodes and simplices of one connected manifold; raises at what is not."""
    check_static("Mesh", "points", points)
    check_static("Mesh", "simplices", simplices)
    points = np.array(check_finite("Mesh", "points", points), float)
    points = points[:, None] if points.ndim == 1 else points
    corners = np.asarray(check_real("Mesh", "simplices", simplices))
    if points.ndim != 2 or corners.ndim != 2 or (points.shape[1], corners.shape[1]) not in KINDS:
        kinds = ", ".join(f"points (n, {d}) with simplices (e, {k}): {what}" for (d, k), what in KINDS.items())
        raise ValueError(
            f"Mesh: `points` and `simplices` must be of one of these shapes: {kinds}; got {points.shape} and "
            f"{corners.shape}."
        )
    if not np.issubdtype(corners.dtype, np.integer):
        raise TypeError(f"Mesh: `simplices` must be integers, numbers of points; got {describe(corners)}.")
    corners = corners.astype(np.int64)
    if len(corners) == 0:
        raise ValueError("Mesh: `simplices` must not be empty.")
    if corners.min() < 0 or corners.max() >= len(points):
        raise ValueError(
            f"Mesh: `simplices` must be numbers of the {len(points)} points, 0 to {len(points) - 1}; got "
            f"{corners.min()} to {corners.max()}."
        )
    unused = np.setdiff1d(np.arange(len(points)), corners)
    if len(unused):
        raise ValueError(
            f"Mesh: {len(unused)} of the {len(points)} `points` are corners of no simplex, the first is "
            f"points[{unused[0]}]; leave them out."
        )
    _check_volumes(points, corners)
    _check_facets(points, corners)
    count, label = components(len(points), corners)
    if count > 1:
        sizes = ", ".join(map(str, sorted(np.bincount(label), reverse=True)[:5]))
        raise ValueError(
            f"Mesh: the mesh is not connected: it has {count} parts, the largest of {sizes} points. Use one mesh a "
            "part, or join points that are there twice."
        )
    return points, corners


def _check_volumes(points: np.ndarray, corners: np.ndarray) -> None:
    k = corners.shape[1]
    longest = longest_edges(points, corners)
    flat = volumes(points, corners) <= FLAT * longest ** (k - 1)
    if flat.any():
        first = int(np.argmax(flat))
        raise ValueError(
            f"Mesh: {int(flat.sum())} of the {len(corners)} `simplices` are degenerate, of no volume; the first is "
            f"simplices[{first}], points {corners[first].tolist()}."
        )


def longest_edges(points: np.ndarray, corners: np.ndarray) -> Float[np.ndarray, " e"]:
    """The length of the longest edge of each simplex."""
    at = points[corners]
    return np.linalg.norm(at[:, :, None] - at[:, None], axis=-1).max(axis=(1, 2))


def facets(corners: Int[np.ndarray, "e k"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct facets as sorted corners, how many simplices have each, and the facet opposite to each corner."""
    e, k = corners.shape
    opposite = np.stack([np.delete(corners, i, axis=1) for i in range(k)], axis=1).reshape(e * k, k - 1)
    found, index, counts = np.unique(np.sort(opposite, axis=1), axis=0, return_inverse=True, return_counts=True)
    return found, counts, index.reshape(e, k)


def components(n: int, corners: Int[np.ndarray, "e k"]) -> tuple[int, np.ndarray]:
    """Number of connected parts, and the part of each point."""
    first, others = np.repeat(corners[:, 0], corners.shape[1] - 1), corners[:, 1:].ravel()
    return connected_components(sp.coo_array((np.ones(len(first)), (first, others)), shape=(n, n)), directed=False)


def _check_facets(points: np.ndarray, corners: np.ndarray) -> None:
    found, counts, index = facets(corners)
    if (counts > 2).any():
        first = int(np.argmax(counts > 2))
        what = {1: "point", 2: "edge", 3: "triangle"}[found.shape[1]]
        raise ValueError(
            f"Mesh: the mesh is not a manifold: {int((counts > 2).sum())} {what}s belong to more than two simplices; "
            f"the first is that of points {found[first].tolist()}, in {counts[first]} of them."
        )
    if corners.shape[1] != points.shape[1] + 1:
        return  # on a surface no side is the inner one
    # The two simplices at a facet lie on either side of it, in whatever order their corners are given.
    at, k = points[corners], corners.shape[1]
    flat = index.ravel()
    order = np.argsort(flat, kind="stable")
    pairs = order[np.flatnonzero(flat[order][1:] == flat[order][:-1])[:, None] + [0, 1]]
    one, other = pairs.T
    facet = points[found[flat[one]]]
    apex = [at.reshape(-1, points.shape[1])[side] for side in (one, other)]
    sides = [np.linalg.det(np.concatenate([facet[:, 1:], a[:, None]], axis=1) - facet[:, :1]) for a in apex]
    folded = sides[0] * sides[1] > 0
    if folded.any():
        first = int(np.argmax(folded))
        raise ValueError(
            f"Mesh: {int(folded.sum())} pairs of neighboring `simplices` overlap: one of them is inverted; the first "
            f"are simplices[{one[first] // k}] and simplices[{other[first] // k}]."
        )
