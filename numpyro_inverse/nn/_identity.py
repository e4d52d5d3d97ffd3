"""What a value is, by content: numbers of arrays, code and closures of functions; the same in every process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
import sysconfig
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse.nn._named_leaves import named_leaves

LIBRARIES = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
ARRAYS = (np.ndarray, np.generic, jax.Array)
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, slice, np.dtype)


def digest(*values: Any) -> str:
    """SHA-256 of what the values are.

    Arrays count by type, shape and numbers; functions by their code, defaults and closures, and, outside of installed
    libraries, by the globals that they use; containers and modules by their parts; an object of a library that is none
    of these by its type.
    """
    found = hashlib.sha256()
    _feed(found, values, {}, [])
    return found.hexdigest()


def _feed(found: Any, value: Any, seen: dict[int, int], kept: list) -> None:
    def add(*parts: Any) -> None:
        found.update(f"{type(value).__module__}.{type(value).__qualname__}(".encode())
        for part in parts:
            _feed(found, part, seen, kept)
        found.update(b")")

    if isinstance(value, PLAIN):
        found.update(f"{type(value).__name__} {value!r};".encode())
        return
    if id(value) in seen:  # met before: by its number, so that circles end
        found.update(f"#{seen[id(value)]};".encode())
        return
    if not isinstance(value, (tuple, frozenset, types.CodeType, *ARRAYS)):  # no part of a circle by themselves
        seen[id(value)] = len(seen)
        kept.append(value)  # an address is not used twice meanwhile
    if isinstance(value, ARRAYS):
        _feed_array(found, value)
    elif isinstance(value, types.FunctionType):
        cells = [_contents(cell) for cell in value.__closure__ or ()]
        used = {} if _in_library(value.__code__.co_filename) else _globals(value)
        add(value.__module__, value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, cells, used)
    elif isinstance(value, types.CodeType):
        add(value.co_code, value.co_names, value.co_varnames, list(value.co_consts))
    elif isinstance(value, types.MethodType):
        add(value.__self__, value.__func__)
    elif isinstance(value, functools.partial):
        add(value.func, value.args, value.keywords)
    elif isinstance(value, types.ModuleType | type | types.BuiltinFunctionType):
        found.update(f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)};".encode())
    elif isinstance(value, dict):
        add(*(part for item in sorted(value.items(), key=lambda item: repr(item[0])) for part in item))
    elif isinstance(value, tuple | list):
        add(*value)
    elif isinstance(value, set | frozenset):
        add(*sorted(repr(part) for part in value))
    elif hasattr(value, "__wrapped__"):  # compiled functions
        add(value.__wrapped__)
    elif dataclasses.is_dataclass(value):  # Equinox modules too
        add({field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}, *_call(value))
    elif not jax.tree_util.all_leaves([value]):
        add(dict(named_leaves(value)))
    elif _in_library(getattr(sys.modules.get(type(value).__module__), "__file__", None) or LIBRARIES[0]):
        add()
    else:
        add(getattr(value, "__dict__", {}), *_call(value))


def _feed_array(found: Any, value: Any) -> None:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    found.update(f"array {array.dtype} {array.shape} ".encode())
    found.update(np.ascontiguousarray(array).tobytes())


def _call(value: Any) -> list:
    """The code that runs if an object is called."""
    found = vars(type(value)).get("__call__")
    return [found] if isinstance(found, types.FunctionType) else []


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return None


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function's code names."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


def _in_library(file: str) -> bool:
    return file.startswith("<frozen") or file.startswith(LIBRARIES)
