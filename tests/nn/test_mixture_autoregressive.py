"""Autoregressive mixtures: masks, masses that sum to 1, draws of their own law, and laws known exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints
from scipy.special import log_ndtr
from scipy.stats import chi2, norm

from numpyro_inverse.nn import ContextEmbedding, MixtureAutoregressive, fit_density
from numpyro_inverse.nn._interval_mass import log_bin_mass, log_interval_mass

KEY = jax.random.key(0)
MIXED = (
    constraints.real,
    constraints.boolean,
    constraints.integer_interval(-1, 3),
    constraints.nonnegative_integer,
)


def moved(law, size=0.3):
    """The law with weights away from where training starts."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + size * rng.normal(size=leaf.shape) if eqx.is_inexact_array(leaf) else leaf, law
    )


def standard(law):
    """Mean 0 and scale 1, moved or not."""
    one = jnp.ones(law.shape)
    return eqx.tree_at(lambda it: (it.mean, it.scale, it.deviation), law, (jnp.zeros(law.shape), one, one))


def parameters(law, r, c):
    """Log weights, means and log widths, of r."""
    features = law._features(c)
    seen = law._seen(features)
    return law._parameters(r, features, seen, law.scale * jnp.exp(law._affine(seen)[2]))


def exact_log_mass(middle, width):
    """Of an interval, in double precision: by differences on the lower side, for the narrowest by Gauss-Legendre."""
    middle = -np.abs(middle)
    low, high = log_ndtr(middle - width / 2), log_ndtr(middle + width / 2)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    points = middle[..., None] + width[..., None] / 2 * nodes
    thin = logsumexp(norm.logpdf(points) + np.log(weights * width[..., None] / 2), axis=-1)
    return np.where(width * np.maximum(-middle, 1) < 1, thin, high + np.log1p(-np.exp(low - high)))


@pytest.mark.slow
def test_masses_of_intervals():
    """In single precision against double, relative to 1 or to the logarithm, from 1e-6 to 100 deviations wide."""
    middle, width = np.meshgrid([-300.0, -30, -6, -1, -0.01, 0, 0.3, 2, 9, 100], np.geomspace(1e-6, 100, 33))
    found = jax.jit(log_interval_mass)(jnp.asarray(middle, jnp.float32), jnp.asarray(width, jnp.float32))
    expected = exact_log_mass(middle.astype(np.float32).astype(float), width.astype(np.float32).astype(float))
    # Near -300, log Phi has 4e4 with 7 digits.
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-5)
    slope = jax.jit(jax.vmap(jax.grad(log_interval_mass, (0, 1))))(
        jnp.asarray(middle.ravel(), jnp.float32), jnp.asarray(width.ravel(), jnp.float32)
    )
    assert np.all(np.isfinite(slope))
    far = jax.value_and_grad(log_interval_mass)(jnp.float32(1e6), jnp.float32(2.0))
    assert np.all(np.isfinite(far))


