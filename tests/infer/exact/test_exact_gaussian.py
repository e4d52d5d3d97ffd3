"""ExactGaussian against dense linear algebra.

Statistical tests: draws are independent, so the standardized means' squares sum to chi-square with as many degrees of
freedom as tested directions, and so do the scaled sample variances. Each is two-sided at ``ALPHA`` with fixed keys.
"""

import copy
import functools
from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Gibbs, Predictive
from scipy import stats

import numpyro_inverse as ni
import numpyro_inverse.infer.exact._exact_gaussian as module
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import ExactGaussian, ExactGibbs
from numpyro_inverse.infer.exact._affine import AffineModel
from numpyro_inverse.infer.exact._gaussian_posterior import DataRoot, DenseRoot, DiagonalRoot, PerturbThenOptimize
from numpyro_inverse.operators import Convolution, Kronecker, Mask

ALPHA = 1e-4


def sine(n):
    """Orthonormal DST-I matrix and the eigenvalues of tridiag(-1, 2, -1)."""
    k = np.arange(1, n + 1)
    return np.sqrt(2 / (n + 1)) * np.sin(np.pi * np.outer(k, k) / (n + 1)), 4 * np.sin(np.pi * k / (2 * (n + 1))) ** 2


def once(function):
    """Problems are made once for each precision."""
    made = functools.cache(lambda x64, *args, **kwargs: function(*args, **kwargs))
    return lambda *args, **kwargs: made(jax.config.jax_enable_x64, *args, **kwargs)


@once
def deblurring(n, ndim, width=2.0, sigma=0.01):
    """A Markov random field seen through a periodic blur: prior and operator share no transform."""
    basis, values = sine(n)
    scale = 1 / np.sqrt(30 * (values if ndim == 1 else values[:, None] + values))
    field, blur = Kronecker([jnp.asarray(basis)] * ndim), Convolution.gaussian(Grid((n,) * ndim, n, "periodic"), width)

    def model(data=None):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([n] * ndim).to_event(ndim))
        x = numpyro.deterministic("x", field(scale * z))
        numpyro.sample("data", dist.Normal(blur(x), sigma).to_event(ndim), obs=data)

    rng = np.random.default_rng(n)
    truth = np.asarray(field(jnp.asarray(scale * rng.standard_normal((n,) * ndim))))
    data = np.asarray(blur(jnp.asarray(truth))) + sigma * rng.standard_normal(truth.shape)
    one = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    prior = 30 * (one if ndim == 1 else np.kron(one, np.eye(n)) + np.kron(np.eye(n), one))
    a = np.asarray(blur.as_matrix(), float)
    covariance = np.linalg.inv(prior + a.T @ a / sigma**2)
    return model, jnp.asarray(data), covariance @ a.T @ data.ravel() / sigma**2, covariance


@once
def matern(boundary="periodic", n=8, sigma=0.1, hide=False):
    """A Matern field seen through a periodic blur; on the torus both are diagonal in its transform."""
    grid = ni.domains.Grid((n, n + 1), boundary=boundary)
    operator = Convolution.gaussian(Grid(grid.shape, grid.shape, "periodic"), width=1.0)
    if hide:
        operator = Mask(np.arange(grid.size).reshape(grid.shape) % 3 > 0) @ operator
    prior = ni.distributions.Matern(grid, range=0.4, scale=1.3, smoothness=1.0, mean=0.5)

    def model(data=None):
        u = numpyro.sample("u", prior)  # made once: its spectrum takes long to compile
        numpyro.sample("data", dist.Normal(operator(u), sigma).to_event(len(operator.out_shape)), obs=data)

    a = np.asarray(operator.as_matrix(), float)
    data = np.random.default_rng(1).standard_normal(operator.out_shape)
    basis = np.asarray(grid.inverse_transform(jnp.eye(grid.size).reshape(grid.size, *grid.shape)), float)
    basis = basis.reshape(grid.size, grid.size)
    c = (basis.T * np.ravel(np.asarray(prior.amplitudes, float)) ** 2) @ basis
    k = np.linalg.solve(a @ c @ a.T + sigma**2 * np.eye(len(a)), a @ c).T
    mean = 0.5 + k @ (data.ravel() - a @ np.full(grid.size, 0.5))
    evidence = stats.multivariate_normal(a @ np.full(grid.size, 0.5), a @ c @ a.T + sigma**2 * np.eye(len(a)))
    return model, jnp.asarray(data), mean, c - k @ a @ c, evidence.logpdf(data.ravel())


