"""The exact denoisers of Gaussian priors: dense ones, fields on grids, and linear maps in general."""

from __future__ import annotations

from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import (
    check_key,
    check_real,
    check_static,
    describe,
    is_traced,
)
from numpyro_inverse.denoisers._certificate import Certificate
from numpyro_inverse.denoisers._denoiser import Denoiser, check_noise_level, check_signal, floating

LOG_2PI = float(np.log(2 * np.pi))
SYMMETRIC = 8  # units in the last place by which a symmetric matrix may differ from its transpose


class GaussianDenoiser(Denoiser):
    r"""The posterior mean of :math:`x_0 \sim N(m, C)` given :math:`x = x_0 + \sigma n`, :math:`n \sim N(0, I)`:

    .. math::

        D(x, \sigma) = m + W (x - m), \quad W = C (C + \sigma^2 I)^{-1}, \qquad
        U(x, \sigma) = -\log N(x;\, m,\, C + \sigma^2 I),

    and :meth:`sample` draws from :math:`N(D(x, \sigma),\, \sigma^2 W)`. An eigendecomposition of C is made once.

    Args:
        mean: m, of the shape of a signal.
        covariance: C, of shape ``(n, n)`` for a signal of n numbers (raveled), symmetric and not negative.

    Raises:
        TypeError: they are no real numbers.
        ValueError: shapes that do not fit; C not symmetric, not finite, or with a negative eigenvalue beyond rounding.

    References:
        Efron, J. Am. Stat. Assoc. 106 (2011) 1602-1614, equation 1.4 (Tweedie's formula).
    """

    mean: Float[Array, "*shape"]
    variances: Float[Array, " n"]
    directions: Float[Array, "n n"]

    def __init__(self, mean: Float[Array, "*shape"], covariance: Float[Array, "n n"]):
        self.mean = floating("GaussianDenoiser", "mean", mean)
        if self.mean.size == 0:
            raise ValueError(f"GaussianDenoiser: `mean` must be one number or more; got shape {self.mean.shape}.")
        n = prod(self.mean.shape)
        self.variances, self.directions = eigenpairs("GaussianDenoiser", "covariance", covariance, (n, n))

    def __call__(self, x, sigma):
        r""":math:`D(x, \sigma)`."""
        w = self._coefficients(x, sigma, "GaussianDenoiser")
        return self._signal(self.variances / (self.variances + jnp.square(sigma)) * w)

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        r""":math:`-\log N(x; m, C + \sigma^2 I)`."""
        w = self._coefficients(x, sigma, "GaussianDenoiser.potential")
        return gaussian_potential(w, self.variances + jnp.square(sigma))

    def sample(self, key: Array, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        r"""A draw of :math:`x_0` given ``x``."""
        check_key("GaussianDenoiser.sample", "key", key)
        w = self._coefficients(x, sigma, "GaussianDenoiser.sample")
        gain = self.variances / (self.variances + jnp.square(sigma))
        return self._signal(gain * w + sigma * jnp.sqrt(gain) * jax.random.normal(key, w.shape, w.dtype))

    def certificates(self, sigma: float) -> dict[str, Certificate]:
        """Exact norms, from the eigenvalues."""
        here = "GaussianDenoiser.certificates"
        check_noise_level(here, check_static(here, "sigma", sigma))
        check_static(here, "covariance", self.variances)
        return linear_certificates(np.asarray(self.variances / (self.variances + sigma**2)))

    def _coefficients(self, x: Array, sigma: Any, where: str) -> Array:
        check_noise_level(where, sigma)
        x = check_signal(where, x, self.mean.shape)
        return jnp.matmul(self.directions.T, jnp.ravel(x - self.mean), precision="highest")

    def _signal(self, w: Array) -> Array:
        return self.mean + jnp.matmul(self.directions, w, precision="highest").reshape(self.mean.shape)


class FieldDenoiser(Denoiser):
    r"""The posterior mean of a Gaussian field given the field and white noise in every cell, by the grid's fast
    transform: each coefficient of the field less its mean is multiplied by :math:`v_k / (v_k + \sigma^2)`, with
    :math:`v_k` its prior variance. ``potential`` and ``sample`` are exact, too.

    >>> denoiser = FieldDenoiser(ni.distributions.SpectralField(grid, (1.0 + grid.eigenvalues) ** -2.0))
    >>> smooth = denoiser(jnp.ones(grid.shape), 0.1)

    Args:
        field: a field without batch axes that covers its domain (no ``padding``, no ``window``), such as
            :class:`~numpyro_inverse.distributions.SpectralField` or
            :class:`~numpyro_inverse.distributions.Matern`.

    Raises:
        TypeError: ``field`` has no ``amplitudes`` or no ``domain`` with a transform.
        ValueError: a batch of fields, or a field seen through a window.
    """

    mean: Float[Array, "*shape"]
    variances: Float[Array, "*shape"]
    domain: Any = eqx.field(static=True)

    def __init__(self, field: Any):
        domain: Any = getattr(field, "domain", None)
        if not (hasattr(field, "amplitudes") and hasattr(domain, "transform")):
            raise TypeError(
                "FieldDenoiser: `field` must be a field with `amplitudes` on a domain with a transform, such as "
                f"Matern; got {describe(field)}."
            )
        if field.batch_shape or field.event_shape != domain.shape:
            raise ValueError(
                f"FieldDenoiser: `field` must be one field over all of its domain, of shape {domain.shape}; got batch "
                f"shape {field.batch_shape} and event shape {field.event_shape}. Leave out `padding`."
            )
        self.mean, self.domain = field.mean, domain
        self.variances = jnp.square(field.amplitudes)

    def __call__(self, x, sigma):
        r""":math:`D(x, \sigma)`."""
        w = self._coefficients(x, sigma, "FieldDenoiser")
        return self.mean + self.domain.inverse_transform(self.variances / (self.variances + jnp.square(sigma)) * w)

    def potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        r"""Minus the log density of the field plus white noise."""
        return gaussian_potential(
            self._coefficients(x, sigma, "FieldDenoiser.potential"), self.variances + jnp.square(sigma)
        )

    def sample(self, key: Array, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        r"""A draw of the field given ``x``."""
        check_key("FieldDenoiser.sample", "key", key)
        w = self._coefficients(x, sigma, "FieldDenoiser.sample")
        gain = self.variances / (self.variances + jnp.square(sigma))
        noise = sigma * jnp.sqrt(gain) * jax.random.normal(key, w.shape, w.dtype)
        return self.mean + self.domain.inverse_transform(gain * w + noise)

    def certificates(self, sigma: float) -> dict[str, Certificate]:
        """Exact norms, from the spectrum."""
        here = "FieldDenoiser.certificates"
        check_noise_level(here, check_static(here, "sigma", sigma))
        check_static(here, "field", self.variances)
        return linear_certificates(np.asarray(self.variances / (self.variances + sigma**2)))

    def _coefficients(self, x: Array, sigma: Any, where: str) -> Array:
        check_noise_level(where, sigma)
        x = check_signal(where, x, self.mean.shape)
        return self.domain.transform(x - self.mean)


class LinearDenoiser(Denoiser):
    r"""A matrix as a denoiser, :math:`D(x, \sigma) = W x` at every noise level.

    With a symmetric W it has the potential :math:`x^T (I - W)\, x / (2 \sigma^2)`; with another, :math:`x - W x` is the
    gradient of nothing, and the denoiser is gradient-only (``potential`` is None).

    Args:
        matrix: W, of shape ``(n, n)`` for signals of n numbers of any shape, raveled. Symmetric to 8 units in the last
            place counts as symmetric; a traced one never does.

    Raises:
        TypeError: it is no array of real numbers.
        ValueError: it is not square, or not finite.
    """

    matrix: Float[Array, "n n"]
    is_symmetric: bool = eqx.field(static=True)

    def __init__(self, matrix: Float[Array, "n n"]):
        matrix = floating("LinearDenoiser", "matrix", matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"LinearDenoiser: `matrix` must be square; got shape {matrix.shape}.")
        if matrix.size == 0:
            raise ValueError(f"LinearDenoiser: `matrix` must not be empty; got shape {matrix.shape}.")
        self.matrix = matrix
        self.is_symmetric = not is_traced(matrix) and _is_symmetric(np.asarray(matrix))

    def __call__(self, x, sigma):
        """:math:`W x`."""
        return self._product(self.matrix, x, sigma)

    @property
    def potential(self) -> Any:
        r""":math:`x^T (I - W)\, x / (2 \sigma^2)`, or None."""
        return self._potential if self.is_symmetric else None

    def certificates(self, sigma: float) -> dict[str, Certificate]:
        """Exact norms, by singular values."""
        check_noise_level("LinearDenoiser.certificates", sigma)
        check_static("LinearDenoiser.certificates", "matrix", self.matrix)
        matrix, one = np.asarray(self.matrix, float), np.eye(len(self.matrix))
        parts = {"lipschitz": matrix, "residual": one - matrix, "firm": 2 * matrix - one}
        return {name: Certificate(np.linalg.norm(part, 2), "singular values", True) for name, part in parts.items()}

    def _potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        x = jnp.asarray(check_real("LinearDenoiser.potential", "x", x))
        symmetric = (self.matrix + self.matrix.T) / 2
        return jnp.vdot(x, x - self._product(symmetric, x, sigma)) / (2 * jnp.square(sigma))

    def _product(self, matrix: Array, x: Array, sigma: Any) -> Array:
        check_noise_level("LinearDenoiser", sigma)
        x = jnp.asarray(check_real("LinearDenoiser", "x", x))
        if jnp.size(x) != len(matrix):
            raise ValueError(
                f"LinearDenoiser: `x` must have {len(matrix)} numbers, the side of the matrix; got shape "
                f"{jnp.shape(x)}. `jax.vmap` makes batches."
            )
        return jnp.matmul(matrix, jnp.ravel(x), precision="highest").reshape(jnp.shape(x))


def _is_symmetric(matrix: np.ndarray) -> bool:
    return bool(np.max(np.abs(matrix - matrix.T)) <= SYMMETRIC * np.finfo(matrix.dtype).eps * np.max(np.abs(matrix)))


def eigenpairs(where: str, argument: str, covariance: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Eigenvalues, none negative, and eigenvectors of covariance matrices, which are checked where they are known."""
    covariance = floating(where, argument, covariance)
    if covariance.shape != shape:
        raise ValueError(f"{where}: `{argument}` must have shape {shape}; got {covariance.shape}.")
    if not is_traced(covariance):
        known = np.asarray(covariance)
        scale = np.max(np.abs(known), initial=0)
        error = np.max(np.abs(known - np.swapaxes(known, -1, -2)), initial=0)
        if error > 1e-4 * scale:
            raise ValueError(f"{where}: `{argument}` must be symmetric; it differs from its transpose by {error:.3g}.")
    values, vectors = jnp.linalg.eigh((covariance + jnp.swapaxes(covariance, -1, -2)) / 2)
    if not is_traced(values):
        smallest, largest = float(jnp.min(values)), float(jnp.max(jnp.abs(values)))
        if smallest < -len(values.T) * float(jnp.finfo(values.dtype).eps) * largest:
            raise ValueError(f"{where}: `{argument}` must not be negative; its smallest eigenvalue is {smallest:.3g}.")
    return jnp.maximum(values, 0), vectors


def gaussian_potential(w: Array, variances: Array) -> Array:
    """Minus the log density of independent normal coefficients."""
    return 0.5 * (jnp.sum(w**2 / variances) + jnp.sum(jnp.log(variances)) + w.size * LOG_2PI)


def linear_certificates(gains: np.ndarray) -> dict[str, Certificate]:
    """Of a symmetric linear map with these eigenvalues."""
    norms = {
        "lipschitz": np.max(np.abs(gains)),
        "residual": np.max(np.abs(1 - gains)),
        "firm": np.max(np.abs(2 * gains - 1)),
    }
    return {name: Certificate(float(norm), "eigenvalues", True) for name, norm in norms.items()}
