r"""The spectrum of a Matérn field observed at the centres of grid cells.

A field with spectral density S sampled with spacing h has at wavenumber k the *folded* density

.. math:: \tilde S(k) = \sum_{m \in \mathbb{Z}^d} S(k + K m), \qquad K_i = 2 \pi / h_i

(the sampling theorem's aliases), so that covariances between cells are those of the continuum field, whatever the
grid. Cutting the spectrum off at the grid's own wavenumbers instead loses variance: 4 % for smoothness 1/2 in 3-D at
16 cells a range.

The aliases, m != 0, add a function of k that is smooth and small. It is evaluated at a few Chebyshev nodes per axis
(two rings of aliases summed, the rest integrated by the midpoint rule and the divergence theorem) and interpolated, at a
cost that does not grow with the grid.
"""

from __future__ import annotations

from itertools import product

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from numpyro_inverse.domains import Grid
from numpyro_inverse.operators.kronecker import apply_along_axis

NODES = 5  # Chebyshev nodes per axis; interpolation error about 3.7^(-2 NODES) of the aliases
RINGS = 2  # rings of aliases summed one by one
FACE_NODES = 6  # Gauss-Legendre nodes per axis for the integral over the rest


def matern_spectrum(
    domain: Grid,
    ranges: Float[Array, "*batch ndim"],
    scale: Float[Array, "*batch"],
    smoothness: Float[Array, "*batch"],
) -> Float[Array, "*batch_and_shape"]:
    r"""Variances of the coefficients of a Matérn field in the L2-orthonormal eigenfunctions of ``domain``, folded.

    The density is :math:`S(k) = \sigma^2 (4\pi)^{d/2} \frac{\Gamma(\nu + d/2)}{\Gamma(\nu)} \prod_i \kappa_i^{-1}
    \bigl(1 + \sum_i k_i^2 / \kappa_i^2\bigr)^{-(\nu + d/2)}` with :math:`\kappa_i = \sqrt{8 \nu} / \rho_i`
    (Lindgren, Rue & Lindström, JRSS B 73, 2011, eq. 1 and section 2.1).
    """
    d = domain.ndim
    alpha = smoothness + d / 2
    kappa = jnp.sqrt(8 * smoothness)[..., None] / ranges
    density = _direct(domain, kappa, alpha) + _aliases(domain, kappa, alpha)
    log_front = (
        2 * jnp.log(scale)
        + d / 2 * np.log(4 * np.pi)
        + gammaln(alpha)
        - gammaln(smoothness)
        - jnp.sum(jnp.log(kappa), axis=-1)
    )
    return jnp.exp(log_front)[(..., *(None,) * d)] * density


def _direct(domain: Grid, kappa: Array, alpha: Array) -> Array:
    d = domain.ndim
    total = jnp.zeros(())
    for a, k in enumerate(domain.wavenumbers):
        ratio = jnp.asarray(k, kappa.dtype) / kappa[..., a, None]
        total = total + (ratio**2)[(..., *(None,) * a, slice(None), *(None,) * (d - 1 - a))]
    return jnp.exp(-alpha[(..., *(None,) * d)] * jnp.log1p(total))


def _aliases(domain: Grid, kappa: Array, alpha: Array) -> Array:
    d = domain.ndim
    nodes = 0.5 * np.cos((2 * np.arange(NODES) + 1) * np.pi / (4 * NODES))  # positive half of an even rule
    t = np.stack(np.meshgrid(*[nodes] * d, indexing="ij"), axis=-1).reshape(-1, d)  # k / K at the nodes
    stretch = 2 * np.pi / np.asarray(domain.spacing) / kappa  # K / kappa

    values = _sum_of_rings(t, stretch, alpha) + _integral_of_the_rest(t, stretch, alpha)
    values = values.reshape(values.shape[:-1] + (NODES,) * d)
    for a, (k, h) in enumerate(zip(domain.wavenumbers, domain.spacing, strict=True)):
        weights = _even_lagrange(nodes, k * h / (2 * np.pi))
        values = apply_along_axis(jnp.asarray(weights, values.dtype), values, a - d)
    return values


def _kernel(x: np.ndarray, stretch: Array, power: Array) -> Array:
    """(1 + sum_i (stretch_i x_i)^2)^-power for each row of ``x``; batch axes of ``stretch`` and ``power`` lead."""
    q = jnp.einsum("...d,jd->...j", stretch**2, jnp.asarray(x**2, stretch.dtype), precision="highest")
    return jnp.exp(-power[..., None] * jnp.log1p(q))


def _sum_of_rings(t: np.ndarray, stretch: Array, alpha: Array) -> Array:
    rings = np.array([m for m in product(range(-RINGS, RINGS + 1), repeat=t.shape[1]) if any(m)])
    x = (t[:, None, :] + rings).reshape(-1, t.shape[1])
    terms = _kernel(x, stretch, alpha)
    return jnp.sum(terms.reshape((*terms.shape[:-1], len(t), len(rings))), axis=-1)


def _integral_of_the_rest(t: np.ndarray, stretch: Array, alpha: Array) -> Array:
    r"""Sum over the aliases outside the rings, by the midpoint rule and its first correction.

    Outside a box B around t, :math:`\sum f \approx \int f - \tfrac1{24} \int \Delta f`. There f is nearly homogeneous
    of degree -2 alpha, so both integrals are surface integrals over B:
    :math:`\int f = \frac1{2\alpha - d} \oint f\, x \cdot n`, and :math:`\int \Delta f = -\oint \partial_n f`.
    """
    d = t.shape[1]
    radius = RINGS + 0.5
    x1, w1 = np.polynomial.legendre.leggauss(FACE_NODES)
    total: Array = jnp.zeros(())
    for a in range(d):
        others = [b for b in range(d) if b != a]
        y = np.array(list(product(radius * x1, repeat=d - 1))).reshape(FACE_NODES ** (d - 1), d - 1)
        w = np.array([np.prod(c) for c in product(radius * w1, repeat=d - 1)])
        for side in (-1, 1):
            x = np.repeat(t[:, None, :], len(w), axis=1)
            x[:, :, others] += y
            x[:, :, a] += side * radius
            weight = jnp.asarray(np.abs(x[:, :, a]) * w, stretch.dtype).ravel()  # (x . n) dS
            flat = x.reshape(-1, d)
            volume = _kernel(flat, stretch, alpha) / (2 * alpha - d)[..., None]
            slope = -2 * (alpha * stretch[..., a] ** 2)[..., None] * _kernel(flat, stretch, alpha + 1)
            face = weight * (volume + slope / 24)
            total = total + jnp.sum(face.reshape((*face.shape[:-1], len(t), len(w))), axis=-1)
    return total


def _even_lagrange(nodes: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Weights that interpolate an even function from ``nodes`` to ``t``; shape ``(len(t), len(nodes))``."""
    s, points = nodes**2, t**2
    weights = np.ones((len(t), len(nodes)))
    for i in range(len(nodes)):
        for j in range(len(nodes)):
            if i != j:
                weights[:, i] *= (points - s[j]) / (s[i] - s[j])
    return weights
