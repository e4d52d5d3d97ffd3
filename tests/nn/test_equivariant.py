"""Networks that commute with a group, measured by ``check_equivariance``."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.denoisers import square_symmetries
from numpyro_inverse.nn import (
    Canonicalized,
    P4MConvolution,
    P4MLifting,
    ReynoldsAverage,
    circular_convolution,
    p4m_pool,
)
from numpyro_inverse.symmetry import (
    CyclicShift,
    FiniteGroup,
    GlobalPhase,
    Permutation,
    Rotation90,
    SignFlip,
    check_equivariance,
)

RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.normal(size=(1, 6, 6)), jnp.float32)
SIGNAL = jnp.asarray(RNG.normal(size=8), jnp.float32)
WEIGHTS = jnp.asarray(RNG.normal(size=(8, 8)), jnp.float32)
SQUARE = FiniteGroup([lambda x, act=act: act(x[0])[None] for act in square_symmetries()], (1, 6, 6))
ROUNDING = 1e-5


def plain(x):
    """A network without symmetry."""
    return jnp.tanh(WEIGHTS @ x + 0.3)


def violation(f, group_in, group_out, x):
    return check_equivariance(eqx.filter_jit(f), group_in, group_out, x, num_elements=8).violation


@pytest.mark.parametrize(
    "group", [SignFlip(), CyclicShift((8,)), CyclicShift((8,)) * SignFlip()], ids=["sign", "shift", "both"]
)
@pytest.mark.parametrize("wrapper", [ReynoldsAverage, Canonicalized])
def test_a_wrapped_network_is_equivariant(wrapper, group):
    assert violation(plain, group, group, SIGNAL) > 0.1
    assert violation(wrapper(plain, group, group), group, group, SIGNAL) < ROUNDING
    assert violation(wrapper(plain, group, None), group, None, SIGNAL) < ROUNDING
    value = eqx.filter_jit(wrapper(plain, group, group))(SIGNAL)
    assert np.linalg.norm(value) > 0.1  # and not because it is zero


@pytest.mark.slow
def test_canonical_forms_serve_infinite_groups_and_permutations():
    z = jnp.asarray(RNG.normal(size=8) + 1j * RNG.normal(size=8), jnp.complex64)
    assert violation(plain, GlobalPhase(), GlobalPhase(), z) > 0.1
    assert violation(Canonicalized(plain, GlobalPhase(), GlobalPhase()), GlobalPhase(), GlobalPhase(), z) < ROUNDING
    group = Permutation(8)
    assert violation(Canonicalized(plain, group, group, SIGNAL[::-1]), group, group, SIGNAL) < ROUNDING


def test_a_reynolds_average_is_the_mean_of_all_elements():
    found = ReynoldsAverage(plain, SignFlip(), SignFlip())(SIGNAL)
    np.testing.assert_allclose(found, (plain(SIGNAL) - plain(-SIGNAL)) / 2, rtol=1e-5)


@eqx.filter_jit
def p4m_network(layers, x):
    lifting, hidden, last = layers
    return p4m_pool(last(jax.nn.gelu(hidden(jax.nn.gelu(lifting(x))))))


def p4m_layers(key):
    keys = jax.random.split(key, 3)
    return P4MLifting(1, 2, key=keys[0]), P4MConvolution(2, 3, key=keys[1]), P4MConvolution(3, 1, key=keys[2])


@pytest.mark.slow
def test_p4m_layers_commute_with_turns_mirror_images_and_shifts(key):
    layers = p4m_layers(key)

    def network(x):
        return p4m_network(layers, x)

    for group in (SQUARE, CyclicShift((6, 6)), Rotation90()):
        assert violation(network, group, group, IMAGE) < ROUNDING
    assert np.std(network(IMAGE)) > 1e-3
    # The directions are used: a mean taken after the first layer would lose them.
    early = p4m_layers(key)[1](jnp.broadcast_to(p4m_pool(layers[0](IMAGE))[:, None], (2, 8, 6, 6)))
    assert np.max(np.abs(early - layers[1](layers[0](IMAGE)))) > 1e-3


@pytest.mark.slow
def test_a_wrong_order_of_the_directions_is_seen(key, monkeypatch):
    from numpyro_inverse.nn import _equivariant_convolutions as module

    monkeypatch.setattr(module, "PLACES", np.argsort(module.PLACES, axis=1))  # the inverse table
    layers = p4m_layers(key)

    def network(x):
        return p4m_pool(layers[2](jax.nn.gelu(layers[1](jax.nn.gelu(layers[0](x))))))

    assert violation(network, SQUARE, SQUARE, IMAGE) > 1e-3


@pytest.mark.slow
def test_circular_convolutions_commute_with_shifts(key):
    layer = circular_convolution(2, 1, 2, 5, key=key)
    group = CyclicShift((6, 6))
    assert violation(layer, group, group, IMAGE) < ROUNDING
    assert violation(eqx.nn.Conv2d(1, 2, 5, padding=2, key=key), group, group, IMAGE) > 1e-2
    line = circular_convolution(1, 1, 1, key=key)
    assert violation(line, CyclicShift((8,)), CyclicShift((8,)), SIGNAL[None]) < ROUNDING


@pytest.mark.slow
def test_the_wrappers_train(key):
    """Gradients flow into the network, and the group is no parameter."""
    network = eqx.nn.Linear(8, 8, key=key)
    for wrapper in (ReynoldsAverage, Canonicalized):
        wrapped = wrapper(network, CyclicShift((8,)), CyclicShift((8,)))
        slope = eqx.filter_grad(lambda f: jnp.sum(f(SIGNAL) ** 2))(wrapped)
        leaves = jax.tree.leaves(slope)
        assert len(leaves) == 2
        assert all(np.any(leaf != 0) for leaf in leaves)


def test_bad_input(key):
    with pytest.raises(TypeError, match="`network` must be a function"):
        ReynoldsAverage(3, SignFlip(), None)
    with pytest.raises(TypeError, match="`group_in` must be a group"):
        Canonicalized(plain, "signs", None)
    with pytest.raises(TypeError, match="`group_out` must be a group"):
        Canonicalized(plain, SignFlip(), "signs")
    with pytest.raises(ValueError, match="infinitely many"):
        ReynoldsAverage(plain, GlobalPhase(), GlobalPhase())
    with pytest.raises(ValueError, match="`kernel_size` must be odd"):
        P4MLifting(1, 1, 4, key=key)
    with pytest.raises(ValueError, match="`in_channels` must be 1 or more"):
        P4MConvolution(0, 1, key=key)
    with pytest.raises(TypeError, match="`out_channels` must be an integer"):
        circular_convolution(2, 1, 1.5, key=key)
