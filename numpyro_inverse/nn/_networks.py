"""Networks that set the parameters of couplings: they start as zero functions, so that a flow starts simple."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_real, check_static, describe


def check_counts(name: str, minimum: int = 1, **counts: Any) -> None:
    """Raise if one of them is no integer or smaller than ``minimum``."""
    for argument, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            shown = str(value) if isinstance(value, float) else describe(value)
            raise TypeError(f"{name}: `{argument}` must be an integer; got {shown}.")
        if value < minimum:
            raise ValueError(f"{name}: `{argument}` must be {minimum} or more; got {value}.")


def check_sides(name: str, argument: str, value: Any, minimum: int = 1) -> tuple[int, ...]:
    """A tuple or list of integers of ``minimum`` or more."""
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name}: `{argument}` must be a tuple of integers, such as `(3,)`; got {describe(value)}.")
    for side in value:
        check_counts(name, minimum, **{argument: side})
    return tuple(value)


def check_event(
    name: str, argument: str, value: Any, shape: tuple[int | None, ...], *, booleans: bool = False
) -> Array:
    """Real numbers, or booleans where these will do, in an array of that shape; None is any side."""
    array = value if booleans and _is_boolean(value) else check_real(name, argument, value)
    found = np.shape(array)
    if len(found) != len(shape) or any(n is not None and n != m for n, m in zip(shape, found, strict=True)):
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name}: `{argument}` must have shape {wanted}; got {found}.")
    return jnp.asarray(array)


def _is_boolean(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.bool_)


def check_rows(name: str, argument: str, value: Any, most: int | None = None) -> np.ndarray:
    """The first rows of known real numbers, or booleans, in double precision."""
    check_static(name, argument, value)
    if most is not None and (isinstance(value, list) or len(getattr(value, "shape", "")) > 0):
        value = value[:most]
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # ragged
        array = np.asarray(None)
    if array.dtype != bool and not (
        jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)
    ):
        raise TypeError(f"{name}: `{argument}` must be real numbers; got {describe(value)}.")
    return np.asarray(array, float)


def _zeros[Layer](layer: Layer) -> Layer:
    """``layer`` with weights and bias zero."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, layer)


class ZeroMLP(eqx.Module):
    """A multilayer perceptron (two hidden layers, GELU) whose last layer starts at zero."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, size: int, out: int, width: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Linear(size, width, key=keys[0])
        self.second = eqx.nn.Linear(width, width, key=keys[1])
        self.last = _zeros(eqx.nn.Linear(width, out, key=keys[2]))

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " out"]:
        return self.last(jax.nn.gelu(self.second(jax.nn.gelu(self.first(x)))))


class ZeroConvNet(eqx.Module):
    """A residual network of 3 x 3 convolutions that knows where it is; its last layer starts at zero.

    Two channels with the coordinates of the pixels join the input: what is usual in a picture depends on the place.
    """

    first: eqx.nn.Conv2d
    blocks: tuple[tuple[eqx.nn.Conv2d, eqx.nn.Conv2d], ...]
    last: eqx.nn.Conv2d

    def __init__(self, channels: int, out: int, width: int, depth: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 2 * depth + 2)

        def convolution(n: int, m: int, key: PRNGKeyArray) -> eqx.nn.Conv2d:
            return eqx.nn.Conv2d(n, m, 3, padding=1, key=key)

        self.first = convolution(channels + 2, width, keys[0])
        self.blocks = tuple(
            (convolution(width, width, keys[2 * i + 1]), convolution(width, width, keys[2 * i + 2]))
            for i in range(depth)
        )
        self.last = _zeros(eqx.nn.Conv2d(width, out, 1, key=keys[-1]))

    def __call__(self, x: Float[Array, "h w channels"]) -> Float[Array, "h w out"]:
        h, w, _ = x.shape
        places = jnp.meshgrid(jnp.linspace(-1, 1, h), jnp.linspace(-1, 1, w), indexing="ij")
        y = _convolve(self.first, jnp.concatenate([x, jnp.stack(places, axis=-1).astype(x.dtype)], axis=-1))
        for one, two in self.blocks:
            y = y + _convolve(two, jax.nn.gelu(_convolve(one, jax.nn.gelu(y))))
        return _convolve(self.last, jax.nn.gelu(y))


def _convolve(layer: eqx.nn.Conv2d, x: Float[Array, "h w n"]) -> Float[Array, "h w m"]:
    """The layer, as one matrix product: XLA's convolutions are ten times slower within a sampler's loop on a CPU."""
    h, w, n = x.shape
    m, _, side, _ = layer.weight.shape
    edge = side // 2
    around = jnp.pad(x, ((edge, edge), (edge, edge), (0, 0)))
    columns = [around[i : i + h, j : j + w] for i in range(side) for j in range(side)]
    flat = jnp.concatenate(columns, axis=-1).reshape(h * w, side**2 * n)
    bias = jnp.zeros(m, x.dtype) if layer.bias is None else layer.bias.ravel()
    return (flat @ layer.weight.transpose(2, 3, 1, 0).reshape(side**2 * n, m) + bias).reshape(h, w, m)
