"""A field on a mesh is drawn on the mesh's triangles, by the call that draws one on a grid."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import TriMesh

from numpyro_inverse import plots
from numpyro_inverse.domains import Grid, Stacked
from numpyro_inverse.infer import to_arviz
from tests.domains.meshes import cube, interval, l_shape

MESH, LINE, SOLID = l_shape(7), interval(6), cube(3)


@pytest.fixture(scope="module")
def samples():
    normal = np.asarray(jax.random.normal(jax.random.key(3), (2, 40, MESH.size)))
    return {
        "u": normal + MESH.points[:, 0],
        "line": normal[..., :6],
        "solid": normal[..., :27],
        "grid": normal[..., :4],
        "time": np.stack([normal, normal + 1], axis=2),
        "strip": normal[..., :8].reshape(2, 40, 2, 4),
    }


@pytest.fixture(scope="module")
def tree(samples):
    domain = {"u": MESH, "line": LINE, "solid": SOLID, "grid": Grid(4)}
    domain |= {"time": Stacked(MESH, "day", 2), "strip": Stacked(Grid(4), "week", 2)}
    return to_arviz(samples, domain=domain, length_unit="km")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_the_tree_has_the_nodes_and_the_triangles(tree):
    posterior = tree["posterior"].to_dataset()
    assert posterior["u"].dims == ("chain", "draw", "node")
    np.testing.assert_array_equal(posterior["x"], MESH.points[:, 0])
    np.testing.assert_array_equal(posterior[posterior["x"].attrs["mesh"]], MESH.simplices)
    np.testing.assert_array_equal(posterior[posterior["x_solid"].attrs["mesh"]], SOLID.simplices)
    assert posterior["line"].dims == ("chain", "draw", "node_line")


def test_a_map_of_triangles(tree, samples):
    figure = plots.field(tree, "u", truth=MESH.points[:, 0], points=[[-0.5, -0.5]], values=[0.1])
    drawn = [axis.collections[0] for axis in figure.axes if axis.get_title()]
    assert len(drawn) == 4
    flat = samples["u"].reshape(80, -1)
    for collection, expected in zip(drawn, (MESH.points[:, 0], flat.mean(0), flat.std(0)), strict=False):
        assert isinstance(collection, TriMesh)
        np.testing.assert_array_equal(collection._triangulation.triangles, MESH.simplices)
        np.testing.assert_allclose(collection.get_array(), expected, rtol=1e-5, atol=1e-6)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("x (km)", "y (km)")
    assert plots.draws(tree, "u").axes


def test_a_mesh_of_a_line_is_a_profile(tree, samples):
    figure = plots.field(tree, "line")
    x, y = figure.axes[0].lines[0].get_data()
    np.testing.assert_allclose(x, np.linspace(0, 1, 6))
    np.testing.assert_allclose(y, samples["line"].mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)


def test_a_solid_mesh_is_refused(tree):
    with pytest.raises(ValueError, match="one or two can be drawn"):
        plots.field(tree, "solid")


def test_a_mesh_at_each_time(tree, samples):
    """One time is chosen, and drawn on the triangles; of a line in time the image is that of line and time."""
    with pytest.raises(ValueError, match=r"'time' has the axes \('day', 'node_time'\), a field for each day.*'day': 0"):
        plots.field(tree, "time")
    figure = plots.field(tree, "time", at={"day": 1})
    drawn = next(axis.collections[0] for axis in figure.axes if axis.get_title())
    np.testing.assert_array_equal(drawn._triangulation.triangles, MESH.simplices)
    np.testing.assert_allclose(drawn.get_array(), samples["u"].mean((0, 1)) - MESH.points[:, 0] + 1, atol=1e-5)
    assert {plots.field(tree, "strip").axes[0].get_xlabel(), plots.field(tree, "strip").axes[0].get_ylabel()} == {
        "week",
        "x (km)",
    }
