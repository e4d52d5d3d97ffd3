"""What the data say about the parameters, as the trial space grows; and when a small error bar is an artefact."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from scipy.stats import chi2

from numpyro_inverse._checks import (
    check_count,
    check_finite,
    check_flag,
    check_fraction,
    check_instance,
    check_positive_number,
)
from numpyro_inverse.pinn._levenberg_marquardt import optimize
from numpyro_inverse.pinn._parameters import check_theta
from numpyro_inverse.pinn._problem import Problem
from numpyro_inverse.pinn._training import checked, unknowns

STIFFER = 10.0  # how much larger the weight is in the second fit
DAMPING = 1e-3  # of the fits, at the start
FAR = 3.0  # standard deviations between two spaces' estimates that both cannot be right


class IdentifiabilityWarning(UserWarning):
    """An estimate or an error bar is one of the trial space, not of the data."""


@dataclass(frozen=True)
class TrialSpaceRow:
    r"""One trial space.

    Attributes:
        size: its number of parameters.
        theta: the joint estimate, flat.
        information: the Fisher information of theta with the solution profiled out,
            :math:`I_{\theta\theta} - I_{\theta\phi} I_{\phi\phi}^{-1} I_{\phi\theta}`.
        sd: the standard deviations that it promises.
        distance: :math:`w\, \mathrm{dist}(f, A_\theta V)^2`: the least sum of squares of the physics' residuals at
            theta.
        level: the quantile of its chi-square law that it should stay below.
        degrees: the degrees of freedom of that.
        stiffer_theta: the estimate with ten times the weight of the equation.
        stiffer_sd: what that promises.
        converged: whether both fits did.
        warnings: what is wrong.
    """

    size: int
    theta: np.ndarray
    information: np.ndarray
    sd: np.ndarray
    distance: float
    level: float
    degrees: int
    stiffer_theta: np.ndarray
    stiffer_sd: np.ndarray
    converged: bool
    warnings: tuple[str, ...]

    @property
    def expressive(self) -> bool:
        """Whether the trial space can satisfy the equation to what the scale of its residual says."""
        return self.distance <= self.level


@dataclass(frozen=True)
class IdentifiabilityReport:
    """Rows for growing trial spaces, and the information that a reference solver has; printed, a table."""

    rows: tuple[TrialSpaceRow, ...]
    reference: np.ndarray | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """All rows' warnings."""
        return tuple(w for row in self.rows for w in row.warnings)

    def __str__(self) -> str:
        lines = [f"{'size':>6}{'theta':>12}{'sd':>11}{'w dist^2':>11}{'level':>9}{'10 w: theta':>13}{'sd':>11}"]
        for row in self.rows:
            for i in range(len(row.theta)):
                head = f"{row.size:>6}" if i == 0 else " " * 6
                tail = f"{row.distance:>11.3g}{row.level:>9.3g}" if i == 0 else " " * 20
                lines.append(
                    f"{head}{row.theta[i]:>12.5g}{row.sd[i]:>11.3g}{tail}{row.stiffer_theta[i]:>13.5g}"
                    f"{row.stiffer_sd[i]:>11.3g}"
                )
        if self.reference is not None:
            lines.append(f"sd by the reference: {_sd(self.reference)}")
        return "\n".join([*lines, *self.warnings])


def profiled_information(problem: Problem, theta: Any, phi: Any) -> Float[np.ndarray, "q q"]:
    r"""The Fisher information of :math:`\theta` with :math:`\phi` profiled out: the Schur complement of
    :math:`J^T J`, J the Jacobian of all residuals in standard deviations, by projection on the complement of the range
    of :math:`J_\phi`.

    With a residual that is allowed something it is that of noisier data; zero where the trial space and the residuals
    leave theta free: more parameters than residuals without ``weight_scale``.

    Args:
        problem: all blocks.
        theta: the parameters.
        phi: the trial function, at its optimum.

    Returns:
        A matrix, theta flattened.
    """
    problem, theta, phi = checked("profiled_information", problem, theta, phi)
    of_phi, of_theta = _jacobian(problem, theta, phi)
    eps = float(jnp.finfo(of_phi.dtype).eps)
    return _information(np.asarray(of_phi, float), np.asarray(of_theta, float), eps)


