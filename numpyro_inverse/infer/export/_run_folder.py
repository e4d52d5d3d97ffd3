"""Where a run is written: a directory or another Zarr store; what goes wrong there, in our words; flushing to the disk.

A directory has one writer at a time, by a lock that goes with the process, and files are on the disk before what counts
on them is written. Other stores have what their own writes promise, and no lock.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from numpyro_inverse._checks import describe
from numpyro_inverse._files import made_folder, sole_writer, sync_folder, told

OLD_FORMAT, FORMAT = FORMATS = tuple(f"numpyro_inverse run, version {i}" for i in (1, 2))
METADATA = "zarr.json"
LOCKED = "lock"  # the folder of the writer's lock
DRAFTS = "*.partial"  # what Zarr writes before it renames


def import_zarr(where: str) -> Any:
    """Zarr, or an error that names the extra."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{where}: needs Zarr: pip install 'numpyro-inverse[runs]'.") from error
    return zarr


def folder_of(store: Any, where: str) -> Path | None:
    """The directory of a store; None for another Zarr store.

    Raises:
        TypeError: it is neither.
        ValueError: it is a file.
    """
    zarr = import_zarr(where)
    if isinstance(store, str | os.PathLike) and "://" not in str(store):
        path = Path(store)
        if path.is_file():
            raise ValueError(f"{where}: `store` is a file, {str(path)!r}; give a directory.")
        if str(store) == "":
            raise ValueError(f"{where}: `store` is empty; give a directory.")
        return path
    if isinstance(store, zarr.storage.LocalStore):
        return Path(store.root)
    if isinstance(store, str | dict | zarr.abc.store.Store | zarr.storage.StorePath):
        return None
    raise TypeError(f"{where}: `store` must be a directory or a Zarr store; got {describe(store)}.")


@contextlib.contextmanager
def writable_group(store: Any, where: str) -> Iterator[tuple[Any, Path | None]]:
    """The Zarr group in a store, made if there is none, and its directory, where there is one, without other writers.

    Raises:
        RuntimeError: another process writes there.
        ValueError: the directory holds something else.
        OSError: it cannot be written.
    """
    zarr, folder = import_zarr(where), folder_of(store, where)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            made_folder(folder, f"{where}: `store`")
            _check_ours(folder, where)
            if (folder / METADATA).exists():
                readable_group(store, where)
            made_folder(folder / LOCKED, f"{where}: `store`")
            stack.enter_context(sole_writer(folder / LOCKED, f"{where}: `store`"))
            with writing(folder, where):
                for draft in folder.rglob(DRAFTS):  # of writers that were killed
                    draft.unlink()
        with writing(folder, where), reading(where, "the run's metadata"):
            group = zarr.open_group(store, mode="a")
            if folder is not None:
                group.require_group(LOCKED)  # so that Zarr knows what it is
        _check_format(group, where)
        yield group, folder


def readable_group(store: Any, where: str) -> Any:
    """The Zarr group in a store.

    Raises:
        ValueError: there is none.
    """
    zarr, folder = import_zarr(where), folder_of(store, where)
    if folder is not None:
        if not folder.exists():
            raise ValueError(f"{where}: there is no store at {str(folder)!r}.")
        _check_ours(folder, where)
        if not (folder / METADATA).exists():
            raise ValueError(f"{where}: there is no run in {str(folder)!r}.")
    try:
        with reading(where, "the run's metadata"):
            group = zarr.open_group(store, mode="r")
    except ValueError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ValueError(f"{where}: there is no run in the store.") from error
        raise
    _check_format(group, where)
    return group


def _check_format(group: Any, where: str) -> None:
    """Raise unless the group is of a run, or empty."""
    with reading(where, "the run's metadata"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's, about files that are not its own
        found = group.attrs.get("format")
        others = found is None and any(name != LOCKED for name, _ in group.members())
    if others or found not in (None, *FORMATS):
        raise ValueError(f"{where}: the store holds no run (its format is {found!r}); give another.")


def _check_ours(folder: Path, where: str) -> None:
    """Raise if there are files that no run wrote. One that was cut off at once left a lock and drafts."""
    if not folder.is_dir() or (folder / METADATA).exists():
        return
    for path in folder.iterdir():
        if path.name != LOCKED and (path / METADATA).exists():
            raise ValueError(
                f"{where}: the store is damaged: {str(folder / METADATA)!r} is missing; restore it, or give another "
                "directory."
            )
        if path.name != LOCKED and not path.match(DRAFTS):
            raise ValueError(f"{where}: the directory {str(folder)!r} is not empty and holds no run; give another.")


@contextlib.contextmanager
def reading(where: str, what: str) -> Iterator[None]:
    """Say what is damaged, whatever Zarr and its codecs make of it."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if not isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{where}: the store is damaged: {what} is missing.") from error
    except Exception as error:  # a flipped bit can raise anything
        raise ValueError(f"{where}: the store is damaged: {what} cannot be read ({error}).") from error


@contextlib.contextmanager
def writing(folder: Path | None, where: str) -> Iterator[None]:
    """Say which store cannot be written, and that what counts stays."""
    try:
        yield
    except OSError as error:
        place = Path("the Zarr store") if folder is None else folder
        raise told(error, place, f"{where}: `store` (the blocks that count are kept)") from error


def flush(folder: Path | None, names: Iterable[str]) -> None:
    """Force files of a directory to the disk, and the directories that name them."""
    if folder is None:
        return
    parents = {}
    for name in names:
        path = folder / name
        if path.exists():
            with open(path, "r+b") as file:
                os.fsync(file.fileno())
        for parent in path.parents:
            parents[parent] = None
            if parent == folder:
                break
    for parent in parents:
        if parent.is_dir():
            sync_folder(parent)
