"""Finished batches of simulations in a Zarr store, which know whose they are.

``rows/part/name`` has shape (row, ...), one chunk a batch; a name is quoted as in a URL. ``marker[b]`` is written last,
when all else of batch b is on the disk, in a chunk of its own: the number of rows, and a SHA-256 of them and of the
store's identity. A batch without a marker does not count, and is simulated again; one whose marker does not fit is
damaged, and is told.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self
from urllib.parse import quote, unquote

import jax
import numpy as np

from numpyro_inverse._files import made_folder, sole_writer
from numpyro_inverse._identity import digest, first_difference, versions
from numpyro_inverse.infer.export._run_folder import (
    DRAFTS,
    METADATA,
    flush,
    folder_of,
    import_zarr,
    reading,
    writing,
)

FORMAT = "numpyro_inverse simulations, version 1"
MARKER = 40  # bytes: the number of rows, the digest
SAME = 1e-3  # relative difference of the example of the same simulations on another machine
Rows = dict[str, dict[str, Any]]


class NotKept:
    """Where nothing is kept."""

    def load(self, first: int) -> Rows | None:
        """There is nothing."""
        return None

    def save(self, first: int, rows: Rows) -> None:
        """Nothing to do."""


class SimulationStore:
    """Batches of one set of simulations, with one writer at a time.

    Args:
        store: a directory or Zarr store.
        rng_key: of the simulations.
        latents: that were proposed.
        num: rows that are wanted; there may be fewer, or more.
        batch_size: rows per batch.
        example: one more row, of a fixed key, by which the model is known.
        where: for messages.

    Raises:
        ValueError: another kind of store, or one of other simulations.
        RuntimeError: another process writes there.
        OSError: it cannot be written.
    """

    def __init__(
        self,
        store: Any,
        rng_key: Any,
        latents: Mapping[str, np.ndarray],
        num: int,
        batch_size: int,
        example: Rows,
        where: str,
    ):
        self._where, self._num, self._batch = where, num, batch_size
        self._zarr, self._folder = import_zarr(where), folder_of(store, where)
        self._store = store
        self._example = {path: np.asarray(v) for path, v in _flat(example).items()}
        self._identity = {
            "rng_key": np.ravel(jax.random.key_data(rng_key)).tolist(),
            "batch_size": batch_size,
            "latents": {name: digest(value) for name, value in latents.items()},
            "rows": {path: [list(v.shape), str(v.dtype)] for path, v in self._example.items()},
        }
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._folder is not None:
                made_folder(self._folder, f"{self._where}: `store`")
                others = [p.name for p in self._folder.iterdir() if p.name not in ("lock", METADATA)]
                if others and not (self._folder / METADATA).exists():
                    raise ValueError(
                        f"{self._where}: the directory {str(self._folder)!r} holds something else ({others[0]})."
                    )
                made_folder(self._folder / "lock", f"{self._where}: `store`")
                stack.enter_context(sole_writer(self._folder / "lock", f"{self._where}: `store`"))
                for draft in self._folder.rglob(DRAFTS):  # of writers that were killed
                    draft.unlink()
            with writing(self._folder, self._where), reading(self._where, "the metadata"):
                self._group = self._zarr.open_group(self._store, mode="a")
                if self._folder is not None:
                    self._group.require_group("lock")
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        with reading(self._where, "the metadata"):
            attributes = dict(self._group.attrs)
        if attributes.get("format") not in (None, FORMAT):
            raise ValueError(f"{self._where}: the store holds no simulations but {attributes.get('format')!r}.")
        if attributes.get("record") is None:
            if any(name not in ("lock", "rows", "marker") for name, _ in self._group.members()):
                raise ValueError(f"{self._where}: the store holds something else; give another.")
            self._create()
        else:
            self._check(json.loads(attributes["record"]))
        with writing(self._folder, self._where):
            for name, array in self._arrays().items():
                length = -(-self._num // self._batch) if name == "marker" else self._num
                if array.shape[0] < length:
                    array.resize((length, *array.shape[1:]))
                    flush(self._folder, [f"{name}/{METADATA}"])

    def _create(self) -> None:
        self._id = secrets.token_hex(16)
        with writing(self._folder, self._where):
            for path, value in self._example.items():
                self._array(path, (self._num, *value.shape), (self._batch, *value.shape), value.dtype)
            self._array("marker", (-(-self._num // self._batch), MARKER), (1, MARKER), np.uint8)
            content = {path: _numbers(value) for path, value in self._example.items()}
            record = self._identity | {"id": self._id, "content": content, "versions": versions()}
            if self._folder is not None:
                files = [path for path in self._folder.rglob("*") if path.is_file()]
                flush(self._folder, [str(path.relative_to(self._folder)) for path in files])
            self._group.attrs.update({"format": FORMAT, "record": json.dumps(record)})
            flush(self._folder, [METADATA])

    def _array(self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> None:
        self._group.create_array(
            name,
            shape=shape,
            chunks=tuple(max(1, n) for n in chunks),
            dtype=np.dtype(dtype),
            fill_value=0,
            compressors=(self._zarr.codecs.ZstdCodec(level=0), self._zarr.codecs.Crc32cCodec()),
            chunk_key_encoding={"name": "default", "separator": "."},
            overwrite=True,
        )

    def _check(self, record: dict[str, Any]) -> None:
        """Raise unless the store is of these simulations."""
        self._id = record["id"]
        advice = "Give another `store`, or delete it."
        found = {name: record.get(name) for name in self._identity}
        if found != self._identity:
            name, old, new = first_difference(found, self._identity)
            raise ValueError(
                f"{self._where}: the store is of other simulations: `{name}` was {old}, and is now {new}. {advice}"
            )
        for path, value in self._example.items():
            old, new = np.asarray(record["content"][path]), np.asarray(_numbers(value))
            size = np.max(np.abs(new), initial=0.0, where=np.isfinite(new))
            if not np.allclose(old, new, rtol=SAME, atol=SAME * size, equal_nan=True):
                raise ValueError(
                    f"{self._where}: the store is of other simulations: for the same key the model gives other "
                    f"{unquote(path.split('/', 1)[1])!r}. {advice}"
                )

    def _arrays(self) -> dict[str, Any]:
        names = [*self._example, "marker"]
        with reading(self._where, "an array"):
            return {name: self._group[name] for name in names}

    def load(self, first: int) -> Rows | None:
        """The batch that starts with row ``first``; None if it is not there whole.

        Raises:
            ValueError: it is damaged.
        """
        place, stop = first // self._batch, min(first + self._batch, self._num)
        arrays = self._arrays()
        what = f"batch {place} (rows {first} to {stop - 1})"
        with reading(self._where, what):
            marker = np.asarray(arrays["marker"][place])
            if not marker.any() or int(marker[:8].view(np.int64)[0]) < stop - first:
                return None
            count = int(marker[:8].view(np.int64)[0])
            flat = {path: np.asarray(arrays[path][first : first + count]) for path in self._example}
        if not np.array_equal(marker, self._marker(place, flat)):
            raise ValueError(
                f"{self._where}: the store is damaged: {what} has not the values that were written. Delete the store, "
                "or restore it."
            )
        return _nested({path: value[: stop - first] for path, value in flat.items()})

    def save(self, first: int, rows: Rows) -> None:
        """Write a batch, then its marker."""
        place, flat = first // self._batch, {path: np.asarray(v) for path, v in _flat(rows).items()}
        arrays = self._arrays()
        with writing(self._folder, self._where):
            written = []
            for path, value in flat.items():
                arrays[path][first : first + len(value)] = value
                written.append(f"{path}/c.{place}{'.0' * (value.ndim - 1)}")
            flush(self._folder, written)
            arrays["marker"][place] = self._marker(place, flat)
            flush(self._folder, [f"marker/c.{place}.0"])

    def _marker(self, place: int, flat: Mapping[str, np.ndarray]) -> np.ndarray:
        count = len(next(iter(flat.values())))
        sha = hashlib.sha256(f"{self._id} {place} {digest({k: flat[k] for k in sorted(flat)})}".encode()).digest()
        return np.concatenate([np.asarray([count]).view(np.uint8), np.frombuffer(sha, np.uint8)])


def _flat(rows: Rows) -> dict[str, Any]:
    return {f"rows/{part}/{quote(name, safe='')}": v for part, named in rows.items() for name, v in named.items()}


def _nested(flat: Mapping[str, np.ndarray]) -> Rows:
    rows: Rows = {part: {} for part in ("latents", "unconstrained", "data", "arguments", "usable")}
    for path, value in flat.items():
        _, part, name = path.split("/")
        rows[part][unquote(name)] = value
    return rows


def _numbers(value: np.ndarray) -> list[float]:
    """A few numbers that tell arrays apart: two projections and the size."""
    x = np.asarray(value, float).ravel()
    weights = np.random.default_rng(0).normal(size=(2, x.size)) / np.sqrt(max(x.size, 1))
    return [*(weights @ x).tolist(), float(np.sqrt(np.mean(x**2))) if x.size else 0.0]
