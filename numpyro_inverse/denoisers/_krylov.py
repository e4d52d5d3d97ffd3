"""The largest singular value of a linear map that is known by its products, from below."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def largest_singular_value(
    forward: Callable[[Array], Array], backward: Callable[[Array], Array], start: Array, steps: int
) -> Float[Array, ""]:
    r"""The largest Ritz value after some steps of Golub-Kahan-Lanczos bidiagonalization, reorthogonalized.

    Never above the truth but for rounding, and much nearer to it than as many power iterations.

    Args:
        forward: M.
        backward: its transpose.
        start: a vector that is not orthogonal to the largest right singular vector: a random one.
        steps: products with both.
    """
    shape, steps = start.shape, min(steps, start.size)
    tiny = jnp.finfo(start.dtype).tiny

    def step(carry, i):
        basis, v = carry
        basis = basis.at[i].set(v)
        image = forward(v.reshape(shape))
        whole = w = backward(image).ravel()
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        # What is left may be rounding, which is not orthogonal to the basis: then the space is complete.
        size = jnp.linalg.norm(w)
        found = size > jnp.sqrt(jnp.finfo(w.dtype).eps) * jnp.linalg.norm(whole)
        return (basis, jnp.where(found, w / jnp.maximum(size, tiny), 0)), image.ravel()

    first = start.ravel() / jnp.linalg.norm(start)
    basis = jnp.zeros((steps, start.size), start.dtype)
    _, images = jax.lax.scan(step, (basis, first), jnp.arange(steps))
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(images @ images.T)[-1], 0))
