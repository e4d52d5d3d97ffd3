"""Variational autoencoders: decoders with a Gaussian latent, for generator priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_flag, check_key, check_positive, check_static
from numpyro_inverse.nn._networks import check_counts, check_event, check_sides
from numpyro_inverse.nn._square_networks import CELL, Decoder, Encoder


class VAE(eqx.Module):
    r"""The model :math:`z \sim N(0, I)`, :math:`x \mid z \sim N(d(z), s^2)`, with an approximation of its posterior,
    :math:`q(z \mid x) = N(m(x), \operatorname{diag} \sigma(x)^2)`.

    ``vae.decode`` is a generator for :class:`~numpyro_inverse.distributions.Pushforward`, and a Normal of scale
    ``vae.scale`` its residual.

    Args:
        encoder: one example to a vector of ``2 * latent_size`` numbers, the means m and the logarithms of
            :math:`\sigma`. An Equinox module.
        decoder: d, from a latent of shape ``(latent_size,)`` to one example. An Equinox module.
        event_shape: of one example.
        latent_size: numbers in z.
        scale: s before training, one number, or an array that broadcasts to ``event_shape``; it is learned.

    Raises:
        TypeError: a network that cannot be called; a side or ``latent_size`` that is no integer; a scale that is no
            number.
        ValueError: a network that does not take or return those shapes; a scale that is not positive or does not
            broadcast.

    References:
        Kingma & Welling, ICLR 2014; Rezende, Mohamed & Wierstra, ICML 2014.
    """

    encoder: Callable[[Array], Array]
    decoder: Callable[[Array], Array]
    log_scale: Float[Array, "..."]
    event_shape: tuple[int, ...] = eqx.field(static=True)
    latent_size: int = eqx.field(static=True)

    def __init__(
        self,
        encoder: Callable[[Float[Array, "*event"]], Float[Array, " 2k"]],
        decoder: Callable[[Float[Array, " k"]], Float[Array, "*event"]],
        *,
        event_shape: tuple[int, ...],
        latent_size: int,
        scale: float | Float[Array, "..."] = 0.1,
    ):
        event_shape = check_sides("VAE", "event_shape", event_shape, 0)
        check_counts("VAE", latent_size=latent_size)
        _check("encoder", encoder, event_shape, (2 * latent_size,))
        _check("decoder", decoder, (latent_size,), event_shape)
        size = np.asarray(check_positive("VAE", "scale", check_static("VAE", "scale", scale)), float)
        try:
            fits = np.broadcast_shapes(size.shape, event_shape) == event_shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"VAE: `scale` must broadcast to `event_shape` {event_shape}; got shape {size.shape}.")
        self.encoder = encoder
        self.decoder = decoder
        self.log_scale = jnp.log(jnp.asarray(size, jnp.result_type(float)))
        self.event_shape = event_shape
        self.latent_size = latent_size

    @classmethod
    def for_images(
        cls, shape: tuple[int, int], latent_size: int, *, width: int = 64, sigmoid: bool = True, key: PRNGKeyArray
    ) -> VAE:
        """Convolutional networks for grey images: 3 x 3 convolutions over squares of 4 x 4 pixels, and a dense layer
        between these and the latent.

        Args:
            shape: height and width, multiples of 4.
            latent_size: numbers in z.
            width: channels. 64 gives about 0.36 million weights for 28 x 28 images and 32 latents.
            sigmoid: whether decoded pixels are in (0, 1), by a last logistic function.
            key: of the initial weights.

        Raises:
            TypeError: a side, ``latent_size`` or ``width`` that is no integer; ``sigmoid`` is no boolean; ``key`` is no
                random key.
            ValueError: sides that are not multiples of 4; a ``latent_size`` or ``width`` below 1.
        """
        check_counts("VAE.for_images", latent_size=latent_size, width=width)
        check_flag("VAE.for_images", "sigmoid", sigmoid)
        check_key("VAE.for_images", "key", key)
        shape = check_sides("VAE.for_images", "shape", shape)
        if len(shape) != 2 or any(n < CELL or n % CELL for n in shape):
            raise ValueError(f"VAE.for_images: `shape` must be two multiples of {CELL}; got {shape}.")
        encoder, decoder = jax.random.split(key)
        return cls(
            Encoder(shape, latent_size, width, key=encoder),
            Decoder(shape, latent_size, width, sigmoid, key=decoder),
            event_shape=shape,
            latent_size=latent_size,
        )

    @property
    def scale(self) -> Float[Array, "..."]:
        """s, standard deviation of an example about its decoded latent."""
        return jnp.exp(self.log_scale)

    def encode(self, x: Float[Array, "*event"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        r"""m and :math:`\log \sigma` of one example."""
        m, log_sd = jnp.split(self.encoder(check_event("VAE", "x", x, self.event_shape, booleans=True)), 2)
        return m, log_sd

    def decode(self, z: Float[Array, " k"]) -> Float[Array, "*event"]:
        """d(z) for one latent."""
        return self.decoder(check_event("VAE", "z", z, (self.latent_size,)))

    def elbo(self, x: Float[Array, "*event"], key: PRNGKeyArray) -> Float[Array, ""]:
        r"""Unbiased estimate, by one draw, of a lower bound of :math:`\log p(x)`, in nats:

        .. math:: E_q \log N(x; d(z), s^2) - \operatorname{KL}(q \,\|\, N(0, I)),

        with the divergence in closed form.
        """
        check_key("VAE", "key", key)
        m, log_sd = self.encode(x)
        z = m + jnp.exp(log_sd) * jax.random.normal(key, m.shape, m.dtype)
        residual = (jnp.asarray(x) - self.decode(z)) / self.scale
        log_scale = jnp.broadcast_to(self.log_scale, self.event_shape)
        return -jnp.sum(0.5 * residual**2 + log_scale + 0.5 * jnp.log(2 * jnp.pi)) - kl_to_white(m, log_sd)


def kl_to_white(m: Float[Array, " k"], log_sd: Float[Array, " k"]) -> Float[Array, ""]:
    r"""Kullback-Leibler divergence of :math:`N(m, \operatorname{diag} \sigma^2)` from N(0, I):
    :math:`\tfrac12 \sum_i (m_i^2 + \sigma_i^2 - 1) - \sum_i \log \sigma_i`.
    """
    return 0.5 * jnp.sum(m**2 + jnp.expm1(2 * log_sd)) - jnp.sum(log_sd)


def _check(name: str, network: Any, takes: tuple[int, ...], gives: tuple[int, ...]) -> None:
    if not callable(network):
        raise TypeError(f"VAE: `{name}` must be a function of one array; got {type(network).__name__}.")
    try:
        found = jax.eval_shape(network, jax.ShapeDtypeStruct(takes, jnp.result_type(float)))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"VAE: `{name}` does not take an array of shape {takes}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or found.shape != gives:
        raise ValueError(f"VAE: `{name}` must return an array of shape {gives}; got {found}.")
