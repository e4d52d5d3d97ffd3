"""The energy score of draws judged by data, and so the energy distance up to a constant."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_real


def energy_score(x: Float[Array, "n *event"], y: Float[Array, "m *event"]) -> Float[Array, ""]:
    r"""Unbiased estimate of :math:`2 E|x - y| - E|x - x'|` for draws x judged by data y; smallest in mean, and then
    :math:`E|y - y'|`, exactly if x has the law of y.

    Args:
        x: two independent draws or more.
        y: independent rows.

    Raises:
        TypeError: what are no real numbers.
        ValueError: fewer of them, or events of different shapes.

    References:
        Gneiting & Raftery, JASA 102 (2007) 359-378, section 4.3; Székely & Rizzo, J. Stat. Plan. Inference 143 (2013).
    """
    x, y = (jnp.asarray(check_real("energy_score", name, rows)) for name, rows in (("x", x), ("y", y)))
    if not x.ndim or not y.ndim or x.shape[1:] != y.shape[1:] or len(x) < 2 or len(y) < 1:
        raise ValueError(
            "energy_score: `x` must be two draws or more, and `y` one row or more, of one shape; got shapes "
            f"{jnp.shape(x)} and {jnp.shape(y)}."
        )
    x, y = jnp.reshape(x, (len(x), -1)), jnp.reshape(y, (len(y), -1))
    return 2 * jnp.mean(_distances(x, y)) - jnp.sum(_distances(x, x)) / (len(x) * (len(x) - 1))


def _distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    return jax.lax.map(lambda a: jnp.sqrt(jnp.sum((y - a) ** 2, axis=1)), x)
