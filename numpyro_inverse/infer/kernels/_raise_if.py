"""Errors and warnings raised while compiled code runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


def raise_if(
    bad: Bool[Array, ""],
    number: Int[Array, ""],
    message: str | Callable[..., str],
    x: Array,
    details: Callable[[], tuple[Any, ...]] = tuple,
) -> Array:
    """``x``, or a RuntimeError, inside compiled code too.

    Args:
        bad: when to raise; in a batch of chains, for any of them.
        number: goes into the message, of the chain that is bad.
        message: with a place for the number; or a function of the number and the details.
        x: what is handed through.
        details: further numbers, the same for all chains; evaluated only when it is bad.
    """

    def fail(number):
        def stop(number, *found):
            raise RuntimeError(message(int(number), *found) if callable(message) else message.format(int(number)))

        return jax.pure_callback(stop, jax.ShapeDtypeStruct((), x.dtype), number, *details())

    number = eqxi.unvmap_max(jnp.where(bad, number, -1))
    return x + jax.lax.cond(eqxi.unvmap_any(bad), fail, lambda _: jnp.zeros((), x.dtype), number)


def warn_if(due: Bool[Array, ""], message: str, x: Array) -> Array:
    """``x``, with a UserWarning, inside compiled code too; in a batch of chains one, when it is due for any of them."""

    def warn() -> Array:
        def say():
            warnings.warn(message, UserWarning, stacklevel=2)
            return np.zeros((), x.dtype)

        return jax.pure_callback(say, jax.ShapeDtypeStruct((), x.dtype))

    return x + jax.lax.cond(eqxi.unvmap_any(due), warn, lambda: jnp.zeros((), x.dtype))
