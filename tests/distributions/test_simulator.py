"""A simulator's site: it draws as its program does, wherever the site stands, and refuses to be evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS, Predictive

from numpyro_inverse._model import abstract_trace
from numpyro_inverse.distributions import Simulator


def _normal(key, loc, scale):
    return loc + scale * random.normal(key)


def _pair(key, theta, noise):
    return theta[0] + noise * random.normal(key, (3,)) * theta[1]


def test_a_draw_is_what_the_program_gives_for_a_key_of_its_own(key):
    law = Simulator(_normal, jnp.arange(4.0), jnp.asarray([[1.0], [0.0]]))
    assert (law.batch_shape, law.event_shape) == ((2, 4), ())
    draws = law.sample(key, (5,))
    assert draws.shape == (5, 2, 4)
    np.testing.assert_array_equal(draws[:, 1], np.broadcast_to(np.arange(4.0), (5, 4)))
    noise = np.asarray(draws[:, 0] - np.arange(4.0)).ravel()
    assert len(np.unique(noise)) == noise.size
    keys = random.split(key, (5, 8))
    np.testing.assert_allclose(draws[2, 0, 3], _normal(keys[2, 3], 3.0, 1.0), rtol=1e-6)


def test_axes_of_one_simulation_are_not_batch_axes(key):
    theta = jnp.stack([jnp.arange(6.0), jnp.ones(6)], axis=-1)
    law = Simulator(_pair, theta, 1e-3, event_dims=(1, 0))
    assert (law.batch_shape, law.event_shape) == ((6,), (3,))
    np.testing.assert_allclose(law.sample(key), np.arange(6.0)[:, None] * np.ones(3), atol=0.01)


def test_mean_and_variance_of_the_draws(key):
    # Normal(2, 0.5): limits of 4.9 standard errors each, two of them, false alarm 2e-6.
    draws = np.asarray(Simulator(_normal, 2.0, 0.5).sample(key, (20_000,)), float)
    n = draws.size
    assert abs(draws.mean() - 2) < 4.9 * 0.5 / np.sqrt(n)
    assert abs(draws.var() - 0.25) < 4.9 * 0.25 * np.sqrt(2 / n)


def _model(x=None):
    with numpyro.plate("units", 4):
        loc = numpyro.sample("loc", dist.Normal(0, 1))
        numpyro.sample("x", Simulator(_normal, loc, 0.1), obs=x)


def test_it_stands_in_plates_and_predicts(key):
    draws = Predictive(_model, num_samples=50)(key)
    assert draws["x"].shape == draws["loc"].shape == (50, 4)
    assert np.abs(draws["x"] - draws["loc"]).max() < 0.1 * 6
    site = abstract_trace(_model)["x"]
    assert site["fn"].batch_shape == (4,)


def test_it_crosses_jit_and_vmap_with_a_program_that_holds_arrays(key):
    weights = np.asarray([1.0, 2.0])

    def draw(loc):
        law = Simulator(jax.tree_util.Partial(lambda w, key, loc: loc * w, weights), loc)
        return jax.jit(lambda law: law.sample(key))(law)

    np.testing.assert_allclose(jax.vmap(draw)(jnp.arange(3.0)), np.arange(3.0)[:, None] * weights)


def test_expanded_draws_are_independent(key):
    draws = Simulator(_normal, 0.0, 1.0).expand([7]).to_event(1).sample(key)
    assert draws.shape == (7,)
    assert len(np.unique(draws)) == 7


def test_double_precision(x64, key):
    law = Simulator(_normal, jnp.asarray(1.0), 1e-12)
    assert law.sample(key, (3,)).dtype == jnp.float64
    assert np.ptp(law.sample(key, (100,))) > 1e-13


def test_the_support_is_what_was_declared():
    count = lambda key, rate: random.poisson(key, rate, (3,))  # noqa: E731
    law = Simulator(count, 4.0, support=constraints.nonnegative_integer)
    assert law.support.is_discrete
    assert law.support.event_dim == 1
    assert bool(law.support(jnp.asarray([0, 1, 2])))
    assert not bool(law.support(jnp.asarray([0, -1, 2])))


def test_a_density_is_refused_with_the_remedy(key):
    with pytest.raises(NotImplementedError, match=r"sbi\.NLE.*NPE"):
        Simulator(_normal, 0.0, 1.0).log_prob(0.0)
    with pytest.raises(NotImplementedError, match=r"sbi\.NLE"):
        MCMC(NUTS(_model), num_warmup=1, num_samples=1, progress_bar=False).run(key, x=jnp.zeros(4))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Simulator(3), TypeError, "`fn` must be a function"),
        (lambda: Simulator(_normal, "a", 1.0), TypeError, r"`args\[0\]` must be real numbers"),
        (lambda: Simulator(_normal, 0.0, 1.0, support="positive"), TypeError, "`support` must be a NumPyro constraint"),
        (lambda: Simulator(_normal, 0.0), ValueError, "does not take a random key and arguments of shapes"),
        (lambda: Simulator(_pair, jnp.zeros(2), 1.0), ValueError, "`event_dims` tells how many axes"),
        (lambda: Simulator(_normal, jnp.zeros(2), jnp.zeros(3)), ValueError, "do not broadcast"),
        (lambda: Simulator(_normal, 0.0, 1.0, event_dims=1), ValueError, "fewer axes than the 1"),
        (lambda: Simulator(_normal, 0.0, 1.0, event_dims=(0,)), ValueError, "1 numbers for 2 arguments"),
        (lambda: Simulator(_normal, 0.0, 1.0, event_dims=-1), ValueError, "`event_dims` must be an integer of 0"),
        (lambda: Simulator(lambda key: (1.0, 2.0)), ValueError, "must return one array"),
        (lambda: Simulator(lambda key: 1j * random.normal(key)), ValueError, "of real numbers"),
        (lambda: Simulator(_normal, 0.0, 1.0, support=constraints.simplex), ValueError, "events of 1 axes or more"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
