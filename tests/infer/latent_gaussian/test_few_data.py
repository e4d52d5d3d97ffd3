"""Posteriors in the space of fewer data than latents, against dense algebra in the space of the latents."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import multivariate_normal

from numpyro_inverse.distributions import Matern, SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import LatentGaussian
from numpyro_inverse.infer.latent_gaussian import _dense_latents
from numpyro_inverse.infer.latent_gaussian._dense_latents import DenseGaussian, dense_latents
from numpyro_inverse.infer.latent_gaussian._few_data import FewDataPosterior
from numpyro_inverse.infer.latent_gaussian._laplace import find_mode, next_decrement
from numpyro_inverse.infer.latent_gaussian._reading import read_model

M, N = 5, 8
WEIGHTS = {
    "positive": [2.0, 0.3, 5.0, 1.0, 100.0],
    "some zero": [2.0, 0.0, 5.0, 0.0, 1.0],
    "some negative": [2.0, -0.05, 5.0, -0.08, 0.0],
}
rng = np.random.default_rng(0)
A, B, OFFSET = rng.normal(size=(M, N)), rng.normal(size=N), rng.normal(size=M)


def _law(root, offset=OFFSET):
    root = jnp.asarray(root)
    fixed = jax.lax.stop_gradient(root)
    return DenseGaussian(None, None, {}, jnp.asarray(offset), root, fixed @ fixed.T)


def _posterior(root, weights):
    return FewDataPosterior(_law(root), jnp.asarray(weights))


def _precision(root, weights):
    return jnp.eye(N) + root.T @ jnp.diag(weights) @ root


# One program each, of which the weights are an argument.


@jax.jit
def _algebra(w):
    posterior = _posterior(A, w)
    return posterior.solve(jnp.asarray(B)), posterior.roots(jnp.eye(N)), posterior.beyond(), posterior.log_ratio()


@jax.jit
def _slopes(w):
    """In the space of the data, and in that of the latents."""
    a = jnp.asarray(A)
    log_ratios = (
        lambda a, v: _posterior(a, w).moved(v).log_ratio(),
        lambda a, v: jnp.linalg.slogdet(_precision(a, v))[1],
    )
    solutions = (
        lambda a: B @ _posterior(a, w).solve(a.T @ OFFSET),
        lambda a: B @ jnp.linalg.solve(_precision(a, w), a.T @ OFFSET),
    )
    return [(*jax.grad(f, (0, 1))(a, w), jax.grad(g)(a)) for f, g in zip(log_ratios, solutions, strict=True)]


@pytest.mark.parametrize("which", WEIGHTS)
def test_algebra_in_the_space_of_the_data(x64, which):
    """Solutions, square roots and determinants, to 1e-10."""
    w = np.array(WEIGHTS[which])
    solution, roots, beyond, log_ratio = map(np.asarray, _algebra(w))
    precision = np.eye(N) + A.T @ np.diag(w) @ A
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(solution, covariance @ B, rtol=1e-10)
    np.testing.assert_allclose(roots @ roots.T + beyond @ beyond.T, covariance, atol=1e-12)
    assert np.any(beyond != 0) == (which == "some negative")
    np.testing.assert_allclose(log_ratio, np.linalg.slogdet(precision)[1], rtol=1e-12)


@pytest.mark.parametrize("which", WEIGHTS)
def test_derivatives_in_the_space_of_the_data(x64, which):
    """By the predictor's matrix and by the weights, also those that are zero, to 1e-10; and of a solution."""
    found, exact = _slopes(np.array(WEIGHTS[which]))
    for slope, right, rtol in zip(found, exact, (1e-10, 1e-10, 1e-9), strict=True):
        np.testing.assert_allclose(slope, right, rtol=rtol, atol=1e-12)


def test_without_a_posterior_there_is_none(x64):
    """A precision with two negative eigenvalues, whose determinant is positive."""
    w = jnp.array([-50.0, 1.0, -50.0, 1.0, 1.0])
    assert np.linalg.slogdet(np.asarray(_precision(A, w)))[0] == 1
    assert np.isnan(_algebra(w)[3])