def draws(model, data, number, key, site="x", **kwargs):
    mcmc = MCMC(ExactGaussian(model, **kwargs), num_warmup=0, num_samples=number, progress_bar=False)
    mcmc.run(key, data, extra_fields=("error", "residual", "num_steps"))
    return np.asarray(mcmc.get_samples()[site], float).reshape(number, -1), mcmc.get_extra_fields()


def assert_law(found, mean, covariance):
    """Chi-square tests of means and variances in the posterior's independent directions, each two-sided at ALPHA."""
    values, vectors = np.linalg.eigh(covariance)
    n, white = len(found), (found - mean) @ vectors / np.sqrt(values)
    mean_statistic, variance_statistic = n * np.sum(white.mean(0) ** 2), np.sum((white - white.mean(0)) ** 2)
    for name, statistic, freedom in (
        ("mean", mean_statistic, len(mean)),
        ("variance", variance_statistic, len(mean) * (n - 1)),
    ):
        tail = 2 * min(stats.chi2(freedom).cdf(statistic), stats.chi2(freedom).sf(statistic))
        assert tail > ALPHA, (name, statistic / freedom)
    # directions apart, Bonferroni: an error in few of them is not diluted by the others
    each = (n - 1) * white.var(0, ddof=1)
    tails = 2 * np.minimum(stats.chi2(n - 1).cdf(each), stats.chi2(n - 1).sf(each))
    assert tails.min() > ALPHA / len(mean), ("direction", tails.min(), white.std(0)[tails.argmin()])


@pytest.fixture
def matrix_free(monkeypatch):
    """Small problems by conjugate gradients too, with a preconditioner that leaves them something to do."""
    monkeypatch.setattr(module, "DENSE_LIMIT", 1)
    monkeypatch.setattr("numpyro_inverse.infer.exact._gaussian_posterior.RANK", 1)


def root_of(model, data):
    posterior = ExactGaussian(model).init(jax.random.key(0), 0, None, (data,), {}).posterior
    return PerturbThenOptimize if isinstance(posterior, PerturbThenOptimize) else type(posterior.root)


# --- the law of the draws


@pytest.mark.slow
def test_dense_draws_have_the_posterior_law(key):
    model, data, mean, covariance = deblurring(64, 1)
    assert root_of(model, data) is DenseRoot
    found, extra = draws(model, data, 2000, key)
    assert_law(found, mean, covariance)
    assert np.max(extra["error"]) < 1e-2


@pytest.mark.slow
def test_diagonal_draws_have_the_posterior_law(key):
    model, data, mean, covariance, _ = matern()
    assert root_of(model, data) is DiagonalRoot
    found, _ = draws(model, data, 2000, key, site="u")
    assert_law(found, mean, covariance)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["single", pytest.param("double", marks=pytest.mark.statistical)])
def test_matrix_free_draws_have_the_posterior_law(key, matrix_free, precision):
    with jax.enable_x64(precision == "double"):
        model, data, mean, covariance = deblurring(12, 2)
        assert root_of(model, data) is PerturbThenOptimize
        found, extra = draws(model, data, 2000, key)
        assert_law(found, mean, covariance)
        assert np.max(extra["error"]) <= (1e-6 if precision == "double" else 1e-2)
        assert np.max(extra["residual"]) < (1e-9 if precision == "double" else 1e-5)
        assert np.min(extra["num_steps"]) > 10


@pytest.mark.slow
def test_draws_are_independent(key):
    model, data, _, _ = deblurring(32, 1)
    found, _ = draws(model, data, 4000, key)
    ess = np.ravel(az.ess(az.from_dict({"posterior": {"x": found[None]}}))["x"])
    assert np.median(ess) > 0.9 * 4000
    lag = np.mean((found[1:] - found.mean(0)) * (found[:-1] - found.mean(0)), axis=0) / found.var(0)
    assert np.abs(lag).max() * np.sqrt(4000) < stats.norm.isf(ALPHA / 64)


