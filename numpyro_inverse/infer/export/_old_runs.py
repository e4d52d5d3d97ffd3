"""Reading runs that were written before blocks had checksums (version 1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from numpyro_inverse.infer.export._run_folder import reading

COMPLETE = 1


class OldRun:
    """A run of version 1, to read. A block counts up to the first without a marker."""

    def __init__(self, group: Any, where: str):
        with reading(where, "the run's metadata"):
            text = group.attrs.get("settings")
        if text is None:
            raise ValueError(f"{where}: the run in the store was cut off before its first block.")
        self._group, self._where = group, where
        with reading(where, "the run's metadata"):
            self.settings: dict[str, Any] = json.loads(text)
            self._draws = [int(n) for n in group.attrs["draws"]]

    @property
    def kept(self) -> list[str]:
        """Names of what is kept, by group."""
        return list(self.settings["kept"])

    def read(self, names: Sequence[str]) -> tuple[dict[str, np.ndarray], bool]:
        """The draws of the blocks that count, and whether they are all."""
        with reading(self._where, "'marker'"):
            missing = np.flatnonzero(self._group["marker"][...] != COMPLETE)
        done = int(missing[0]) if len(missing) else len(self._draws)
        count = sum(self._draws[:done])
        if count == 0:
            raise ValueError(f"{self._where}: no block of draws is complete yet.")
        draws = {}
        for name in names:
            with reading(self._where, repr(name)):
                draws[name] = self._group[name][:, :count]
        return draws, done == len(self._draws)
