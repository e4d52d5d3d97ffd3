"""Arrays of a module on disk: safetensors with a JSON description in its header; nothing is pickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

SCHEMA = "1"
FORMAT = "numpyro_inverse"


def save(path: str | Path, module: Any, **about: Any) -> None:
    """Writes the arrays of ``module``, whole or not at all.

    Args:
        path: the file, by custom ``.safetensors``.
        module: an Equinox module, or any pytree; what is not an array is not written.
        **about: what JSON can hold: the seed, the data's hash, the held-out score.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: ``about`` holds what JSON cannot.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: there is no folder {path.parent}.")
    arrays = {name: np.asarray(leaf) for name, leaf in _named(module).items()}
    header = {
        "format": FORMAT,
        "schema": SCHEMA,
        "about": json.dumps(about, sort_keys=True),
        "sha256": _digest(arrays),
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(safetensors.numpy.save(arrays, metadata=header))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def load[Tree](path: str | Path, like: Tree) -> Tree:
    """``like`` with the arrays of a file that :func:`save` wrote.

    Args:
        path: the file.
        like: a module of the same structure; its own arrays (or the shapes of ``eqx.filter_eval_shape``) are replaced.

    Returns:
        The module. Floating-point arrays are in single precision, double under ``jax.enable_x64``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, of another schema, or of a module of another structure or with arrays
            of another type.
    """
    path = Path(path)
    header = _header(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("sha256", _digest(found)) != _digest(found):
        raise ValueError(f"load: {path.name} is damaged: its numbers are not those that were written.")
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
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree_util.tree_unflatten(
        structure, [_as_ours(found[_name(at)]) if _is_array(leaf) else leaf for at, leaf in leaves]
    )


def load_metadata(path: str | Path) -> dict[str, Any]:
    """What :func:`save` was told about the module.

    Raises:
        FileNotFoundError, ValueError: as :func:`load`.
    """
    path = Path(path)
    try:
        return json.loads(_header(path)["about"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"load_metadata: {path.name} is damaged: its description cannot be read.") from error


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """Of names, types, shapes and numbers."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {arrays[name].shape} ".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _kind(dtype: Any) -> str:
    """Floating-point numbers of any precision, integers, or another type."""
    return next((kind.__name__ for kind in (np.floating, np.integer) if jnp.issubdtype(dtype, kind)), str(dtype))


def _as_ours(array: np.ndarray) -> jax.Array:
    floating = np.issubdtype(array.dtype, np.floating)
    return jnp.asarray(array, jnp.result_type(float) if floating else None)


def _header(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"load: there is no file {path}.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"load: {path.name} is damaged or no safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"load: {path.name} was not written by `numpyro_inverse.nn.save`.")
    if header.get("schema") != SCHEMA:
        raise ValueError(f"load: {path.name} has schema {header.get('schema')}; this version reads {SCHEMA}.")
    return header


def _named(tree: Any) -> dict[str, Any]:
    return {_name(at): leaf for at, leaf in jax.tree_util.tree_leaves_with_path(tree) if _is_array(leaf)}


def _name(at: tuple) -> str:
    return jax.tree_util.keystr(at).lstrip(".")


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
