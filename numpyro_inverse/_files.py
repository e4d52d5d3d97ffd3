"""Files that are whole or not there, and folders that one process writes at a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    import fcntl

LOCK = ".lock"


def write_atomically(path: str | os.PathLike, content: bytes, where: str) -> None:
    """Write a file whole or not at all: to a draft beside it, flushed to the disk, then renamed.

    A reader sees the old content or the new one, also after a power cut.

    Raises:
        OSError: what the system says (no space left, read-only), after ``where``, a function and its argument. The
            draft is removed, what was there before stays.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise told(error, path, where) from error


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` last through a power cut, where the system can."""
    if sys.platform == "win32":  # pragma: no cover
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def made_folder(path: str | os.PathLike, where: str) -> Path:
    """The folder, made if it is not there.

    Raises:
        TypeError: ``path`` is no path.
        ValueError: it is a file.
        OSError: it cannot be made.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{where} must be a path; got {type(path).__name__}.")
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{where} must be a folder; {str(folder)!r} is a file.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise told(error, folder, where) from error
    return folder


@contextlib.contextmanager
def sole_writer(folder: str | os.PathLike, where: str) -> Iterator[None]:
    """Keep other writers out of ``folder``; the lock goes with the process, also when it is killed.

    Raises:
        RuntimeError: another process, or another part of this one, writes there.
        OSError: the lock cannot be made.
    """
    path = Path(folder) / LOCK
    try:
        file = open(path, "a+b")  # noqa: SIM115
    except OSError as error:
        raise told(error, path, where) from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise RuntimeError(
                f"{where}: another process writes to {str(folder)!r}; wait until it ends, or give another folder."
            ) from error
        yield  # closing the file unlocks it


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def told(error: OSError, path: Path, where: str) -> OSError:
    """The same error in our own words."""
    return type(error)(error.errno, f"{where}: cannot write {str(path)!r}: {error.strerror or error}")
