"""Soft thresholding of orthonormal wavelet coefficients."""

from __future__ import annotations

from math import comb
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_real
from numpyro_inverse.denoisers._denoiser import Denoiser, check_noise_level, check_scalar

HERE = "WaveletThreshold"
MOST = 10  # vanishing moments; filters of more lose digits


def daubechies(moments: int) -> tuple[float, ...]:
    """The low-pass filter of Daubechies' extremal-phase wavelet with so many vanishing moments; 1 is Haar's.

    References:
        I. Daubechies, *Ten Lectures on Wavelets*, section 6.4: spectral factorization of the half-band polynomial.
    """
    series = [comb(moments - 1 + k, k) for k in range(moments)]  # of P(y), y = (2 - z - 1/z) / 4
    roots = []
    for y in np.roots(series[::-1]):
        middle = 1 - 2 * y  # (z + 1/z) / 2
        z = middle + np.sqrt(middle**2 - 1 + 0j)
        roots.append(z if abs(z) < 1 else 1 / z)
    filter_ = np.real(np.poly([-1.0] * moments + roots))
    return tuple(float(number) for number in filter_ * np.sqrt(2) / np.sum(filter_))


def analyze(x: Float[Array, "*shape"], low: tuple[float, ...], levels: int) -> list[list[Array]]:
    """Bands of each level, from fine to coarse; the last is the mean part alone."""
    bands = []
    for _ in range(levels):
        parts = [x]
        for axis in range(x.ndim):
            parts = [half for part in parts for half in _split(part, low, axis)]
        x, details = parts[0], parts[1:]
        bands.append(details)
    return [*bands, [x]]


def synthesize(bands: list[list[Array]], low: tuple[float, ...]) -> Float[Array, "*shape"]:
    """The inverse of :func:`analyze`, and its adjoint."""
    x = bands[-1][0]
    for details in reversed(bands[:-1]):
        parts = [x, *details]
        for axis in reversed(range(x.ndim)):
            parts = [_join(one, two, low, axis) for one, two in zip(parts[::2], parts[1::2], strict=True)]
        x = parts[0]
    return x


class WaveletThreshold(Denoiser):
    r"""Soft thresholding of the detail coefficients :math:`c = W x` of an orthonormal wavelet basis at
    :math:`\sigma^2 w`.

    The most probable signal under independent Laplace coefficients with scale 1 / w, and a flat prior of the coarsest
    mean part: the proximal map of :math:`\sigma^2 w \lVert c \rVert_1`, so firmly nonexpansive. ``potential`` is the
    Moreau envelope in closed form, Huber's function of each coefficient, :math:`c^2 / (2 \sigma^2)` up to the threshold
    and :math:`w |c| - w^2 \sigma^2 / 2` above.

    Args:
        weight: w, positive, in units of one over the data's; may be traced.
        moments: vanishing moments of Daubechies' wavelet, 1 (Haar) to 10.
        levels: each halves the resolution. All sides must be divisible by 2 to that power; arrays are periodic.

    Raises:
        TypeError: no real numbers.
        ValueError: ``weight`` or ``sigma`` not positive; ``moments`` or ``levels`` out of range; sides that are not
            divisible.

    References:
        D. L. Donoho and I. M. Johnstone, *Ideal spatial adaptation by wavelet shrinkage*, Biometrika 81 (1994).
    """

    weight: Any
    low: tuple[float, ...] = eqx.field(static=True)
    levels: int = eqx.field(static=True)

    def __init__(self, weight: Any, moments: int = 1, levels: int = 3):
        self.weight = check_scalar(HERE, "weight", weight)
        moments, self.levels = check_count(HERE, "moments", moments), check_count(HERE, "levels", levels)
        if moments > MOST:
            raise ValueError(f"{HERE}: `moments` must be at most {MOST}; got {moments}.")
        self.low = daubechies(moments)

    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        *details, mean = analyze(self._checked(x, sigma), self.low, self.levels)
        threshold = sigma**2 * self.weight
        kept = [[jnp.sign(c) * jnp.maximum(jnp.abs(c) - threshold, 0) for c in level] for level in details]
        return synthesize([*kept, mean], self.low)

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        """The Moreau envelope."""
        *details, _ = analyze(self._checked(x, sigma), self.low, self.levels)
        coefficients = jnp.concatenate([c.ravel() for level in details for c in level])
        inner = jnp.minimum(jnp.abs(coefficients), sigma**2 * self.weight)
        return jnp.sum(inner**2 / (2 * sigma**2) + self.weight * (jnp.abs(coefficients) - inner))

    def _checked(self, x: Any, sigma: Any) -> Array:
        check_noise_level(HERE, sigma)
        x = jnp.asarray(check_real(HERE, "x", x))
        step = 2**self.levels
        if x.ndim == 0 or any(side % step or side == 0 for side in x.shape):
            raise ValueError(
                f"{HERE}: the sides of `x` must be divisible by 2**levels = {step}; got shape {x.shape}. Pad the array "
                "or take fewer `levels`."
            )
        return x.astype(jnp.result_type(x, float))


def _high(low: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((-1) ** k * number for k, number in enumerate(reversed(low)))


def _split(x: Array, low: tuple[float, ...], axis: int) -> tuple[Array, Array]:
    """Low- and high-pass parts at every other place."""
    x = jnp.moveaxis(x, axis, 0)
    shifted = [jnp.roll(x, -k, 0)[::2] for k in range(len(low))]
    halves = [sum(number * part for number, part in zip(taps, shifted, strict=True)) for taps in (low, _high(low))]
    return jnp.moveaxis(halves[0], 0, axis), jnp.moveaxis(halves[1], 0, axis)


def _join(one: Array, two: Array, low: tuple[float, ...], axis: int) -> Array:
    """The adjoint of :func:`_split`, which is its inverse."""
    total = 0.0
    for half, taps in ((one, low), (two, _high(low))):
        half = jnp.moveaxis(half, axis, 0)
        spread = jnp.stack([half, jnp.zeros_like(half)], 1).reshape(-1, *half.shape[1:])
        total = total + sum(number * jnp.roll(spread, k, 0) for k, number in enumerate(taps))
    return jnp.moveaxis(jnp.asarray(total), 0, axis)
