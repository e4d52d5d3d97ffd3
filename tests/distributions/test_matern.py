"""The Matérn field against the analytic covariance with its mirror images, in every dimension, at every edge."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gamma, kv
from scipy.stats import multivariate_normal

from numpyro_inverse.distributions import Matern
from numpyro_inverse.distributions._matern_images import added_variance
from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import PointObservation

SMOOTHNESS = (0.5, 1.0, 1.5, 2.3)
ANISOTROPIC = (0.25, 0.1, 0.4)


def correlation(r, smoothness):
    """Matérn correlation at distance ``r`` in ranges (scipy's Bessel function)."""
    x = np.sqrt(8 * smoothness) * np.asarray(r, float)
    x = np.where(x == 0, 1e-12, x)
    return np.where(x > 1e-11, 2 ** (1 - smoothness) / gamma(smoothness) * x**smoothness * kv(smoothness, x), 1.0)


def images(grid, smoothness, ranges, boundary=None, reach=3):
    """Covariance matrix at unit scale from the free-space covariance and its mirror images at the boundary."""
    boundary = boundary or grid.boundary
    x = np.asarray(grid.points, float).reshape(-1, grid.ndim)
    per_axis = []
    for a, (b, length) in enumerate(zip(boundary, grid.extent, strict=True)):
        period = length if b == "periodic" else 2 * length
        copies = [(1, 1, period * m) for m in range(-reach, reach + 1)]
        if b != "periodic":
            sign = 1 if b == "neumann" else -1
            copies += [(sign, -1, period * m) for m in range(-reach, reach + 1)]
        per_axis.append(
            [(sign, (x[:, None, a] - side * x[None, :, a] - shift) / ranges[a]) for sign, side, shift in copies]
        )
    total = np.zeros((len(x), len(x)))
    for copy in itertools.product(*per_axis):
        if sum(np.min(np.abs(d)) ** 2 for _, d in copy) > 9**2:  # beyond nine ranges: below 2e-8
            continue
        sign = np.prod([s for s, _ in copy])
        total += sign * correlation(np.sqrt(sum(d**2 for _, d in copy)), smoothness)
    return total


@partial(jax.jit, static_argnames=("grid", "padding"))
def matern(grid, padding=0.0, **parameters):
    """The distribution, built by one compiled program of parameters that are not known."""
    return Matern(grid, padding=padding, **parameters)


_covariance = jax.jit(lambda field: field.covariance_matrix)
_log_prob = jax.jit(lambda field, value: field.log_prob(value))


def covariance(field):
    return np.asarray(_covariance(field))


@pytest.mark.parametrize("smoothness", SMOOTHNESS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("where", ["neumann", "dirichlet", "periodic", "padding"])
def test_covariance_is_analytic_away_from_the_boundary(where, ndim, smoothness, x64):
    """Within 1e-4 of the free-space covariance up to a range away, from the middle of a domain ten ranges wide; with
    padding, from a corner too."""
    cells = {1: 160, 2: 64, 3: 30}[ndim]
    grid = Grid((cells,) * ndim, boundary="neumann" if where == "padding" else where)
    field = Matern(grid, range=0.1, scale=1.3, smoothness=smoothness, padding=0.5 if where == "padding" else 0.0)
    for start in [cells // 2] + [0] * (where == "padding"):
        row = field._crop(row_of_covariance(field, (start,) * ndim))
        points = np.asarray(grid.points)
        r = np.linalg.norm(points - points[(start,) * ndim], axis=-1)
        near = r <= 0.1
        expected = 1.3**2 * correlation(r[near] / 0.1, smoothness)
        np.testing.assert_allclose(np.asarray(row)[near], expected, rtol=1e-4)


@partial(jax.jit, static_argnums=1)
def row_of_covariance(field, cell):
    unit = jnp.zeros(field.domain.shape).at[cell].set(1.0)
    return field.domain.inverse_transform(field.amplitudes**2 * field.domain.transform(unit))


@pytest.mark.parametrize("smoothness", SMOOTHNESS)
@pytest.mark.parametrize(
    ("shape", "boundary"),
    [
        ((12,), ("neumann",)),
        ((12,), ("dirichlet",)),
        ((11,), ("periodic",)),
        ((8, 10), ("neumann", "dirichlet")),
        ((7, 12), ("periodic", "neumann")),
        ((4, 6, 5), ("dirichlet", "periodic", "neumann")),
    ],
)
def test_covariance_is_the_sum_of_images_everywhere(shape, boundary, smoothness, x64):
    """Every entry of the covariance, at the boundary too, with a range of its own along each axis: the spectrum is
    folded exactly, from 1 to 5 cells a range."""
    grid = Grid(shape, boundary=boundary)
    ranges = ANISOTROPIC[: len(shape)]
    field = Matern(grid, range=ranges, scale=1.3, smoothness=smoothness)
    expected = 1.69 * images(grid, smoothness, ranges)
    np.testing.assert_allclose(covariance(field), expected, atol=5e-6)


@pytest.mark.parametrize("ranges", [0.2, (0.2, 1e-3), (3.0, 0.01)], ids=str)
def test_unknown_parameters_give_the_spectrum_of_known_ones(ranges, x64):
    """The other tests of the spectrum are of known ones, which NumPy computes; this one ties JAX to them."""
    grid, smoothness = Grid((8, 11), boundary=("neumann", "periodic")), np.array([0.3, 1.0, 2.3, 20.0])
    known = Matern(grid, range=ranges, scale=1.3, smoothness=smoothness).spectrum
    found = matern(grid, range=ranges, scale=1.3, smoothness=smoothness).spectrum
    np.testing.assert_allclose(found, known, rtol=1e-11)


@pytest.mark.parametrize("ranges", [(1e-3, 1.0, 0.01), (1.0, 0.01, 0.3), (3.0, 1e-3, 1e-3)])
@pytest.mark.parametrize("smoothness", [0.3, 1.0, 6.0, 20.0])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_spectrum_at_extreme_ratios_of_ranges_to_cells(ndim, smoothness, ranges, x64):
    """From a sixtieth of a cell to seventy cells a range: the variance is the sum of the images on the torus."""
    grid = Grid((24, 20, 16)[:ndim], extent=1.0, boundary="periodic")
    ranges = ranges[:ndim]
    field = Matern(grid, range=ranges, scale=1.0, smoothness=smoothness)
    reach = [int(np.ceil(12 * r)) for r in ranges]
    shifts = np.array(list(itertools.product(*[np.arange(-m, m + 1) / r for m, r in zip(reach, ranges, strict=True)])))
    expected = np.sum(correlation(np.linalg.norm(shifts, axis=-1), smoothness))
    np.testing.assert_allclose(np.sum(field.spectrum), expected, rtol=2e-5 if smoothness < 10 else 1e-3)
    assert np.all(np.asarray(field.spectrum) > 0)


@pytest.mark.slow
def test_boundary_inflation():
    """Variance at a Neumann edge is twice, at a corner four times that inside; Dirichlet: zero. Padding removes it."""
    arguments = {"range": 0.1, "scale": 1.0, "smoothness": 1.5}
    inside, edge, corner = (64, 64), (0, 64), (0, 0)
    neumann = matern(Grid((128, 128)), **arguments).variance
    np.testing.assert_allclose([neumann[inside], neumann[edge], neumann[corner]], [1, 2, 4], rtol=0.04)
    dirichlet = matern(Grid((128, 128), boundary="dirichlet"), **arguments).variance
    np.testing.assert_allclose([dirichlet[inside], dirichlet[edge], dirichlet[corner]], [1, 0, 0], atol=0.04)
    padded = matern(Grid((128, 128)), padding=0.1, **arguments).variance
    np.testing.assert_allclose(padded, 1.0, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(9,), (4, 5), pytest.param((3, 2, 4), marks=pytest.mark.statistical)])
def test_padding_by_the_whole_extent_averages_the_boundary_conditions(shape, x64):
    """The torus of twice the size is the mean of the 2^d Dirichlet/Neumann combinations (Kutri & Scheichl 2024)."""
    arguments = {"range": 0.6, "scale": 1.2, "smoothness": 1.0}
    grid = Grid(shape)
    padded = covariance(matern(grid, padding=grid.extent, **arguments))
    combinations = list(itertools.product(("neumann", "dirichlet"), repeat=grid.ndim))
    average = np.mean([covariance(matern(Grid(shape, boundary=b), **arguments)) for b in combinations], axis=0)
    np.testing.assert_allclose(padded, average, atol=1e-6)


@pytest.mark.slow
def test_refinement_changes_nothing_but_resolution(x64):
    """Covariance between cell centres shared by grids of 16, 48 and 144 cells, at the boundary too."""
    arguments = {"range": 0.2, "scale": 1.0, "smoothness": 0.7}
    rows = []
    for factor in (1, 3, 9):
        field = matern(Grid(16 * factor), **arguments)
        shared = slice(factor // 2, None, factor)
        rows.append(covariance(field)[shared, shared])
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-6)
    np.testing.assert_allclose(rows[2], rows[0], atol=1e-6)


@pytest.mark.slow
def test_variance_and_lagged_covariance_agree_across_grids(x64):
    """16, 32 and 64 cells a side on a padded domain: variance, and correlation a quarter of the domain apart."""
    for n in (16, 32, 64):
        field = matern(Grid((n, n)), range=0.3, scale=2.0, smoothness=1.0, padding=1.0)
        row = field._crop(row_of_covariance(field, (0, 0)))
        np.testing.assert_allclose(row[0, 0], 4.0, rtol=1e-6)
        np.testing.assert_allclose(row[n // 4, 0], 4.0 * correlation(0.25 / 0.3, 1.0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "boundary", "ranges", "padding"),
    [
        ((20,), "neumann", 0.3, 0.0),
        ((20,), "dirichlet", 0.3, 0.0),
        ((6, 8), "periodic", 0.3, 0.0),
        ((6, 8), ("neumann", "dirichlet"), (0.3, 0.2), 0.0),
        ((6, 8), "neumann", (0.3, 0.2), (0.4, 0.3)),
        ((4, 3, 5), ("periodic", "dirichlet", "neumann"), (0.3, 0.4, 0.5), 0.0),
        ((3, 2, 3), "neumann", 0.3, 0.5),
    ],
)
def test_log_density_is_that_of_the_dense_normal(shape, boundary, ranges, padding, x64):
    """Against scipy's multivariate normal with the covariance of the images, which shares no code with ours. A batch of
    two smoothnesses, two scales and two means, to 1e-5 relative."""
    grid = Grid(shape, boundary=boundary)
    rng = np.random.default_rng(0)
    smoothness, scale = np.array([0.7, 1.0]), np.array([1.3, 0.4])
    mean = rng.normal(size=(2, *shape))
    value = mean + rng.normal(size=(2, *shape))
    field = matern(grid, range=ranges, scale=scale, smoothness=smoothness, mean=mean, padding=padding)
    assert (field.batch_shape, field.event_shape) == ((2,), shape)
    expected = []
    for i in range(2):
        torus = grid.extended(padding)
        each = np.broadcast_to(ranges, len(shape))
        if padding:
            full = images(torus, smoothness[i], each).reshape(torus.shape * 2)
            matrix = full[tuple(slice(n) for n in shape * 2)].reshape(grid.size, grid.size)
        else:
            matrix = images(grid, smoothness[i], each)
        density = multivariate_normal(mean[i].ravel(), scale[i] ** 2 * matrix)
        expected.append(density.logpdf(value[i].ravel()))
    np.testing.assert_allclose(_log_prob(field, value), expected, rtol=1e-5)


@pytest.mark.slow
def test_range_of_one_axis_and_batches_of_ranges(x64):
    grid = Grid((4, 6))
    batch = matern(grid, range=(jnp.array([0.1, 0.2, 0.3]), 0.4), scale=1.0, smoothness=jnp.ones((2, 1)))
    assert batch.batch_shape == (2, 3)
    one = matern(grid, range=(0.2, 0.4), scale=1.0, smoothness=1.0)
    np.testing.assert_allclose(batch.spectrum[1, 1], one.spectrum, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_derivatives_of_one_range_are_those_of_a_range_for_each_axis(order, x64):
    """By hand the former, by JAX the latter: in range and smoothness, and the second one in the range."""
    grid = Grid((7, 6), extent=(1.0, 2.0))

    def spectrum(ranges, range_, smoothness):
        return jnp.log(Matern(grid, range=ranges(range_), scale=1.0, smoothness=smoothness).amplitudes)

    derivative = partial(jax.jacfwd, argnums=(0, 1)) if order == "first" else lambda f: jax.jacfwd(jax.jacfwd(f))
    one, each = (
        jax.jit(derivative(partial(spectrum, ranges)))(0.3, 2.5) for ranges in (lambda r: r, lambda r: (r, 1.0 * r))
    )
    for by_hand, automatic in zip(jax.tree.leaves(one), jax.tree.leaves(each), strict=True):
        np.testing.assert_allclose(by_hand, automatic, rtol=1e-6, atol=1e-6 * np.abs(automatic).max())


@pytest.mark.slow
@pytest.mark.parametrize("smoothness", [0.5, 2.3])
@pytest.mark.parametrize("shape", [(200,), (12, 10, 8)])
def test_single_precision_agrees_with_double(shape, smoothness):
    """Field and density in float32 within 1e-4 of those in x64 (relative to the field's size, and per cell)."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=shape).astype(np.float32)

    def results():
        field = matern(Grid(shape), range=0.2, scale=1.0, smoothness=smoothness)
        x = field.from_base(jnp.asarray(z, jnp.result_type(float)))
        return np.asarray(x), np.asarray(field.log_prob(x)), x.dtype

    x, density, dtype = results()
    with jax.enable_x64(True):
        x64, density64, dtype64 = results()
    assert (dtype, dtype64) == (jnp.float32, jnp.float64)
    np.testing.assert_allclose(x, x64, atol=1e-5)
    np.testing.assert_allclose(density / x.size, density64 / x.size, rtol=1e-4)


@pytest.mark.slow
def test_very_smooth_fields_stay_finite():
    """Smoothness 20 on a fine grid: the spectrum underflows in float32; samples and their gradients do not break."""
    z = jax.random.normal(jax.random.key(0), (64, 64))

    def total(smoothness):
        return jnp.sum(matern(Grid((64, 64)), range=0.8, scale=1.0, smoothness=smoothness).from_base(z) ** 2)

    value, slope = jax.jit(jax.value_and_grad(total))(20.0)
    assert np.isfinite(value)
    assert np.isfinite(slope)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(256, 256), (48, 48, 48)])
def test_large_samples(shape, key):
    """Finite, and the mean over cells of the squared field is its mean variance within 5 standard errors.

    That mean is a sum of independent chi-squared variables, one per mode, so its standard error is exact:
    sqrt(2 sum v_k^2) / n; a false alarm happens once in 1e5 runs at least (its right tail is fatter than normal).
    """
    field = matern(Grid(shape), range=0.1, scale=1.5, smoothness=1.0)
    x = np.asarray(field.sample(key), float)
    assert np.isfinite(x).all()
    v = np.asarray(field.amplitudes, float) ** 2
    error = np.sqrt(2 * np.sum(v**2)) / v.size
    assert abs(np.mean(x**2) - np.mean(v)) < 5 * error
    np.testing.assert_allclose(np.mean(field.variance), np.mean(v), rtol=1e-4)


@pytest.mark.slow
def test_variance_of_a_long_line():
    """100 000 cells, no n x n matrix: one in the middle, two at the ends."""
    variance = matern(Grid(100_000), range=0.1, scale=1.0, smoothness=1.0).variance
    np.testing.assert_allclose(variance[jnp.array([0, 50_000, 99_999])], [2, 1, 2], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "padding"), [((12,), 0.0), ((6, 5), 0.0), ((4, 3, 5), 0.0), ((5, 4), 1.0)], ids=str)
def test_units_shift_the_density_by_their_logarithm(shape, padding):
    """In single precision: heights of 1e-9 on lengths of 1e-6, of 1e-12, cells of 1e-14, and large ones. A unit of the
    field s shifts the density by exactly -N log s and no unit of length changes anything, up to the rounding of sums of
    N terms of about log s."""
    extent, z = np.asarray(shape) / max(shape), np.random.default_rng(0).normal(size=shape)

    def density(length, height):
        field = Matern(
            Grid(shape, extent=extent * length),
            range=0.4 * length,
            scale=1.3 * height,
            smoothness=1.5,
            padding=padding * length,
        )
        draw = field.from_base(jnp.zeros(field.domain.shape).at[tuple(slice(n) for n in shape)].set(z))
        value = np.asarray(draw) / np.float32(height)  # of order one, to compare
        return float(field.log_prob(jnp.asarray(draw))), value, np.asarray(field.variance) / np.float32(height) ** 2

    expected, draw, variance = density(1.0, 1.0)
    n = z.size
    for length, height in ((1e-6, 1e-9), (1.0, 1e-12), (1e-13, 1.0), (1e9, 1e9)):
        shifted, scaled, scaled_variance = density(length, height)
        np.testing.assert_allclose(scaled, draw, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(scaled_variance, variance, rtol=1e-5)
        rounding = n * np.finfo(np.float32).eps * (abs(np.log(height)) + 10) * 4
        # The values differ in their last digit, which an exponent of N / 2 with condition number sqrt(v_1 / v_N) sees.
        np.testing.assert_allclose(shifted + n * np.log(height), expected, rtol=1e-4, atol=rounding)


@pytest.mark.slow
def test_many_cells_on_a_nanometer():
    """32^3 cells on 1 nm, in meters: the variance that they have on 1."""
    variances = [
        Matern(Grid((32,) * 3, extent=length), range=0.3 * length, scale=1.0, smoothness=1.0).variance
        for length in (1.0, 1e-9)
    ]
    np.testing.assert_allclose(variances[1], variances[0], rtol=1e-4)


SMOOTH = {  # shape, range, smoothness, padding; whether single precision has the density
    "line": ((256,), 0.5, 3.0, 0.0, True),
    "smooth line": ((256,), 0.5, 5.0, 0.0, False),
    "square": ((64, 64), 0.5, 3.5, 0.0, True),
    "smooth square": ((64, 64), 0.5, 7.0, 0.0, False),
    "box": ((16, 16, 16), 0.5, 5.0, 0.0, True),
    "padded line": ((100,), 0.2, 2.0, 0.6, True),
    "smooth padded line": ((100,), 0.2, 5.0, 0.6, False),
    "padded square": ((16, 16), 0.4, 2.0, 1.2, True),
    "smooth padded square": ((16, 16), 0.5, 6.0, 1.2, False),
}


@pytest.mark.parametrize("case", [pytest.param(k, marks=[pytest.mark.slow] * (k != "smooth square")) for k in SMOOTH])
def test_smooth_fields_have_a_density_that_is_right_or_none(case):
    """Where single precision gives a density it finds the scale of a draw within a fifth of a posterior sd of what
    double precision finds (the promised bias is a tenth; the rest is the parabola's); elsewhere it is refused by name,
    and NaN within ``jit``."""
    shape, length, smoothness, padding, has_density = SMOOTH[case]

    def field(scale):
        return Matern(Grid(shape), range=length, scale=scale, smoothness=smoothness, padding=padding)

    step = np.sqrt(1 / (2 * np.prod(shape)))  # the posterior sd of log(scale)

    def estimate(u):
        density = jax.jit(lambda scale: field(scale).log_prob(u))
        down, middle, up = (float(density(np.exp(s))) for s in (-step, 0, step))
        return (up - down) / (2 * (2 * middle - up - down))  # the maximum of the parabola, in posterior sds

    with jax.enable_x64(True):
        u = field(1.0).sample(jax.random.key(1))
        truth = estimate(u)
    u = jnp.asarray(np.asarray(u), jnp.float32)
    if has_density:
        assert abs(estimate(u) - truth) < 0.2
        assert np.isfinite(field(1.0).log_prob(u))
        return
    with pytest.raises(
        ValueError, match=r"Matern.log_prob: rounding to float32 hides .* smoothness .* `whiten\(model\)`"
    ):
        field(1.0).log_prob(u)
    assert np.isnan(jax.jit(lambda s: field(s).log_prob(u))(1.0))


def test_a_large_mean_hides_small_modes():
    """The same field about 0 and about 1e4: its rounding is that of the mean."""
    field = lambda mean: Matern(Grid(256), range=0.5, scale=1.0, smoothness=2.5, mean=mean)  # noqa: E731
    assert np.isfinite(field(0.0).log_prob(jnp.zeros(256)))
    with pytest.raises(ValueError, match="rounding to float32 hides"):
        field(1e4).log_prob(jnp.full(256, 1e4))


@pytest.mark.parametrize("smoothness", [0.01, 0.05, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_added_variance_is_that_of_the_torus(ndim, smoothness, x64):
    """The sum of images against the variance of the field on the torus, which shares no code with it."""
    torus = Grid((6,) * ndim, extent=(2.0, 1.5, 2.5)[:ndim], boundary="periodic")
    ranges = (0.5, 0.2, 0.4)[:ndim]
    field = Matern(torus, range=ranges, scale=1.0, smoothness=smoothness)
    added = added_variance(tuple(length / r for length, r in zip(torus.extent, ranges, strict=True)), smoothness)
    np.testing.assert_allclose(field.variance.ravel()[0] - 1, added, atol=1e-4 if smoothness > 0.02 else 2e-3)


@pytest.mark.parametrize(("ndim", "smoothness"), [(1, 1.0), (2, 1.0), (2, 2.5)])
def test_point_observations_have_the_field_s_law(ndim, smoothness, x64):
    """At random points, 6 cells a range: variance within 0.5 %, covariance within 1.5 % of the continuum's. Multilinear
    interpolation has the variance that its docstring says, far less."""
    n, cells = 24, 6
    torus = Grid((n,) * ndim, boundary="periodic")
    field = Matern(torus, range=cells / n, scale=1.0, smoothness=smoothness)
    points = np.random.default_rng(0).uniform(0.25, 0.75, size=(40, ndim))
    a = np.asarray(PointObservation(torus, points).as_matrix())
    law = a @ np.asarray(field.covariance_matrix) @ a.T
    distance = np.linalg.norm(points[:, None] - points, axis=-1) * n / cells
    np.testing.assert_allclose(np.diagonal(law), 1 + added_variance((n / cells,) * ndim, smoothness), atol=5e-3)
    np.testing.assert_allclose(law, correlation(distance, smoothness), atol=0.015)

    middle = np.full((1, ndim), 12 / n)  # between 2^d centers
    b = np.asarray(torus.multilinear_interpolation(middle).as_matrix())
    corners = np.stack(np.meshgrid(*[[0, 1]] * ndim, indexing="ij"), -1).reshape(-1, ndim)
    lags = np.linalg.norm(corners[:, None] - corners, axis=-1) / cells
    found = (b @ np.asarray(field.covariance_matrix) @ b.T).item()
    assert found == pytest.approx(np.mean(correlation(lags, smoothness)), abs=2e-3)
    assert found < 0.965


@pytest.mark.slow
def test_padding_that_is_too_short_is_told():
    """One range in 3-D adds 8 % to the variance, and the padding that the warning asks for is enough."""
    grid, arguments = Grid((4, 4, 4)), {"range": 1.0, "scale": 1.0, "smoothness": 1.0}
    with pytest.warns(
        UserWarning, match=r"`padding` \(1.0, 1.0, 1.0\) adds 8.4% .* round the torus; 2 times the padding"
    ):
        field = Matern(grid, padding=1.0, **arguments)
    np.testing.assert_allclose(field.variance, 1.084, rtol=1e-3)
    np.testing.assert_allclose(Matern(grid, padding=2.0, **arguments).variance, 1.0, rtol=0.01)  # and no warning


def test_long_tails_are_told():
    """A rough field's correlation reaches the middle of the domain from its edges."""
    with pytest.warns(UserWarning, match=r"smoothness 0.03 .* changes the variance by 2.4% in the middle"):
        field = Matern(Grid((33, 33)), range=0.2, scale=1.0, smoothness=0.03)
    np.testing.assert_allclose(field.variance[16, 16], 1.0238, rtol=1e-3)


@pytest.mark.parametrize("argument", ["range", "scale", "smoothness"])
def test_traced_parameters_out_of_range_are_nan(argument):
    """What cannot be refused within ``jit`` is NaN in draw and density, not a number."""
    good = {"range": 0.2, "scale": 1.0, "smoothness": 1.0}

    @jax.jit
    def results(value):
        field = Matern(Grid(4), **(good | {argument: value}))
        return field.from_base(jnp.ones(4)), field.log_prob(jnp.ones(4))

    assert np.all(np.isnan(np.concatenate([np.ravel(r) for r in results(-0.5)])))
    assert np.all(np.isfinite(np.concatenate([np.ravel(r) for r in results(0.5)])))


@pytest.mark.parametrize("length", [1e-30, 1e-3, 1e30])
def test_ranges_beyond_the_cells(length):
    """Far below a cell the field is white noise; far beyond the domain it is refused."""
    if length > 1:
        with pytest.raises(ValueError, match=r"`range` 1e.30, with .* is too far from the spacing"):
            Matern(Grid(8), range=length, scale=1.0, smoothness=1.0)
        return
    field = Matern(Grid(8, boundary="periodic"), range=length, scale=2.0, smoothness=1.0)
    np.testing.assert_allclose(field.covariance_matrix, 4 * np.eye(8), atol=1e-5)


GOOD = {"domain": Grid((4, 6)), "range": 0.2, "scale": 1.0, "smoothness": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"range": -0.1}, "Matern: `range` must be positive and finite; got -0.1"),
        ({"range": (0.1, 0.0)}, "Matern: `range` must be positive and finite; got 0.0"),
        ({"range": np.nan}, "Matern: `range` must be positive and finite; got nan"),
        ({"scale": 0.0}, "Matern: `scale` must be positive and finite"),
        ({"smoothness": np.inf}, "Matern: `smoothness` must be positive and finite"),
        ({"range": (0.1,)}, r"`range` must be one value or a tuple of one per axis \(2\); got 1"),
        ({"mean": np.zeros(3)}, r"`mean` must broadcast to batch \+ \(4, 6\); got shape \(3,\)"),
        ({"mean": np.nan}, "`mean` must be finite; got nan"),
        ({"padding": -1.0}, "`padding` must be finite and not negative"),
        ({"range": np.ones(3), "scale": np.ones(2)}, "[Ii]ncompatible shapes"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        Matern(**{**GOOD, **change})


def test_padded_density_of_a_large_field():
    field = Matern(Grid((65, 64)), range=0.2, scale=1.0, smoothness=1.0, padding=0.2)
    with pytest.raises(ValueError, match=r"up to 4096 cells; this field has 4160.*whiten"):
        field.log_prob(jnp.zeros((65, 64)))


def test_known_arrays_in_a_model_that_is_traced():
    """A range that is an array of JAX's, and known, as samplers pass a model's conditioned sites."""

    def variance(scale):
        field = Matern(Grid(8), range=jnp.asarray(0.2), scale=scale, smoothness=jnp.asarray(1.0), padding=1.0)
        return field.variance

    expected = Matern(Grid(8), range=0.2, scale=1.5, smoothness=1.0, padding=1.0).variance
    np.testing.assert_allclose(jax.jit(variance)(1.5), expected, rtol=1e-5)
    assert jax.eval_shape(variance, 1.5).shape == (8,)
