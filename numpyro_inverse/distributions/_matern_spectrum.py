r"""The spectrum of a Matérn field observed at the centers of grid cells.

A field with spectral density S sampled with spacing h has at wavenumber k the *folded* density

.. math:: \tilde S(k) = \sum_{m \in \mathbb{Z}^d} S(k + K m), \qquad K_i = 2 \pi / h_i

(the sampling theorem's aliases), so that covariances between cells are those of the continuum field, whatever the
grid. Cutting the spectrum off at the grid's own wavenumbers instead loses variance: 4 % for smoothness 1/2 in 3-D at
16 cells a range.

The aliases, m != 0, are summed in closed form under the integral

.. math:: (1 + q)^{-\alpha} = \frac{1}{\Gamma(\alpha)} \int_0^\infty s^{\alpha - 1} e^{-s (1 + q)}\, ds,

which makes the density separable: the sum over m becomes a product over the axes of theta functions
:math:`\theta(x, t) = \sum_m e^{-x (t + m)^2}` with :math:`x_i = s (K_i / \kappa_i)^2` and :math:`t_i = k_i / K_i`, each
a handful of exponentials. Any dimension and any ratio of ranges to cells costs the same few quadrature nodes.

With one range for all axes, which scales q as a whole, the derivative of such a sum is another one,

.. math:: \kappa\, \partial_\kappa \sum_m (1 + q_m)^{-\alpha} = 2 \alpha \sum_m
    \bigl[ (1 + q_m)^{-\alpha} - (1 + q_m)^{-\alpha - 1} \bigr],

so that value and gradient are one program on two exponents, which XLA compiles in half the time.

Of NumPy's arrays all this is computed by NumPy: known parameters cost no compilation.
"""

from __future__ import annotations

from functools import partial
from math import factorial, log, pi
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from numpyro_inverse.domains import Grid

QUADRATURE = 32  # Gauss-Legendre nodes in log s
NODES = 8  # Chebyshev nodes per axis for the smooth part of theta; error about 13.9^-NODES of it
CHEBYSHEV = 0.5 * np.cos((2 * np.arange(NODES) + 1) * np.pi / (4 * NODES))  # positive half of an even rule
DUAL_BELOW = 2.0  # theta is summed over its Poisson dual for smaller x
START = 0.5  # below x = START theta is its dual's constant to 3e-9, and the integral is elementary
START_TERMS = 8  # Taylor terms there
WHITE = 1e5  # cells of that many ranges show white noise, as longer ones do


def matern_variances(
    domain: Grid,
    ranges: Float[Array, "*batch axes"],
    smoothness: Float[Array, "*batch"],
) -> Float[Array, "*batch_and_shape"]:
    r"""Variances of the coefficients of a Matérn field of scale 1 in the orthonormal eigenbasis of ``domain``, folded.

    They are :math:`S(k) / |h|`, with the cell's volume :math:`|h|` and the density
    :math:`S(k) = (4\pi)^{d/2} \frac{\Gamma(\nu + d/2)}{\Gamma(\nu)} \prod_i \kappa_i^{-1}
    \bigl(1 + \sum_i k_i^2 / \kappa_i^2\bigr)^{-(\nu + d/2)}`, :math:`\kappa_i = \sqrt{8 \nu} / \rho_i`
    (Lindgren, Rue & Lindström, JRSS B 73, 2011, eq. 1 and section 2.1). Only :math:`\kappa_i h_i` enters, a number
    without units, so that the smallest values do not depend on the units of length or of the field.

    ``ranges`` are one for each axis, or one for all. Of JAX's arrays the result is one of JAX's, of NumPy's one of
    NumPy's.
    """
    xp, d = _namespace(ranges), domain.ndim
    alpha = smoothness + d / 2
    spacing = np.asarray(domain.spacing, ranges.dtype)
    smallest = spacing if ranges.shape[-1] == d else np.max(spacing)
    kappa = xp.sqrt(8 * smoothness)[..., None] * spacing / xp.maximum(ranges, smallest / WHITE)  # radians per cell
    alike = ranges.shape[-1] == 1 and xp is jnp  # the derivative by hand
    density = (_folded_alike if alike else _folded)(domain, kappa, smoothness)
    log_front = d / 2 * log(4 * pi) + _gammaln(alpha) - _gammaln(smoothness) - xp.sum(xp.log(kappa), axis=-1)
    return xp.maximum(xp.exp(_grid_axes(log_front, d)) * density, jnp.finfo(density.dtype).tiny)


