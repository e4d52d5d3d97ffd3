"""What an estimator learned, in a file that knows for which model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def write_module(path: str | os.PathLike, module: Any, schema: dict[str, Any], regions: list[list[int]]) -> None:
    """Arrays as safetensors, with the schema beside them."""
    from numpyro_inverse import nn

    nn.save(Path(path), module, sbi=schema, regions=regions)


def read_metadata(path: str | os.PathLike, schema: dict[str, Any], where: str) -> list[list[int]]:
    """Sizes of the regions of simulations.

    Raises:
        ValueError: the file holds no estimator, or one with another schema.
    """
    from numpyro_inverse import nn

    about = nn.load_metadata(Path(path))
    found = about.get("sbi")
    if found is None:
        raise ValueError(f"{where}: {Path(path).name} holds no estimator.")
    for name in schema:
        if found.get(name) != schema[name]:
            raise ValueError(
                f"{where}: {Path(path).name} is of another model: `{name}` is {found.get(name)!r} there, and "
                f"{schema[name]!r} in this one."
            )
    return about["regions"]


def read_module[Tree](path: str | os.PathLike, like: Tree) -> Tree:
    """``like`` with the arrays of a file."""
    from numpyro_inverse import nn

    return nn.load(Path(path), like)
