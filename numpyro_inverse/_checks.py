"""Checks of arguments: ``check_x(where, argument, value)`` returns the value or says what is wrong with it.

What is of the wrong kind (a string, None, a boolean where a number is wanted, a complex number where a real one is, a
traced value where a static one is needed) is a TypeError; a number or a shape that is not allowed is a ValueError. Each
message says where, which argument, what is allowed and what was found.

Checks of *numbers* (``check_count``, ``check_positive_number``, ...) want a value known while the program is traced
and return a Python number. Checks of *arrays* (``check_real``, ``check_positive``, ...) let traced values pass
unchecked but for their dtype; scalars stay as they are, so that a Python number keeps its weak type, and lists become
arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SHOWN = 60  # characters of a value in a message


def is_traced(*values: Any) -> bool:
    """Whether any value, or part of one, is known only inside ``jit``, ``grad`` or ``vmap`` and cannot be checked."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def check_static(where: str, argument: str, value: Any) -> Any:
    """A value that is known while the program is traced."""
    if is_traced(value):
        raise TypeError(
            f"{where}: `{argument}` must be known outside `jit`, `grad` and `vmap`, for shapes or checks depend on it; "
            "got a traced value."
        )
    return value


# Numbers.


def check_number(where: str, argument: str, value: Any) -> float:
    """A finite real number."""
    number = _number(where, argument, value, "a real number")
    if not np.isfinite(number):
        raise ValueError(f"{where}: `{argument}` must be finite; got {show(value)}.")
    return number


def check_positive_number(where: str, argument: str, value: Any) -> float:
    """A positive, finite number."""
    number = _number(where, argument, value, "a positive number")
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{where}: `{argument}` must be positive and finite; got {show(value)}.")
    return number


def check_nonnegative_number(where: str, argument: str, value: Any) -> float:
    """A finite number of 0 or more."""
    number = _number(where, argument, value, "a non-negative number")
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"{where}: `{argument}` must be finite and not negative; got {show(value)}.")
    return number


def check_probability(where: str, argument: str, value: Any) -> float:
    """A number in [0, 1]."""
    number = _number(where, argument, value, "a probability")
    if not 0 <= number <= 1:
        raise ValueError(f"{where}: `{argument}` must be a probability, in [0, 1]; got {show(value)}.")
    return number


def check_fraction(where: str, argument: str, value: Any) -> float:
    """A number in (0, 1), without the ends."""
    number = _number(where, argument, value, "a number in (0, 1)")
    if not 0 < number < 1:
        raise ValueError(f"{where}: `{argument}` must be in (0, 1); got {show(value)}.")
    return number


def check_count(where: str, argument: str, value: Any, least: int = 1) -> int:
    """An integer of ``least`` or more; a float that is one will do."""
    allowed = "a positive integer" if least == 1 else f"an integer of {least} or more"
    number = _number(where, argument, value, allowed)
    if not np.isfinite(number) or int(number) != number or number < least:
        raise ValueError(f"{where}: `{argument}` must be {allowed}; got {show(value)}.")
    return int(value)


def _number(where: str, argument: str, value: Any, allowed: str) -> float:
    check_static(where, argument, value)
    if not _is_real_scalar(value):
        raise TypeError(f"{where}: `{argument}` must be {allowed}; got {describe(value)}.")
    return float(value)


def _is_real_scalar(value: Any) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    dtype = getattr(value, "dtype", None)
    return dtype is not None and np.shape(value) == () and _is_real(dtype)


def check_sample_shape(where: str, argument: str, value: Any) -> tuple[int, ...]:
    """A tuple of integers of 0 or more, as ``sample`` takes it."""
    check_static(where, argument, value)
    if not isinstance(value, tuple | list):
        raise TypeError(f"{where}: `{argument}` must be a tuple of integers; got {describe(value)}.")
    return tuple(check_count(where, argument, n, 0) for n in value)


# Words, functions, objects.


