"""Calls of functions that JAX cannot trace, many at a time: in threads of this process or in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

import numpy as np

from numpyro_inverse._checks import check_callable, check_count, check_positive_number

SHOWN = 80  # characters of an exception that tell it from others


@dataclass(frozen=True)
class Failure:
    """Why a call has no result; ``error`` is what was raised, if anything was."""

    reason: str
    error: BaseException | None = None


class Workers:
    """A pool that starts when it is first used, and again after it was closed.

    Args:
        where: who asks, for messages.
        threads: of this process, that call at a time. A function of Python holds the others up; a program that is
            started, a request or a library that releases Python's lock does not.
        processes: instead of threads: each call is in a process, which ends with its time.
        timeout: seconds after which a call in a process is given up and the process ended. Default: none.

    Raises:
        ValueError: a number out of range, or a timeout without processes.
    """

    def __init__(
        self, where: str, *, threads: int = 1, processes: int | None = None, timeout: float | None = None
    ) -> None:
        self.where = where
        self.threads = check_count(where, "threads", threads)
        self.processes = None if processes is None else check_count(where, "processes", processes)
        self.timeout = None if timeout is None else check_positive_number(where, "timeout", timeout)
        if self.timeout is not None and self.processes is None:
            raise ValueError(
                f"{where}: `timeout` needs `processes`, for a thread cannot be ended. Or keep threads and give the "
                "limit to what they wait for, such as subprocess.run(timeout=...)."
            )
        self._pool: Any = None
        self._lock = threading.Lock()  # each device of JAX calls in a thread of its own

    def run(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], shapes: Sequence[tuple[int, ...]]
    ) -> list[tuple[np.ndarray, ...] | Failure]:
        """All ``calls`` at once; the arrays of ``shapes`` that each returns, or why not. One that fails stops no other.

        With one shape the function returns the array itself, else a tuple of arrays.
        """
        futures = [self._submit(function, args, len(shapes)) for args in calls]
        return [self._outcome(future, shapes) for future in futures]

    def close(self) -> None:
        """End threads and processes."""
        with self._lock:
            pool, self._pool = self._pool, None
        if isinstance(pool, ThreadPoolExecutor):
            pool.shutdown(cancel_futures=True)
        elif pool is not None:
            pool.stop()
            pool.join()

    def __getstate__(self) -> dict[str, Any]:
        """Threads and processes stay where they are."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_pool", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_pool": None, "_lock": threading.Lock()}

    def _submit(self, function: Callable[..., Any], args: tuple[Any, ...], count: int) -> Future:
        pool = self._running()
        if self.processes is None:
            return pool.submit(_called, function, args, count)
        return pool.schedule(function, args=args, timeout=self.timeout)

    def _outcome(self, future: Any, shapes: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, ...] | Failure:
        arrays = self._arrays_or_error(future, len(shapes))
        if isinstance(arrays, BaseException):
            if isinstance(arrays, FutureTimeout) and self.timeout is not None:  # else it is the program's own
                return Failure(f"no result within {self.timeout:g} s", arrays)
            return Failure(f"{type(arrays).__name__}: {arrays}".splitlines()[0][:SHOWN], arrays)
        found = tuple(a.shape for a in arrays)
        if found == tuple(shapes):
            return arrays
        if len(found) == len(shapes) == 1:
            return Failure(f"an array of shape {found[0]} instead of {shapes[0]}")
        return Failure(f"arrays of shapes {found} instead of {tuple(shapes)}")

    def _arrays_or_error(self, future: Any, count: int) -> tuple[np.ndarray, ...] | BaseException:
        """The error is asked for, not raised: a traceback from here would hold the frames of all callers in a circle,
        with their arrays."""
        try:
            error = future.exception()
            if error is not None:
                return error
            return future.result() if self.processes is None else _arrays(future.result(), count)
        except Exception as wrong:  # cancelled, or no arrays
            return wrong.with_traceback(None)

    def _running(self) -> Any:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads) if self.processes is None else self._start()
            return self._pool

    def _start(self) -> Any:
        try:
            from pebble import ProcessPool
        except ImportError as error:
            raise ImportError(f"{self.where}: needs Pebble: pip install 'numpyro-inverse[external]'.") from error
        # A fork of a process in which JAX has started threads may hang.
        return ProcessPool(self.processes or os.cpu_count() or 1, context=multiprocessing.get_context("spawn"))


def _called(function: Callable[..., Any], args: tuple[Any, ...], count: int) -> tuple[np.ndarray, ...]:
    """A call in a thread, whose function may overwrite its arguments, or return one buffer whenever it is called."""
    return _arrays(function(*(np.array(a) if isinstance(a, np.ndarray) else a for a in args)), count)


def _arrays(value: Any, count: int) -> tuple[np.ndarray, ...]:
    """What a function returned, as arrays of this call alone."""
    parts = (value,) if count == 1 else value
    if parts is None or any(part is None for part in parts):
        raise TypeError("it returned None")
    if any(np.iscomplexobj(part) for part in parts):
        raise TypeError("it returned complex numbers; return real and imaginary parts")
    return tuple(np.array(part, float) for part in parts)


def check_sendable(where: str, argument: str, function: Any) -> Callable[..., Any]:
    """A function that another process can be given."""
    check_callable(where, argument, function)
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"{where}: `{argument}` cannot be sent to another process ({error}); define it in a module, not within "
            "another function."
        ) from error
    return function
