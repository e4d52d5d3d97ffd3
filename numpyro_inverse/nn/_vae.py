"""Variational autoencoders: decoders with a Gaussian latent, for generator priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse.nn._networks import check_counts
from numpyro_inverse.nn._training import Fit, TrainingSettings, fit_module, training_rows

CELL = 4  # side of the squares of pixels that the networks for images work on


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
        TypeError: a network that cannot be called.
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
        _check("encoder", encoder, tuple(event_shape), (2 * latent_size,))
        _check("decoder", decoder, (latent_size,), tuple(event_shape))
        size = np.asarray(scale, float)
        if not np.all((size > 0) & np.isfinite(size)):
            raise ValueError(f"VAE: `scale` must be positive and finite; got {scale}.")
        try:
            fits = np.broadcast_shapes(size.shape, tuple(event_shape)) == tuple(event_shape)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"VAE: `scale` must broadcast to `event_shape` {event_shape}; got shape {size.shape}.")
        self.encoder = encoder
        self.decoder = decoder
        self.log_scale = jnp.log(jnp.asarray(size, jnp.result_type(float)))
        self.event_shape = tuple(event_shape)
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
            TypeError: a ``latent_size`` or ``width`` that is no integer.
            ValueError: sides that are not multiples of 4; a ``latent_size`` or ``width`` below 1.
        """
        check_counts("VAE.for_images", latent_size=latent_size, width=width)
        if not isinstance(shape, tuple | list) or len(shape) != 2 or any(n < CELL or n % CELL for n in shape):
            raise ValueError(f"VAE.for_images: `shape` must be two multiples of {CELL}; got {shape}.")
        encoder, decoder = jax.random.split(key)
        return cls(
            _Encoder(shape, latent_size, width, key=encoder),
            _Decoder(shape, latent_size, width, sigmoid, key=decoder),
            event_shape=shape,
            latent_size=latent_size,
        )

    @property
    def scale(self) -> Float[Array, "..."]:
        """s, standard deviation of an example about its decoded latent."""
        return jnp.exp(self.log_scale)

    def encode(self, x: Float[Array, "*event"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        r"""m and :math:`\log \sigma` of one example."""
        m, log_sd = jnp.split(self.encoder(x), 2)
        return m, log_sd

    def decode(self, z: Float[Array, " k"]) -> Float[Array, "*event"]:
        """d(z) for one latent."""
        return self.decoder(z)

    def elbo(self, x: Float[Array, "*event"], key: PRNGKeyArray) -> Float[Array, ""]:
        r"""Unbiased estimate, by one draw, of a lower bound of :math:`\log p(x)`, in nats:

        .. math:: E_q \log N(x; d(z), s^2) - \operatorname{KL}(q \,\|\, N(0, I)),

        with the divergence in closed form.
        """
        m, log_sd = self.encode(x)
        z = m + jnp.exp(log_sd) * jax.random.normal(key, m.shape, m.dtype)
        residual = (x - self.decode(z)) / self.scale
        log_scale = jnp.broadcast_to(self.log_scale, x.shape)
        return -jnp.sum(0.5 * residual**2 + log_scale + 0.5 * jnp.log(2 * jnp.pi)) - kl_to_white(m, log_sd)


def kl_to_white(m: Float[Array, " k"], log_sd: Float[Array, " k"]) -> Float[Array, ""]:
    r"""Kullback-Leibler divergence of :math:`N(m, \operatorname{diag} \sigma^2)` from N(0, I):
    :math:`\tfrac12 \sum_i (m_i^2 + \sigma_i^2 - 1) - \sum_i \log \sigma_i`.
    """
    return 0.5 * jnp.sum(m**2 + jnp.expm1(2 * log_sd)) - jnp.sum(log_sd)


def fit_vae(
    vae: VAE,
    data: Any,
    *,
    key: PRNGKeyArray,
    prepare: Callable[[Array, PRNGKeyArray], Array] | None = None,
    **settings: Any,
) -> Fit:
    r"""Fits both networks and the scale by maximising the evidence lower bound, :meth:`VAE.elbo`.

    Args:
        vae: what is fitted.
        data: one example per row: an array, or anything with ``shape`` and slices (memory map, HDF5, zarr).
        key: of all randomness.
        prepare: what a batch and a key become before the loss, such as :func:`~numpyro_inverse.nn.dequantize`.
        **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`.

    Returns:
        The autoencoder with the best held-out bound, and the losses, minus the bound in nats per example.

    Raises:
        TypeError: ``data`` is no array, or ``vae`` no :class:`VAE`.
        ValueError: settings that make no sense; rows of another shape than the networks take; a bound
            that is not finite before any training.

    >>> fit = fit_vae(vae, images, key=jax.random.key(0), prepare=dequantize, max_epochs=10)
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"fit_vae: `vae` must be a VAE; got {type(vae).__name__}.")
    chosen = TrainingSettings(**settings)
    prepare = prepared_rows if prepare is None else prepare
    training_rows(data, chosen, "fit_vae")
    first = first_rows("fit_vae", data, prepare, vae.event_shape)
    start = jax.vmap(vae.elbo)(first, jax.random.split(key, len(first)))
    if not np.all(np.isfinite(start)):
        raise ValueError(
            "fit_vae: the bound of the first rows is not finite, before any training. Scale the data (they range from "
            f"{np.min(first):g} to {np.max(first):g}) or start from smaller weights."
        )

    def loss(vae: VAE, batch: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        prepared, drawn = jax.random.split(key)
        x = prepare(batch, prepared)
        return -jnp.mean(jax.vmap(vae.elbo)(x, jax.random.split(drawn, len(x))))

    return fit_module(vae, loss, data, key, chosen, "fit_vae")


def prepared_rows(batch: Array, key: PRNGKeyArray) -> Array:
    """Rows as they are, in JAX's precision."""
    return jnp.asarray(batch, jnp.result_type(float))


def first_rows(name: str, data: Any, prepare: Callable, shape: tuple[int, ...]) -> Array:
    """Up to 256 prepared rows, of that shape and finite.

    Raises:
        TypeError: ``prepare`` cannot be called.
        ValueError: rows of another shape; numbers that are not finite.
    """
    if not callable(prepare):
        raise TypeError(f"{name}: `prepare` must be a function of a batch and a key; got {type(prepare).__name__}.")
    first = prepare(np.asarray(data[: min(256, len(data))]), jax.random.key(0))
    if first.shape[1:] != shape:
        raise ValueError(f"{name}: rows of `data` have shape {first.shape[1:]}; the networks are for {shape}.")
    if not np.all(np.isfinite(first)):
        raise ValueError(f"{name}: `data` holds numbers that are not finite (NaN or infinite). Remove those rows.")
    return first


class _Encoder(eqx.Module):
    first: _Neighbourhoods
    last: eqx.nn.Linear

    def __init__(self, shape: tuple[int, int], latent_size: int, width: int, *, key: PRNGKeyArray):
        first, last = jax.random.split(key)
        self.first = _Neighbourhoods(CELL**2, width, key=first)
        self.last = eqx.nn.Linear(width * shape[0] * shape[1] // CELL**2, 2 * latent_size, key=last)

    def __call__(self, x: Float[Array, "h w"]) -> Float[Array, " 2k"]:
        return self.last(jax.nn.gelu(self.first(_cut(x))).ravel())


class _Decoder(eqx.Module):
    first: eqx.nn.Linear
    second: _Neighbourhoods
    last: _Neighbourhoods
    coarse: tuple[int, int, int] = eqx.field(static=True)
    sigmoid: bool = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int], latent_size: int, width: int, sigmoid: bool, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.coarse = (shape[0] // CELL, shape[1] // CELL, width)
        self.first = eqx.nn.Linear(latent_size, width * self.coarse[0] * self.coarse[1], key=keys[0])
        self.second = _Neighbourhoods(width, width, key=keys[1])
        self.last = _Neighbourhoods(width, CELL**2, key=keys[2])
        self.sigmoid = sigmoid

    def __call__(self, z: Float[Array, " k"]) -> Float[Array, "h w"]:
        y = jax.nn.gelu(self.first(z)).reshape(self.coarse)
        y = _join(self.last(y + jax.nn.gelu(self.second(y))))
        return jax.nn.sigmoid(y) if self.sigmoid else y


class _Neighbourhoods(eqx.Module):
    """A 3 x 3 convolution with zeros outside, as a product of matrices: its gradient is much faster on a CPU."""

    linear: eqx.nn.Linear

    def __init__(self, channels: int, out: int, *, key: PRNGKeyArray):
        self.linear = eqx.nn.Linear(9 * channels, out, key=key)

    def __call__(self, x: Float[Array, "h w channels"]) -> Float[Array, "h w out"]:
        h, w, _ = x.shape
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        near = [padded[i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return jnp.concatenate(near, axis=-1) @ self.linear.weight.T + self.linear.bias  # type: ignore[operator]


def _cut(x: Float[Array, "h w"]) -> Float[Array, "rows columns pixels"]:
    """Squares of pixels as channels."""
    h, w = x.shape
    return x.reshape(h // CELL, CELL, w // CELL, CELL).transpose(0, 2, 1, 3).reshape(h // CELL, w // CELL, CELL**2)


def _join(x: Float[Array, "rows columns pixels"]) -> Float[Array, "h w"]:
    """The inverse of :func:`_cut`."""
    h, w, _ = x.shape
    return x.reshape(h, w, CELL, CELL).transpose(0, 2, 1, 3).reshape(CELL * h, CELL * w)


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
