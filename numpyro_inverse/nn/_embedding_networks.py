"""Networks that make a vector of one array: of exchangeable rows, of series, and of what lies on a grid."""

from __future__ import annotations

from itertools import product
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key, check_real
from numpyro_inverse.nn._networks import check_counts, check_sides


class DeepSet(eqx.Module):
    r"""Exchangeable rows to a vector: :math:`\rho(\frac{1}{n} \sum_i \phi(x_i), \log n)`, with multilayer perceptrons
    :math:`\phi` and :math:`\rho`; the order of the rows has no effect, and their number may change.

    >>> network = nn.DeepSet(2, 8, key=jax.random.key(0))
    >>> embedding = nn.ContextEmbedding((20, 2), network, shared_axes=(0,))

    Args:
        size: numbers in a row.
        out: numbers in the vector.
        width: of the hidden layers, and numbers in the mean.
        key: of the initial weights.

    Raises:
        TypeError, ValueError: a size that is no integer or not positive; ``key`` is no random key; when called, an
            array of another shape than (n, size), or (n,) if ``size`` is 1.

    References:
        Zaheer, Kottur, Ravanbakhsh, Póczos, Salakhutdinov & Smola, NeurIPS 2017, theorem 2.
    """

    each: eqx.nn.MLP
    together: eqx.nn.MLP
    size: int = eqx.field(static=True)

    def __init__(self, size: int, out: int, *, width: int = 64, key: PRNGKeyArray):
        check_counts("DeepSet", size=size, out=out, width=width)
        each, together = jax.random.split(check_key("DeepSet", "key", key))
        self.each = eqx.nn.MLP(size, width, width, 2, jax.nn.gelu, key=each)
        self.together = eqx.nn.MLP(width + 1, out, width, 1, jax.nn.gelu, key=together)
        self.size = size

    def __call__(self, x: Float[Array, "n size"]) -> Float[Array, " out"]:
        x = _rows("DeepSet", x, self.size)
        mean = jnp.mean(jax.vmap(self.each)(x), axis=0)
        return self.together(jnp.append(mean, jnp.log(jnp.asarray(len(x), mean.dtype))))


class RecurrentNetwork(eqx.Module):
    """A series to a vector: gated recurrent units from its first row to its last, and a linear map of the last state.

    Args:
        size: numbers in a row, one row for each time; the number of times may change.
        out: numbers in the vector.
        width: of the state.
        key: of the initial weights.

    Raises:
        TypeError, ValueError: a size that is no integer or not positive; ``key`` is no random key; when called, an
            array of another shape than (n, size), or (n,) if ``size`` is 1.

    References:
        Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk & Bengio, EMNLP 2014, section 2.3.
    """

    cell: eqx.nn.GRUCell
    last: eqx.nn.Linear
    size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, size: int, out: int, *, width: int = 64, key: PRNGKeyArray):
        check_counts("RecurrentNetwork", size=size, out=out, width=width)
        cell, last = jax.random.split(check_key("RecurrentNetwork", "key", key))
        self.cell = eqx.nn.GRUCell(size, width, key=cell)
        self.last = eqx.nn.Linear(width, out, key=last)
        self.size, self.width = size, width

    def __call__(self, x: Float[Array, "n size"]) -> Float[Array, " out"]:
        x = _rows("RecurrentNetwork", x, self.size)
        start = jnp.zeros(self.width, x.dtype)
        state = jax.lax.scan(lambda state, row: (self.cell(row, state).astype(x.dtype), None), start, x)[0]
        return self.last(state)


