"""A denoiser that is firmly nonexpansive whatever its weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_key, check_real
from numpyro_inverse.denoisers._certificate import Certificate
from numpyro_inverse.denoisers._convolution import FOLD, convolve, fold, transposed, unfold
from numpyro_inverse.denoisers._denoiser import Denoiser, check_array, check_noise_level
from numpyro_inverse.denoisers._gradient_step import MIDDLE, NOISE_SCALE, check_image

HERE = "FirmlyNonexpansiveDenoiser"
KERNEL = 3  # side
METHOD = "by construction: a product of 1-Lipschitz layers (SDP-based)"


class LipschitzConvolution(eqx.Module):
    r"""A residual convolutional layer that is 1-Lipschitz whatever its weights,

    .. math:: x \mapsto x - 2 W^{\mathsf T} T^{-1} \max(W x + b + s \sigma, 0)

    with the convolution W from n to m channels, zero outside the image, and the diagonal
    :math:`T_i = \sum_j |W W^{\mathsf T}|_{ij} q_j / q_i`, which is above :math:`W W^{\mathsf T}` for any positive q.
    The sums are those of the convolution on an unbounded image, which needs the kernel alone; cutting the image out
    only lowers :math:`W W^{\mathsf T}`.

    Args:
        channels: n, of what goes in and comes out.
        width: m, of the hidden layer.
        key: of the initial weights.

    Raises:
        TypeError: no integers; no key; when called, no real numbers.
        ValueError: a number below 1; when called, an array without three axes or with other channels.

    References:
        A. Araujo, A. Havens, B. Delattre, A. Allauzen and B. Hu, *A unified algebraic perspective on Lipschitz neural
        networks*, ICLR 2023, theorem 3 (the layers "SLL").
    """

    kernel: Float[Array, "3 3 n m"]
    bias: Float[Array, " m"]
    slope: Float[Array, " m"]
    log_q: Float[Array, " m"]

    def __init__(self, channels: int, width: int, *, key: PRNGKeyArray):
        here = "LipschitzConvolution"
        channels, width = check_count(here, "channels", channels), check_count(here, "width", width)
        check_key(here, "key", key)
        self.kernel = jax.random.normal(key, (KERNEL, KERNEL, channels, width)) / jnp.sqrt(KERNEL**2 * channels)
        self.bias = jnp.zeros(width)
        self.slope = jnp.zeros(width)
        self.log_q = jnp.zeros(width)

    def __call__(self, x: Float[Array, "h w n"], level: Any) -> Float[Array, "h w n"]:
        x = self._checked(x, level)
        kernel = self.kernel.astype(x.dtype)
        hidden = jax.nn.relu(convolve(kernel, x) + (self.bias + self.slope * level).astype(x.dtype))
        return x - 2 * convolve(transposed(kernel), hidden / self.bounds().astype(x.dtype))

    def lipschitz_certificate(self, shape: tuple[int, int] | None) -> Certificate:
        """One, on images of any shape."""
        return Certificate(1.0, METHOD, True)

    def _checked(self, x: Any, level: Any) -> Array:
        here = "LipschitzConvolution"
        check_real(here, "level", level)
        x, channels = check_array(here, x), self.kernel.shape[2]
        if x.ndim != 3 or x.shape[2] != channels or jnp.ndim(level) != 0:
            raise ValueError(
                f"{here}: `x` must be an image of shape (H, W, {channels}) and `level` one number; got shapes "
                f"{x.shape} and {jnp.shape(level)}. `jax.vmap` makes batches."
            )
        return x

    def bounds(self) -> Float[Array, " m"]:
        """T, from the kernel's correlations with itself at all shifts."""
        side = self.kernel.shape[0]
        q = jnp.exp(self.log_q)
        around = jnp.pad(self.kernel, ((side - 1, side - 1), (side - 1, side - 1), (0, 0), (0, 0)))
        shifts = range(2 * side - 1)
        shifted = jnp.stack([around[i : i + side, j : j + side] for i in shifts for j in shifts])
        products = jnp.einsum("dabni,abnj->dij", shifted, self.kernel, precision="highest")
        return jnp.sum(jnp.abs(products), 0) @ q / q + jnp.finfo(q.dtype).tiny


class FirmlyNonexpansiveDenoiser(Denoiser):
    r"""Half the identity and half a 1-Lipschitz network, :math:`D(x, \sigma) = (x + Q(x, \sigma)) / 2`.

    Then :math:`\lVert D(x) - D(y) \rVert^2 + \lVert (x - D(x)) - (y - D(y)) \rVert^2 \le \lVert x - y \rVert^2` for
    every noise level and all weights: D is the resolvent of a maximally monotone operator, and the plug-and-play
    iterations of forward-backward and Douglas-Rachford type converge for any convex data term, if they have a fixed
    point at all. It has no potential: D is no gradient in general. The guarantee costs quality, 1.5 to 2 dB in the
    published comparisons.

    Q is a product of :class:`LipschitzConvolution` between two isometries: squares of 2 x 2 pixels become channels, of
    which there are ``copies``, each divided by the square root of their number.

    Args:
        copies: of the image, in channels.
        width: hidden channels of each layer.
        depth: layers.
        key: of the initial weights.

    Raises:
        TypeError: no integers; no key; ``x`` no real numbers.
        ValueError: a number below 1; ``sigma`` not positive; ``x`` no image.

    References:
        J.-C. Pesquet, A. Repetti, M. Terris and Y. Wiaux, *Learning maximally monotone operators for image recovery*,
        SIAM J. Imaging Sci. 14 (2021), proposition 2.1: firmly nonexpansive maps are (I + Q) / 2.
    """

    layers: tuple[LipschitzConvolution, ...]
    copies: int = eqx.field(static=True)

    def __init__(self, copies: int = 4, width: int = 64, depth: int = 8, *, key: PRNGKeyArray):
        self.copies = check_count(HERE, "copies", copies)
        width, depth = check_count(HERE, "width", width), check_count(HERE, "depth", depth)
        keys = jax.random.split(check_key(HERE, "key", key), depth)
        self.layers = tuple(LipschitzConvolution(FOLD**2 * self.copies, width, key=k) for k in keys)

    def __call__(self, x: Float[Array, "h w"], sigma: Any) -> Float[Array, "h w"]:
        x = check_image(HERE, x)
        return 0.5 * (x + self.nonexpansive(x, sigma))

    def nonexpansive(self, x: Float[Array, "h w"], sigma: Any) -> Float[Array, "h w"]:
        """:math:`Q(x, \\sigma) = 2 D(x, \\sigma) - x`, which is 1-Lipschitz."""
        check_noise_level(HERE, sigma)
        x = check_image(HERE, x)
        y = fold(x - MIDDLE)
        y = jnp.concatenate([y] * self.copies, axis=-1) / jnp.sqrt(self.copies).astype(x.dtype)
        for layer in self.layers:
            y = layer(y, NOISE_SCALE * sigma)
        h, w, _ = y.shape
        y = jnp.sum(y.reshape(h, w, self.copies, -1), axis=2) / jnp.sqrt(self.copies).astype(x.dtype)
        return MIDDLE + unfold(y, x.shape)

    def lipschitz_certificate(self, shape: tuple[int, int] | None) -> Certificate:
        """One, on images of any shape."""
        return Certificate(1.0, METHOD, True)

    def certificates(self, sigma: Any) -> dict[str, Certificate]:
        """One, for D, I - D and 2 D - I alike, at every noise level."""
        check_noise_level(HERE, sigma)
        return {name: Certificate(1.0, METHOD, True) for name in ("lipschitz", "residual", "firm")}
