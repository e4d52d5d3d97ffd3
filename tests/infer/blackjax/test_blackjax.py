"""BlackJAX's algorithms as NumPyro kernels: what they refuse, adapt, report and keep. Laws: tests/statistical."""

import pickle
from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from scipy import stats

from numpyro_inverse import to_arviz
from numpyro_inverse.infer import BlackJAX
from numpyro_inverse.infer.blackjax._algorithms import name_of
from tests.infer._laws import TARGETS, assert_agree, chain_z, run

DATA = np.array([1.0, -0.5, 2.0], np.float32)


def model(y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    white = numpyro.sample("white", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(scale * white, 0.5).to_event(1), obs=y)


def an_mcmc(kernel, num_warmup=20, num_samples=20, num_chains=1, **rest):
    return MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains,
                chain_method="vectorized", progress_bar=False, **rest)  # fmt: skip


def normal(x):
    return 0.5 * jnp.sum(x**2)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [blackjax.mala, blackjax.elliptical_slice], ids=name_of)
def test_the_law_of_a_mixture(algorithm, key):
    # False-alarm rate 1e-5 a case; the other algorithms and targets are in tests/statistical.
    law = TARGETS["mixture"]
    assert_agree(chain_z(run(BlackJAX(potential_fn=law.potential, algorithm=algorithm), key, 2, 300, 500, 64), law))


@pytest.mark.slow
def test_a_neighbour_of_the_law_fails(key):
    # The same test notices a potential scaled by 1.05.
    law = TARGETS["mixture"]
    kernel = BlackJAX(potential_fn=lambda x: 1.05 * law.potential(x), algorithm=blackjax.elliptical_slice)
    with pytest.raises(AssertionError):
        assert_agree(chain_z(run(kernel, key, 2, 300, 2000, 64), law))


