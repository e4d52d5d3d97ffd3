"""The Zarr store of a long run, version 2: layout, checksums, and where to go on.

``posterior/site`` and ``sample_stats/field`` have shape (chain, draw, ...), one chunk a block; a name is quoted as in
a URL. ``state`` has two rows of bytes, after even and odd blocks, so that a block never overwrites the state that the
next attempt needs; each holds the block's number, the kernel's state and the sums of the effective sample size.

``marker[b]`` is written last, when all else is on the disk, in a chunk of its own: a SHA-256 for each array of draws,
one for the state, and one over these with the run's identity and the block's number. A block without a marker does not
count; one whose marker does not fit is damaged, and is told. The *record*, with everything that is known of the run,
is an attribute of the group, beside its own SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import PyTree, UInt8

from numpyro_inverse.infer.export._batch_means import SUMS, Sums, no_sums
from numpyro_inverse.infer.export._chains import POSTERIOR
from numpyro_inverse.infer.export._run_folder import FORMAT, METADATA, flush, import_zarr, reading, writing

DIGEST = 32  # bytes
Plan = list[tuple[bool, int]]  # block after block: whether draws are kept, and the number of iterations


def plan_of(num_warmup: int, num_samples: int, block_size: int, plan: Sequence[tuple[bool, int]] = ()) -> Plan:
    """The blocks of a run, or those of ``plan`` and of what is missing for ``num_samples`` iterations with draws."""
    blocks = [(bool(kept), int(n)) for kept, n in plan]
    for drawing, total in ((False, num_warmup), (True, num_samples)):
        start = sum(n for kept, n in blocks if kept == drawing)
        while start < total:
            blocks.append((drawing, min(block_size - start % block_size, total - start)))
            start += blocks[-1][1]
    return blocks


class RunStore:
    """One run in a Zarr group.

    Args:
        group: the group.
        folder: its directory, if it has one.
        where: for messages.
    """

    def __init__(self, group: Any, folder: Path | None, where: str):
        self._group, self._folder, self._where = group, folder, where
        with reading(where, "the run's metadata"):
            attributes = dict(group.attrs)
        self._arrays: dict[str, Any] = {}
        self._know(_unsealed(attributes, where))
        if self._record is None and self._has_blocks():
            raise ValueError(f"{where}: the store is damaged: there are blocks, but the record of the run is missing.")

    def _know(self, record: Mapping[str, Any] | None) -> None:
        self._record = None if record is None else json.loads(json.dumps(record))
        self._arrays.clear()
        self._ends = [] if record is None else np.cumsum(_draws(self.plan, record["settings"]["thinning"])).tolist()

    def _has_blocks(self) -> bool:
        with reading(self._where, "the run's metadata"):
            return "marker" in self._group and bool(np.any(self._group["marker"][...]))

    @property
    def is_new(self) -> bool:
        """Whether nothing counts yet: the record is written when everything is in place."""
        return self._record is None

    @property
    def record(self) -> dict[str, Any]:
        """What is known of the run."""
        if self._record is None:
            raise ValueError(f"{self._where}: the run in the store was cut off before its first block.")
        return self._record

    @property
    def plan(self) -> Plan:
        """Its blocks, done and still to come."""
        return [(bool(kept), int(n)) for kept, n in self.record["plan"]]

    @property
    def num_numbers(self) -> int:
        """Kept numbers a draw, over all sites."""
        return sum(
            int(np.prod(shape, dtype=int)) for name, shape, _ in self.record["kept"] if name.startswith(POSTERIOR)
        )

    # Writing.

    def create(self, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray], first: PyTree) -> None:
        """Make the arrays, then write the record, which makes the store count.

        Args:
            record: ``settings``, ``plan``, ``kept`` (name, shape, type) and what the reader needs.
            arrays: further arrays by name.
            first: the first states, for their structure.
        """
        record = dict(record) | {"id": secrets.token_hex(16), "state": _specification(first)}
        with writing(self._folder, self._where):
            self._group.attrs["format"] = FORMAT
            self._know(record)
            for name, (shape, chunks, dtype) in self._layout().items():
                self._create(name, shape, chunks, dtype)
            for name, values in arrays.items():
                self._create(name, values.shape, values.shape, values.dtype)[...] = values
            if self._folder is not None:
                files = [path for path in self._folder.rglob("*") if path.is_file()]
                flush(self._folder, [str(path.relative_to(self._folder)) for path in files])
            self._write_record()

    def _create(self, name: str, shape: tuple, chunks: tuple, dtype: Any) -> Any:
        zarr = import_zarr(self._where)
        return self._group.create_array(
            name,
            shape=shape,
            chunks=tuple(max(1, n) for n in chunks),
            dtype=np.dtype(dtype),
            fill_value=0,
            compressors=(zarr.codecs.ZstdCodec(level=0), zarr.codecs.Crc32cCodec()),
            chunk_key_encoding={"name": "default", "separator": "."},
            overwrite=True,
        )

    def _write_record(self) -> None:
        text = json.dumps(self._record)
        self._group.attrs.update({"run": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})
        flush(self._folder, [METADATA])

    def _layout(self) -> dict[str, tuple[tuple, tuple, Any]]:
        """Shape, chunks and type of the arrays of draws, states and markers."""
        record, plan = self.record, self.plan
        chains, thinning = record["settings"]["num_chains"], record["settings"]["thinning"]
        block = record["settings"]["block_size"] // thinning
        total = sum(_draws(plan, thinning))
        layout = {
            _array_name(name): ((chains, total, *shape), (chains, block, *shape), np.dtype(dtype))
            for name, shape, dtype in record["kept"]
        }
        size = 8 + sum(_num_bytes(shape, dtype) for _, shape, dtype in record["state"]) + 8 * self._num_sums()
        parts = len(record["kept"]) + 2
        layout["state"] = ((2, size), (1, size), np.dtype(np.uint8))
        layout["marker"] = ((len(plan), parts, DIGEST), (1, parts, DIGEST), np.dtype(np.uint8))
        return layout

    def _num_sums(self) -> int:
        return len(SUMS) * self.num_numbers + 2

    def lengthen(self, num_samples: int, plan: Plan) -> None:
        """Make room for further blocks. The draws that are there stay."""
        with writing(self._folder, self._where):
            settings = self.record["settings"] | {"num_samples": num_samples}
            self._know(self.record | {"plan": plan, "settings": settings})
            for name, (shape, _, _) in self._layout().items():
                with reading(self._where, f"the array {name!r}"):
                    array = self._group[name]
                if array.shape != shape:
                    array.resize(shape)
                flush(self._folder, [f"{name}/{METADATA}"])
            self._write_record()

    def note_environment(self, environment: Mapping[str, Any], block: int) -> None:
        """Remember where the blocks from ``block`` on are computed."""
        with writing(self._folder, self._where):
            environments = [*self.record["environments"], dict(environment) | {"block": block}]
            self._know(self.record | {"environments": environments})
            self._write_record()

    def note_failures(self, failures: Mapping[str, Any]) -> None:
        """Remember at the end what the chains counted, for the reader to tell."""
        if self.record.get("failures") != failures:
            with writing(self._folder, self._where):
                self._know(self.record | {"failures": dict(failures)})
                self._write_record()

    def append(self, number: int, draws: Mapping[str, np.ndarray], state: PyTree, sums: Sums) -> None:
        """Write a block, then its marker."""
        rows = np.zeros((len(self.record["kept"]) + 2, DIGEST), np.uint8)
        start, stop = self._range(number)
        packed = _pack(number, state, sums)
        written = [f"state/c.{number % 2}.0"]
        arrays = {name: self._open(name) for name in (*map(_array_name, draws), "state", "marker")}
        with writing(self._folder, self._where):
            for place, (name, shape, _) in enumerate(self.record["kept"]):
                if start < stop:
                    rows[place] = _digest(draws[name])
                    arrays[_array_name(name)][:, start:stop] = draws[name]
                    chunk = start // arrays[_array_name(name)].chunks[1]
                    written.append(f"{_array_name(name)}/c.0.{chunk}{'.0' * len(shape)}")
            rows[-2] = _digest(packed)
            rows[-1] = self._seal(number, rows)
            arrays["state"][number % 2] = packed
            flush(self._folder, written)
            arrays["marker"][number] = rows
            flush(self._folder, [f"marker/c.{number}.0.0"])

    def _forget(self, number: int) -> None:
        with writing(self._folder, self._where):
            self._open("marker")[number] = 0
            flush(self._folder, [f"marker/c.{number}.0.0"])

    # What counts, and whether it is sound.

    def _open(self, name: str) -> Any:
        """An array whose metadata are those that it was made with."""
        if name in self._arrays:
            return self._arrays[name]
        with reading(self._where, f"the array {name!r}"):
            if name not in self._group:
                raise FileNotFoundError(name)
            array = self._group[name]
            found = (array.shape, array.chunks, array.dtype)
        shape, chunks, dtype = self._layout()[name]
        chunks = tuple(max(1, n) for n in chunks)
        # A lengthening that was cut off has left an array that is too long.
        longer = len(found[0]) == len(shape) and all(a >= b for a, b in zip(found[0], shape, strict=True))
        if not longer or found[1:] != (chunks, dtype):
            raise ValueError(
                f"{self._where}: the store is damaged: the array {name!r} is of shape {found[0]} in chunks {found[1]}, "
                f"{found[2]}; it was made of shape {shape} in chunks {chunks}, {dtype}."
            )
        self._arrays[name] = array
        return array

    def _range(self, number: int) -> tuple[int, int]:
        """Places of the draws of a block."""
        return (self._ends[number - 1] if number else 0), self._ends[number]

    def _seal(self, number: int, rows: np.ndarray) -> np.ndarray:
        return _digest(np.frombuffer(f"{self.record['id']} {number} ".encode() + rows[:-1].tobytes(), np.uint8))

    def _markers(self) -> tuple[np.ndarray, int, list[int]]:
        """Markers, how many blocks count, and those among them whose marker is damaged."""
        array, count = self._open("marker"), len(self.plan)
        damaged = []
        try:
            with reading(self._where, "markers"):
                rows = array[:count]
        except ValueError:  # which?
            rows = np.zeros((count, *array.shape[1:]), np.uint8)
            for number in range(count):
                try:
                    with reading(self._where, f"the marker of block {number}"):
                        rows[number] = array[number]
                except ValueError:
                    damaged.append(number)
        there = rows.any(axis=(1, 2))
        damaged += [
            b for b in np.flatnonzero(there).tolist() if not np.array_equal(rows[b, -1], self._seal(b, rows[b]))
        ]
        there[damaged] = True
        done = int(np.max(np.flatnonzero(there), initial=-1)) + 1
        missing = np.flatnonzero(~there[:done])
        if len(missing):
            raise ValueError(
                f"{self._where}: the store is damaged: block {missing[0]} has lost its marker (block {done - 1} has "
                f"one). {self._advice()}"
            )
        return rows, done, sorted(map(int, damaged))

    def _advice(self) -> str:
        place = "it" if self._folder is None else repr(str(self._folder))
        return f"Restore {place} from a backup, or delete it and start again."

    def _block_of(self, name: str, number: int, rows: np.ndarray) -> tuple[np.ndarray | None, str]:
        """The draws of one block of one array if they are sound, or what is wrong."""
        place = [kept for kept, _, _ in self.record["kept"]].index(name)
        start, stop = self._range(number)
        what = f"{name.split('/', 1)[1]!r} in block {number} (draws {start} to {stop - 1} of each chain)"
        array = self._open(_array_name(name))
        try:
            with reading(self._where, what):
                values = array[:, start:stop]
        except ValueError as error:
            return None, f"{what} cannot be read ({error.__cause__})"
        if not np.array_equal(_digest(values), rows[number, place]):
            return None, f"{what} has not the values that were written"
        return values, ""

    def read(self, names: Sequence[str]) -> tuple[dict[str, np.ndarray], bool]:
        """The draws of the blocks that count, verified, and whether they are all.

        Raises:
            ValueError: there are none; or some are damaged: it says of which site, in which block.
        """
        rows, done, damaged = self._markers()
        if damaged:
            raise ValueError(
                f"{self._where}: the store is damaged: the marker of block {damaged[0]} is not what was written. "
                f"{self._repair(damaged[0], done)}"
            )
        blocks = [b for b in range(done) if self._range(b)[0] < self._range(b)[1]]
        if not blocks:
            raise ValueError(f"{self._where}: no block of draws is complete yet.")
        draws = {}
        for name in names:
            parts = []
            for number in blocks:
                values, wrong = self._block_of(name, number, rows)
                if values is None:
                    raise ValueError(
                        f"{self._where}: the store is damaged: {wrong}. {self._repair(number, done)} Other sites can "
                        "be read by `sites`."
                    )
                parts.append(values)
            draws[name] = np.concatenate(parts, axis=1)
        return draws, done == len(self.plan)

    def _repair(self, number: int, done: int) -> str:
        if number == done - 1:
            return "`run_to_disk` with the arguments of the run computes its last block again."
        return self._advice()

    def read_array(self, name: str, sha256: str) -> np.ndarray:
        """A further array, with the digest that the record has of it."""
        with reading(self._where, f"the array {name!r}"):
            values = self._group[name][...]
        if _digest(values).tobytes().hex() != sha256:
            raise ValueError(f"{self._where}: the store is damaged: the array {name!r} is not what was written.")
        return values

    def resume(self, first: PyTree) -> tuple[int, PyTree, Sums]:
        """Number of blocks that count, the state after them, and the sums of the effective sample size.

        Everything that counts is read and verified. If only the last block is damaged, its marker is taken away and the
        run goes back to the block before, with a warning.

        Raises:
            ValueError: an earlier block is damaged, or the state that is needed is.
        """
        self._check_structure(first)
        rows, done, damaged = self._markers()
        wrong = {b: f"the marker of block {b} is not what was written" for b in damaged}
        for number in range(done):
            start, stop = self._range(number)
            for name, _, _ in self.record["kept"]:
                if number not in wrong and start < stop:
                    _, problem = self._block_of(name, number, rows)
                    if problem:
                        wrong[number] = problem
        early = [b for b in wrong if b < done - 1]
        if early:
            raise ValueError(f"{self._where}: the store is damaged: {wrong[early[0]]}. {self._advice()}")
        if done and done - 1 not in wrong:
            packed, problem = self._state(done - 1, rows)
            if packed is not None:
                return done, *self._unpack(packed, first)
            wrong[done - 1] = problem
        if done == 0:
            return 0, first, no_sums(self.num_numbers)
        if done == 1:
            state, sums = first, no_sums(self.num_numbers)
        else:
            packed, problem = self._state(done - 2, rows)
            if packed is None:
                raise ValueError(
                    f"{self._where}: the store is damaged: {wrong[done - 1]}; and it cannot be computed again: "
                    f"{problem}. {self._advice()}"
                )
            state, sums = self._unpack(packed, first)
        warnings.warn(
            f"{self._where}: the store is damaged: {wrong[done - 1]}. Block {done - 1} is computed again.", stacklevel=3
        )
        self._forget(done - 1)
        return done - 1, state, sums

    def _check_structure(self, first: PyTree) -> None:
        for (path, *old), (now, *new) in zip(self.record["state"], _specification(first), strict=False):
            if path != now or old != new:
                raise ValueError(
                    f"{self._where}: the kernel's state has another structure than in the store: `{path}` of {old}, "
                    f"now `{now}` of {new}. Continue with the versions that it was begun with, or give another store."
                )
        if len(self.record["state"]) != len(_specification(first)):
            raise ValueError(f"{self._where}: the kernel's state has another structure than in the store.")

    def _state(self, number: int, rows: np.ndarray) -> tuple[UInt8[np.ndarray, " bytes"] | None, str]:
        """The state after a block if it is sound, or what is wrong."""
        what = f"the kernel's state after block {number}"
        array = self._open("state")
        try:
            with reading(self._where, what):
                packed = np.ascontiguousarray(array[number % 2])
        except ValueError as error:
            return None, f"{what} cannot be read ({error.__cause__})"
        if int(packed[:8].view(np.int64)[0]) != number:
            return None, f"{what} is missing; in its place there is another"
        if not np.array_equal(_digest(packed), rows[number, -2]):
            return None, f"{what} is not what was written"
        return packed, ""

    def _unpack(self, packed: np.ndarray, first: PyTree) -> tuple[PyTree, Sums]:
        raw, place = packed.tobytes(), 8
        stored = []
        for _, shape, dtype in self.record["state"]:
            size = _num_bytes(shape, dtype)
            stored.append(np.frombuffer(raw[place : place + size], jnp.dtype(dtype)).reshape(shape))
            place += size
        leaves, structure = jax.tree.flatten(first)
        state = jax.tree.unflatten(structure, [_restored(x, leaf) for x, leaf in zip(stored, leaves, strict=True)])
        sums = np.frombuffer(raw[place : place + 8 * len(SUMS) * self.num_numbers]).reshape((len(SUMS), -1))
        counts = np.frombuffer(raw[-16:], np.int64)
        return state, dict(zip(SUMS, sums, strict=True)) | {"n": counts[0], "m": counts[1]}


def _unsealed(attributes: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The record of a run, if there is one and it is what was written."""
    text, sha256 = attributes.get("run"), attributes.get("sha256")
    if text is None and sha256 is None:
        return None
    if not isinstance(text, str) or hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise ValueError(
            f"{where}: the store is damaged: the record of the run, in `zarr.json`, is not what was written."
        )
    return json.loads(text)