@pytest.mark.parametrize("what", ["under-converged", "no prior perturbation", "no data perturbation"])
def test_the_law_tests_notice_a_broken_sampler(key, what):
    """Their power, on NumPy implementations of the classical mistakes."""
    _, data, mean, covariance = deblurring(32, 1)
    basis, values = sine(32)
    a = (
        np.asarray(Convolution.gaussian(Grid(32, 32, "periodic"), width=2.0).as_matrix(), float)
        @ basis
        / np.sqrt(30 * values)
        / 0.01
    )
    rng, h = np.random.default_rng(0), np.eye(32) + a.T @ a
    noise, prior = rng.standard_normal((2, 500, 32))
    b = (np.asarray(data).ravel() / 0.01 + noise * (what != "no data perturbation")) @ a
    b = b + prior * (what != "no prior perturbation")

    def conjugate_gradients(b, steps):
        x, r = np.zeros_like(b), b
        p = r
        for _ in range(steps):
            alpha = (r @ r) / (p @ h @ p)
            x, new = x + alpha * p, r - alpha * h @ p
            p, r = new + (new @ new) / (r @ r) * p, new
        return x

    z = np.array([conjugate_gradients(v, 10) for v in b]) if what == "under-converged" else np.linalg.solve(h, b.T).T
    with pytest.raises(AssertionError):
        assert_law(z / np.sqrt(30 * values) @ basis, mean, covariance)


@pytest.mark.statistical
@pytest.mark.parametrize(("n", "ndim", "width", "number"), [(128, 1, 5.0, 20000), (64, 2, 2.0, 4000)])
def test_standard_deviations_within_two_percent(key, n, ndim, width, number):
    """128 and 64 x 64 pixels: ratio of standard deviations, and the mean's error at its Monte-Carlo value."""
    model, data, mean, covariance = deblurring(n, ndim, width)
    found, _ = draws(model, data, number, key)
    sd = np.sqrt(np.diag(covariance))
    assert abs(np.mean(found.std(0) / sd) - 1) < 0.02
    assert_law(found, mean, covariance)


# --- three ways, one posterior


def test_dense_and_matrix_free_agree_with_linear_algebra(x64, monkeypatch):
    model, data, mean, covariance = deblurring(24, 1)
    kernel = ExactGaussian(model)
    np.testing.assert_allclose(kernel.posterior_mean(data)["x"], mean, atol=1e-9 * np.abs(mean).max())
    found = kernel.posterior_covariance(data)["x"]
    np.testing.assert_allclose(found, covariance, atol=1e-9 * np.abs(covariance).max())
    monkeypatch.setattr(module, "DENSE_LIMIT", 1)
    np.testing.assert_allclose(kernel.posterior_mean(data)["x"], mean, atol=1e-6)


@pytest.mark.slow
def test_a_diagonal_posterior_agrees_with_linear_algebra(x64):
    model, data, mean, covariance, _ = matern()
    kernel = ExactGaussian(model)
    np.testing.assert_allclose(np.ravel(kernel.posterior_mean(data)["u"]), mean, atol=1e-10)
    found = kernel.posterior_covariance(data)
    assert found["u"].shape == (8, 9, 8, 9)
    np.testing.assert_allclose(found["u"].reshape(72, 72), covariance, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(o, marks=pytest.mark.slow) for o in ({"hide": True}, {"boundary": "neumann"}))],
    ids=str,
)
def test_log_evidence_is_the_marginal_density(x64, options):
    model, data, *_, evidence = matern(**options)
    np.testing.assert_allclose(ExactGaussian(model).log_evidence(data), evidence, rtol=1e-8)


@pytest.mark.slow
def test_a_hidden_part_is_not_diagonal():
    model, data, *_ = matern(hide=True)
    assert root_of(model, data) is DataRoot  # fewer data than latents
    model, data, _, _ = deblurring(16, 1)
    assert root_of(model, np.zeros_like(data)) is DenseRoot  # a wrong root would still give the right mean, zero


# --- NumPyro's models


def regression(x, weights=None, data=None):
    """Chained Gaussian latents, two observed sites, one of them correlated, a mask, a plate."""
    level = numpyro.sample("level", dist.Normal(1.0, 2.0))
    slope = numpyro.sample("slope", dist.MultivariateNormal(level * jnp.ones(2), jnp.array([[1.0, 0.5], [0.5, 2.0]])))
    with numpyro.plate("groups", 3):
        shift = numpyro.sample("shift", dist.Normal(level, 0.5))
    low_rank = dist.LowRankMultivariateNormal(jnp.zeros(2), jnp.ones((2, 1)), jnp.array([0.5, 1.0]))
    extra = numpyro.sample("extra", low_rank)
    numpyro.deterministic("total", shift.sum() + level)
    numpyro.deterministic("square", level**2)
    mean = x @ slope + shift.repeat(2) + extra[0]
    tril = jnp.tril(0.3 * jnp.ones((6, 6))) + jnp.eye(6)
    numpyro.sample("a", dist.MultivariateNormal(mean, scale_tril=tril), obs=None if data is None else data[0])
    with handlers.mask(mask=jnp.arange(6) != 2):
        numpyro.sample("b", dist.Normal(mean[::-1] + extra[1], 0.7), obs=None if data is None else data[1])