def _namespace(x: Any) -> Any:
    return jnp if isinstance(x, jax.Array) else np


def _gammaln(x: Any) -> Any:
    return (jax.scipy.special if isinstance(x, jax.Array) else scipy.special).gammaln(x)


def _matmul(a: Any, b: Any) -> Any:
    jax_has_one = isinstance(a, jax.Array) or isinstance(b, jax.Array)
    return jnp.matmul(a, b, precision="highest") if jax_has_one else np.matmul(a, b)


def _folded(domain: Grid, kappa: Float[Array, "*batch ndim"], smoothness: Float[Array, "*batch"]) -> Array:
    """The sum over all m of (1 + sum_i ((k_i + K_i m_i) / kappa_i)^2)^-alpha for every mode."""
    q = _squared_wavenumbers(domain, kappa)
    alpha = _grid_axes(smoothness + domain.ndim / 2, domain.ndim)
    xp = _namespace(q)
    return xp.exp(-alpha * xp.log(1 + q)) + _aliases(domain, kappa, smoothness, q)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _folded_alike(domain: Grid, kappa: Float[Array, "*batch ndim"], smoothness: Float[Array, "*batch"]) -> Array:
    """The same where all elements of kappa change by the same factor."""
    return _folded(domain, kappa, smoothness)


@partial(_folded_alike.defjvp, symbolic_zeros=True)
def _slope(domain: Grid, primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (kappa, smoothness), (kappa_dot, smoothness_dot) = primals, tangents
    kappa = jnp.broadcast_to(kappa, (*smoothness.shape, domain.ndim))
    value, next_one = _folded_alike(domain, jnp.stack([kappa, kappa]), jnp.stack([smoothness, smoothness + 1]))
    slope = jnp.zeros_like(value)
    if not isinstance(kappa_dot, SymbolicZero):
        alpha = smoothness + domain.ndim / 2
        slope += _grid_axes(2 * alpha * kappa_dot[..., 0] / kappa[..., 0], domain.ndim) * (value - next_one)
    if not isinstance(smoothness_dot, SymbolicZero):
        slope += jax.jvp(partial(_folded, domain, kappa), (smoothness,), (smoothness_dot,))[1]
    return value, slope


def _grid_axes(value: Array, d: int) -> Array:
    return value[(..., *(None,) * d)]


def _squared_wavenumbers(domain: Grid, kappa: Array) -> Array:
    """sum_i (k_i / kappa_i)^2 for every mode."""
    d = domain.ndim
    total: Any = 0.0
    for a, t in enumerate(_phases(domain)):
        ratio = np.asarray(2 * np.pi * t, kappa.dtype) / kappa[..., a, None]
        total = total + (ratio**2)[(..., *(None,) * a, slice(None), *(None,) * (d - 1 - a))]
    return total


def _aliases(domain: Grid, kappa: Array, smoothness: Array, q: Array) -> Array:
    """The sum over m != 0 of (1 + sum_i ((k_i + K_i m_i) / kappa_i)^2)^-alpha for every mode."""
    xp, d, dtype = _namespace(kappa), domain.ndim, kappa.dtype
    alpha = smoothness + d / 2
    stretch = (2 * np.pi / kappa) ** 2  # (K / kappa)^2, one per axis

    # Below `first` theta(x, t) = sqrt(pi / x); beyond `last` nothing is left of the nearest alias.
    first = START / (10 + xp.max(stretch, axis=-1))
    last = (alpha + 8 * xp.sqrt(alpha) + 20) / (1 + xp.min(stretch, axis=-1) / 4)
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE)
    half = 0.5 * xp.log(last / first)[..., None]
    s = first[..., None] * xp.exp(half * np.asarray(1 + nodes, dtype))
    weight = half * np.asarray(weights, dtype) * xp.exp(alpha[..., None] * xp.log(s) - s - _gammaln(alpha)[..., None])

    # prod(own + images) - prod(own) over the axes, without the subtraction; the last axis also sums the quadrature.
    interpolations = [np.asarray(_even_lagrange(t), dtype) for t in _phases(domain)]
    mixed, plain = 0 * weight[..., None, :], weight[..., None, :]
    for a, t in enumerate(_phases(domain)[:-1]):
        x = s * stretch[..., a, None]
        own = _own(x, t)[..., None, :, :]
        images = _matmul(interpolations[a], _images(x))[..., None, :, :]
        mixed, plain = mixed[..., None, :] * (own + images) + plain[..., None, :] * images, plain[..., None, :] * own
        mixed, plain = (v.reshape((*smoothness.shape, -1, QUADRATURE)) for v in (mixed, plain))
    x = s * stretch[..., -1, None]
    images = _matmul(mixed + plain, xp.swapaxes(_images(x), -1, -2))
    above = _matmul(images, interpolations[-1].T)
    if d > 1:
        above += _matmul(mixed, xp.swapaxes(_own(x, _phases(domain)[-1]), -1, -2))
    above = above.reshape(smoothness.shape + domain.shape)

    # s < first: all aliases and the mode itself, less the mode itself, each by a Taylor series of the exponential.
    volume = pi ** (d / 2) / xp.sqrt(xp.prod(stretch, axis=-1))
    every = xp.exp(smoothness * xp.log(first) - _gammaln(alpha)) * volume * _start(smoothness, first)
    itself = xp.exp(alpha * xp.log(first) - _gammaln(alpha))
    itself = _grid_axes(itself, d) * _start(_grid_axes(alpha, d), _grid_axes(first, d) * (1 + q))
    return above + _grid_axes(every, d) - itself


