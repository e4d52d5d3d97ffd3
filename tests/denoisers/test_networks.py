"""Networks with a potential, or a Lipschitz constant, by construction."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.denoisers import (
    ConvolutionalNetwork,
    FirmlyNonexpansiveDenoiser,
    GradientStepDenoiser,
    LipschitzConvolution,
)
from numpyro_inverse.denoisers._convolution import convolve, convolve_periodic, fold, transposed, unfold

SHAPE = (7, 10)


@pytest.fixture(scope="module")
def gradient_step():
    return GradientStepDenoiser(ConvolutionalNetwork(6, 3, key=jax.random.key(1)))


@pytest.fixture(scope="module")
def firm():
    """With weights far from their initial values, so that nothing is small by chance."""
    made = FirmlyNonexpansiveDenoiser(2, 6, 3, key=jax.random.key(2))
    leaves, structure = jax.tree.flatten(made)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    moved = [leaf + jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


@eqx.filter_jit
def apply(denoiser, x, sigma):
    return denoiser(x, jnp.asarray(sigma, x.dtype))


@jax.jit
def jacobian(denoiser, x, sigma):
    return jax.jacobian(lambda x: denoiser(x, sigma))(x).reshape(x.size, x.size)


def test_the_convolutions_are_those_of_jax(key):
    kernel, x = jax.random.normal(key, (3, 3, 2, 4)), jax.random.normal(jax.random.key(1), (*SHAPE, 2))
    dimensions = ("NHWC", "HWIO", "NHWC")
    same = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=dimensions)[0]
    np.testing.assert_allclose(convolve(kernel, x), same, atol=1e-5)
    around = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="wrap")
    inside = jax.lax.conv_general_dilated(around[None], kernel, (1, 1), "VALID", dimension_numbers=dimensions)[0]
    np.testing.assert_allclose(convolve_periodic(kernel, x), inside, atol=1e-5)


@pytest.mark.slow
def test_adjoints(key):
    one, two, three = jax.random.split(key, 3)
    kernel, x = jax.random.normal(one, (3, 3, 2, 4)), jax.random.normal(two, (*SHAPE, 2))
    y = jax.random.normal(three, (*SHAPE, 4))
    np.testing.assert_allclose(
        jnp.vdot(convolve(kernel, x), y), jnp.vdot(x, convolve(transposed(kernel), y)), rtol=1e-4
    )
    image, folded = x[..., 0], fold(x[..., 0])
    assert folded.shape == (4, 5, 4)
    np.testing.assert_array_equal(unfold(folded, SHAPE), image)
    other = jax.random.normal(three, folded.shape)
    np.testing.assert_allclose(jnp.vdot(folded, other), jnp.vdot(image, unfold(other, SHAPE)), rtol=1e-4)


@pytest.mark.slow
def test_the_field_is_the_gradient_of_the_potential(gradient_step, key):
    """The closed form of a linear network, D = I - (I - W)'(I - W), and the definition for a convolutional one."""
    matrix = jax.random.normal(key, (5, 5)) / 3
    linear = GradientStepDenoiser(lambda x, sigma: matrix @ x)
    x, off = jnp.arange(5.0), jnp.eye(5) - matrix
    np.testing.assert_allclose(linear(x, 0.3), x - off.T @ off @ x, atol=1e-5)
    np.testing.assert_allclose(linear.potential(x, 0.3), jnp.sum((off @ x) ** 2) / 2 / 0.3**2, rtol=1e-5)
    image = jax.random.uniform(key, SHAPE)
    force = jax.jit(jax.grad(gradient_step.potential))(image, 0.2)
    moved = image - apply(gradient_step, image, 0.2)
    np.testing.assert_allclose(0.2**2 * force, moved, atol=1e-6)
    assert jnp.linalg.norm(moved) > 0.1  # it does something


@pytest.mark.slow
def test_its_jacobian_is_symmetric(gradient_step, key):
    found = jacobian(gradient_step, jax.random.uniform(key, SHAPE), 0.1)
    assert jnp.linalg.norm(found - found.T) < 1e-5 * jnp.linalg.norm(found)


@pytest.mark.slow
def test_sizes_precision_and_transformations(gradient_step, firm, key, x64):
    for denoiser in (gradient_step, firm):
        for shape in ((8, 8), (1, 5)):
            found = jax.eval_shape(denoiser, jax.ShapeDtypeStruct(shape, jnp.float32), 0.1)
            assert (found.shape, found.dtype) == (shape, jnp.float32)
        assert jax.eval_shape(denoiser, jnp.zeros((4, 4), int), 0.1).dtype == jnp.float64
        x = jax.random.uniform(key, SHAPE, jnp.float32)
        several = jax.jit(jax.vmap(denoiser, (None, 0)))(x, jnp.array([0.05, 0.2], jnp.float32))
        exact = apply(denoiser, x.astype(jnp.float64), 0.2)
        assert (several.dtype, exact.dtype) == (jnp.float32, jnp.float64)
        np.testing.assert_allclose(several[1], exact, atol=1e-5)
        assert jnp.max(jnp.abs(several[0] - several[1])) > 1e-3  # the level matters


