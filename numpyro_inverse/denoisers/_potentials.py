"""Potentials for denoisers that have none in closed form: by a line integral, or declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_count, check_real
from numpyro_inverse.denoisers._denoiser import (
    Denoiser,
    check_denoiser,
    check_noise_level,
    denoised,
    one_number,
    returned,
)
from numpyro_inverse.denoisers._with_gradient import as_module, with_gradient


class LineIntegral(Denoiser):
    r"""A denoiser whose field :math:`x - D(x, \sigma)` is known to be a gradient, with the potential

    .. math::

        U(x, \sigma) = \frac{1}{\sigma^2} \Bigl( \frac{|x|^2}{2} - \int_0^1 x^T D(t x, \sigma)\, dt \Bigr)

    by Gauss-Legendre quadrature. It holds where the Jacobian of D is symmetric, and only there: :func:`audit_denoiser`
    measures that. Its gradient in ``x`` is the field itself, without the quadrature's error. A value costs ``nodes``
    denoisings, a gradient one.

    Args:
        denoiser: D.
        nodes: of the quadrature, exact where D is a polynomial of degree ``2 nodes - 1`` along the line.

    Raises:
        TypeError: ``denoiser`` cannot be called; ``nodes`` is no number.
        ValueError: ``nodes`` is no positive integer.

    References:
        Reehorst & Schniter, IEEE Trans. Comput. Imaging 5 (2019) 52-67, section III (a symmetric Jacobian is needed).
    """

    denoiser: Any
    nodes: int = eqx.field(static=True)

    def __init__(self, denoiser: Any, nodes: int = 16):
        self.denoiser = as_module(check_denoiser("LineIntegral", denoiser))
        self.nodes = check_count("LineIntegral", "nodes", nodes)

    def __call__(self, x, sigma):
        r""":math:`D(x, \sigma)`."""
        return returned("LineIntegral", self.denoiser, check_real("LineIntegral", "x", x), sigma)

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        """U, with the field for a gradient."""
        points, weights = np.polynomial.legendre.leggauss(self.nodes)

        def value(parts: Any, x: Array) -> Array:
            denoiser, sigma = parts

            def along(t: Array) -> Array:
                return jnp.vdot(x, denoised("LineIntegral", denoiser, t * x, sigma))

            products = jax.lax.map(along, jnp.asarray(0.5 + 0.5 * points, x.dtype))
            integral = jnp.dot(jnp.asarray(0.5 * weights, x.dtype), products)
            return (0.5 * jnp.vdot(x, x) - integral) / jnp.square(sigma)

        x = check_real("LineIntegral.potential", "x", x)
        return with_gradient(value, _field, (self.denoiser, _level("LineIntegral", sigma)), x)


class DeclaredPotential(Denoiser):
    r"""A denoiser with a potential that is declared for it, whether or not :math:`x - D` is its gradient.

    A sampler with an accept-reject step then samples **the law of the declared potential**, for any force: leapfrog
    steps conserve volume and are reversible, so that the acceptance is exact and only its rate suffers. Samplers that
    use gradients alone, and optimizers, follow the field instead, which is another law if the two do not belong
    together.

    Args:
        denoiser: D; its field :math:`(x - D(x, \sigma)) / \sigma^2` is the gradient that is used.
        potential: U, a function of ``x`` and ``sigma`` that returns one number.

    Raises:
        TypeError: one of them cannot be called, or returns no real numbers.
        ValueError: when called, ``denoiser`` returns another shape than that of ``x``, or ``potential`` an array.
    """

    denoiser: Any
    declared: Any

    def __init__(self, denoiser: Any, potential: Callable[[Array, Any], Array]):
        self.denoiser = as_module(check_denoiser("DeclaredPotential", denoiser))
        check_callable("DeclaredPotential", "potential", potential, "a function of an array and a noise level")
        self.declared = as_module(potential)

    def __call__(self, x, sigma):
        r""":math:`D(x, \sigma)`."""
        return returned("DeclaredPotential", self.denoiser, check_real("DeclaredPotential", "x", x), sigma)

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        """U as declared, with the field for a gradient."""

        def value(parts: Any, x: Array) -> Array:
            _, sigma, declared = parts
            return one_number("DeclaredPotential.potential", "what the potential returns", declared(x, sigma))

        x = check_real("DeclaredPotential.potential", "x", x)
        return with_gradient(value, _field, (self.denoiser, _level("DeclaredPotential", sigma), self.declared), x)


def _field(parts: Any, x: Array) -> Array:
    denoiser, sigma, *_ = parts
    return (x - denoised("potential", denoiser, x, sigma)) / jnp.square(sigma)


def _level(where: str, sigma: Any) -> Array:
    return jnp.asarray(check_noise_level(f"{where}.potential", sigma), jnp.result_type(float, sigma))
