"""The Radon transform against analytic transforms and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Radon

ANGLES = np.array([0.0, 0.3, np.pi / 4, 1.2, np.pi / 2, 2.5, -0.9])


def pixels(*shape):
    """Pixels with sides of 1."""
    return Grid(shape, extent=shape)


def _strip_means(antiderivative, a):
    """Means over each bin of a projection with the given antiderivative in s; one row per angle."""
    edges = np.append(a.bins - a.bin_width / 2, a.bins[-1] + a.bin_width / 2)
    return np.diff(antiderivative(edges), axis=-1) / a.bin_width


def test_pixels_shadow_by_brute_force(x64):
    """One rectangular pixel at a time, cut into 400 x 400 points, each dropped into its bin."""
    a = Radon(Grid((3, 2), (2.1, 2.2)), ANGLES, bin_width=0.4)
    fine = (np.arange(400) + 0.5) / 400 - 0.5
    for i, j in ((0, 0), (1, 1), (2, 0)):
        x0, x1 = np.meshgrid((i - 1 + fine) * 0.7, (j - 0.5 + fine) * 1.1, indexing="ij")
        edges = np.append(a.bins - 0.2, a.bins[-1] + 0.2)
        s = [x0 * np.cos(t) + x1 * np.sin(t) for t in ANGLES]
        expected = np.stack([np.histogram(v, edges)[0] for v in s]) * (0.77 / 400**2) / 0.4
        np.testing.assert_allclose(a(jnp.zeros((3, 2)).at[i, j].set(1.0)), expected, atol=4e-3)


@pytest.mark.slow
def test_disc(x64):
    """An off-center disc of radius r: chords 2 sqrt(r^2 - (s - c)^2), c = center . n. The error falls with h."""
    r, center = 0.3, np.array([0.12, -0.07])
    c = center @ np.stack([np.cos(ANGLES), np.sin(ANGLES)])
    errors = []
    for n in (32, 128):
        grid = Grid((n, n))
        sub = np.stack(np.meshgrid(*[(np.arange(8 * n) + 0.5) / (8 * n) - 0.5] * 2, indexing="ij"), -1)
        inside = np.sum((sub - center) ** 2, -1) <= r**2
        image = inside.reshape(n, 8, n, 8).mean((1, 3))
        a = Radon(grid, ANGLES)

        def area(s):
            t = np.clip((s - c[:, None]) / r, -1, 1)
            return r**2 * (t * np.sqrt(1 - t**2) + np.arcsin(t))

        errors.append(np.sqrt(np.mean((a(image) - _strip_means(area, a)) ** 2)))
    assert errors[0] < 0.01 * 2 * r
    assert errors[1] < errors[0] / 3


def test_gaussian_converges_at_second_order(x64):
    """An elliptic Gaussian of covariance C projects to a Gaussian of variance n . C n, of the same mass."""
    scales = np.array([0.08, 0.05])
    variance = scales**2 @ np.stack([np.cos(ANGLES) ** 2, np.sin(ANGLES) ** 2])
    errors = []
    for n in (32, 128):
        grid = Grid((n, n))
        edges = np.arange(n + 1) / n - 0.5
        means = [np.diff(0.5 * erf(edges / (s * np.sqrt(2)))) * n for s in scales]
        a = Radon(grid, ANGLES)
        expected = _strip_means(lambda s: 0.5 * erf(s / np.sqrt(2 * variance[:, None])), a)
        errors.append(np.max(np.abs(a(np.outer(*means)) - expected)))
    assert errors[1] < 0.002 * expected.max()
    assert errors[1] < errors[0] / 12


def _dense(shape, angles, bins):
    """Unit pixels and bins, all weights at once: second differences of the squared ramp, of every pixel and bin."""
    ramp = lambda t: np.maximum(t, 0) ** 2 / 2  # noqa: E731
    x0, x1 = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    edges = np.append(bins - 0.5, bins[-1] + 0.5)
    rows = []
    for angle in angles:
        a, b = (max(abs(f(angle)), 1e-5) for f in (np.cos, np.sin))
        t = edges[:, None] - (x0 * np.cos(angle) + x1 * np.sin(angle)).ravel()
        p, q = (a + b) / 2, (a - b) / 2
        rows.append(np.diff((ramp(t + p) - ramp(t + q) - ramp(t - q) + ramp(t - p)) / (a * b), axis=0))
    return np.stack(rows)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_no_shadow_is_misplaced_when_compiled(precision):
    """Each pixel's weights land in their own bins at every angle, also where shadows end at bin edges."""
    x = np.random.default_rng(0).normal(size=(64, 64))
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    with jax.enable_x64(precision is np.float64):
        a = Radon(pixels(*x.shape), angles)
        y = np.asarray(jax.jit(lambda a, x: a(x))(a, x.astype(precision)), float)
    np.testing.assert_allclose(y, _dense(x.shape, angles, a.bins) @ x.ravel(), rtol=0, atol=1e-3)
    np.testing.assert_allclose(y.sum(1), x.sum(), rtol=0, atol=100 * np.finfo(precision).eps * np.abs(x).sum())


def test_angle_zero_sums_over_axis_one(x64):
    x = np.random.default_rng(1).normal(size=(4, 4))
    y = Radon(pixels(4, 4), [0.0, np.pi / 2, np.pi], num_bins=4)(x)
    np.testing.assert_allclose(y, [x.sum(1), x.sum(0), x.sum(1)[::-1]], atol=1e-13)


def test_short_detector_misses_what_lies_beside_it(x64):
    x, angles = np.random.default_rng(2).normal(size=(6, 7)), [0.2, 1.0]
    whole = Radon(pixels(6, 7), angles, num_bins=11)(x)
    np.testing.assert_allclose(Radon(pixels(6, 7), angles, num_bins=5)(x), whole[:, 3:8], atol=1e-13)


def test_angles_can_be_inferred(x64):
    x = jnp.asarray(np.random.default_rng(3).normal(size=(6, 5)))
    project = jax.jit(lambda t: Radon(pixels(6, 5), t[None])(x))
    numerical = (project(0.7 + 1e-6) - project(0.7 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.jvp(project, (0.7,), (1.0,))[1], numerical, atol=1e-6)


def test_real_size_needs_no_memory_for_weights():
    """256 x 256 pixels, 90 angles: forward and adjoint in the memory of a few images, not one for each angle."""
    a = Radon(pixels(256, 256), np.linspace(0, np.pi, 90, endpoint=False))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(a(x) ** 2)))
    memory = gradient.lower(jax.ShapeDtypeStruct((256, 256), jnp.float32)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 20 * 4 * 256**2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Radon(pixels(4, 4, 4), [0.0]), "`grid` must have two axes"),
        (lambda: Radon(pixels(4, 4), []), "`angles` must be a vector of at least one angle"),
        (lambda: Radon(pixels(4, 4), [0.0, np.inf]), "`angles` must be finite; 1 of its 2"),
        (lambda: Radon(pixels(4, 4), [0.0], num_bins=0), "`num_bins` must be a positive integer"),
        (lambda: Radon(pixels(4, 4), [0.0], bin_width=1e-12), "`bin_width` 1e-12 is less than 0.01 of a pixel"),
        (lambda: Radon(pixels(4, 4), [0.0], bin_width=np.nan), "`bin_width` must be positive"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