def dense_regression(x, data):
    """Prior and observation matrices by hand: latents (level, slope 2, shift 3, extra 2)."""
    prior_map = np.zeros((8, 8))
    prior_map[:6, 0] = 2.0
    prior_map[1:3, 1:3] = np.linalg.cholesky([[1.0, 0.5], [0.5, 2.0]])
    prior_map[3:6, 3:6] = 0.5 * np.eye(3)
    prior_map[6:, 6:] = np.linalg.cholesky(np.ones((2, 2)) + np.diag([0.5, 1.0]))
    a = np.zeros((6, 8))
    a[:, 1:3], a[:, 3:6], a[:, 6] = x, np.repeat(np.eye(3), 2, axis=0), 1
    b = a[::-1].copy()
    b[:, 7] = 1
    keep = np.arange(6) != 2
    tril = np.tril(0.3 * np.ones((6, 6))) + np.eye(6)
    noise = np.block([[tril @ tril.T, np.zeros((6, 5))], [np.zeros((5, 6)), 0.49 * np.eye(5)]])
    matrix, y = np.concatenate([a, b[keep]]), np.concatenate([data[0], data[1][keep]])
    m, c = np.array([1.0] * 6 + [0.0, 0.0]), prior_map @ prior_map.T
    total = matrix @ c @ matrix.T + noise
    gain = np.linalg.solve(total, matrix @ c).T
    evidence = stats.multivariate_normal(matrix @ m, total).logpdf(y)
    return m + gain @ (y - matrix @ m), c - gain @ matrix @ c, evidence


@pytest.mark.slow
def test_chained_latents_and_several_observed_sites(x64, key):
    x = np.random.default_rng(0).standard_normal((6, 2))
    data = np.random.default_rng(1).standard_normal((2, 6)) + 3
    mean, covariance, evidence = dense_regression(x, data)
    kernel = ExactGaussian(regression)
    found = kernel.posterior_mean(x, data=data)
    names = ("level", "slope", "shift", "extra")
    np.testing.assert_allclose(np.concatenate([np.ravel(found[k]) for k in names]), mean, atol=1e-10)
    assert "square" not in found  # not affine: its mean is not its value at the mean
    np.testing.assert_allclose(found["total"], mean[3:6].sum() + mean[0], atol=1e-10)
    np.testing.assert_allclose(kernel.posterior_covariance(x, data=data)["shift"], covariance[3:6, 3:6], atol=1e-10)
    np.testing.assert_allclose(kernel.log_evidence(x, data=data), evidence, rtol=1e-8)
    mcmc = MCMC(kernel, num_warmup=0, num_samples=4000, progress_bar=False)
    mcmc.run(key, x, data=data)
    samples = mcmc.get_samples()
    assert_law(np.concatenate([samples[k].reshape(4000, -1) for k in names], axis=1), mean, covariance)
    np.testing.assert_allclose(samples["square"], samples["level"] ** 2)
    again = Predictive(regression, samples)(jax.random.key(1), x)
    assert again["a"].shape == (4000, 6)


@pytest.mark.slow
def test_conditioned_hyperparameters_are_constants(x64, key):
    """A conditioned site may have any distribution; its density counts in the evidence."""

    def model(data=None):
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        mu = numpyro.sample("mu", dist.Normal(0, scale))
        numpyro.sample("data", dist.Normal(mu, sigma), obs=data)

    fixed = handlers.condition(model, {"scale": jnp.array(1.5), "sigma": jnp.array(0.4)})
    kernel, data = ExactGaussian(fixed), jnp.array(0.7)
    expected = stats.norm(0, np.hypot(1.5, 0.4)).logpdf(0.7) + dist.HalfNormal(2.0).log_prob(1.5)
    expected += dist.LogNormal(0.0, 1.0).log_prob(0.4)
    np.testing.assert_allclose(kernel.log_evidence(data), expected, rtol=1e-8)
    np.testing.assert_allclose(kernel.posterior_mean(data)["mu"], 0.7 * 1.5**2 / (1.5**2 + 0.4**2), rtol=1e-8)


