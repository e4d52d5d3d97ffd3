"""Forward maps that fail, and states continued with other model arguments: told, for every kernel."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from numpyro_inverse.infer import (
    MALA,
    PCN,
    SKROCK,
    ULA,
    BlackJAX,
    DelayedAcceptance,
    InfMALA,
    LowRankNUTS,
    TemperedSGLD,
    report_failures,
)


def model(y, fails=True):
    """Its forward map is not a number where the first latent is above 1."""
    u = numpyro.sample("u", dist.Normal().expand([2]).to_event(1))
    mean = jnp.where(fails & (u[0] > 1.0), jnp.nan, u)
    # Where a chain begins is traced outside of compiled code, and NumPyro would refuse the parameter.
    numpyro.sample("y", dist.Normal(mean, 1.0, validate_args=False).to_event(1), obs=y)


def an_mcmc(kernel, num_warmup=100, num_samples=200, num_chains=1):
    return MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains,
                chain_method="vectorized", progress_bar=False)  # fmt: skip


def finished(mcmc, *args, **kwargs):
    """Errors in compiled code show when the draws are looked at."""
    mcmc.run(*args, **kwargs)
    return jax.block_until_ready(mcmc.get_samples())


REJECTING = {
    "MALA": MALA,
    "PCN": PCN,
    "LowRankNUTS": LowRankNUTS,
    "DelayedAcceptance": lambda m: DelayedAcceptance(m, approximation=lambda y: model(y, fails=False)),
    "BlackJAX": lambda m: BlackJAX(m, algorithm=blackjax.nuts),
}
SLOW = ("LowRankNUTS", "BlackJAX")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.statistical if n in SLOW else ()) for n in REJECTING]
)
def test_failures_are_counted_and_reported(name, key):
    mcmc = an_mcmc(REJECTING[name](model), num_chains=2)
    mcmc.run(key, jnp.zeros(2), init_params={"u": jnp.zeros((2, 2))}, extra_fields=("num_failures", "first_failure"))
    fields, state = mcmc.get_extra_fields(group_by_chain=True), mcmc.last_state
    assert np.all(mcmc.get_samples()["u"][:, 0] <= 1)
    new = np.diff(fields["num_failures"], axis=1)
    assert new.sum() > 10  # a fifth of the prior's mass is there
    # Each failure is a divergence; a draw that moved is none.
    diverging = np.asarray(fields["diverging"])
    assert np.all(diverging[:, 1:][new == 1])
    assert np.all(state.failed_at[:, 0] > 1)
    told = r"met points without a log density, first in iteration \d+ of chain \d, where site 'y' has log density nan"
    with pytest.warns(UserWarning, match=told):
        report = report_failures(mcmc)
    assert report.num_failures == int(state.num_failures.sum())
    assert report.site == "y"
    assert report.iteration == int(np.min(state.first_failure))
    one = jax.tree.map(lambda v: v[0], state)
    assert f"{int(one.num_failures)} without a density" in mcmc.sampler.get_diagnostics_str(one)


@pytest.mark.slow
def test_a_run_without_failures(key):
    mcmc = an_mcmc(MALA(model), 10, 10)
    with pytest.raises(ValueError, match="call its `run` first"):
        report_failures(mcmc)
    mcmc.run(key, jnp.zeros(2), False, init_params={"u": jnp.zeros(2)})
    assert report_failures(mcmc) == (0, None, None, None)
    other = an_mcmc(NUTS(model), 2, 2)
    other.run(key, jnp.zeros(2), False)
    with pytest.raises(TypeError, match="NUTS does not count failures"):
        report_failures(other)


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(lambda m: ULA(m, step_size=0.05), marks=pytest.mark.slow),
        lambda m: SKROCK(m, step_size=0.2, stages=3),
        pytest.param(lambda m: TemperedSGLD(m, step_size=0.05), marks=pytest.mark.statistical),
    ],
)
@pytest.mark.parametrize("num_chains", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_what_cannot_reject_names_the_site(kernel, num_chains, key):
    # Not the step size, which is a fortieth and less of the limit.
    first = {"u": jnp.zeros((num_chains, 2) if num_chains > 1 else 2)}
    with pytest.raises(Exception, match=r"density of site 'y' is not a number at iteration \d+, where the largest lat"):
        finished(an_mcmc(kernel(model), 0, 2000, num_chains), key, jnp.zeros(2), init_params=first)


def test_a_failing_potential(key):
    potential = lambda x: jnp.where(x[0] > 1, jnp.nan, 0.5 * x @ x)  # noqa: E731
    with pytest.raises(Exception, match="the log density or its gradient is not a number at iteration"):
        finished(an_mcmc(ULA(potential_fn=potential, step_size=0.1), 0, 2000), key, init_params=jnp.zeros(2))


@pytest.mark.slow
def test_a_tuning_that_stands_still_is_told(key):
    with pytest.raises(Exception, match=r"warm-up of mclmc at iteration 0 ended with .* or with a step size of 0"):
        finished(an_mcmc(BlackJAX(model, algorithm=blackjax.mclmc)), key, jnp.zeros(2), init_params={"u": jnp.zeros(2)})


def gaussian(y):
    u = numpyro.sample("u", dist.Normal().expand([6]).to_event(1))
    numpyro.sample("y", dist.Normal(u, 0.5).to_event(1), obs=y)


CONTINUING = {
    "MALA": MALA,
    "PCN": PCN,
    "InfMALA": InfMALA,
    "DelayedAcceptance": lambda m: DelayedAcceptance(m, approximation=m),
    "SKROCK": lambda m: SKROCK(m, step_size=0.1, stages=3),
    "BlackJAX mala": lambda m: BlackJAX(m, algorithm=blackjax.mala),
    "BlackJAX elliptical_slice": lambda m: BlackJAX(m, algorithm=blackjax.elliptical_slice),
}
FAST = ("MALA", "PCN")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.statistical) for n in CONTINUING]
)
def test_a_state_continued_with_other_data_has_their_law(name, key):
    # Mean 0.8 y, by t tests over 32 chains after a hundred draws; false-alarm rate 1e-5. Stale, the chain would stick.
    mcmc = an_mcmc(CONTINUING[name](gaussian), 300, 600, 32)
    mcmc.run(key, jnp.zeros(6))
    mcmc.post_warmup_state = mcmc.last_state
    old = np.asarray(mcmc.last_state.z["u"])
    mcmc.run(jax.random.split(key, 32), jnp.full(6, 2.0), extra_fields=("potential_energy",))
    u = np.asarray(mcmc.get_samples(group_by_chain=True)["u"], float)
    energy = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["potential_energy"])
    joint = stats.norm.logpdf(u).sum(-1) + stats.norm.logpdf(2.0, u, 0.5).sum(-1)
    np.testing.assert_allclose(energy, -joint, rtol=1e-4)
    if not name.startswith("BlackJAX"):
        np.testing.assert_array_equal(u[:, 0], old)  # the first draw is the old point, evaluated anew
    means = u[:, 100:].mean(axis=(1, 2))
    error = abs(means.mean() - 1.6) / (means.std(ddof=1) / np.sqrt(32))
    assert error < stats.t.isf(0.5e-5, 31), error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            LowRankNUTS,
            r"LowRankNUTS: the state of iteration 8 is for other model arguments.*start a new run",
            marks=pytest.mark.statistical,
        ),
        pytest.param(
            lambda m: BlackJAX(m, algorithm=blackjax.adaptive_tempered_smc, num_particles=32),
            "particles of this state, of iteration 24, are of the posterior for other model arguments",
            marks=pytest.mark.statistical,
        ),
    ],
)
def test_a_state_that_is_bound_to_its_data_is_refused(make, message, key):
    mcmc = an_mcmc(make(gaussian), 20 if "particles" in message else 4, 4)
    mcmc.run(key, jnp.zeros(6))
    mcmc.post_warmup_state = mcmc.last_state
    finished(mcmc, key, jnp.zeros(6))  # the same numbers
    with pytest.raises(Exception, match=message):
        finished(mcmc, key, jnp.full(6, 2.0))


@pytest.mark.slow
def test_traced_arguments_are_told_apart_too(key):
    mcmc = MCMC(MALA(gaussian), num_warmup=20, num_samples=20, progress_bar=False, jit_model_args=True)
    mcmc.run(key, jnp.zeros(6))
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(key, jnp.zeros(6), extra_fields=("potential_energy",))
    assert mcmc.last_state.fingerprint == mcmc.post_warmup_state.fingerprint
    mcmc.run(key, jnp.full(6, 2.0), extra_fields=("potential_energy",))
    u, energy = np.asarray(mcmc.get_samples()["u"], float), mcmc.get_extra_fields()["potential_energy"]
    joint = stats.norm.logpdf(u).sum(-1) + stats.norm.logpdf(2.0, u, 0.5).sum(-1)
    np.testing.assert_allclose(energy, -joint, rtol=1e-4)
