"""Meshes around scattered locations: an inner part and a wide margin, made by Netgen."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, cKDTree

from numpyro_inverse._checks import check_finite, check_positive_number, check_static

HERE = "Mesh.from_points"
CORNERS = 16  # of the polygon that rounds the corners of a margin


def mesh_around(locations: Any, max_edge: Any, offset: Any, cutoff: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points and simplices."""
    check_static(HERE, "locations", locations)
    found = np.asarray(check_finite(HERE, "locations", locations), float)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[1] not in (1, 2, 3) or len(found) == 0:
        raise ValueError(f"{HERE}: `locations` must have shape (m, d), d = 1, 2 or 3, m >= 1; got {found.shape}.")
    inside, outside = _pair("max_edge", max_edge)
    margins = (*_pair("offset", offset),) if isinstance(offset, tuple | list) else (_length("offset", offset), 0.0)
    shortest = inside if cutoff is None else min(inside, _length("cutoff", cutoff))
    sizes = _local_sizes(found, shortest, inside)
    make = {1: _intervals, 2: _triangles, 3: _tetrahedra}[found.shape[1]]
    return make(found, sizes, inside, outside, margins)


def _length(name: str, value: Any) -> float:
    return check_positive_number(HERE, name, value)


def _pair(name: str, value: Any) -> tuple[float, float]:
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{HERE}: `{name}` must be one number or two, inside and outside; got {len(values)}.")
    return _length(name, values[0]), _length(name, values[1])


def _local_sizes(locations: np.ndarray, shortest: float, inside: float) -> np.ndarray:
    """Wanted edges at each location: the distance to the nearest other one, within bounds."""
    if shortest == inside or len(locations) == 1:
        return np.full(len(locations), inside)
    distance = cKDTree(locations).query(locations, k=2)[0][:, 1]
    return np.clip(distance, shortest, inside)


def _intervals(locations, sizes, inside, outside, margins):
    low, high = locations.min() - margins[0], locations.max() + margins[0]
    order = np.argsort(locations[:, 0])
    x, h = locations[order, 0], sizes[order]
    stops = [low]
    while stops[-1] < high - 1e-9 * (high - low):  # step by the size wanted here, and never over half of a finer one
        i = np.clip(np.searchsorted(x, stops[-1]), 1, len(x) - 1) if len(x) > 1 else 0
        stops.append(stops[-1] + min(h[max(i - 1, 0)], h[i], inside))
    scaled = low + (np.array(stops) - low) * (high - low) / (stops[-1] - low)
    count = int(np.ceil(margins[1] / outside)) if margins[1] else 0
    margin = np.linspace(0, margins[1], count + 1)[1:]
    points = np.concatenate([(low - margin)[::-1], scaled, high + margin])
    return points[:, None], np.stack([np.arange(len(points) - 1), np.arange(1, len(points))], axis=1)


def _netgen(name: str) -> Any:
    try:
        from importlib import import_module

        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{HERE} needs Netgen: pip install 'numpyro-inverse[meshes]'.") from error


def _rounded_hull(locations: np.ndarray, margin: float) -> np.ndarray:
    """Corners, counterclockwise, of the convex hull of discs around the locations."""
    angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
    disc = margin * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cloud = (locations[:, None] + disc).reshape(-1, 2)
    return cloud[ConvexHull(cloud).vertices]


def _resampled(corners: np.ndarray, edge: float) -> np.ndarray:
    """A closed polygon with corners at steps of about ``edge`` along it."""
    closed = np.concatenate([corners, corners[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(6, int(np.ceil(along[-1] / edge))), endpoint=False)
    return np.stack([np.interp(at, along, column) for column in closed.T], axis=1)


def _triangles(locations, sizes, inside, outside, margins):
    geom2d, meshing = _netgen("netgen.geom2d"), _netgen("netgen.meshing")
    center = locations.mean(axis=0)
    away = locations - center
    geometry = geom2d.SplineGeometry()
    inner = _rounded_hull(away, margins[0])
    rings = [(_resampled(inner, inside), 1, 2 if margins[1] else 0)]
    if margins[1]:
        rings.append((_resampled(_rounded_hull(inner, margins[1]), outside), 2, 0))
    for ring, left, right in rings:
        ids = [geometry.AppendPoint(*map(float, corner)) for corner in ring]
        for a, b in zip(ids, ids[1:] + ids[:1], strict=True):
            geometry.Append(["line", a, b], leftdomain=left, rightdomain=right)
    geometry.SetDomainMaxH(1, inside)
    if margins[1]:
        geometry.SetDomainMaxH(2, outside)
    # Netgen takes the size as a goal; edges exceed it by a third.
    with_sizes = [(p, h) for p, h in zip(away, sizes, strict=True) if h < inside]
    mesh = _generate(geometry, meshing, max(inside, outside), with_sizes)
    points, simplices = _arrays(mesh, mesh.Elements2D(), 2)
    return points + center, simplices


def _tetrahedra(locations, sizes, inside, outside, margins):
    csg, meshing = _netgen("netgen.csg"), _netgen("netgen.meshing")
    center = locations.mean(axis=0)
    away = locations - center
    low, high = away.min(axis=0) - margins[0], away.max(axis=0) + margins[0]

    def box(low, high):
        return csg.OrthoBrick(csg.Pnt(*map(float, low)), csg.Pnt(*map(float, high)))

    geometry, inner = csg.CSGeometry(), box(low, high)
    geometry.Add(inner.maxh(inside))
    if margins[1]:
        outer = box(low - margins[1], high + margins[1]) - box(low, high)
        geometry.Add(outer.maxh(outside))
    with_sizes = [(p, h) for p, h in zip(away, sizes, strict=True) if h < inside]
    mesh = _generate(geometry, meshing, max(inside, outside), with_sizes)
    points, simplices = _arrays(mesh, mesh.Elements3D(), 3)
    return points + center, simplices


def _generate(geometry, meshing, largest, with_sizes):
    parameters = meshing.MeshingParameters(maxh=largest, grading=0.3, quad_dominated=False)
    for place, h in with_sizes:
        parameters.RestrictH(*map(float, (*place, 0.0)[:3]), h=float(h))
    return geometry.GenerateMesh(mp=parameters)


def _arrays(mesh, elements, d):
    points = np.array([tuple(p.p)[:d] for p in mesh.Points()], float)
    simplices = np.array([[v.nr - 1 for v in element.vertices] for element in elements], np.int64)
    used, index = np.unique(simplices, return_inverse=True)
    return points[used], index.reshape(simplices.shape)
