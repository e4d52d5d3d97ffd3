"""A learned ratio: the absolute constant, the posterior, draws of the site, the balanced loss."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC, NUTS, Predictive
from scipy import stats

from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi import NRE, simulate

QUIET = {"progress_bar": False}
NOISE = 0.8


def _noisy(key, theta):
    return theta + NOISE * random.normal(key, (2,))


def model(x=None):
    theta = numpyro.sample("theta", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("x", Simulator(_noisy, theta, event_dims=1), obs=x)


@pytest.fixture(scope="module")
def nre():
    return NRE(model).fit(random.key(0), num_simulations=6000, max_epochs=30, learning_rate=3e-3, **QUIET)


X = np.array([1.0, -0.6], np.float32)


def _exact(x, theta):
    likelihood = stats.norm.logpdf(x, theta, NOISE).sum(axis=-1)
    return likelihood - stats.norm.logpdf(x, 0.0, np.hypot(1.0, NOISE)).sum(axis=-1)


def test_the_ratio_is_absolute(nre):
    """Where simulations are, to 0.1 nats in root mean square; a free constant would show."""
    rows = simulate(model, random.key(5), 1000, **QUIET)
    (theta,), x = rows.pairs("x")
    found = np.asarray(jax.jit(jax.vmap(nre.learned.surrogate.log_prob))(x, theta))
    assert np.sqrt(np.mean((found - _exact(x, theta)) ** 2)) < 0.1
    shuffled = np.roll(theta, 1, axis=0)
    found = np.asarray(jax.jit(jax.vmap(nre.learned.surrogate.log_prob))(x, shuffled))
    exact = _exact(x, shuffled)
    assert np.sqrt(np.mean((found - exact)[exact > -5] ** 2)) < 0.2


def test_the_evidence_of_the_data_relative_to_the_simulations(nre):
    """log E_prior r(x, theta) = 0, within 0.1 nats; its Monte Carlo error here is below 0.02."""
    theta = random.normal(random.key(6), (20_000, 2))
    log_ratio = jax.jit(jax.vmap(lambda t: nre.learned.surrogate.log_prob(jnp.asarray(X), t)))(theta)
    assert abs(jax.nn.logsumexp(log_ratio) - np.log(20_000)) < 0.1


def test_the_posterior(nre):
    mcmc = MCMC(NUTS(nre.model), num_warmup=300, num_samples=2000, **QUIET)
    mcmc.run(random.key(1), x=X)
    draws = np.asarray(mcmc.get_samples()["theta"], float)
    variance = 1 / (1 + 1 / NOISE**2)
    ess = numpyro.diagnostics.effective_sample_size(draws[None])
    z = (draws - variance * X / NOISE**2) / np.sqrt(variance)
    assert (np.abs(z.mean(axis=0)) < 0.06 + 4.9 / np.sqrt(ess)).all()
    assert (np.abs(z.var(axis=0) - 1) < 0.1 + 4.9 * np.sqrt(2 / ess)).all()
    replicates = Predictive(nre.model, posterior_samples={"theta": draws[:500]})(random.key(2))["x"]
    assert abs(np.std(np.asarray(replicates) - draws[:500]) / NOISE - 1) < 4.9 / np.sqrt(2000)


def test_files(tmp_path, nre):
    nre.save(tmp_path / "ratio.safetensors")
    again = NRE(model).load(tmp_path / "ratio.safetensors")
    theta = jnp.ones(2)
    np.testing.assert_array_equal(
        nre.learned.surrogate.log_prob(jnp.asarray(X), theta), again.learned.surrogate.log_prob(jnp.asarray(X), theta)
    )


@pytest.mark.statistical
def test_a_balanced_ratio_is_balanced():
    """The penalty is the square of E_joint s + E_marginal s - 1, which is below 0.01 then."""
    nre = NRE(model).fit(random.key(0), num_simulations=3000, balance=100.0, max_epochs=30, **QUIET)
    rows = simulate(model, random.key(5), 4000, **QUIET)
    (theta,), x = rows.pairs("x")
    log_prob = jax.jit(jax.vmap(nre.learned.surrogate.log_prob))
    joint, apart = log_prob(x, theta), log_prob(x, np.roll(theta, 1, axis=0))
    assert abs(jnp.mean(jax.nn.sigmoid(joint)) + jnp.mean(jax.nn.sigmoid(apart)) - 1) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrasts": 0}, "`contrasts` must be a positive integer"),
        ({"gamma": 0.0}, "`gamma` must be positive"),
        ({"balance": -1.0}, "`balance` must be finite and not negative"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        NRE(model).fit(random.key(0), **options)
