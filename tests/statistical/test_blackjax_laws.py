"""The laws of BlackJAX's algorithms behind NumPyro's interface."""

from functools import cache, partial

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
    "tempered_smc": partial(BlackJAX, algorithm=blackjax.tempered_smc),
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


@pytest.mark.statistical
def test_smc_weighs_separate_modes_and_the_evidence(key):
    # 0.3 N(-4, 1) + 0.7 N(4, 1), times e^3 and unnormalised: no chain crosses; the weights are the particles'. The mean
    # over 48 runs of the evidence (of its logarithm: biased by half its variance) and of the weight, false-alarm 1e-5.
    def potential(x):
        return -3.0 - jax.scipy.special.logsumexp(
            jnp.stack([jnp.log(0.3) - 0.5 * (x[0] + 4) ** 2, jnp.log(0.7) - 0.5 * (x[0] - 4) ** 2])
        )

    kernel = BlackJAX(potential_fn=potential, algorithm=blackjax.adaptive_tempered_smc, num_particles=512)
    mcmc = MCMC(kernel, num_warmup=40, num_samples=512, num_chains=48, chain_method="vectorized", progress_bar=False)
    mcmc.run(key, init_params=jnp.zeros((48, 1)), extra_fields=("parameters.log_evidence",))
    weight = np.mean(np.asarray(mcmc.get_samples(group_by_chain=True))[..., 0] > 0, axis=1)
    evidence = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["parameters.log_evidence"])[:, 0]
    limit = stats.t.isf(1e-5 / 4, 47)
    assert abs(weight.mean() - 0.7) < limit * weight.std(ddof=1) / 48**0.5
    truth = 3.0 + 0.5 * np.log(2 * np.pi)
    bias = 0.5 * evidence.var(ddof=1)
    assert abs(evidence.mean() - truth) < limit * evidence.std(ddof=1) / 48**0.5 + bias
    assert bias < 0.05
