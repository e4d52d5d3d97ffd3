"""Normalizing flows fitted to data by maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from numpyro_inverse._checks import check_key
from numpyro_inverse.nn._fit_module import fit_module
from numpyro_inverse.nn._prepare import as_they_are, check_prepare
from numpyro_inverse.nn._rows import read
from numpyro_inverse.nn._training import Fit, TrainingSettings, training_rows


def fit_flow(
    flow: Any,
    data: Any,
    *,
    key: PRNGKeyArray,
    prepare: Callable[[Any, PRNGKeyArray], Any] | None = None,
    **settings: Any,
) -> Fit:
    r"""Fits a bijection to data by maximum likelihood.

    The loss is :math:`-\log p(x) = -\log \phi(f^{-1}(x)) - \log |\det \partial f^{-1}(x)|` in nats per example, with
    :math:`\phi` the standard normal density and f the bijection, given a context if it is conditional.

    Args:
        flow: an Equinox module with ``inverse_and_log_det(x)`` for one example, such as :class:`MultiscaleFlow`, or
            ``inverse_and_log_det(x, context)`` if it has a ``context_shape``, such as a conditional
            :class:`CouplingFlow`.
        data: rows, as for :func:`~numpyro_inverse.nn.train`: an array of one example per row; for a conditional flow
            the pair of examples and contexts; or what ``prepare`` makes into these.
        key: of all randomness.
        prepare: what a batch and a key become before the loss, such as :func:`dequantize`.
        **settings: of :class:`TrainingSettings`.

    Returns:
        The flow with the best held-out likelihood, and the losses.

    Raises:
        TypeError: ``data`` is no array of real numbers; ``flow`` has no ``inverse_and_log_det``; ``key`` is no random
            key.
        ValueError: as :func:`~numpyro_inverse.nn.train`; rows of another shape than the flow's, or no pair for a
            conditional flow; data outside its range, where its density is zero.

    >>> # not run: docs/learned_priors.md does it
    >>> fit = fit_flow(flow, images, key=key, prepare=dequantize, max_epochs=10)  # doctest: +SKIP
    >>> fit = fit_flow(flow, (parameters, data), key=key)  # doctest: +SKIP
    """
    chosen = TrainingSettings(**settings)
    if not hasattr(flow, "inverse_and_log_det"):
        raise TypeError(
            "fit_flow: `flow` must be a module with the method `inverse_and_log_det`, such as `nn.CouplingFlow`; got "
            f"{type(flow).__name__}."
        )
    prepare = as_they_are if prepare is None else prepare
    check_prepare("fit_flow", prepare)
    rows = training_rows(data, chosen, "fit_flow")
    check_key("fit_flow", "key", key)
    shape_of_context = context_shape(flow)

    def pair(batch: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        """Examples and contexts."""
        return prepare(batch, key) if shape_of_context is not None else (prepare(batch, key), None)

    first, contexts = _checked_pair(prepare(read(data, 0, min(256, rows)), jax.random.key(0)), flow, shape_of_context)
    start = eqx.filter_jit(eqx.filter_vmap(flow_log_prob, in_axes=(None, 0, 0)))(flow, first, contexts)
    if not np.all(np.isfinite(start)):
        raise ValueError(
            "fit_flow: the density of the first rows of `data` is zero or not a number, before any training: data "
            f"outside the flow's range (they range from {np.min(first):g} to {np.max(first):g}), or NaN in them."
        )

    support = getattr(flow, "codomain", None)

    def fault(batch: Any) -> str | None:
        x, _ = pair(batch, jax.random.key(0))
        if not isinstance(support, constraints.Constraint) or np.all(support(x)):
            return None
        return (
            f"`data` has rows outside the flow's range, where its density is zero (one batch ranges from {np.min(x):g} "
            f"to {np.max(x):g}). Scale the data, or remove those rows."
        )

    def loss(flow: Any, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        return -jnp.mean(jax.vmap(lambda x, context: flow_log_prob(flow, x, context))(*pair(batch, key)))

    return fit_module(flow, loss, data, key=key, settings=chosen, name="fit_flow", fault=fault)


def flow_log_prob(flow: Any, x: Float[Array, "..."], context: Any = None) -> Float[Array, ""]:
    """Log density of one example under a bijection of standard normal noise, given a context if it is conditional."""
    z, log_det = flow.inverse_and_log_det(x) if context is None else flow.inverse_and_log_det(x, context)
    return log_det - 0.5 * jnp.sum(z**2) - 0.5 * z.size * jnp.log(2 * jnp.pi)


def context_shape(flow: Any) -> tuple[int, ...] | None:
    """The shape of a context that a bijection takes (FlowJAX says ``cond_shape``), or None."""
    found = getattr(flow, "context_shape", getattr(flow, "cond_shape", None))
    return found if isinstance(found, tuple) else None


def _checked_pair(first: Any, flow: Any, shape_of_context: tuple[int, ...] | None) -> tuple[Any, Any]:
    """The first rows, if they are such as the flow takes."""
    contexts = None
    if shape_of_context is not None:
        if not isinstance(first, tuple | list) or len(first) != 2:
            raise ValueError(
                "fit_flow: the flow is conditional; `data` (after `prepare`) must be a pair of examples and contexts, "
                f"got {type(first).__name__}."
            )
        first, contexts = first
        if contexts.shape[1:] != shape_of_context:
            raise ValueError(
                f"fit_flow: contexts in `data` have shape {contexts.shape[1:]}; the flow is for {shape_of_context}."
            )
    if not isinstance(first, jax.Array | np.ndarray):
        raise ValueError(
            f"fit_flow: the flow takes one array of examples; `data` (after `prepare`) is {type(first).__name__}. A "
            "conditional flow is made with `context`."
        )
    wanted = getattr(flow, "shape", None)
    if isinstance(wanted, tuple) and first.shape[1:] != wanted:
        raise ValueError(f"fit_flow: rows of `data` have shape {first.shape[1:]}; the flow is for {wanted}.")
    return first, contexts
