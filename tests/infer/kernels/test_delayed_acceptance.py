"""Delayed acceptance: the law of the model whatever the approximation, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from scipy import stats

from numpyro_inverse.infer import DelayedAcceptance
from tests.infer._laws import TARGETS, assert_agree, chain_z, run


def _wide(x):
    """A round Gaussian, off centre: no target's own law."""
    return 0.4 * jnp.sum((x - 0.2) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("local_moves", [0.0, 1.0])
def test_exact(local_moves, key):
    # A Gaussian that is not the approximation, by trajectories and by local moves. False-alarm rate 1e-5.
    target = TARGETS["round Gaussian"]
    kernel = DelayedAcceptance(potential_fn=target.potential, approximation=_wide, local_moves=local_moves)
    assert_agree(chain_z(run(kernel, key, target.size, 500, 1000, 64), target))


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["round Gaussian", "banana", "mixture"])
def test_exact_with_many_draws(name, key):
    # False-alarm rate 1e-5.
    target = TARGETS[name]
    kernel = DelayedAcceptance(potential_fn=target.potential, approximation=_wide)
    assert_agree(chain_z(run(kernel, key, target.size, 1000, 10_000, 128), target))


@pytest.mark.slow
def test_the_test_has_power(key):
    # The approximation without the model's decision.
    target = TARGETS["round Gaussian"]
    kernel = DelayedAcceptance(potential_fn=_wide, approximation=_wide)
    assert np.max(np.abs(chain_z(run(kernel, key, target.size, 500, 1000, 64), target))) > 15


@pytest.mark.slow
def test_acceptance_rate(key):
    """Stationary acceptance, from the reversibility of moves x -> y for the approximation's law, w = U - U~:

    E_pi min(1, e^(w(x) - w(y))) = E_pi~ min(e^-w(x), e^-w(y)) / E_pi~ e^-w.

    Here the model is a standard normal shifted by s, w = s x_1, and the right side comes from a chain on the
    approximation alone; both chains have the same fixed step. Welch's t over 64 chains each, false-alarm rate 1e-5.
    """
    s = 0.8
    round_ = lambda x: 0.5 * jnp.sum(x**2)  # noqa: E731

    def chains(potential, key):
        kernel = DelayedAcceptance(potential_fn=potential, approximation=round_, local_moves=0.0, step_size=0.5)
        mcmc = MCMC(kernel, num_warmup=0, num_samples=600, num_chains=64, chain_method="vectorized", progress_bar=False)
        mcmc.run(key, init_params=jnp.zeros((64, 3)), extra_fields=("accept_prob", "num_grads"))
        fields = mcmc.get_extra_fields(group_by_chain=True)
        assert np.all(fields["num_grads"] == 0)
        x = np.asarray(mcmc.get_samples(group_by_chain=True), float)[:, 100:, 0]
        return x, np.asarray(fields["accept_prob"], float)[:, 100:].mean(axis=1)

    key, key_alone = jax.random.split(key)
    _, accepted = chains(lambda x: round_(x) + s * x[0], key)
    x, _ = chains(round_, key_alone)
    expected = np.exp(-s * np.maximum(x[:, 1:], x[:, :-1]) - s**2 / 2).mean(axis=1)
    assert stats.ttest_ind(accepted, expected, equal_var=False).pvalue > 1e-5
    # A neighbour, s a fifth larger, is told apart.
    larger = np.exp(-1.2 * s * np.maximum(x[:, 1:], x[:, :-1]) - (1.2 * s) ** 2 / 2).mean(axis=1)
    assert stats.ttest_ind(accepted, larger, equal_var=False).pvalue < 1e-5


@pytest.mark.slow
def test_a_perfect_approximation_is_always_accepted(key):
    kernel = DelayedAcceptance(potential_fn=_wide, approximation=_wide)
    mcmc = MCMC(kernel, num_warmup=20, num_samples=50, progress_bar=False)
    mcmc.run(key, init_params=jnp.zeros(3), extra_fields=("accept_prob",))
    np.testing.assert_allclose(mcmc.get_extra_fields()["accept_prob"], 1, atol=1e-5)


def model(y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    x = numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(scale * x, 0.5).to_event(1), obs=y)


def test_other_latent_sites_are_refused():
    def other(y=None):
        numpyro.sample("x", dist.Normal().expand([2]).to_event(1))

    def longer(y=None):
        numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
        numpyro.sample("x", dist.Normal().expand([3]).to_event(1))

    for approximation, site in ((other, "scale"), (longer, "x")):
        kernel = DelayedAcceptance(model, approximation=approximation)
        with pytest.raises(ValueError, match=f"latent sites of `approximation`.*site '{site}'"):
            kernel.init(jax.random.key(0), 0, None, (jnp.zeros(2),), {})


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"approximation": 3}, TypeError, "`approximation` must be a model"),
        ({"step_size": 0.0}, ValueError, "`step_size`"),
        ({"target_accept_prob": 1.0}, ValueError, "`target_accept_prob`"),
        ({"max_tree_depth": 0}, ValueError, "`max_tree_depth`"),
        ({"local_moves": 1.5}, ValueError, "`local_moves`"),
    ],
)
def test_settings(wrong, error, match):
    with pytest.raises(error, match=match):
        DelayedAcceptance(model, **({"approximation": model} | wrong))
