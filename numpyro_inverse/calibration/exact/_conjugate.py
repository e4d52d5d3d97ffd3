"""Conjugate families: posteriors as NumPyro distributions."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from numpyro_inverse._checks import check_broadcast, check_finite, check_positive, is_traced, show


def normal_normal(
    data: Float[Array, "n *shape"], noise: float | Array, mean: float | Array = 0.0, scale: float | Array = 1.0
) -> dist.Normal:
    r""":math:`\mu \sim N(m, s^2)`, :math:`y_i \sim N(\mu, \sigma^2)`: the posterior of :math:`\mu` is normal with
    precision :math:`s^{-2} + n \sigma^{-2}`.
    """
    data = _rows("normal_normal", "data", data)
    noise = jnp.asarray(check_positive("normal_normal", "noise", noise), float)
    scale = jnp.asarray(check_positive("normal_normal", "scale", scale), float)
    mean = jnp.asarray(check_finite("normal_normal", "mean", mean), float)
    check_broadcast("normal_normal", data=data.shape[1:], noise=noise.shape, mean=mean.shape, scale=scale.shape)
    precision = scale**-2 + len(data) * noise**-2
    return dist.Normal((mean * scale**-2 + jnp.sum(data, axis=0) * noise**-2) / precision, precision**-0.5)


def beta_binomial(successes: Int[Array, "..."], trials: Int[Array, "..."], a: float = 1.0, b: float = 1.0) -> dist.Beta:
    r""":math:`p \sim \operatorname{Beta}(a, b)`, :math:`k \sim \operatorname{Bin}(n, p)`: posterior
    :math:`\operatorname{Beta}(a + k, b + n - k)`.
    """
    where = "beta_binomial"
    successes, trials = _counts(where, "successes", successes), _counts(where, "trials", trials)
    a, b = check_positive(where, "a", a), check_positive(where, "b", b)
    check_broadcast(where, successes=successes.shape, trials=trials.shape, a=jnp.shape(a), b=jnp.shape(b))
    if not is_traced(successes, trials) and jnp.any(successes > trials):
        raise ValueError(f"{where}: `successes` must lie between 0 and `trials`; got {successes} of {trials}.")
    return dist.Beta(a + successes, b + trials - successes)


def gamma_poisson(counts: Int[Array, "n *shape"], shape: float, rate: float) -> dist.Gamma:
    r""":math:`\lambda \sim \operatorname{Gamma}(a, b)` (rate b), :math:`y_i \sim \operatorname{Poisson}(\lambda)`:
    posterior :math:`\operatorname{Gamma}(a + \sum y_i, b + n)`.
    """
    where = "gamma_poisson"
    counts = _rows(where, "counts", _counts(where, "counts", counts))
    shape, rate = check_positive(where, "shape", shape), check_positive(where, "rate", rate)
    check_broadcast(where, counts=counts.shape[1:], shape=jnp.shape(shape), rate=jnp.shape(rate))
    return dist.Gamma(shape + jnp.sum(counts, axis=0), rate + len(counts))


def inverse_gamma_normal(residuals: Float[Array, "n *shape"], a: float, b: float) -> dist.InverseGamma:
    r""":math:`\sigma^2 \sim \operatorname{InverseGamma}(a, b)`, :math:`y_i \sim N(0, \sigma^2)`: posterior
    :math:`\operatorname{InverseGamma}(a + n/2, b + \frac12 \sum y_i^2)`.
    """
    residuals = _rows("inverse_gamma_normal", "residuals", residuals)
    a, b = (check_positive("inverse_gamma_normal", k, v) for k, v in (("a", a), ("b", b)))
    check_broadcast("inverse_gamma_normal", residuals=residuals.shape[1:], a=jnp.shape(a), b=jnp.shape(b))
    return dist.InverseGamma(a + len(residuals) / 2, b + jnp.sum(residuals**2, axis=0) / 2)


def _counts(where: str, argument: str, values: Array) -> Array:
    """Integers of 0 or more, as floating-point numbers."""
    counts = jnp.asarray(check_finite(where, argument, values), float)
    if not is_traced(counts) and jnp.any((counts < 0) | (counts != jnp.round(counts))):
        raise ValueError(f"{where}: `{argument}` must be integers of 0 or more; got {show(counts)}.")
    return counts


def _rows(where: str, argument: str, values: Array) -> Array:
    """Finite numbers with an axis of data."""
    rows = jnp.asarray(check_finite(where, argument, values), float)
    if rows.ndim == 0:
        raise ValueError(f"{where}: `{argument}` must have an axis of data; got one number.")
    return rows
