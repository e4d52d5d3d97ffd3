"""What a denoiser is, and what of one may be asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_positive, check_real

Denoise = Callable[[Float[Array, "*shape"], Any], Float[Array, "*shape"]]


class Denoiser(eqx.Module):
    r"""A map :math:`D(x, \sigma)` that takes noise of standard deviation :math:`\sigma` off one array.

    Any function ``denoiser(x, sigma)`` is a denoiser: ``x`` is **one** signal or image, without a batch axis
    (``jax.vmap`` makes batches), in the units of the data, ``x = x0 + sigma * noise`` (variance exploding, never
    rescaled); ``sigma`` is a positive number, which may be traced; the result has the shape of ``x``. This class adds
    checks. What a denoiser has beyond that is asked for by the name of the method, never by type:

    - ``potential(x, sigma)``, a number U with :math:`\nabla_x U = (x - D(x, \sigma)) / \sigma^2` **exactly**. For the
      mean of a prior p given ``x`` it is :math:`-\log p_\sigma`, :math:`p_\sigma = p * N(0, \sigma^2 I)` (Tweedie's
      formula). A denoiser without it is *gradient-only*: :math:`x - D` may be no gradient at all, and no sampler that
      uses values of a density can use it.
    - ``sample(key, x, sigma)``, a draw of x0 given ``x`` under the prior that the denoiser is the mean of.
    - ``certificates(sigma)``, a dictionary of :class:`Certificate` by what they bound: ``"lipschitz"`` (of D),
      ``"residual"`` (of I - D), ``"firm"`` (of 2 D - I).
    """

    @abstractmethod
    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        """:math:`D(x, \\sigma)`."""


def check_denoiser(where: str, value: Any) -> Any:
    """A function of an array and a noise level."""
    return check_callable(where, "denoiser", value, "a denoiser, a function of an array and a noise level")


def check_noise_level(where: str, sigma: Any) -> Any:
    """A positive number, known or traced."""
    sigma = check_positive(where, "sigma", sigma)
    if jnp.ndim(sigma) != 0:
        raise ValueError(
            f"{where}: `sigma` must be one number; got shape {jnp.shape(sigma)}. `jax.vmap` makes batches."
        )
    return sigma


def check_signal(where: str, x: Any, shape: tuple[int, ...]) -> Any:
    """One signal of a known shape, without batch axes."""
    check_real(where, "x", x)
    if jnp.shape(x) != tuple(shape):
        raise ValueError(
            f"{where}: `x` must be one signal of shape {tuple(shape)}; got shape {jnp.shape(x)}. `jax.vmap` makes "
            "batches."
        )
    return x


def denoised(where: str, denoiser: Denoise, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
    """What the denoiser returns, in the precision of ``x``.

    Raises:
        TypeError: it returns no real numbers.
        ValueError: ``sigma`` not positive; an array of another shape.
    """
    found = check_real(where, "what the denoiser returns", denoiser(x, check_noise_level(where, sigma)))
    if jnp.shape(found) != jnp.shape(x):
        raise ValueError(
            f"{where}: the denoiser {name_of(denoiser)} must return an array of the shape of `x`, {jnp.shape(x)}; got "
            f"{jnp.shape(found)}."
        )
    return jnp.asarray(found, jnp.result_type(x))


def name_of(denoiser: Any) -> str:
    """What to call it in a message."""
    function = getattr(denoiser, "function", denoiser)
    return getattr(function, "__name__", type(function).__name__)


def has_potential(denoiser: Any) -> bool:
    """Whether :math:`(x - D) / \\sigma^2` is known to be the gradient of something."""
    return callable(getattr(denoiser, "potential", None))
