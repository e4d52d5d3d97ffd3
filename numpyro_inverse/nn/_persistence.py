"""Arrays of a module on disk: safetensors with a JSON description in its header; nothing is pickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from numpyro_inverse._checks import describe
from numpyro_inverse._files import write_atomically
from numpyro_inverse.nn._named_leaves import named_leaves

SCHEMA = "2"
OLD_SCHEMA = "1"  # had a hash of the arrays alone, or none
FORMAT = "numpyro_inverse"
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
STORED = ("bool", "float16", "float32", "float64", "complex64", *INTEGERS)


def save(path: str | Path, module: Any, **about: Any) -> None:
    """Writes the arrays of ``module``, whole or not at all.

    Floating-point types of eight bits and bfloat16 are written in single precision, which holds their numbers exactly.

    Args:
        path: the file, by custom ``.safetensors``.
        module: an Equinox module, or any pytree; what is not an array is not written.
        **about: what JSON can hold: the seed, the data's hash, the held-out score.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the disk is full, or may not be written.
        TypeError: ``path`` is no path; ``about`` holds what JSON cannot; an array of a type that the file cannot hold
            (complex128, random keys, objects).
        ValueError: ``module`` has no arrays; ``about`` nests too deeply.
    """
    path = _path("save", path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: there is no folder {path.parent}.")
    if path.is_dir():
        raise IsADirectoryError(f"save: {path} is a folder; name a file in it.")
    arrays = {name: _stored(name, leaf) for name, leaf in _named(module).items()}
    if not arrays:
        raise ValueError(f"save: `module` has no arrays; got {type(module).__name__}.")
    try:
        text = json.dumps(about, sort_keys=True)
        json.loads(text)  # reading has a limit of its own
    except RecursionError as error:
        raise ValueError("save: `about` nests too deeply.") from error
    except (TypeError, ValueError) as error:
        raise TypeError(f"save: `about` must be what JSON can hold: numbers, strings, lists, ...; {error}.") from error
    header = {"format": FORMAT, "schema": SCHEMA, "about": text, "sha256": _digest(arrays, text)}
    write_atomically(path, safetensors.numpy.save(arrays, metadata=header), "save: `path`")


def load[Tree](path: str | Path, like: Tree | None = None) -> Tree:
    """``like`` with the arrays of a file that :func:`save` wrote.

    Args:
        path: the file.
        like: a module of the same structure; its own arrays (or the shapes of ``eqx.filter_eval_shape``) are replaced.

    Returns:
        The module. Floating-point arrays are in single precision, double under ``jax.enable_x64``; in the type of
        ``like`` where that is shorter.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: ``path`` is no path, or ``like`` is missing.
        ValueError: the file is damaged, not ours, of another schema, or of a module of another structure or with arrays
            of another type; numbers that the type they would be loaded as cannot hold.
    """
    path = _path("load", path)
    if like is None:
        raise TypeError(
            "load: `like` is missing, a module of the structure that was saved: a file holds arrays, and not what they "
            f"are the parameters of. For example `load({path.name!r}, eqx.filter_eval_shape(make, key))`, with the "
            "function that made the module before training."
        )
    found, _ = _contents("load", path)
    wanted = _named(like)
    if set(found) != set(wanted):
        different = sorted(set(found) ^ set(wanted))[0]
        raise ValueError(
            f"load: {path.name} is of another module than `like`: {different} is in "
            f"{'the file' if different in found else '`like`'} only."
        )
    for name, leaf in wanted.items():
        if found[name].shape != leaf.shape:
            raise ValueError(
                f"load: {name} in {path.name} has shape {found[name].shape}, in `like` {leaf.shape}; the module was "
                "made with other sizes."
            )
        if _kind(found[name].dtype) != _kind(leaf.dtype):
            raise ValueError(f"load: {name} in {path.name} is of {found[name].dtype}, in `like` of {leaf.dtype}.")
    loaded = {name: _as_ours(f"{name} in {path.name}", found[name], leaf.dtype) for name, leaf in wanted.items()}
    leaves = [loaded[name] if _is_array(leaf) else leaf for name, leaf in named_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def load_metadata(path: str | Path) -> dict[str, Any]:
    """What :func:`save` was told about the module.

    Raises:
        FileNotFoundError, TypeError, ValueError: as :func:`load`.
    """
    path = _path("load_metadata", path)
    _, text = _contents("load_metadata", path)
    try:
        about = json.loads(text)
        if not isinstance(about, dict):
            raise ValueError("no dictionary")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"load_metadata: {path.name} is damaged: its description cannot be read.") from error
    return about


def _path(name: str, path: Any) -> Path:
    if not isinstance(path, str | Path) or not str(path):
        raise TypeError(f"{name}: `path` must be the path of a file; got {describe(path)}.")
    return Path(path)


def _contents(caller: str, path: Path) -> tuple[dict[str, np.ndarray], str]:
    """All arrays of a file, and its description, both as they were written."""
    header = _header(caller, path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{caller}: {path.name} is damaged: its arrays cannot be read ({error}).") from error
    if header["schema"] == OLD_SCHEMA:
        text, expected = header.get("about", ""), header.get("sha256", _digest(found))
        actual = _digest(found)
    else:
        text, expected = header.get("about", ""), header.get("sha256", "")
        actual = _digest(found, text)
    if expected != actual:
        raise ValueError(f"{caller}: {path.name} is damaged: its numbers are not those that were written.")
    return found, text


def _header(caller: str, path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{caller}: there is no file {path}.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{caller}: {path.name} is damaged or no safetensors file: {error}") from error
    except OSError as error:
        raise OSError(error.errno, f"{caller}: {path} could not be read: {error.strerror or error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{caller}: {path.name} was not written by `numpyro_inverse.nn.save`.")
    if header.get("schema") not in (SCHEMA, OLD_SCHEMA):
        raise ValueError(f"{caller}: {path.name} has schema {header.get('schema')}; this version reads {SCHEMA}.")
    return header


def _digest(arrays: dict[str, np.ndarray], text: str = "") -> str:
    """Of names, types, shapes and numbers, and of the description."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {arrays[name].shape} ".encode())
        found.update(array.tobytes())
    found.update(text.encode())
    return found.hexdigest()