def test_small_spreads_in_single_precision():
    """Data of a noise of 1e-3: variances are the prior's times 1e-6, and the difference of two covariances would be
    rounding."""
    w = np.full(M, 1e6, np.float32)
    roots = _posterior(A.astype(np.float32), w).roots(jnp.eye(N, dtype=jnp.float32))
    seen = np.sum((A @ np.asarray(roots, float)) ** 2, axis=1)
    exact = np.diag(A @ np.linalg.inv(np.eye(N) + 1e6 * A.T @ A) @ A.T)
    np.testing.assert_allclose(seen, exact, rtol=1e-2)


def test_a_wide_intercept_in_single_precision():
    """An effect of a prior standard deviation of 30 that all of 60 data share, noise .25: B_+ has a condition number of
    1e6, the badly scaled precision loses nothing by it. The predictor to 1e-4 (the condition number times single
    precision's rounding is .1), and its derivatives by the field's size to 1e-4 of the largest."""
    rng = np.random.default_rng(4)
    columns, w, y = rng.normal(size=(60, 80)) / 20, np.full(60, 16.0, np.float32), 6 + rng.normal(size=60) / 4

    def predicted(size, solve):
        root = jnp.concatenate([size * jnp.asarray(columns), jnp.full((60, 1), 30.0)], axis=1)
        return root @ solve(root, root.T @ (w * jnp.asarray(y)))

    def by_data(root, b):
        return FewDataPosterior(_law(root, 0 * w), jnp.asarray(w)).solve(b)

    def exact(root, b):
        return jnp.linalg.solve(jnp.eye(81) + 16.0 * root.T @ root, b)

    def with_derivatives(solve):
        return jax.jit(lambda v: (predicted(v, solve), jax.jacrev(lambda v: predicted(v, solve))(v)))(1.0)

    single = with_derivatives(by_data)
    with jax.enable_x64(True):
        double = with_derivatives(exact)
    assert single[0].dtype == np.float32
    np.testing.assert_allclose(single[0], double[0], rtol=1e-4)
    np.testing.assert_allclose(single[1], double[1], atol=1e-4 * np.abs(double[1]).max())


