"""The protocol of a domain: what a grid and scattered points of one's own offer alike."""

from dataclasses import dataclass

import numpy as np

from numpyro_inverse.domains import Domain, Grid
from numpyro_inverse.domains._domain import axis_names
from numpyro_inverse.operators import Matrix, PointObservation


@dataclass(frozen=True)
class Points:
    """Places given by hand, values elsewhere by the nearest place: a domain of a user's own."""

    places: tuple[tuple[float, float], ...]
    ndim: int = 2

    @property
    def shape(self):
        return (len(self.places),)

    @property
    def size(self):
        return len(self.places)

    @property
    def coordinates(self):
        x, y = np.asarray(self.places).T
        return {"x": (("point",), x), "y": (("point",), y)}

    @property
    def weights(self):
        return np.full(self.shape, 1 / self.size)

    def interpolation(self, points):
        distance = np.linalg.norm(np.asarray(points)[:, None] - np.asarray(self.places), axis=-1)
        return Matrix(np.eye(self.size)[distance.argmin(1)])


def test_a_grid_is_a_domain(x64):
    grid = Grid((4, 3, 2), extent=(1.0, 2.0, 3.0))
    assert isinstance(grid, Domain)
    assert axis_names(grid) == ("x", "y", "z")
    for number, (name, (axes, values)) in enumerate(grid.coordinates.items()):
        assert axes == (name,)
        np.testing.assert_array_equal(values, grid.axes[number])
    # The midpoint rule is exact for affine functions.
    integral = np.sum(grid.weights * (1 + np.asarray(grid.points) @ [1.0, 2.0, 3.0]))
    np.testing.assert_allclose(integral, 6 * (1 + 0.5 + 2.0 + 4.5))


def test_scattered_points_are_a_domain():
    points = Points(((0.0, 0.0), (1.0, 0.0), (0.0, 2.0)))
    assert isinstance(points, Domain)
    assert axis_names(points) == ("point",)
    seen = PointObservation(points, [[0.1, 1.9], [0.8, 0.1]])
    np.testing.assert_array_equal(seen(np.array([1.0, 2.0, 3.0])), [3.0, 2.0])


def test_what_is_no_domain():
    assert not isinstance(np.zeros(3), Domain)
    assert not isinstance((4, 3), Domain)
