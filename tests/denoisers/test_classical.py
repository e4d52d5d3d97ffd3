"""Total variation, wavelets, medians, published networks and group averages, against definitions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from scipy import ndimage, optimize

from numpyro_inverse.denoisers import (
    Certificate,
    Denoiser,
    DnCNN,
    GroupAverage,
    Median,
    TotalVariation,
    WaveletThreshold,
    load_dncnn,
    square_symmetries,
)
from numpyro_inverse.denoisers._total_variation import adjoint_differences, differences, total_variation
from numpyro_inverse.denoisers._wavelets import analyze, daubechies, synthesize
from numpyro_inverse.symmetry import CyclicShift, Reflection, Scaling, SignFlip

SIGMA = 0.4


# Total variation.


@pytest.mark.slow
def test_differences_and_their_adjoint(key):
    one, two = jax.random.split(key)
    for shape in ((6,), (3, 1, 2)):
        u, p = jax.random.normal(one, shape), jax.random.normal(two, (len(shape), *shape))
        np.testing.assert_allclose(jnp.vdot(differences(u), p), jnp.vdot(u, adjoint_differences(p)), rtol=1e-4)
    np.testing.assert_array_equal(differences(jnp.array([0.0, 1.0, 3.0])), [[1.0, 2.0, 0.0]])
    assert total_variation(jnp.array([[0.0, 3.0], [4.0, 0.0]])) == pytest.approx(5 + 3 + 4)


def test_total_variation_of_three_numbers(x64):
    """Against the minimum of a smooth problem with constraints, of which it is the solution."""
    x, weight = np.array([0.0, 1.0, 0.3]), 1.5

    def objective(v):  # u and bounds of its two differences
        return weight * (v[3] + v[4]) + np.sum((v[:3] - x) ** 2) / (2 * SIGMA**2)

    limits = optimize.LinearConstraint(
        [[-1, 1, 0, 1, 0], [1, -1, 0, 1, 0], [0, -1, 1, 0, 1], [0, 1, -1, 0, 1]], 0, np.inf
    )
    best = optimize.minimize(
        objective, np.append(x, [2, 2]), constraints=limits, method="SLSQP", options={"ftol": 1e-14}
    )
    denoiser = TotalVariation(weight, 400)
    np.testing.assert_allclose(denoiser(jnp.asarray(x), SIGMA), best.x[:3], atol=1e-5)
    assert denoiser.potential(jnp.asarray(x), SIGMA) == pytest.approx(best.fun, rel=1e-6)


@pytest.mark.slow
def test_total_variation_of_an_image(key, x64):
    """No point nearby is better, and the envelope's derivatives are those of its values: in x, the noise level and the
    weight, by central differences (error 1e-6 of them, of the iteration 1e-5)."""
    x = jax.random.normal(key, (5, 6))
    value = jax.jit(lambda x, sigma, weight: TotalVariation(weight, 1500).potential(x, sigma))
    point = (x, jnp.asarray(SIGMA), jnp.asarray(0.8))
    gradient = jax.jit(jax.grad(value, (0, 1, 2)))(*point)
    u = jax.jit(lambda x: TotalVariation(0.8, 1500)(x, SIGMA))(x)
    np.testing.assert_allclose(SIGMA**2 * gradient[0], x - u, atol=1e-12)
    step, direction = 1e-4, jax.random.normal(jax.random.key(1), x.shape)
    for i, along in enumerate((direction, 1.0, 1.0)):
        ends = [
            value(*(part + sign * step * along if j == i else part for j, part in enumerate(point)))
            for sign in (1.0, -1.0)
        ]
        slope = float(jnp.sum(gradient[i] * along))
        assert float(ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-3), i
    jacobian = jax.jit(jax.jacfwd(lambda x: TotalVariation(0.8, 1500)(x, SIGMA)))(x.at[:2, :2].set(0)).reshape(30, 30)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-3)
    assert -1e-3 < np.linalg.eigvalsh(jacobian).min() <= np.linalg.eigvalsh(jacobian).max() < 1 + 1e-6
    others = u + 0.05 * jax.random.normal(jax.random.key(2), (200, *u.shape))
    objective = jax.vmap(lambda u: 0.8 * total_variation(u) + jnp.sum((u - x) ** 2) / (2 * SIGMA**2))
    assert jnp.min(objective(others)) > objective(u[None])[0]


def test_total_variation_leaves_constants_and_flattens(key):
    denoiser = TotalVariation(100.0, 300)
    np.testing.assert_allclose(denoiser(jnp.full((3, 4), 2.0), 1.0), 2.0, atol=1e-5)
    x = jax.random.normal(key, (3, 4))
    np.testing.assert_allclose(denoiser(x, 1.0), jnp.mean(x), atol=1e-2)


# Wavelets.


def test_filters():
    """Of two moments in closed form; orthonormal, with as many vanishing moments as asked for."""
    root = np.sqrt(3)
    closed = np.array([1 + root, 3 + root, 3 - root, 1 - root]) / (4 * np.sqrt(2))
    np.testing.assert_allclose(daubechies(2), closed, atol=1e-12)
    np.testing.assert_allclose(daubechies(1), [np.sqrt(0.5)] * 2, atol=1e-15)
    for moments in range(1, 11):
        low = np.array(daubechies(moments))
        assert len(low) == 2 * moments
        high = low[::-1] * (-1.0) ** np.arange(2 * moments)
        for shift in range(moments):
            assert low[2 * shift :] @ low[: len(low) - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-7)
        places = np.linspace(-1, 1, 2 * moments)
        for power in range(moments):
            assert high @ places**power == pytest.approx(0, abs=1e-6), (moments, power)


@pytest.mark.parametrize("moments", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_transform_is_orthonormal(moments, x64):
    low = daubechies(moments)

    def flat(x):
        return jnp.concatenate([c.ravel() for level in analyze(x, low, 2) for c in level])

    matrix = jax.jit(jax.jacobian(flat))(jnp.zeros((4, 8))).reshape(32, 32)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(32), atol=1e-12)
    x = jax.random.normal(jax.random.key(0), (4, 8))
    np.testing.assert_allclose(jax.jit(lambda x: synthesize(analyze(x, low, 2), low))(x), x, atol=1e-12)


@pytest.mark.slow
def test_wavelet_threshold_is_the_proximal_map(key, x64):
    """Its field is the gradient of the potential, which is the value of the minimum; no other point has a lower one."""
    denoiser, weight = WaveletThreshold(1.5, moments=2, levels=1), 1.5
    x = jax.random.normal(key, (8, 8))
    value, gradient = jax.jit(jax.value_and_grad(denoiser.potential))(x, SIGMA)
    u = jax.jit(denoiser)(x, SIGMA)
    np.testing.assert_allclose(SIGMA**2 * gradient, x - u, atol=1e-12)

    @jax.jit
    def objective(u):
        details = jnp.concatenate([c.ravel() for level in analyze(u, denoiser.low, 1)[:-1] for c in level])
        return weight * jnp.sum(jnp.abs(details)) + jnp.sum((u - x) ** 2) / (2 * SIGMA**2)

    assert objective(u) == pytest.approx(float(value), rel=1e-12)
    others = jax.jit(jax.vmap(objective))(u + 0.02 * jax.random.normal(jax.random.key(2), (200, 8, 8)))
    assert jnp.min(others) > value


# Medians.


@pytest.mark.parametrize("shape", [(9,), (5, 6), (3, 4, 5)])
def test_medians_are_those_of_scipy(shape, key):
    x = jax.random.normal(key, shape)
    found = Median(3)(x, 0.1)
    np.testing.assert_array_equal(found, ndimage.median_filter(np.asarray(x), 3, mode="nearest"))
    assert not hasattr(Median(3), "potential")


# DnCNN.


def written(path, channels=2, blocks=2):
    """A file as Flax writes it, and its arrays."""
    rng = np.random.default_rng(0)

    def packed(array):
        array = np.asarray(array, np.float32)
        content = (list(array.shape), array.dtype.name, array.tobytes())
        return msgspec.msgpack.Ext(1, msgspec.msgpack.encode(content))

    def drawn(*shape):
        return np.asarray(rng.normal(size=shape) / 3, np.float32)

    start, end = drawn(3, 3, channels, 4), drawn(3, 3, 4, channels)
    middle = [(drawn(3, 3, 4, 4), drawn(4), drawn(4), drawn(4), drawn(4) ** 2 + 0.5) for _ in range(blocks)]
    parameters = {"conv_start": {"kernel": packed(start)}, "conv_end": {"kernel": packed(end)}}
    statistics = {}
    for i, (kernel, scale, bias, mean, variance) in enumerate(middle):
        norm = {"scale": packed(scale), "bias": packed(bias)}
        parameters[f"ConvBNBlock_{i}"] = {"Conv_0": {"kernel": packed(kernel)}, "BatchNorm_0": norm}
        statistics[f"ConvBNBlock_{i}"] = {"BatchNorm_0": {"mean": packed(mean), "var": packed(variance)}}
    path.write_bytes(msgspec.msgpack.encode({"params": parameters, "batch_stats": statistics}))
    return start, middle, end


@pytest.mark.parametrize("channels", [1, 2])
def test_the_reader_and_the_network(tmp_path, channels, key):
    """Layer by layer with SciPy's convolutions of periodic images and batch normalization as it is defined."""
    path = tmp_path / "dncnn.mpk"
    start, middle, end = written(path, channels)
    x = np.asarray(jax.random.uniform(key, (6, 5)), float)

    def convolved(kernel, y):
        out = [
            sum(ndimage.correlate(y[i], kernel[:, :, i, j], mode="wrap") for i in range(kernel.shape[2]))
            for j in range(kernel.shape[3])
        ]
        return np.stack(out)

    y = np.stack([x, np.full_like(x, 0.1)][:channels])
    y = np.maximum(convolved(start, y), 0)
    for kernel, scale, bias, mean, variance in middle:
        scaled = (convolved(kernel, y) - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
        y = np.maximum(scaled * scale[:, None, None] + bias[:, None, None], 0)
    denoiser = load_dncnn(path)
    assert isinstance(denoiser, DnCNN)
    np.testing.assert_allclose(denoiser(jnp.asarray(x), 0.1), x - convolved(end, y)[0], atol=1e-5)


# Group averages.


class Tilted(Denoiser):
    """With a potential and a certificate, and without any symmetry."""

    matrix: jax.Array

    def __call__(self, x, sigma):
        return x - sigma**2 * jax.grad(self.potential)(x, sigma)

    def potential(self, x, sigma):
        return jnp.sum(jnp.log(jnp.cosh(self.matrix[: x.shape[0], : x.shape[1]] * x)))

    def certificates(self, sigma):
        return {"lipschitz": Certificate(1.0, "by hand", True)}


def test_a_group_average_is_equivariant_and_keeps_the_potential(key):
    tilted = Tilted(jax.random.normal(key, (5, 5)))
    average = GroupAverage(tilted, square_symmetries())
    x = jax.random.normal(jax.random.key(1), (4, 5))  # turned, it has another shape
    field, force = eqx.filter_jit(average)(x, 0.3), jax.jit(jax.grad(average.potential))(x, 0.3)
    np.testing.assert_allclose(0.3**2 * force, x - field, atol=1e-6)
    assert average.certificates(0.3)["lipschitz"].bound == 1
    square = jax.random.normal(key, (4, 4))
    plain, averaged = eqx.filter_jit(tilted), eqx.filter_jit(average)
    for action in square_symmetries():
        np.testing.assert_allclose(averaged(action(square), 0.3), action(averaged(square, 0.3)), atol=1e-6)
    assert jnp.max(jnp.abs(plain(square.T, 0.3) - plain(square, 0.3).T)) > 1e-3


def test_the_symmetries_of_the_square_are_a_group():
    corner = jnp.arange(9.0).reshape(3, 3)
    images = {tuple(np.asarray(action(corner)).ravel()) for action in square_symmetries()}
    assert len(images) == 8
    assert {tuple(np.asarray(a(b(corner))).ravel()) for a in square_symmetries() for b in square_symmetries()} == images
    np.testing.assert_array_equal(square_symmetries()[0](corner), corner)


@pytest.mark.slow
def test_a_group_average_over_a_group_of_the_package():
    denoiser = TotalVariation(1.0, 20)
    x = jnp.arange(5.0) ** 2
    found = GroupAverage(denoiser, Reflection() * SignFlip())(x, 0.3)
    tilted = GroupAverage(lambda x, sigma: x + jnp.arange(5.0), CyclicShift((5,)))
    np.testing.assert_allclose(
        found, -GroupAverage(denoiser, Reflection() * SignFlip())(-x[::-1], 0.3)[::-1], atol=1e-6
    )
    np.testing.assert_allclose(tilted(x, 0.3), x + 2, rtol=1e-6)
    with pytest.raises(ValueError, match="infinitely many"):
        GroupAverage(denoiser, Scaling())


def test_the_average_of_a_denoiser_without_a_potential_has_none():
    average = GroupAverage(Median(), [lambda x: x, lambda x: -x])
    assert not hasattr(average, "potential")
    assert not hasattr(average, "certificates")
    np.testing.assert_allclose(average(jnp.arange(5.0), 0.1), Median()(jnp.arange(5.0), 0.1))


# Bad input.


def test_bad_input(tmp_path):
    x = jnp.zeros((4, 4))
    for denoiser in (TotalVariation(1.0, 2), WaveletThreshold(1.0, levels=1), Median()):
        with pytest.raises(ValueError, match="`sigma` must be positive"):
            denoiser(x, 0.0)
        with pytest.raises(TypeError, match="`x` must be real numbers"):
            denoiser(x + 1j, 0.1)
    with pytest.raises(ValueError, match="`weight` must be positive"):
        TotalVariation(0.0)
    with pytest.raises(ValueError, match="`iterations` must be a positive integer"):
        TotalVariation(1.0, 0)
    with pytest.raises(ValueError, match="`x` must be an array with one axis or more"):
        TotalVariation(1.0)(1.0, 0.1)
    with pytest.raises(ValueError, match="`weight` must be positive"):
        WaveletThreshold(-1.0)
    with pytest.raises(ValueError, match="`moments` must be at most 10; got 11"):
        WaveletThreshold(1.0, moments=11)
    with pytest.raises(ValueError, match="`levels` must be a positive integer"):
        WaveletThreshold(1.0, levels=0)
    with pytest.raises(ValueError, match=r"must be divisible by 2\*\*levels = 8; got shape \(4, 4\)"):
        WaveletThreshold(1.0)(x, 0.1)
    with pytest.raises(ValueError, match="`window` must be odd; got 2"):
        Median(2)
    with pytest.raises(ValueError, match="`window` must be a positive integer"):
        Median(-1)
    with pytest.raises(TypeError, match="`denoiser` must be a denoiser"):
        GroupAverage(1, square_symmetries())
    with pytest.raises(ValueError, match="`actions` is empty"):
        GroupAverage(Median(), [])
    with pytest.raises(TypeError, match="`actions` must be a list of functions"):
        GroupAverage(Median(), jnp.flip)
    with pytest.raises(TypeError, match="`actions` must be a function"):
        GroupAverage(Median(), [1])
    with pytest.raises(TypeError, match="`path` must be the path of a file"):
        load_dncnn(3)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_dncnn(tmp_path / "nothing.mpk")
    for content in (b"", b"\xc1 nonsense", msgspec.msgpack.encode({"params": {}}), msgspec.msgpack.encode([1])):
        (tmp_path / "other.mpk").write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.mpk is no DnCNN of SCICO"):
            load_dncnn(tmp_path / "other.mpk")
    written(tmp_path / "dncnn.mpk", 1)
    denoiser = load_dncnn(tmp_path / "dncnn.mpk")
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        denoiser(x, -1.0)
    with pytest.raises(ValueError, match="must be one gray image"):
        denoiser(x[0], 0.1)
