"""Conditional flows as distributions: batches of contexts, against one context at a time and FlowJAX's own density."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax.distributions import Normal as FlowJAXNormal
from flowjax.flows import masked_autoregressive_flow
from numpyro.infer.util import log_density

import numpyro_inverse as ni
from numpyro_inverse.distributions import Flow
from numpyro_inverse.nn import CouplingFlow

START = CouplingFlow(3, layers=2, width=4, bins=0, context=2, key=jax.random.key(0))
FLOW = jax.tree.map(lambda leaf: leaf + 0.1 if eqx.is_inexact_array(leaf) else leaf, START)
CONTEXTS = jnp.array([[0.5, -1.0], [2.0, 0.0], [-1.0, 1.0], [0.0, 0.3]])


@jax.jit
def log_prob(law, x):
    return law.log_prob(x)


@pytest.mark.slow
def test_a_batch_of_contexts_is_a_batch_of_laws(key):
    law = Flow(FLOW, context=CONTEXTS)
    assert law.batch_shape == (4,)
    x = jax.jit(lambda law: law.sample(key, (5,)))(law)
    assert x.shape == (5, 4, 3)
    found = log_prob(law, x)
    for i in range(4):
        one = Flow(FLOW, context=CONTEXTS[i])
        assert one.batch_shape == ()
        np.testing.assert_allclose(found[:, i], log_prob(one, x[:, i]), rtol=1e-5)
    assert np.min(np.abs(np.diff(log_prob(law, x[0, 0])))) > 1e-3  # one value under every context
    z = dist.Normal(0, 1).expand([3]).to_event(1).sample(key, (2, 4))
    image = law.from_base(z)
    np.testing.assert_allclose(image[1, 2], FLOW.forward_and_log_det(z[1, 2], CONTEXTS[2])[0], rtol=1e-5)


def test_draws_have_the_law_that_the_density_says(key):
    """E exp(-log p(x)) over the box where p is large is the box's volume; |z| < 5: a false alarm of 6e-7."""
    law = Flow(FLOW, context=CONTEXTS[:2])
    draws = jax.jit(lambda law: law.sample(key, (20_000,)))(law)
    center, width = draws.mean(axis=0), 0.8 * draws.std(axis=0)
    inside = jnp.all(jnp.abs(draws - center) < width, axis=-1)
    weights = np.asarray(jnp.where(inside, jnp.exp(-log_prob(law, draws)), 0.0), float)
    volume = np.prod(2 * np.asarray(width, float), axis=-1)
    error = weights.std(axis=0) / len(weights) ** 0.5
    assert np.all(np.abs(weights.mean(axis=0) - volume) < 5 * error)
    assert np.all(error < 0.1 * volume)


@pytest.mark.slow
def test_batches_broadcast_with_the_base(key):
    base = dist.Normal(0.0, jnp.array([1.0, 2.0])[:, None, None]).expand([2, 4, 3]).to_event(1)
    law = Flow(FLOW, base, context=CONTEXTS)
    assert law.batch_shape == (2, 4)
    wide = dist.Normal(0.0, 2.0).expand([3]).to_event(1)
    x = law.sample(key)
    expected = log_prob(Flow(FLOW, wide, context=CONTEXTS[3]), x[1, 3])
    np.testing.assert_allclose(log_prob(law, x)[1, 3], expected, rtol=1e-5)
    column = Flow(FLOW, dist.Normal(0, 1).expand([2, 1, 3]).to_event(1), context=CONTEXTS)
    assert column.batch_shape == (2, 4)
    assert column.sample(key, (5,)).shape == (5, 2, 4, 3)
    with pytest.raises(ValueError, match=r"Flow: batch shape \(4,\) of `context` does not broadcast with \(3,\)"):
        Flow(FLOW, dist.Normal(0, 1).expand([3, 3]).to_event(1), context=CONTEXTS)


@pytest.mark.slow
def test_in_a_model(key):
    """A context that is a site, a plate of contexts, and both whitened."""

    def model(data=None):
        c = numpyro.sample("c", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", Flow(FLOW, context=c))
        with numpyro.plate("n", 4):
            numpyro.sample("y", Flow(FLOW, context=CONTEXTS), obs=data)

    c, z = jnp.array([0.3, -0.4]), jnp.ones(3)
    data = jnp.zeros((4, 3))

    def whitened(c):
        return log_density(ni.whiten(model), (data,), {}, {"c": c, "x_latent": z})[0]

    white = dist.Normal(0, 1)
    expected = white.log_prob(c).sum() + white.log_prob(z).sum() + Flow(FLOW, context=CONTEXTS).log_prob(data).sum()
    value, slope = jax.jit(jax.value_and_grad(whitened))(c)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, -c, rtol=1e-5)


@pytest.mark.slow
def test_conditional_flowjax_distributions(key):
    theirs = masked_autoregressive_flow(key, base_dist=FlowJAXNormal(jnp.zeros(3)), cond_dim=2, nn_width=8)
    ours = Flow(theirs, context=CONTEXTS)
    x = ours.sample(key, (2,))
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(x, CONTEXTS), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Flow(FLOW), TypeError, r"`context` is needed, an array of shape \(2,\)"),
        (lambda: Flow(FLOW, context=jnp.zeros((4, 3))), ValueError, r"`context` must have shape \(2,\) .*got \(4, 3\)"),
        (lambda: Flow(FLOW, context=0.0), ValueError, r"`context` must have shape \(2,\) .*got \(\)"),
        (
            lambda: Flow(CouplingFlow(3, layers=1, key=jax.random.key(0)), context=CONTEXTS),
            TypeError,
            "takes no `context`",
        ),
        (
            lambda: Flow(
                dist.transforms.AffineTransform(0.0, 1.0), dist.Normal(0, 1).expand([3]).to_event(1), context=CONTEXTS
            ),
            TypeError,
            "`context` is for conditional bijections",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=f"Flow: .*{message}"):
        make()
