"""What an estimator learned, in a file that knows for which model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpyro_inverse._checks import describe


def checked_path(where: str, path: Any) -> Path:
    """The path of a file.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TypeError(f"{where}: `path` must be the path of a file; got {describe(path)}.")
    return Path(path)


def check_options(where: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise unless all are options of ``fit`` that say what is learned.

    Raises:
        TypeError: one is not.
    """
    for name in options:
        if name not in known:
            raise TypeError(f"{where}: `{name}` is no option of `load`, whose options are {', '.join(known)}.")


def write_module(path: Path, module: Any, schema: dict[str, Any], regions: list[list[int]]) -> None:
    """Arrays as safetensors, with the schema beside them."""
    from numpyro_inverse import nn

    nn.save(path, module, sbi=schema, regions=regions)


def read_metadata(path: Path, schema: dict[str, Any], where: str) -> list[list[int]]:
    """Sizes of the regions of simulations.

    Raises:
        ValueError: the file holds no estimator, or one with another schema.
    """
    from numpyro_inverse import nn

    about = nn.load_metadata(path)
    found = about.get("sbi")
    if found is None:
        raise ValueError(f"{where}: {path.name} holds no estimator.")
    for name in schema:
        if found.get(name) != schema[name]:
            raise ValueError(
                f"{where}: {path.name} is of another model: `{name}` is {found.get(name)!r} there, and "
                f"{schema[name]!r} in this one."
            )
    return about["regions"]


def read_module[Tree](path: Path, like: Tree) -> Tree:
    """``like`` with the arrays of a file."""
    from numpyro_inverse import nn

    return nn.load(path, like)
