"""What rows become before the loss: as they are, or integers made continuous; and what the first ones must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, UInt8

from numpyro_inverse._checks import check_key, check_real, is_traced
from numpyro_inverse.nn._rows import read


def dequantize(images: UInt8[ArrayLike, "..."], key: PRNGKeyArray) -> Float[Array, "..."]:
    """Integers 0 to 255 to numbers in [0, 1]: ``(image + U) / 256`` with U uniform on [0, 1] (uniform dequantization).

    The density of the result is a lower bound for the probability of the integers (Theis, van den Oord & Bethge, ICLR
    2016, equation 8).

    Raises:
        TypeError: ``images`` are not integers; ``key`` is no random key.
        ValueError: integers below 0 or above 255; within compiled code they become NaN instead.
    """
    found: Any = images if hasattr(images, "dtype") else check_real("dequantize", "images", images)
    images = found if hasattr(found, "dtype") else np.asarray(found)
    if not jnp.issubdtype(images.dtype, jnp.integer):
        raise TypeError(f"dequantize: `images` must be integers from 0 to 255; got an array of {images.dtype}.")
    check_key("dequantize", "key", key)
    dtype = jnp.result_type(float)
    values = jnp.asarray(images).astype(dtype)
    if images.dtype != jnp.uint8:
        inside = (images >= 0) & (images <= 255)
        if not is_traced(images) and not np.all(inside):
            raise ValueError(
                f"dequantize: `images` must be integers from 0 to 255; they range from {np.min(images)} to "
                f"{np.max(images)}."
            )
        values = jnp.where(inside, values, jnp.nan)
    return (values + jax.random.uniform(key, images.shape, dtype)) / 256


def as_they_are(batch: Any, key: PRNGKeyArray) -> Any:
    """Rows in JAX's precision."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), batch)


def check_prepare(name: str, prepare: Any) -> None:
    """Raise if this is no function.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(prepare):
        raise TypeError(f"{name}: `prepare` must be a function of a batch and a key; got {type(prepare).__name__}.")


def first_rows(name: str, data: Any, rows: int, prepare: Callable, shape: tuple[int, ...]) -> Array:
    """Up to 256 prepared rows, of that shape and finite.

    Raises:
        TypeError: ``prepare`` cannot be called.
        ValueError: it gives no array; rows of another shape; numbers that are not finite.
    """
    check_prepare(name, prepare)
    first = prepare(read(data, 0, min(256, rows)), jax.random.key(0))
    if not isinstance(first, jax.Array | np.ndarray):
        raise ValueError(
            f"{name}: the networks take one array of rows; `data` after `prepare` is {type(first).__name__}. Let "
            "`prepare` return the examples alone."
        )
    if first.shape[1:] != shape:
        raise ValueError(f"{name}: rows of `data` have shape {first.shape[1:]}; the networks are for {shape}.")
    if not np.all(np.isfinite(first)):
        raise ValueError(f"{name}: `data` holds numbers that are not finite (NaN or infinite). Remove those rows.")
    return jnp.asarray(first)


def fault_of(prepare: Callable) -> Callable[[Any], str | None]:
    """The fault that ``prepare`` finds in rows: it raises."""

    def fault(batch: Any) -> None:
        prepare(batch, jax.random.key(0))

    return fault