@pytest.mark.slow
def test_derivatives_of_masses(x64):
    """Against the densities at the edges over the mass."""
    middle, width = (a.ravel() for a in np.meshgrid([-6.0, -1, 0.3, 2], [1e-3, 0.05, 0.5, 4.0]))
    dm, dw = jax.vmap(jax.grad(log_interval_mass, (0, 1)))(jnp.asarray(middle), jnp.asarray(width))
    low, high = norm.pdf(middle - width / 2), norm.pdf(middle + width / 2)
    mass = np.exp(exact_log_mass(middle, width))
    # The narrow branch neglects (m h)^4.
    np.testing.assert_allclose(dm, (high - low) / mass, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(dw, (high + low) / 2 / mass, rtol=1e-5)


@pytest.mark.slow
def test_first_and_last_bins_take_the_rest(x64):
    edges = np.arange(5) - 1.3
    middle, width = edges * 0.7, np.full(5, 0.7)
    first, last = np.arange(5) == 0, np.arange(5) == 4
    found = log_bin_mass(jnp.asarray(middle), jnp.asarray(width), first, last)
    cuts = norm.cdf(np.concatenate([[-np.inf], (middle + width / 2)[:-1], [np.inf]]))
    np.testing.assert_allclose(np.exp(found), np.diff(cuts), rtol=1e-12)
    assert log_bin_mass(jnp.asarray(3.0), jnp.asarray(1.0), True, True) == 0


@pytest.mark.slow
@pytest.mark.parametrize("context", [None, 3])
def test_a_number_depends_on_those_before_it_and_on_the_context(x64, context):
    """The Jacobian of its parameters: full below the diagonal, zero elsewhere, and none zero for the context."""
    law = standard(moved(MixtureAutoregressive(4, components=2, width=12, depth=1, context=context, key=KEY)))
    c = None if context is None else jnp.arange(3.0)
    of_x = jax.jit(jax.jacfwd(lambda r: jnp.stack(parameters(law, r, c))))(jnp.arange(4.0))
    for found in of_x:
        np.testing.assert_array_equal(found[:, 0][np.triu_indices(4)], 0)
        assert np.all(np.abs(found[:, 0][np.tril_indices(4, -1)]) > 1e-9)
    if context is not None:
        of_c = jax.jit(jax.jacfwd(lambda c: jnp.stack(parameters(law, jnp.arange(4.0), c))))(c)
        assert np.all(np.abs(of_c) > 1e-9)


@pytest.mark.slow
def test_masses_and_densities_sum_to_one(x64):
    """A real number by quadrature (exact to 1e-10 for these widths), and all values of three integers."""
    law = standard(moved(MixtureAutoregressive(4, components=3, width=16, depth=1, kinds=MIXED, context=2, key=KEY)))
    real = jnp.linspace(-40, 40, 16_001)
    rest = np.stack(np.meshgrid([0.0, 1], np.arange(-1.0, 4), np.arange(300.0), indexing="ij"), axis=-1).reshape(-1, 3)
    rows = np.concatenate([np.full((len(rest), 1), 0.4), rest], axis=1)
    joint = jax.jit(jax.vmap(lambda x: law.log_prob(x, jnp.ones(2))))(rows)

    @jax.jit
    def first_number(x, c):
        """Its log weights, means and log widths, in its own units, and its distance from where they are counted."""
        shift, _, stretch = law._affine(law._seen(law._features(c)))
        log_weight, mean, log_width = parameters(law, jnp.zeros(4), c)
        left = x - law._predicted(jnp.zeros(4), law._features(c))[0] - shift[0]
        return left, log_weight[0], mean[0] * jnp.exp(stretch[0]), log_width[0] + stretch[0]

    left, log_weight, mean, log_width = first_number(0.4, jnp.ones(2))
    first = logsumexp(log_weight + norm.logpdf(left, mean, np.exp(log_width)))
    np.testing.assert_allclose(logsumexp(joint), first, atol=1e-9)
    one = moved(MixtureAutoregressive(1, components=3, width=8, context=2, key=KEY))
    one = standard(one)
    density = jax.jit(jax.vmap(lambda x: one.log_prob(x[None], jnp.ones(2))))(real)
    np.testing.assert_allclose(np.trapezoid(np.exp(density), real), 1, atol=1e-9)


@pytest.mark.slow
def test_off_the_support():
    law = MixtureAutoregressive(2, kinds=(constraints.boolean, constraints.nonnegative_integer), width=8, key=KEY)
    rows = jnp.array([[0.0, 3], [2.0, 3], [0.5, 3], [1.0, -1], [1.0, 1.5]])
    values = jax.jit(jax.vmap(law.log_prob))(rows)
    assert np.isfinite(values[0])
    assert np.all(np.isneginf(values[1:]))


@pytest.mark.slow
def test_draws_have_their_own_law():
    """Chi-square of 20,000 draws in cells of equal mass or single values; false alarms 1e-5, shared by two."""
    kinds = (constraints.real, constraints.integer_interval(0, 4))
    data = np.random.default_rng(1).integers(0, 5, (50, 2)) * 1.0
    law = moved(MixtureAutoregressive(2, components=3, width=16, depth=1, kinds=kinds, context=1, data=data, key=KEY))
    c = jnp.array([0.7])
    draws = jax.jit(jax.vmap(lambda k: law.sample(k, c)))(jax.random.split(jax.random.key(1), 20_000))
    draws = np.asarray(draws, float)
    grid = np.linspace(-30, 30, 60_001)
    table = np.stack(np.meshgrid(grid[::20], np.arange(5.0), indexing="ij"), axis=-1).reshape(-1, 2)
    joint = np.exp(jax.jit(jax.vmap(lambda x: law.log_prob(x, c)))(table).astype(float)).reshape(-1, 5) * 0.02
    np.testing.assert_allclose(joint.sum(), 1, atol=1e-3)
    cuts = np.searchsorted(np.cumsum(joint.sum(axis=1)), np.linspace(0, 1, 11)[1:-1])
    # Midpoints between grid points are the edges of cells.
    edges = grid[::20][cuts] + 0.01
    masses = np.array([part.sum(axis=0) for part in np.split(joint, cuts + 1)])
    counts = np.histogram2d(draws[:, 0], draws[:, 1], bins=[[-np.inf, *edges, np.inf], np.arange(6) - 0.5])[0]
    expected = masses * len(draws)
    kept = expected > 10
    assert np.abs(counts[~kept].sum() - expected[~kept].sum()) < 5 * np.sqrt(expected[~kept].sum() + 10)
    statistic = np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept])
    assert chi2.sf(statistic, kept.sum() - 1) > 5e-6


