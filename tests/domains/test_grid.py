"""Grids: geometry, Laplacian, interpolation, refinement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.domains import Grid
from numpyro_inverse.domains._transforms import BOUNDARIES

MIXED = ("neumann", "dirichlet", "periodic")


def test_geometry():
    grid = Grid((4, 2), extent=(2.0, 3.0), boundary=("periodic", "neumann"))
    assert (grid.ndim, grid.size, grid.spacing, grid.cell_volume) == (2, 8, (0.5, 1.5), 0.75)
    np.testing.assert_allclose(grid.axes[0], [0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(grid.points[2, 1], [1.25, 2.25])
    assert grid.points.shape == (4, 2, 2)


def test_default_extent_gives_square_cells_and_longest_side_one():
    assert Grid((10, 20)).extent == (0.5, 1.0)
    assert Grid(7).shape == (7,)
    assert Grid(7).extent == (1.0,)


def test_is_static_and_hashable():
    grid = Grid((4, 2))
    assert grid == Grid([4, 2], extent=(1.0, 0.5)) != Grid((4, 2), boundary="periodic")
    assert {grid: 1}[Grid((4, 2))] == 1
    assert jax.tree.leaves(grid) == []
    assert jax.jit(lambda g: jnp.zeros(g.shape))(grid).shape == (4, 2)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_eigenvalues_are_those_of_the_laplacian(boundary, x64):
    """Modes are eigenvectors of the second difference; its eigenvalues tend to the continuum's as the cells shrink."""
    grid = Grid((6, 8), extent=(1.5, 0.8), boundary=boundary)
    rng = np.random.default_rng(0)
    x = rng.normal(size=grid.shape)
    laplacian = np.zeros(grid.shape)
    for axis, h in enumerate(grid.spacing):
        pad = {"neumann": "edge", "periodic": "wrap", "dirichlet": "edge"}[boundary]
        y = np.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(2)], mode=pad)
        if boundary == "dirichlet":  # the ghost cell holds minus the value: zero at the face
            y = np.moveaxis(y, axis, 0)
            y[0], y[-1] = -y[0], -y[-1]
            y = np.moveaxis(y, 0, axis)
        laplacian += np.diff(y, 2, axis=axis) / h**2
    expected = -grid.inverse_transform(grid.difference_eigenvalues * grid.transform(x))
    np.testing.assert_allclose(laplacian, expected, atol=1e-9)
    fine = Grid((6 * 64, 8 * 64), grid.extent, boundary)
    np.testing.assert_allclose(
        fine.difference_eigenvalues[:6, :8], fine.eigenvalues[:6, :8], rtol=2.1e-4
    )  # (k h)^2 / 12
    np.testing.assert_allclose(fine.eigenvalues[:5, :7], grid.eigenvalues[:5, :7], rtol=1e-12)


@pytest.mark.parametrize("boundary", [*BOUNDARIES, MIXED])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_multilinear_interpolation_reproduces_affine_functions(boundary, ndim, x64):
    boundary = boundary[:ndim] if isinstance(boundary, tuple) else boundary
    grid = Grid((9, 6, 7)[:ndim], extent=(1.0, 0.4, 2.0)[:ndim], boundary=boundary)
    slope = np.array([2.0, -3.0, 0.5])[:ndim]
    h = np.asarray(grid.spacing)
    points = np.random.default_rng(1).uniform(h / 2, np.asarray(grid.extent) - h / 2, size=(50, ndim))
    values = grid.multilinear_interpolation(points) @ (1.0 + grid.points @ slope)
    np.testing.assert_allclose(values, 1.0 + points @ slope, rtol=1e-12, atol=1e-12)


def test_multilinear_interpolation_beyond_the_outer_centers(x64):
    u, x = jnp.array([3.0, 1.0, 5.0, 2.0]), [[0.0], [1 / 16], [1.0]]
    np.testing.assert_allclose(Grid(4).multilinear_interpolation(x) @ u, [3.0, 3.0, 2.0])
    np.testing.assert_allclose(
        Grid(4, boundary="dirichlet").multilinear_interpolation(x) @ u, [0.0, 1.5, 0.0], atol=1e-15
    )
    np.testing.assert_allclose(Grid(4, boundary="periodic").multilinear_interpolation(x) @ u, [2.5, 2.75, 2.5])


