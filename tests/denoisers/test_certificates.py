"""No certified bound is below the true norm, on 500 random layers and networks; and bounds are close to it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.denoisers import (
    ConvolutionalNetwork,
    FirmlyNonexpansiveDenoiser,
    LipschitzConvolution,
    certificate,
    circular_convolution_norm,
    gram_bound,
    jacobian_norm,
    matrix_norm,
    same_convolution_norm,
    zero_padded_convolution_bound,
)
from numpyro_inverse.denoisers._certify import SLOPES
from numpyro_inverse.operators import LinearOperator, Matrix

EXACT = 1 + 2e-6  # the millionth that is added for rounding


def dense(kernel, shape, periodic, edge=None):
    """The matrix of a correlation, place by place; ``edge`` zeros around the image, half a kernel unless told."""
    out, into, *sides = kernel.shape
    edges = [side // 2 for side in sides] if edge is None else edge
    size = shape if periodic else [n + 2 * e - k + 1 for n, e, k in zip(shape, edges, sides, strict=True)]
    matrix = np.zeros((out, *size, into, *shape))
    for i, j in np.ndindex(*size):
        for a, b in np.ndindex(*sides):
            row, column = i + a - edges[0], j + b - edges[1]
            if periodic:
                matrix[:, i, j, :, row % shape[0], column % shape[1]] += kernel[:, :, a, b]
            elif 0 <= row < shape[0] and 0 <= column < shape[1]:
                matrix[:, i, j, :, row, column] += kernel[:, :, a, b]
    return matrix.reshape(out * np.prod(size), -1)


def norm(matrix):
    return np.linalg.svd(matrix, compute_uv=False)[0]


def convolution(kernel, **options):
    """The layer of Equinox with that kernel."""
    out, into, *sides = kernel.shape
    layer = eqx.nn.Conv2d(into, out, sides, key=jax.random.key(0), **options)
    return eqx.tree_at(lambda layer: layer.weight, layer, jnp.asarray(kernel, jnp.float32))


def test_150_matrices():
    rng = np.random.default_rng(0)
    for case in range(150):
        matrix = rng.normal(size=rng.integers(1, 40, 2)) * 10.0 ** rng.uniform(-20, 20)
        if case % 3 == 0:  # of low rank, with a repeated largest singular value
            matrix = np.linalg.qr(rng.normal(size=(max(matrix.shape), min(matrix.shape))))[0]
        truth = norm(matrix)
        found = matrix_norm(matrix)
        assert found.certified
        assert truth <= found.bound <= EXACT * truth
        bounds = [gram_bound(matrix, steps).bound for steps in range(1, 9)]
        assert min(bounds) >= truth
        assert bounds[5] <= 1.06 * truth  # the rank, at most 39, to the power 1/64
        assert bounds[-1] <= 1.02 * truth
    assert gram_bound(np.eye(3), 4).bound == pytest.approx(3 ** (1 / 32), rel=2e-6)  # closed form
    assert matrix_norm(np.zeros((2, 3))).bound == gram_bound(np.zeros((2, 3))).bound == 0


def test_120_circular_convolutions():
    """Exact; the kernel may be wider than the image, or even."""
    rng = np.random.default_rng(1)
    for _ in range(120):
        kernel = rng.normal(size=(*rng.integers(1, 4, 2), *rng.integers(1, 6, 2)))
        shape = tuple(int(n) for n in rng.integers(2, 8, 2))
        truth = norm(dense(kernel, shape, periodic=True))
        found = circular_convolution_norm(kernel, shape)
        assert found.certified
        assert truth <= found.bound <= EXACT * truth


def test_150_zero_padded_convolutions():
    """The Fourier bound holds for any padding; the certificate of a layer is within 10 % of the truth."""
    rng = np.random.default_rng(2)
    misses = 0
    for _ in range(150):
        sides = 2 * rng.integers(0, 3, 2) + 1
        kernel = rng.normal(size=(*rng.integers(1, 3, 2), *sides))
        shape = tuple(int(n) for n in rng.integers(2, 7, 2))
        truth = norm(dense(kernel, shape, periodic=False))
        wide = norm(dense(kernel, shape, periodic=False, edge=tuple(sides - 1)))
        bound = zero_padded_convolution_bound(kernel, shape)
        assert bound.certified
        assert max(truth, wide) <= bound.bound
        assert truth <= same_convolution_norm(kernel, shape).bound <= EXACT * truth
        misses += circular_convolution_norm(kernel, shape).bound < truth
    assert misses > 0  # the Fourier transform on n points is no bound


@pytest.mark.parametrize(("side", "n", "allowed"), [(3, 12, 1.04), (3, 24, 1.02), (5, 20, 1.06)])
def test_the_bound_of_a_wide_image_is_close(side, n, allowed):
    """Within 10 % from four kernels on, where the matrix is too large to be decomposed."""
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(1, 1, side, side))
    truth = norm(dense(kernel, (n, n), periodic=False))
    assert truth <= zero_padded_convolution_bound(kernel, (n, n)).bound <= allowed * truth


@pytest.mark.slow
def test_80_networks():
    """The product is at least the norm of the Jacobian anywhere, and the norm of the product of the matrices."""
    rng = np.random.default_rng(4)
    activations = (jax.nn.relu, jnp.tanh, jax.nn.silu, jax.nn.gelu)
    points = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)
    jacobians = eqx.filter_jit(lambda network: jax.vmap(jax.jacobian(network))(points))
    for case in range(80):
        network = eqx.nn.MLP(4, 3, 5, 2, activation=activations[case % 4], key=jax.random.key(case))
        found = certificate(network)
        assert found.certified
        assert max(norm(each) for each in np.asarray(jacobians(network))) <= found.bound
        product = np.linalg.multi_dot([layer.weight for layer in reversed(network.layers)])
        layers = [matrix_norm(layer.weight).bound for layer in network.layers]
        slope = (1, 1, 1.09984, 1.12905)[case % 4]
        assert norm(product) <= found.bound == pytest.approx(slope**2 * np.prod(layers), rel=1e-6)


@pytest.mark.slow
def test_layers_of_equinox():
    rng = np.random.default_rng(5)
    kernel, shape = rng.normal(size=(2, 3, 3, 3)).astype(np.float32), (6, 5)
    same, circular = norm(dense(kernel, shape, False)), norm(dense(kernel, shape, True))
    for options, truth in (
        ({"padding": 1}, same),
        ({"padding": "SAME"}, same),
        ({"padding": "SAME", "padding_mode": "CIRCULAR"}, circular),
    ):
        found = certificate(convolution(kernel, **options), shape)
        assert found.certified
        assert truth <= found.bound <= EXACT * truth
        assert found.conditions == "images of 6 x 5"
    for options in ({"padding": 2}, {"padding": 1, "stride": 2}):  # parts of the full convolution
        layer = convolution(kernel, **options)
        jacobian = jax.jacobian(layer)(jnp.zeros((3, *shape)))
        truth = norm(np.asarray(jacobian, float).reshape(-1, 90))
        assert truth <= certificate(layer, shape).bound < 3 * truth
    for options in ({"padding": 2, "dilation": 2}, {"padding": 1, "padding_mode": "REFLECT"}):
        found = certificate(convolution(kernel, **options), shape)
        assert found.bound == np.inf
        assert not found.certified
    both = eqx.nn.Sequential([convolution(kernel, padding=1), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Identity()])
    assert certificate(both, shape).bound == pytest.approx(same, rel=1e-5)
    assert certificate([np.eye(3), 2 * np.eye(3), jax.nn.sigmoid]).bound == pytest.approx(0.5, rel=1e-5)
    assert certificate(np.array([[3.0]])).bound == pytest.approx(3, rel=1e-5)


def test_a_large_convolution_has_a_bound_by_fourier_transform():
    kernel = np.random.default_rng(6).normal(size=(2, 2, 3, 3))
    found = certificate(convolution(kernel, padding=1), (32, 32))
    assert "34 x 34 points" in found.method
    assert found.bound == pytest.approx(zero_padded_convolution_bound(kernel, (32, 32)).bound, rel=1e-5)


class Doubling(LinearOperator):
    """Of which no bound is known."""

    in_shape: tuple[int, ...] = (4,)
    out_shape: tuple[int, ...] = (4,)

    def mv(self, x):
        return 2 * x


@pytest.mark.slow
def test_other_things_with_a_bound(key):
    matrix = np.random.default_rng(7).normal(size=(3, 4))
    assert certificate(Matrix(matrix)).bound >= norm(matrix)
    assert certificate(Doubling()).bound == np.inf
    assert certificate(LipschitzConvolution(4, 3, key=key)).bound == 1
    assert certificate(FirmlyNonexpansiveDenoiser(1, 3, 2, key=key)).certified
    network = ConvolutionalNetwork(3, 2, key=key)
    x = jax.random.uniform(key, (5, 6))
    found = certificate(network, (5, 6))
    jacobian = jax.jit(jax.jacobian(lambda x: network(x, 0.1)))(x)
    truth = norm(np.asarray(jacobian, float).reshape(30, 30))
    assert truth <= found.bound < 10 * truth
    assert found.certified


@pytest.mark.slow
def test_the_slopes_of_activations():
    """Never below the steepest slope found on a fine grid, nor more than a thousandth above it."""
    x = jnp.linspace(-20, 20, 40001)
    for function, slope in SLOPES:
        steepest = float(jnp.max(jnp.abs(jax.vmap(jax.grad(function))(x))))
        assert steepest <= slope * (1 + 1e-6), function
        assert slope <= 1.001 * steepest, function


@pytest.mark.slow
def test_an_estimate_is_no_certificate(key, x64):
    matrix = np.random.default_rng(8).normal(size=(30, 20))
    truth = norm(matrix)
    for steps in (1, 2, 5, 20, 50):
        found = jacobian_norm(lambda x: jnp.asarray(matrix) @ x, jnp.zeros(20), rng_key=key, num_iterations=steps)
        assert not found.certified
        assert found.bound <= truth * (1 + 1e-9)
    assert found.bound == pytest.approx(truth, rel=1e-9)
    assert jacobian_norm(lambda x: 3 * x, jnp.zeros((2, 2)), rng_key=key).bound == pytest.approx(3, rel=1e-6)


def test_what_is_not_known():
    def strange(x):
        return x

    found = certificate([np.eye(2), strange])
    assert (found.bound, found.certified) == (np.inf, False)
    assert "no bound is known of strange" in found.method


def test_bad_input(key):
    kernel = np.ones((1, 1, 3, 3))
    layer = convolution(kernel, padding=1)
    with pytest.raises(ValueError, match=r"certificate: `shape` is missing, the sides \(H, W\)"):
        certificate(layer)
    with pytest.raises(ValueError, match=r"matrix_norm: `matrix` must be a matrix, and not empty; got shape \(3,\)"):
        matrix_norm(np.ones(3))
    with pytest.raises(ValueError, match="`matrix` must be finite"):
        gram_bound([[np.nan]])
    with pytest.raises(ValueError, match="`iterations` must be a positive integer"):
        gram_bound([[1.0]], 0)
    with pytest.raises(TypeError, match="`matrix` must be known outside `jit`"):
        jax.jit(lambda m: matrix_norm(m).bound)(jnp.eye(2))
    with pytest.raises(ValueError, match=r"must be of shape \(output channels, input channels, h, w\)"):
        circular_convolution_norm(np.ones((3, 3)), (4, 4))
    with pytest.raises(TypeError, match=r"`shape` must be the pair \(H, W\)"):
        zero_padded_convolution_bound(kernel, 4)
    with pytest.raises(ValueError, match=r"`shape\[1\]` must be a positive integer"):
        zero_padded_convolution_bound(kernel, (4, 0))
    with pytest.raises(ValueError, match=r"`kernel` must have odd sides; got \(2, 3\)"):
        same_convolution_norm(np.ones((1, 1, 2, 3)), (4, 4))
    with pytest.raises(TypeError, match="`function` must be a function"):
        jacobian_norm(3, jnp.ones(2), rng_key=key)
    with pytest.raises(TypeError, match="`rng_key` must be a random key"):
        jacobian_norm(jnp.sin, jnp.ones(2), rng_key=0)
    with pytest.raises(ValueError, match="the norm of the Jacobian` must be finite"):
        jacobian_norm(lambda x: x * jnp.nan, jnp.ones(2), rng_key=key)
