"""Split Gibbs sampling: its closed forms, its weights, its ladder, and what it refuses."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.infer import MCMC
from scipy import stats

import numpyro_inverse as ni
from numpyro_inverse.infer import LangevinDenoising, ReverseDiffusion, SplitGibbs
from numpyro_inverse.infer.exact._gaussian_posterior import Factored
from tests.infer._laws import assert_agree

N, NOISE, RHO = 4, 0.4, 0.5
RNG = np.random.default_rng(3)
FORWARD = RNG.normal(size=(3, N))
ROOT = RNG.normal(size=(N, N)) / 2
COVARIANCE = ROOT @ ROOT.T + 0.1 * np.eye(N)
DATA = np.array([1.0, -0.5, 0.3])


class Mixture(eqx.Module):
    """A mixture of normals with one covariance: its exact mean and draws given a noisy value."""

    log_weights: Array
    means: Array
    covariance: Array

    def given(self, x, sigma):
        """Weights, means and the covariance of the clean value."""
        marginal = self.covariance + sigma**2 * jnp.eye(len(x))
        gain = jnp.linalg.solve(marginal, self.covariance).T
        logs = jax.vmap(lambda m: jax.scipy.stats.multivariate_normal.logpdf(x, m, marginal))(self.means)
        weights = jax.nn.softmax(self.log_weights + logs)
        return weights, self.means + (x - self.means) @ gain.T, self.covariance - gain @ self.covariance

    def __call__(self, x, sigma):
        weights, means, _ = self.given(x, sigma)
        return weights @ means

    def sample(self, key, x, sigma):
        weights, means, covariance = self.given(x, sigma)
        keys = jax.random.split(key)
        chosen = means[jax.random.categorical(keys[0], jnp.log(weights))]
        root = jnp.linalg.cholesky(0.5 * (covariance + covariance.T))
        return chosen + root @ jax.random.normal(keys[1], x.shape, x.dtype)


def normal(covariance):
    size = len(covariance)
    return Mixture(jnp.zeros(1), jnp.zeros((1, size)), jnp.asarray(covariance, jnp.float32))


def model(data=None, forward=FORWARD, noise=NOISE):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), (N,)))
    numpyro.sample("data", dist.Normal(jnp.asarray(forward, jnp.float32) @ x, noise).to_event(1), obs=data)


def run(kernel, key, data, num_warmup=100, num_samples=200, num_chains=100, **kwargs):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, jnp.asarray(data, jnp.float32), extra_fields=("x", "error", "accept_prob"), **kwargs)
    return mcmc


def moments(draws):
    """First and second moments of vectors, along the last axis."""
    draws = np.asarray(draws, float)
    products = draws[..., :, None] * draws[..., None, :]
    upper = np.triu_indices(draws.shape[-1])
    return np.concatenate([draws, products[..., *upper]], axis=-1)


def gaussian_moments(mean, covariance):
    second = covariance + np.outer(mean, mean)
    return np.concatenate([mean, second[np.triu_indices(len(mean))]])


def chain_z(values, expected):
    """z of the means over independent chains."""
    values = values.mean(axis=1)
    t = (values.mean(0) - expected) / (values.std(0, ddof=1) / np.sqrt(len(values)))
    return stats.norm.isf(stats.t.sf(np.abs(t), len(values) - 1))


def posterior(prior, noise_covariance):
    precision = np.linalg.inv(prior) + FORWARD.T @ np.linalg.inv(noise_covariance) @ FORWARD
    covariance = np.linalg.inv(precision)
    return covariance @ FORWARD.T @ np.linalg.inv(noise_covariance) @ DATA, covariance


@pytest.fixture(scope="module")
def gaussian_run():
    return run(SplitGibbs(model, normal(COVARIANCE), coupling=RHO), jax.random.key(2), DATA)


def check_gaussian_laws(gaussian_run):
    """z: the prior and the data with noise covariance tau^2 + rho^2 A A'. x: the data and the prior with covariance
    C + rho^2. Moments by chain, false alarm 1e-5 each."""
    z = gaussian_run.get_samples(group_by_chain=True)["x"]
    x = gaussian_run.get_extra_fields(group_by_chain=True)["x"][:, :, 0]
    weak = NOISE**2 * np.eye(3) + RHO**2 * FORWARD @ FORWARD.T
    assert_agree(chain_z(moments(z), gaussian_moments(*posterior(COVARIANCE, weak))))
    smooth = COVARIANCE + RHO**2 * np.eye(N)
    assert_agree(chain_z(moments(x), gaussian_moments(*posterior(smooth, NOISE**2 * np.eye(3)))))
    assert np.max(gaussian_run.get_extra_fields()["error"]) < 1e-3


def check_weights(gaussian_run):
    kernel, z = gaussian_run.sampler, np.asarray(gaussian_run.get_samples()["x"], float)[:50]
    found = np.asarray(kernel.log_weights({"x": z.reshape(5, 10, N)}, jnp.asarray(DATA, jnp.float32)))
    weak = NOISE**2 * np.eye(3) + RHO**2 * FORWARD @ FORWARD.T
    residual = DATA - z @ FORWARD.T
    zero = np.zeros(3)
    expected = stats.multivariate_normal(zero, NOISE**2 * np.eye(3)).logpdf(residual)
    expected -= stats.multivariate_normal(zero, weak).logpdf(residual)
    assert found.shape == (5, 10)
    np.testing.assert_allclose(found.ravel(), expected - expected.max(), atol=1e-4, rtol=1e-4)


def test_gaussian_laws(gaussian_run):
    check_gaussian_laws(gaussian_run)


def test_the_weights_are_the_ratio_of_the_likelihoods(gaussian_run):
    check_weights(gaussian_run)


@pytest.mark.slow
def test_without_a_matrix(monkeypatch):
    """Data steps by conjugate gradients: the same laws and weights."""
    monkeypatch.setattr("numpyro_inverse.infer.denoising._split_gibbs.DENSE_LIMIT", 0)
    found = run(SplitGibbs(model, normal(COVARIANCE), coupling=RHO), jax.random.key(4), DATA)
    assert not isinstance(found.last_state.posteriors, Factored)
    check_gaussian_laws(found)
    check_weights(found)


@pytest.mark.slow
def test_weighted_draws_have_the_posterior(gaussian_run):
    """The mean of weight times (moment - its exact value) is zero: z by chain."""
    z = np.asarray(gaussian_run.get_samples(group_by_chain=True)["x"])
    weights = np.exp(gaussian_run.sampler.log_weights({"x": z}, jnp.asarray(DATA, jnp.float32)))
    expected = gaussian_moments(*posterior(COVARIANCE, NOISE**2 * np.eye(3)))
    assert_agree(chain_z(np.asarray(weights)[..., None] * (moments(z) - expected), 0.0))


TWO = Mixture(jnp.log(jnp.array([0.3, 0.7])), jnp.array([[-2.0] * N, [2.0] * N]), 0.04 * jnp.eye(N))


def mixture_posterior(noise_covariance):
    """Weights, means, covariance of the exact posterior under TWO."""
    covariance = np.asarray(TWO.covariance, float)
    weights, means = [], []
    for share, m in zip((0.3, 0.7), np.asarray(TWO.means, float), strict=True):
        marginal = FORWARD @ covariance @ FORWARD.T + noise_covariance
        weights.append(share * stats.multivariate_normal(FORWARD @ m, marginal).pdf(DATA))
        gain = np.linalg.solve(marginal, FORWARD @ covariance).T
        means.append(m + gain @ (DATA - FORWARD @ m))
    return np.array(weights) / np.sum(weights), np.array(means), covariance - gain @ FORWARD @ covariance


@pytest.mark.slow
def test_a_ladder_reaches_both_modes(key):
    """Modes 8 standard deviations apart for the first rung, which cannot leave the one it starts in. z of the moments
    and of the share of one mode by chain."""
    noise, ladder = 8.0, (0.2, 0.6, 1.8, 5.4)
    kernel = SplitGibbs(model, TWO, coupling=ladder)
    done = run(kernel, key, DATA, 100, 150, noise=noise, init_params={"x": np.full((100, N), 2.0)})
    z = np.asarray(done.get_samples(group_by_chain=True)["x"], float)
    weights, means, covariance = mixture_posterior(noise**2 * np.eye(3) + ladder[0] ** 2 * FORWARD @ FORWARD.T)
    second = covariance + np.einsum("k,ki,kj->ij", weights, means, means)
    expected = np.concatenate([weights @ means, second[np.triu_indices(N)], weights[:1]])
    values = np.concatenate([moments(z), (z.mean(-1, keepdims=True) < 0)], axis=-1)
    assert_agree(chain_z(values, expected))
    assert 0.2 < np.mean(done.get_extra_fields()["accept_prob"]) < 1


def test_reverse_diffusion_draws_by_its_recursion(x64):
    """A linear denoiser makes every step affine with known noise: mean and variance of the draws of one mode, by the
    recursion and by the steps themselves, and their distance from the exact law, which is of order 1 / steps."""
    c, sigma, x = 0.7, 0.5, 1.3
    errors = []
    for steps in (50, 100):
        kernel = ReverseDiffusion(lambda x, t: c / (c + t**2) * x, num_steps=steps)
        levels = sigma ** (1 / 7) + np.linspace(0, 1, steps + 1) * ((1e-3 * sigma) ** (1 / 7) - sigma ** (1 / 7))
        levels = levels**7
        mean, variance = x, 0.0
        for t, after in itertools.pairwise(levels):
            h = t**2 - after**2
            factor = 1 - h / (c + t**2)
            mean, variance = factor * mean, factor**2 * variance + h
        draws = jax.jit(jax.vmap(kernel.sample, (0, None, None)))(
            jax.random.split(jax.random.key(1), 20_000), jnp.array([x]), sigma
        )
        z = (np.mean(draws) - mean) / np.sqrt(variance / 20_000), (np.var(draws) / variance - 1) * np.sqrt(10_000)
        assert_agree(np.array(z))
        errors.append(variance / (c * sigma**2 / (c + sigma**2)) - 1)
    assert 0 < errors[1] < 0.1
    assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.05)


def test_langevin_draws(key):
    """A normal prior: Langevin at level eps draws N with precision 1 / (c + eps^2) + 1 / sigma^2, up to the step:
    variance V / (1 - delta / (2 V)). Chain started at N(x, sigma^2), long enough to forget it (0.8^60 = 1e-6)."""
    c, eps, sigma, x = 0.7, 0.3, 0.5, 1.3
    kernel = LangevinDenoising(lambda x, t: c / (c + t**2) * x, level=eps, num_steps=60, step_size=0.5)
    draws = jax.jit(jax.vmap(kernel.sample, (0, None, None)))(jax.random.split(key, 20_000), jnp.array([x]), sigma)
    precision = 1 / (c + eps**2) + 1 / sigma**2
    delta = 0.5 / (1 / eps**2 + 1 / sigma**2)
    variance = 1 / (precision * (1 - delta * precision / 2))
    mean = x / sigma**2 / precision
    z = (np.mean(draws) - mean) / np.sqrt(variance / 20_000), (np.var(draws) / variance - 1) * np.sqrt(10_000)
    assert_agree(np.array(z))


@pytest.mark.slow
def test_arviz(gaussian_run):
    tree = ni.to_arviz(gaussian_run)
    assert tree["posterior"]["x"].shape == (100, 200, N)


def one_draw(x, sigma):
    return x


class Broken(eqx.Module):
    """Returns what it is told to."""

    draw: object = eqx.field(static=True)

    def sample(self, key, x, sigma):
        return self.draw(x)


def with_prior(data=None):
    x = numpyro.sample("x", dist.Normal(jnp.zeros(N), 1).to_event(1))
    numpyro.sample("data", dist.Normal(x[:3], NOISE).to_event(1), obs=data)


def two_sites(data=None):
    numpyro.sample("y", dist.Normal())
    model(data)


def bent(data=None):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), (N,)))
    numpyro.sample("data", dist.Normal(x[:3] ** 2, NOISE).to_event(1), obs=data)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, TWO), {"coupling": 1.0}, TypeError, "`model`"),
        ((model, one_draw), {"coupling": 1.0}, TypeError, r"method `sample\(key, x, sigma\)`.*ReverseDiffusion"),
        ((model, TWO), {"coupling": 0.0}, ValueError, "`coupling`"),
        ((model, TWO), {"coupling": "1"}, TypeError, "`coupling`"),
        ((model, TWO), {"coupling": [0.5, 0.2]}, ValueError, "increase"),
        ((model, TWO), {"coupling": 1.0, "tolerance": 0}, ValueError, "`tolerance`"),
        ((model, TWO), {"coupling": 1.0, "max_steps": 0}, ValueError, "`max_steps`"),
    ],
)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error, match=f"SplitGibbs.*{message}"):
        SplitGibbs(*arguments, **options)


@pytest.mark.parametrize(
    ("bad", "denoiser", "init_params", "message"),
    [
        (with_prior, TWO, None, "'x' has a prior of its own"),
        (two_sites, TWO, None, "one latent site.*'y', 'x'"),
        (bent, TWO, None, "not affine"),
        (model, Broken(lambda x: x[:2]), None, "array of the site's shape"),
        (model, TWO, {"y": np.zeros(N)}, "`init_params` must be"),
        (model, TWO, {"x": np.zeros(N + 1)}, r"must have shape \(4,\)"),
    ],
    ids=["prior", "two sites", "bent", "shape", "site", "start"],
)
def test_bad_models(bad, denoiser, init_params, message, key):
    with pytest.raises(ValueError, match=f"(?s)SplitGibbs.*{message}"):
        SplitGibbs(bad, denoiser, coupling=0.5).init(key, 0, init_params, (jnp.asarray(DATA),), {})


@pytest.mark.slow
def test_a_draw_that_is_not_a_number(key):
    broken = Broken(lambda x: jnp.where(x[0] < 1e9, jnp.nan, x))
    with pytest.raises(Exception, match="denoiser's draw is not finite at iteration 0"):
        run(SplitGibbs(model, broken, coupling=0.5), key, DATA, 0, 2, 2)


@pytest.mark.parametrize("kernel", [ReverseDiffusion, LangevinDenoising])
def test_bad_draws(kernel):
    options = {"level": 0.1} if kernel is LangevinDenoising else {}
    with pytest.raises(TypeError, match=f"{kernel.__name__}.*`denoiser`"):
        kernel(1.0, **options)
    with pytest.raises(ValueError, match=f"{kernel.__name__}.*`num_steps`"):
        kernel(one_draw, **options, num_steps=0)


def test_weights_of_other_sites(gaussian_run):
    with pytest.raises(ValueError, match=r"SplitGibbs.log_weights: `samples` has no site 'x'"):
        gaussian_run.sampler.log_weights({"y": np.zeros(3)}, jnp.asarray(DATA, jnp.float32))
    with pytest.raises(ValueError, match="trailing axes"):
        gaussian_run.sampler.log_weights({"x": np.zeros(3)}, jnp.asarray(DATA, jnp.float32))
