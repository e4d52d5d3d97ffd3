"""The laws of BlackJAX's algorithms behind NumPyro's interface."""

from functools import cache, partial

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC
from scipy import stats

from numpyro_inverse.infer import BlackJAX
from tests.infer._laws import TARGETS, assert_agree, chain_z, run

EXACT = {
    "nuts": partial(BlackJAX, algorithm=blackjax.nuts),
    "nuts, low-rank": partial(BlackJAX, algorithm=blackjax.nuts, warmup=blackjax.window_adaptation_low_rank),
    "nuts, pathfinder": partial(BlackJAX, algorithm=blackjax.nuts, warmup=blackjax.pathfinder_adaptation),
    "hmc": partial(BlackJAX, algorithm=blackjax.hmc, num_integration_steps=7),
    "mala": partial(BlackJAX, algorithm=blackjax.mala),
    "barker": partial(BlackJAX, algorithm=blackjax.barker),
    "ghmc": partial(BlackJAX, algorithm=blackjax.ghmc),
    "adjusted_mclmc": partial(BlackJAX, algorithm=blackjax.adjusted_mclmc),
    "adjusted_mclmc_dynamic": partial(BlackJAX, algorithm=blackjax.adjusted_mclmc_dynamic),
    "elliptical_slice": partial(BlackJAX, algorithm=blackjax.elliptical_slice),
    "slice_sampling": partial(BlackJAX, algorithm=blackjax.slice_sampling),
    "adaptive_tempered_smc": partial(BlackJAX, algorithm=blackjax.adaptive_tempered_smc),
    "tempered_smc": partial(BlackJAX, algorithm=blackjax.tempered_smc, num_mcmc_steps=1),  # at 1,000 temperatures
}


@pytest.mark.statistical
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", EXACT)
def test_exact_algorithms_sample_the_law(name, target, key):
    # Means of squares and products over 64 independent chains; false-alarm rate 1e-5 a case.
    law = TARGETS[target]
    draws = run(EXACT[name](potential_fn=law.potential), key, law.size, 1000, 1000, 64)
    assert_agree(chain_z(draws, law))


@cache
def _gaussian_draws(step_size):
    """SGLD with full gradients on N(0, 1) x N(0, 1/4): 64 chains."""
    curvature = jnp.array([1.0, 4.0])
    kernel = BlackJAX(
        potential_fn=lambda x: 0.5 * jnp.sum(curvature * x**2), algorithm=blackjax.sgld, step_size=step_size
    )
    return np.asarray(run(kernel, jax.random.key(1), 2, 500, 4000, 64), float)


@pytest.mark.statistical
def test_sgld_has_the_law_of_its_step():
    # BlackJAX's step is x + eta grad + sqrt(2 eta) noise: variance h^-1 (1 - eta h / 2)^-1. False-alarm rate 1e-5.
    found = (_gaussian_draws(0.2) ** 2).mean(axis=1)
    h = np.array([1.0, 4.0])
    for variance, agrees in ((1 / h / (1 - 0.2 * h / 2), True), (1 / h, False)):
        t = (found.mean(axis=0) - variance) / (found.std(axis=0, ddof=1) / 8)
        z = np.abs(t) < stats.t.isf(1e-5 / 4, 63)
        assert np.all(z) == agrees, t


@pytest.mark.statistical
def test_mclmc_is_close_to_the_law(key):
    # Biased: variances of a Gaussian within 5 %, and the test would notice 10 %.
    law = TARGETS["Gaussian, variances 1 to 100"]
    draws = run(BlackJAX(potential_fn=law.potential, algorithm=blackjax.mclmc), key, law.size, 1000, 4000, 64)
    values = np.asarray(jax.vmap(jax.vmap(law.statistics))(draws), float).mean(axis=1)
    error = np.abs(values.mean(axis=0) - law.expected)
    noise = stats.t.isf(1e-5 / (2 * error.size), 63) * values.std(axis=0, ddof=1) / 8
    assert np.all(error < 0.05 + noise), error
    assert np.all(noise < 0.05), noise


def _smc_runs(potential, key, size, start=0.0):
    """64 chains of 1,000 draws at the default settings, and their log evidences."""
    kernel = BlackJAX(potential_fn=potential, algorithm=blackjax.adaptive_tempered_smc)
    mcmc = MCMC(kernel, num_warmup=60, num_samples=1000, num_chains=64, chain_method="vectorized", progress_bar=False)
    mcmc.run(key, init_params=jnp.full((64, size), start), extra_fields=("parameters.log_evidence",))
    evidence = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["parameters.log_evidence"], float)[:, 0]
    return np.asarray(mcmc.get_samples(group_by_chain=True), float), evidence


def _assert_evidence(found, truth):
    """The mean of the evidence is right, that of its logarithm less half its variance; false-alarm rate 1e-5."""
    bias = 0.5 * found.var(ddof=1)
    assert bias < 0.05
    assert abs(found.mean() - truth) < stats.t.isf(1e-5 / 2, 63) * found.std(ddof=1) / 8 + bias


@pytest.mark.statistical
def test_smc_weighs_separate_modes_and_the_evidence(key):
    # 0.3 N(-4, 1) + 0.7 N(4, 1), times e^3 and unnormalised: no chain crosses; the weights are the particles'. The mean
    # weight of 64 runs: false-alarm rate 1e-5. How far single runs are from it, the effective sample size must promise:
    # the spread of 64 runs is known to 9 %, four of which are allowed. Particles in no order promise .0145.
    def potential(x):
        return -3.0 - jax.scipy.special.logsumexp(
            jnp.stack([jnp.log(0.3) - 0.5 * (x[0] + 4) ** 2, jnp.log(0.7) - 0.5 * (x[0] - 4) ** 2])
        )

    draws, evidence = _smc_runs(potential, key, 1)
    right = (draws[..., 0] > 0).astype(float)
    weight = right.mean(axis=1)
    assert abs(weight.mean() - 0.7) < stats.t.isf(1e-5 / 2, 63) * weight.std(ddof=1) / 8
    promised = np.median([np.sqrt(0.21 / float(az.ess(run[None]))) for run in right])
    print("weights", weight.std(ddof=1), "promised", promised)
    assert 0.64 < weight.std(ddof=1) / promised < 1.4
    _assert_evidence(evidence, 3.0 + 0.5 * np.log(2 * np.pi))


@pytest.mark.statistical
def test_smc_of_a_density_with_a_sharp_support(key):
    # A standard normal law in the square [.2, .8]^2, 4.5 % of the reference's particles: false-alarm rate 1e-5 each.
    def potential(x):
        return jnp.where(jnp.all(jnp.abs(x - 0.5) < 0.3), 0.5 * jnp.sum(x**2), jnp.inf)

    draws, evidence = _smc_runs(potential, key, 2, start=0.5)
    law = stats.truncnorm(0.2, 0.8)
    assert np.all(np.abs(draws - 0.5) < 0.3)
    for power in (1, 2):
        found = (draws**power).mean(axis=1)
        t = (found.mean(axis=0) - law.moment(power)) / (found.std(axis=0, ddof=1) / 8)
        assert np.all(np.abs(t) < stats.t.isf(1e-5 / 4, 63)), t
    _assert_evidence(evidence, 2 * np.log(np.sqrt(2 * np.pi) * (stats.norm.cdf(0.8) - stats.norm.cdf(0.2))))