def sha256_of(values: np.ndarray) -> str:
    """As :meth:`RunStore.read_array` verifies it."""
    return _digest(values).tobytes().hex()


def _array_name(name: str) -> str:
    group, site = name.split("/", 1)
    quoted = quote(site, safe="")
    return f"{group}/{quoted.replace('.', '%2E') if quoted in ('.', '..', 'zarr.json') else quoted}"


def _draws(plan: Plan, thinning: int) -> list[int]:
    return [length // thinning if kept else 0 for kept, length in plan]


def _digest(values: np.ndarray) -> UInt8[np.ndarray, " 32"]:
    values = np.ascontiguousarray(values)
    header = f"{values.shape} {values.dtype.str} ".encode()
    return np.frombuffer(hashlib.sha256(header + values.tobytes()).digest(), np.uint8)


def _specification(tree: PyTree) -> list[list[Any]]:
    """Path, shape and type of each leaf."""
    leaves = [(keystr(path).lstrip("."), _plain(leaf)) for path, leaf in tree_flatten_with_path(tree)[0]]
    return [[path, list(x.shape), str(x.dtype)] for path, x in leaves]


def _num_bytes(shape: Sequence[int], dtype: str) -> int:
    return int(np.prod(shape, dtype=int)) * jnp.dtype(dtype).itemsize


def _pack(number: int, state: PyTree, sums: Sums) -> UInt8[np.ndarray, " bytes"]:
    """The block's number, the leaves of a state and the sums, as bytes."""
    parts = [np.int64(number).tobytes(), *(_plain(leaf).tobytes() for leaf in jax.tree.leaves(state))]
    parts += [np.asarray(sums[name], np.float64).tobytes() for name in SUMS]
    parts.append(np.array([sums["n"], sums["m"]], np.int64).tobytes())
    return np.frombuffer(b"".join(parts), np.uint8)


def _plain(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _restored(x: np.ndarray, like: Any) -> Any:
    if isinstance(like, jax.Array) and jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return jnp.asarray(x)
