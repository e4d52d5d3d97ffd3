"""Densities fitted to data by maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key, describe
from numpyro_inverse.nn._fit_module import fit_module
from numpyro_inverse.nn._prepare import as_they_are, check_prepare
from numpyro_inverse.nn._rows import read
from numpyro_inverse.nn._training import Fit, settings_from, training_rows

Loss = Callable[[Any, Any, Any, PRNGKeyArray], Float[Array, ""]]


def fit_density(density: Any, data: Any, *, key: PRNGKeyArray, **settings: Any) -> Fit:
    r"""Fits a density to rows, or a conditional density to pairs of rows and contexts, by maximum likelihood.

    The loss is the mean of :math:`-\log q(x \mid c)`, in nats per event, or of the density's own ``loss(x, context,
    key)`` if it has one, such as :class:`FlowMatching`.

    >>> # not run: docs/networks_for_simulations.md does it
    >>> law = nn.MixtureAutoregressive(2, context=3, data=(x, c), key=key)  # doctest: +SKIP
    >>> fit = nn.fit_density(law, (x, c), key=key)  # doctest: +SKIP

    Args:
        density: an Equinox module with ``log_prob(x, context)`` for one event and a ``context_shape``, which is None,
            or missing, if it is not conditional.
        data: rows, as for :func:`~numpyro_inverse.nn.train`; the pair of rows and contexts for a conditional density.
        key: of all randomness.
        **settings: of :class:`TrainingSettings`.

    Returns:
        The density with the best held-out likelihood, and the losses.

    Raises:
        TypeError: ``data`` is no array of real numbers; ``density`` has no ``log_prob``; ``key`` is no random key.
        ValueError: as :func:`~numpyro_inverse.nn.train`; rows of another shape than the density's, or no pair for a
            conditional one; rows where the density is zero before any training.
    """
    if isinstance(density, type) or not hasattr(density, "log_prob"):
        raise TypeError(
            "fit_density: `density` must be a module with the method `log_prob`, such as `nn.MixtureAutoregressive`; "
            f"got {describe(density)}."
        )

    def loss(density: Any, x: Any, context: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        if hasattr(density, "loss"):
            return density.loss(x, context, key)
        return -(density.log_prob(x) if context is None else density.log_prob(x, context))

    return fit_mean("fit_density", "density", density, loss, data, key=key, prepare=None, settings=settings)


def fit_mean(
    name: str,
    noun: str,
    density: Any,
    loss_of_one: Loss,
    data: Any,
    *,
    key: PRNGKeyArray,
    prepare: Callable[[Any, PRNGKeyArray], Any] | None,
    settings: dict[str, Any],
) -> Fit:
    """Fits a module (a ``noun`` in messages) by the mean of ``loss_of_one(module, x, context, key)``."""
    chosen = settings_from(name, settings)
    prepare = as_they_are if prepare is None else prepare
    check_prepare(name, prepare)
    rows = training_rows(data, chosen, name)
    check_key(name, "key", key)
    shape_of_context = context_shape(density)

    def pair(batch: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        """Examples and contexts."""
        return prepare(batch, key) if shape_of_context is not None else (prepare(batch, key), None)

    first, contexts = _checked_pair(
        name, noun, prepare(read(data, 0, min(256, rows)), jax.random.key(0)), density, shape_of_context
    )

    def losses(density: Any, x: Any, contexts: Any, key: PRNGKeyArray) -> Float[Array, " n"]:
        keys = jax.random.split(key, len(x))
        return jax.vmap(lambda *row: loss_of_one(density, *row))(x, contexts, keys)

    values = eqx.filter_jit(losses)
    if not np.all(np.isfinite(values(density, first, contexts, jax.random.key(0)))):
        raise ValueError(
            f"{name}: the density of the first rows of `data` is zero or not a number, before any training: data "
            f"outside the {noun}'s range (they range from {np.min(first):g} to {np.max(first):g}), or NaN in them."
        )

    def fault(batch: Any) -> str | None:
        x, contexts = pair(batch, jax.random.key(0))
        if np.all(np.isfinite(values(density, x, contexts, jax.random.key(0)))):
            return None
        return (
            f"`data` has rows outside the {noun}'s range, where its density is zero (one batch ranges from "
            f"{np.min(x):g} to {np.max(x):g}). Scale the data, or remove those rows."
        )

    def loss(density: Any, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        return jnp.mean(losses(density, *pair(batch, key), key))

    return fit_module(density, loss, data, key=key, settings=chosen, name=name, fault=fault)


def context_shape(density: Any) -> tuple[int, ...] | None:
    """The shape of a context that a module takes (FlowJAX says ``cond_shape``), or None."""
    found = getattr(density, "context_shape", getattr(density, "cond_shape", None))
    return found if isinstance(found, tuple) else None


def _checked_pair(
    name: str, noun: str, first: Any, density: Any, shape_of_context: tuple[int, ...] | None
) -> tuple[Any, Any]:
    """The first rows, if they are such as the module takes."""
    contexts = None
    if shape_of_context is not None:
        if not isinstance(first, tuple | list) or len(first) != 2:
            raise ValueError(
                f"{name}: the {noun} is conditional; `data` (after `prepare`) must be a pair of examples and contexts, "
                f"got {type(first).__name__}."
            )
        first, contexts = first
        if contexts.shape[1:] != shape_of_context:
            raise ValueError(
                f"{name}: contexts in `data` have shape {contexts.shape[1:]}; the {noun} is for {shape_of_context}."
            )
    if not isinstance(first, jax.Array | np.ndarray):
        raise ValueError(
            f"{name}: the {noun} takes one array of examples; `data` (after `prepare`) is {type(first).__name__}. A "
            f"conditional {noun} is made with `context`."
        )
    wanted = getattr(density, "shape", None)
    if isinstance(wanted, tuple) and first.shape[1:] != wanted:
        raise ValueError(f"{name}: rows of `data` have shape {first.shape[1:]}; the {noun} is for {wanted}.")
    return first, contexts
