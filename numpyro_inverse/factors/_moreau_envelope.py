"""The smooth version of a function that is known by its proximal operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_positive
from numpyro_inverse.denoisers._with_gradient import as_module, gradient_alone, with_gradient
from numpyro_inverse.distributions._energy import no_value
from numpyro_inverse.factors._potential import Potential


class MoreauEnvelope(Potential):
    r"""The Moreau envelope of a function g,

    .. math::

        g^\mu(x) = \min_u\, g(u) + \frac{|u - x|^2}{2 \mu}, \qquad
        \nabla g^\mu(x) = \frac{x - \operatorname{prox}_{\mu g}(x)}{\mu},

    which is smooth (its gradient :math:`1/\mu`-Lipschitz for convex g), below g, and tends to it as :math:`\mu \to 0`.
    The value is that of the definition at u = prox; without g there is no value and it is gradient-only.

    >>> def soft(x, mu):
    ...     return jnp.sign(x) * jnp.maximum(jnp.abs(x) - mu, 0)
    >>> huber = factors.MoreauEnvelope(soft, lambda x: jnp.sum(jnp.abs(x)), smoothing=0.1)
    >>> round(float(huber.energy(jnp.array([2.0]))), 3)
    1.95

    Args:
        prox: ``prox(x, smoothing)``, the minimizer u.
        function: g, one number for an array, finite wherever ``prox`` takes values; None if it is not known.
        smoothing: :math:`\mu`, in squared units of x over units of g.

    Raises:
        TypeError: ``prox`` or ``function`` cannot be called, ``smoothing`` is no number.
        ValueError: ``smoothing`` not positive; a ``prox`` of another shape.

    References:
        Moreau, Bull. Soc. Math. France 93 (1965) 273-299; Bauschke & Combettes, Convex Analysis and Monotone Operator
        Theory in Hilbert Spaces, 2nd ed., proposition 12.30 (the gradient).
    """

    prox: Any
    function: Any
    smoothing: Any

    def __init__(self, prox: Callable, function: Callable | None = None, *, smoothing: Any):
        self.prox = as_module(check_callable("MoreauEnvelope", "prox", prox))
        self.function = None if function is None else as_module(check_callable("MoreauEnvelope", "function", function))
        self.smoothing = check_positive("MoreauEnvelope", "smoothing", smoothing)

    @property
    def gradient_only(self) -> bool:
        """Whether g is not known."""
        return self.function is None

    def energy(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        r""":math:`g^\mu(x)`.

        Raises:
            ValueError: g is not known.
        """
        if self.function is None:
            raise ValueError(f"MoreauEnvelope.energy: {no_value(self)}")
        return with_gradient(_value, _slope, self._parts, x)

    def stand_in(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """``energy``; 0, with the gradient, where g is not known."""
        if self.function is not None:
            return self.energy(x)
        return gradient_alone("MoreauEnvelope", _slope, self._parts, x)

    @property
    def _parts(self) -> tuple:
        return self.prox, jnp.asarray(self.smoothing, jnp.result_type(float, self.smoothing)), self.function


def _value(parts: tuple, x: Array) -> Array:
    prox, smoothing, function = parts
    nearest = jax.lax.stop_gradient(_nearest(prox, x, smoothing))  # the envelope is stationary there
    return function(nearest) + jnp.sum(jnp.square(x - nearest)) / (2 * smoothing)


def _slope(parts: tuple, x: Array) -> Array:
    prox, smoothing, _ = parts
    return (x - _nearest(prox, x, smoothing)) / smoothing


def _nearest(prox: Any, x: Array, smoothing: Array) -> Array:
    found = prox(x, smoothing)
    if jnp.shape(found) != jnp.shape(x):
        raise ValueError(
            f"MoreauEnvelope: `prox` must return an array of the shape of `x`, {jnp.shape(x)}; got {jnp.shape(found)}."
        )
    return found
