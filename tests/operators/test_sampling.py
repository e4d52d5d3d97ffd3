"""Operators that pick, average or transform entries, against NumPy; a norm that each is known to have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import BlockAverage, Fourier, Kronecker, Mask, Matrix, PointObservation

CELLS = Grid((4, 6), extent=(4.0, 6.0))


def _norm(operator):
    return np.linalg.norm(operator.as_matrix(), 2)


def test_mask():
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    mask = x > 0.3
    np.testing.assert_array_equal(Mask(mask)(x), x[mask])
    np.testing.assert_array_equal(Mask(mask).T(x[mask]), np.where(mask, x, 0))
    assert Mask(mask).norm_bound() == 1.0 == _norm(Mask(mask))


def test_point_observation(x64):
    """At cell centers it is the cells' values; elsewhere the series'; a point may come again."""
    grid, x = Grid((4, 5), extent=(2.0, 2.5)), np.random.default_rng(0).normal(size=(4, 5))
    index = np.array([[3, 4], [0, 2], [3, 4], [3, 4]])
    a = PointObservation(grid, (index + 0.5) * 0.5)
    np.testing.assert_allclose(a(x), x[tuple(index.T)], atol=1e-14)
    assert a.norm_bound() == pytest.approx(_norm(a)) == pytest.approx(np.sqrt(3))
    np.testing.assert_allclose(PointObservation(Grid(4), [0.625, 0.125])(x[:, 0]), x[[2, 0], 0], atol=1e-14)
    points = np.array([[0.3, 2.2], [1.9, 0.0]])
    coefficients = np.asarray(grid.transform(x))
    cosines = [np.cos(np.pi * np.multiply.outer(points[:, a] / n / 0.5, np.arange(n))) for a, n in enumerate((4, 5))]
    for c, n in zip(cosines, (4, 5), strict=True):
        c *= np.sqrt(np.where(np.arange(n) == 0, 1, 2) / n)
    expected = np.einsum("ij,mi,mj->m", coefficients, *cosines)
    np.testing.assert_allclose(PointObservation(grid, points)(x), expected, atol=1e-13)


def test_point_observation_of_a_domain_of_ones_own():
    """Whatever has the method ``interpolation`` is a domain."""

    class Nodes:
        def interpolation(self, points):
            return Matrix(np.asarray(points))

    np.testing.assert_allclose(PointObservation(Nodes(), [[0.5, 0.5, 0.0]])(np.array([1.0, 3.0, 9.0])), [2.0])


def test_block_average(x64):
    x = np.arange(24.0).reshape(4, 6)
    a = BlockAverage(Grid((4, 6), extent=(0.4, 0.6)), (0.2, 0.3))
    np.testing.assert_allclose(a(x), [[x[i : i + 2, j : j + 3].mean() for j in (0, 3)] for i in (0, 2)])
    assert a.norm_bound() == pytest.approx(_norm(a)) == pytest.approx(6**-0.5)


@pytest.mark.parametrize("shape", [(8,), (7,), (6, 5), (5, 6), (3, 4, 2)])
def test_fourier_against_the_dense_dft(shape, x64):
    """Every frequency, so also those which are found as conjugates, against an explicit sum of exponentials."""
    x = np.random.default_rng(0).normal(size=shape)
    expected = x.astype(complex)
    for axis, n in enumerate(shape):
        dft = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n)
        expected = np.moveaxis(np.tensordot(dft, expected, (1, axis)), 0, axis)
    expected = expected.ravel()
    everything = Fourier(np.ones(shape, bool))
    np.testing.assert_allclose(everything(x), [expected.real, expected.imag], atol=1e-13)
    assert everything.norm_bound() == pytest.approx(_norm(everything))
    mask = np.random.default_rng(1).uniform(size=shape) < 0.4
    chosen = expected[mask.ravel()]
    np.testing.assert_allclose(Fourier(mask)(x), [chosen.real, chosen.imag], atol=1e-13)


def test_matrix():
    m = np.array([[1.0, 2j, 0, 1], [0, 1, 1j, 3]])
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    a = Matrix(m, in_shape=(2, 2), out_shape=(1, 2))
    np.testing.assert_allclose(a(x), (m @ x.ravel())[None], rtol=1e-6)
    np.testing.assert_allclose(a.H(np.array([[1.0, 2.0]])), (m.conj().T @ [1, 2]).reshape(2, 2), rtol=1e-6)
    assert a.norm_bound() == pytest.approx(np.linalg.norm(m, 2), rel=1e-5)
    assert Matrix([[1, 2], [3, 4]])(x[0]).dtype == jnp.float32


def test_integers_are_not_truncated():
    """Factors below 1 act in full on integer arrays."""
    np.testing.assert_allclose(Kronecker([np.full((1, 4), 0.25)])(np.arange(4)), [1.5])
    np.testing.assert_allclose((0.5 * Mask(np.ones(3, bool)))(np.arange(3)), [0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mask(np.array([0, 1])), "Mask: `mask` must be boolean; got dtype int64"),
        (lambda: Mask(np.zeros((2, 2), bool)), "keeps no entry"),
        (lambda: jax.jit(lambda m: Mask(m)(jnp.ones(2)))(np.ones(2, bool)), "known outside `jit`"),
        (lambda: Fourier(np.ones((2, 2))), "Fourier: `mask` must be boolean; got dtype float64"),
        (lambda: Fourier(np.ones((1,) * 4, bool)), "one to three axes"),
        (lambda: PointObservation(CELLS, [[0, 7], [1, 1]]), r"1 of 2 `points` .* points\[0\] = \[0.0, 7.0\]"),
        (lambda: PointObservation(CELLS, [0, 1]), r"shape \(m, 2\)"),
        (lambda: PointObservation(CELLS, np.zeros((0, 2))), "m >= 1"),
        (lambda: BlockAverage(CELLS, 4), "does not divide the shape"),
        (lambda: BlockAverage(CELLS, 0.5), "`width` must be whole cells"),
        (lambda: BlockAverage(CELLS, (2, 3, 1)), "one value or one per axis"),
        (lambda: Matrix(np.ones(3)), "`matrix` must be a matrix"),
        (lambda: Matrix([[np.nan]]), "`matrix` must be finite"),
        (lambda: Matrix(np.ones((2, 4)), in_shape=(3,)), "`in_shape` .* but the matrix wants 4"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
