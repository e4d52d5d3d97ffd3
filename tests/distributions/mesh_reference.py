"""Covariances of Matérn fields: of the finite elements, by scipy, and of the continuum."""

from functools import cache
from math import gamma, pi

import numpy as np
from scipy.sparse.linalg import splu
from scipy.special import kv

from numpyro_inverse.distributions._matern_equation import robin_coefficient


def tau2(nu, d, range_, scale=1.0):
    return gamma(nu) / (gamma(nu + d / 2) * (4 * pi) ** (d / 2) * kappa(nu, range_) ** (2 * nu) * scale**2)


def kappa(nu, range_):
    return np.sqrt(8 * nu) / range_


def k_matrix(mesh, nu, range_, robin=False):
    c = robin_coefficient(nu) * kappa(nu, range_) if robin else 0.0
    return kappa(nu, range_) ** 2 * mesh.mass_matrix + mesh.stiffness_matrix + c * mesh.boundary_mass_matrix


def covariance_columns(mesh, nu, range_, nodes, robin=False):
    """Columns of (K^-1 C)^(alpha - 1) K^-1 / tau^2."""
    factor, mass = splu(k_matrix(mesh, nu, range_, robin).tocsc()), mesh.mass_matrix
    x = factor.solve(np.eye(mesh.size)[:, nodes])
    for _ in range(round(nu + mesh.manifold_dim / 2) - 1):
        x = factor.solve(mass @ x)
    return x / tau2(nu, mesh.manifold_dim, range_)


def precision(mesh, nu, range_, scale=1.0, robin=False):
    """Dense."""
    k, mass = k_matrix(mesh, nu, range_, robin).toarray(), mesh.mass_matrix.toarray()
    q = k
    for _ in range(round(nu + mesh.manifold_dim / 2) - 1):
        q = k @ np.linalg.solve(mass, q)
    return tau2(nu, mesh.manifold_dim, range_, scale) * (q + q.T) / 2


def matern(r, nu, range_):
    x = np.maximum(kappa(nu, range_) * r, 1e-10)
    return 2 ** (1 - nu) / gamma(nu) * x**nu * kv(nu, x)


@cache
def sphere_series(alpha, kappa_, terms=400):
    degree = np.arange(terms)
    return (2 * degree + 1) / (4 * pi) * (kappa_**2 + degree * (degree + 1)) ** -float(alpha)


def on_sphere(cosine, nu, range_):
    """Sum of (2 l + 1) / (4 pi) (kappa^2 + l (l + 1))^-alpha P_l / tau^2, by Clenshaw's recurrence in numpy."""
    series = sphere_series(round(nu + 1), kappa(nu, range_))
    return np.polynomial.legendre.legval(cosine, series) / tau2(nu, 2, range_)
