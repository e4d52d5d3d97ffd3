"""Closed forms for linear problems with Gaussian prior and noise, dense and in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import jax
import numpy as np
import scipy.fft
import scipy.linalg

from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid


@dataclass(frozen=True)
class Posterior:
    """A Gaussian posterior: ``mean`` of the field's shape, ``covariance`` of the raveled field, ``log_evidence``."""

    mean: np.ndarray
    covariance: np.ndarray
    log_evidence: float

    @property
    def sd(self) -> np.ndarray:
        """Pointwise standard deviations, of the field's shape."""
        return np.sqrt(np.diagonal(self.covariance)).reshape(self.mean.shape)


@dataclass(frozen=True)
class CosinePosterior:
    """A posterior with independent coefficients in the orthonormal cosine basis (DCT-II), of any size."""

    mean: np.ndarray
    coefficient_variance: np.ndarray
    log_evidence: float

    @cached_property
    def sd(self) -> np.ndarray:
        """Pointwise standard deviations, of the field's shape."""
        variance = self.coefficient_variance
        for axis, n in enumerate(variance.shape):
            basis = scipy.fft.idct(np.eye(n), norm="ortho", axis=0)
            variance = np.moveaxis(np.tensordot(basis**2, variance, (1, axis)), 0, axis)
        return np.sqrt(variance)

    @cached_property
    def covariance(self) -> np.ndarray:
        """Dense covariance of the raveled field; for small problems."""
        shape = self.mean.shape
        modes = scipy.fft.idctn(np.eye(prod(shape)).reshape(-1, *shape), norm="ortho", axes=range(1, len(shape) + 1))
        modes = modes.reshape(prod(shape), -1)
        return modes.T @ (self.coefficient_variance.reshape(-1, 1) * modes)


def dense_posterior(
    matrix: np.ndarray, data: np.ndarray, noise: float, prior_covariance: np.ndarray, shape: tuple[int, ...]
) -> Posterior:
    r"""Posterior of :math:`u \sim N(0, C)` given :math:`y = A u + \sigma \xi`.

    With :math:`S = A C A^T + \sigma^2 I` and :math:`K = C A^T S^{-1}` the mean is :math:`K y`, the covariance
    :math:`(I - K A) C (I - K A)^T + \sigma^2 K K^T` (Joseph's form, positive semidefinite to rounding) and the
    evidence :math:`N(y; 0, S)`.
    """
    y = np.asarray(data, float).ravel()
    cross = prior_covariance @ matrix.T
    marginal = matrix @ cross + noise**2 * np.eye(len(y))
    factor = scipy.linalg.cho_factor(marginal, lower=True)
    gain = scipy.linalg.cho_solve(factor, cross.T).T
    rest = np.eye(len(prior_covariance)) - gain @ matrix
    covariance = rest @ prior_covariance @ rest.T + noise**2 * gain @ gain.T
    log_determinant = 2 * np.sum(np.log(np.diagonal(factor[0])))
    misfit = y @ scipy.linalg.cho_solve(factor, y)
    log_evidence = -0.5 * (misfit + log_determinant + len(y) * np.log(2 * np.pi))
    return Posterior((gain @ y).reshape(shape), 0.5 * (covariance + covariance.T), float(log_evidence))


def cosine_posterior(
    transfer: np.ndarray, data: np.ndarray, noise: float, prior_variance: np.ndarray
) -> CosinePosterior:
    """The same where operator (eigenvalues ``transfer``) and prior share the cosine basis of the data's shape."""
    y = scipy.fft.dctn(np.asarray(data, float), norm="ortho")
    marginal = transfer**2 * prior_variance + noise**2
    mean = scipy.fft.idctn(transfer * prior_variance / marginal * y, norm="ortho")
    log_evidence = -0.5 * np.sum(y**2 / marginal + np.log(2 * np.pi * marginal))
    return CosinePosterior(mean, noise**2 * prior_variance / marginal, float(log_evidence))


def informed_directions(matrix: np.ndarray, noise: float, prior_covariance: np.ndarray) -> int:
    """Eigenvalues of the prior-preconditioned misfit Hessian above 1: where the data know more than the prior."""
    values, vectors = np.linalg.eigh(prior_covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    return int(np.sum(np.linalg.svd(matrix @ root / noise, compute_uv=False) > 1))


def matern_covariance(grid: Grid, **parameters) -> np.ndarray:
    """Dense prior covariance of a :class:`Matern` field, in float64."""
    with jax.enable_x64(True):
        return np.asarray(Matern(grid, **parameters).covariance_matrix)


def matern_coefficient_variance(grid: Grid, **parameters) -> np.ndarray:
    """Prior variances of the coefficients of a :class:`Matern` field, in float64."""
    with jax.enable_x64(True):
        return np.asarray(Matern(grid, **parameters).amplitudes) ** 2
