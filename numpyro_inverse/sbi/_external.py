"""Simulators that JAX cannot trace: Python functions and programs, run in processes of their own."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_key, check_numeric, check_sample_shape
from numpyro_inverse._on_host import on_host
from numpyro_inverse._workers import Failure, Workers, check_sendable


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
        self.function = check_sendable("External", "function", function)
        self.shape = check_sample_shape("External", "shape", shape)
        count = (os.cpu_count() or 1) if processes is None else check_count("External", "processes", processes)
        self.workers = Workers("External", processes=count, timeout=timeout)
        self.failures: Counter[str] = Counter()
        self._lock = threading.Lock()  # each device of JAX calls in a thread of its own

    def __call__(self, rng_key: PRNGKeyArray, *args: Array) -> Float[Array, "..."]:
        """One simulation, or under ``vmap`` a batch of them at once."""
        out = jax.ShapeDtypeStruct(self.shape, jnp.result_type(float))
        check_key("External", "rng_key", rng_key)
        seed = jax.random.bits(rng_key, dtype=jnp.uint32)
        arrays = [jnp.asarray(arg if _is_boolean(arg) else check_numeric("External", "args", arg)) for arg in args]
        return on_host(self._batch, out, seed, *arrays, vmap_method="broadcast_all")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the next simulation starts others."""
        self.workers.close()

    def __getstate__(self) -> dict[str, Any]:
        """Counts stay where they are, as processes do."""
        return {name: v for name, v in self.__dict__.items() if name != "_lock"} | {"failures": Counter()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def _batch(self, seeds: np.ndarray, *args: np.ndarray) -> np.ndarray:
        rows = [arg.reshape((seeds.size, *arg.shape[seeds.ndim :])) for arg in args]
        calls = [(int(seed), *(row[i] for row in rows)) for i, seed in enumerate(seeds.ravel())]
        found = np.full((seeds.size, prod(self.shape)), np.nan)
        for i, outcome in enumerate(self.workers.run(self.function, calls, [self.shape])):
            if isinstance(outcome, Failure):
                with self._lock:
                    self.failures[outcome.reason] += 1
            else:
                found[i] = outcome[0].ravel()
        return found.reshape(seeds.shape + self.shape)


def _is_boolean(arg: Any) -> bool:
    return isinstance(arg, bool) or (hasattr(arg, "dtype") and jnp.issubdtype(arg.dtype, jnp.bool_))
