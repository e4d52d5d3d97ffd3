"""Whether two things are the same by content: digests of arrays, settings of kernels, versions of what computes.

Stores and checkpoints are known by these, never by names alone. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

BLOCK = 2**26  # bytes that are in memory at a time
COMPUTING = ("jax", "jaxlib", "numpyro", "numpyro_inverse")


def digest(tree: Any) -> str:
    """A hash of the structure and of every bit of a tree of arrays; what is no array counts by its type.

    Arrays are read in blocks of rows, so memory-mapped ones need not fit.
    """
    sha = hashlib.sha256(re.sub("0x[0-9a-f]+", "", str(jax.tree.structure(tree))).encode())
    for leaf in jax.tree.leaves(tree):
        try:
            x = _array(leaf)
        except TypeError:
            sha.update(type(leaf).__name__.encode())
            continue
        sha.update(f"{x.shape} {x.dtype}".encode())
        if x.dtype == object:
            sha.update(type(leaf).__name__.encode())
            continue
        for block in _blocks(x):
            sha.update(block.tobytes())
    return sha.hexdigest()


def _array(leaf: Any) -> Any:
    """The leaf as something with a shape, a type and rows."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    rows = all(hasattr(leaf, name) for name in ("shape", "dtype", "__getitem__"))
    return leaf if rows else np.asarray(leaf)


def _blocks(x: Any) -> Any:
    if len(x.shape) == 0 or x.shape[0] == 0:
        yield np.asarray(x[()])
        return
    row = max(1, int(np.prod(x.shape[1:], dtype=int)) * np.dtype(x.dtype).itemsize)
    step = max(1, BLOCK // row)
    for start in range(0, x.shape[0], step):
        yield np.asarray(x[start : start + step])


def kernel_settings(kernel: MCMCKernel) -> dict[str, Any]:
    """Class and plain settings of a kernel, of its blocks too. Functions, the model among them, are not seen."""
    found: dict[str, Any] = {"class": type(kernel).__name__}
    for name, value in sorted(vars(kernel).items()):
        plain = _plain_setting(value)
        if plain is not None:
            found[name.lstrip("_")] = plain
    return found


def _plain_setting(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, jax.Array)):
        return digest(value)
    if isinstance(value, MCMCKernel):
        return kernel_settings(value)
    if isinstance(value, (tuple, list)) and value:
        parts = [_plain_setting(part) for part in value]
        return parts if all(part is not None for part in parts) else None
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        parts_by_name = {key: _plain_setting(part) for key, part in sorted(value.items())}
        return {key: part for key, part in parts_by_name.items() if part is not None} or None
    return None


def versions() -> dict[str, str]:
    """Of the packages whose change may change a draw."""
    return {name: version(name) for name in COMPUTING}


def first_difference(old: Any, new: Any) -> tuple[str, Any, Any]:
    """The path to the first entry of nested dictionaries that differs, and the two values there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new), key=lambda name: (name != "class", name)):
            if old.get(key) != new.get(key):
                path, before, after = first_difference(old.get(key), new.get(key))
                return f"{key}.{path}" if path else key, before, after
    return "", old, new
