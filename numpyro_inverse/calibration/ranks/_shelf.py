"""Finished batches of a study on disk, which know whose they are.

A study is known by content: by the truths and data that the model simulates, the draws that the inference makes and the
values of the test quantities, all for one data set of a fixed key that is none of the study's. Each batch is a file
with this identity, its place and a checksum of everything in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from numpyro_inverse._files import made_folder, sole_writer, write_atomically
from numpyro_inverse._identity import digest, first_difference, kernel_settings, versions
from numpyro_inverse.calibration.ranks._posteriors import Call
from numpyro_inverse.calibration.ranks._problem import Problem

SCHEMA = 3
SAME = 1e-3  # standard deviations by which numbers of the same study may differ: another machine rounds otherwise
ROUNDING = 1e-5  # the same, relative to the numbers' size


class Shelf:
    """The batches of one study in a folder, which has one writer at a time.

    Args:
        store: the folder.
        identity: of the study.
        where: the argument, for messages.

    Raises:
        TypeError: ``store`` is no path.
        ValueError: it is a file; a batch in it is damaged or belongs to another study.
        RuntimeError: another process writes there.
        OSError: the folder cannot be written.
    """

    def __init__(self, store: str | os.PathLike, identity: dict[str, Any], where: str):
        self._folder, self._where = made_folder(store, where), where
        self._identity = json.loads(json.dumps(identity))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(sole_writer(self._folder, self._where))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _path(self, first: int) -> Path:
        return self._folder / f"datasets-{first:07d}.safetensors"

    def load(self, first: int, kind: type) -> Any | None:
        """The batch that starts with data set ``first`` as a named tuple ``kind``; None if it is not there."""
        path = self._path(first)
        if not path.exists():
            return None
        damaged = f"{self._where}: {str(path)!r} is damaged; delete it, and its data sets are computed again."
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(damaged) from error
        except OSError as error:
            raise ValueError(f"{self._where}: cannot read {str(path)!r}: {error.strerror or error}") from error
        text = metadata.get("identity", "")
        if metadata.get("first") != str(first) or metadata.get("sha256") != _checksum(text, first, flat):
            raise ValueError(damaged)
        self._check(json.loads(text))
        fields: dict[str, Any] = {name: {} for name in kind._fields}  # type: ignore[attr-defined]
        for name, value in flat.items():
            field, _, quantity = name.partition("/")
            if quantity:
                fields[field][quantity] = value
            else:
                fields[field] = value
        return kind(**fields)

    def save(self, first: int, part: Any) -> None:
        """Write a batch, whole or not at all."""
        flat: dict[str, np.ndarray] = {}
        for field, value in part._asdict().items():
            entries = {f"{field}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {field: value}
            flat |= {k: np.ascontiguousarray(v) for k, v in entries.items()}
        text = json.dumps(self._identity, sort_keys=True)
        metadata = {"identity": text, "first": str(first), "sha256": _checksum(text, first, flat)}
        write_atomically(self._path(first), save(flat, metadata=metadata), self._where)

    def _check(self, found: dict[str, Any]) -> None:
        """Raise unless the batch is of this study."""
        asked = self._identity
        before, now = ({k: v for k, v in one.items() if k not in ("content", "versions")} for one in (found, asked))
        advice = f"Give another `store`, or delete {str(self._folder)!r}."
        if before != now:
            name, old, new = first_difference(before, now)
            raise ValueError(
                f"{self._where}: the folder belongs to another study: `{name}` was {old}, and is now {new}. {advice}"
            )
        name = _other_content(found["content"], asked["content"])
        if name is not None:
            kind, _, which = name.partition("/")
            what = {
                "truth": f"the model draws another {which!r} from the prior",
                "data": f"the model simulates other data {which!r}",
                "draws": f"the inference makes other draws of {which!r} for the same data and key",
                "quantity": f"the test quantity {which!r} has other values",
            }[kind]
            then = "" if found["versions"] == asked["versions"] else f" (It was begun with {found['versions']}.)"
            raise ValueError(f"{self._where}: the folder belongs to another study: {what}. {advice}{then}")


def study_identity(
    problem: Problem,
    inference: Any,
    call: Call,
    quantities: Iterable[str],
    rng_key: Key[Array, ""],
    num_datasets: int,
    batch: int,
) -> dict[str, Any]:
    """All that is known of a study before a number is computed."""
    about: dict[str, Any] = {}
    if isinstance(inference, MCMCKernel):
        about = kernel_settings(inference)
    if isinstance(inference, MCMC):
        numbers = ("num_warmup", "num_samples", "num_chains", "thinning")
        about = kernel_settings(inference.sampler) | {name: getattr(inference, name) for name in numbers}
    return {
        "schema": SCHEMA,
        "versions": versions(),
        "rng_key": np.ravel(jax.random.key_data(rng_key)).tolist(),
        "num_datasets": num_datasets,
        "batch_size": batch,
        "observed": list(problem.observed),
        "quantities": sorted(quantities),
        "model_args": digest((problem.args, dict(problem.kwargs))),
        "num_draws": call.num_draws,
        "num_warmup": call.num_warmup,
        "num_samples": call.num_samples,
        "num_steps": call.num_steps,
        "inference": about,
    }


def content_of(truth: Any, data: Any, draws: Any, at_truth: Any, at_draws: Any) -> dict[str, list[float]]:
    """A few numbers of every array of one data set: two projections, spread and size."""
    found = {f"truth/{k}": np.asarray(v)[None] for k, v in truth.items()}
    found |= {f"data/{k}": np.asarray(v)[None] for k, v in data.items()}
    found |= {f"draws/{k}": np.asarray(v) for k, v in draws.sites.items()}
    found |= {f"quantity/{k}": np.concatenate([np.asarray(v)[None], at_draws[k]]) for k, v in at_truth.items()}
    return {name: _projections(value) for name, value in found.items()}


def _projections(rows: np.ndarray) -> list[float]:
    """Two random projections, spread from row to row and size."""
    x = rows.astype(float)
    weights = np.random.default_rng(0).normal(size=(2, x.size)) / np.sqrt(max(x.size, 1))
    spread, size = (float(np.sqrt(np.mean(v**2))) if v.size else 0.0 for v in (x - np.mean(x, axis=0), x))
    return [*(weights @ x.ravel()).tolist(), spread, size]


def _other_content(found: Mapping[str, list[float]], asked: Mapping[str, list[float]]) -> str | None:
    """The first array, in the order model, data, draws, quantities, that is not the same."""
    for name, new in asked.items():
        old = found.get(name)
        if old is None:
            return name
        allowed = SAME * new[2] + ROUNDING * new[3]
        if not np.allclose(old, new, rtol=0, atol=allowed if np.isfinite(allowed) else 0.0, equal_nan=True):
            return name
    return next((name for name in found if name not in asked), None)


def _checksum(identity: str, first: int, flat: Mapping[str, Float[np.ndarray, "..."]]) -> str:
    return hashlib.sha256(f"{identity} {first} {digest(dict(flat))}".encode()).hexdigest()