def heavy_tails(grid, seen, y):
    """Student's t: the log likelihood is convex far from the data."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    field = numpyro.sample("field", SpectralField(grid, 1 / (1 + grid.eigenvalues)))
    eta = numpyro.deterministic("eta", scale * field[seen])
    numpyro.sample("y", dist.StudentT(3.0, eta, 0.3).to_event(1), obs=y)


@pytest.mark.slow
def test_a_field_with_few_data_that_are_not_log_concave(x64, monkeypatch):
    """Mode, density, its derivative, and standard deviations, against dense algebra at the mode, to 1e-8; a derivative
    by differences to 1e-5. Standard deviations are summed over five blocks of columns, the last one not full."""
    monkeypatch.setattr(_dense_latents, "COLUMNS", 7)
    grid, seen, y = Grid(32), np.array([3, 9, 10, 30]), jnp.array([0.3, 4.0, 0.2, -0.5])
    latent = LatentGaussian(heavy_tails, "eta", model_args=(grid, seen, y))
    prior = np.asarray(SpectralField(grid, 1 / (1 + grid.eigenvalues)).covariance_matrix)

    def likelihood(eta):
        return jnp.sum(dist.StudentT(3.0, eta, 0.3).log_prob(y))

    def dense(scale):
        k = scale**2 * prior[np.ix_(seen, seen)]
        eta = latent.marginals({"scale": jnp.array([scale])})["eta"].mean
        np.testing.assert_allclose(eta, k @ jax.grad(likelihood)(eta), atol=1e-6)  # it is a mode
        w = -jnp.diagonal(jax.hessian(likelihood)(eta))
        value = likelihood(eta) - 0.5 * eta @ np.linalg.solve(k, eta)
        return value - 0.5 * np.linalg.slogdet(np.eye(4) + w[:, None] * k)[1], w

    value, w = dense(0.9)
    assert w.min() < 0 < w.max()
    found, slope = jax.value_and_grad(lambda s: latent.log_marginal({"scale": s}))(0.9)
    np.testing.assert_allclose(found, value, rtol=1e-8)
    h = 1e-4
    np.testing.assert_allclose(slope, (dense(0.9 + h)[0] - dense(0.9 - h)[0]) / (2 * h), rtol=1e-5)
    precision = np.linalg.inv(prior)
    precision[seen, seen] += 0.81 * np.asarray(w)
    sd = latent.marginals({"scale": jnp.array([0.9])})["field"].sd
    np.testing.assert_allclose(sd, np.sqrt(np.diag(np.linalg.inv(precision))), rtol=1e-8)


def _spectrum(grid, range_):
    return 1 / (1 + range_**2 * grid.eigenvalues)


def two_fields(part, grid, seen, y):
    """Beside an intercept and effects; what ``part`` names is multiplied by a hyperparameter that nearly is one."""
    ranges = numpyro.sample("ranges", dist.LogNormal(jnp.array([-1.0, -2.0]), 0.3).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    s = numpyro.sample("s", dist.LogNormal(0.0, 0.01))
    by = {name: s if name == part else 1.0 for name in ("long", "effect", "datum")}
    a = numpyro.sample("a", dist.Normal(3.0, 2.0))
    with numpyro.plate("groups", 2):
        b = numpyro.sample("b", dist.Normal(1.0, 0.5 * scale))
    long = numpyro.sample("long", SpectralField(grid, scale**2 * _spectrum(grid, ranges[0])))
    with numpyro.plate("kinds", 2):
        short = numpyro.sample("short", SpectralField(grid, 0.25 * _spectrum(grid, ranges[1])))
    rows = jnp.where(jnp.arange(len(seen)) == 1, by["datum"], 1.0)
    eta = rows * (a + by["long"] * long[seen] + short[1, seen] + by["effect"] * 1e-2 * b[0])
    numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", eta), 0.3).to_event(1), obs=y)


GRID = Grid(32)
SEEN = {"few": np.array([3, 9, 10, 30]), "many": np.repeat(np.arange(32), 4)}  # 99 numbers, so 4 or 128 data


def _data(which):
    return jnp.asarray(np.random.default_rng(5).normal(3, 1, size=len(SEEN[which])))


def _two_fields(which):
    return LatentGaussian(partial(two_fields, None), "eta", model_args=(GRID, SEEN[which], _data(which)))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["few", "many"])
def test_two_fields_with_unknown_ranges(x64, data):
    """The matrix by coefficients is kept, and gives density and derivatives at other hyperparameters, to 1e-8 of those
    by the data's covariance."""
    seen, y, latent = SEEN[data], _data(data), _two_fields(data)
    assert latent.latents.rows.shape == (len(seen), 32 + 2 * 32 + 1 + 2)

    def exact(ranges, scale):
        k = sum(
            SpectralField(GRID, s**2 * _spectrum(GRID, r)).covariance_matrix[jnp.ix_(seen, seen)]
            for r, s in zip(ranges, (scale, 0.5), strict=True)
        )
        k = k + 0.3**2 * jnp.eye(len(seen)) + 2.0**2 + 1e-4 * 0.25 * scale**2
        return dist.MultivariateNormal(jnp.full(len(seen), 3.01), k).log_prob(y)

    ranges, scale = jnp.array([0.5, 0.2]), jnp.array(1.3)
    density = lambda r, s: latent.log_marginal({"ranges": r, "scale": s, "s": jnp.array(1.0)})  # noqa: E731
    found, right = (jax.jit(jax.value_and_grad(f, (0, 1)))(ranges, scale) for f in (density, exact))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)


