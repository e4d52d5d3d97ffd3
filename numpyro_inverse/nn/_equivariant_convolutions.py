"""Convolutions that commute with shifts, quarter turns and mirror images of periodic images."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key
from numpyro_inverse.nn._networks import check_counts, check_event

TURNS = 4


def circular_convolution(
    num_spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int = 3, *, key: PRNGKeyArray
) -> eqx.nn.Conv:
    """A convolution of a periodic signal or image, channels first: equivariant under
    :class:`~numpyro_inverse.symmetry.CyclicShift`, as are entrywise functions, and so what is composed of both.

    It is Equinox's ``Conv`` with circular padding.

    Args:
        num_spatial_dims: 1 for signals, 2 for images.
        in_channels: channels of the argument.
        out_channels: channels of the value.
        kernel_size: side of the kernel, odd.
        key: of the first weights.

    Raises:
        TypeError: a number that is no integer; ``key`` is no random key.
        ValueError: a number less than 1, or an even ``kernel_size``.
    """
    _check_sizes("circular_convolution", in_channels, out_channels, kernel_size)
    check_counts("circular_convolution", num_spatial_dims=num_spatial_dims)
    check_key("circular_convolution", "key", key)
    return eqx.nn.Conv(
        num_spatial_dims, in_channels, out_channels, kernel_size, padding="SAME", padding_mode="CIRCULAR", key=key
    )


class P4MLifting(eqx.Module):
    r"""From images to functions on the group p4m of shifts, quarter turns and mirror images: a circular convolution
    with the eight images :math:`h \psi` of each kernel :math:`\psi`,

    .. math:: (\psi * x)(h) = (h \psi) * x, \qquad h \in D_4.

    If the image is turned or mirrored by g, the value is moved to the place :math:`g h` and turned likewise.
    Shapes: ``(in_channels, n, n)`` to ``(out_channels, 8, n, n)``.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the value, each eight images.
        kernel_size: side of the kernels, odd.
        key: of the first weights.

    Raises:
        TypeError: a number that is no integer; ``key`` is no random key.
        ValueError: a number less than 1, or an even ``kernel_size``.

    References:
        Cohen & Welling, *Group equivariant convolutional networks*, ICML 2016, equations 9 to 11.
    """

    weight: Float[Array, "out in k k"]
    bias: Float[Array, " out"]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, key: PRNGKeyArray):
        _check_sizes("P4MLifting", in_channels, out_channels, kernel_size)
        check_key("P4MLifting", "key", key)
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = _first_weights(key, shape, in_channels * kernel_size**2)
        self.bias = jnp.zeros(out_channels)

    def __call__(self, x: Float[Array, "in n n"]) -> Float[Array, "out 8 n n"]:
        x = check_event("P4MLifting", "x", x, (self.weight.shape[1], None, None))
        kernels = jnp.stack([_turn(self.weight, h) for h in range(2 * TURNS)], axis=1)
        return _convolve(kernels, x) + self.bias[:, None, None, None]


class P4MConvolution(eqx.Module):
    r"""From functions on the group p4m to such functions,

    .. math:: (\psi * f)(h) = \sum_{k \in D_4} h \bigl[ \psi(h^{-1} k) \bigr] * f(k),

    with eight kernels for each pair of channels. Shapes: ``(in_channels, 8, n, n)`` to ``(out_channels, 8, n, n)``.

    Args:
        in_channels: channels of the argument, each eight images.
        out_channels: channels of the value.
        kernel_size: side of the kernels, odd.
        key: of the first weights.

    Raises:
        TypeError: a number that is no integer; ``key`` is no random key.
        ValueError: a number less than 1, or an even ``kernel_size``.

    References:
        Cohen & Welling, *Group equivariant convolutional networks*, ICML 2016, equations 9 to 11.
    """

    weight: Float[Array, "out in 8 k k"]
    bias: Float[Array, " out"]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, key: PRNGKeyArray):
        _check_sizes("P4MConvolution", in_channels, out_channels, kernel_size)
        check_key("P4MConvolution", "key", key)
        shape = (out_channels, in_channels, 2 * TURNS, kernel_size, kernel_size)
        self.weight = _first_weights(key, shape, 2 * TURNS * in_channels * kernel_size**2)
        self.bias = jnp.zeros(out_channels)

    def __call__(self, x: Float[Array, "in 8 n n"]) -> Float[Array, "out 8 n n"]:
        x = check_event("P4MConvolution", "x", x, (self.weight.shape[1], 2 * TURNS, None, None))
        kernels = jnp.stack([_turn(self.weight[:, :, PLACES[h]], h) for h in range(2 * TURNS)], axis=1)
        flat = kernels.reshape(*kernels.shape[:2], -1, *kernels.shape[-2:])
        return _convolve(flat, x.reshape(-1, *x.shape[-2:])) + self.bias[:, None, None, None]


def p4m_pool(x: Float[Array, "channels 8 n n"]) -> Float[Array, "channels n n"]:
    """The mean over the eight directions: images that turn and shift as the first argument of the network did."""
    return jnp.mean(check_event("p4m_pool", "x", x, (None, 2 * TURNS, None, None)), axis=1)


def _turn(kernel: Array, h: int) -> Array:
    """h = turns + 4 mirrored: first the mirror image, then the turns."""
    return jnp.rot90(jnp.flip(kernel, -1) if h >= TURNS else kernel, h % TURNS, axes=(-2, -1))


def _places() -> np.ndarray:
    """In row h and column k, the number of :math:`h^{-1} k`."""
    corner = np.arange(9).reshape(3, 3)

    def turn(x: np.ndarray, h: int) -> np.ndarray:
        return np.rot90(np.flip(x, -1) if h >= TURNS else x, h % TURNS)

    images = {turn(corner, h).tobytes(): h for h in range(2 * TURNS)}
    product = np.array(
        [[images[turn(turn(corner, k), h).tobytes()] for k in range(2 * TURNS)] for h in range(2 * TURNS)]
    )
    return np.argsort(product, axis=1)  # product[h, PLACES[h, k]] = k


PLACES = _places()


def _first_weights(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Array:
    return jax.random.normal(key, shape) * np.sqrt(2 / fan_in).astype(np.float32)


def _convolve(kernels: Float[Array, "out 8 m k k"], x: Float[Array, "m n n"]) -> Float[Array, "out 8 n n"]:
    """Circular convolution, without reversal of the kernel."""
    edge = kernels.shape[-1] // 2
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge)), mode="wrap")
    flat = kernels.reshape(-1, *kernels.shape[2:])
    found = jax.lax.conv_general_dilated(padded[None], flat, (1, 1), "VALID")[0]
    return found.reshape(*kernels.shape[:2], *x.shape[-2:])


def _check_sizes(where: str, in_channels: int, out_channels: int, kernel_size: int) -> None:
    check_counts(where, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"{where}: `kernel_size` must be odd, for the kernel to have a center; got {kernel_size}.")