# --- NumPyro's MCMC


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro, with chain_method=jax.vmap
@pytest.mark.parametrize(
    ("chain_method", "way"),
    [
        pytest.param("sequential", "matrix-free", marks=pytest.mark.statistical),  # a single chain: the law, above
        ("vectorized", "matrix-free"),
        ("parallel", "matrix-free"),
        pytest.param(jax.vmap, "matrix-free", id="vmap-matrix-free", marks=pytest.mark.statistical),
        pytest.param("parallel", "dense", marks=pytest.mark.statistical),
    ],
    ids=str,
)
def test_every_chain_method_draws_from_the_posterior(key, chain_method, way, monkeypatch):
    if chain_method == "parallel" and jax.local_device_count() < 2:
        pytest.skip("needs two devices")
    if way == "matrix-free":
        monkeypatch.setattr(module, "DENSE_LIMIT", 1)
    model, data, mean, covariance = deblurring(8, 1)
    mcmc = MCMC(
        ExactGaussian(model), num_warmup=2, num_samples=30, num_chains=2, chain_method=chain_method, progress_bar=False
    )
    mcmc.run(key, data, extra_fields=("error", "residual", "num_steps", "accept_prob", "diverging"))
    found = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], float)
    assert found.shape == (2, 30, 8)
    assert mcmc.get_extra_fields(group_by_chain=True)["error"].shape == (2, 30)
    assert_law(found.reshape(60, -1), mean, covariance)
    if chain_method == "vectorized":
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(jax.random.key(7), data)
        assert not np.allclose(mcmc.get_samples(group_by_chain=True)["x"], found)


@pytest.mark.slow
def test_deterministic_sites_and_the_summary(key, capsys):
    model, data, *_ = matern()
    mcmc = MCMC(ExactGaussian(model), num_warmup=0, num_samples=20, progress_bar=True)
    mcmc.run(key, data)
    assert set(mcmc.get_samples()) == {"u", "u_latent"}
    mcmc.print_summary()
    assert "u_latent" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("size", ["dense", "matrix-free"])
def test_inside_jit_over_data_sets(key, size, monkeypatch):
    """One program for many data sets: traced model arguments."""
    if size == "matrix-free":
        monkeypatch.setattr(module, "DENSE_LIMIT", 1)
    model, data, mean, covariance = deblurring(12, 1)

    def posterior(key, data):
        mcmc = MCMC(ExactGaussian(model), num_warmup=0, num_samples=500, progress_bar=False)
        mcmc.run(key, data)
        return mcmc.get_samples()["x"]

    both = jax.jit(jax.vmap(posterior))(jax.random.split(key, 2), jnp.stack([data, -data]))
    assert_law(np.asarray(both[0], float), mean, covariance)
    assert_law(np.asarray(both[1], float), -mean, covariance)


@pytest.mark.slow
def test_a_run_with_jit_model_args_follows_its_data(key):
    model, data, mean, covariance = deblurring(12, 1)
    mcmc = MCMC(ExactGaussian(model), num_warmup=0, num_samples=500, jit_model_args=True, progress_bar=False)
    mcmc.run(key, data)
    mcmc.run(key, -data)
    assert_law(np.asarray(mcmc.get_samples()["x"], float), -mean, covariance)


