"""Convolutions against scipy.ndimage, and what Gaussian blurs do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Convolution, SeparableConvolution

SCIPY_MODES = {"periodic": "grid-wrap", "neumann": "reflect", "zero": "constant"}


def cells(*shape):
    """Cells with sides of 1."""
    return Grid(shape, extent=shape)


@pytest.mark.parametrize("boundary", SCIPY_MODES)
@pytest.mark.parametrize(
    ("shape", "kernel_shape"),
    [((13,), (4,)), ((7,), (40,)), ((6, 9), (3, 4)), ((4, 5), (11, 2)), ((4, 3, 5), (2, 3, 4))],
)
def test_agrees_with_scipy(shape, kernel_shape, boundary, x64):
    """Asymmetric kernels of odd and even size, also larger than the array."""
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=kernel_shape), rng.normal(size=shape)
    expected = scipy.ndimage.convolve(x, kernel, mode=SCIPY_MODES[boundary])
    np.testing.assert_allclose(Convolution(kernel, shape, boundary)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", SCIPY_MODES)
def test_separable_agrees_with_its_outer_product(boundary, x64):
    rng = np.random.default_rng(1)
    kernels, x = [rng.normal(size=m) for m in (4, 15)], rng.normal(size=(6, 5))
    expected = scipy.ndimage.convolve(x, np.outer(*kernels), mode=SCIPY_MODES[boundary])
    np.testing.assert_allclose(SeparableConvolution(kernels, (6, 5), boundary)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", SCIPY_MODES)
def test_gaussian_agrees_with_scipy(boundary, x64):
    x = np.random.default_rng(2).normal(size=(12, 17))
    expected = scipy.ndimage.gaussian_filter(x, (1.5, 0.6), mode=SCIPY_MODES[boundary], radius=(8, 3))
    blur = Convolution.gaussian(cells(12, 17), width=(1.5, 0.6), boundary=boundary)
    assert isinstance(blur, SeparableConvolution)
    np.testing.assert_allclose(blur(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "boundary",
    [
        *(pytest.param(b, marks=pytest.mark.slow) for b in ("neumann", "dirichlet", "periodic")),
        ("dirichlet", "periodic"),
    ],
)
def test_a_blur_shares_the_modes_of_its_grid(boundary, x64):
    """A symmetric kernel is diagonal in the modes of the grid whose boundary it has, by matrices and by FFT."""
    grid = Grid((8, 6), extent=(8.0, 6.0), boundary=boundary)
    blur = Convolution.gaussian(grid, 1.3)
    point = np.zeros((15, 15))
    point[7, 7] = 1
    kernel = np.asarray(Convolution.gaussian(cells(15, 15), 1.3, boundary="zero")(point))
    by_fft = Convolution(kernel, (8, 6), boundary)

    @jax.jit
    def both(unit):
        modes = jax.vmap(grid.inverse_transform)(unit.reshape(48, 8, 6))
        return by_fft(modes), blur(modes), jax.vmap(grid.transform)(blur(modes)).reshape(48, 48)

    other, blurred, diagonal = both(np.eye(48))
    np.testing.assert_allclose(other, blurred, atol=1e-13)
    np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=1e-13)


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_gaussian_keeps_the_mean_and_spreads_by_its_width(boundary, x64):
    point = jnp.zeros((41, 33)).at[20, 16].set(1.0)
    y = np.asarray(Convolution.gaussian(cells(41, 33), (3.0, 1.5), boundary=boundary)(point))
    assert y.sum() == pytest.approx(1.0, abs=1e-13)
    np.testing.assert_allclose(y.sum(1) @ (np.arange(41) - 20) ** 2, 9.0, rtol=1e-4)
    np.testing.assert_allclose(y.sum(0) @ (np.arange(33) - 16) ** 2, 2.25, rtol=1e-4)


@pytest.mark.slow
def test_width_can_be_inferred(x64):
    """With ``radius`` the width may be traced, and the derivative is that of finite differences."""
    x = jnp.asarray(np.random.default_rng(3).normal(size=(9, 8)))

    @jax.jit
    def energy(width):
        return jnp.sum(Convolution.gaussian(cells(*x.shape), width, radius=6)(x) ** 2)

    numerical = (energy(1.2 + 1e-5) - energy(1.2 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(energy)(1.2), numerical, rtol=1e-7)
    assert energy(1.2) == pytest.approx(jnp.sum(Convolution.gaussian(cells(*x.shape), 1.2)(x) ** 2))


def test_kernel_can_be_inferred(x64):
    """The derivative in the kernel, which the output is linear in."""
    rng = np.random.default_rng(4)
    kernel, direction, x = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), rng.normal(size=(5, 4))
    blur = jax.jit(lambda k: Convolution(k, (5, 4), "zero")(x))
    np.testing.assert_allclose(jax.jvp(blur, (kernel,), (direction,))[1], blur(direction), atol=1e-13)


@pytest.mark.slow
def test_norm_bound_is_the_norm_where_it_can_be(x64):
    kernel = np.random.default_rng(5).normal(size=(3, 4))
    periodic = Convolution(kernel, (5, 6))
    assert periodic.norm_bound() == pytest.approx(np.linalg.norm(periodic.as_matrix(), 2), rel=1e-10)
    assert Convolution(np.ones((3, 3)) / 9, (5, 6), "neumann").norm_bound() == pytest.approx(1, rel=1e-10)
    assert Convolution.gaussian(cells(5, 6), 2.0).norm_bound() == pytest.approx(1, rel=1e-10)


def test_sum_of_the_kernel_does_not_bound_a_mirrored_convolution(x64):
    """A shift by half the array shows every cell of one half twice: norm sqrt(2) from a kernel of sum 1."""
    shift = np.zeros(9)
    shift[8] = 1.0
    a = Convolution(shift, 8, "neumann")
    norm = np.linalg.norm(a.as_matrix(), 2)
    assert norm == pytest.approx(np.sqrt(2))
    assert a.norm_bound() >= norm


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolution(np.ones(3), (4, 4)), "`kernel` must have the 2 axes"),
        (lambda: Convolution(np.ones((0, 3)), (4, 4)), "empty"),
        (lambda: Convolution([1.0, np.nan], 4), "`kernel` must be finite; 1 of its 2"),
        (lambda: Convolution(np.ones(3), 4, "reflect"), "`boundary` must be one of periodic, neumann, dirichlet, zero"),
        (lambda: Convolution(np.ones(3), 4.5), "`shape` must be one to three positive integers"),
        (lambda: Convolution(np.ones((1,) * 4), (2,) * 4), "`shape` must be one to three positive integers"),
        (lambda: SeparableConvolution([np.ones(3)], (4, 4)), "`kernels` must be 2 non-empty vectors"),
        (lambda: Convolution.gaussian(cells(4, 4), -1.0), "`width` must be finite and not negative"),
        (lambda: Convolution.gaussian(cells(4, 4), (1.0, 1.0, 1.0)), "`width` must be one value or one per axis"),
        (lambda: Convolution.gaussian(cells(4, 4), 1.0, radius=-1.5), "`radius` must be finite and not negative"),
        (lambda: Convolution.gaussian(cells(4, 4), 1e9), "`width` 1000000000.0 is over 100 times"),
        (lambda: jax.jit(lambda w: Convolution.gaussian(cells(4), w)(jnp.ones(4)))(1.0), "`width` is traced"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