@pytest.mark.slow
def test_latents_by_a_matrix_that_is_kept(x64):
    """Means and standard deviations as where it is not kept."""
    latent = _two_fields("few")
    hyper = {"ranges": jnp.array([[0.5, 0.2]]), "scale": jnp.array([1.3]), "s": jnp.ones(1)}
    without = eqx.tree_at(lambda found: found.latents.rows, latent, None)
    for one, other in zip(*(jax.tree.leaves(each.marginals(hyper)) for each in (latent, without)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["long", "effect", "datum"])
def test_a_matrix_that_changes_a_little_is_not_kept(part):
    """By 0.3 % in a field, in an effect of a hundredth of its size, in one datum."""
    args = GRID, SEEN["few"], jnp.zeros(4)
    model, hyper, _ = read_model(partial(two_fields, part), args, {}, ("eta",), None)
    others = hyper | {"s": 1.003 * hyper["s"]}
    assert dense_latents(model, hyper, hyper).rows is not None
    assert dense_latents(model, hyper, others).rows is None


@pytest.mark.slow
def test_a_batch_of_which_one_is_not_log_concave(x64):
    """A batch is treated together where any of it has negative weights: each is what it is alone, to 1e-9."""
    grid, seen, y = Grid(32), np.array([3, 9, 10, 30]), jnp.array([0.3, 4.0, 0.2, -0.5])
    latent = LatentGaussian(heavy_tails, "eta", model_args=(grid, seen, y))
    slope = jax.jit(jax.value_and_grad(lambda s: latent.log_marginal({"scale": s})))
    scales = jnp.array([0.9, 50.0])
    etas = [latent.marginals({"scale": scale[None]})["eta"].mean for scale in scales]
    curvature = jax.hessian(lambda eta: dist.StudentT(3.0, eta, 0.3).log_prob(y).sum())
    assert [bool(jnp.any(jnp.diagonal(curvature(eta)) > 0)) for eta in etas] == [True, False]
    for one, other in zip(jax.vmap(slope)(scales), zip(*map(slope, scales), strict=True), strict=True):
        np.testing.assert_allclose(one, jnp.stack(other), rtol=1e-9)


def on_a_large_grid(grid, places, y):
    range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.3))
    field = numpyro.sample("field", Matern(grid, range=range_, scale=1.0, smoothness=1.5))
    eta = numpyro.deterministic("eta", field[places])
    numpyro.sample("y", dist.Normal(eta, 0.2).to_event(1), obs=y)


@pytest.mark.slow
def test_more_numbers_than_dense_algebra_could_factorize(x64):
    """A field of 2,304 numbers with nine data, against their covariance, to 1e-8."""
    grid, places = Grid((48, 48)), tuple(np.random.default_rng(2).integers(0, 48, (2, 9)))
    y = np.random.default_rng(3).normal(size=9)
    latent = LatentGaussian(on_a_large_grid, "eta", model_args=(grid, places, jnp.asarray(y)))
    flat = np.ravel_multi_index(places, grid.shape)
    k = np.asarray(Matern(grid, range=0.4, scale=1.0, smoothness=1.5).covariance_matrix)[np.ix_(flat, flat)]
    exact = multivariate_normal(np.zeros(9), k + 0.04 * np.eye(9)).logpdf(y)
    np.testing.assert_allclose(latent.log_marginal({"range": jnp.array(0.4)}), exact, rtol=1e-8)


def averages(grid, count, y):
    """Some numbers of white noise, each seen once."""
    u = numpyro.sample("u", SpectralField(grid, jnp.ones(grid.shape)))
    eta = numpyro.deterministic("eta", numpyro.sample("s", dist.LogNormal(0.0, 1.0)) * u.ravel()[:count])
    numpyro.sample("y", dist.Normal(eta, 0.2).to_event(1), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "count"), [(46, 2100), (1024, 40)])
def test_too_many_data_or_numbers_are_refused(side, count):
    match = rf"are {side**2} numbers .* up to 2048 numbers, or 2048 data \({count} here\) with 33554432 as the product"
    with pytest.raises(ValueError, match=match):
        LatentGaussian(averages, "eta", model_args=(Grid((side, side)), count, jnp.zeros(count)))


@pytest.mark.slow
def test_the_bound_on_the_next_step(x64):
    """The squared length of a Newton step is below its bound, and one step is enough for normal data."""
    likelihood = lambda eta: jnp.sum(dist.Poisson(jnp.exp(eta)).log_prob(jnp.arange(M)))  # noqa: E731
    dual = jnp.asarray(0.1 * np.random.default_rng(1).normal(size=M))
    eta = jnp.asarray(OFFSET) + A @ (A.T @ dual)
    g = jax.grad(likelihood)(eta) - dual
    step = A @ jnp.linalg.solve(_precision(A, jnp.exp(eta)), A.T @ g)
    bound = next_decrement(likelihood, eta, dual)
    assert 0 < g @ step < bound < 100 * (g @ step)
    law = _law(A)
    normal = lambda eta: jnp.sum(dist.Normal(eta, 0.1).log_prob(jnp.arange(M)))  # noqa: E731
    mode = find_mode(law, normal, jnp.zeros(M))
    assert (int(mode.steps), bool(mode.converged)) == (1, True)
    assert int(find_mode(law, likelihood, jnp.zeros(M)).steps) > 2
