"""A mesh and its refinement: white noise restricts exactly, and the Ritz projection of the finer field is the
coarser."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_inverse.distributions import Matern, Pushforward, restrict_noise
from numpyro_inverse.domains import Grid
from tests.distributions.mesh_reference import k_matrix, precision
from tests.domains.meshes import cube, interval, sphere, square

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def pair():
    coarse = square(5)
    return coarse, coarse.refined()


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


@pytest.mark.parametrize(
    "make", [lambda: interval(4), pytest.param(lambda: square(4), marks=SLOW), lambda: cube(3), lambda: sphere(30)]
)
def test_a_refined_mesh(make):
    mesh = make()
    fine = mesh.refined()
    assert len(fine.simplices) == 2**mesh.manifold_dim * len(mesh.simplices)
    np.testing.assert_array_equal(fine.points[: mesh.size], mesh.points)
    r = _restriction(mesh, fine)
    np.testing.assert_allclose(r @ fine.stiffness_matrix @ r.T, mesh.stiffness_matrix.toarray(), atol=1e-12)
    # Boundary facets of all kinds are cut, too, and no simplex is much flatter than those it comes from.
    assert len(fine.boundary_facets) == 2 ** (mesh.manifold_dim - 1) * len(mesh.boundary_facets)
    assert fine.longest_edges.max() < 0.87 * mesh.longest_edges.max()


def _both(fine, coarse):
    """The map between noises, the two fields of unit noise, and the Ritz projection of the finer."""
    z = jnp.eye(fine.domain.size)
    fields, noise = jax.vmap(fine.from_base)(z), restrict_noise(fine, coarse, z)
    return noise, jax.vmap(coarse.from_base)(noise), fine.ritz_projection(coarse.domain)(fields)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["line, 3/2, Robin", "line, 1/2", "plane, 1"])
def test_coupled_fields(name):
    """The restricted noise is white, and at alpha 1 and 2 the coarse field is the Ritz projection of the fine one."""
    coarse = square(3) if name == "plane, 1" else interval(5)
    nu, boundary = {"line, 1/2": (0.5, "neumann"), "line, 3/2, Robin": (1.5, "robin"), "plane, 1": (1.0, "neumann")}[
        name
    ]
    pair = [Matern(mesh, range=0.6, scale=1.3, smoothness=nu, boundary=boundary) for mesh in (coarse.refined(), coarse)]
    noise, there, projected = jax.jit(_both)(*pair)
    np.testing.assert_allclose(noise.T @ noise, np.eye(coarse.size), atol=1e-12)
    np.testing.assert_allclose(there, projected, atol=1e-12 * np.abs(there).max())


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "boundary",
    [pytest.param("neumann", marks=pytest.mark.slow), "dirichlet", pytest.param("periodic", marks=pytest.mark.slow)],
)
def test_coupled_fields_on_grids(boundary):
    """The coarse field is the fine one within the variance that only the fine grid resolves; 24 and 8 points have
    centers in common. A padded field is coupled on its torus."""
    fine, coarse = (Matern(Grid(n, boundary=boundary), range=0.7, scale=1.0, smoothness=2.0) for n in (24, 8))
    z = jax.random.normal(jax.random.key(0), (200, 24))
    noise = restrict_noise(fine, coarse, z)
    found = coarse.from_base(noise) - fine.from_base(z)[:, 1::3]
    assert np.sqrt(np.mean(found**2)) < 0.06
    # One mode after the other: those that are kept have the same shape on both grids.
    kept = restrict_noise(fine, coarse, jnp.eye(24))
    shared = np.flatnonzero(np.any(kept, axis=1))
    a, b = fine.from_base(jnp.eye(24))[shared, 1::3], coarse.from_base(kept[shared])
    alike = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(alike, np.ones(8), rtol=1e-12)
    padded = [Matern(Grid(n), range=0.3, scale=1.0, smoothness=2.0, padding=1.0) for n in (16, 8)]
    assert restrict_noise(*padded, jnp.zeros(32)).shape == (16,)


def test_noise_that_is_the_same_everywhere():
    law = Pushforward(jnp.sin, dist.Normal(0, 1).expand([3]).to_event(1))
    np.testing.assert_array_equal(restrict_noise(law, law, jnp.arange(3.0)), jnp.arange(3.0))


def _field(mesh, **change):
    return Matern(mesh, **({"range": 0.6, "scale": 1.0, "smoothness": 0.5} | change))


def test_bad_input():
    line, grid = interval(5), Matern(Grid(8), range=0.5, scale=1.0, smoothness=1.0)
    fine, coarse = _field(line.refined()), _field(line)
    with pytest.raises(ValueError, match="must lie within one of the coarse mesh"):
        restrict_noise(fine, _field(interval(4)), jnp.zeros(9))
    with pytest.raises(ValueError, match=r"`coarse` has smoothness 1\.5"):
        restrict_noise(fine, _field(line, smoothness=1.5), jnp.zeros(9))
    with pytest.raises(TypeError, match="`coarse` must be a MaternMesh"):
        restrict_noise(fine, grid, jnp.zeros(9))
    with pytest.raises(ValueError, match=r"the trailing axes of `z` must be \(9,\)"):
        restrict_noise(fine, coarse, jnp.zeros(5))
    with pytest.raises(TypeError, match="`fine` must be a map of noise"):
        restrict_noise(dist.Normal(0, 1), coarse, jnp.zeros(()))
    with pytest.raises(ValueError, match="the grid of `coarse`, with its padding, must be a coarser one"):
        restrict_noise(grid, Matern(Grid(4, 2.0), range=0.5, scale=1.0, smoothness=1.0), jnp.zeros(8))
    with pytest.raises(TypeError, match="`coarse` must be a field on a grid"):
        restrict_noise(grid, coarse, jnp.zeros(8))
    laws = [Pushforward(jnp.sin, dist.Normal(0, 1).expand([n]).to_event(1)) for n in (3, 2)]
    with pytest.raises(ValueError, match="does not say how one becomes the other"):
        restrict_noise(*laws, jnp.zeros(3))
    with pytest.raises(ValueError, match="batch shape"):
        _field(line.refined(), range=jnp.ones(2)).ritz_projection(line)
