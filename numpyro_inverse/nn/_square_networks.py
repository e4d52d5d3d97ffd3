"""Networks between small images and vectors that work on squares of pixels; of the autoencoder for images."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

CELL = 4  # side of the squares


class Encoder(eqx.Module):
    """An image to a vector: one convolution over squares, and a dense layer."""

    first: Neighborhoods
    last: eqx.nn.Linear

    def __init__(self, shape: tuple[int, int], latent_size: int, width: int, *, key: PRNGKeyArray):
        first, last = jax.random.split(key)
        self.first = Neighborhoods(CELL**2, width, key=first)
        self.last = eqx.nn.Linear(width * shape[0] * shape[1] // CELL**2, 2 * latent_size, key=last)

    def __call__(self, x: Float[Array, "h w"]) -> Float[Array, " 2k"]:
        return self.last(jax.nn.gelu(self.first(cut(x))).ravel())


class Decoder(eqx.Module):
    """A vector to an image: a dense layer, and two convolutions over squares."""

    first: eqx.nn.Linear
    second: Neighborhoods
    last: Neighborhoods
    coarse: tuple[int, int, int] = eqx.field(static=True)
    sigmoid: bool = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int], latent_size: int, width: int, sigmoid: bool, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.coarse = (shape[0] // CELL, shape[1] // CELL, width)
        self.first = eqx.nn.Linear(latent_size, width * self.coarse[0] * self.coarse[1], key=keys[0])
        self.second = Neighborhoods(width, width, key=keys[1])
        self.last = Neighborhoods(width, CELL**2, key=keys[2])
        self.sigmoid = sigmoid

    def __call__(self, z: Float[Array, " k"]) -> Float[Array, "h w"]:
        y = jax.nn.gelu(self.first(z)).reshape(self.coarse)
        y = join(self.last(y + jax.nn.gelu(self.second(y))))
        return jax.nn.sigmoid(y) if self.sigmoid else y


class Neighborhoods(eqx.Module):
    """A 3 x 3 convolution with zeros outside, as a product of matrices: its gradient is much faster on a CPU."""

    linear: eqx.nn.Linear

    def __init__(self, channels: int, out: int, *, key: PRNGKeyArray):
        self.linear = eqx.nn.Linear(9 * channels, out, key=key)

    def __call__(self, x: Float[Array, "h w channels"]) -> Float[Array, "h w out"]:
        h, w, _ = x.shape
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        near = [padded[i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return jnp.concatenate(near, axis=-1) @ self.linear.weight.T + self.linear.bias  # type: ignore[operator]


def cut(x: Float[Array, "h w"]) -> Float[Array, "rows columns pixels"]:
    """Squares of pixels as channels."""
    h, w = x.shape
    return x.reshape(h // CELL, CELL, w // CELL, CELL).transpose(0, 2, 1, 3).reshape(h // CELL, w // CELL, CELL**2)


def join(x: Float[Array, "rows columns pixels"]) -> Float[Array, "h w"]:
    """The inverse of :func:`cut`."""
    h, w, _ = x.shape
    return x.reshape(h, w, CELL, CELL).transpose(0, 2, 1, 3).reshape(CELL * h, CELL * w)
