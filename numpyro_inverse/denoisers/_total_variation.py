"""The proximal map of the total variation, and its Moreau envelope."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count
from numpyro_inverse.denoisers._denoiser import Denoiser, check_array, check_noise_level, check_scalar
from numpyro_inverse.denoisers._with_gradient import with_gradient

HERE = "TotalVariation"


def differences(u: Float[Array, "*shape"]) -> Float[Array, "axes *shape"]:
    """Forward differences along every axis, zero at the far edge."""
    return jnp.stack([jnp.diff(u, axis=axis, append=_edge(u, axis, -1)) for axis in range(u.ndim)])


def adjoint_differences(p: Float[Array, "axes *shape"]) -> Float[Array, "*shape"]:
    """The adjoint of :func:`differences`."""
    total = jnp.zeros_like(p[0])
    for axis in range(p.ndim - 1):
        flow = jnp.moveaxis(p[axis], axis, 0)[:-1]
        nothing = jnp.zeros_like(flow[:1] if flow.shape[0] else jnp.moveaxis(p[axis], axis, 0)[:1])
        inward = jnp.concatenate([nothing, flow]) - jnp.concatenate([flow, nothing])
        total = total + jnp.moveaxis(inward, 0, axis)
    return total


def total_variation(u: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Isotropic: the sum of the lengths of the differences."""
    return jnp.sum(jnp.sqrt(jnp.sum(differences(u) ** 2, axis=0)))


class TotalVariation(Denoiser):
    r"""The most probable signal under a total-variation prior,

    .. math:: D(x, \sigma) = \arg\min_u \; w \, \mathrm{TV}(u) + \frac{\lVert u - x \rVert^2}{2 \sigma^2}

    the proximal map of :math:`\sigma^2 w \mathrm{TV}`, so firmly nonexpansive up to the accuracy of the iteration.
    ``potential`` is the value of that minimum, the Moreau envelope, with gradient :math:`(x - D) / \sigma^2`. TV is
    isotropic, of an array with any number of axes, with forward differences and nothing at the edges.

    A fixed number of accelerated projected-gradient steps on the dual problem is taken. The gradient of the potential
    is set to be what the iteration found; its value is above the envelope as far as the iteration has not converged.

    >>> round(float(ni.denoisers.TotalVariation(1.0)(jnp.array([0.0, 1.0]), 0.5)[1]), 3)
    0.75

    Args:
        weight: w, positive, in units of one over the data's; may be traced. For a Laplace law of neighboring
            differences, one over its scale.
        iterations: on the dual.

    Raises:
        TypeError: no real numbers.
        ValueError: ``weight`` or ``sigma`` not positive; ``x`` a number without axes, or empty; ``iterations`` below 1.

    References:
        A. Beck and M. Teboulle, *Fast gradient-based algorithms for constrained total variation image denoising and
        deblurring problems*, IEEE Trans. Image Process. 18 (2009), the algorithm FGP.
    """

    weight: Any
    iterations: int = eqx.field(static=True)

    def __init__(self, weight: Any, iterations: int = 100):
        self.weight = check_scalar(HERE, "weight", weight)
        self.iterations = check_count(HERE, "iterations", iterations)

    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        return _minimizer(self._checked(x, sigma), sigma**2 * self.weight, self.iterations)

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        """:math:`\\min_u w \\mathrm{TV}(u) + \\lVert u - x \\rVert^2 / (2 \\sigma^2)`."""
        x = self._checked(x, sigma)

        def value(parts: Any, x: Array) -> Array:
            sigma, weight = parts
            # Its derivatives in the noise level and the weight are those with the minimizer fixed.
            u = jax.lax.stop_gradient(_minimizer(x, sigma**2 * weight, self.iterations))
            return weight * total_variation(u) + jnp.sum((x - u) ** 2) / (2 * sigma**2)

        def gradient(parts: Any, x: Array) -> Array:
            sigma, weight = parts
            return (x - _minimizer(x, sigma**2 * weight, self.iterations)) / sigma**2

        numbers = tuple(jnp.asarray(number, x.dtype) for number in (sigma, self.weight))
        return with_gradient(value, gradient, numbers, x)

    def _checked(self, x: Any, sigma: Any) -> Array:
        check_noise_level(HERE, sigma)
        x = check_array(HERE, x)
        if x.ndim == 0:
            raise ValueError(f"{HERE}: `x` must be an array with one axis or more; got a number.")
        return x


def _minimizer(x: Array, strength: Any, iterations: int) -> Array:
    """The minimizer of strength TV(u) + |u - x|^2 / 2."""
    strength = jnp.asarray(strength, x.dtype)
    step = 1 / (4 * x.ndim * strength)  # the differences' norm is at most 2 per axis

    def improve(_, state):
        p, q, t = state
        moved = q + step * differences(x - strength * adjoint_differences(q))
        # Of vectors longer than one; not by the root of what may be zero, which has no derivative.
        square = jnp.sum(moved**2, axis=0)
        new = moved * jax.lax.rsqrt(jnp.maximum(square, 1))
        following = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return new, new + (t - 1) / following * (new - p), following

    start = jnp.zeros((x.ndim, *x.shape), x.dtype)
    p, _, _ = jax.lax.fori_loop(0, iterations, improve, (start, start, jnp.ones((), x.dtype)))
    return x - strength * adjoint_differences(p)


def _edge(u: Array, axis: int, index: int) -> Array:
    return jnp.expand_dims(jnp.take(u, index, axis=axis), axis)
