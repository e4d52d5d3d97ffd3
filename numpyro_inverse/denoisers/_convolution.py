"""Convolutions of images with several channels, as matrix products, and pixels moved into channels."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

FOLD = 2  # side of the square of pixels that become channels


def convolve(kernel: Float[Array, "k k n m"], x: Float[Array, "h w n"]) -> Float[Array, "h w m"]:
    """The correlation of ``x`` with a kernel of odd side, zero outside the image, of the image's size."""
    edge = kernel.shape[0] // 2
    return _inside(kernel, jnp.pad(x, ((edge, edge), (edge, edge), (0, 0))))


def convolve_periodic(kernel: Float[Array, "k k n m"], x: Float[Array, "h w n"]) -> Float[Array, "h w m"]:
    """The same of a periodic image."""
    edge = kernel.shape[0] // 2
    return _inside(kernel, jnp.pad(x, ((edge, edge), (edge, edge), (0, 0)), mode="wrap"))


def _inside(kernel: Float[Array, "k k n m"], around: Float[Array, "h2 w2 n"]) -> Float[Array, "h w m"]:
    """The correlation where the kernel lies within the image.

    One matrix product: XLA's convolutions are ten times slower within a sampler's loop on a CPU.
    """
    side, _, n, m = kernel.shape
    h, w = (size - side + 1 for size in around.shape[:2])
    columns = [around[i : i + h, j : j + w] for i in range(side) for j in range(side)]
    flat = jnp.concatenate(columns, axis=-1).reshape(h * w, side**2 * n)
    return (flat @ kernel.reshape(side**2 * n, m)).reshape(h, w, m)


def transposed(kernel: Float[Array, "k k n m"]) -> Float[Array, "k k m n"]:
    """The kernel whose :func:`convolve` is the adjoint."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def fold(x: Float[Array, "h w"]) -> Float[Array, "h2 w2 4"]:
    """Squares of 2 x 2 pixels as four channels at half the resolution; zeros complete odd sides. An isometry."""
    h, w = x.shape
    x = jnp.pad(x, ((0, h % FOLD), (0, w % FOLD)))
    h, w = x.shape
    squares = x.reshape(h // FOLD, FOLD, w // FOLD, FOLD).transpose(0, 2, 1, 3)
    return squares.reshape(h // FOLD, w // FOLD, FOLD**2)


def unfold(y: Float[Array, "h2 w2 4"], shape: tuple[int, ...]) -> Float[Array, "h w"]:
    """The image of that shape whose squares are the channels: the adjoint of :func:`fold`."""
    h, w, _ = y.shape
    squares = y.reshape(h, w, FOLD, FOLD).transpose(0, 2, 1, 3)
    return squares.reshape(h * FOLD, w * FOLD)[: shape[0], : shape[1]]
