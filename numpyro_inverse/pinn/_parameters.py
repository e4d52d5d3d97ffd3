"""The equation's parameters, and the points at which functions are taken, at the door."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_finite, check_real


def floats(theta: Any) -> Any:
    """Parameters as floating-point arrays."""
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.result_type(float)), theta)


def check_theta(where: str, theta: Any) -> Any:
    """Parameters: a pytree of finite real numbers, not empty."""
    leaves = jax.tree.leaves(theta)
    if not leaves:
        raise ValueError(f"{where}: `theta` must have at least one number.")
    for leaf in leaves:
        check_finite(where, "theta", leaf)
    return floats(theta)


def check_parameters(where: str, theta: Any) -> Any:
    """Parameters as they are: real numbers, if there are any."""
    for leaf in jax.tree.leaves(theta):
        check_real(where, "theta", leaf)
    return theta


def as_point(where: str, x: Any, ndim: int | None = None) -> Float[Array, " d"]:
    """A point: floating-point coordinates, ``ndim`` of them if that is known."""
    x = jnp.asarray(check_real(where, "x", x))
    if x.ndim != 1 or (ndim is not None and x.shape != (ndim,)):
        raise ValueError(
            f"{where}: `x` must be one point, of shape ({'d' if ndim is None else ndim},); got shape {x.shape}. "
            "`jax.vmap` takes many."
        )
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