ALL = {
    "nuts": {},
    "hmc": {"num_integration_steps": 3},
    "mclmc": {},
    "adjusted_mclmc": {},
    "adjusted_mclmc_dynamic": {},
    "mala": {},
    "ghmc": {},
    "barker": {},
    "elliptical_slice": {},
    "slice_sampling": {},
    "sgld": {"step_size": 0.01},
    "adaptive_tempered_smc": {"num_particles": 16},
    "tempered_smc": {"num_particles": 16},
}


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro's, under chain_method=jax.vmap
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", ["sequential", "vectorized", "parallel", jax.vmap])
def test_every_algorithm_and_chain_method(name, method):
    mcmc = MCMC(BlackJAX(model, algorithm=getattr(blackjax, name), **ALL[name]), num_warmup=20, num_samples=5,
                num_chains=2, chain_method=method, progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.key(0), y=DATA, extra_fields=("accept_prob", "num_steps", "step_size", "potential_energy"))
    draws, fields = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)
    assert draws["white"].shape == (2, 5, 3)
    assert np.all(draws["scale"] > 0)
    assert all(v.shape == (2, 5) and np.all(np.isfinite(v)) for v in fields.values())
    # Minus the log joint density, in unconstrained coordinates.
    joint = stats.norm.logpdf(np.log(draws["scale"]) / 0.3) - np.log(0.3)
    joint += stats.norm.logpdf(draws["white"]).sum(-1)
    joint += stats.norm.logpdf(DATA, draws["scale"][..., None] * draws["white"], 0.5).sum(-1)
    np.testing.assert_allclose(fields["potential_energy"], -joint, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_fields_have_the_names_of_arviz():
    mcmc = an_mcmc(BlackJAX(model, algorithm=blackjax.nuts), num_chains=2)
    names = ("accept_prob", "num_steps", "potential_energy", "step_size", "num_grads", "info.energy")
    mcmc.run(jax.random.key(0), y=DATA, extra_fields=names)
    stats_found = to_arviz(mcmc, posterior_predictive=False, log_likelihood=False).sample_stats
    wanted = {"acceptance_rate", "n_steps", "lp", "step_size", "diverging", "energy", "num_grads"}
    assert wanted <= set(stats_found)
    assert np.all(np.asarray(stats_found["n_steps"]) >= 1)
    assert np.all(np.asarray(stats_found["step_size"]) == np.asarray(stats_found["step_size"])[:, :1])


@pytest.mark.slow
def test_warm_up_finds_the_step_size_and_draws_keep_it(key):
    # Acceptance 0.574 within 0.1: dual averaging in 300 iterations, mean over 8 chains of 500 draws.
    mcmc = an_mcmc(BlackJAX(potential_fn=normal, algorithm=blackjax.mala), 300, 500, 8)
    mcmc.run(key, init_params=jnp.ones((8, 10)), extra_fields=("accept_prob", "step_size"))
    fields = mcmc.get_extra_fields(group_by_chain=True)
    assert abs(float(fields["accept_prob"].mean()) - 0.574) < 0.1
    assert np.all(fields["step_size"] == fields["step_size"][:, :1])
    assert len(np.unique(fields["step_size"])) == 8  # each chain its own


@pytest.mark.slow
def test_given_parameters_are_kept():
    kernel = BlackJAX(model, algorithm=blackjax.mala, step_size=0.05)
    mcmc = an_mcmc(kernel)
    mcmc.run(jax.random.key(0), y=DATA, extra_fields=("step_size",))
    np.testing.assert_array_equal(mcmc.get_extra_fields()["step_size"], np.float32(0.05))
    assert mcmc.last_state.parameters == {}


@pytest.mark.slow
def test_options_of_a_warm_up(key):
    warmup = partial(blackjax.window_adaptation, is_mass_matrix_diagonal=False)
    kernel = BlackJAX(potential_fn=normal, algorithm=blackjax.nuts, warmup=warmup)
    mcmc = an_mcmc(kernel)
    mcmc.run(key, init_params=jnp.ones(3))
    assert mcmc.last_state.parameters["inverse_mass_matrix"].shape == (3, 3)


def test_any_function_that_makes_a_sampling_algorithm(key):
    def walk(log_density, scale):
        return blackjax.additive_step_random_walk(log_density, blackjax.mcmc.random_walk.normal(jnp.full(2, scale)))

    mcmc = an_mcmc(BlackJAX(potential_fn=normal, algorithm=walk, scale=0.5))
    mcmc.run(key, init_params=jnp.zeros(2), extra_fields=("accept_prob",))
    assert 0 < float(mcmc.get_extra_fields()["accept_prob"].mean()) < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "needed"),
    [
        ("mclmc", {"L": 1.0, "step_size": 0.3}, False),
        ("mclmc", {}, True),
        ("mclmc", {"L": 1.0, "step_size": 0.3, "desired_energy_var_max_ratio": 1e3}, True),
        ("sgld", {"step_size": 0.01}, False),
        ("mala", {"step_size": 0.3}, True),
    ],
)
def test_what_needs_a_density(name, options, needed, key):
    # A potential with a right gradient and a wrong value gives the same draws, or not.
    @jax.custom_vjp
    def wrong(x):
        return normal(x) + 3 * jnp.sin(40 * x[0])

    wrong.defvjp(lambda x: (wrong(x), x), lambda x, w: (w * x,))
    algorithm = getattr(blackjax, name)
    draws = []
    for potential in (normal, wrong):
        kernel = BlackJAX(potential_fn=potential, algorithm=algorithm, **options)
        assert kernel.needs_density == needed
        mcmc = an_mcmc(kernel, 4, 10)
        mcmc.run(key, init_params=jnp.ones(2))
        draws.append(np.asarray(mcmc.get_samples()))
    assert np.array_equal(*draws) == (not needed)


def test_pickled_kernels_know_their_algorithm():
    kernel = pickle.loads(pickle.dumps(BlackJAX(model, algorithm=blackjax.elliptical_slice)))
    assert kernel._algorithm is blackjax.elliptical_slice


@pytest.mark.slow
def test_sgld_draws_batches_afresh(key):
    # 64 data in batches of 8: the gradient's noise shows in the potential of one point.
    data = np.linspace(-1, 1, 64).astype(np.float32)

    def batches(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", 64, subsample_size=8):
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=numpyro.subsample(y, 0))

    mcmc = an_mcmc(BlackJAX(batches, algorithm=blackjax.sgld, step_size=1e-9))
    mcmc.run(key, data, extra_fields=("potential_energy",))
    assert np.std(mcmc.get_extra_fields()["potential_energy"]) > 1
    with pytest.raises(ValueError, match="plate 'data' subsamples"):
        BlackJAX(batches, algorithm=blackjax.mala).init(key, 10, None, (data,), {})


