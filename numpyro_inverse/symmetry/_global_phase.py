"""One phase for a whole complex array."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Key

from numpyro_inverse._checks import check_count, check_key
from numpyro_inverse.symmetry._group import Element, Group, Statistic, alike, inexact, lagged_products


class GlobalPhase(Group):
    r"""The circle group U(1): :math:`u \mapsto e^{i \theta} u`. Phase retrieval of a complex signal, :math:`y = |A u|`.

    An element is the angle :math:`\theta`. Invariants: :math:`|u_i|^2` and :math:`u_i \bar u_{i+1}`, which give u but
    for the phase if no entry is zero. The canonical form has a real, positive inner product with the reference.

    Args:
        axis: for real arrays, the axis that holds real and imaginary part; latent sites of a model are real. Without,
            arrays are complex.

    Raises:
        TypeError: an array that is not complex (without ``axis``) or not real (with it).
        ValueError: the axis is not of length 2.
    """

    axis: int | None = eqx.field(static=True)

    def __init__(self, axis: int | None = None):
        self.axis = axis if axis is None else check_count("GlobalPhase", "axis", axis, least=-32)

    @property
    def order(self) -> None:
        return None

    @property
    def identity(self) -> Element:
        return jnp.zeros(())

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return jnp.mod(g + h, 2 * np.pi)

    def inverse(self, g: Element) -> Element:
        return jnp.mod(-self._element("g", g), 2 * np.pi)

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        moved = self._complex(x) * jnp.exp(1j * self._element("g", g))
        if self.axis is None:
            return moved.astype(jnp.result_type(x))
        return jnp.stack([moved.real, moved.imag], axis=self.axis).astype(jnp.result_type(x, float))

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        return jax.random.uniform(check_key("GlobalPhase", "rng_key", rng_key), maxval=2 * np.pi)

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        return lagged_products(self._complex(x))

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        x, reference = alike("GlobalPhase", x=x, reference=reference)
        return jnp.vdot(self._complex(reference), self._complex(x))

    def reversed(self, statistic: Statistic) -> Statistic:
        return jnp.conj(statistic)

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        nowhere = statistic == 0  # the angle of zero has no gradient
        return -jnp.angle(jnp.where(nowhere, 1, statistic)), jnp.abs(statistic)

    def _complex(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape2"]:
        x = inexact("GlobalPhase", x)
        if (self.axis is None) != jnp.iscomplexobj(x):
            raise TypeError(
                f"GlobalPhase: `x` must be {'complex, or `axis` given' if self.axis is None else 'real with `axis`'}; "
                f"got an array of {x.dtype} of shape {x.shape}."
            )
        if self.axis is None:
            return x
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] != 2:
            raise ValueError(
                f"GlobalPhase: axis {self.axis} must hold two numbers, real and imaginary part; got shape {x.shape}."
            )
        return jax.lax.complex(jnp.take(x, 0, self.axis), jnp.take(x, 1, self.axis))