def _start(power: Array, y: Array) -> Array:
    """int_0^1 r^(power - 1) exp(-y r) dr for y < 1."""
    total: Any = 0.0
    for j in reversed(range(START_TERMS)):  # Horner's rule
        total = 1 / (factorial(j) * (power + j)) - y * total
    return total


def _phases(domain: Grid) -> list[np.ndarray]:
    """t = k / K for the modes along each axis, from 0 to 1/2."""
    return [k * h / (2 * np.pi) for k, h in zip(domain.wavenumbers, domain.spacing, strict=True)]


def _own(x: Float[Array, "*batch q"], t: np.ndarray) -> Float[Array, "*batch t q"]:
    """exp(-x t^2): the term m = 0 of theta."""
    return _namespace(x).exp(-x[..., None, :] * np.asarray(t**2, x.dtype)[:, None])


def _images(x: Float[Array, "*batch q"]) -> Float[Array, "*batch node q"]:
    """The other terms of theta at the nodes, between which it is smooth and even in t."""
    xp = _namespace(x)
    others = np.array([m for m in range(-4, 5) if m])
    squares = np.asarray((CHEBYSHEV + others[:, None]) ** 2, x.dtype)[..., None]
    near = xp.sum(xp.exp(-x[..., None, None, :] * squares), axis=-3)
    safe = xp.minimum(x, DUAL_BELOW)
    j = np.arange(1, 4)[:, None, None]
    waves = np.asarray(np.cos(2 * np.pi * j * CHEBYSHEV[:, None]), x.dtype)
    wave = xp.sum(waves * xp.exp(-np.asarray((np.pi * j) ** 2, x.dtype) / safe[..., None, None, :]), axis=-3)
    dual = xp.sqrt(np.pi / safe)[..., None, :] * (1 + 2 * wave) - _own(safe, CHEBYSHEV)
    return xp.where(x[..., None, :] < DUAL_BELOW, dual, near)


def _even_lagrange(t: np.ndarray) -> np.ndarray:
    """Weights that interpolate an even function from the Chebyshev nodes to ``t``; shape ``(len(t), NODES)``."""
    s, points = CHEBYSHEV**2, t**2
    weights = np.ones((len(t), NODES))
    for i in range(NODES):
        for j in range(NODES):
            if i != j:
                weights[:, i] *= (points - s[j]) / (s[i] - s[j])
    return weights
