"""Simulators that JAX cannot trace: Python functions and programs, run in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_callable, check_count, check_positive_number, check_sample_shape

SHOWN = 80  # characters of an exception that tell it from others


class External:
    """A Python function, or whatever program it starts, as the ``fn`` of a ``Simulator``.

    >>> # not run: a program of the user's own
    >>> def run(seed, rate, shape):  # in a module of its own
    ...     out = subprocess.run(["./tumor", str(seed), str(rate), str(shape)], capture_output=True, check=True)
    ...     return np.frombuffer(out.stdout)
    >>> with External(run, (50,), processes=8, timeout=60.0) as tumor:  # doctest: +SKIP
    ...     simulations = simulate(model, key, 10_000)

    All simulations of a batch go to a pool of processes at once. One that raises, dies, takes too long or returns
    another shape gives NaN, is counted in ``failures`` by its reason, and holds up nothing else; :func:`simulate`
    leaves it out and reports it.

    Args:
        function: from a seed (an integer below 2**32) and the arguments (NumPy arrays) to an array. It must be one that
            processes can share: defined in a module, not within another function.
        shape: of what it returns.
        processes: that run at a time. Default: the machine's cores.
        timeout: seconds after which one simulation is given up and its process ended. Default: none.

    Raises:
        TypeError: ``function`` cannot be called, or not be sent to another process.
        ValueError: a number out of range.
        ImportError: Pebble, which runs the processes, is missing (extra ``external``).
    """

    def __init__(
        self,
        function: Callable[..., Any],
        shape: tuple[int, ...] = (),
        *,
        processes: int | None = None,
        timeout: float | None = None,
    ):
        check_callable("External", "function", function)
        try:
            pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"External: `function` cannot be sent to another process ({error}); define it in a module, not within "
                "another function."
            ) from error
        self.function = function
        self.shape = check_sample_shape("External", "shape", shape)
        self.processes = check_count("External", "processes", processes or os.cpu_count() or 1)
        self.timeout = None if timeout is None else check_positive_number("External", "timeout", timeout)
        self.failures: Counter[str] = Counter()
        self._pool: Any = None
        self._lock = threading.Lock()  # each device of JAX calls in a thread of its own

    def __call__(self, rng_key: PRNGKeyArray, *args: Array) -> Float[Array, "..."]:
        """One simulation, or under ``vmap`` a batch of them at once."""
        out = jax.ShapeDtypeStruct(self.shape, jnp.result_type(float))
        seed = jax.random.bits(rng_key, dtype=jnp.uint32)
        return jax.pure_callback(self._batch, out, seed, *args, vmap_method="broadcast_all")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the next simulation starts others."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        """Processes and counts stay where they are."""
        return {name: v for name, v in self.__dict__.items() if name != "_lock"} | {
            "_pool": None,
            "failures": Counter(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def _batch(self, seeds: Any, *args: Any) -> np.ndarray:
        seeds = np.asarray(seeds)
        rows = [np.asarray(arg).reshape((seeds.size, *np.shape(arg)[seeds.ndim :])) for arg in args]
        pool = self._running()
        futures = [
            pool.schedule(self.function, args=(int(seed), *(row[i] for row in rows)), timeout=self.timeout)
            for i, seed in enumerate(seeds.ravel())
        ]
        found = np.full((seeds.size, prod(self.shape)), np.nan, jnp.result_type(float))
        for i, future in enumerate(futures):
            value = self._result(future)
            if value is not None:
                found[i] = value
        return found.reshape(seeds.shape + self.shape)

    def _result(self, future: Any) -> np.ndarray | None:
        """What a process returned, flat; None after counting why there is nothing."""
        try:
            value = np.asarray(future.result(), float)
            if value.shape == self.shape:
                return value.ravel()
            reason = f"an array of shape {value.shape} instead of {self.shape}"
        except FutureTimeout:
            reason = f"no result within {self.timeout:g} s"
        except Exception as error:  # the user's program may raise anything, or die
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:SHOWN]
        with self._lock:
            self.failures[reason] += 1
        return None

    def _running(self) -> Any:
        with self._lock:
            if self._pool is None:
                try:
                    from pebble import ProcessPool
                except ImportError as error:
                    raise ImportError("External: needs Pebble: pip install 'numpyro-inverse[external]'.") from error
                # A fork of a process in which JAX has started threads may hang.
                self._pool = ProcessPool(self.processes, context=multiprocessing.get_context("spawn"))
            return self._pool
