"""The log determinant of a field's matrix as a polynomial in the logarithm of its range, for a mesh that stays."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.fft import dct
from scipy.sparse.linalg import splu

from numpyro_inverse._checks import check_positive_number
from numpyro_inverse.domains import Mesh

FIRST, LAST = 16, 128  # degrees
BETWEEN = np.array([-0.9973, -0.3, 0.55])  # where the interpolant is tried
EDGE = 1e-5  # relative, of a range that is at the end of the interval but for rounding


class LogDeterminantTable(eqx.Module):
    r""":math:`\log\det K(\kappa)` between two ranges; :meth:`MaternMesh.tabulate_log_determinant` makes it.

    With :math:`\kappa = \sqrt{8 \nu} / \rho` and :math:`s \in [-1, 1]` affine in :math:`\log \kappa`,

    .. math:: \log\det K(\kappa) = \sum_{k=0}^{N} c_k T_k(s) + O(r^{-N}),

    for the log determinant is analytic in :math:`\log \kappa`. Value and gradient are those of one polynomial. Outside
    the interval it is NaN, a divergence to a sampler: the prior of the range has to end where the table does.

    A pytree: an argument of the model, as the mesh is. Its coefficients are found in double precision, and rounded to
    single where ``jax.enable_x64`` is not set.

    Attributes:
        coefficients: :math:`c_k`.
        low: the smallest :math:`\log \kappa`.
        high: the largest.
        shortest: the range there.
        longest: the range at the other end.
        error: the largest error at points between those of the interpolation.
        size: nodes of the mesh.
        robin_coefficient: of the field's boundary condition.
        mass_logdet: of the mesh, which tells meshes of one size apart.
    """

    coefficients: Float[Array, " degree"]
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    shortest: float = eqx.field(static=True)
    longest: float = eqx.field(static=True)
    error: float = eqx.field(static=True)
    size: int = eqx.field(static=True)
    robin_coefficient: float = eqx.field(static=True)
    mass_logdet: float = eqx.field(static=True)

    def __call__(self, kappa: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The log determinant, by Clenshaw's recurrence."""
        s = (2 * jnp.log(kappa) - self.low - self.high) / (self.high - self.low)
        inside = jnp.abs(s) <= 1 + EDGE
        s = jnp.where(inside, s, 0)  # no infinite gradient is multiplied by zero

        def step(above, c):
            one, two = above
            return (c + 2 * s * one - two, one), None

        c = self.coefficients.astype(s.dtype)
        (one, two), _ = jax.lax.scan(step, (jnp.zeros_like(s), jnp.zeros_like(s)), c[:0:-1])
        return jnp.where(inside, c[0] + s * one - two, jnp.nan)


def tabulated(
    name: str,
    mesh: Mesh,
    smoothness: float,
    robin_coefficient: float,
    shortest: Any,
    longest: Any,
    tolerance: Any,
) -> LogDeterminantTable:
    r"""The table of :math:`K = \kappa^2 C + G + c \kappa B`; C, G, B are mass, stiffness and boundary mass."""
    shortest, longest = (check_positive_number(name, k, v) for k, v in (("shortest", shortest), ("longest", longest)))
    tolerance = check_positive_number(name, "tolerance", tolerance)
    if shortest >= longest:
        raise ValueError(f"{name}: `shortest` must be below `longest`; got {shortest:g} and {longest:g}.")
    mass, stiffness, boundary = mesh.mass_matrix, mesh.stiffness_matrix, mesh.boundary_mass_matrix

    def logdet(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        matrix = kappa**2 * mass + stiffness + (robin_coefficient * kappa) * boundary
        lu = splu(matrix.tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        return float(np.sum(np.log(np.abs(lu.U.diagonal()))))

    low, high = (log(np.sqrt(8 * smoothness) / rho) for rho in (longest, shortest))
    coefficients, error = chebyshev_coefficients(logdet, low, high, tolerance)
    with jax.ensure_compile_time_eval():
        known = jnp.asarray(coefficients, jnp.result_type(float))
    mass_logdet = float(mesh.geometry.mass_logdet)
    return LogDeterminantTable(known, low, high, shortest, longest, error, mesh.size, robin_coefficient, mass_logdet)


def chebyshev_coefficients(
    function: Callable[[float], float], low: float, high: float, tolerance: float
) -> tuple[np.ndarray, float]:
    """Of the interpolant at Chebyshev points, of a degree that is doubled until the last coefficients are small and the
    values at some points between are right.

    Returns:
        The coefficients, and the largest error at the points between.

    Raises:
        ValueError: the error is above ``tolerance`` at the last degree.
    """

    def values(s: np.ndarray) -> np.ndarray:
        return np.asarray([function(low + (high - low) * (1 + x) / 2) for x in s])

    degree, error = FIRST, np.inf
    known = values(np.cos(np.pi * np.arange(degree + 1) / degree))
    while True:
        coefficients = dct(known, 1) / degree
        coefficients[[0, -1]] /= 2
        if np.max(np.abs(coefficients[-3:])) <= tolerance:
            error = float(np.max(np.abs(np.polynomial.chebyshev.chebval(BETWEEN, coefficients) - values(BETWEEN))))
            if error <= tolerance:
                return coefficients, error
        if degree == LAST:
            raise ValueError(
                f"tabulate_log_determinant: a polynomial of degree {degree} has an error above `tolerance` = "
                f"{tolerance:g}. Take a shorter interval, whose longest range does not make the matrix singular, or a "
                "larger tolerance."
            )
        both = np.empty(2 * degree + 1)
        both[::2], both[1::2] = known, values(np.cos(np.pi * (np.arange(degree) + 0.5) / degree))
        known, degree = both, 2 * degree