class TransformerNetwork(eqx.Module):
    r"""A series to a vector: blocks of self-attention, each row with its place as sines and cosines, and a linear map
    of the mean over the rows.

    Args:
        size: numbers in a row, one row for each time; the number of times may change.
        out: numbers in the vector.
        width: numbers for each row within, an even multiple of ``heads``.
        depth: blocks.
        heads: of each attention.
        key: of the initial weights.

    Raises:
        TypeError, ValueError: a size that is no integer or not positive; ``key`` is no random key; a width that does
            not fit; when called, an array of another shape than (n, size), or (n,) if ``size`` is 1.

    References:
        Vaswani et al., NeurIPS 2017, sections 3.2, 3.3 and 3.5 (places); Xiong et al., ICML 2020 (the normalizations
        before, not after).
    """

    first: eqx.nn.Linear
    attentions: tuple[eqx.nn.MultiheadAttention, ...]
    networks: tuple[eqx.nn.MLP, ...]
    norms: tuple[tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm], ...]
    last: eqx.nn.Linear
    size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, size: int, out: int, *, width: int = 32, depth: int = 2, heads: int = 4, key: PRNGKeyArray):
        check_counts("TransformerNetwork", size=size, out=out, width=width, depth=depth, heads=heads)
        check_key("TransformerNetwork", "key", key)
        if width % heads or width % 2:
            raise ValueError(
                f"TransformerNetwork: `width` must be even and a multiple of `heads`, {heads}; got {width}."
            )
        keys = jax.random.split(key, 2 * depth + 2)
        self.first = eqx.nn.Linear(size, width, key=keys[0])
        self.last = eqx.nn.Linear(width, out, key=keys[1])
        self.attentions = tuple(eqx.nn.MultiheadAttention(heads, width, key=k) for k in keys[2 : depth + 2])
        self.networks = tuple(eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=k) for k in keys[depth + 2 :])
        self.norms = tuple((eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)) for _ in range(depth))
        self.size, self.width = size, width

    def __call__(self, x: Float[Array, "n size"]) -> Float[Array, " out"]:
        x = _rows("TransformerNetwork", x, self.size)
        rates = jnp.exp(-jnp.log(1e4) * jnp.arange(self.width // 2) / (self.width // 2))
        angles = (jnp.arange(len(x))[:, None] * rates).astype(x.dtype)
        y = jax.vmap(self.first)(x) + jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
        for attention, network, (before, between) in zip(self.attentions, self.networks, self.norms, strict=True):
            seen = jax.vmap(before)(y)
            y = y + attention(seen, seen, seen)
            y = y + jax.vmap(network)(jax.vmap(between)(y))
        return self.last(jnp.mean(y, axis=0))


class ConvolutionalNetwork(eqx.Module):
    """What lies on a grid of one or two dimensions to a vector: convolutions over 3 (x 3) places that halve the grid
    and double the channels, and a linear map of all that is left.

    Args:
        shape: of the array: the sides of the grid, and the channels if there is another axis.
        out: numbers in the vector.
        width: channels after the first convolution.
        depth: convolutions.
        grid_axes: 1 or 2; the rest of ``shape`` is the channels. Default: all axes.
        key: of the initial weights.

    Raises:
        TypeError, ValueError: a size that is no integer or not positive; ``key`` is no random key; a shape with another
            number of axes; when called, an array of another shape.

    References:
        LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86 (1998), section II.
    """

    layers: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear
    shape: tuple[int, ...] = eqx.field(static=True)
    grid_axes: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        out: int,
        *,
        width: int = 16,
        depth: int = 3,
        grid_axes: int | None = None,
        key: PRNGKeyArray,
    ):
        name = "ConvolutionalNetwork"
        shape = check_sides(name, "shape", shape)
        axes = len(shape) if grid_axes is None else grid_axes
        check_counts(name, out=out, width=width, depth=depth)
        check_counts(name, 1 if grid_axes is not None else 0, grid_axes=axes)
        check_key(name, "key", key)
        if not 1 <= axes <= 2 or len(shape) - axes not in (0, 1):
            raise ValueError(
                f"{name}: `shape` must be 1 or 2 sides of a grid, and perhaps channels (then say `grid_axes`); got "
                f"{shape} with {axes} axes of the grid."
            )
        keys = jax.random.split(key, depth + 1)
        sides, channels, layers = shape[:axes], prod(shape[axes:]), []
        for i in range(depth):
            layers.append(eqx.nn.Linear(3**axes * channels, width * 2**i, key=keys[i]))
            channels, sides = width * 2**i, tuple((side + 1) // 2 for side in sides)
        self.layers = tuple(layers)
        self.last = eqx.nn.Linear(prod(sides) * channels, out, key=keys[-1])
        self.shape, self.grid_axes = shape, axes

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, " out"]:
        x = jnp.asarray(check_real("ConvolutionalNetwork", "x", x))
        if x.shape != self.shape:
            raise ValueError(f"ConvolutionalNetwork: the array must have shape {self.shape} (`x`); got {x.shape}.")
        y = x.reshape(*self.shape[: self.grid_axes], -1)
        for layer in self.layers:
            y = jax.nn.gelu(_strided(layer, y, self.grid_axes))
        return self.last(y.ravel())


def _strided(layer: eqx.nn.Linear, x: Array, axes: int) -> Array:
    """The convolution at every second place, as one matrix product: XLA's own is slow on a CPU."""
    sides = x.shape[:axes]
    around = jnp.pad(x, [(1, 1)] * axes + [(0, 0)])
    near = [
        around[tuple(slice(i, i + side, 2) for i, side in zip(at, sides, strict=True))]
        for at in product(range(3), repeat=axes)
    ]
    y = jnp.concatenate(near, axis=-1)
    flat = jax.vmap(layer)(y.reshape(-1, y.shape[-1]))
    return flat.reshape(*y.shape[:-1], -1)


def _rows(name: str, x: Array, size: int) -> Array:
    """The array as rows of that size."""
    x = jnp.asarray(check_real(name, "x", x))
    if x.ndim == 1 and size == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] != size or not len(x):
        raise ValueError(f"{name}: the array must be rows of {size} numbers, shape (n, {size}) (`x`); got {x.shape}.")
    return x
