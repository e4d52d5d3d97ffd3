"""Networks as trial spaces: a multilayer perceptron, Fourier features, and a perceptron with gates."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_instance, check_key, check_positive_number
from numpyro_inverse.pinn._box import Box
from numpyro_inverse.pinn.trial._constant import Constant


class MLP(eqx.Module):
    r"""A multilayer perceptron with tanh, of the coordinates mapped to :math:`[-1, 1]^d`.

    Args:
        domain: the box.
        width: of a hidden layer.
        depth: number of hidden layers.
        outputs: the number m of functions of a system; None for one number.
        key: a random key, of Glorot's initialization.
    """

    layers: tuple[eqx.nn.Linear, ...]
    domain: Box

    def __init__(self, domain: Box, *, width: int, depth: int, outputs: int | None = None, key: PRNGKeyArray):
        self.domain = check_instance("MLP", "domain", domain, Box, "a Box")
        self.layers = _layers("MLP", domain.ndim, width, depth, outputs, key)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "*m"]:
        h = self.domain.unit(x)
        for layer in self.layers[:-1]:
            h = jnp.tanh(layer(h))
        return self.layers[-1](h)


class FourierFeatures(eqx.Module):
    r"""A perceptron of :math:`\cos B s, \sin B s`, :math:`B_{ij} \sim N(0, \sigma^2)` fixed, :math:`s \in [-1, 1]^d`.

    Args:
        domain: the box.
        features: number of rows of B.
        bandwidth: :math:`\sigma`, in radians per half side of the box.
        width: of a hidden layer.
        depth: number of hidden layers.
        outputs: the number m of functions of a system; None for one number.
        key: a random key.

    References:
        Tancik et al., NeurIPS 2020; for equations, Wang, Wang & Perdikaris, Comput. Methods Appl. Mech. Eng.
        384 (2021) 113938.
    """

    layers: tuple[eqx.nn.Linear, ...]
    domain: Box
    frequencies: Constant = eqx.field(static=True)

    def __init__(
        self,
        domain: Box,
        *,
        features: int,
        bandwidth: float,
        width: int,
        depth: int,
        outputs: int | None = None,
        key: PRNGKeyArray,
    ):
        here = "FourierFeatures"
        self.domain = check_instance(here, "domain", domain, Box, "a Box")
        bandwidth = check_positive_number(here, "bandwidth", bandwidth)
        key_frequencies, key_layers = jax.random.split(check_key(here, "key", key))
        shape = (check_count(here, "features", features), domain.ndim)
        self.frequencies = Constant(bandwidth * np.asarray(jax.random.normal(key_frequencies, shape)))
        self.layers = _layers(here, 2 * shape[0], width, depth, outputs, key_layers)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "*m"]:
        s = self.domain.unit(x)
        phase = self.frequencies.like(s) @ s
        h = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])
        for layer in self.layers[:-1]:
            h = jnp.tanh(layer(h))
        return self.layers[-1](h)


class ModifiedMLP(eqx.Module):
    r"""A perceptron whose hidden layers mix two embeddings of the point,
    :math:`h \mapsto z \odot U + (1 - z) \odot V`, :math:`z = \tanh(W h + b)`.

    Args:
        domain: the box.
        width: of a hidden layer.
        depth: number of hidden layers.
        outputs: the number m of functions of a system; None for one number.
        key: a random key, of Glorot's initialization.

    References:
        Wang, Teng & Perdikaris, SIAM J. Sci. Comput. 43 (2021) A3055-A3081.
    """

    layers: tuple[eqx.nn.Linear, ...]
    gates: tuple[eqx.nn.Linear, eqx.nn.Linear]
    domain: Box

    def __init__(self, domain: Box, *, width: int, depth: int, outputs: int | None = None, key: PRNGKeyArray):
        here = "ModifiedMLP"
        self.domain = check_instance(here, "domain", domain, Box, "a Box")
        key_layers, first, second = jax.random.split(check_key(here, "key", key), 3)
        self.layers = _layers(here, domain.ndim, width, depth, outputs, key_layers)
        self.gates = (_linear(domain.ndim, width, first), _linear(domain.ndim, width, second))

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "*m"]:
        h = self.domain.unit(x)
        one, other = (jnp.tanh(gate(h)) for gate in self.gates)
        for layer in self.layers[:-1]:
            z = jnp.tanh(layer(h))
            h = z * one + (1 - z) * other
        return self.layers[-1](h)


def _layers(here: str, size: int, width: int, depth: int, outputs: int | None, key: PRNGKeyArray):
    width, depth = check_count(here, "width", width), check_count(here, "depth", depth)
    out = "scalar" if outputs is None else check_count(here, "outputs", outputs)
    keys = jax.random.split(check_key(here, "key", key), depth + 1)
    sizes = [size] + [width] * depth
    hidden = [_linear(a, b, k) for a, b, k in zip(sizes[:-1], sizes[1:], keys[:-1], strict=True)]
    return (*hidden, _linear(width, out, keys[-1]))


def _linear(size: int, out, key: PRNGKeyArray) -> eqx.nn.Linear:
    """Glorot's normal initialization, biases zero."""
    layer = eqx.nn.Linear(size, out, key=key)
    total = size + (1 if out == "scalar" else out)
    weight = jax.random.normal(key, layer.weight.shape, layer.weight.dtype) * np.sqrt(2 / total)
    return eqx.tree_at(
        lambda linear: (linear.weight, linear.bias),
        layer,
        (weight.astype(layer.weight.dtype), jax.tree.map(jnp.zeros_like, layer.bias)),
    )
