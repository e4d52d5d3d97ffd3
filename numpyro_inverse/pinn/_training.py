"""What the trainers share: the unknowns as one vector, a fit, and the progress of long work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from numpyro_inverse._checks import check_instance
from numpyro_inverse.pinn import _damped_least_squares as damped
from numpyro_inverse.pinn._parameters import check_theta
from numpyro_inverse.pinn._problem import Problem, all_residuals, rows_and_jacobian, split

CHUNK = 10  # steps between two looks at the progress


class Fit(NamedTuple):
    """A solution with its parameters.

    ``losses`` are the values of the objective, the first at the start; ``decrement`` is how far, in standard
    deviations, the linearized residuals can still fall (NaN where it is not known), and ``converged`` whether that is
    within the tolerance that was asked for.
    """

    phi: Any
    theta: Any
    loss: float
    losses: np.ndarray
    decrement: float
    converged: bool
    num_steps: int


class Unknowns(NamedTuple):
    r"""A trial function's parameters and the equation's as one vector, the latter in units that balance the two.

    With unit ``units`` a column of the Jacobian that belongs to :math:`\theta` has the root mean square length of those
    that belong to :math:`\phi`, so that damping treats them alike.
    """

    unravel: Callable
    rest: Any
    start_theta: Float[Array, " q"]
    units: Float[Array, " q"]
    unravel_theta: Callable
    size: int

    def phi(self, x: Float[Array, " p"]) -> Any:
        """The trial function."""
        return eqx.combine(self.unravel(x[: self.size]), self.rest)

    def theta(self, x: Float[Array, " p"]) -> Any:
        """The equation's parameters."""
        return self.unravel_theta(self.start_theta + self.units * x[self.size :])

    def system(self, problem: Problem) -> Callable:
        """Residuals and Jacobian of a vector of unknowns."""
        return lambda x: rows_and_jacobian(problem, self.rest, lambda x: self.unravel(x[: self.size]), self.theta, x)

    def residual(self, problem: Problem) -> Callable:
        """Residuals of a vector of unknowns."""
        return lambda x: all_residuals(problem, self.phi(x), self.theta(x))


def unknowns(phi: Any, theta: Any, units: Float[Array, " q"] | None = None) -> tuple[Unknowns, Float[Array, " p"]]:
    """Both as one vector, theta at zero; and the vector."""
    arrays, rest = split(phi)
    vector, unravel = ravel_pytree(arrays)
    flat_theta, unravel_theta = ravel_pytree(theta)
    units = jnp.ones_like(flat_theta) if units is None else units
    x = jnp.concatenate([vector, jnp.zeros_like(flat_theta)])
    return Unknowns(unravel, rest, flat_theta, units, unravel_theta, vector.size), x


class Beginning(NamedTuple):
    """What is known at the start: the units, the state there, which residuals are finite, whether theta moves any."""

    units: Float[Array, " q"]
    state: damped.State
    finite: Bool[Array, " n"]
    theta_moves: Bool[Array, ""]


@eqx.filter_jit
def begin(problem: Problem, phi: Any, theta: Any, damping: Any) -> Beginning:
    """The start of an iteration in balanced units; theta may move nothing at u = 0, so a point nearby counts too."""
    both, x = unknowns(phi, theta)
    away = 0.1 * jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    near = x.at[: both.size].add(away[: both.size])
    r, jacobian = jax.vmap(both.system(problem))(jnp.stack([x, near]))
    of_theta = jacobian[:, :, both.size :]
    moves = jnp.any(jnp.where(jnp.isfinite(of_theta), of_theta, 0) != 0)
    length = jnp.linalg.norm(jacobian[0], axis=0)
    typical = jnp.sqrt(jnp.mean(length[: both.size] ** 2))
    own = jnp.where(length[both.size :] > 0, length[both.size :], jnp.linalg.norm(of_theta[1], axis=0))
    units = jnp.where((own > 0) & (typical > 0), typical / jnp.where(own > 0, own, 1), 1.0)
    scaled = jacobian[0].at[:, both.size :].multiply(units)
    finite = jnp.isfinite(r[0]) & jnp.all(jnp.isfinite(jacobian[0]), axis=1)
    return Beginning(units, damped.at(x, r[0], scaled, jnp.asarray(damping, x.dtype)), finite, moves)


def checked(where: str, problem: Any, theta: Any, phi: Any) -> tuple[Problem, Any, Any]:
    """The arguments of a trainer; the default start is the problem's own trial function."""
    check_instance(where, "problem", problem, Problem, "a Problem")
    theta = check_theta(where, theta)
    problem.check_shapes(theta)
    phi = problem.trial if phi is None else phi
    found, wanted = (jax.tree.structure(u) for u in (phi, problem.trial))
    if found != wanted:  # type: ignore[operator]
        raise ValueError(
            f"{where}: `phi` must be a function of the problem's trial space, {type(problem.trial).__name__}."
        )
    return problem, theta, phi


def check_beginning(where: str, problem: Problem, theta: Any, beginning: Beginning) -> None:
    """Raise where residuals are not finite at the start, or no block has a gradient with respect to theta."""
    if not np.all(np.asarray(beginning.finite)):
        names = problem.row_names(theta)
        bad = sorted({name for name, good in zip(names, np.asarray(beginning.finite), strict=True) if not good})
        raise ValueError(
            f"{where}: residuals or their derivatives are not finite at the start; blocks: {', '.join(bad)}."
        )
    if not bool(beginning.theta_moves):
        names = list(dict.fromkeys(problem.row_names(theta)))
        raise ValueError(
            f"{where}: no block moves `theta`: the gradients of {', '.join(names)} with respect to it are zero. Does "
            "the residual use it?"
        )
