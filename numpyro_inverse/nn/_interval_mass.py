"""What a normal law gives to an interval, in single precision: far in the tails, and for the narrowest."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

NARROW = 0.1  # in standard deviations
FAR = 1e3  # beyond which the logarithm of a wide interval's mass no longer falls


def log_interval_mass(middle: Float[Array, "..."], width: Float[Array, "..."]) -> Float[Array, "..."]:
    r""":math:`\log(\Phi(m + h / 2) - \Phi(m - h / 2))` for a middle m and a width h.

    Wide intervals on the side of the lower tail, where :math:`\log \Phi` keeps its digits:
    :math:`\log \Phi(b) + \log(1 - e^{\log \Phi(a) - \log \Phi(b)})`. Narrow ones by the density times the width,
    :math:`\phi(m) h \sinh(y) / y \, (1 - h^2 / 24)` with :math:`y = m h / 2`, exact to :math:`O(h^4)`.
    """
    middle = -jnp.abs(middle)
    narrow = width < NARROW
    h = jnp.where(narrow, width, NARROW)
    y = -middle * h / 2
    small = y < 0.1
    safe = jnp.where(small, 1.0, y)
    log_sinhc = jnp.where(small, y**2 / 6, safe + jnp.log1p(-jnp.exp(-2 * safe)) - jnp.log(2 * safe))
    thin = -0.5 * middle**2 - 0.5 * jnp.log(2 * jnp.pi) + jnp.log(h) + log_sinhc - h**2 / 24
    h = jnp.where(narrow, NARROW, jnp.minimum(width, FAR))
    low, high = _log_ndtr(middle - h / 2), _log_ndtr(middle + h / 2)
    # Both are at the floor beyond FAR.
    fall = jnp.minimum(low - high, -jnp.finfo(low.dtype).eps)
    return jnp.where(narrow, thin, high + jnp.log1p(-jnp.exp(fall)))


def log_bin_mass(
    middle: Float[Array, "..."],
    width: Float[Array, "..."],
    first: Float[Array, "..."],
    last: Float[Array, "..."],
) -> Float[Array, "..."]:
    """The same, with everything below added to the bin that is the ``first``, and everything above to the ``last``."""
    inner = log_interval_mass(middle, width)
    below, above = _log_ndtr(middle + width / 2), _log_ndtr(-middle + width / 2)
    return jnp.where(first & last, 0.0, jnp.where(first, below, jnp.where(last, above, inner)))


def _log_ndtr(x: Array) -> Array:
    return log_ndtr(jnp.clip(x, -FAR, FAR))
