"""PnP-ULA: its stationary law for linear denoisers, symmetric or not; mixtures; what it refuses."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from scipy import stats
from scipy.linalg import solve_discrete_lyapunov

from numpyro_inverse.denoisers import GaussianDenoiser, GaussianMixtureDenoiser, LinearDenoiser
from numpyro_inverse.factors import RED
from numpyro_inverse.infer import ULA, PnPULA, ProjectedPnPULA

RNG = np.random.default_rng(4)
N, SIGMA, NOISE, STRENGTH = 3, 0.5, 0.6, 1.5
DATA = np.array([0.5, -0.3, 0.8])
ALARM = 1e-5
FAR = (-100.0, 100.0)  # a box that is never left


def model(y=None):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (N,)))
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)


SKEW = 0.6 * np.linalg.qr(RNG.normal(size=(N, N)))[0]  # a contraction that is far from symmetric
MATRICES = {"symmetric": (SKEW + SKEW.T) / 2, "not symmetric": SKEW}
STEP = 0.12
KERNELS = {
    "PnPULA": lambda w: PnPULA(
        model,
        site="x",
        denoiser=LinearDenoiser(w),
        sigma=SIGMA,
        strength=STRENGTH,
        data_lipschitz=0.01,  # the step is what is tested here, not its bound
        residual_lipschitz=0.01,
        box=FAR,
        step_size=STEP,
    ),
    "ULA on RED": lambda w: ULA(_red_model(w), step_size=STEP),
}


def _red_model(w):
    red = RED(LinearDenoiser(w), sigma=SIGMA, strength=STRENGTH)

    def with_red(y=None):
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (N,)))
        red("red", x)
        numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)

    return with_red


@cache
def draws(kernel, matrix):
    chains = 256
    mcmc = MCMC(
        KERNELS[kernel](MATRICES[matrix]),
        num_warmup=200,
        num_samples=400,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(2), y=DATA)
    return np.asarray(mcmc.get_samples(group_by_chain=True)["x"], float)


def drift(w):
    return np.eye(N) / NOISE**2 + STRENGTH * (np.eye(N) - w) / SIGMA**2


def law(w):
    """Mean and covariance of the chain x+ = (I - delta P) x + delta b + sqrt(2 delta) xi."""
    p = drift(w)
    return np.linalg.solve(p, DATA / NOISE**2), solve_discrete_lyapunov(np.eye(N) - STEP * p, 2 * STEP * np.eye(N))


def t_statistics(x, mean, covariance):
    """Of means and covariances over independent chains."""
    rows, columns = np.triu_indices(N)
    away = x - mean
    products = away[..., rows] * away[..., columns] - covariance[rows, columns]
    found = np.concatenate([away, products], axis=-1).mean(axis=1)
    return found.mean(axis=0) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))


LIMIT = stats.t.isf(ALARM / 2 / 9, 255)


def test_the_stated_covariance_is_lyapunov_s():
    """For a symmetric W it is P^-1 (I - delta P / 2)^-1."""
    p = drift(MATRICES["symmetric"])
    np.testing.assert_allclose(law(MATRICES["symmetric"])[1], np.linalg.inv(p @ (np.eye(N) - STEP * p / 2)), rtol=1e-10)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("kernel", [pytest.param(k, marks=[pytest.mark.slow] * (k != "PnPULA")) for k in KERNELS])
def test_law(kernel, matrix):
    """Mean and covariance are those of the linear chain. 256 chains; false-alarm rate 1e-5."""
    t = t_statistics(draws(kernel, matrix), *law(MATRICES[matrix]))
    assert np.all(np.abs(t) < LIMIT), t


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_test_has_power(kernel):
    """A skew denoiser has not the law of its symmetric part, nor a symmetric one that of the limit of small steps."""
    x = draws(kernel, "not symmetric")
    assert np.max(np.abs(t_statistics(x, *law(MATRICES["symmetric"])))) > 2 * LIMIT
    mean, _ = law(MATRICES["symmetric"])
    limit = np.linalg.inv(drift(MATRICES["symmetric"]))
    assert np.max(np.abs(t_statistics(draws(kernel, "symmetric"), mean, limit))) > 2 * LIMIT


@pytest.mark.slow
def test_a_mixture_up_to_the_smoothing():
    """Mean and second moment of one number under a bimodal prior smoothed by sigma, by quadrature.

    False-alarm rate 1e-5, beyond the bias of the step, which is at most delta L / 4 of the second moment.
    """
    weights, means, spread, sigma, noise, y = np.array([0.3, 0.7]), np.array([-1.0, 1.0]), 0.5, 0.4, 0.8, 0.2
    denoiser = GaussianMixtureDenoiser(weights, means[:, None], np.full((2, 1, 1), spread**2))

    def one(data=None):
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (1,)))
        numpyro.sample("data", dist.Normal(x, noise).to_event(1), obs=data)

    kernel = PnPULA(
        one, site="x", denoiser=denoiser, sigma=sigma, data_lipschitz=noise**-2, residual_lipschitz=0.6, box=(-9, 9)
    )
    chains = 2000
    mcmc = MCMC(
        kernel, num_warmup=600, num_samples=600, num_chains=chains, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.key(5), data=np.array([y]))
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], float)[..., 0]
    grid = np.linspace(-6, 6, 20001)
    density = stats.norm.pdf(y, grid, noise) * (
        weights * stats.norm.pdf(grid[:, None], means, np.hypot(spread, sigma))
    ).sum(1)
    moments = np.array([density @ grid, density @ grid**2]) / density.sum()
    found = np.stack([x.mean(axis=1), (x**2).mean(axis=1)])
    noise_of = found.std(axis=1) / np.sqrt(chains) * stats.norm.isf(ALARM / 4)
    bias = moments[1] * kernel.step_size * (noise**-2 + 1 / (spread**2 + sigma**2)) / 4
    assert np.all(np.abs(found.mean(axis=1) - moments) < noise_of + bias), (found.mean(axis=1), moments, noise_of, bias)
    without = stats.norm.pdf(y, grid, noise) * (weights * stats.norm.pdf(grid[:, None], means, spread)).sum(1)
    assert abs(found[1].mean() - without @ grid**2 / without.sum()) > 2 * (noise_of + bias)[1]


def test_steps_are_derived():
    """By hand: L = 0.25 / 0.5 for C = I / 4... sigma^2 = 1/4, C = I: L = .2 = sigma^2 / (C + sigma^2)."""
    gaussian = GaussianDenoiser(np.zeros(N), np.eye(N))
    kernel = PnPULA(model, site="x", denoiser=gaussian, sigma=0.5, data_lipschitz=2.0, strength=2.0)
    prior = 2.0 * 0.2 / 0.25
    np.testing.assert_allclose(1 / kernel.tail, 2 * prior + 8.0, rtol=1e-5)
    np.testing.assert_allclose(kernel.step_size, 0.99 / 3 / (prior + 2.0 + 2 * prior + 8.0), rtol=1e-5)
    projected = ProjectedPnPULA(model, site="x", denoiser=gaussian, sigma=0.5, data_lipschitz=2.0, strength=2.0)
    np.testing.assert_allclose(projected.step_size, 0.99 / (prior + 2.0), rtol=1e-5)


def test_projected_to_the_box():
    kernel = ProjectedPnPULA(
        model, site="x", denoiser=LinearDenoiser(SKEW), sigma=SIGMA, data_lipschitz=NOISE**-2, box=(0.0, 0.5)
    )
    mcmc = MCMC(kernel, num_warmup=5, num_samples=50, progress_bar=False)
    mcmc.run(jax.random.key(0), y=DATA)
    x = mcmc.get_samples()["x"]
    assert np.min(x) == 0.0
    assert np.max(x) == 0.5


def test_other_sites_are_left_alone():
    """Beside a site with a prior of its own, whose law the denoiser does not touch."""

    def two(y=None):
        offset = numpyro.sample("offset", dist.Normal(3.0, 1e-3))
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (N,)))
        numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)
        return offset

    kernel = PnPULA(two, site="x", denoiser=LinearDenoiser(SKEW), sigma=SIGMA, data_lipschitz=1e6)
    state = kernel.init(jax.random.key(0), 0, {"offset": jnp.asarray(3.0), "x": jnp.zeros(N)}, (), {"y": DATA})
    np.testing.assert_allclose(state.grad, [0.0, *(-DATA / NOISE**2)], atol=1e-5)


def test_a_denoiser_that_fails_is_named():
    """NaN in the first draw, or from where the signal is large: a named error at that iteration."""
    kernel = PnPULA(
        model,
        site="x",
        denoiser=lambda x, sigma: jnp.where(jnp.sum(x) > 0, jnp.nan, 0.5 * x),
        sigma=SIGMA,
        data_lipschitz=NOISE**-2,
        residual_lipschitz=0.5,
    )
    mcmc = MCMC(kernel, num_warmup=0, num_samples=200, progress_bar=False)
    with pytest.raises(Exception, match="PnPULA: the log density or its gradient is not a number at iteration"):
        mcmc.run(jax.random.key(0), y=DATA, init_params={"x": -0.1 * jnp.ones(N)})
    kernel = PnPULA(
        model, site="x", denoiser=lambda x, s: x * jnp.nan, sigma=1.0, data_lipschitz=1.0, residual_lipschitz=1.0
    )
    with pytest.raises(ValueError, match="PnPULA: the first point of a chain has a density or a gradient"):
        MCMC(kernel, num_warmup=0, num_samples=2, progress_bar=False).run(jax.random.key(0), y=DATA)


GOOD = {"site": "x", "denoiser": LinearDenoiser(SKEW), "sigma": SIGMA, "data_lipschitz": 1.0}
BAD = [
    ({"site": 3}, TypeError, "`site` must be the name of a latent site"),
    ({"denoiser": None}, TypeError, "`denoiser` must be a denoiser"),
    ({"sigma": 0.0}, ValueError, "`sigma` must be positive"),
    ({"strength": -1.0}, ValueError, "`strength` must be positive"),
    ({"data_lipschitz": -1.0}, ValueError, "`data_lipschitz` must be finite and not negative"),
    ({"box": 3}, TypeError, "`box` must be a pair"),
    ({"box": (1.0, 0.0)}, ValueError, "the lower side of `box` must be below"),
    ({"step_size": 1.0}, ValueError, "`step_size` must be below"),
    ({"denoiser": lambda x, s: x}, ValueError, "`residual_lipschitz` is missing"),
]


@pytest.mark.parametrize("kernel", [PnPULA, ProjectedPnPULA])
@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input(kernel, change, error, message):
    with pytest.raises(error, match=f"{kernel.__name__}: {message}"):
        kernel(model, **(GOOD | change))


def test_bad_sites_and_shapes():
    for change, message in (
        ({"site": "y"}, "`site` 'y' is not a latent site of the model"),
        ({"site": "z"}, "`site` 'z' is not a latent site of the model"),
        (
            {"denoiser": lambda x, s: x[:2], "residual_lipschitz": 1.0},
            r"must return an array of the shape of `x`, \(3,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            MCMC(PnPULA(model, **(GOOD | change)), num_warmup=1, num_samples=1, progress_bar=False).run(
                jax.random.key(0), y=DATA
            )
