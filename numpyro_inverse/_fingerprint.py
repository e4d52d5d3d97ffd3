"""A hash of numbers that compiled programs and the host compute alike, to notice other model arguments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt

PLACE, INDEX = 0x9E3779B9, 0x85EBCA77  # odd constants, one for the place of a leaf and one for that of a number


def fingerprint(tree: Any) -> UInt[Array, ""]:
    """A hash of all numbers in a tree, the same in every compiled program and outside of them.

    Of known numbers it is known, and costs a compiled program nothing; only what is traced is hashed in it. What is no
    number does not count.
    """
    total: Any = np.uint32(0)
    for place, leaf in enumerate(jax.tree.leaves(tree)):
        if isinstance(leaf, jax.core.Tracer):
            total = total + _sum(jnp, *_words(jnp, leaf), place)
        elif isinstance(leaf, bool | int | float | complex | np.ndarray | np.generic | jax.Array):
            with np.errstate(over="ignore"):
                total = total + _sum(np, *_words(np, leaf), place)
    return total


def _sum(xp: Any, words: Any, index: Any, place: int) -> Any:
    """The sum of a hash of each number and its place: Murmur's, whose every bit depends on every other."""
    salt = _murmur(xp, index * xp.uint32(INDEX) + xp.uint32(PLACE * (place + 1) % 2**32))
    return xp.sum(_murmur(xp, words ^ salt), dtype=xp.uint32)


def _murmur(xp: Any, x: Any) -> Any:
    x = (x ^ (x >> xp.uint32(16))) * xp.uint32(0x85EBCA6B)
    x = (x ^ (x >> xp.uint32(13))) * xp.uint32(0xC2B2AE35)
    return x ^ (x >> xp.uint32(16))


def _words(xp: Any, leaf: Any) -> tuple[Any, Any]:
    """The leaf as unsigned 32-bit words in the precision that it has in JAX, and their places."""
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    x = xp.ravel(xp.asarray(leaf)).astype(jax.dtypes.canonicalize_dtype(dtype))
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = xp.concatenate([x.real, x.imag])
    if x.dtype.itemsize < 4:
        x = x.astype(xp.uint32)
    else:
        x = x.view(np.uint32) if xp is np else jax.lax.bitcast_convert_type(x, jnp.uint32).ravel()
    return x, xp.arange(x.size, dtype=xp.uint32)
