"""The matrices of sparse_cholesky.py, for us and for the peers: finite elements on a jittered square or cube."""

import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay

SHIFT = 0.05  # kappa^2 times the spacing squared


def matrices(side, ndim):
    """Lumped mass and stiffness of linear elements on a jittered grid, and the nodes' places."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.arange(side, dtype=float)] * ndim, indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=1)
    points += rng.uniform(-0.2, 0.2, points.shape)
    simplices = Delaunay(points).simplices
    edges = points[simplices[:, 1:]] - points[simplices[:, :1]]
    volume = np.abs(np.linalg.det(edges)) / (1, 1, 2, 6)[ndim]
    good = volume > 1e-6  # slivers on the hull
    simplices, edges, volume = simplices[good], edges[good], volume[good]
    gradients = np.linalg.inv(edges)  # (simplex, axis, node 1 ...)
    gradients = np.concatenate([-gradients.sum(2, keepdims=True), gradients], axis=2)
    local = np.einsum("eai,eaj->eij", gradients, gradients) * volume[:, None, None]
    n = len(points)
    rows = np.repeat(simplices, ndim + 1, axis=1).ravel()
    columns = np.tile(simplices, (1, ndim + 1)).ravel()
    stiffness = sp.csr_array(sp.coo_array((local.ravel(), (rows, columns)), shape=(n, n)))
    mass = np.bincount(simplices.ravel(), np.repeat(volume / (ndim + 1), ndim + 1), n)
    return sp.csr_array(sp.diags_array(mass)), stiffness, points