def discrete(y=None):
    numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)


def empty(y=None):
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)


def single(y=None):
    x = numpyro.sample("x", dist.Normal())
    numpyro.sample("y", dist.Normal(x, 1.0), obs=0.0)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (discrete, {"algorithm": blackjax.nuts}, "'k' is discrete"),
        (empty, {"algorithm": blackjax.nuts}, "no latent site"),
        (single, {"algorithm": blackjax.mclmc}, "two latent numbers"),
        (model, {"algorithm": blackjax.sgld}, "sgld needs `step_size`"),
        (model, {"algorithm": blackjax.nuts, "warmup": False}, "nuts needs `step_size`.*window_adaptation"),
        (model, {"algorithm": blackjax.nuts, "step_size": 0.1}, "finds `step_size` and `inverse_mass_matrix`"),
        (model, {"algorithm": blackjax.mala, "step_size": -0.1}, "must be positive and finite.*got -0.1"),
        (model, {"algorithm": blackjax.mala, "stepsize": 0.1}, "no parameter 'stepsize'; it has .*step_size"),
        (model, {"algorithm": "nuts"}, "such as blackjax.nuts; got .nuts"),
        (model, {"algorithm": blackjax.csgld}, "must be one of BlackJAX's Markov chains"),
        (model, {"algorithm": blackjax.svgd}, "must be one of BlackJAX's Markov chains"),
        (model, {"algorithm": blackjax.pathfinder}, "must be one of BlackJAX's Markov chains"),
        (model, {"algorithm": blackjax.nuts, "warmup": "windows"}, "`warmup` must be True, False or"),
        (None, {"algorithm": blackjax.nuts}, "either `model` or `potential_fn`"),
    ],
)  # fmt: skip
def test_bad_input(target, options, message):
    with pytest.raises(ValueError, match=message):
        BlackJAX(target, **options).init(jax.random.key(0), 10, None, (), {"y": DATA} if target is model else {})


def test_adaptation_needs_warm_up():
    with pytest.raises(ValueError, match="nuts without warm-up iterations needs its parameters"):
        an_mcmc(BlackJAX(model, algorithm=blackjax.nuts), num_warmup=0).run(jax.random.key(0), y=DATA)


def test_a_first_point_that_is_not_finite():
    first = {"scale": jnp.nan, "white": jnp.zeros(3)}
    with pytest.raises(ValueError, match="'scale'"):
        BlackJAX(model, algorithm=blackjax.nuts).init(jax.random.key(0), 10, first, (), {"y": DATA})


def finished(mcmc, key, first):
    """Errors in compiled code show when the draws are looked at."""
    mcmc.run(key, init_params=first)
    return jax.block_until_ready(mcmc.get_samples())


@pytest.mark.slow
def test_a_step_that_is_too_large():
    mcmc = an_mcmc(BlackJAX(potential_fn=normal, algorithm=blackjax.sgld, step_size=5.0), 0, 2000)
    with pytest.raises(Exception, match=r"sgld is unstable at iteration \d+"):
        finished(mcmc, jax.random.key(0), jnp.ones(2))


@pytest.mark.slow
def test_too_few_temperatures(key):
    kernel = BlackJAX(
        potential_fn=lambda x: 0.5 * jnp.sum((x - 30.0) ** 2) * 1e4,
        algorithm=blackjax.adaptive_tempered_smc,
        num_particles=16,
    )
    with pytest.raises(Exception, match="has not reached the posterior within 2 temperatures"):
        finished(an_mcmc(kernel, 2, 2), key, jnp.ones(3))


@pytest.mark.slow
def test_particles_are_not_drawn_twice_without_a_word(key):
    kernel = BlackJAX(potential_fn=normal, algorithm=blackjax.adaptive_tempered_smc, num_particles=16)
    start = jnp.zeros((2, 2))
    finished(an_mcmc(kernel, 10, 16, 2), key, start)  # warnings are errors here
    with pytest.warns(UserWarning, match="has drawn each of its 16 particles") as told:
        finished(an_mcmc(kernel, 10, 34, 2), key, start)
    assert len(told) == 1
