"""The kernel Stein discrepancy: draws against a density known up to a constant."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_permutations,
    checked_draws,
)


def ksd(
    draws: Float[Array, "n *shape"],
    score: Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]],
    rng_key: Key[Array, ""],
    *,
    num_bootstrap: int = 499,
) -> SignificanceTest:
    r"""Do the draws follow the density whose score :math:`s = \nabla \log p` is given?

    .. math:: \operatorname{KSD}^2 = E\, u(x, x'), \quad u = s(x)^T s(x') k + s(x)^T \nabla' k + s(x')^T \nabla k
        + \operatorname{tr} \nabla \nabla' k,

    estimated without bias, with the inverse multiquadric kernel :math:`k = (1 + |x - x'|^2)^{-1/2}` in units of the
    draws' standard deviations. No normalising constant is needed. The null distribution is that of the centred
    degenerate statistic under random signs (wild bootstrap): the level is right for many independent draws, and a few
    per cent too large for some hundred. The test cannot see wrong weights of well separated modes.

    Args:
        draws: independent draws.
        score: gradient of the log density at one draw.
        rng_key: a JAX random key.
        num_bootstrap: sign vectors.

    Raises:
        ValueError: too few draws, numbers that are not finite, identical draws, a score that is not finite or of
            another shape.

    References:
        Liu, Lee & Jordan, ICML 2016; Gorham & Mackey, ICML 2017, on the kernel.
    """
    check_permutations("ksd", num_bootstrap)
    rows = checked_draws("ksd", "draws", draws)
    shape = np.shape(draws)[1:]
    scores = jax.jit(jax.vmap(score))(jnp.asarray(draws, float))
    if scores.shape != (len(rows), *shape):
        raise ValueError(f"ksd: `score` must return shape {shape} for one draw; got {scores.shape[1:]}.")
    if not np.all(np.isfinite(scores)):
        raise ValueError("ksd: `score` is not finite at some draw.")
    spread = np.std(rows, axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    gram = _stein_kernel(jnp.asarray(rows / spread), scores.reshape(rows.shape) * spread)
    n = len(rows)
    gram = gram - jnp.diag(jnp.diagonal(gram))
    signs = jax.random.rademacher(rng_key, (num_bootstrap, n), float)
    null = jnp.sum(signs * (signs @ gram), axis=1) / (n * (n - 1))
    return against_null("KSD^2", jnp.sum(gram) / (n * (n - 1)), null)


@jax.jit
def _stein_kernel(x: Float[Array, "n d"], s: Float[Array, "n d"]) -> Float[Array, "n n"]:
    d = x.shape[1]
    squares = jnp.sum(x**2, axis=1)
    r2 = jnp.maximum(squares[:, None] + squares - 2 * x @ x.T, 0)
    base = 1 + r2
    along = jnp.sum(s * x, axis=1)
    cross = s @ x.T
    # (s(x) - s(x'))^T (x - x')
    difference = along[:, None] + along[None, :] - cross - cross.T
    return (s @ s.T) * base**-0.5 + difference * base**-1.5 + d * base**-1.5 - 3 * r2 * base**-2.5
