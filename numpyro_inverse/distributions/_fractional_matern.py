"""Matérn fields on meshes of any smoothness."""

from __future__ import annotations

from math import floor
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_instance, check_positive_number, is_traced
from numpyro_inverse.distributions._mass_functions import mass_inverse, mass_product, mass_root
from numpyro_inverse.distributions._matern_mesh import MaternMesh
from numpyro_inverse.distributions._rational_power import rational_power
from numpyro_inverse.domains import Mesh


class FractionalMatern(MaternMesh):
    r"""A Gaussian field with Matérn covariance on a mesh, of a smoothness with which :math:`\alpha = \nu + d/2` is no
    integer; ``Matern(mesh, ...)`` makes it.

    With the noise of the finite elements, :math:`b \sim N(0, C)`, and :math:`L = \kappa^{-2} C^{-1} K`, whose
    eigenvalues are at least one, the field is :math:`\tau^{-1} \kappa^{-\alpha} L^{-\alpha/2} C^{-1} b`. The power is
    :math:`L^{-n} L^{-a}` with an integer n and a from 1/2 to 3/2 (less for :math:`\alpha < 1`), and

    .. math:: L^{-a} C^{-1} b \approx k\, C^{-1} b + \sum_i r_i \kappa^2 (K - p_i \kappa^2 C)^{-1} b,

    the best rational approximation, with an error of at most ``tolerance`` for every eigenvalue. Each term is one
    factorization on the mesh's pattern: three at smoothness 0.3 and 0.5 in the plane, two at 1.5, for a tolerance of
    1e-3, which is less than what a mesh does to rough fields. White noise has as many numbers as nodes.

    It has no density here; sample it whitened, or use an integer :math:`\alpha`. The smoothness is a number known
    outside of ``jit``; with ``MaternKL`` it may be sampled.

    Args:
        domain: the mesh.
        range: as :class:`MaternMesh`, like ``scale``, ``mean``, ``boundary`` and ``robin_coefficient``.
        smoothness: :math:`\nu > 0`.
        tolerance: the largest error of the power, relative to the largest eigenvalue of :math:`L^{-a}`.

    Raises:
        ImportError: the extra ``meshes`` is not installed.
        TypeError, ValueError: as :class:`MaternMesh`; a tolerance that is not reached.

    References:
        Bolin & Kirchner, Journal of Computational and Graphical Statistics 29 (2020) 274-285 (the operator-based
        approximation); Hofreither, Numerical Algorithms 88 (2021) 365-388 (its coefficients).
    """

    pytree_aux_fields = ("tolerance", "_whole", "_rational")

    def __init__(self, domain: Mesh, *, smoothness: float, tolerance: float = 1e-3, **others: Any):
        name = "Matern"
        check_instance(name, "domain", domain, Mesh, "a Mesh")
        nu = check_positive_number(name, "smoothness", smoothness)
        half = (nu + domain.manifold_dim / 2) / 2
        self.tolerance = check_positive_number(name, "tolerance", tolerance)
        self._whole = max(floor(half - 0.5), 0)
        self._rational = rational_power(half - self._whole, self.tolerance)
        super().__init__(domain, smoothness=nu, **others)

    @staticmethod
    def _order(smoothness: Any, d: int) -> tuple[float, Any]:
        return smoothness, smoothness + d / 2

    def _unit_field(self, range: Array, z: Array) -> Array:
        k, residues, poles = self._rational
        mesh, kappa, values = self.domain, self._kappa(range), self._values(range)
        b = mass_root(mesh, z)

        def term(residue: Array, pole: Array) -> Array:
            return residue * kappa**2 * mesh.pattern.factor(values - pole * kappa**2 * mesh.mass).solve(b)

        terms = jax.vmap(term)(jnp.asarray(residues, values.dtype), jnp.asarray(poles, values.dtype))
        u = k * mass_inverse(mesh, b) + jnp.sum(terms, axis=0)
        if self._whole:
            factor = self._factor(range)
            for _ in [None] * self._whole:
                u = kappa**2 * factor.solve(mass_product(mesh, u))
        return jnp.exp(-0.5 * self._log_unit_precision(range) - self.order * jnp.log(kappa)) * u

    @property
    def precision_entries(self) -> None:
        """None: the precision of a field of this smoothness is dense."""
        return None

    @property
    def variance(self) -> Float[Array, "*batch n"]:
        """Variances at the nodes, from the dense covariance.

        Raises:
            ValueError: more than 4096 nodes.
        """
        return jnp.diagonal(self.covariance_matrix, axis1=-2, axis2=-1)

    def log_prob(self, value: Any, intermediates: Any = None) -> NoReturn:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"Matern: with smoothness {self.smoothness:g} alpha is no integer, and the field has no density here. "
            "Sample `numpyro_inverse.whiten(model)`, which needs none, or take a smoothness with an integer alpha."
        )


def is_fractional(smoothness: Any, d: int) -> bool:
    """Whether this is a number with which alpha is no integer."""
    if is_traced(smoothness) or not isinstance(smoothness, int | float) or not 0 < smoothness < float("inf"):
        return False
    return abs(smoothness + d / 2 - round(smoothness + d / 2)) > 1e-6
