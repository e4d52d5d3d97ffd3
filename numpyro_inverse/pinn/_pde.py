"""A differential equation with unknown parameters, its conditions, and the points at which it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_instance,
    check_nonnegative_number,
    check_real,
    describe,
)
from numpyro_inverse.pinn._box import Box
from numpyro_inverse.pinn._conditions import Condition, Residual
from numpyro_inverse.pinn._parameters import check_parameters

HERE = "PDE"


class PDE(eqx.Module):
    r"""The equation :math:`r(u, x, \theta) = 0` in a box, with conditions on the boundary and at the first time.

    The residual is written with derivatives of a function u of a point, :func:`~numpyro_inverse.pinn.derivative` or
    JAX's own:

    >>> from numpyro_inverse import pinn
    >>> box = pinn.Box(0.0, 1.0)
    >>> def residual(u, x, theta):
    ...     return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - 1.0
    >>> pde = pinn.PDE(residual, box, points=box.grid(20), boundary=pinn.dirichlet(0.0, box.boundary()))

    Args:
        residual: of u (from a point of shape (d,) to a number, or to an array for systems), a point and the parameters;
            a number, or an array with one entry an equation.
        domain: the box.
        points: collocation points, shape (n, d): from :meth:`Box.grid`, :meth:`Box.sobol`,
            :meth:`Box.latin_hypercube`, or :meth:`adapt`. They stay what they are: a step that is accepted only where
            the objective falls needs the same points before and after.
        boundary: a condition, or several. An empty tuple says that none is imposed because the trial space satisfies
            them (:class:`~numpyro_inverse.pinn.Enforced`) or the data tell.
        initial: likewise, at the first time.

    Raises:
        TypeError: a part of the wrong kind.
        ValueError: neither ``boundary`` nor ``initial``: an equation by itself has many solutions; points outside the
            domain, or conditions elsewhere than they should be; an initial condition where there is no time.
    """

    residual: Residual = eqx.field(static=True)
    domain: Box
    points: Float[Array, "n d"]
    boundary: tuple[Condition, ...]
    initial: tuple[Condition, ...]

    def __init__(
        self,
        residual: Residual,
        domain: Box,
        *,
        points: Any,
        boundary: Condition | tuple[Condition, ...] | None = None,
        initial: Condition | tuple[Condition, ...] | None = None,
    ):
        self.residual = check_callable(HERE, "residual", residual, "a function of u, a point and theta")
        self.domain = check_instance(HERE, "domain", domain, Box, "a Box")
        if boundary is None and initial is None:
            raise ValueError(
                f"{HERE}: give `boundary` or `initial` conditions: the equation alone has many solutions. Where the "
                "trial space satisfies them, or data stand in for them, say so with `boundary=()`."
            )
        self.points = domain.check_points(HERE, "points", points)
        self.boundary = _conditions("boundary", boundary, domain)
        self.initial = _conditions("initial", initial, domain)
        if self.initial and not domain.time:
            raise ValueError(f"{HERE}: `initial` needs a domain with time: `Box(..., time=True)`.")

    def with_points(self, points: Any) -> PDE:
        """The same equation at other collocation points."""
        return eqx.tree_at(lambda pde: pde.points, self, self.domain.check_points(HERE, "points", points))

    def at(self, u: Callable, theta: Any, points: Float[Array, "n d"] | None = None) -> Float[Array, "n q"]:
        """The residuals of a function at the collocation points, or at others; shape (n, equations).

        Raises:
            TypeError: ``u`` cannot be called, ``theta`` or ``points`` are no real numbers.
            ValueError: ``points`` of another shape.
        """
        here = f"{HERE}.at"
        check_callable(here, "u", u, "a function of a point")
        check_parameters(here, theta)
        where = self.points if points is None else jnp.asarray(check_real(here, "points", points))
        if where.ndim != 2 or where.shape[1] != self.domain.ndim or where.size == 0:
            raise ValueError(f"{here}: `points` must have shape (n, {self.domain.ndim}), not empty; got {where.shape}.")
        return jax.vmap(lambda x: jnp.atleast_1d(self.residual(u, x, theta)))(where)

    def adapt(
        self,
        u: Callable,
        theta: Any,
        num: int,
        *,
        seed: int,
        candidates: int = 4096,
        power: float = 1.0,
        floor: float = 1.0,
    ) -> PDE:
        r"""The equation with new collocation points, denser where the residual is large.

        They are drawn without replacement from Sobol ``candidates`` with probabilities proportional to
        :math:`|r|^k / \overline{|r|^k} + c`. Between two such calls they are frozen; each is a new least-squares
        problem.

        Args:
            u: the present solution.
            theta: the present parameters.
            num: how many.
            seed: of the candidates and of the draw.
            candidates: how many of them.
            power: k.
            floor: c, the share that is spread evenly.

        Raises:
            TypeError, ValueError: arguments of the wrong kind; more points than candidates; a residual that is not
                finite.

        References:
            Wu, Zhu, Tan, Kartha & Lu, Comput. Methods Appl. Mech. Eng. 403 (2023) 115671 (RAD).
        """
        here = f"{HERE}.adapt"
        num, candidates = check_count(here, "num", num), check_count(here, "candidates", candidates)
        seed = check_count(here, "seed", seed, 0)
        power = check_nonnegative_number(here, "power", power)
        floor = check_nonnegative_number(here, "floor", floor)
        if num > candidates:
            raise ValueError(f"{here}: `num` must be at most `candidates`, {candidates}; got {num}.")
        pool = np.asarray(self.domain.sobol(candidates, seed=seed))
        size = np.linalg.norm(np.asarray(self.at(u, theta, jnp.asarray(pool)), float), axis=1) ** power
        if not np.all(np.isfinite(size)):
            raise ValueError(f"{here}: the residual is not finite at {pool[~np.isfinite(size)][0]}.")
        weight = size / max(size.mean(), np.finfo(float).tiny) + floor + np.finfo(float).eps
        chosen = np.random.default_rng(seed).choice(candidates, num, replace=False, p=weight / weight.sum())
        return self.with_points(pool[np.sort(chosen)])


def _conditions(argument: str, given: Any, domain: Box) -> tuple[Condition, ...]:
    if given is None:
        return ()
    several = given if isinstance(given, tuple | list) else (given,)
    for condition in several:
        if not isinstance(condition, Condition):
            raise TypeError(f"{HERE}: `{argument}` must be conditions; got {describe(condition)}.")
        if argument == "initial" and not domain.time:
            raise ValueError(f"{HERE}: `initial` needs a domain with time: `Box(..., time=True)`.")
        domain.check_points(HERE, f"{argument}.points", condition.points, on=argument)
    return tuple(several)