def identifiability_report(
    problems: Problem | Sequence[Problem],
    theta: Any,
    *,
    reference_information: Any = None,
    tail: float = 1e-3,
    max_steps: int = 200,
    tolerance: float = 1e-3,
    progress_bar: bool = False,
) -> IdentifiabilityReport:
    r"""Fit growing trial spaces and say which of their error bars are artefacts.

    For each problem: the joint estimate, its profiled Fisher information, and how well the trial space V can satisfy
    the equation at the estimate, :math:`w\, \mathrm{dist}(f, A_\theta V)^2 = \min_\phi \sum_j r_j^2 / s^2`. If the
    residuals were what s says this would be chi-square with n - p degrees of freedom; beyond its ``tail`` the residual
    is truncation error, and since the distance depends on :math:`\theta` it *pulls* theta, with a confidence that
    grows with the weight. It warns where

    - the distance is beyond its chi-square level, with what ten times the weight would do to estimate and error bar;
    - the estimate is more than three of its standard deviations from that of the largest space;
    - there is no information, or a fit did not converge.

    Args:
        problems: problems that differ in their trial space, the smallest first; or one.
        theta: where the parameters begin.
        reference_information: the Fisher information by another solver, shape (q, q) or a number.
        tail: probability beyond which the chi-square level is.
        max_steps: of each Levenberg-Marquardt fit.
        tolerance: of each fit, in standard deviations.
        progress_bar: show the fits.

    Returns:
        The report.

    Warns:
        IdentifiabilityWarning: once, if there is anything to warn of.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; no problem; shapes that do not fit.
    """
    here = "identifiability_report"
    several = problems if isinstance(problems, tuple | list) else (problems,)
    for one in several:
        check_instance(here, "problems", one, Problem, "a Problem, or several")
    if not several:
        raise ValueError(f"{here}: `problems` must hold at least one.")
    theta, tail = check_theta(here, theta), check_fraction(here, "tail", tail)
    max_steps, tolerance = (
        check_count(here, "max_steps", max_steps),
        check_positive_number(here, "tolerance", tolerance),
    )
    progress_bar = check_flag(here, "progress_bar", progress_bar)
    count = ravel_pytree(theta)[0].size
    reference = None
    if reference_information is not None:
        reference = np.atleast_2d(np.asarray(check_finite(here, "reference_information", reference_information), float))
        if reference.shape != (count, count):
            raise ValueError(
                f"{here}: `reference_information` must have shape ({count}, {count}); got {reference.shape}."
            )
    found = []
    for problem in several:
        problem, theta, phi = checked(here, problem, theta, None)
        one = _fitted(problem, theta, phi, max_steps, tolerance, progress_bar)
        stiff = problem.with_scale(problem.scale / np.sqrt(STIFFER))
        found.append((one, _fitted(stiff, one.theta, one.phi, max_steps, tolerance, progress_bar)))
    last = found[-1][0].estimate
    rows = tuple(_row(one, stiffer, last, tail, max_steps) for one, stiffer in found)
    report = IdentifiabilityReport(rows, reference)
    if report.warnings:
        warnings.warn("\n".join(report.warnings), IdentifiabilityWarning, stacklevel=2)
    return report


class _Fitted(NamedTuple):
    """A joint optimum with what its Jacobian says."""

    phi: Any
    theta: Any
    estimate: np.ndarray
    size: int
    information: np.ndarray
    distance: float
    degrees: int
    converged: bool


