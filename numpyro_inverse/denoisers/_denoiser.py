"""What a denoiser is, and what of one may be asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_finite, check_positive, check_real, describe
from numpyro_inverse.denoisers._certificate import Certificate

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
    if isinstance(value, type):
        raise TypeError(
            f"{where}: `denoiser` must be a denoiser, not the class {value.__name__}; make one of it first."
        )
    return check_callable(where, "denoiser", value, "a denoiser, a function of an array and a noise level")


def check_noise_level(where: str, sigma: Any) -> Any:
    """A positive number, known or traced."""
    return check_scalar(where, "sigma", sigma)


def check_scalar(where: str, argument: str, value: Any) -> Any:
    """One positive number, known or traced."""
    value = check_positive(where, argument, value)
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"{where}: `{argument}` must be one number; got shape {jnp.shape(value)}. `jax.vmap` makes batches."
        )
    return value


def floating(where: str, argument: str, value: Any) -> Array:
    """Finite real numbers in floating point."""
    value = check_finite(where, argument, value)
    return jnp.asarray(value, jnp.result_type(float, value))


def check_array(where: str, x: Any) -> Array:
    """One array of real numbers, of any shape but not empty, in floating point."""
    x = jnp.asarray(check_real(where, "x", x))
    if x.size == 0:
        raise ValueError(f"{where}: `x` must be an array of one number or more; got shape {x.shape}.")
    return x.astype(jnp.result_type(x, float))


def check_signal(where: str, x: Any, shape: tuple[int, ...]) -> Any:
    """One signal of a known shape, without batch axes."""
    x = check_real(where, "x", x)
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
    return jnp.asarray(returned(where, denoiser, x, sigma), jnp.result_type(x))


def returned(where: str, denoiser: Denoise, x: Float[Array, "*shape"], sigma: Any) -> Any:
    """The same in the precision that the denoiser gives it."""
    found = check_real(where, "what the denoiser returns", denoiser(x, check_noise_level(where, sigma)))
    if jnp.shape(found) != jnp.shape(x):
        raise ValueError(
            f"{where}: the denoiser {name_of(denoiser)} must return an array of the shape of `x`, {jnp.shape(x)}; got "
            f"{jnp.shape(found)}."
        )
    return found


def potential_of(where: str, denoiser: Any, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
    """The value of a denoiser's potential.

    Raises:
        TypeError: it is no real number.
        ValueError: it is an array of numbers.
    """
    return one_number(where, "what the potential returns", denoiser.potential(x, sigma))


def one_number(where: str, what: str, found: Any) -> Float[Array, ""]:
    """What a function returns, if it is one real number."""
    found = check_real(where, what, found)
    if jnp.ndim(found) != 0:
        raise ValueError(f"{where}: `{what}` must be one number; got shape {jnp.shape(found)}.")
    return jnp.asarray(found)


def certificates_of(where: str, denoiser: Any, sigma: Any) -> dict[str, Certificate]:
    """Those that the denoiser states; none if it has no such method.

    Raises:
        TypeError: what it states is no dictionary of certificates.
    """
    stated = getattr(denoiser, "certificates", None)
    found = stated(sigma) if callable(stated) else {}
    if not isinstance(found, Mapping) or not all(isinstance(bound, Certificate) for bound in found.values()):
        raise TypeError(
            f"{where}: `denoiser.certificates` must return a dictionary of Certificate by name; got {describe(found)}."
        )
    return dict(found)


def name_of(denoiser: Any) -> str:
    """What to call it in a message."""
    function = getattr(denoiser, "function", denoiser)
    return getattr(function, "__name__", type(function).__name__)


def has_potential(denoiser: Any) -> bool:
    """Whether :math:`(x - D) / \\sigma^2` is known to be the gradient of something."""
    return callable(getattr(denoiser, "potential", None))
