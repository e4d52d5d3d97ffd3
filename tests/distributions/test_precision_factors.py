"""Precisions by sparse factors against the covariance of the field as a map of white noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.distributions import AutoregressiveField, Coregionalized, Matern, NonstationaryMatern
from numpyro_inverse.domains import ElementMatrices, Mesh
from tests.domains.meshes import interval, square_arrays

MIXING = np.array([[1.2, 0.0, 0.0], [-0.7, 0.5, 0.0], [0.3, 0.2, -0.9]])
PAIR = MIXING[:2, :2]


def plane(range_):
    return Matern(Mesh(*square_arrays(4)), range=range_, scale=1.2, smoothness=1.0)


def varying(smoothness=1.0):
    """In the plane with directions; of another smoothness on a line, of 1/2 without a middle factor."""
    mesh = Mesh(*square_arrays(4)) if smoothness == 1.0 else interval(6)
    tensor = jnp.array([[2.0, 0.3], [0.3, 0.6]]) if smoothness == 1.0 else None
    x = mesh.points[:, 0]
    return NonstationaryMatern(
        ElementMatrices(mesh), range=jnp.exp(x - 1), scale=1 + x, smoothness=smoothness, anisotropy=tensor
    )


def line(range_, smoothness):
    return Matern(interval(6), range=range_, scale=1.3, smoothness=smoothness)


LAWS = {
    "directions": varying,
    "varying on a line": lambda: varying(0.5),
    "one time": lambda: AutoregressiveField(line(0.5, 0.5), 0.3, 1),
    "in time": lambda: AutoregressiveField(plane(0.5), -0.6, 4),
    "varying, in time": lambda: AutoregressiveField(varying(), 0.4, 3),
    "correlated": lambda: Coregionalized([plane(0.5), plane(0.3), varying()], MIXING),
    "correlated, of two orders": lambda: Coregionalized([line(0.5, 0.5), line(0.3, 1.5), varying(1.5)], MIXING),
    "correlated, in time": lambda: AutoregressiveField(Coregionalized([plane(0.5), varying()], PAIR), 0.7, 3),
    "in time, correlated": lambda: Coregionalized(
        [AutoregressiveField(plane(0.5), 0.7, 2), AutoregressiveField(varying(), -0.2, 2)], PAIR
    ),
}
QUICK = ("correlated, of two orders",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LAWS]
)
def test_factors_are_the_precision(x64, name):
    """To 1e-10, with both log determinants; entries are those of a lower triangle, each once."""

    @jax.jit
    def numbers(field):
        root = jax.jacobian(lambda z: jnp.ravel(field.from_base(z)))(jnp.zeros(field.base_dist.shape()))
        return root, field.precision_factors(), field.precision_entries

    root, factors, (rows, cols) = numbers(LAWS[name]())
    n = len(root)
    assert np.all(rows >= cols)
    assert len(set(zip(rows.tolist(), cols.tolist(), strict=True))) == len(rows)

    def dense(values, mirror=None):
        matrix = np.zeros((n, n))
        matrix[rows, cols] = values
        matrix[cols, rows] = values if mirror is None else mirror
        return matrix

    precision = dense(factors.outer, factors.mirror)
    if factors.middle is not None:
        middle = dense(factors.middle)
        np.testing.assert_allclose(factors.middle_logdet, np.linalg.slogdet(middle)[1], rtol=1e-10)
        precision = precision.T @ np.linalg.solve(middle, precision)
    root = np.reshape(root, (n, n))
    np.testing.assert_allclose(precision @ root @ root.T, np.eye(n), atol=1e-10)
    np.testing.assert_allclose(factors.logdet, np.linalg.slogdet(precision)[1], rtol=1e-10)


def test_what_has_no_sparse_factors():
    """A batch, and a field of a smoothness without them, in time or beside others too."""
    smooth, batch = line(0.5, 2.5), line(jnp.array([0.5, 0.3]), 1.5)
    for field in (smooth, batch):
        assert field.precision_entries is None
        assert AutoregressiveField(field, 0.5, 2).precision_entries is None
        assert Coregionalized([line(0.5, 1.5), field], PAIR).precision_entries is None
    assert AutoregressiveField(line(0.5, 1.5), jnp.array([0.5, 0.1]), 2).precision_entries is None