def _fitted(problem: Problem, theta: Any, phi: Any, max_steps: int, tolerance: float, progress_bar: bool) -> _Fitted:
    both, state, _ = optimize(
        "identifiability_report", problem, theta, phi, max_steps, tolerance, DAMPING, progress_bar
    )
    found = both.theta(state.x)
    jacobian, r = np.asarray(state.jacobian, float), np.asarray(state.r, float)
    units, eps = np.asarray(both.units, float), float(jnp.finfo(state.x.dtype).eps)
    information = _information(jacobian[:, : both.size], jacobian[:, both.size :] / units, eps)
    physics = np.array([name != "data" for name in problem.row_names(found)])
    basis = _range(jacobian[physics, : both.size], eps)
    distance = float(np.sum((r[physics] - basis @ (basis.T @ r[physics])) ** 2))
    return _Fitted(
        both.phi(state.x),
        found,
        np.asarray(ravel_pytree(found)[0], float),
        both.size,
        information,
        distance,
        max(int(physics.sum()) - basis.shape[1], 1),
        bool(state.decrement <= tolerance),
    )


def _row(one: _Fitted, stiffer: _Fitted, last: np.ndarray, tail: float, max_steps: int) -> TrialSpaceRow:
    sd, stiffer_sd, estimate = _sd(one.information), _sd(stiffer.information), one.estimate
    level = float(chi2.isf(tail, one.degrees))
    name, said = f"trial space of {one.size} parameters", []
    good = one.converged and stiffer.converged
    if not good:
        said.append(f"{name}: a fit did not converge within {max_steps} steps.")
    if one.distance > level:
        said.append(
            f"{name}: it cannot satisfy the equation to what `scale` says: w dist^2 = {one.distance:.3g}, beyond "
            f"{level:.3g}. Ten times the weight would shrink sd from {_show(sd)} to {_show(stiffer_sd)} and move "
            f"theta from {_show(estimate)} to {_show(stiffer.estimate)}: confidence without information. "
            "Enlarge the space, or raise `scale`."
        )
    if not np.all(np.isfinite(sd)):
        said.append(f"{name}: the data do not determine theta there: its profiled information is singular.")
    elif np.any(np.abs(estimate - last) > FAR * sd):
        far = np.max(np.abs(estimate - last) / sd)
        said.append(
            f"{name}: theta = {_show(estimate)} is {far:.3g} of its standard deviations from the largest space's, "
            f"{_show(last)}: the truncation biases it."
        )
    return TrialSpaceRow(
        one.size,
        estimate,
        one.information,
        sd,
        one.distance,
        level,
        one.degrees,
        stiffer.estimate,
        stiffer_sd,
        good,
        tuple(said),
    )


@eqx.filter_jit
def _jacobian(problem: Problem, theta: Any, phi: Any) -> tuple[Float[Array, "n p"], Float[Array, "n q"]]:
    both, x = unknowns(phi, theta)
    _, jacobian = both.system(problem)(x)
    return jacobian[:, : both.size], jacobian[:, both.size :]


def _information(of_phi: np.ndarray, of_theta: np.ndarray, eps: float) -> np.ndarray:
    basis = _range(of_phi, eps)
    rest = of_theta - basis @ (basis.T @ of_theta)
    rest = rest - basis @ (basis.T @ rest)
    # What is left of a column that lies in the range is rounding.
    small = np.linalg.norm(rest, axis=0) <= 1e3 * eps * np.linalg.norm(of_theta, axis=0)
    rest = np.where(small, 0, rest)
    return rest.T @ rest


def _range(matrix: np.ndarray, eps: float) -> np.ndarray:
    """An orthonormal basis of the range, columns scaled to one length first."""
    length = np.linalg.norm(matrix, axis=0)
    left, values, _ = np.linalg.svd(matrix / np.where(length > 0, length, 1), full_matrices=False)
    return left[:, values > max(matrix.shape) * eps * values[0]]


def _sd(information: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(information)) or np.linalg.matrix_rank(information, hermitian=True) < len(information):
        return np.full(len(information), np.inf)
    return np.sqrt(np.diagonal(np.linalg.inv(information)))


def _show(values: np.ndarray) -> str:
    return ", ".join(f"{v:.4g}" for v in np.atleast_1d(values))
