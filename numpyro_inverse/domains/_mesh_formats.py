"""Meshes of other packages."""

from __future__ import annotations

from typing import Any

import numpy as np

from numpyro_inverse._checks import describe

SIMPLICES = {"tetra": 3, "triangle": 2, "line": 1}  # meshio's names, with their dimensions
LOWER = {"vertex": 0, "line": 1, "triangle": 2, "quad": 2}


def of_skfem(mesh: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points and simplices, a row each, of a mesh that has them a column each."""
    kinds = ("MeshLine", "MeshTri", "MeshTet")
    if not any(kind.__name__.startswith(kinds) for kind in type(mesh).__mro__) or not hasattr(mesh, "t"):
        raise TypeError(f"Mesh.from_skfem: `mesh` must be a {', '.join(kinds)} of scikit-fem; got {describe(mesh)}.")
    return np.asarray(mesh.p).T, np.asarray(mesh.t).T


def of_meshio(mesh: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points and simplices of highest dimension."""
    if not hasattr(mesh, "points") or not hasattr(mesh, "cells"):
        raise TypeError(f"Mesh.from_meshio: `mesh` must be a meshio.Mesh; got {describe(mesh)}.")
    found = {block.type for block in mesh.cells}
    chosen = next((name for name in SIMPLICES if name in found), None)
    other = {name for name in found - {chosen} if LOWER.get(name, 3) >= SIMPLICES.get(chosen or "", 0)}
    if chosen is None or other:
        raise ValueError(
            "Mesh.from_meshio: `mesh` must be of first-order intervals, triangles or tetrahedra alone; it has cells of "
            f"the kinds {', '.join(sorted(found))}."
        )
    simplices = np.concatenate([block.data for block in mesh.cells if block.type == chosen])
    used, index = np.unique(simplices, return_inverse=True)
    points = np.asarray(mesh.points, float)[used]
    varying = np.ptp(points, axis=0) > 0
    return points[:, varying], index.reshape(simplices.shape)
