"""Normalizing flows fitted to data by maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, UInt8
from numpyro.distributions import constraints

from numpyro_inverse.nn._training import Fit, TrainingSettings, fit_module, training_rows


def fit_flow(
    flow: Any,
    data: Any,
    *,
    key: PRNGKeyArray,
    prepare: Callable[[Any, PRNGKeyArray], Array] | None = None,
    **settings: Any,
) -> Fit:
    r"""Fits a bijection to data by maximum likelihood.

    The loss is :math:`-\log p(x) = -\log \phi(f^{-1}(x)) - \log |\det \partial f^{-1}(x)|` in nats per example, with
    :math:`\phi` the standard normal density and f the bijection.

    Args:
        flow: an Equinox module with ``inverse_and_log_det(x)`` for one example, such as :class:`MultiscaleFlow`.
        data: one example per row: an array, or anything with ``shape`` and slices (memory map, HDF5, zarr).
        key: of all randomness.
        prepare: what a batch and a key become before the loss, such as :func:`dequantize`.
        **settings: of :class:`TrainingSettings`.

    Returns:
        The flow with the best held-out likelihood, and the losses.

    Raises:
        TypeError: ``data`` is no array of real numbers; ``flow`` has no ``inverse_and_log_det``.
        ValueError: settings that make no sense; rows of another shape than the flow's; data outside
            its range, where its density is zero.

    >>> fit = fit_flow(flow, images, key=jax.random.key(0), prepare=dequantize, max_epochs=10)
    """
    chosen = TrainingSettings(**settings)
    if not hasattr(flow, "inverse_and_log_det"):
        raise TypeError(
            "fit_flow: `flow` must be a module with the method `inverse_and_log_det`, such as `nn.CouplingFlow`; got "
            f"{type(flow).__name__}."
        )
    if prepare is None:
        prepare = _as_they_are
    if not callable(prepare):
        raise TypeError(f"fit_flow: `prepare` must be a function of a batch and a key; got {type(prepare).__name__}.")
    training_rows(data, chosen, "fit_flow")
    first = prepare(np.asarray(data[: min(256, len(data))]), jax.random.key(0))
    wanted = getattr(flow, "shape", None)
    if isinstance(wanted, tuple) and first.shape[1:] != wanted:
        raise ValueError(f"fit_flow: rows of `data` have shape {first.shape[1:]}; the flow is for {wanted}.")
    start = eqx.filter_jit(eqx.filter_vmap(flow_log_prob, in_axes=(None, 0)))(flow, first)
    if not np.all(np.isfinite(start)):
        raise ValueError(
            "fit_flow: the density of the first rows of `data` is zero or not a number, before any training: data "
            f"outside the flow's range (they range from {np.min(first):g} to {np.max(first):g}), or NaN in them."
        )

    support = getattr(flow, "codomain", None)

    def fault(batch: np.ndarray) -> str | None:
        x = prepare(batch, jax.random.key(0))
        if not isinstance(support, constraints.Constraint) or np.all(support(x)):
            return None
        return (
            f"`data` has rows outside the flow's range, where its density is zero (one batch ranges from {np.min(x):g} "
            f"to {np.max(x):g}). Scale the data, or remove those rows."
        )

    def loss(flow: Any, batch: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        return -jnp.mean(jax.vmap(lambda x: flow_log_prob(flow, x))(prepare(batch, key)))

    return fit_module(flow, loss, data, key, chosen, "fit_flow", fault)


def flow_log_prob(flow: Any, x: Float[Array, "..."]) -> Float[Array, ""]:
    """Log density of one example under a bijection of standard normal noise."""
    z, log_det = flow.inverse_and_log_det(x)
    return log_det - 0.5 * jnp.sum(z**2) - 0.5 * z.size * jnp.log(2 * jnp.pi)


def dequantize(images: UInt8[ArrayLike, "..."], key: PRNGKeyArray) -> Float[Array, "..."]:
    """Integers 0 to 255 to numbers in [0, 1]: ``(image + U) / 256`` with U uniform on [0, 1] (uniform dequantisation).

    The density of the result is a lower bound for the probability of the integers (Theis, van den Oord & Bethge, ICLR
    2016, equation 8).
    """
    images = jnp.asarray(images)
    dtype = jnp.result_type(float)
    return (images.astype(dtype) + jax.random.uniform(key, images.shape, dtype)) / 256


def _as_they_are(batch: Any, key: PRNGKeyArray) -> Array:
    return jnp.asarray(batch, jnp.result_type(float))
