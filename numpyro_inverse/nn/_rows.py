"""Rows of data: arrays of one length, alone or in a pytree, in memory or on disk, read in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

BLOCK = 16384  # rows read at a time from data that are not in memory


def count_rows(data: Any, name: str) -> int:
    """The number of rows.

    Raises:
        TypeError: no arrays, or not of real numbers.
        ValueError: arrays of different lengths.
    """
    leaves = jax.tree_util.tree_leaves_with_path(data)
    what = f"{name}: `data` must be an array, or a pytree of arrays, one example per row; got "
    if not leaves:
        raise TypeError(f"{what}{type(data).__name__}{'' if data is None else ' without arrays'}.")
    for at, leaf in leaves:
        where = f" at {jax.tree_util.keystr(at)}" if at else ""
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype") or len(leaf.shape) < 1:
            raise TypeError(f"{what}{type(leaf).__name__}{where}.")
        real = jnp.issubdtype(leaf.dtype, np.number) and not jnp.issubdtype(leaf.dtype, np.complexfloating)
        if not real and leaf.dtype != bool:
            raise TypeError(f"{name}: `data` must be real numbers; got an array of {leaf.dtype}{where}.")
    lengths = {jax.tree_util.keystr(at): leaf.shape[0] for at, leaf in leaves}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{at} has {n}" for at, n in lengths.items())
        raise ValueError(f"{name}: all arrays of `data` must have the same number of rows; {found}.")
    return leaves[0][1].shape[0]


def read(data: Any, start: int, stop: int) -> Any:
    """Those rows, in memory."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[int(start) : int(stop)]), data)


def block_size(data: Any, rows: int) -> int:
    """Rows that are shuffled together: all of them if they are in memory."""
    in_memory = all(type(leaf) is np.ndarray or eqx.is_array(leaf) for leaf in jax.tree.leaves(data))
    return rows if in_memory else min(BLOCK, rows)


def shuffled(data: Any, rows: int, size: int, key: PRNGKeyArray, name: str) -> Iterator[Any]:
    """Batches of one size of the first rows: all shuffled, or blocks of neighbors in a random order."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    block = block_size(data, rows)
    left, count = None, 0
    for start in rng.permutation(np.arange(0, rows, block)):
        found = read(data, start, min(start + block, rows))
        count += min(int(start) + block, rows) - int(start)
        left = found if left is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), left, found)
        order = rng.permutation(count)
        left = jax.tree.map(lambda leaf: leaf[order], left)
        while count >= size:
            yield checked(jax.tree.map(lambda leaf: leaf[:size], left), name)
            left, count = jax.tree.map(lambda leaf: leaf[size:], left), count - size
        left = left if count else None


def in_order(data: Any, start: int, stop: int, size: int, name: str) -> Iterator[tuple[Any, int]]:
    """Batches of neighbors, the last one smaller, with their numbers of rows."""
    for i in range(start, stop, size):
        yield checked(read(data, i, min(i + size, stop)), name), min(i + size, stop) - i


def checked(batch: Any, name: str) -> Any:
    """The batch, if its numbers are finite."""
    for at, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if jnp.issubdtype(leaf.dtype, np.floating) and not np.all(np.isfinite(leaf)):
            where = f" at {jax.tree_util.keystr(at)}" if at else ""
            raise ValueError(
                f"{name}: `data` holds numbers that are not finite (NaN or infinite){where}. Remove those rows."
            )
    return batch


def digest_rows(data: Any) -> str:
    """SHA-256 of all rows, read block by block: of their numbers, types, shapes and places in the pytree."""
    found = hashlib.sha256()
    for at, leaf in jax.tree_util.tree_leaves_with_path(data):
        found.update(f"{jax.tree_util.keystr(at)} {leaf.dtype} {tuple(leaf.shape)} ".encode())
        for start in range(0, leaf.shape[0], BLOCK):
            found.update(np.ascontiguousarray(leaf[start : start + BLOCK]).tobytes())
    return found.hexdigest()
