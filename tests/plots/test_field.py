"""What is drawn is what the samples say, where the domain says it is."""

import sys

import arviz as az
import jax
import numpy as np
import pytest

from numpyro_inverse import plots
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import to_arviz

MAP = Grid((6, 4), extent=(3.0, 1.0))
LINE = Grid(7, extent=3.5)
BOX = Grid((3, 4, 5), extent=(3.0, 4.0, 5.0))


@pytest.fixture(scope="module")
def samples():
    normal = jax.random.normal(jax.random.key(3), (2, 40, 60))
    return {
        "map": np.asarray(normal[..., :24].reshape(2, 40, 6, 4) + np.arange(24.0).reshape(6, 4)),
        "line": np.asarray(normal[..., :7]),
        "box": np.asarray(normal.reshape(2, 40, 3, 4, 5)),
        "level": np.asarray(normal[..., 0]),
    }


@pytest.fixture(scope="module")
def tree(samples):
    return to_arviz(samples, domain={"map": MAP, "line": LINE, "box": BOX}, length_unit="m")


def test_maps_in_physical_coordinates(tree, samples):
    figure = plots.field(tree, "map", truth=np.full((6, 4), 100.0), label="density (kg)")
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert [t.split("\n")[0] for t in titles] == [
        "truth",
        "posterior mean",
        "posterior standard deviation",
        "ESS, 80 draws",
    ]
    images = [axis.images[0] for axis in figure.axes if axis.images]
    flat = samples["map"].reshape(80, 6, 4)
    for image, expected in zip(images[1:3], (flat.mean(0), flat.std(0)), strict=True):
        np.testing.assert_allclose(image.get_array(), expected.T, rtol=1e-5)
    ess = az.ess(tree.posterior.to_dataset()[["map"]])["map"]
    np.testing.assert_allclose(images[3].get_array(), ess.values.T)
    assert titles[3] == f"ESS, 80 draws\nsmallest {float(ess.min()):.0f}"
    for image in images:
        assert image.origin == "lower"
        np.testing.assert_allclose(image.get_extent(), (0, 3, 0, 1), atol=1e-12)
    assert images[0].get_clim() == images[1].get_clim()  # one scale, wide enough for both
    assert images[0].get_clim()[1] == 100.0
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("x (m)", "y (m)")
    assert any(axis.get_ylabel() == "density (kg)" for axis in figure.axes)


def test_a_photograph_has_its_first_axis_downwards(tree, samples):
    figure = plots.field(tree, "map", image=True, diagnostic="rhat")
    mean = figure.axes[0].images[0]
    np.testing.assert_allclose(mean.get_array(), samples["map"].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(mean.get_extent(), (0, 1, 3, 0), atol=1e-12)
    assert mean.origin == "upper"
    rhat = az.rhat(tree.posterior.to_dataset()[["map"]])["map"]
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), rhat)


def test_a_line_has_a_band(tree, samples):
    truth = np.linspace(0, 1, 7)
    top, middle, bottom = plots.field(tree, "line", truth=truth).axes
    mean, known = (line.get_xydata() for line in top.lines)
    np.testing.assert_allclose(mean[:, 0], LINE.axes[0])
    np.testing.assert_allclose(mean[:, 1], samples["line"].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(known[:, 1], truth)
    band = top.collections[0].get_paths()[0].vertices[:, 1]
    low, high = np.quantile(samples["line"].reshape(80, 7), [0.055, 0.945], axis=0)
    np.testing.assert_allclose([band.min(), band.max()], [low.min(), high.max()], rtol=1e-5)
    np.testing.assert_allclose(middle.lines[0].get_ydata(), samples["line"].std((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(bottom.lines[0].get_ydata(), az.ess(tree.posterior.to_dataset()[["line"]])["line"])


def test_a_box_is_cut_at_a_coordinate(tree, samples):
    z = tree.posterior["box"].dims[-1]
    figure = plots.field(tree, "box", at={z: 3.4}, truth=samples["box"][0, 0])
    np.testing.assert_allclose(figure.axes[1].images[0].get_array().T, samples["box"].mean((0, 1))[..., 3], rtol=1e-4)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array().T, samples["box"][0, 0, ..., 3])


def test_the_diagnostic_of_a_large_field_is_of_some_cells(monkeypatch, tree):
    monkeypatch.setattr(sys.modules["numpyro_inverse.plots._field"], "DIAGNOSTIC_CELLS", 6)
    figure = plots.field(tree, "map")
    assert figure.axes[2].images[0].get_array().shape == (2, 3)
    assert "1 cell in 4" in figure.axes[2].get_title()
    np.testing.assert_allclose(figure.axes[2].images[0].get_extent(), (0, 3, 0, 1), atol=0.26)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "mop"}, r"site 'mop' is not in 'posterior'; there are map, line, box, level"),
        ({"group": "prior"}, r"`group` 'prior'.*posterior"),
        ({"truth": np.zeros((4, 6))}, r"`truth` has shape \(4, 6\), but site 'map' has shape \(6, 4\)"),
        ({"name": "box"}, r"site 'box' has the axes .*at=\{"),
        ({"name": "level"}, "site 'level' is a number"),
        ({"at": {"w": 0.0}}, "`at` names 'w'"),
        ({"diagnostic": "mcse"}, "`diagnostic`"),
    ],
)
def test_bad_input_is_refused_by_name(tree, change, message):
    with pytest.raises(ValueError, match=message):
        plots.field(tree, **({"name": "map"} | change))


def test_samples_that_are_not_finite_are_refused(tree):
    broken = tree.copy(deep=True)
    broken.posterior["line"][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="site 'line' has 1 samples that are not finite"):
        plots.field(broken, "line")


def test_without_matplotlib_the_error_names_the_extra(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"numpyro-inverse\[examples\]"):
        plots.field(tree, "map")


def test_data_come_first_in_the_means_colors(tree, samples):
    figure = plots.field(tree, "map", truth=np.zeros((6, 4)), data=np.ones((6, 4)), image=True)
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles[:3] == ["data", "truth", "posterior mean"]
    images = [axis.images[0] for axis in figure.axes if axis.images]
    np.testing.assert_allclose(images[0].get_array(), 1.0)
    assert images[0].get_clim() == images[2].get_clim()


def test_data_of_another_shape(tree):
    with pytest.raises(ValueError, match="`data` has shape"):
        plots.field(tree, "map", data=np.ones((3, 3)))
