"""Positive factors: a group without a uniform law."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Key

from numpyro_inverse._checks import check_key, check_positive_number
from numpyro_inverse.symmetry._group import Element, Group, Statistic, alike, as_real, inexact, inner

NO_LAW = (
    "Scaling: the group is not compact, so that there is no uniform law to `sample` from, and a posterior that is "
    "invariant under it cannot be normalized: the prior must break the symmetry. `OrbitMoves` takes steps of its "
    "`propose` and keeps the Metropolis ratio."
)


class Scaling(Group):
    r"""Multiplication by c > 0: the factor that blind deconvolution cannot tell, :math:`(c u, k / c)`.

    An element is :math:`\log c`. It is no isometry: :math:`\log |\det| = n \log c`. Canonical form: of the norm of the
    reference, by default 1 (of two arrays that scale inversely: of equal norm). Invariant: :math:`u / |u|`. The orbit
    distance is that of v to the ray through u.

    Args:
        spread: standard deviation of :math:`\log c` in a Metropolis step.

    Raises:
        ValueError: ``spread`` not positive; elements are listed or drawn uniformly.
    """

    spread: float = eqx.field(static=True)

    def __init__(self, spread: float = 1.0):
        self.spread = check_positive_number("Scaling", "spread", spread)

    @property
    def order(self) -> None:
        return None

    @property
    def is_compact(self) -> bool:
        return False

    @property
    def identity(self) -> Element:
        return jnp.zeros(())

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return g + h

    def inverse(self, g: Element) -> Element:
        return -self._element("g", g)

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        x = inexact("Scaling", x)
        return jnp.exp(self._element("g", g)).astype(x.dtype) * x

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        raise ValueError(NO_LAW)

    def propose(self, rng_key: Key[Array, ""]) -> Element:
        """Draw :math:`\\log c` from :math:`N(0, \\text{spread}^2)`."""
        return self.spread * jax.random.normal(check_key("Scaling", "rng_key", rng_key))

    def log_abs_det(self, g: Element, x: Inexact[Array, "*shape"]) -> Float[Array, ""]:
        x = inexact("Scaling", x)
        return self._element("g", g) * as_real(x).size

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        return as_real(unit(x)).ravel()

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        x, reference = alike("Scaling", x=x, reference=reference)
        return jnp.stack([log_norm(reference) - log_norm(x), jnp.ones((), log_norm(x).dtype)])

    def reversed(self, statistic: Statistic) -> Statistic:
        return statistic * jnp.array([-1, 1])

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        return statistic[0] / statistic[1], jnp.zeros(())

    def nearest(self, u: Inexact[Array, "*shape"], v: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        u, v = alike("Scaling", u=u, v=v)
        squared = inner(u, u)
        factor = jnp.maximum(inner(u, v), 0) / jnp.where(squared > 0, squared, 1)
        return factor.astype(u.dtype) * u


def log_norm(x: Inexact[Array, "*shape"]) -> Float[Array, ""]:
    """Log of the norm; 0 of an array of zeros, which no factor changes."""
    squared = inner(x, x)
    return jnp.where(squared > 0, jnp.log(jnp.where(squared > 0, squared, 1)) / 2, 0)


def unit(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """The array over its norm."""
    x = inexact("Scaling", x)
    return x * jnp.exp(-log_norm(x)).astype(x.dtype)