@pytest.mark.slow
def test_derivatives_with_respect_to_the_context(x64):
    """Against differences; never zero."""
    law = moved(MixtureAutoregressive(4, components=3, width=16, depth=1, kinds=MIXED, context=2, key=KEY))
    x, c = jnp.array([0.3, 1, 3, 7]), jnp.array([0.2, -0.4])
    law = standard(law)
    both = jax.jit(jax.value_and_grad(lambda c: law.log_prob(x, c)))
    found = both(c)[1]
    for i in range(2):
        step = 1e-6 * np.eye(2)[i]
        slope = (both(c + step)[0] - both(c - step)[0]) / 2e-6
        np.testing.assert_allclose(found[i], slope, rtol=1e-6)
        assert abs(slope) > 1e-3


def linear_gaussian(n, seed):
    """x = A c + R z."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(n, 2)) * [10, 0.1] + [3, 0]
    root = np.array([[1.0, 0, 0], [0.9, 0.4, 0], [-0.5, 0.3, 1e-3]])
    slopes = np.array([[0.1, -5], [0.03, 8], [-0.1, 4]])
    x = c @ slopes.T + rng.normal(size=(n, 3)) @ root.T
    log_prob = norm.logpdf(np.linalg.solve(root, (x - c @ slopes.T).T)).sum(axis=0) - np.log(np.diag(root)).sum()
    return x.astype(np.float32), c.astype(np.float32), log_prob


def test_linear_gaussian_laws_are_there_from_the_start():
    """The mean excess is the p / 2n of the regression's p = 12 numbers, and 1e-4 a number for a mixture that is not
    quite normal; twice that allowed. The third number is a thousandth of a deviation wide given the others.
    """
    x, c, _ = linear_gaussian(4000, 0)
    law = MixtureAutoregressive(3, context=ContextEmbedding((2,), data=c), data=(x, c), key=KEY)
    x, c, exact = linear_gaussian(20_000, 1)
    found = np.asarray(jax.jit(jax.vmap(law.log_prob))(x, c), float)
    assert abs(np.mean(exact - found)) < 2 * (12 / 8000 + 3e-4)


@pytest.mark.slow
def test_counts_are_learned():
    """Poisson counts with a mean that depends on the context, and a coin that depends on the count: within 0.01 nat."""

    def pairs(n, seed):
        rng = np.random.default_rng(seed)
        c = rng.uniform(-1, 1, (n, 1))
        mean = np.exp(1 + c[:, 0])
        count = rng.poisson(mean)
        chance = 1 / (1 + np.exp(2 - count))
        coin = rng.uniform(size=n) < chance
        exact = count * np.log(mean) - mean - np.array([np.log(np.arange(1, k + 1)).sum() for k in count])
        exact += np.where(coin, np.log(chance), np.log1p(-chance))
        return np.stack([count, coin], axis=1).astype(np.float32), c.astype(np.float32), exact

    x, c, _ = pairs(8000, 0)
    kinds = (constraints.nonnegative_integer, constraints.boolean)
    law = MixtureAutoregressive(2, kinds=kinds, components=4, width=16, depth=1, context=1, data=(x, c), key=KEY)
    fit = fit_density(law, (x, c), key=KEY, batch_size=200, max_epochs=8, learning_rate=1e-2, progress_bar=False)
    x, c, exact = pairs(20_000, 1)
    found = np.asarray(jax.jit(jax.vmap(fit.module.log_prob))(x, c), float)
    error = np.std(exact - found) / len(x) ** 0.5
    assert -4 * error < np.mean(exact - found) < 0.01 + 4 * error


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "`size` must be 1 or more"),
        ({"components": 0}, ValueError, "`components` must be 1 or more"),
        ({"depth": 1.5}, TypeError, "`depth` must be an integer"),
        ({"kinds": [constraints.real]}, ValueError, "`kinds` must be one constraint, or one for each of 2 numbers"),
        ({"kinds": ["count", "count"]}, TypeError, "`kinds` must be NumPyro constraints; got str"),
        ({"kinds": constraints.positive}, ValueError, "real line first, with `biject_to`"),
        ({"data": np.zeros((5, 3))}, ValueError, "two finite rows of 2 numbers or more; got shape"),
        ({"data": np.full((5, 2), np.nan)}, ValueError, "with numbers that are not finite"),
        (
            {"data": np.full((5, 2), 0.5), "kinds": constraints.boolean},
            ValueError,
            "number 0 of `data` is to be an integer from 0 to 1; .* and is not whole",
        ),
        (
            {"data": (np.zeros((5, 2)), np.zeros((4, 1))), "context": 1},
            ValueError,
            "one per row; got 4 for 5 rows",
        ),
        ({"context": 2.0}, TypeError, "`context` must be the numbers in a context vector"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=f"MixtureAutoregressive: .*{message}"):
        MixtureAutoregressive(**{"size": 2, "key": KEY, **arguments})


@pytest.mark.slow
def test_bad_events():
    law = MixtureAutoregressive(2, context=1, width=8, key=KEY)
    with pytest.raises(ValueError, match=r"MixtureAutoregressive: `x` must have shape \(2,\); got \(3,\)"):
        law.log_prob(jnp.zeros(3), jnp.zeros(1))
    with pytest.raises(TypeError, match="needs a `context` of shape"):
        law.log_prob(jnp.zeros(2))
    with pytest.raises(TypeError, match="fit_density: `density` must be a module with the method `log_prob`"):
        fit_density(eqx.nn.Linear(1, 1, key=KEY), np.zeros((100, 1)), key=KEY)
    with pytest.raises(ValueError, match=r"fit_density: the density is conditional; `data` .* pair of examples"):
        fit_density(law, np.zeros((200, 2)), key=KEY, progress_bar=False)
    coins = MixtureAutoregressive(1, kinds=constraints.boolean, width=8, key=KEY)
    rows = np.zeros((2000, 1))
    rows[1000] = 2
    with pytest.raises(ValueError, match="fit_density: `data` has rows outside the density's range"):
        fit_density(coins, rows, key=KEY, progress_bar=False)
