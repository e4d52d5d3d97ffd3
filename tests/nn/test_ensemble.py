"""Mixtures of fits: their density, their draws, and what is no ensemble."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from numpyro_inverse.nn import AutoregressiveFlow, Ensemble, FlowMatching, MixtureAutoregressive

KEYS = jax.random.split(jax.random.key(0), 3)


def normal(mean, key):
    """Two components; numbers with this mean and standard deviation 1 until they are trained."""
    rows = mean + np.random.default_rng(0).normal(size=(500, 1))
    return MixtureAutoregressive(1, components=2, width=4, context=2, data=(rows, np.zeros((500, 2))), key=key)


MEANS = (-3.0, 0.0, 3.0)
C = jnp.array([0.4, -1.0])


def test_the_density_is_the_mean_of_the_members():
    members = [normal(mean, key) for mean, key in zip(MEANS, KEYS, strict=True)]
    law = Ensemble(members)
    assert law.shape == (1,)
    assert law.context_shape == (2,)
    x = jnp.linspace(-5, 5, 41)[:, None]

    @eqx.filter_jit
    def densities(law, members):
        return jax.vmap(law.log_prob, (0, None))(x, C), [jax.vmap(m.log_prob, (0, None))(x, C) for m in members]

    found, each = densities(law, members)
    np.testing.assert_allclose(np.exp(found), np.exp(each).mean(axis=0), rtol=1e-5)
    on_host = [jax.tree.map(lambda v: np.asarray(v) if eqx.is_array(v) else v, member) for member in members]
    read = Ensemble(on_host)
    np.testing.assert_array_equal(densities(read, members)[0], found)
    for given, kept in zip(members, law.members, strict=True):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(given), jax.tree.leaves(kept))


@pytest.mark.slow
def test_draws_have_that_law():
    """Kolmogorov and Smirnov at 1e-4, 20,000 draws against the distribution function by quadrature; of draws of two
    members only, or with weights 1 : 1 : 2, it finds p < 1e-30."""
    law = Ensemble([normal(mean, key) for mean, key in zip(MEANS, KEYS, strict=True)])
    draws = jax.jit(jax.vmap(law.sample, (0, None)))(jax.random.split(jax.random.key(1), 20_000), C)[:, 0]
    x = np.linspace(-12, 12, 4001)
    density = np.exp(np.asarray(jax.vmap(law.log_prob, (0, None))(jnp.asarray(x)[:, None], C), float))
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
    np.testing.assert_allclose(below[-1], 1, atol=1e-4)
    assert stats.kstest(np.asarray(draws, float), lambda v: np.interp(v, x, below)).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AutoregressiveFlow, FlowMatching])
def test_members_of_any_kind(kind):
    """Without a context, too."""
    members = [kind(2, key=key) for key in KEYS[:2]]
    law, x = Ensemble(members), jnp.array([0.3, -0.2])
    mean = np.logaddexp(*(float(member.log_prob(x)) for member in members)) - np.log(2)
    np.testing.assert_allclose(law.log_prob(x), mean, rtol=1e-5)
    assert law.sample(jax.random.key(1)).shape == (2,)


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        (list, ValueError, "`members` is empty"),
        (lambda: "ab", TypeError, "`members` must be a sequence of modules; got str"),
        (lambda: [jnp.ones(3)], TypeError, "`members` must have the methods `log_prob` and `sample`"),
        (
            lambda: [MixtureAutoregressive(1, width=width, key=KEYS[0]) for width in (4, 5)],
            ValueError,
            "`members` 0 and 1 differ in more than the numbers",
        ),
        (
            lambda: [MixtureAutoregressive(1, width=4, context=c, key=KEYS[0]) for c in (None, 2)],
            ValueError,
            "`members` 0 and 1 differ in more than the numbers",
        ),
    ],
)
def test_bad_members(members, error, message):
    with pytest.raises(error, match=f"Ensemble: {message}"):
        Ensemble(members())
