"""The cosine, sine and Fourier bases and their fast transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.domains import Grid, _transforms
from numpyro_inverse.domains._transforms import (
    BOUNDARIES,
    analysis,
    basis,
    basis_at,
    cardinal,
    synthesis,
    variance_synthesis,
)

SIZES = (1, 2, 3, 8, 9)


@pytest.fixture(params=["matrix", "fft"])
def path(request, monkeypatch):
    """Both implementations at every size."""
    monkeypatch.setattr(_transforms, "DENSE_LIMIT", 10**6 if request.param == "matrix" else 0)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n", SIZES)
def test_basis_is_orthonormal(boundary, n):
    b = basis(boundary, n)
    np.testing.assert_allclose(b.T @ b, np.eye(n), atol=1e-13)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_basis_solves_the_boundary_value_problem(boundary):
    """Second derivative -(pi j / L)^2 times the function, and the boundary condition at both ends."""
    n, t, e = 8, np.linspace(0.1, 0.9, 7), 1e-4
    at = lambda t: basis_at(boundary, n, t)  # noqa: E731
    second = (at(t + e) - 2 * at(t) + at(t - e)) / e**2
    wavenumbers = np.pi * _transforms.mode_numbers(boundary, n)
    np.testing.assert_allclose(second, -(wavenumbers**2) * at(t), atol=2e-4 * max(wavenumbers) ** 2)
    ends, inner = at(np.array([0.0, 1.0])), at(np.array([e, 1 - e]))
    if boundary == "neumann":
        np.testing.assert_allclose(ends, inner, atol=2 * (e * max(wavenumbers)) ** 2)
    elif boundary == "dirichlet":
        np.testing.assert_allclose(ends, 0, atol=1e-13)
    else:
        np.testing.assert_allclose(ends[0], ends[1], atol=1e-13)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n", SIZES)
def test_transforms_are_the_basis(path, boundary, n, x64):
    x = np.random.default_rng(n).normal(size=(2, n, 3))
    b = basis(boundary, n)
    expected = np.einsum("ink,nj->ijk", x, b)
    coefficients, values = jax.jit(lambda x, w: (analysis(x, boundary, -2), synthesis(w, boundary, 1)))(x, expected)
    np.testing.assert_allclose(coefficients, expected, atol=1e-13)
    np.testing.assert_allclose(values, x, atol=1e-13)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n", SIZES)
def test_cardinal_functions(path, boundary, n):
    """The series through given values: on the centers the values themselves, elsewhere as the basis says."""
    t = np.append((np.arange(n) + 0.5) / n, [0.0, 0.123, 0.777, 1.0])
    weights = cardinal(boundary, n, t)
    np.testing.assert_allclose(weights[:n], np.eye(n), atol=1e-13)
    np.testing.assert_allclose(weights, basis_at(boundary, n, t) @ basis(boundary, n).T, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, bool, np.float16, jnp.bfloat16, complex])
def test_transform_of_other_dtypes(dtype):
    """Integers are numbers (once they gave zeros), half precision is single, complex parts are transformed each."""
    grid = Grid((3, 4), boundary=("neumann", "periodic"))
    x = np.random.default_rng(0).integers(0, 2, size=(3, 4)).astype(dtype)
    parts = [
        np.asarray(p, np.float32) for p in ((x.real, x.imag) if dtype is complex else (x, 0 * np.asarray(x, float)))
    ]
    expected = np.asarray(grid.transform(parts[0])) + 1j * np.asarray(grid.transform(parts[1]))
    found = grid.transform(x)
    assert found.dtype == (jnp.complex64 if dtype is complex else jnp.float32)
    np.testing.assert_allclose(found, expected if dtype is complex else expected.real, atol=1e-6)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n", SIZES)
def test_variance_synthesis_is_the_squared_basis(path, boundary, n, x64):
    v = np.random.default_rng(n).uniform(size=(2, n, 3))
    expected = np.einsum("ink,jn->ijk", v, basis(boundary, n) ** 2)
    found = jax.jit(lambda v: variance_synthesis(v, boundary, 1))(v)
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_float32_fast_transform_of_a_long_axis(boundary):
    """20 000 cells, round trip and Parseval, to single precision."""
    x = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    w = jax.jit(lambda x: analysis(x, boundary, 0))(x)
    assert w.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(lambda w: synthesis(w, boundary, 0))(w), x, atol=1e-5)
    np.testing.assert_allclose(np.sum(np.asarray(w, float) ** 2), np.sum(x.astype(float) ** 2), rtol=1e-6)


def test_grid_transform_acts_on_the_trailing_axes(x64):
    grid = Grid((3, 4, 5), boundary=("neumann", "dirichlet", "periodic"))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    expected = np.einsum(
        "zabc,ai,bj,ck->zijk", x, *(basis(b, n) for b, n in zip(grid.boundary, grid.shape, strict=True))
    )
    np.testing.assert_allclose(grid.transform(x), expected, atol=1e-13)
    np.testing.assert_allclose(grid.inverse_transform(grid.transform(x)), x, atol=1e-13)


@pytest.mark.parametrize("name", ["transform", "inverse_transform"])
def test_grid_transform_of_a_wrong_shape(name):
    with pytest.raises(
        ValueError, match=rf"Grid.{name}: the trailing axes of `x` must be \(3, 4\); got shape \(4, 3\)"
    ):
        getattr(Grid((3, 4)), name)(jnp.zeros((4, 3)))
