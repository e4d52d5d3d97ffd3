"""Values that are no good, by kind of argument, and what an error must be.

A table maps a name to ``(argument, call, values)``: ``call(value)`` must refuse each value with a TypeError or a
ValueError of ours that says where, names the argument in backquotes and is not longer than a reader will read. Tests
go through a table with :func:`check`.
"""

import traceback
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import pytest

NAN, INF = float("nan"), float("inf")

STRANGE = ("a", {}, object(), len, b"4")
NO_NUMBERS = (*STRANGE, True, np.bool_(True), 1j, [1.0, "2"], ["a", "b"])
RAGGED = [[1.0], [1.0, 2.0]]
NUMBERS = (*NO_NUMBERS, None, NAN, INF, np.ones(3))  # for one finite number
NONNEGATIVE_NUMBERS = (*NUMBERS, -1.0)
POSITIVE_NUMBERS = (*NONNEGATIVE_NUMBERS, 0.0)
PROBABILITIES = (*NONNEGATIVE_NUMBERS, 1.5)  # with both ends
FRACTIONS = (*POSITIVE_NUMBERS, 1.0, 1.5)  # without
COUNTS = (*POSITIVE_NUMBERS, 0, -1, 2.5)
ARRAYS = (*STRANGE, None, [1.0, "2"], RAGGED, [None], np.array(["a"]))
REAL = (*ARRAYS, True, 1j, np.ones(2, bool), np.ones(2, complex))
PARAMETERS = (*REAL, NAN, INF, -1.0, 0.0, [1.0, NAN], 1e60)  # of a distribution: positive, of any shape
SHAPES = (*STRANGE, None, True, -1, 2.5, NAN, (0, 2), (2, -1), (True, 2), ("a", 2), (2.5, 2), (1j,), [[2], [2]])

FUNCTIONS = ("a", 3, {}, None, np.ones(3))
OBJECTS = ("a", None, 3, {}, np.ones(3), object())
KEYS = (0, "a", None, 1.5, np.zeros(3), jax.random.split(jax.random.key(0), 2))
FLAGS = ("yes", None, 1, 0.0, [True])
NAMES = (3, None, b"u", ["u"], object())
MODEL_ARGS = ("a", 3, {}, np.ones(3))
MODEL_KWARGS = ("a", 3, [("x", 1)], np.ones(3))

Case = tuple[str, Callable[[Any], Any], Iterable[Any]]


def given(values: Iterable[Any]) -> list[Any]:
    """All but None, for an argument that may be left out."""
    return [value for value in values if value is not None]


def cases(call: Callable[..., Any], base: dict[str, Any], /, **values: Iterable[Any]) -> dict[str, Case]:
    """A table of one function: each argument in turn has bad values, the others those of ``base``."""
    name = getattr(call, "__qualname__", str(call))
    return {
        f"{name} {argument}": (argument, lambda value, argument=argument: call(**base | {argument: value}), bad)
        for argument, bad in values.items()
    }


def check(name: str, case: Case) -> None:
    """All values of one row of a table are refused in our own words."""
    argument, call, values = case
    for value in values:
        try:
            call(value)
        except (TypeError, ValueError) as caught:
            error = caught
        else:
            pytest.fail(f"{name}: {value!r} is accepted")
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        assert f"`{argument}" in str(error), f"{name}, {value!r}: {error!r}"
        assert ": " in str(error), f"{name}, {value!r}: does not say where: {error!r}"
        assert "numpyro_inverse" in raised_in, f"{name}, {value!r}: raised in {raised_in}"
        assert len(str(error)) < 500
