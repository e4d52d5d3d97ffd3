"""Reverse diffusion: draws of a clean signal given a noisy one, from a denoiser that is only a mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_count, check_fraction, check_positive_number

EXPONENT = 7.0  # of the noise levels' spacing (Karras et al. 2022)


def noise_levels(sigma_max: Any, sigma_min: Any, num_steps: int) -> Float[Array, " levels"]:
    r""":math:`\bigl(\sigma_0^{1/7} + \tfrac{i}{N} (\sigma_N^{1/7} - \sigma_0^{1/7})\bigr)^7`, i from 0 to N."""
    first, last = jnp.asarray(sigma_max) ** (1 / EXPONENT), jnp.asarray(sigma_min) ** (1 / EXPONENT)
    return (first + jnp.linspace(0.0, 1.0, num_steps + 1) * (last - first)) ** EXPONENT


def reverse_step(
    score: Float[Array, "*shape"], x: Float[Array, "*shape"], noise: Float[Array, "*shape"], sigma: Any, sigma_next: Any
) -> Float[Array, "*shape"]:
    r"""Euler-Maruyama for the reversed diffusion, :math:`x + h\, \text{score} + \sqrt h\, \xi`,
    :math:`h = \sigma^2 - \sigma_{next}^2`.
    """
    h = sigma**2 - sigma_next**2
    return x + h * score + jnp.sqrt(h) * noise


def reverse(
    score: Callable[[Array, Array], Array], key: Array, x: Float[Array, "*shape"], sigmas: Float[Array, " levels"]
) -> Float[Array, "*shape"]:
    """From x at the first noise level to the last, with the score of the noised law."""

    def step(x, inputs):
        key, sigma, sigma_next = inputs
        noise = jax.random.normal(key, x.shape, x.dtype)
        return reverse_step(score(x, sigma), x, noise, sigma, sigma_next), None

    sigmas = sigmas.astype(x.dtype)
    return jax.lax.scan(step, x, (jax.random.split(key, len(sigmas) - 1), sigmas[:-1], sigmas[1:]))[0]


class ReverseDiffusion(eqx.Module):
    r"""A denoiser with draws: from x at noise level :math:`\sigma` by reverse diffusion to a small one.

    If the denoiser is the posterior mean under a prior p, then :math:`(D(x, t) - x) / t^2` is the score of
    :math:`p * N(0, t^2 I)`, and the diffusion that it drives from x at level :math:`\sigma` back to 0 draws the clean
    signal given x: no start has to be approximated. ``num_steps`` Euler steps at levels spaced as
    :math:`t^{1/7}` err by a few over ``num_steps`` in the draws' variance, and the last level,
    :math:`10^{-3} \sigma` as built, stays in them as noise.

    Args:
        denoiser: a function of a signal and a noise level.
        num_steps: N.
        last: the last noise level over the first.

    Raises:
        TypeError: ``denoiser`` not callable, or a number that is none.
        ValueError: ``num_steps`` not positive, or ``last`` not in (0, 1).

    References:
        Anderson, Stoch. Process. Appl. 12 (1982) 313-326; Song et al., ICLR (2021); Karras et al., NeurIPS 35 (2022),
        equation 5 (the levels).
    """

    denoiser: Callable[[Array, Any], Array]
    num_steps: int = eqx.field(static=True)
    last: float = eqx.field(static=True)

    def __init__(self, denoiser: Callable[[Array, Any], Array], *, num_steps: int = 50, last: float = 1e-3):
        where = "ReverseDiffusion"
        self.denoiser = check_callable(where, "denoiser", denoiser, "a function of a signal and a noise level")
        self.num_steps = check_count(where, "num_steps", num_steps)
        self.last = check_fraction(where, "last", last)

    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        """The denoiser's mean."""
        return self.denoiser(x, sigma)

    def sample(self, key: Array, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        """Draw the clean signal given x."""
        levels = noise_levels(sigma, self.last * jnp.asarray(sigma), self.num_steps)
        return reverse(lambda x, t: (self.denoiser(x, t) - x) / t**2, key, x, levels)


class LangevinDenoising(eqx.Module):
    r"""A denoiser with draws by unadjusted Langevin steps, for one whose law is known at one small level only.

    The clean signal z given x has density proportional to :math:`p(z) N(x; z, \sigma^2 I)`. With the score of p
    replaced by that of :math:`p * N(0, \epsilon^2 I)`, :math:`\epsilon` = ``level``,

    .. math:: z^+ = z + \delta \Bigl(\frac{D(z, \epsilon) - z}{\epsilon^2} + \frac{x - z}{\sigma^2}\Bigr)
              + \sqrt{2 \delta}\, \xi, \qquad \delta = \text{step\_size} \cdot (1 / \epsilon^2 + 1 / \sigma^2)^{-1},

    started at a draw of :math:`N(x, \sigma^2 I)`. **Biased** by the smoothing, the step and the number of steps; take
    :class:`ReverseDiffusion` where the denoiser knows all levels.

    Args:
        denoiser: a function of a signal and a noise level.
        level: :math:`\epsilon`.
        num_steps: Langevin steps a draw.
        step_size: relative to the largest curvature where :math:`D` does not expand; in (0, 1).

    Raises:
        TypeError: ``denoiser`` not callable, or a number that is none.
        ValueError: ``level`` or ``num_steps`` not positive, or ``step_size`` not in (0, 1).

    References:
        Laumont et al., SIAM J. Imaging Sci. 15 (2022) 701-737.
    """

    denoiser: Callable[[Array, Any], Array]
    level: float = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    step_size: float = eqx.field(static=True)

    def __init__(
        self, denoiser: Callable[[Array, Any], Array], *, level: float, num_steps: int = 50, step_size: float = 0.2
    ):
        where = "LangevinDenoising"
        self.denoiser = check_callable(where, "denoiser", denoiser, "a function of a signal and a noise level")
        self.level = check_positive_number(where, "level", level)
        self.num_steps = check_count(where, "num_steps", num_steps)
        self.step_size = check_fraction(where, "step_size", step_size)

    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        """The denoiser's mean."""
        return self.denoiser(x, sigma)

    def sample(self, key: Array, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        """Draw the clean signal given x."""
        delta = self.step_size / (1 / self.level**2 + 1 / sigma**2)
        key_start, key_steps = jax.random.split(key)

        def step(z, key):
            drift = (self.denoiser(z, self.level) - z) / self.level**2 + (x - z) / sigma**2
            return z + delta * drift + jnp.sqrt(2 * delta) * jax.random.normal(key, z.shape, z.dtype), None

        start = x + sigma * jax.random.normal(key_start, x.shape, x.dtype)
        return jax.lax.scan(step, start, jax.random.split(key_steps, self.num_steps))[0]
