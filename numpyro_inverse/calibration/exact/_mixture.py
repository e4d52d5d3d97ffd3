"""Gaussian data under a Gaussian mixture prior."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from numpyro_inverse._checks import check_finite, check_instance, check_static
from numpyro_inverse.calibration.exact._reference import Reference
from numpyro_inverse.calibration.two_sample._significance import check_covariance


def gaussian_mixture(
    matrix: Float[Array, "m d"],
    noise_covariance: Float[Array, "m m"],
    weights: Float[Array, " k"],
    means: Float[Array, "k d"],
    covariances: Float[Array, "k d d"],
    data: Float[Array, " m"],
    *,
    site: str = "x",
) -> Reference:
    r"""The posterior of :math:`y = A x + \epsilon`, :math:`\epsilon \sim N(0, R)`,
    :math:`x \sim \sum_i w_i N(m_i, C_i)`: a mixture with

    .. math:: S_i = (C_i^{-1} + A^T R^{-1} A)^{-1}, \quad \mu_i = S_i (C_i^{-1} m_i + A^T R^{-1} y), \quad
        w_i' \propto w_i\, N(y; A m_i, A C_i A^T + R).

    Args:
        matrix: A.
        noise_covariance: R.
        weights: :math:`w_i`, which sum to 1.
        means: :math:`m_i`.
        covariances: :math:`C_i`.
        data: y.
        site: the name of x.

    Returns:
        The reference; ``draw`` draws from the mixture.

    Raises:
        TypeError: what are no real numbers; a site that is no name.
        ValueError: shapes that do not fit; weights that are negative or do not sum to 1; numbers that are not finite;
            a covariance that is not symmetric and positive definite.
    """
    where = "gaussian_mixture"
    check_instance(where, "site", site, str, "the name of a site")
    given = {
        "matrix": matrix,
        "noise_covariance": noise_covariance,
        "weights": weights,
        "means": means,
        "covariances": covariances,
        "data": data,
    }
    a, r, w, m, c, y = (np.asarray(check_finite(where, k, check_static(where, k, v)), float) for k, v in given.items())
    k, d = m.shape if m.ndim == 2 else (0, 0)
    n = len(a) if m.size and a.ndim == 2 and a.shape[1] == d else 0
    if n == 0 or r.shape != (n, n) or c.shape != (k, d, d) or y.shape != (n,):
        raise ValueError(
            f"{where}: shapes do not fit: `matrix` {a.shape}, `noise_covariance` {r.shape}, `means` "
            f"{m.shape}, `covariances` {c.shape}, `data` {y.shape}."
        )
    if w.shape != (k,) or np.any(w < 0) or abs(np.sum(w) - 1) > 1e-6:
        raise ValueError(f"{where}: `weights` must be {k} numbers >= 0 that sum to 1; got {w}.")
    r, c = check_covariance(where, "noise_covariance", r), check_covariance(where, "covariances", c)
    information = a.T @ np.linalg.solve(r, a)
    shift = a.T @ np.linalg.solve(r, y)
    s = np.stack([np.linalg.inv(np.linalg.inv(ci) + information) for ci in c])
    mu = np.stack([si @ (np.linalg.solve(ci, mi) + shift) for si, ci, mi in zip(s, c, m, strict=True)])
    with np.errstate(divide="ignore"):
        log_w = np.log(w) + [
            multivariate_normal.logpdf(y, a @ mi, a @ ci @ a.T + r) for mi, ci in zip(m, c, strict=True)
        ]
    evidence = float(logsumexp(log_w))
    posterior = np.exp(log_w - evidence)
    mean = posterior @ mu
    off = mu - mean
    covariance = np.einsum("k,kij->ij", posterior, s) + np.einsum("k,ki,kj->ij", posterior, off, off)
    roots = np.linalg.cholesky(s)

    def draw(key: Array, number: int) -> dict[str, Array]:
        key_part, key_noise = jax.random.split(key)
        part = dist.Categorical(probs=jnp.asarray(posterior)).sample(key_part, (number,))
        noise = jax.random.normal(key_noise, (number, d))
        return {site: jnp.asarray(mu)[part] + jnp.einsum("nij,nj->ni", jnp.asarray(roots)[part], noise)}

    return Reference({site: mean}, {site: np.sqrt(np.diagonal(covariance))}, draw, {site: covariance}, evidence)
