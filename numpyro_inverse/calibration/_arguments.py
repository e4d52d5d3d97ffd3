"""What several studies check of their arguments: how a model is called, and what a user's function returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse._checks import check_instance, check_numeric, check_real


def model_arguments(where: str, model_args: Any, model_kwargs: Any) -> tuple[tuple, dict[str, Any]]:
    """A model's arguments and keyword arguments.

    Raises:
        TypeError: ``model_args`` is no tuple or list, ``model_kwargs`` no mapping.
    """
    check_instance(where, "model_args", model_args, tuple | list, "a tuple of the model's arguments, such as (y,)")
    if model_kwargs is not None:
        check_instance(where, "model_kwargs", model_kwargs, Mapping, "a dict of the model's keyword arguments")
    return tuple(model_args), dict(model_kwargs or {})


def check_values(where: str, argument: str, value: Any) -> Any:
    """Numbers of any kind, and booleans."""
    boolean = isinstance(value, bool) or getattr(value, "dtype", None) == np.bool_
    return value if boolean else check_numeric(where, argument, value)


def returned(where: str, call: str, function: Callable[..., Any], *given: Any) -> jax.ShapeDtypeStruct:
    """Shape and type of what ``function`` makes of some arrays; ``call`` says in a message how it is called.

    Raises:
        TypeError: it is not one array of real numbers.
    """

    def one_array(*given: Any) -> Any:
        found = function(*given)
        if isinstance(found, tuple | list):
            raise TypeError(f"{where}: `{call}` must be one array; got a {type(found).__name__} of {len(found)}.")
        return jnp.asarray(check_real(where, call, found))

    return jax.eval_shape(one_array, *given)
