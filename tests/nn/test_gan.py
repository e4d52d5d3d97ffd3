"""Adversarial training: a linear generator learns a Gaussian; the held-out score; input checks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_inverse.calibration import mmd
from numpyro_inverse.nn import energy_score, fit_gan

BASE = dist.Normal(0, 1).expand([2]).to_event(1)
MEAN, COVARIANCE = np.array([1.0, -0.5]), np.array([[1.0, 0.6], [0.6, 0.8]])


def networks(key):
    first, second = jax.random.split(key)
    return eqx.nn.Linear(2, 2, key=first), eqx.nn.MLP(2, "scalar", 32, 2, activation=jax.nn.softplus, key=second)


@pytest.mark.slow
def test_linear_generator_learns_a_gaussian(key):
    """Mean and covariance within 0.1, and no difference in 500 draws by the MMD test at level 1e-3."""
    data, drawn, tested = jax.random.split(key, 3)
    law = dist.MultivariateNormal(MEAN, COVARIANCE)
    generator, critic = networks(key)
    fit = fit_gan(
        generator, critic, np.asarray(law.sample(data, (4000,))), base=BASE, key=key, batch_size=200, max_epochs=60,
        learning_rate=0.01, critic_steps=2, penalty=1.0, patience=60, gradient_norm=10.0, progress_bar=False,
    )  # fmt: skip
    weight = np.asarray(fit.module.weight, float)
    np.testing.assert_allclose(fit.module.bias, MEAN, atol=0.1)
    np.testing.assert_allclose(weight @ weight.T, COVARIANCE, atol=0.1)
    made = jax.vmap(fit.module)(BASE.sample(drawn, (500,)))
    assert mmd(made, law.sample(tested, (500,)), key).p_value > 1e-3
    assert fit.held_out_loss[fit.best_epoch] == min(fit.held_out_loss) < fit.held_out_loss[0]


def test_energy_score(key):
    """In one dimension E|x - y| = 2 s phi(m / s) + m (2 Phi(m / s) - 1), s^2 the sum of variances; |z| < 5."""
    first, second = jax.random.split(key)
    x = jax.random.normal(first, (200, 100, 1))
    y = 1 + 2 * jax.random.normal(second, (200, 50, 1))
    found = np.asarray(jax.vmap(energy_score)(x, y), float)
    s = np.sqrt(5.0)
    white = dist.Normal(0, 1)
    across = 2 * s * jnp.exp(white.log_prob(1 / s)) + 2 * white.cdf(1 / s) - 1
    assert abs(found.mean() - (2 * across - 2 / np.sqrt(np.pi))) < 5 * found.std() / np.sqrt(len(found))


@pytest.mark.slow
def test_one_step_of_the_generator_in_many(key):
    """The generator moves with every ``critic_steps``-th step only."""
    generator, critic = networks(key)
    rows = np.asarray(BASE.sample(key, (45,)))
    options = {"base": BASE, "key": key, "batch_size": 10, "max_epochs": 1, "progress_bar": False}
    still = fit_gan(generator, critic, rows, critic_steps=5, **options).module  # four steps
    np.testing.assert_array_equal(still.weight, generator.weight)
    moved = fit_gan(generator, critic, rows, critic_steps=2, **options).module
    assert not np.array_equal(moved.weight, generator.weight)


def test_bad_input(key):
    generator, critic = networks(key)
    rows = np.ones((300, 2))
    with pytest.raises(TypeError, match="`base` must be a NumPyro distribution"):
        fit_gan(generator, critic, rows, base=2, key=key)
    with pytest.raises(ValueError, match=r"`base` must have no batch shape.*\(2,\)"):
        fit_gan(generator, critic, rows, base=dist.Normal(0, 1).expand([2]), key=key)
    with pytest.raises(TypeError, match="`critic` must be a function"):
        fit_gan(generator, 3, rows, base=BASE, key=key)
    with pytest.raises(ValueError, match=r"`generator` does not take an array of shape \(3,\)"):
        fit_gan(generator, critic, rows, base=dist.Normal(0, 1).expand([3]).to_event(1), key=key)
    with pytest.raises(ValueError, match=r"`critic` does not take an array of shape \(3,\)"):
        fit_gan(eqx.nn.Linear(2, 3, key=key), critic, rows, base=BASE, key=key)
    with pytest.raises(ValueError, match="`critic` must return one number"):
        fit_gan(generator, generator, rows, base=BASE, key=key)
    with pytest.raises(ValueError, match=r"rows of `data` have shape \(3,\); the networks are for \(2,\)"):
        fit_gan(generator, critic, np.ones((300, 3)), base=BASE, key=key)
    with pytest.raises(ValueError, match="fit_gan: `data` holds numbers that are not finite"):
        fit_gan(generator, critic, np.full((300, 2), np.nan), base=BASE, key=key)
    with pytest.raises(ValueError, match="`critic_steps` must be 1 or more"):
        fit_gan(generator, critic, rows, base=BASE, key=key, critic_steps=0)
    with pytest.raises(ValueError, match="`batch_size` must be 2 or more"):
        fit_gan(generator, critic, rows, base=BASE, key=key, batch_size=1)
    for x, y in ((rows[:1], rows), (rows, rows[:0]), (rows, rows[:, :1])):
        with pytest.raises(ValueError, match="energy_score: `x` must be two draws or more"):
            energy_score(x, y)
    with pytest.raises(ValueError, match="`penalty`"):
        fit_gan(generator, critic, rows, base=BASE, key=key, penalty=-1.0)