def test_the_diagonal_is_above_the_gram_matrix(key):
    """T - W W' has no negative eigenvalue, for the matrix of the convolution on an image and any positive q; and the
    tightest row is exactly as far as the sums say where the image is wider than two kernels."""
    layer = LipschitzConvolution(2, 3, key=key)
    layer = eqx.tree_at(lambda layer: layer.log_q, layer, jnp.array([0.5, -1.0, 0.2]))
    zero = jnp.zeros((6, 7, 2))
    jacobian = jax.jit(jax.jacobian(lambda x: convolve(layer.kernel, x)))(zero)
    matrix = np.asarray(jacobian, float).reshape(-1, zero.size)
    gram, bounds = matrix @ matrix.T, np.tile(np.asarray(layer.bounds(), float), 42)
    assert np.linalg.eigvalsh(np.diag(bounds) - gram).min() > -1e-5
    q = np.tile(np.exp(np.asarray(layer.log_q, float)), 42)
    sums = np.abs(gram) @ q / q
    assert np.all(sums <= bounds * (1 + 1e-5))
    np.testing.assert_allclose(sums.reshape(6, 7, 3)[3, 3], bounds[:3], rtol=1e-5)


def test_the_bound_of_a_layer_is_reached(key):
    """By a kernel that is orthogonal at one place, with every unit active: the layer is a reflection."""
    layer = LipschitzConvolution(3, 3, key=key)
    orthogonal = jnp.linalg.qr(jax.random.normal(key, (3, 3)))[0]
    kernel = jnp.zeros((3, 3, 3, 3)).at[1, 1].set(5 * orthogonal)
    layer = eqx.tree_at(lambda layer: (layer.kernel, layer.bias), layer, (kernel, jnp.full(3, 100.0)))
    x, y = jax.random.normal(key, (2, 4, 5, 3))
    np.testing.assert_allclose(apply(layer, x, 0.0) - apply(layer, y, 0.0), y - x, atol=1e-4)


@pytest.mark.slow
def test_it_is_firmly_nonexpansive_whatever_its_weights(firm, key):
    """At many points; and it is not merely small: Q reaches 0.9 of its bound."""
    largest = 0.0
    for k in jax.random.split(key, 4):
        norm = np.linalg.norm(2 * jacobian(firm, jax.random.normal(k, SHAPE), 0.1) - np.eye(70), 2)
        largest = max(largest, norm)
    assert 0.9 < largest < 1 + 1e-5
    one, two = jax.random.normal(key, (2, 50, *SHAPE))
    many = jax.jit(jax.vmap(lambda x: firm(x, 0.1)))
    moved = many(one) - many(two)
    left = jnp.sum(moved**2, (1, 2)) + jnp.sum((one - two - moved) ** 2, (1, 2))
    assert jnp.all(left <= jnp.sum((one - two) ** 2, (1, 2)) * (1 + 1e-5))
    certificates = firm.certificates(0.1)
    assert {name for name, found in certificates.items() if found.certified and found.bound == 1} == set(certificates)
    assert set(certificates) == {"lipschitz", "residual", "firm"}


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (jnp.zeros(4), r"`x` must be one gray image, of shape \(H, W\); got shape \(4,\)"),
        (jnp.zeros((2, 4, 4)), "`jax.vmap` makes batches"),
        (jnp.zeros((0, 4)), "must be one gray image"),
    ],
)
def test_not_an_image(gradient_step, firm, x, message):
    for denoiser in (gradient_step, firm):
        with pytest.raises(ValueError, match=message):
            denoiser(x, 0.1)


def test_bad_input(gradient_step, firm, key):
    x = jnp.zeros((4, 4))
    for denoiser in (gradient_step, firm):
        for sigma in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="`sigma` must be positive"):
                denoiser(x, sigma)
        with pytest.raises(TypeError, match="`x` must be real numbers"):
            denoiser(x + 1j, 0.1)
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        gradient_step.potential(x, 0.0)
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        firm.certificates(0.0)
    with pytest.raises(TypeError, match="`network` must be a function"):
        GradientStepDenoiser(3)
    with pytest.raises(ValueError, match=r"`network` must return the shape of `x`, \(4, 4\); got \(4,\)"):
        GradientStepDenoiser(lambda x, sigma: x[0])(x, 0.1)
    with pytest.raises(ValueError, match="`depth` must be an integer of 2 or more; got 1"):
        ConvolutionalNetwork(4, 1, key=key)
    with pytest.raises(TypeError, match="`key` must be a random key"):
        ConvolutionalNetwork(4, 2, key=0)
    for wrong in ("copies", "width", "depth"):
        with pytest.raises(ValueError, match=f"`{wrong}` must be a positive integer; got 0"):
            FirmlyNonexpansiveDenoiser(**{wrong: 0}, key=key)
    with pytest.raises(TypeError, match="`key` must be a random key"):
        FirmlyNonexpansiveDenoiser(key=None)