def _stored(name: str, leaf: Any) -> np.ndarray:
    """The array as the file holds it: in the order of its indices, of a type that the format has."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(f"save: {name} of `module` is a shape without numbers.")
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(f"save: {name} of `module` is a random key; keep `jax.random.key_data` of it.")
    if jnp.issubdtype(leaf.dtype, np.floating) and leaf.dtype.itemsize < 4:
        exact = np.asarray(leaf)
        leaf = exact if exact.dtype == np.float16 else exact.astype(np.float32)
    array = np.asarray(leaf)
    if array.dtype.name not in STORED:
        raise TypeError(f"save: {name} of `module` is an array of {array.dtype}, which the file cannot hold.")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def _kind(dtype: Any) -> str:
    """Floating-point numbers of any precision, integers, or another type."""
    return next((kind.__name__ for kind in (np.floating, np.integer) if jnp.issubdtype(dtype, kind)), str(dtype))


def _as_ours(where: str, array: np.ndarray, like: np.dtype) -> jax.Array:
    if jnp.issubdtype(like, np.floating):
        ours = jnp.result_type(float)
        ours = like if jnp.finfo(like).bits < jnp.finfo(ours).bits and jnp.finfo(like).bits < 32 else ours
        with np.errstate(over="ignore"):
            kept = array.astype(ours)
        # Double precision may be rounded to single precision, and nothing else may change.
        lost = (kept != array) & ~np.isnan(array)
        if jnp.finfo(ours).bits >= 32:
            lost &= np.isfinite(array) & ~np.isfinite(kept)
    else:
        kept = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
        lost = (kept != array) if kept.dtype != array.dtype else np.zeros(array.shape, bool)
    if np.any(lost):
        raise ValueError(
            f"load: {where} holds numbers that {kept.dtype} cannot, such as {np.asarray(array)[lost].ravel()[0]}; "
            f"{'load it under `jax.enable_x64`' if kept.dtype.itemsize == 4 else '`like` must have its type'}."
        )
    return jnp.asarray(kept)


def _named(tree: Any) -> dict[str, Any]:
    return {name: leaf for name, leaf in named_leaves(tree) if _is_array(leaf)}


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
