"""Priors given by a denoiser: regularization by denoising, the score, the gradient step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_positive, describe
from numpyro_inverse.denoisers._denoiser import check_denoiser, check_noise_level, denoised, has_potential
from numpyro_inverse.denoisers._with_gradient import as_module, gradient_alone
from numpyro_inverse.distributions._energy import no_value
from numpyro_inverse.factors._potential import Potential


class RED(Potential):
    r"""Regularization by denoising: the prior whose gradient is

    .. math:: \nabla U(x) = \frac{\lambda}{\sigma^2} \bigl( x - D(x, \sigma) \bigr).

    Where the denoiser has a ``potential``, U is :math:`\lambda` times it, and any sampler may use it. Where it has
    none, :math:`x - D` need not be the gradient of anything (it is one if, and only if, the Jacobian of D is
    symmetric), and the potential is **gradient-only**: samplers that need a density (NUTS, MALA, an ELBO) are refused;
    those that use gradients alone (``ULA``, ``SKROCK``, ``PnPULA``) sample the stationary law of their own iteration,
    which belongs to no potential if the Jacobian is not symmetric.

    **RED is not PnP**: with a linear D = W and a quadratic misfit of Hessian H, RED is stationary where
    :math:`H x + \tfrac{\lambda}{\sigma^2}(I - W)\, x = b`, the PnP iterations with step :math:`\gamma` where
    :math:`H x + \tfrac1\gamma (W^{-1} - I)\, x = b`.

    :math:`U = \tfrac{\lambda}{2 \sigma^2} x^T (x - D(x))`, which is often written, has that gradient only if D is
    locally homogeneous *and* its Jacobian symmetric; it is not used here.

    Args:
        denoiser: D, any function of an array and a noise level.
        sigma: :math:`\sigma`, in the units of ``x``; may be a sampled site if the denoiser has a potential.
        strength: :math:`\lambda`; likewise.

    Raises:
        TypeError: ``denoiser`` cannot be called; ``sigma`` or ``strength`` are no numbers.
        ValueError: ``sigma`` or ``strength`` not positive. When it is used: the denoiser returns another shape; a
            derivative in ``sigma``, ``strength`` or the arrays of a denoiser without a potential.

    References:
        Romano, Elad & Milanfar, SIAM J. Imaging Sci. 10 (2017) 1804-1844, equation 14;
        Reehorst & Schniter, IEEE Trans. Comput. Imaging 5 (2019) 52-67, theorem 1.
    """

    denoiser: Any
    sigma: Any
    strength: Any

    def __init__(self, denoiser: Any, *, sigma: Any, strength: Any = 1.0):
        name = type(self).__name__
        self.denoiser = as_module(check_denoiser(name, denoiser))
        self.sigma = check_noise_level(name, sigma)
        self.strength = check_positive(name, "strength", strength)
        if jnp.ndim(self.strength) != 0:
            raise ValueError(f"{name}: `strength` must be one number; got shape {jnp.shape(self.strength)}.")

    @property
    def gradient_only(self) -> bool:
        """Whether the denoiser has no potential."""
        return not has_potential(self.denoiser)

    def energy(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        r""":math:`\lambda` times the denoiser's potential.

        Raises:
            ValueError: it has none.
        """
        if self.gradient_only:
            raise ValueError(f"{type(self).__name__}.energy: {no_value(self)}")
        return self.strength * self.denoiser.potential(x, self.sigma)

    def stand_in(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """``energy``; 0, with the gradient, where there is none."""
        if not self.gradient_only:
            return self.energy(x)
        numbers = jax.tree.map(jnp.asarray, (self.sigma, self.strength))
        return gradient_alone(type(self).__name__, self._field, (self.denoiser, *numbers), x)

    def gradient(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r""":math:`\lambda (x - D(x, \sigma)) / \sigma^2`."""
        return self._field((self.denoiser, self.sigma, self.strength), x)

    def _field(self, parts: tuple, x: Array) -> Array:
        denoiser, sigma, strength = parts
        return strength * (x - denoised(type(self).__name__, denoiser, x, sigma)) / jnp.square(sigma)


class GradientStep(RED):
    r"""The prior of a gradient-step denoiser, :math:`D(x, \sigma) = x - \nabla g(x, \sigma)`:

    .. math:: U(x) = \frac{\lambda}{\sigma^2}\, g(x, \sigma).

    It is :class:`RED` with a true potential, and says so when the denoiser has none.

    Args:
        denoiser: with a method ``potential(x, sigma)``, whose gradient is :math:`(x - D) / \sigma^2`.
        sigma: :math:`\sigma`.
        strength: :math:`\lambda`.

    Raises:
        TypeError: the denoiser has no potential; and as :class:`RED`.
        ValueError: as :class:`RED`.

    References:
        Hurault, Leclaire & Papadakis, ICLR 2022, section 3.
    """

    def __init__(self, denoiser: Any, *, sigma: Any, strength: Any = 1.0):
        super().__init__(denoiser, sigma=sigma, strength=strength)
        _need_potential("GradientStep", denoiser)


class Score(RED):
    r"""The smoothed prior of which a denoiser is the posterior mean: with :math:`p_\sigma = p * N(0, \sigma^2 I)`,

    .. math:: U(x) = -\log p_\sigma(x), \qquad \nabla U(x) = \frac{x - D(x, \sigma)}{\sigma^2}

    (Tweedie's formula). The denoiser's ``potential`` is :math:`-\log p_\sigma` with its normalizing constant, as that
    of the exact denoisers is: so ``sigma`` may be a sampled site, and the joint law is what it says.

    Args:
        denoiser: the exact posterior mean, with a method ``potential``. For the score of a network, whose
            density is not known, use :class:`RED`.
        sigma: :math:`\sigma`.

    Raises:
        TypeError: the denoiser has no potential; and as :class:`RED`.
        ValueError: as :class:`RED`.

    References:
        Efron, J. Am. Stat. Assoc. 106 (2011) 1602-1614, equation 1.4.
    """

    def __init__(self, denoiser: Any, *, sigma: Any):
        super().__init__(denoiser, sigma=sigma)
        _need_potential("Score", denoiser)


def _need_potential(name: str, denoiser: Any) -> None:
    if not has_potential(denoiser):
        raise TypeError(
            f"{name}: `denoiser` must have a method `potential(x, sigma)`; got {describe(denoiser)}. "
            "`RED` takes any denoiser."
        )