def check_choice(where: str, argument: str, value: Any, choices: Sequence[str]) -> str:
    """One of some names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{where}: `{argument}` must be one of {', '.join(choices)}; got {show(value)}.")
    return value


def check_flag(where: str, argument: str, value: Any) -> bool:
    """True or False."""
    check_static(where, argument, value)
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{where}: `{argument}` must be True or False; got {describe(value)}.")
    return bool(value)


def check_callable(where: str, argument: str, value: Any, what: str = "a function") -> Callable[..., Any]:
    """A function; ``what`` says which."""
    if not callable(value):
        raise TypeError(f"{where}: `{argument}` must be {what}; got {describe(value)}.")
    return value


def check_instance(where: str, argument: str, value: Any, kind: Any, what: str) -> Any:
    """An object of a class; ``what`` says it in words, such as "a Grid"."""
    if not isinstance(value, kind):
        raise TypeError(f"{where}: `{argument}` must be {what}; got {describe(value)}.")
    return value


def check_model_call(
    where: str, model: Any, model_args: Any, model_kwargs: Any
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """A NumPyro model, its arguments as a tuple, and its keyword arguments as a dictionary; None stands for no such."""
    check_callable(where, "model", model, "a NumPyro model")
    check_instance(where, "model_args", model_args, tuple | list, "a tuple, such as (y,)")
    if model_kwargs is not None:
        check_instance(where, "model_kwargs", model_kwargs, Mapping, "a dictionary")
    return model, tuple(model_args), dict(model_kwargs or {})


# Random keys.


def check_key(where: str, argument: str, value: Any) -> Any:
    """One random key: ``jax.random.key(0)``, or the two unsigned integers of ``jax.random.PRNGKey(0)``."""
    dtype: Any = getattr(value, "dtype", None)
    shape: Any = getattr(value, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and not (dtype == np.uint32 and len(shape or ()) >= 1 and shape[-1] in (2, 4)):
        raise TypeError(f"{where}: `{argument}` must be a random key, `jax.random.key(0)`; got {describe(value)}.")
    batch = shape if typed else shape[:-1]
    if batch != ():
        raise ValueError(f"{where}: `{argument}` must be one random key; got an array of keys of shape {batch}.")
    return value


# Arrays.


def check_numeric(where: str, argument: str, value: Any) -> Any:
    """Real or complex numbers."""
    array, dtype = _array(value)
    if dtype is None or not (_is_real(dtype) or jnp.issubdtype(dtype, jnp.complexfloating)):
        raise TypeError(f"{where}: `{argument}` must be numbers; got {describe(value)}.")
    return array


def check_real(where: str, argument: str, value: Any) -> Any:
    """Real numbers, finite or not."""
    array, dtype = _array(value)
    if dtype is None or not _is_real(dtype):
        raise TypeError(f"{where}: `{argument}` must be real numbers; got {describe(value)}.")
    return array


def check_finite(where: str, argument: str, value: Any) -> Any:
    """Finite real numbers, in the precision that they have in JAX."""
    array = check_real(where, argument, value)
    if is_traced(array):
        return array
    exact, held = np.asarray(array), _in_jax(array)
    bad = ~np.isfinite(held)
    if bad.any():
        precision = _only_in(held, np.isfinite(exact) & bad)
        which = "" if held.ndim == 0 else f"; {int(bad.sum())} of its {bad.size} entries are not"
        raise ValueError(f"{where}: `{argument}` must be finite{precision}{which}; got {_first(array, bad)}.")
    return array


def check_positive(where: str, argument: str, value: Any) -> Any:
    """Positive, finite numbers, in the precision that they have in JAX (1e-50 is zero in float32)."""
    array = check_real(where, argument, value)
    if is_traced(array):
        return array
    exact, held = np.asarray(array), _in_jax(array)
    bad = ~(np.isfinite(held) & (held > 0))
    if bad.any():
        precision = _only_in(held, np.isfinite(exact) & (exact > 0) & bad)
        raise ValueError(f"{where}: `{argument}` must be positive and finite{precision}; got {_first(array, bad)}.")
    return array


def check_trailing(where: str, argument: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Numbers whose trailing axes are ``shape``; leading ones are batch axes."""
    array = check_numeric(where, argument, value)
    found = np.shape(array)
    if len(found) < len(shape) or found[len(found) - len(shape) :] != shape:
        raise ValueError(f"{where}: the trailing axes of `{argument}` must be {shape}; got shape {found}.")
    return array


def check_broadcast(where: str, **shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which the shapes of some arguments broadcast."""
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        found = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ValueError(f"{where}: incompatible shapes, which do not broadcast: {found}.") from None


def _array(value: Any) -> tuple[Any, Any]:
    """The value as it is, or as an array if it is a list, and its dtype; None for what is not numbers."""
    if isinstance(value, bool | int | float | complex) or hasattr(value, "dtype"):
        return value, np.asarray(value).dtype if not hasattr(value, "dtype") else value.dtype
    if not isinstance(value, list | tuple):
        return value, None
    try:
        array = jnp.asarray(value) if is_traced(value) else np.asarray(value)
    except (TypeError, ValueError):  # ragged, or of objects
        return value, None
    return array, array.dtype


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def _in_jax(array: Any) -> np.ndarray:
    """Numbers as JAX will hold them; subnormal ones are zero."""
    exact = np.asarray(array)
    if not jnp.issubdtype(exact.dtype, jnp.floating):
        return exact
    dtype = jax.dtypes.canonicalize_dtype(exact.dtype)
    with np.errstate(over="ignore", under="ignore"):
        held = exact.astype(dtype)
    return np.where(np.abs(held) < jnp.finfo(dtype).tiny, np.zeros((), dtype), held)


def _only_in(held: np.ndarray, good: np.ndarray) -> str:
    """Which precision it is that makes values bad that would be good."""
    return f" in {held.dtype}" if good.any() else ""


def _first(array: Any, bad: np.ndarray) -> str:
    return str(np.asarray(array)[bad].ravel()[0])


# Words for what was found.


def show(value: Any) -> str:
    """A value in a message: short."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def describe(value: Any) -> str:
    """What kind of thing a value is, in a message."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the string {show(value)}"
    if isinstance(value, bool | np.bool_):
        return f"the boolean {value}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return (
            f"an array of {value.dtype} of shape {tuple(value.shape)}"
            if value.shape
            else f"{value.dtype} {show(value)}"
        )
    return f"{show(value)} ({type(value).__name__})"
