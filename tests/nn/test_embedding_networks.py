"""Networks of contexts: invariances, gradients to every weight, and every shape that is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.nn import (
    ContextEmbedding,
    ConvolutionalNetwork,
    DeepSet,
    RecurrentNetwork,
    TransformerNetwork,
)

KEY = jax.random.key(0)
NETWORKS = {
    "set": (lambda: DeepSet(2, 3, width=8, key=KEY), (5, 2)),
    "recurrent": (lambda: RecurrentNetwork(2, 3, width=8, key=KEY), (5, 2)),
    "transformer": (lambda: TransformerNetwork(2, 3, width=8, depth=1, heads=2, key=KEY), (5, 2)),
    "series": (lambda: ConvolutionalNetwork((7,), 3, width=4, depth=2, key=KEY), (7,)),
    "channels": (lambda: ConvolutionalNetwork((7, 2), 3, width=4, depth=2, grid_axes=1, key=KEY), (7, 2)),
    "image": (lambda: ConvolutionalNetwork((6, 5), 3, width=4, depth=2, key=KEY), (6, 5)),
}


def inputs(shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_weight_and_every_number_matters(name):
    """A vector of the size that was asked for; no gradient is zero, by weights or by inputs, and all are finite."""
    make, shape = NETWORKS[name]
    network, x = make(), inputs(shape)
    mix = jnp.array([1.0, -0.5, 0.3])

    @eqx.filter_jit
    def gradients(network, x):
        return eqx.filter_grad(lambda both: mix @ both[0](both[1]) + 0.1 * jnp.sum(both[0](both[1]) ** 2))((network, x))

    assert jax.eval_shape(network, x).shape == (3,)
    of_network, of_x = gradients(network, x)
    assert np.all(np.abs(of_x) > 0)
    for leaf in jax.tree.leaves(of_network):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)
    assert ContextEmbedding(shape, network, data=np.ones((2, *shape))).size == 3


@pytest.mark.slow
def test_the_order_of_a_set_has_no_effect(x64):
    """Up to rounding; the order of a series has one, and so has the number of rows of a set."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    order = np.array([3, 0, 4, 1, 2])
    network = eqx.filter_jit(NETWORKS["set"][0]())
    np.testing.assert_allclose(network(x[order]), network(x), rtol=1e-12)
    assert not np.allclose(network(jnp.concatenate([x, x])), network(x))
    for name in ("recurrent", "transformer"):
        network = eqx.filter_jit(NETWORKS[name][0]())
        assert not np.allclose(network(x[order]), network(x))
        assert network(x[:3]).shape == (3,)


@pytest.mark.slow
def test_convolutions_are_those_of_jax(x64):
    """One layer of 3 x 3 at every second place, padded by zeros."""
    network = ConvolutionalNetwork((6, 5, 2), 3, width=4, depth=1, grid_axes=2, key=KEY)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5, 2)))
    kernel = network.layers[0].weight.reshape(4, 3, 3, 2)
    found = jax.lax.conv_general_dilated(
        x[None], kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "OHWI", "NHWC")
    )[0]
    expected = network.last(jax.nn.gelu(found + network.layers[0].bias).ravel())
    np.testing.assert_allclose(eqx.filter_jit(network)(x), expected, rtol=1e-12)


def test_rows_share_their_standardization():
    """Of a context of exchangeable rows, so that their order has no effect at all."""
    data = np.random.default_rng(0).normal(size=(50, 4, 2)) * [3, 5] + [10, 20]
    embedding = ContextEmbedding((4, 2), DeepSet(2, 3, width=8, key=KEY), data=data, shared_axes=(0,))
    np.testing.assert_allclose(embedding.mean, np.tile(data.mean(axis=(0, 1)), (4, 1)), rtol=1e-6)
    np.testing.assert_allclose(embedding.scale, np.tile(data.std(axis=(0, 1)), (4, 1)), rtol=1e-6)
    x = jnp.asarray(data[0], jnp.float32)
    embed = eqx.filter_jit(embedding)
    np.testing.assert_allclose(embed(x[::-1]), embed(x), rtol=1e-5)
    for axes in ((2,), 0, (-1,)):
        with pytest.raises(ValueError, match=r"ContextEmbedding: `shared_axes` must be axes of a context"):
            ContextEmbedding((4, 2), data=data, shared_axes=axes)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_arrays_of_other_shapes(name):
    make, shape = NETWORKS[name]
    for other in ((*shape[:-1], shape[-1] + 1), (*shape, 1), ()):
        with pytest.raises(ValueError, match=r"the array must (be rows of 2 numbers|have shape)"):
            make()(jnp.zeros(other))


def test_one_number_a_row():
    network = DeepSet(1, 2, width=4, key=KEY)
    called = eqx.filter_jit(network)
    np.testing.assert_array_equal(called(jnp.arange(3.0)), called(jnp.arange(3.0)[:, None]))


def test_bad_sizes():
    for make in (DeepSet, RecurrentNetwork, TransformerNetwork):
        with pytest.raises(TypeError, match=f"{make.__name__}: `size` must be an integer"):
            make(1.5, 2, key=KEY)
        with pytest.raises(ValueError, match=f"{make.__name__}: `out` must be 1 or more"):
            make(2, 0, key=KEY)
    with pytest.raises(ValueError, match="TransformerNetwork: `width` must be even and a multiple of `heads`, 4"):
        TransformerNetwork(2, 3, width=6, key=KEY)
    with pytest.raises(ValueError, match="ConvolutionalNetwork: `shape` must be 1 or 2 sides of a grid"):
        ConvolutionalNetwork((4, 4, 4), 3, key=KEY)
    with pytest.raises(ValueError, match="ConvolutionalNetwork: `depth` must be 1 or more"):
        ConvolutionalNetwork((4, 4), 3, depth=0, key=KEY)
