"""Collapsed sampling of linear-Gaussian models, against quadrature over the hyperparameters."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from numpyro_inverse import distributions as nid
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import MALA, ExactGaussian, ExactGibbs
from numpyro_inverse.operators import Convolution

ALARM = 1e-5
A = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
Y = (A @ np.array([1.0, -1.0, 0.5, 0.0, 2.0]) + 0.3 * np.random.default_rng(1).standard_normal(7)).astype(np.float32)


def dense_model(y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    x = numpyro.sample("x", dist.Normal(0.0, scale).expand([5]).to_event(1))
    numpyro.deterministic("largest", jnp.max(x))
    numpyro.sample("y", dist.Normal(A @ x, noise).to_event(1), obs=y)


@cache
def quadrature():
    """Means of log scale, log noise, x and x^2."""
    grid = np.linspace(-4, 4, 49)
    log_scale, log_noise = 0.5 * grid, -1.0 + 0.5 * grid
    total, sums = 0.0, np.zeros(12)
    gram, left, right = A.T @ A, A.T @ Y, np.eye(5)
    for s in log_scale:
        for n in log_noise:
            prior = stats.norm.logpdf(s / 0.5) + stats.norm.logpdf((n + 1) / 0.5)
            data = stats.multivariate_normal.logpdf(Y, np.zeros(7), np.exp(2 * s) * A @ A.T + np.exp(2 * n) * np.eye(7))
            weight = np.exp(prior + data + 10)
            covariance = np.linalg.inv(gram * np.exp(-2 * n) + right * np.exp(-2 * s))
            mean = covariance @ left * np.exp(-2 * n)
            total += weight
            sums += weight * np.concatenate([[s, n], mean, mean**2 + np.diag(covariance)])
    return sums / total


def an_mcmc(kernel, num_warmup=200, num_samples=400, num_chains=24, method="vectorized"):
    return MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains, chain_method=method,
                progress_bar=False)  # fmt: skip


def assert_means(found, expected):
    """Over independent chains; false-alarm rate 1e-5."""
    noise = found.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(found))
    error = np.abs(found.mean(axis=(0, 1)) - expected)
    limit = stats.t.isf(ALARM / (2 * error.size), len(found) - 1) * noise
    assert np.all(error < limit), np.round(error / noise, 1)


def statistics(draws):
    draws = {k: np.asarray(v, float) for k, v in draws.items()}
    logs = np.log(np.stack([draws["scale"], draws["noise"]], axis=-1))
    return np.concatenate([logs, draws["x"], draws["x"] ** 2], axis=-1)


# With MALA the contract suite tests the law.
@pytest.mark.slow
@pytest.mark.parametrize("make", [NUTS, pytest.param(MALA, marks=pytest.mark.statistical)])
def test_against_quadrature(make, key):
    mcmc = an_mcmc(ExactGibbs(dense_model, make, sites=["x"]))
    mcmc.run(key, y=Y, extra_fields=("accept_prob", "num_steps", "step_size", "potential_energy", "error"))
    draws, fields = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields()
    found, expected = statistics(draws), quadrature()
    assert_means(found, expected)
    with pytest.raises(AssertionError):  # a tenth of a standard deviation is noticed
        assert_means(found + 0.1 * found.std(axis=(0, 1)), expected)
    np.testing.assert_allclose(draws["largest"], draws["x"].max(axis=-1))
    assert np.all(fields["error"] < 1e-2)
    assert all(np.all(np.isfinite(v)) for v in fields.values())


@pytest.mark.slow
def test_the_gradient_of_the_evidence(x64):
    # The kernel's potential against the density of the data, and its gradient against differences.
    kernel = ExactGibbs(dense_model, sites=["x"])
    state = kernel.init(jax.random.key(0), 10, None, (), {"y": Y.astype(np.float64)})
    potential = kernel._kernel._potential_fn_gen(y=Y.astype(np.float64))
    z = {"scale": jnp.array(0.2), "noise": jnp.array(-1.3)}
    covariance = np.exp(0.4) * A.astype(float) @ A.T.astype(float) + np.exp(-2.6) * np.eye(7)
    data = stats.multivariate_normal.logpdf(Y.astype(float), np.zeros(7), covariance)
    prior = stats.norm.logpdf(0.2, 0, 0.5) + stats.norm.logpdf(-1.3, -1, 0.5)
    np.testing.assert_allclose(potential(z), -(data + prior), rtol=1e-8)
    grad = jax.grad(potential)(z)
    for name in z:
        up, down = (potential(z | {name: z[name] + h}) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(grad[name], (up - down) / 2e-5, rtol=1e-6)
    assert state.z.keys() == {"scale", "noise", "x"}


@pytest.mark.statistical
def test_fields_under_a_convolution(key, x64):
    # Diagonal: the evidence at each range by ExactGaussian, quadrature over the range.
    grid = Grid((8, 8))
    blur = Convolution.gaussian(grid, width=1 / 8)

    def model(y=None):
        range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.5))
        field = numpyro.sample("field", nid.Matern(grid, range=range_, scale=1.0, smoothness=1.0))
        numpyro.sample("y", dist.Normal(blur(field), 0.1).to_event(2), obs=y)

    y = jnp.asarray(numpyro.infer.Predictive(model, num_samples=1)(jax.random.key(3))["y"][0])
    log_range = np.linspace(-3.0, 1.0, 33)
    logs, means = [], []
    for value in np.exp(log_range):
        exact = ExactGaussian(numpyro.handlers.condition(model, {"range": value}))
        logs.append(float(exact.log_evidence(y=y)) + np.log(value))  # the prior of the range is in it
        means.append(np.asarray(exact.posterior_mean(y=y)["field"]))
    weight = np.exp(np.array(logs) - max(logs))
    weight /= weight.sum()
    expected = np.concatenate([[weight @ log_range], np.tensordot(weight, np.stack(means), 1).ravel()])
    mcmc = an_mcmc(ExactGibbs(model))
    mcmc.run(key, y=y)
    draws = mcmc.get_samples(group_by_chain=True)
    field = np.asarray(draws["field"]).reshape((24, 400, 64))
    assert_means(np.concatenate([np.log(draws["range"])[..., None], field], axis=-1), expected)
    assert "Diagonal" in type(mcmc.last_state.template.root).__name__


@pytest.mark.statistical
def test_chain_methods_agree():
    def run(method):
        mcmc = an_mcmc(ExactGibbs(dense_model, MALA, sites=["x"]), 4, 4, 2, method)
        mcmc.run(jax.random.key(0), y=Y)
        return mcmc.get_samples(group_by_chain=True)

    one, other = run("vectorized"), run("parallel")  # one after the other: the contract suite
    for site in one:
        np.testing.assert_allclose(one[site], other[site], rtol=5e-3, atol=5e-3)


def with_discrete(y=None):
    numpyro.sample("k", dist.Bernoulli(0.5))
    dense_model(y)


def without_hyper(y=None):
    x = numpyro.sample("x", dist.Normal().expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(A @ x, 1.0).to_event(1), obs=y)


def bent(y=None):
    scale = numpyro.sample("scale", dist.LogNormal())
    x = numpyro.sample("x", dist.Normal(0, scale).expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(A @ jnp.sin(x), 1.0).to_event(1), obs=y)


def no_latent(y=None):
    numpyro.sample("y", dist.Normal(jnp.zeros(7), 1.0).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (partial(ExactGibbs, dense_model), "no field"),
        (partial(ExactGibbs, dense_model, sites=["u"]), "'u'; latent are 'scale', 'noise', 'x'"),
        (partial(ExactGibbs, dense_model, sites=[]), "empty"),
        (partial(ExactGibbs, dense_model, sites="x"), r"Write \['x'\]"),
        (partial(ExactGibbs, dense_model, sites=["scale", "x"]), "'scale' is LogNormal"),
        (partial(ExactGibbs, with_discrete, sites=["x"]), "'k' is discrete"),
        (partial(ExactGibbs, bent, sites=["x"]), "'y' is not affine"),
        (partial(ExactGibbs, no_latent, sites=["x"]), "no latent"),
        (partial(ExactGibbs, dense_model, sites=["x"], tolerance=0.0), "tolerance"),
        (partial(ExactGibbs, 3), "NumPyro model"),
        (partial(ExactGibbs, dense_model, "nuts"), "NUTS"),
    ],
)
def test_bad_input(kernel, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kernel().init(jax.random.key(0), 10, None, (), {"y": Y})


def test_without_hyperparameters_it_draws_the_field(key):
    """All that is left to do, exactly: mean and variance of 1600 independent draws, false-alarm rate 1e-5 each."""
    mcmc = an_mcmc(ExactGibbs(without_hyper, sites=["x"]), 0, 400, 4)
    mcmc.run(key, y=Y, extra_fields=("accept_prob", "num_steps", "error"))
    x = np.asarray(mcmc.get_samples()["x"], float)
    covariance = np.linalg.inv(A.T @ A + np.eye(5))
    values, vectors = np.linalg.eigh(covariance)
    white = (x - covariance @ A.T @ Y) @ vectors / np.sqrt(values)
    n, total = len(white), np.sum((white - white.mean(axis=0)) ** 2, axis=0)
    assert stats.chi2.sf(n * np.sum(white.mean(axis=0) ** 2), 5) > ALARM
    assert np.all(np.minimum(stats.chi2.sf(total, n - 1), stats.chi2.cdf(total, n - 1)) > ALARM / 10)


@pytest.mark.slow
def test_continuing_with_other_data_is_an_error(key):
    mcmc = an_mcmc(ExactGibbs(dense_model, MALA, sites=["x"]), 2, 2, 1)
    mcmc.run(key, y=Y)
    mcmc.post_warmup_state = mcmc.last_state

    def run():
        mcmc.run(key, y=Y + 1)
        jax.block_until_ready(mcmc.get_samples())

    with pytest.raises((ValueError, RuntimeError), match="other model arguments"):
        run()


def test_data_that_are_not_finite():
    with pytest.raises(ValueError, match="'y' are not finite"):
        ExactGibbs(dense_model, sites=["x"]).init(jax.random.key(0), 10, None, (), {"y": Y * np.nan})
