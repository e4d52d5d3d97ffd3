"""Conjugate families: posteriors as NumPyro distributions."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int


def normal_normal(
    data: Float[Array, "n *shape"], noise: float | Array, mean: float | Array = 0.0, scale: float | Array = 1.0
) -> dist.Normal:
    r""":math:`\mu \sim N(m, s^2)`, :math:`y_i \sim N(\mu, \sigma^2)`: the posterior of :math:`\mu` is normal with
    precision :math:`s^{-2} + n \sigma^{-2}`.
    """
    precision = scale**-2 + len(data) * jnp.asarray(noise, float) ** -2
    return dist.Normal((mean * scale**-2 + jnp.sum(data, axis=0) * noise**-2) / precision, precision**-0.5)


def beta_binomial(successes: Int[Array, "..."], trials: Int[Array, "..."], a: float = 1.0, b: float = 1.0) -> dist.Beta:
    r""":math:`p \sim \operatorname{Beta}(a, b)`, :math:`k \sim \operatorname{Bin}(n, p)`: posterior
    :math:`\operatorname{Beta}(a + k, b + n - k)`.
    """
    return dist.Beta(a + jnp.asarray(successes, float), b + jnp.asarray(trials, float) - successes)


def gamma_poisson(counts: Int[Array, "n *shape"], shape: float, rate: float) -> dist.Gamma:
    r""":math:`\lambda \sim \operatorname{Gamma}(a, b)` (rate b), :math:`y_i \sim \operatorname{Poisson}(\lambda)`:
    posterior :math:`\operatorname{Gamma}(a + \sum y_i, b + n)`.
    """
    return dist.Gamma(shape + jnp.sum(jnp.asarray(counts, float), axis=0), rate + len(counts))


def inverse_gamma_normal(residuals: Float[Array, "n *shape"], a: float, b: float) -> dist.InverseGamma:
    r""":math:`\sigma^2 \sim \operatorname{InverseGamma}(a, b)`, :math:`y_i \sim N(0, \sigma^2)`: posterior
    :math:`\operatorname{InverseGamma}(a + n/2, b + \frac12 \sum y_i^2)`.
    """
    return dist.InverseGamma(a + len(residuals) / 2, b + jnp.sum(jnp.asarray(residuals, float) ** 2, axis=0) / 2)
