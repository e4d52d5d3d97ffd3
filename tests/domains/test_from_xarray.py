"""Grids of coordinates that are there already."""

import numpy as np
import pytest
import xarray as xr

from numpyro_inverse.domains import Grid


def _array(**coords):
    return xr.DataArray(np.zeros([len(v) for v in coords.values()]), coords, tuple(coords))


def test_spacing_and_extent():
    array = _array(y=10 + 0.5 * np.arange(4), x=np.linspace(-1.0, 1.0, 5, dtype=np.float32))
    grid = Grid.from_xarray(array, boundary=("periodic", "neumann"))
    assert grid == Grid((4, 5), grid.extent, ("periodic", "neumann"))
    np.testing.assert_allclose(grid.spacing, (0.5, 0.5))
    np.testing.assert_allclose(grid.axes[0], array.y - array.y[0] + 0.25)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros(3), TypeError, "must be an xarray.DataArray"),
        (xr.DataArray(np.zeros(3), dims="x"), TypeError, "'x' has no coordinates"),
        (_array(x=list("abc")), TypeError, "`x` must"),
        (_array(x=[0.0, 1.0, 2.1]), ValueError, "must rise in equal steps"),
        (_array(x=[2.0, 1.0, 0.0]), ValueError, "sortby"),
        (_array(x=[2.0]), ValueError, "must rise in equal steps"),
    ],
)
def test_bad_input(array, error, message):
    with pytest.raises(error, match=message):
        Grid.from_xarray(array)
