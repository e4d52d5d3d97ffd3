"""A denoiser that is the identity minus the gradient of a network's potential."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_callable, check_count, check_key, check_real
from numpyro_inverse.denoisers._certificate import Certificate
from numpyro_inverse.denoisers._certify import certificate, convolution_certificate
from numpyro_inverse.denoisers._convolution import FOLD, convolve, fold, unfold
from numpyro_inverse.denoisers._denoiser import Denoise, Denoiser, check_noise_level
from numpyro_inverse.denoisers._norm_bounds import check_sides
from numpyro_inverse.denoisers._with_gradient import as_module

HERE = "GradientStepDenoiser"
KERNEL = 3  # side
MIDDLE = 0.5  # of the images' values
NOISE_SCALE = 10.0  # makes noise levels of photographs numbers of order one


def check_image(where: str, x: Any) -> Float[Array, "h w"]:
    """A gray image, one, in floating point."""
    x = jnp.asarray(check_real(where, "x", x))
    if x.ndim != 2 or x.size == 0:
        raise ValueError(
            f"{where}: `x` must be one gray image, of shape (H, W); got shape {x.shape}. `jax.vmap` makes batches."
        )
    return x.astype(jnp.result_type(x, float))


class ConvolutionalNetwork(eqx.Module):
    r"""A small smooth network N(x, sigma) from images to images of the same size, whatever that is.

    Squares of 2 x 2 pixels become four channels, the noise level a fifth; then ``depth`` convolutions of 3 x 3 at half
    the resolution, zero outside the image, with SiLU between them; the last gives the four channels of
    :math:`x - N(x, \sigma)`. At half the resolution a weight costs a quarter and sees twice as far.

    Args:
        width: channels of the hidden layers.
        depth: convolutions, two or more.
        key: of the initial weights.

    Raises:
        TypeError, ValueError: no integers of that size; no key; when called, no gray image or no noise level.

    References:
        K. Zhang, W. Zuo and L. Zhang, *FFDNet: toward a fast and flexible solution for CNN-based image denoising*, IEEE
        Trans. Image Process. 27 (2018): pixels in channels, the noise level as a channel.
    """

    kernels: tuple[Float[Array, "3 3 n m"], ...]
    biases: tuple[Float[Array, " m"], ...]

    def __init__(self, width: int = 64, depth: int = 5, *, key: PRNGKeyArray):
        here = "ConvolutionalNetwork"
        width, depth = check_count(here, "width", width), check_count(here, "depth", depth, 2)
        keys = jax.random.split(check_key(here, "key", key), depth)
        sizes = [FOLD**2 + 1] + [width] * (depth - 1) + [FOLD**2]
        shapes = [(KERNEL, KERNEL, n, m) for n, m in pairwise(sizes)]
        self.kernels = tuple(
            jax.random.normal(k, shape) * jnp.sqrt(1.6 / (KERNEL**2 * shape[2]))
            for k, shape in zip(keys, shapes, strict=True)
        )
        self.biases = tuple(jnp.zeros(shape[-1]) for shape in shapes)

    def __call__(self, x: Float[Array, "h w"], sigma: Any) -> Float[Array, "h w"]:
        check_noise_level("ConvolutionalNetwork", sigma)
        x = check_image("ConvolutionalNetwork", x)
        y = fold(x - MIDDLE)
        level = jnp.broadcast_to(jnp.asarray(NOISE_SCALE * sigma, y.dtype), (*y.shape[:-1], 1))
        y = jnp.concatenate([y, level], axis=-1)
        last = len(self.kernels) - 1
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            y = convolve(kernel.astype(y.dtype), y) + bias.astype(y.dtype)
            y = y if i == last else jax.nn.silu(y)
        return x - unfold(y, x.shape)

    def lipschitz_certificate(self, shape: tuple[int, int] | None) -> Certificate:
        """One and the product of the layers, on images of that shape: in general far above the truth."""
        if shape is not None:
            check_sides("ConvolutionalNetwork.lipschitz_certificate", shape)
        half = None if shape is None else (-(-shape[0] // FOLD), -(-shape[1] // FOLD))
        kernels = (self.kernels[0][:, :, :-1], *self.kernels[1:])  # without the channel of the noise level
        parts = [convolution_certificate(kernel.transpose(3, 2, 0, 1), half) for kernel in kernels]
        bound = 1 + prod(part.bound for part in parts) * certificate(jax.nn.silu).bound ** (len(parts) - 1)
        return Certificate(bound, "one and the product of the layers", True, f"images of {shape}")


class GradientStepDenoiser(Denoiser):
    r"""The identity minus a gradient, :math:`D(x, \sigma) = x - \nabla_x g(x, \sigma)`.

    .. math:: g(x, \sigma) = \tfrac12 \lVert x - N(x, \sigma) \rVert^2

    with a network N. So :math:`x - D` is the gradient of something by construction: ``potential`` is :math:`g /
    \sigma^2`, exactly, whatever the network. One value of D costs one pass through the network and one back, and the
    potential comes with it.

    >>> network = ni.denoisers.ConvolutionalNetwork(4, 2, key=key)
    >>> denoiser = ni.denoisers.GradientStepDenoiser(network)
    >>> x = jnp.zeros((9, 8))
    >>> bool(jnp.allclose(0.1**2 * jax.grad(denoiser.potential)(x, 0.1), x - denoiser(x, 0.1), atol=1e-6))
    True

    Args:
        network: a smooth function ``network(x, sigma)`` to arrays of the shape of ``x``, such as
            :class:`ConvolutionalNetwork`.

    Raises:
        TypeError: ``network`` is no function or returns no real numbers; ``x`` no real numbers.
        ValueError: ``sigma`` is not positive; ``x`` is empty; the network returns another shape.

    References:
        S. Hurault, A. Leclaire and N. Papadakis, *Gradient step denoiser for convergent plug-and-play*, ICLR 2022,
        section 3.
    """

    network: Any

    def __init__(self, network: Denoise):
        self.network = as_module(check_callable(HERE, "network", network, "a function of an array and a number"))

    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        x, sigma = self._checked(x, sigma)
        return x - jax.grad(self._half_square)(x, sigma)

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        """:math:`g(x, \\sigma) / \\sigma^2`."""
        x, sigma = self._checked(x, sigma)
        return self._half_square(x, sigma) / sigma**2

    def _checked(self, x: Any, sigma: Any) -> tuple[Array, Any]:
        check_noise_level(HERE, sigma)
        x = check_real(HERE, "x", x)
        return jnp.asarray(x, jnp.result_type(x, float)), sigma

    def _half_square(self, x: Array, sigma: Any) -> Array:
        found = check_real(HERE, "what the network returns", self.network(x, sigma))
        if jnp.shape(found) != x.shape:
            raise ValueError(f"{HERE}: `network` must return the shape of `x`, {x.shape}; got {jnp.shape(found)}.")
        return 0.5 * jnp.sum((x - found) ** 2)
