"""Autoencoders fitted to data by their evidence lower bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key
from numpyro_inverse.nn._fit_module import fit_module
from numpyro_inverse.nn._prepare import as_they_are, fault_of, first_rows
from numpyro_inverse.nn._training import Fit, settings_from, training_rows
from numpyro_inverse.nn._vae import VAE


def fit_vae(
    vae: VAE,
    data: Any,
    *,
    key: PRNGKeyArray,
    prepare: Callable[[Array, PRNGKeyArray], Array] | None = None,
    **settings: Any,
) -> Fit:
    r"""Fits both networks and the scale by maximizing the evidence lower bound, :meth:`VAE.elbo`.

    Args:
        vae: what is fitted.
        data: rows, as for :func:`~numpyro_inverse.nn.train`: an array of one example per row, or a pytree of arrays of
            which ``prepare`` makes one.
        key: of all randomness.
        prepare: what a batch and a key become before the loss, such as :func:`~numpyro_inverse.nn.dequantize`.
        **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`.

    Returns:
        The autoencoder with the best held-out bound, and the losses, minus the bound in nats per example.

    Raises:
        TypeError: ``data`` is no array, ``vae`` no :class:`VAE`, ``key`` no random key.
        ValueError: as :func:`~numpyro_inverse.nn.train`; rows of another shape than the networks take; a bound
            that is not finite before any training.

    >>> fit = fit_vae(vae, images, key=jax.random.key(0), prepare=dequantize, max_epochs=10)
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"fit_vae: `vae` must be a VAE; got {type(vae).__name__}.")
    chosen = settings_from("fit_vae", settings)
    prepare = as_they_are if prepare is None else prepare
    rows = training_rows(data, chosen, "fit_vae")
    check_key("fit_vae", "key", key)
    first = first_rows("fit_vae", data, rows, prepare, vae.event_shape)
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

    return fit_module(vae, loss, data, key=key, settings=chosen, name="fit_vae", fault=fault_of(prepare))
