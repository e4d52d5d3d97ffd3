"""How far a map stretches at given points: power iteration on its Jacobian. A bound from below, never a certificate."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._linalg import power_iteration

ITERATIONS = 50


@eqx.filter_jit
def jacobian_norm(
    function: Callable[[Array], Array], points: Float[Array, "points *shape"], key: Array
) -> Float[Array, ""]:
    """The largest norm of the Jacobian at the points, from below."""

    def at(x: Array, key: Array) -> Array:
        _, push = jax.linearize(function, x)
        pull = jax.linear_transpose(push, x)
        start = jax.random.normal(key, x.shape, x.dtype)
        return jnp.sqrt(power_iteration(lambda v: pull(push(v))[0], start, ITERATIONS, growth=1e-6)[0])

    return jnp.max(jax.lax.map(lambda pair: at(*pair), (points, jax.random.split(key, len(points)))))


@eqx.filter_jit
def asymmetry(
    function: Callable[[Array], Array], points: Float[Array, "points *shape"], key: Array
) -> Float[Array, ""]:
    r"""The largest :math:`|J v - J^{\mathsf T} v| / |J v|` at the points, for one Gaussian v each."""

    def at(x: Array, key: Array) -> Array:
        v = jax.random.normal(key, x.shape, x.dtype)
        _, push = jax.linearize(function, x)
        image, back = push(v), jax.linear_transpose(push, x)(v)[0]
        return jnp.linalg.norm(image - back) / jnp.maximum(jnp.linalg.norm(image), jnp.finfo(x.dtype).tiny)

    return jnp.max(jax.lax.map(lambda pair: at(*pair), (points, jax.random.split(key, len(points)))))


@eqx.filter_jit
def least_curvature(
    gradient: Callable[[Array], Array], points: Float[Array, "points *shape"], largest: Array, key: Array
) -> Float[Array, ""]:
    """The smallest eigenvalue of a Hessian at the points, from above, given a bound of its eigenvalues' moduli."""

    def at(x: Array, key: Array) -> Array:
        _, push = jax.linearize(gradient, x)
        start = jax.random.normal(key, x.shape, x.dtype)
        return largest - power_iteration(lambda v: largest * v - push(v), start, ITERATIONS, growth=1e-6)[0]

    return jnp.min(jax.lax.map(lambda pair: at(*pair), (points, jax.random.split(key, len(points)))))
