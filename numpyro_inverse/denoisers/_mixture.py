"""The exact denoisers of Gaussian mixtures and of a finite data set."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_key, check_positive
from numpyro_inverse.denoisers._denoiser import Denoiser, check_noise_level, check_signal, floating
from numpyro_inverse.denoisers._gaussian import LOG_2PI, eigenpairs


class GaussianMixtureDenoiser(Denoiser):
    r"""The posterior mean of :math:`x_0 \sim \sum_i w_i N(m_i, C_i)` given :math:`x = x_0 + \sigma n`:

    .. math::

        D(x, \sigma) = \sum_i r_i\, d_i, \quad r_i \propto w_i N(x;\, m_i,\, C_i + \sigma^2 I), \quad
        d_i = m_i + C_i (C_i + \sigma^2 I)^{-1} (x - m_i),

    with ``potential`` minus the log of the sum, and :meth:`sample` a draw of :math:`x_0` given ``x``: a component by
    :math:`r_i`, then its normal law.

    Args:
        weights: :math:`w_i`, of shape ``(k,)``, positive; they are divided by their sum.
        means: of shape ``(k, *shape)``.
        covariances: of shape ``(k, n, n)``, for signals of n numbers, raveled.

    Raises:
        TypeError: they are no real numbers.
        ValueError: shapes that do not fit; weights that are not positive; covariances as for
            :class:`GaussianDenoiser`.

    References:
        Efron, J. Am. Stat. Assoc. 106 (2011) 1602-1614, equation 1.4 (Tweedie's formula).
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k *shape"]
    variances: Float[Array, "k n"]
    directions: Float[Array, "k n n"]

    def __init__(
        self, weights: Float[Array, " k"], means: Float[Array, "k *shape"], covariances: Float[Array, "k n n"]
    ):
        where = "GaussianMixtureDenoiser"
        self.means = floating(where, "means", means)
        if self.means.ndim == 0 or self.means.size == 0:
            raise ValueError(f"{where}: `means` must have a mean for each component; got shape {self.means.shape}.")
        weights = jnp.asarray(check_positive(where, "weights", weights), self.means.dtype)
        k, n = len(self.means), prod(self.means.shape[1:])
        if weights.shape != (k,):
            raise ValueError(f"{where}: `weights` must have shape {(k,)}, as many as `means`; got {weights.shape}.")
        self.log_weights = jnp.log(weights) - jnp.log(jnp.sum(weights))
        self.variances, self.directions = eigenpairs(where, "covariances", covariances, (k, n, n))

    def __call__(self, x, sigma):
        r""":math:`D(x, \sigma)`."""
        w, log_terms = self._terms(x, sigma, "GaussianMixtureDenoiser")
        gain = self.variances / (self.variances + jnp.square(sigma))
        each = self.means + self._signals(gain * w)
        return jnp.tensordot(jax.nn.softmax(log_terms), each, 1, precision="highest")

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        r""":math:`-\log \sum_i w_i N(x; m_i, C_i + \sigma^2 I)`."""
        return -jax.nn.logsumexp(self._terms(x, sigma, "GaussianMixtureDenoiser.potential")[1])

    def sample(self, key: Array, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        r"""A draw of :math:`x_0` given ``x``."""
        check_key("GaussianMixtureDenoiser.sample", "key", key)
        key_which, key_noise = jax.random.split(key)
        w, log_terms = self._terms(x, sigma, "GaussianMixtureDenoiser.sample")
        which = jax.random.categorical(key_which, log_terms)
        gain = self.variances[which] / (self.variances[which] + jnp.square(sigma))
        drawn = gain * w[which] + sigma * jnp.sqrt(gain) * jax.random.normal(key_noise, gain.shape, gain.dtype)
        signal = jnp.matmul(self.directions[which], drawn, precision="highest")
        return self.means[which] + signal.reshape(self.means.shape[1:])

    def _terms(self, x: Array, sigma: Any, where: str) -> tuple[Array, Array]:
        """Coefficients of x in each component's directions, and the log of each component's share of the density."""
        check_noise_level(where, sigma)
        x = check_signal(where, x, self.means.shape[1:])
        away = (x - self.means).reshape(len(self.means), -1)
        w = jnp.einsum("knm,kn->km", self.directions, away, precision="highest")
        spread = self.variances + jnp.square(sigma)
        exponent = jnp.sum(w**2 / spread + jnp.log(spread) + LOG_2PI, axis=-1)
        return w, self.log_weights - 0.5 * exponent

    def _signals(self, w: Array) -> Array:
        return jnp.einsum("knm,km->kn", self.directions, w, precision="highest").reshape(self.means.shape)


class EmpiricalDenoiser(Denoiser):
    r"""The posterior mean under the empirical law of a data set, :math:`p = \tfrac1N \sum_i \delta_{x_i}`:

    .. math:: D(x, \sigma) = \sum_i r_i x_i, \qquad r_i \propto e^{-|x - x_i|^2 / 2 \sigma^2},

    the exact minimizer of a denoiser's training loss on those data. ``potential`` is minus the log of their Gaussian
    kernel density estimate with bandwidth :math:`\sigma`; :meth:`sample` picks one of them by :math:`r_i`.

    Args:
        data: :math:`x_i`, of shape ``(N, *shape)``.

    Raises:
        TypeError: they are no real numbers.
        ValueError: no data, or data that are not finite.
    """

    data: Float[Array, "N *shape"]

    def __init__(self, data: Float[Array, "N *shape"]):
        self.data = floating("EmpiricalDenoiser", "data", data)
        if self.data.ndim == 0 or self.data.size == 0:
            raise ValueError(f"EmpiricalDenoiser: `data` must be one signal or more; got shape {self.data.shape}.")

    def __call__(self, x, sigma):
        r""":math:`D(x, \sigma)`."""
        shares = jax.nn.softmax(self._exponents(x, sigma, "EmpiricalDenoiser"))
        return jnp.tensordot(shares, self.data, 1, precision="highest")

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        r""":math:`-\log \tfrac1N \sum_i N(x; x_i, \sigma^2 I)`."""
        exponents = self._exponents(x, sigma, "EmpiricalDenoiser.potential")
        constant = 0.5 * self.data[0].size * (LOG_2PI + 2 * jnp.log(sigma)) + jnp.log(len(self.data))
        return constant - jax.nn.logsumexp(exponents)

    def sample(self, key: Array, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        """One of the data, by its probability given ``x``."""
        check_key("EmpiricalDenoiser.sample", "key", key)
        return self.data[jax.random.categorical(key, self._exponents(x, sigma, "EmpiricalDenoiser.sample"))]

    def _exponents(self, x: Array, sigma: Any, where: str) -> Array:
        check_noise_level(where, sigma)
        x = check_signal(where, x, self.data.shape[1:])
        # Each scaled before it is squared, so that a small noise level does not overflow.
        away = ((x - self.data) / sigma).reshape(len(self.data), -1)
        return -0.5 * jnp.sum(away**2, axis=-1)
