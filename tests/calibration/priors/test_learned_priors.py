"""Checks of learned priors: exact cases, false-alarm rates, and what they must catch."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from matplotlib import pyplot as plt

from numpyro_inverse.calibration import effective_dimension, latent_shift, manifold_distance, prior_predictive_check
from numpyro_inverse.distributions import Pushforward

rng = np.random.default_rng(3)
MATRIX = rng.normal(size=(12, 3)) * np.array([2.0, 1.0, 0.3])
OFFSET = rng.normal(size=12)


def normal(*shape, scale=1.0):
    return dist.Normal(0.0, scale).expand(shape).to_event(len(shape))


def linear(scale=1.0):
    matrix, offset = jnp.asarray(MATRIX), jnp.asarray(OFFSET)
    return Pushforward(lambda z: matrix @ (z / scale) + offset, normal(3, scale=scale))


LINEAR = linear()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def fields(seed, n, noise):
    """Examples of the linear generator, plus noise off its range."""
    r = np.random.default_rng(seed)
    return r.normal(size=(n, 3)) @ MATRIX.T + OFFSET + noise * r.normal(size=(n, 12))


# Prior predictive check


def test_scores_are_the_closed_forms(key, x64):
    r = np.random.default_rng(0)
    held_out, training = 1.3 * r.normal(size=(300, 2, 3)), 1.3 * r.normal(size=(500, 2, 3))
    found = prior_predictive_check(normal(2, 3), held_out, rng_key=key, training=training, bin_width=1 / 256)
    own = -scipy.stats.norm.logpdf(held_out).sum((1, 2)) / (6 * np.log(2)) + 8
    flat = training.reshape(500, 6)
    gaussian = scipy.stats.multivariate_normal(flat.mean(0), np.cov(flat.T)).logpdf(held_out.reshape(300, 6))
    gaussian = -gaussian / (6 * np.log(2)) + 8
    np.testing.assert_allclose(found.bits_per_dimension, own.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, own.std(ddof=1) / np.sqrt(300), rtol=1e-12)
    np.testing.assert_allclose(found.gaussian_bits_per_dimension, gaussian.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.gain, (gaussian - own).mean(), rtol=1e-9)
    np.testing.assert_allclose(found.gain_standard_error, (gaussian - own).std(ddof=1) / np.sqrt(300), rtol=1e-9)
    assert found.gain < 0  # the prior's scale is wrong, the Gaussian's is not
    assert found.p_value <= 0.01
    assert "bits per dimension held out; a Gaussian has" in found.verdict()
    assert len(found.plot().findobj(plt.Axes)) == 13


@pytest.mark.slow
def test_size_of_the_prior_predictive_check(key):
    """The p-value is exact: at most 0.05 in 5 % of repetitions. False alarm of this test: 0.1 %."""
    prior = Pushforward(lambda z: z, normal(3))
    data = np.random.default_rng(1).normal(size=(60, 30, 3))
    keys = jax.random.split(key, 60)
    found = [
        prior_predictive_check(prior, x, rng_key=k, num_draws=30, num_permutations=19).p_value
        for x, k in zip(data, keys, strict=True)
    ]
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], 60, 0.05)
    assert low <= np.sum(np.asarray(found) <= 0.05) <= high


@pytest.mark.slow
def test_a_wrong_scale_and_a_missing_mode_are_seen(key):
    r = np.random.default_rng(2)
    held_out = r.normal(size=(300, 8)) * np.repeat([1.0, 0.1], 4)
    right = dist.Normal(jnp.zeros(8), jnp.repeat(jnp.array([1.0, 0.1]), 4)).to_event(1)
    small = dist.Normal(jnp.zeros(8), 0.7 * jnp.repeat(jnp.array([1.0, 0.1]), 4)).to_event(1)
    rough = dist.Normal(jnp.zeros(8), jnp.repeat(jnp.array([1.0, 0.13]), 4)).to_event(1)

    def p_value(prior, features=None):
        return prior_predictive_check(
            prior, held_out, rng_key=key, num_draws=300, features=features, num_permutations=99
        ).p_value

    def fine(u):
        return jnp.log(jnp.mean(u[4:] ** 2))

    assert p_value(right) > 0.05
    assert p_value(right, fine) > 0.05
    assert p_value(small) == 0.01
    assert p_value(Pushforward(lambda z: jnp.abs(z[0]) * jnp.eye(8)[0] + 0.1 * z, normal(8))) == 0.01
    assert p_value(rough, fine) == 0.01
    assert p_value(rough) > 0.05  # the fine scales are lost in the distances: what features are for


@pytest.mark.slow
def test_examples_are_chosen_at_random_and_the_unit_of_features_is_not_seen(key):
    rows = np.arange(200.0)[:, None] / 100

    def check(scale):
        return prior_predictive_check(
            normal(1),
            rows,
            rng_key=key,
            num_draws=20,
            features=lambda u: jnp.stack([u[0], scale * jnp.sin(9 * u[0])]),
            num_permutations=19,
        )

    one, other = check(1.0), check(1000.0)
    assert np.max(one.examples) > 0.2  # the first twenty are smaller
    assert other.statistic == pytest.approx(one.statistic, rel=1e-4)


@pytest.mark.slow
def test_priors_without_a_density_have_no_score(key):
    found = prior_predictive_check(LINEAR, fields(0, 60, 0.0), rng_key=key, num_draws=60, num_permutations=19)
    assert found.bits_per_dimension is None
    assert found.standard_error is None
    assert "no density" in found.verdict()
    found.plot()
    outside = prior_predictive_check(
        dist.Uniform(-1.0, 1.0).expand([2]).to_event(1),
        np.random.default_rng(0).normal(size=(30, 2)),
        rng_key=key,
        num_permutations=19,
    )
    assert outside.bits_per_dimension == np.inf
    assert "density zero" in outside.verdict()


def test_bad_input_to_the_prior_predictive_check(key):
    good = np.random.default_rng(0).normal(size=(30, 3))
    with pytest.raises(TypeError, match="NumPyro distribution"):
        prior_predictive_check(lambda z: z, good, rng_key=key)
    with pytest.raises(ValueError, match="batch shape"):
        prior_predictive_check(dist.Normal(jnp.zeros(3), 1.0), good, rng_key=key)
    with pytest.raises(ValueError, match="`held_out` must have shape"):
        prior_predictive_check(normal(3), good[:, :2], rng_key=key)
    with pytest.raises(ValueError, match="`held_out` needs 10"):
        prior_predictive_check(normal(3), good[:9], rng_key=key)
    with pytest.raises(ValueError, match="not finite"):
        prior_predictive_check(normal(3), np.full((30, 3), np.nan), rng_key=key)
    with pytest.raises(ValueError, match="`training` is singular"):
        prior_predictive_check(normal(3), good, rng_key=key, training=good[:3])
    with pytest.raises(ValueError, match="`training` is singular"):
        prior_predictive_check(normal(3), good, rng_key=key, training=good * np.array([1, 1, 0]))
    with pytest.raises(ValueError, match="bin_width"):
        prior_predictive_check(normal(3), good, rng_key=key, bin_width=0.0)
    with pytest.raises(ValueError, match="num_draws"):
        prior_predictive_check(normal(3), good, rng_key=key, num_draws=5)
    with pytest.raises(ValueError, match="`features` returned"):
        prior_predictive_check(normal(3), good, rng_key=key, features=lambda u: u * jnp.nan)


# Distance to the generator's range


@pytest.mark.slow
def test_the_distance_to_a_linear_range_is_the_projection_residual(key, x64):
    u, held_out = fields(1, 3, 1.0), fields(2, 19, 0.1)
    found = manifold_distance(linear(), u, held_out=held_out, rng_key=key, num_starts=2)

    def residual(v):
        z = np.linalg.lstsq(MATRIX, (v - OFFSET).T, rcond=None)[0].T
        return z, np.sqrt(np.mean((v - OFFSET - z @ MATRIX.T) ** 2, axis=1))

    z, distance = residual(u)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-9)
    np.testing.assert_allclose(found.held_out_distance, residual(held_out)[1], rtol=1e-9)
    np.testing.assert_allclose(found.latent, z, atol=1e-6)
    np.testing.assert_allclose(found.nearest, z @ MATRIX.T + OFFSET, atol=1e-6)
    np.testing.assert_array_equal(found.agreement, 1.0)
    np.testing.assert_array_equal(found.quantile, 1 / 20)  # a truth off the range
    assert "3 of 3 are farther at level 0.05" in found.verdict()
    found.plot()


@pytest.mark.slow
def test_the_distance_to_a_curved_range_against_a_grid(key):
    def curved(z):
        return jnp.stack([z[0], z[1], jnp.sin(2 * z[0]) + z[1] ** 2, jnp.cos(z[0] * z[1])])

    prior = Pushforward(curved, normal(2))
    u = np.random.default_rng(4).normal(size=(5, 4))
    found = manifold_distance(prior, u, held_out=u[[0, 1, 2, 3, 4] * 2], rng_key=key, num_starts=10)
    axis = np.linspace(-5, 5, 1501)
    grid = np.asarray(prior.from_base(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)))
    expected = [np.sqrt(np.min(np.mean((v - grid) ** 2, axis=1))) for v in u]
    # The squared distance of the best grid point exceeds the minimum by at most its curvature times the spacing.
    assert np.all(found.distance <= np.asarray(expected) + 1e-5)
    np.testing.assert_allclose(found.distance, expected, atol=1e-3)


@pytest.mark.slow
def test_size_of_the_manifold_distance(key):
    """With 19 held-out examples, p <= 0.05 where u is the farthest of 20: in 5 %. False alarm of this test: 0.1 %."""
    found = []
    for i in range(100):
        examples = fields(100 + i, 20, 0.3)
        result = manifold_distance(
            LINEAR, examples[0], held_out=examples[1:], rng_key=jax.random.fold_in(key, i), num_starts=1, num_steps=10
        )
        found.append(result.quantile[0])
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], 100, 0.05)
    assert low <= np.sum(np.asarray(found) <= 0.05 + 1e-9) <= high
    assert "p = " in result.verdict()
    far = manifold_distance(
        LINEAR, fields(0, 1, 1.0)[0], held_out=examples[1:], rng_key=key, num_starts=1, num_steps=10
    )
    assert far.quantile[0] == pytest.approx(1 / 20)
    far.plot()


@pytest.mark.slow
def test_a_bounded_base_bounds_the_range(key):
    prior = Pushforward(lambda z: jnp.stack([z, 0 * z]), dist.Uniform(0.0, 1.0))
    u = np.array([[2.0, 0.0], [0.5, 0.3]])
    found = manifold_distance(prior, u, held_out=np.repeat(u, 5, axis=0), rng_key=key, num_starts=2)
    np.testing.assert_allclose(found.distance, np.array([1.0, 0.3]) / np.sqrt(2), rtol=1e-3)
    # A mean square in float32 is flat to the root of its rounding about its minimum.
    np.testing.assert_allclose(found.latent, [1.0, 0.5], atol=4 * np.sqrt(np.finfo(np.float32).eps))


def test_bad_input_to_the_manifold_distance(key):
    u, held_out = fields(1, 3, 1.0), fields(2, 19, 0.1)
    with pytest.raises(TypeError, match="Pushforward"):
        manifold_distance(normal(12), u, held_out=held_out, rng_key=key)
    with pytest.raises(ValueError, match="`u` must have shape"):
        manifold_distance(LINEAR, u[:, :5], held_out=held_out, rng_key=key)
    with pytest.raises(ValueError, match="`u` has numbers that are not finite"):
        manifold_distance(LINEAR, np.full(12, np.inf), held_out=held_out, rng_key=key)
    with pytest.raises(ValueError, match="`held_out` needs 10"):
        manifold_distance(LINEAR, u, held_out=held_out[:5], rng_key=key)
    mixed = Pushforward(LINEAR.generator, normal(3), residual=normal(12))
    with pytest.raises(ValueError, match="without its residual"):
        manifold_distance(mixed, u, held_out=held_out, rng_key=key)
    with pytest.raises(ValueError, match="num_starts"):
        manifold_distance(LINEAR, u, held_out=held_out, rng_key=key, num_starts=0)


# Shift of the latent


def posteriors(seed, count, draws, scale=1.0, noise=0.5):
    """Latents of N(0, scale^2), data MATRIX z + noise, and draws of the posterior under N(0, 1)."""
    r = np.random.default_rng(seed)
    z = scale * r.normal(size=(count, 3))
    data = z @ MATRIX.T + noise * r.normal(size=(count, 12))
    covariance = np.linalg.inv(MATRIX.T @ MATRIX / noise**2 + np.eye(3))
    mean = data @ MATRIX @ covariance / noise**2
    return mean[:, None] + r.normal(size=(count, draws, 3)) @ np.linalg.cholesky(covariance).T, covariance


def test_what_the_latent_shift_means():
    """Over data sets of the model: one draw is uniform, the mean is not, twice the mean is a p-value.

    False alarm of each Monte Carlo bound: 0.1 %.
    """
    count, size = 1000, 40
    for noise in (0.5, 10.0):
        draws, covariance = posteriors(7, count, size, noise=noise)
        found = [latent_shift(LINEAR, d) for d in draws]
        assert scipy.stats.kstest([f.one_draw for f in found], "uniform").pvalue > 1e-3
        together = latent_shift(LINEAR, draws[:, -1])
        np.testing.assert_allclose(together.tail_probability, [f.one_draw for f in found])
        mean = np.array([f.mean_tail_probability for f in found])
        assert scipy.stats.kstest(mean, "uniform").pvalue < 1e-3 or noise == 0.5
        assert abs(mean.mean() - 0.5) < 3.3 * mean.std() / np.sqrt(count)
        alarms = np.mean([f.p_value <= 0.05 for f in found])
        assert alarms <= scipy.stats.binom.ppf(0.999, count, 0.05) / count
        # |m|^2 + tr C = k on average; the mean of the draws adds tr C / draws.
        squares = np.array([f.mean_distance**2 for f in found])
        trace = np.trace(covariance)
        assert abs(squares.mean() - (3 - trace + trace / size)) < 3.3 * squares.std() / np.sqrt(count)
        expected = np.mean([f.expected_mean_distance**2 for f in found])
        assert expected == pytest.approx(3 - trace, rel=0.02, abs=0.02)


def test_a_prior_too_narrow_shows_in_the_latent():
    draws, _ = posteriors(8, 200, 40, scale=3.0)
    assert np.mean([latent_shift(LINEAR, d).p_value <= 0.05 for d in draws]) > 0.6
    found = latent_shift(LINEAR, {"u": np.zeros((40, 12)), "u_latent": draws[np.argmax((draws**2).sum((1, 2)))]})
    assert "is in the tail" in found.verdict()
    assert found.mean_distance > 3 > found.expected_mean_distance**2
    found.plot()


@pytest.mark.slow
def test_bases_that_are_not_standard_normal(key):
    # A scaled normal base has the same tail as the standard one, up to the simulation.
    draws = posteriors(9, 1, 30)[0][0]
    exact = latent_shift(LINEAR, draws)
    scaled = latent_shift(linear(2.0), 2 * draws, rng_key=key)
    np.testing.assert_allclose(scaled.tail_probability, exact.tail_probability, atol=4 * 0.5 / np.sqrt(10_000))
    assert scaled.mean_distance == pytest.approx(exact.mean_distance, rel=0.05)
    # A correlated base: the mean's distance is |root^-1 (mean - centre)|, up to the simulated moments.
    root = np.array([[1.0, 0.0, 0.0], [2.0, 0.5, 0.0], [-1.0, 1.0, 2.0]])
    mixed = Pushforward(lambda z: z, dist.MultivariateNormal(jnp.array([5.0, -3.0, 1.0]), scale_tril=jnp.asarray(root)))
    moved = draws @ root.T + np.array([5.0, -3.0, 1.0])
    found = latent_shift(mixed, moved, rng_key=key)
    np.testing.assert_allclose(found.tail_probability, exact.tail_probability, atol=4 * 0.5 / np.sqrt(10_000))
    assert found.mean_distance == pytest.approx(exact.mean_distance, rel=0.05)
    assert found.expected_mean_distance == pytest.approx(exact.expected_mean_distance, rel=0.05)
    laplace = Pushforward(lambda z: z, dist.Laplace(0.0, 1.0).expand([4]).to_event(1))
    same = laplace.base_dist.sample(jax.random.fold_in(key, 1), (500,))
    assert scipy.stats.kstest(latent_shift(laplace, same, rng_key=key).tail_probability, "uniform").pvalue > 1e-3
    assert latent_shift(laplace, 4 * same[:1] / jnp.mean(jnp.abs(same[0])), rng_key=key).p_value < 0.02
    with pytest.raises(ValueError, match="`rng_key`"):
        latent_shift(laplace, same)


def test_bad_input_to_the_latent_shift():
    with pytest.raises(TypeError, match="map of a base"):
        latent_shift(dist.Normal(0.0, 1.0), np.zeros(10))
    with pytest.raises(ValueError, match="latents must have shape"):
        latent_shift(LINEAR, np.zeros((10, 4)))
    with pytest.raises(ValueError, match="not finite"):
        latent_shift(LINEAR, np.full((10, 3), np.nan))
    with pytest.raises(ValueError, match=r"\['u'\], but not a site `u_latent`"):
        latent_shift(LINEAR, {"u": np.zeros((10, 12))})
    both = {"u_latent": np.zeros((10, 3)), "v_latent": np.ones((10, 3))}
    with pytest.raises(ValueError, match="several latents"):
        latent_shift(LINEAR, both)
    assert latent_shift(LINEAR, both, site="v").mean_distance == pytest.approx(np.sqrt(3))
    with pytest.raises(ValueError, match="'w_latent'"):
        latent_shift(LINEAR, both, site="w")


# Effective dimension


@pytest.mark.slow
def test_the_effective_dimension_of_a_linear_generator(x64):
    draws = np.random.default_rng(0).normal(size=(2, 10, 3))  # chains
    s = np.linalg.svd(MATRIX, compute_uv=False)
    found = effective_dimension(linear(), draws, noise=float(np.sqrt(s[1] * s[2])))
    np.testing.assert_allclose(found.singular_values, np.tile(s, (20, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.mean, np.sum(s**2) ** 2 / np.sum(s**4), rtol=1e-12)
    assert found.spread < 1e-12
    assert found.mean_above_noise == 2
    assert found.spread_above_noise == 0
    assert "2 +- 0 directions above the noise, of 3, over 20 draws" in found.verdict()
    found.plot()
    # The scale in which the latent is written does not matter.
    np.testing.assert_allclose(effective_dimension(linear(5.0), 5 * draws).singular_values[0], s, rtol=1e-12)
    root = np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.2, -0.4, 2.0]])
    mixed = Pushforward(
        lambda z: jnp.asarray(MATRIX) @ jnp.linalg.solve(root, z), dist.MultivariateNormal(jnp.zeros(3), root @ root.T)
    )
    np.testing.assert_allclose(effective_dimension(mixed, draws[0, :1]).singular_values[0], s, rtol=1e-12)


def test_the_effective_dimension_of_curved_and_narrow_generators():
    z = np.array([0.0, 1.0, -2.0])
    found = effective_dimension(Pushforward(lambda z: jnp.stack([z, z**2]), dist.Normal(0.0, 1.0)), z, noise=2.0)
    np.testing.assert_allclose(found.singular_values[:, 0], np.sqrt(1 + 4 * z**2), rtol=1e-6)
    np.testing.assert_array_equal(found.above_noise, [0, 1, 1])
    np.testing.assert_allclose(found.participation_ratio, 1.0)
    wide = effective_dimension(Pushforward(lambda z: MATRIX.T @ z, normal(12)), np.zeros((2, 12)))  # reverse mode
    np.testing.assert_allclose(wide.singular_values[1], np.linalg.svd(MATRIX, compute_uv=False), rtol=1e-5)
    assert wide.above_noise is None
    assert wide.mean_above_noise is None


def test_bad_input_to_the_effective_dimension():
    z = np.zeros((2, 3))
    with pytest.raises(TypeError, match="from_base"):
        effective_dimension(dist.TransformedDistribution(normal(3), dist.transforms.AffineTransform(0.0, 2.0)), z)
    with pytest.raises(ValueError, match="noise"):
        effective_dimension(LINEAR, z, noise=0.0)
    with pytest.raises(ValueError, match="latents must have shape"):
        effective_dimension(LINEAR, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="u_latent"):
        effective_dimension(LINEAR, {"u": z})
    with pytest.raises(ValueError, match="finite variance"):
        effective_dimension(Pushforward(lambda z: z, dist.Cauchy(0.0, 1.0).expand([3]).to_event(1)), z)
    with pytest.raises(ValueError, match="Jacobian is zero"):
        effective_dimension(Pushforward(lambda z: 0 * z, normal(3)), z)