@pytest.mark.slow
@pytest.mark.parametrize("exact", [ExactGaussian, partial(ExactGibbs, sites=["mu"])])
def test_in_gibbs_with_nuts_for_a_hyperparameter(exact, key):
    """Field by exact draws, noise level by NUTS; against a one-dimensional quadrature of the noise level."""
    data = jnp.asarray(np.random.default_rng(3).standard_normal(12) * 0.8)

    def model(data):
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 0.5))
        mu = numpyro.sample("mu", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("data", dist.Normal(mu.repeat(4), sigma).to_event(1), obs=data)

    blocks = [(NUTS(model), ["sigma"]), (exact(model), ["mu"])]
    mcmc = MCMC(Gibbs(blocks), num_warmup=300, num_samples=3000, progress_bar=False)
    mcmc.run(key, data)
    grid = np.linspace(0.2, 3.0, 400)
    covariance = np.kron(np.eye(3), np.ones((4, 4)))
    log = [stats.multivariate_normal(np.zeros(12), covariance + s**2 * np.eye(12)).logpdf(data) for s in grid]
    weight = np.exp(np.array(log) - max(log)) * stats.lognorm(0.5).pdf(grid)
    mean = np.sum(grid * weight) / np.sum(weight)
    spread = np.sqrt(np.sum((grid - mean) ** 2 * weight) / np.sum(weight))
    found = np.asarray(mcmc.get_samples()["sigma"])
    ess = float(az.ess(az.from_dict({"posterior": {"s": found[None]}}))["s"])
    assert abs(found.mean() - mean) < stats.norm.isf(ALPHA / 2) * spread / np.sqrt(ess)


# --- failures are errors


def message_of(function):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        function()
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("chain_method", ["vectorized", pytest.param("parallel", marks=pytest.mark.statistical)])
def test_too_few_iterations_is_an_error(key, matrix_free, chain_method):
    if chain_method == "parallel" and jax.local_device_count() < 2:
        pytest.skip("needs two devices")
    model, data, _, _ = deblurring(12, 2)
    kernel = ExactGaussian(model, max_steps=2)
    mcmc = MCMC(kernel, num_warmup=0, num_samples=5, num_chains=2, chain_method=chain_method, progress_bar=False)

    def run():
        mcmc.run(key, data)
        jax.block_until_ready(mcmc.get_samples())

    assert "max_steps" in message_of(run)


@pytest.mark.slow
def test_an_unreachable_tolerance_is_an_error(key, matrix_free):
    model, data, _, _ = deblurring(12, 2)

    def run():
        mcmc = MCMC(ExactGaussian(model, tolerance=1e-12), num_warmup=0, num_samples=5, progress_bar=False)
        mcmc.run(key, data)
        jax.block_until_ready(mcmc.get_samples())

    assert "tolerance" in message_of(run)


@pytest.mark.slow
def test_a_dense_posterior_spoiled_by_rounding_is_an_error():
    model, data, _, _ = deblurring(12, 1)
    with pytest.raises(ValueError, match=r"signal-to-noise.*enable_x64"):
        ExactGaussian(model, tolerance=1e-9).posterior_mean(data)


@pytest.mark.slow
def test_continuing_with_other_data_is_an_error(key):
    model, data, _, _ = deblurring(12, 1)
    mcmc = MCMC(ExactGaussian(model), num_warmup=0, num_samples=5, progress_bar=False)
    mcmc.run(key, data)
    mcmc.post_warmup_state = mcmc.last_state

    def run():
        mcmc.run(key, data + 1)
        jax.block_until_ready(mcmc.get_samples())

    assert "other model arguments" in message_of(run)


def observed(mean_of, *, prior=None, likelihood=None):
    def model(data=None):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([4]).to_event(1) if prior is None else prior)
        numpyro.sample("y", (likelihood or (lambda m: dist.Normal(m, 0.1).to_event(1)))(mean_of(x)), obs=data)

    return model


def with_factor(data=None):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.factor("penalty", -jnp.abs(x))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=data)


def with_latent_scale(data=None):
    s = numpyro.sample("s", dist.Normal(0, 1))
    x = numpyro.sample("x", dist.Normal(0, jnp.exp(s)).expand([4]).to_event(1))
    numpyro.sample("y", dist.Normal(x, 0.1).to_event(1), obs=data)


def without_sites(data):
    return jnp.sum(data**2)


def subsampled(data=None):
    x = numpyro.sample("x", dist.Normal(0, 1))
    with numpyro.plate("rows", 4, subsample_size=2) as rows:
        numpyro.sample("y", dist.Normal(x, 1.0), obs=None if data is None else data[rows])


def masked_latent(data=None):
    with handlers.mask(mask=False):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([4]).to_event(1))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=data)


