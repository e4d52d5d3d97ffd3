"""The Zarr store of a long run: layout, markers, and the check that it is the run that is asked for.

``posterior/site`` and ``sample_stats/field`` have shape (chain, draw, ...), one chunk a block. ``state/0`` and
``state/1`` hold the kernel's state after even and odd blocks, so that a block never overwrites the state that the next
attempt needs. ``marker[b]`` is written last, in a chunk of its own: one file, put in place by a rename.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from numpyro.infer.mcmc import MCMCKernel

FORMAT = "numpyro_inverse run, version 1"
COMPLETE = 1
SUMS = ("shift", "sum", "squares", "batch_sum", "batch_squares")


def import_zarr(where: str) -> Any:
    """Zarr, or an error that names the extra."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{where}: needs Zarr: pip install 'numpyro-inverse[runs]'.") from error
    return zarr


class RunStore:
    """One run in a Zarr group."""

    def __init__(self, zarr: Any, store: Any, where: str, writable: bool = True):
        self._where = where
        if isinstance(store, (str, Path)) and not Path(store).exists() and not writable:
            raise ValueError(f"{where}: there is no store at {str(store)!r}.")
        if isinstance(store, (str, Path)) and Path(store).is_file():
            raise ValueError(f"{where}: `store` is a file, {str(store)!r}; give a directory.")
        path = Path(store) if isinstance(store, (str, Path)) else None
        if path is not None and path.is_dir() and any(path.iterdir()) and not (path / "zarr.json").exists():
            raise ValueError(f"{where}: the directory {str(store)!r} is not empty and holds no run; give another.")
        try:
            self._group = zarr.open_group(store, mode="a" if writable else "r")
        except FileNotFoundError as error:
            raise ValueError(f"{where}: there is no run in the store.") from error
        found = self._group.attrs.get("format")
        if found != FORMAT and (found is not None or any(True for _ in self._group.members()) or not writable):
            raise ValueError(f"{where}: the store holds no run ({found!r} instead of {FORMAT!r}); give another.")

    @property
    def is_new(self) -> bool:
        """Whether nothing counts yet: the settings are written when everything is in place."""
        return "settings" not in self._group.attrs

    @property
    def settings(self) -> dict[str, Any]:
        """Of the run in the store."""
        if self.is_new:
            raise ValueError(f"{self._where}: the run in the store was cut off before its first block.")
        return json.loads(self._group.attrs["settings"])

    def create(
        self,
        settings: dict[str, Any],
        prototype: dict[str, Any],
        first: Any,
        num_chains: int,
        lengths: Sequence[tuple[bool, int]],
        thinning: int,
    ) -> None:
        """Make the arrays, then write the settings, which makes the store count."""
        self._group.attrs["format"] = FORMAT
        draws = [length // thinning if kept else 0 for kept, length in lengths]
        sizes = 0
        leading = 2 if num_chains > 1 and settings["chain_method"] == "vectorized" else 1  # draw, chain
        for name, abstract in prototype.items():
            shape = abstract.shape[leading:]
            self._array(name, (num_chains, sum(draws), *shape), (num_chains, max(draws), *shape), abstract.dtype)
            if name.startswith("posterior/"):
                sizes += int(np.prod(shape, dtype=int))
        for side in (0, 1):
            for place, leaf in enumerate(_leaves(first)):
                self._array(f"state/{side}/{place}", leaf.shape, leaf.shape, leaf.dtype)
            for name in SUMS:
                self._array(f"state/{side}/{name}", (sizes,), (sizes,), np.float64)
            self._array(f"state/{side}/counts", (2,), (2,), np.int64)
        for place, leaf in enumerate(_leaves(first)):
            self._array(f"first/{place}", leaf.shape, leaf.shape, leaf.dtype)[...] = leaf
        self._array("marker", (len(lengths),), (1,), np.uint8)
        self._group.attrs["draws"] = draws
        self._group.attrs["settings"] = json.dumps(settings)

    def _array(self, name: str, shape: tuple, chunks: tuple, dtype: Any) -> Any:
        chunks = tuple(max(1, c) for c in chunks)
        return self._group.create_array(
            name, shape=shape, chunks=chunks, dtype=np.dtype(dtype), fill_value=0, overwrite=True
        )

    def check(self, settings: dict[str, Any], first: Any) -> None:
        """Raise unless the store was written by the same model, data, key and settings."""
        found = self.settings
        asked = json.loads(json.dumps(settings))
        other = "the store was written by another run; give another store, or the same arguments"
        for name, value in asked.items():
            if found.get(name) != value:
                old, new = _difference(found.get(name), value)
                raise ValueError(f"{self._where}: {other}: `{name}` was {old}, and is now {new}.")
        paths = [keystr(path).lstrip(".") for path, _ in tree_flatten_with_path(first)[0]]
        for place, (path, leaf) in enumerate(zip(paths, _leaves(first), strict=True)):
            known = f"first/{place}" in self._group
            old = self._group[f"first/{place}"][...] if known else np.zeros(0)
            if old.shape != leaf.shape or old.dtype != leaf.dtype or not _equal(old, leaf):
                raise ValueError(
                    f"{self._where}: {other}: the model or the kernel is not the same (`{path}` of the first state "
                    "differs)."
                )

    def resume(self, first: Any) -> tuple[int, Any, dict[str, np.ndarray]]:
        """Number of blocks that count, the state after them, and the sums of the effective sample size."""
        done = self.num_blocks_done()
        if done == 0:
            size = self._group["state/0/sum"].shape
            zeros = {name: np.zeros(size) for name in SUMS}
            return 0, first, zeros | {"n": np.zeros((), np.int64), "m": np.zeros((), np.int64)}
        side = (done - 1) % 2
        leaves, structure = jax.tree.flatten(first)
        stored = [self._group[f"state/{side}/{place}"][...] for place in range(len(leaves))]
        state = jax.tree.unflatten(structure, [_restored(x, leaf) for x, leaf in zip(stored, leaves, strict=True)])
        progress = {name: self._group[f"state/{side}/{name}"][...] for name in SUMS}
        counts = self._group[f"state/{side}/counts"][...]
        return done, state, progress | {"n": counts[0], "m": counts[1]}

    def num_blocks_done(self) -> int:
        """How many blocks count: those up to the first without a marker."""
        markers = self._group["marker"][...]
        missing = np.flatnonzero(markers != COMPLETE)
        return int(missing[0]) if len(missing) else len(markers)

    def append(self, number: int, draws: dict[str, np.ndarray], state: Any, progress: dict[str, np.ndarray]) -> None:
        """Write a block, then its marker."""
        sizes = self._group.attrs["draws"]
        start = sum(sizes[:number])
        for name, values in draws.items():
            self._group[name][:, start : start + sizes[number]] = values
        side = number % 2
        for place, leaf in enumerate(_leaves(state)):
            self._group[f"state/{side}/{place}"][...] = leaf
        for name in SUMS:
            self._group[f"state/{side}/{name}"][...] = progress[name]
        self._group[f"state/{side}/counts"][...] = np.array([progress["n"], progress["m"]], np.int64)
        self._group["marker"][number] = COMPLETE

    def read(self, sites: Sequence[str] | None) -> tuple[dict[str, np.ndarray], bool]:
        """The draws of the blocks that count, and whether they are all."""
        kept = list(self.settings["kept"])
        wanted = kept if sites is None else [f"posterior/{site}" for site in sites]
        unknown = sorted(set(wanted) - set(kept))
        if unknown:
            there = ", ".join(repr(k.removeprefix("posterior/")) for k in kept if k.startswith("posterior/"))
            raise ValueError(f"{self._where}: `sites` has {unknown[0].split('/', 1)[1]!r}; the run kept {there}.")
        done, sizes = self.num_blocks_done(), self._group.attrs["draws"]
        count = sum(sizes[:done])
        if count == 0:
            raise ValueError(f"{self._where}: no block of draws is complete yet.")
        wanted = [*wanted, *(name for name in kept if name.startswith("sample_stats/") and sites is not None)]
        return {name: self._group[name][:, :count] for name in wanted}, done == len(sizes)


def digest(tree: Any) -> str:
    """A hash of the structure and of every bit of a tree of arrays; what is no array counts by its type."""
    sha = hashlib.sha256(re.sub("0x[0-9a-f]+", "", str(jax.tree.structure(tree))).encode())
    for leaf in jax.tree.leaves(tree):
        try:
            x = _plain(leaf)
        except TypeError:
            sha.update(type(leaf).__name__.encode())
            continue
        sha.update(f"{x.shape} {x.dtype}".encode())
        sha.update(x.tobytes() if x.dtype != object else type(leaf).__name__.encode())
    return sha.hexdigest()


def kernel_settings(kernel: MCMCKernel) -> dict[str, Any]:
    """Class and plain settings of a kernel, of its blocks too."""
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


def _difference(old: Any, new: Any) -> tuple[Any, Any]:
    """Down to the first entry of dictionaries that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new), key=lambda name: (name != "class", name)):
            if old.get(key) != new.get(key):
                before, after = _difference(old.get(key), new.get(key))
                return f"{key}: {before}", f"{key}: {after}"
    return old, new


def _plain(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _leaves(tree: Any) -> list[np.ndarray]:
    return [_plain(leaf) for leaf in jax.tree.leaves(tree)]


def _restored(x: np.ndarray, like: Any) -> Any:
    if isinstance(like, jax.Array) and jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return jnp.asarray(x)


def _equal(old: np.ndarray, new: np.ndarray) -> bool:
    """Equal up to rounding: the first state may have been computed on other hardware."""
    if not np.issubdtype(new.dtype, np.floating):
        return bool(np.array_equal(old, new))
    scale = max(float(np.max(np.abs(new[np.isfinite(new)]), initial=0.0)), 1e-30)
    return bool(np.allclose(old, new, rtol=0, atol=1e-3 * scale, equal_nan=True))
