"""Meshes with known geometry, for tests."""

import numpy as np
from scipy.spatial import ConvexHull, Delaunay

from numpyro_inverse.domains import Mesh


def interval(n, low=0.0, high=1.0):
    return Mesh(np.linspace(low, high, n), np.stack([np.arange(n - 1), np.arange(1, n)], axis=1))


def square_arrays(n, low=0.0, high=1.0, jitter=0.2, seed=0):
    """Points and triangles of a square with ``n`` points a side, those inside moved at random."""
    axis = np.linspace(low, high, n)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = ((points > low + 1e-9) & (points < high - 1e-9)).all(axis=1)
    h = (high - low) / (n - 1)
    points[inside] += np.random.default_rng(seed).uniform(-jitter * h, jitter * h, (inside.sum(), 2))
    return points, _not_flat(points, Delaunay(points).simplices)


def square(n, **options):
    return Mesh(*square_arrays(n, **options))


def l_shape(n, low=-1.0, high=1.0):
    """The square without its upper right quarter; ``n`` odd."""
    axis = np.linspace(low, high, n)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    triangles = Delaunay(points + 1e-4 * np.sin(7 * points[:, ::-1])).simplices
    middle = (low + high) / 2
    triangles = _not_flat(points, triangles)
    return compact(points, triangles[~(points[triangles].mean(axis=1) > middle).all(axis=1)])


def disc(rings, radius=1.0):
    """Points on ``rings`` circles, six more on each."""
    points = [np.zeros((1, 2))]
    for i in range(1, rings + 1):
        angle = 2 * np.pi * np.arange(6 * i) / (6 * i)
        points.append(radius * i / rings * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    points = np.concatenate(points)
    return Mesh(points, _not_flat(points, Delaunay(points).simplices))


def cube(n, jitter=0.1, low=0.0, high=1.0):
    axis = np.linspace(low, high, n)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = ((points > low) & (points < high)).all(axis=1)
    h = (high - low) / (n - 1)
    points[inside] += np.random.default_rng(1).uniform(-jitter * h, jitter * h, (inside.sum(), 3))
    # Each cell is cut into the same six tetrahedra along its diagonal.
    number = np.arange(n**3).reshape(n, n, n)
    cells = []
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        at, path = np.zeros(3, int), [np.zeros(3, int)]
        for axis_number in order:
            at = at + np.eye(3, dtype=int)[axis_number]
            path.append(at)
        cells.append(np.stack([number[tuple(slice(s, n - 1 + s) for s in step)].ravel() for step in path], axis=1))
    return Mesh(points, np.concatenate(cells))


def sphere(n, radius=1.0):
    """The hull of a spiral of nearly evenly spread points."""
    i = np.arange(n) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / n), np.pi * (1 + 5**0.5) * i
    points = radius * np.stack(
        [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1
    )
    return Mesh(points, ConvexHull(points).simplices)


def compact(points, simplices):
    used, index = np.unique(simplices, return_inverse=True)
    return Mesh(points[used], index.reshape(simplices.shape))


def _not_flat(points, triangles):
    edges = points[triangles[:, 1:]] - points[triangles[:, :1]]
    area = np.abs(np.linalg.det(edges))
    return triangles[area > 1e-6 * area.mean()]