DATA = np.array([0.1, 0.2, -0.3, 0.4], np.float32)


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        (observed(lambda x: x), None, "no observed site"),
        (without_sites, DATA, "`model` has no sample site.*not a potential function"),
        (observed(lambda x: x), np.array([0.1, np.nan, 0.0, np.inf]), "2 of the 4 data at site 'y' are not finite"),
        (observed(lambda x: x**2), DATA, "the mean of site 'y' is not affine.*lineariz"),
        (observed(jnp.tanh), DATA, "the mean of site 'y' is not affine"),
        (observed(jnp.abs), DATA, "the mean of site 'y' is not affine"),
        (observed(lambda x: x + 0.02 * jnp.sin(x)), DATA, "the mean of site 'y' is not affine"),
        (observed(lambda x: x / 0), DATA, "site 'y'.*not finite"),
        (observed(lambda x: x, prior=dist.Laplace(0, 1).expand([4]).to_event(1)), DATA, "latent site 'x' is Laplace"),
        (observed(lambda x: x, prior=dist.Poisson(2.0).expand([4]).to_event(1)), DATA, "latent site 'x' is discrete"),
        (
            observed(lambda x: x, likelihood=lambda m: dist.StudentT(3, m, 1).to_event(1)),
            DATA,
            "observed site 'y' is StudentT, not Gaussian",
        ),
        (
            observed(lambda x: x, likelihood=lambda m: dist.Normal(m, jnp.exp(m)).to_event(1)),
            DATA,
            "the scale of site 'y' changes with the latents",
        ),
        (with_latent_scale, DATA, "the scale of site 'x' changes with the latents"),
        (with_factor, np.float32(0.3), "observed site 'penalty' is Unit, not Gaussian"),
        (subsampled, jnp.asarray(DATA), "site 'y' is scaled"),
        (masked_latent, DATA, r"latent site 'x' \(Normal\) is masked"),
    ],
)
def test_models_that_are_not_linear_gaussian(model, data, expected):
    with pytest.raises(ValueError, match=expected):
        ExactGaussian(model).init(jax.random.key(0), 0, None, (data,), {})


def test_a_nonlinear_model_inside_jit_is_an_error():
    kernel = ExactGaussian(observed(jnp.tanh))

    def run():
        jax.block_until_ready(jax.jit(lambda d: kernel.init(jax.random.key(0), 0, None, (d,), {}).z)(DATA))

    assert "outside `jit`" in message_of(run)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"model": 3}, "model"),
        ({"model": with_factor, "tolerance": 0.0}, "tolerance"),
        ({"model": with_factor, "tolerance": float("nan")}, "tolerance"),
        ({"model": with_factor, "max_steps": 0}, "max_steps"),
        ({"model": with_factor, "max_steps": 1.5}, "max_steps"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(TypeError if name == "model" else ValueError, match=f"`{name}`"):
        ExactGaussian(**arguments)


@pytest.mark.slow
def test_large_problems_have_no_dense_summaries(monkeypatch):
    model, data, _, _ = deblurring(12, 1)
    monkeypatch.setattr(module, "SUMMARY_LIMIT", 10)
    monkeypatch.setattr(module, "DENSE_LIMIT", 10)
    with pytest.raises(ValueError, match="12 latent numbers"):
        ExactGaussian(model).posterior_covariance(data)
    with pytest.raises(ValueError, match=r"log_evidence.*coarser grid"):
        ExactGaussian(model).log_evidence(data)


# --- parts


def test_fingerprint_tells_data_apart():
    a = np.arange(6.0)
    same = module.fingerprint(((a,), {"b": 1}))
    assert same == module.fingerprint(((a.copy(),), {"b": 1}))
    for other in (
        ((a[::-1],), {"b": 1}),
        ((a,), {"b": 2}),
        ((a + 1e-3,), {"b": 1}),
        ((a.reshape(2, 3) * 2,), {"b": 1}),
    ):
        assert same != module.fingerprint(other)


@pytest.mark.slow
def test_the_affine_map_is_the_model(x64):
    model, data, _, _ = deblurring(8, 1)
    affine_model = AffineModel(model, (data,), {})
    affine = affine_model.affine()
    x = jax.random.normal(jax.random.key(0), (8,))
    np.testing.assert_allclose(affine.offset - affine.forward(x), affine_model.residuals(x)["data"], rtol=1e-12)
    y = jax.random.normal(jax.random.key(1), (8,))
    np.testing.assert_allclose(y @ affine.forward(x), affine.adjoint(y) @ x, rtol=1e-12)
    b = affine.adjoint(y) + x
    np.testing.assert_allclose(affine.gradient(2 * x, y, x), b - affine.hessian(2 * x), rtol=1e-10)


def test_wrap_model_leaves_the_kernel_alone():
    model, *_ = deblurring(8, 1)
    kernel = ExactGaussian(model)
    other = kernel.wrap_model(lambda m: handlers.condition(m, {"z": jnp.zeros(8)}))
    assert other.model is not kernel.model
    assert copy.copy(kernel).model is kernel.model