@pytest.mark.parametrize("boundary", [*BOUNDARIES, MIXED])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_interpolation_reproduces_its_modes(boundary, ndim, x64):
    """Products of cosines and sines with integer wave counts, written out here, at points anywhere in the domain."""
    boundary = boundary[:ndim] if isinstance(boundary, tuple) else (boundary,) * ndim
    grid = Grid((9, 6, 7)[:ndim], extent=(1.0, 0.4, 2.0)[:ndim], boundary=boundary)
    points = np.random.default_rng(2).uniform(size=(40, ndim)) * grid.extent
    points[0], points[1] = 0.0, grid.extent
    for count in (1, 2):
        function = {
            "neumann": lambda t, j=count: np.cos(np.pi * j * t),
            "dirichlet": lambda t, j=count: np.sin(np.pi * j * t),
            "periodic": lambda t, j=count: np.cos(2 * np.pi * j * t - 0.3),
        }

        def mode(x, function=function):
            return np.prod([function[b](x[..., a] / grid.extent[a]) for a, b in enumerate(boundary)], axis=0)

        values = grid.interpolation(points) @ jnp.asarray(mode(np.asarray(grid.points)))
        np.testing.assert_allclose(values, mode(points), atol=1e-12)


@pytest.mark.parametrize("boundary", [*BOUNDARIES, ("periodic", "dirichlet")])
def test_refinement_keeps_the_series(boundary, x64):
    grid = Grid((5, 6), extent=(2.0, 1.0), boundary=boundary)
    x = np.random.default_rng(3).normal(size=grid.shape)
    fine = grid.refined(3)
    assert fine.shape == (15, 18)
    assert (fine.extent, fine.boundary) == (grid.extent, grid.boundary)
    at_fine = grid.interpolation(np.asarray(fine.points).reshape(-1, 2)) @ x
    np.testing.assert_allclose(grid.prolongation(3) @ x, at_fine.reshape(fine.shape), atol=1e-12)
    np.testing.assert_allclose((grid.prolongation(3) @ x)[1::3, 1::3], x, atol=1e-12)  # every third center is shared


def test_coarsening_averages(x64):
    grid = Grid((6, 4))
    x = np.random.default_rng(4).normal(size=grid.shape)
    assert grid.coarsened(2) == Grid((3, 2), grid.extent)
    np.testing.assert_allclose(grid.restriction(2) @ x, x.reshape(3, 2, 2, 2).mean(axis=(1, 3)), atol=1e-14)


def test_extended_is_a_torus_of_the_same_cells():
    torus = Grid((4, 6), extent=(2.0, 3.0)).extended((0.75, 0.0))
    assert torus == Grid((6, 6), extent=(3.0, 3.0), boundary="periodic")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": 0}, "`shape` must be one to three positive integers"),
        ({"shape": (2, 2, 2, 2)}, "`shape` must be one to three positive integers"),
        ({"shape": 2.5}, "`shape` must be one to three positive integers"),
        ({"shape": (2, 2), "extent": (1.0, -1.0)}, "`extent` must be positive and finite"),
        ({"shape": (2, 2), "extent": np.nan}, "`extent` must be positive and finite"),
        ({"shape": (2, 2), "extent": (1.0,)}, r"`extent` must be one value or one per axis \(2\)"),
        ({"shape": 2, "boundary": "robin"}, "`boundary` must be one of neumann, dirichlet, periodic; got 'robin'"),
        ({"shape": (2, 2), "boundary": ("neumann",)}, r"`boundary` must be one value or one per axis \(2\)"),
    ],
)
def test_bad_grids(arguments, message):
    with pytest.raises(ValueError, match=message):
        Grid(**arguments)


@pytest.mark.parametrize("method", ["multilinear_interpolation", "interpolation"])
def test_points_outside_the_domain_are_named(method):
    points = [[0.5, 0.2], [0.5, 0.6], [np.nan, 0.2]]
    with pytest.raises(ValueError, match=r"2 of 3 `points` lie outside .* the first is points\[1\] = \[0.5, 0.6\]"):
        getattr(Grid((4, 2)), method)(points)
    with pytest.raises(ValueError, match=r"`points` must have shape \(m, 2\), m >= 1; got \(3,\)"):
        getattr(Grid((4, 2)), method)([0.1, 0.2, 0.3])


def test_bad_refinement_and_padding():
    with pytest.raises(ValueError, match=r"`factor` 4 does not divide the shape \(8, 6\)"):
        Grid((8, 6)).coarsened(4)
    with pytest.raises(ValueError, match="`padding` must be finite and not negative"):
        Grid(4).extended(-1.0)
