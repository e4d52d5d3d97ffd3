"""Shifts of a periodic signal or image."""

from __future__ import annotations

from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Key

from numpyro_inverse._checks import check_key, check_sample_shape, check_trailing
from numpyro_inverse.symmetry._group import Element, Group, Statistic, alike, as_real, inexact


class CyclicShift(Group):
    r"""Cyclic shifts, :math:`(T_s u)_i = u_{i - s}`, of the trailing axes; leading axes, of channels, move along.

    An element is a vector of integers, one per axis. The inner products with all shifts are a cross-correlation,
    computed by fast Fourier transforms. Invariants: the power spectrum :math:`|\hat u_k|^2` and, along each axis, the
    slice :math:`\hat u_k \hat u_e \overline{\hat u_{k+e}}` of the bispectrum, e the axis's first frequency.

    Args:
        shape: of the trailing axes.

    Raises:
        ValueError: no axis, an axis of length 0, or an array whose trailing axes are others.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...]):
        self.shape = check_sample_shape("CyclicShift", "shape", shape)
        if prod(self.shape) == 0 or not self.shape:
            raise ValueError(f"CyclicShift: `shape` must have an axis, and none of length 0; got {self.shape}.")

    @property
    def order(self) -> int:
        return prod(self.shape)

    @property
    def identity(self) -> Element:
        return jnp.zeros(len(self.shape), int)

    def elements(self) -> Element:
        return jnp.stack(jnp.unravel_index(jnp.arange(self.order), self.shape), axis=-1)

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return jnp.mod(g + h, jnp.array(self.shape))

    def inverse(self, g: Element) -> Element:
        return jnp.mod(-self._element("g", g), jnp.array(self.shape))

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return jnp.roll(self._checked(x), self._element("g", g), self._axes)

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        return jax.random.randint(
            check_key("CyclicShift", "rng_key", rng_key), (len(self.shape),), 0, jnp.array(self.shape)
        )

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        x = self._checked(x)
        transform = jnp.fft.fftn if jnp.iscomplexobj(x) else jnp.fft.rfftn
        found = [jnp.abs(transform(x, axes=self._axes, norm="ortho")).ravel() ** 2]
        spectrum = jnp.fft.fftn(x, axes=self._axes, norm="ortho").reshape(-1, *self.shape)
        for axis, size in enumerate(self.shape):
            if size < 3:
                continue
            first = tuple(int(axis == other) for other in range(len(self.shape)))
            at_first = spectrum[(slice(None), *first)].reshape(-1, *(1 for _ in self.shape))
            products = spectrum * at_first * jnp.conj(jnp.roll(spectrum, -1, axis + 1))
            # At the frequencies 0 and -e the product is a power times the mean.
            trivial = np.zeros(self.shape, bool)
            trivial[tuple(0 for _ in first)] = trivial[tuple(-k for k in first)] = True
            found.append(as_real(products[:, ~trivial]).ravel())
        return jnp.concatenate(found)

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        x, reference = (self._channels(array) for array in alike("CyclicShift", x=x, reference=reference))
        spectra = jnp.fft.rfftn(reference, axes=self._axes) * jnp.conj(jnp.fft.rfftn(x, axes=self._axes))
        return jnp.fft.irfftn(jnp.sum(spectra, axis=0), s=self.shape, axes=self._axes)

    def reversed(self, statistic: Statistic) -> Statistic:
        return jnp.roll(jnp.flip(statistic, self._axes), 1, self._axes)

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        return jnp.stack(jnp.unravel_index(jnp.argmax(statistic), self.shape)), jnp.max(statistic)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))

    def _channels(self, x: Inexact[Array, "*shape"]) -> Float[Array, "channels *shape"]:
        x = self._checked(x)
        parts = jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x
        return parts.reshape(-1, *self.shape)

    def _checked(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return inexact("CyclicShift", check_trailing("CyclicShift", "x", x, self.shape))
