"""What a conditional flow sees of its context: standardized numbers, through a network if there is one."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import describe
from numpyro_inverse.nn._networks import check_counts, check_event, check_rows, check_sides


class ContextEmbedding(eqx.Module):
    r"""The features :math:`h((c - m) / s)` of a context c, with a network h, or c as a vector.

    The network is trained with the flow; mean m and standard deviation s, one for each number of c, are not.

    >>> embedding = ContextEmbedding((32, 32), network, data=images)
    >>> flow = CouplingFlow(3, context=embedding, key=key)
    >>> fit = fit_flow(flow, (parameters, images), key=key)
    >>> posterior = distributions.Flow(fit.module, context=observed)

    Args:
        shape: of a context.
        network: h, an Equinox module from an array of that shape to a vector; None: no network.
        data: contexts, one per row, whose mean and standard deviation m and s are. Default: 0 and 1.
        shared_axes: of a context, along which the numbers share m and s: that of exchangeable rows, for instance.

    Raises:
        TypeError: ``shape`` is no tuple of integers; ``network`` cannot be called.
        ValueError: a side that is not positive; ``data`` of another shape, not finite or without rows; an axis that the
            context does not have; a network that does not take such an array or does not return a vector.
    """

    mean: Float[Array, "*shape"]
    scale: Float[Array, "*shape"]
    network: Callable[[Array], Array] | None
    shape: tuple[int, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        network: Callable[[Float[Array, "*shape"]], Float[Array, " features"]] | None = None,
        *,
        data: Float[np.ndarray, "n *shape"] | None = None,
        shared_axes: tuple[int, ...] = (),
    ):
        name = "ContextEmbedding"
        if not isinstance(shape, tuple):
            raise TypeError(f"{name}: `shape` must be a tuple of integers, such as `(3,)`; got {describe(shape)}.")
        check_sides(name, "shape", shape)
        if not isinstance(shared_axes, tuple) or not all(
            axis in range(len(shape)) and not isinstance(axis, bool) for axis in shared_axes
        ):
            raise ValueError(
                f"{name}: `shared_axes` must be axes of a context, 0 to {len(shape) - 1}; got {shared_axes!r}."
            )
        dtype = jnp.result_type(float)
        self.mean, self.scale = jnp.zeros(shape, dtype), jnp.ones(shape, dtype)
        if data is not None:
            data = check_rows(name, "data", data)
            if data.shape[1:] != shape or len(data) < 1 or not np.all(np.isfinite(data)):
                raise ValueError(
                    f"{name}: `data` must be finite contexts of shape {shape}, one per row; got shape {data.shape}"
                    f"{'' if np.all(np.isfinite(data)) else ' with numbers that are not finite'}."
                )
            over = (0, *(axis + 1 for axis in shared_axes))
            mean, spread = (np.broadcast_to(f(data, axis=over, keepdims=True)[0], shape) for f in (np.mean, np.std))
            self.mean = jnp.asarray(mean, dtype)
            self.scale = jnp.asarray(np.where(spread > 0, spread, 1.0), dtype)
        self.network, self.shape = network, shape
        self.size = prod(shape) if network is None else _features(network, shape)

    def __call__(self, context: Float[Array, "*shape"]) -> Float[Array, " size"]:
        """The features of one context."""
        context = check_event("ContextEmbedding", "context", context, self.shape, booleans=True)
        standard = (context - jax.lax.stop_gradient(self.mean)) / jax.lax.stop_gradient(self.scale)
        return jnp.ravel(standard) if self.network is None else self.network(standard)


def as_embedding(name: str, context: Any) -> ContextEmbedding | None:
    """What is meant by a flow's argument ``context``.

    Raises:
        TypeError, ValueError: it is neither a positive integer nor an embedding.
    """
    if context is None or isinstance(context, ContextEmbedding):
        return context
    if isinstance(context, bool) or not isinstance(context, int | np.integer):
        raise TypeError(
            f"{name}: `context` must be the numbers in a context vector, or a `ContextEmbedding`; got "
            f"{describe(context)}."
        )
    check_counts(name, context=context)
    return ContextEmbedding((int(context),))


def features_of(name: str, embedding: ContextEmbedding | None, context: Any) -> Array | None:
    """The features of a context; None for a flow without.

    Raises:
        TypeError: a context is missing, or not wanted.
        ValueError: it has another shape.
    """
    if embedding is None:
        if context is not None:
            raise TypeError(f"{name}: the flow was made without `context`, and takes none.")
        return None
    if context is None:
        raise TypeError(f"{name}: the flow is conditional and needs a `context` of shape {embedding.shape}.")
    return embedding(check_event(name, "context", context, embedding.shape, booleans=True))


def _features(network: Any, shape: tuple[int, ...]) -> int:
    if not callable(network):
        raise TypeError(f"ContextEmbedding: `network` must be a function of one array; got {type(network).__name__}.")
    try:
        found = jax.eval_shape(network, jax.ShapeDtypeStruct(shape, jnp.result_type(float)))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"ContextEmbedding: `network` does not take an array of shape {shape}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or len(found.shape) != 1:
        raise ValueError(f"ContextEmbedding: `network` must return a vector; got {found}.")
    return found.shape[0]
