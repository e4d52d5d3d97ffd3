"""The accept-reject step of Metropolis and Hastings."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse.infer.kernels._base import Point
from numpyro_inverse.infer.kernels._failures import Failure, has_failed


def accept_or_reject(
    key: Array, here: Point, there: Point, log_ratio: Float[Array, ""]
) -> tuple[Point, Float[Array, ""], Failure]:
    r"""``there`` with probability :math:`\min(1, e^r)`, else ``here``; the log ratio r that was used; what failed.

    The ratio is minus infinity, and the point rejected, where the potential is not finite or the ratio not a number.
    """
    log_ratio = jnp.where(jnp.isfinite(there.potential_energy) & ~jnp.isnan(log_ratio), log_ratio, -jnp.inf)
    accepted = jnp.log(jax.random.uniform(key, dtype=here.x.dtype)) < log_ratio
    return jax.tree.map(partial(jnp.where, accepted), there, here), log_ratio, Failure(has_failed(there), there.x)


def probability(log_ratio: Float[Array, ""]) -> Float[Array, ""]:
    r""":math:`\min(1, e^r)`."""
    return jnp.exp(jnp.minimum(log_ratio, 0))
