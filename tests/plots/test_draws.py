"""Draws side by side are draws of the samples, on one scale; data, batches and scattered points are drawn as such."""

import sys

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import pytest
from xarray import DataArray, Dataset

from numpyro_inverse import plots
from numpyro_inverse.distributions import SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import predict
from tests.plots.conftest import SCATTER


def images(figure):
    return [axis.images[0] for axis in figure.axes if axis.images]


def test_draws_are_spread_over_the_chains_and_share_a_scale(others):
    samples, tree = others
    truth = np.full((2, 6, 4), 9.0)
    figure = plots.draws(tree, "batch", truth, num=4, at={"replicate": 1}, label="level (m)")
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles == ["truth", "chain 0, draw 10", "chain 0, draw 30", "chain 1, draw 10", "chain 1, draw 30"]
    for image, (chain, draw) in zip(images(figure)[1:], [(0, 10), (0, 30), (1, 10), (1, 30)], strict=True):
        np.testing.assert_array_equal(image.get_array().T, samples["batch"][chain, draw, 1])
    assert len({image.get_clim() for image in images(figure)}) == 1
    assert images(figure)[0].get_clim()[1] == 9.0
    assert figure.axes[0].get_ylabel() == "y (km)"
    assert any(axis.get_ylabel() == "level (m)" for axis in figure.axes)


def test_draws_of_a_line_lie_over_one_another(others):
    samples, tree = others
    (axis,) = plots.draws(tree, "lines", num=3, at={"replicate": 0}, points=[1.0]).axes
    for line, i in zip(axis.lines, (13, 40, 66), strict=False):
        np.testing.assert_array_equal(line.get_ydata(), samples["lines"].reshape(80, 2, 6)[i, 0])
    assert axis.get_xlabel() == "x (km)"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "batch",
            r"'batch' has the axes \('replicate', 'x', 'y'\).*'replicate' is not of space.*at=\{'replicate': 0\}",
        ),
        ("lines", r"'lines' has the axes \('replicate', 'x_lines'\).*at=\{'replicate': 0\}"),
    ],
)
def test_one_of_a_batch_is_to_be_chosen_and_space_is_left(others, name, advice):
    tree = others[1]
    advice = advice.replace("'x', 'y'", ", ".join(repr(dim) for dim in tree.posterior[name].dims[3:]))
    advice = advice.replace("'x_lines'", repr(tree.posterior[name].dims[-1]))
    with pytest.raises(ValueError, match=advice):
        plots.field(tree, name)
    plots.field(tree, name, at={"replicate": 0})


@pytest.mark.parametrize("picture", [plots.field, plots.draws])
def test_scattered_points_are_colored_points(others, picture):
    samples, tree = others
    figure = picture(tree, "scatter", samples["scatter"][0, 0])
    truth = figure.axes[0].collections[0]
    np.testing.assert_allclose(truth.get_offsets(), SCATTER.places)
    np.testing.assert_allclose(truth.get_array(), samples["scatter"][0, 0])
    mean = figure.axes[1].collections[0].get_array()
    expected = samples["scatter"].mean((0, 1)) if picture is plots.field else samples["scatter"][0, 10]
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    assert figure.axes[1].get_xlabel().startswith("x")
    assert figure.axes[0].get_ylabel().startswith("y")


def test_points_on_a_line_are_in_order():
    x = np.array([2.0, 0.5, 1.0])
    values = np.random.default_rng(0).normal(size=(2, 20, 3))
    place = {"x": DataArray(x, dims="point", attrs={"units": "km"})}
    prediction = Dataset({"u": (("chain", "draw", "point"), values)}, coords=place)
    mean = plots.field(prediction, "u").axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(mean, np.stack([x, values.mean((0, 1))], axis=1)[[1, 2, 0]])


@pytest.mark.parametrize("image", [False, True])
def test_data_over_a_map_share_its_colors(others, image):
    tree = others[1]
    points, values = np.array([[0.5, 0.2], [2.5, 0.9], [1.0, 0.5]]), np.array([-20.0, 0.0, 30.0])
    figure = plots.field(tree, "batch", at={"replicate": 0}, points=points, values=values, image=image)
    mean, sd, quality = figure.axes[:3]
    marks = mean.collections[-1]
    np.testing.assert_array_equal(marks.get_array(), values)
    np.testing.assert_array_equal(marks.get_offsets(), points[:, ::-1] if image else points)
    assert marks.get_clim() == mean.images[0].get_clim() == (-20.0, 30.0)
    assert marks.get_cmap() == mean.images[0].get_cmap()
    assert all(marks.get_array() is None for marks in sd.collections)  # places alone, for the unit is another
    assert len(sd.collections) > 0
    assert not quality.collections


def test_data_over_a_line(others):
    top = plots.field(others[1], "lines", at={"replicate": 0}, points=[2.0, 1.0], values=[3.0, 4.0]).axes[0]
    np.testing.assert_array_equal(top.lines[-1].get_xydata(), [[2.0, 3.0], [1.0, 4.0]])


def test_cells_of_unequal_width_have_it():
    x, y = np.array([0.5, 1.5, 4.0]), np.array([0.5, 1.5])
    values = np.random.default_rng(0).normal(size=(2, 20, 3, 2))
    place = {"x": ("x", x, {"units": "m"}), "y": ("y", y, {"units": "m"})}
    figure = plots.field(Dataset({"u": (("chain", "draw", "x", "y"), values)}, coords=place), "u")
    mesh = figure.axes[0].collections[0]
    np.testing.assert_allclose(np.unique(mesh.get_coordinates()[..., 0]), [0.0, 1.0, 2.75, 5.25])
    np.testing.assert_allclose(mesh.get_array().reshape(2, 3), values.mean((0, 1)).T)


def test_means_and_sds_are_in_double_precision():
    """273.15 + 0.01 N: float32 sums of 100,000 draws give an sd 26 times too large."""
    x = (273.15 + 0.01 * np.random.default_rng(0).standard_normal((1, 100_000, 4))).astype(np.float32)
    exact = x.astype(np.float64)
    place = {"x": ("x", np.arange(4.0), {"units": "m"})}
    top, middle, _ = plots.field(Dataset({"u": (("chain", "draw", "x"), x)}, coords=place), "u", diagnostic="rhat").axes
    np.testing.assert_allclose(top.lines[0].get_ydata(), exact.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(middle.lines[0].get_ydata(), exact.std((0, 1)), rtol=1e-9)


def test_a_prediction_is_drawn_as_it_is():
    grid = Grid((4, 3))
    draws = {"u": np.random.default_rng(0).normal(size=(2, 9, 4, 3)).astype(np.float32)}

    def model():
        numpyro.sample("u", SpectralField(grid, jnp.ones(grid.shape)))

    figure = plots.field(predict(draws, "u", domain=grid.refined(2), model=model), "u")
    assert images(figure)[0].get_array().shape == (6, 8)


def test_without_matplotlib_the_error_names_the_extra(others, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"plots.draws needs matplotlib.*numpyro-inverse\[examples\]"):
        plots.draws(others[1], "lines")
    plt.close("all")
