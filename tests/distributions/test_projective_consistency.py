"""A mesh and its refinement: white noise restricts exactly, and the Ritz projection of the finer field is the
coarser."""

import numpy as np
import pytest

from numpyro_inverse.domains import Mesh
from tests.distributions.mesh_reference import k_matrix, precision
from tests.domains.meshes import square


def refined(mesh):
    """Each triangle cut into four at the middles of its edges."""
    t = mesh.simplices
    edges = np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [0, 2]]]), axis=1)
    distinct, index = np.unique(edges, axis=0, return_inverse=True)
    points = np.concatenate([mesh.points, mesh.points[distinct].mean(axis=1)])
    a, b, c = mesh.size + index.reshape(3, -1)
    triangles = np.stack([t[:, 0], a, c, t[:, 1], a, b, t[:, 2], b, c, a, b, c], axis=1)
    return Mesh(points, triangles.reshape(-1, 3))


@pytest.fixture(scope="module")
def pair():
    coarse = square(5)
    return coarse, refined(coarse)


def _restriction(coarse, fine):
    """Hat functions of the coarse mesh are sums of those of the fine one: the adjoint of interpolation to its nodes."""
    return np.asarray(coarse.interpolation(fine.points).as_matrix(), float).T.round(6)  # 0, 1/2 and 1


def test_white_noise_restricts_to_white_noise(pair):
    """Only with the consistent mass matrix."""
    coarse, fine = pair
    r = _restriction(coarse, fine)
    np.testing.assert_allclose(r @ fine.mass_matrix @ r.T, coarse.mass_matrix.toarray(), atol=1e-15)
    lumped = [np.diag(mesh.mass_matrix.sum(axis=1)) for mesh in pair]
    assert np.abs(r @ lumped[1] @ r.T - lumped[0]).max() > 0.3 * lumped[0].max()


@pytest.mark.parametrize(("project", "same"), [("Ritz", True), ("nodal", False)])
def test_the_ritz_projection_has_the_law_of_the_coarse_field(pair, project, same):
    """For alpha = 2: 1e-12 relative; values at the coarse nodes, which are some of the fine ones, have another law."""
    coarse, fine = pair
    r, range_ = _restriction(coarse, fine), 0.6
    law, finer = (np.linalg.inv(precision(mesh, 1.0, range_)) for mesh in pair)
    ritz = np.linalg.solve(k_matrix(coarse, 1.0, range_).toarray(), r @ k_matrix(fine, 1.0, range_))
    projection = ritz if project == "Ritz" else np.eye(coarse.size, fine.size)
    gap = np.abs(projection @ finer @ projection.T - law).max() / law.max()
    assert gap < 1e-12 if same else gap > 0.01
