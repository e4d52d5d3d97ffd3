"""A PDE, a trial space and data as one least-squares problem: blocks of residuals, each with its standard deviation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_finite, check_instance, check_positive, is_traced
from numpyro_inverse.pinn._conditions import Condition
from numpyro_inverse.pinn._parameters import check_parameters, floats
from numpyro_inverse.pinn._pde import PDE
from numpyro_inverse.pinn.trial import Enforced

HERE = "Problem"


class Data(eqx.Module):
    r"""Observations :math:`y_i = h(u, x_i) + \sigma \xi_i`.

    Args:
        points: :math:`x_i`, shape (n, d).
        values: :math:`y_i`, shape (n,), or (n, m) where several numbers are seen at a point; may be traced.
        scale: :math:`\sigma`, the standard deviation: a number, or an array that broadcasts against ``values``.
        observe: h, of the function u and a point; default: u at the point.

    Raises:
        TypeError, ValueError: numbers that are none, are not finite, or do not fit together.
    """

    points: Float[Array, "n d"]
    values: Float[Array, "n m"]
    scale: Float[Array, "n m"]
    observe: Callable | None = eqx.field(static=True)

    def __init__(self, points: Any, values: Any, scale: Any, observe: Callable | None = None):
        self.points = jnp.asarray(check_finite("Data", "points", points), jnp.result_type(float))
        if self.points.ndim != 2 or self.points.size == 0:
            raise ValueError(f"Data: `points` must have shape (n, d), not empty; got {self.points.shape}.")
        values = jnp.asarray(check_finite("Data", "values", values), jnp.result_type(float))
        if values.ndim not in (1, 2) or len(values) != len(self.points) or values.size == 0:
            raise ValueError(
                f"Data: `values` must have shape ({len(self.points)},) or ({len(self.points)}, m), one row a point; "
                f"got {values.shape}."
            )
        scale = jnp.asarray(check_positive("Data", "scale", scale), jnp.result_type(float))
        try:
            scale = jnp.broadcast_to(scale, values.shape)
        except ValueError:
            raise ValueError(
                f"Data: `scale` must broadcast against `values`, of shape {values.shape}; got shape {scale.shape}."
            ) from None
        self.values, self.scale = values.reshape(len(values), -1), scale.reshape(len(values), -1)
        self.observe = None if observe is None else check_callable("Data", "observe", observe)


class Block(NamedTuple):
    """One kind of residual: ``function(u, theta, row)``, of shape (q,), for each row of ``rows``."""

    name: str
    function: Callable[[Callable, Any, Any], Float[Array, " q"]]
    rows: Any


class Problem(eqx.Module):
    r"""The objective of a physics-informed network, as half a sum of squares in standard deviations:

    .. math:: J(\phi, \theta) = \tfrac12 \sum_i \Bigl(\frac{h(u_\phi, x_i) - y_i}{\sigma_i}\Bigr)^2
              + \tfrac12 \sum_j \Bigl(\frac{r(u_\phi, x_j, \theta)}{s}\Bigr)^2
              + \tfrac12 \sum_k \Bigl(\frac{b(u_\phi, x_k, \theta)}{s_b}\Bigr)^2 + \tfrac12 |\phi / s_\phi|^2.

    The blocks are called "data", "pde", "boundary", "initial" and "weights"; what is not "data" is the *physics*. The
    usual weight of a block is :math:`w = 1/s^2`. J is minus a log posterior density, up to a constant, if the scales
    are meant; that of the density of :math:`\theta` alone is another thing (:class:`PenalizedPotential`,
    :func:`~numpyro_inverse.pinn.factor`).

    The parameters :math:`\phi` of the trial space are the floating-point arrays of ``trial``; :math:`\theta` is any
    pytree of arrays.

    Args:
        pde: the equation, with its collocation points.
        trial: a function of a point, as a pytree; any of ``numpyro_inverse.pinn.trial`` or an Equinox module.
        data: observations, one or several.
        scale: s, the standard deviation that is allowed to the equation's residual: a number, or one an equation.
        boundary_scale: :math:`s_b`; needed for boundary conditions, unless the trial space is
            :class:`~numpyro_inverse.pinn.Enforced`, which then takes their place.
        initial_scale: likewise, for conditions at the first time.
        weight_scale: :math:`s_\phi`, of a normal prior of the trial space's parameters; default: none.

    Raises:
        TypeError: a part of the wrong kind.
        ValueError: a scale that is not positive or does not fit the number of equations; boundary conditions that
            nothing imposes; data outside the domain.
    """

    pde: PDE
    trial: Any
    data: tuple[Data, ...]
    scale: Float[Array, "..."]
    boundary_scale: Float[Array, "..."] | None
    initial_scale: Float[Array, "..."] | None
    weight_scale: Float[Array, ""] | None

    def __init__(
        self,
        pde: PDE,
        trial: Any,
        data: Data | tuple[Data, ...] = (),
        *,
        scale: Any,
        boundary_scale: Any = None,
        initial_scale: Any = None,
        weight_scale: Any = None,
    ):
        self.pde = check_instance(HERE, "pde", pde, PDE, "a PDE")
        self.trial = check_trial(HERE, "trial", trial)
        self.data = _observations(data, pde)
        self.scale = _scale("scale", scale)
        self.boundary_scale = _imposed("boundary", pde.boundary, boundary_scale, trial)
        self.initial_scale = _imposed("initial", pde.initial, initial_scale, trial)
        self.weight_scale = None if weight_scale is None else _scale("weight_scale", weight_scale)
        if self.weight_scale is not None and self.weight_scale.shape not in ((), flat(trial).shape):
            raise ValueError(
                f"{HERE}: `weight_scale` must be a number, or one for each of the {flat(trial).size} parameters; got "
                f"shape {self.weight_scale.shape}."
            )

    def check_shapes(self, theta: Any) -> None:
        """Whether residuals, data and scales fit together at such parameters; nothing is computed.

        Raises:
            ValueError: they do not; the block is named.
        """
        check_parameters(HERE, theta)
        for block in self._blocks():
            rows = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), block.rows)
            jax.eval_shape(lambda t, r, f=block.function: f(self.trial, t, r), theta, rows)

    def residuals(self, phi: Any, theta: Any) -> dict[str, Float[Array, " n"]]:
        """The residuals in standard deviations, by block; several conditions or data sets are one block.

        Args:
            phi: a function of the trial space.
            theta: the equation's parameters.

        Raises:
            TypeError: ``phi`` cannot be called, or ``theta`` is no real numbers.
        """
        _check_arguments(phi, theta)
        found: dict[str, list[Array]] = {}
        for block in self._blocks():
            values = _mapped(block.function, phi, theta, block.rows)
            found.setdefault(block.name, []).append(values)
        if self.weight_scale is not None:
            found["weights"] = [flat(phi) / self.weight_scale]
        return {name: jnp.concatenate(values) for name, values in found.items()}

    def objective(self, phi: Any, theta: Any) -> Float[Array, ""]:
        """J: half the sum of squares of all residuals."""
        _check_arguments(phi, theta)
        return 0.5 * jnp.sum(all_residuals(self, phi, theta) ** 2)

    def misfit(self, phi: Any, theta: Any) -> Float[Array, ""]:
        """L: the data's part of J."""
        _check_arguments(phi, theta)
        if not self.data:
            raise ValueError(f"{HERE}: the problem must have `data` for a misfit; it has none.")
        parts = [_mapped(b.function, phi, theta, b.rows) for b in self._blocks() if b.name == "data"]
        return 0.5 * jnp.sum(jnp.concatenate(parts) ** 2)

    def physics(self) -> Problem:
        """The problem without its data."""
        return eqx.tree_at(lambda problem: problem.data, self, ())

    def with_trial(self, trial: Any) -> Problem:
        """The problem in another trial space, or with another start."""
        return Problem(
            self.pde,
            trial,
            self.data,
            scale=self.scale,
            boundary_scale=self.boundary_scale,
            initial_scale=self.initial_scale,
            weight_scale=self.weight_scale,
        )

    def with_data(self, data: Data | tuple[Data, ...]) -> Problem:
        """The problem with other data, whose values may be traced."""
        return eqx.tree_at(lambda p: p.data, self, _observations(data, self.pde))

    def with_scale(self, scale: Any) -> Problem:
        """The problem with another standard deviation of the equation's residual."""
        return eqx.tree_at(lambda p: p.scale, self, _scale("scale", scale))

    def gradients(self, phi: Any, theta: Any) -> dict[str, dict[str, float]]:
        """Which block moves which parameters: norms of the gradient of each block's part of J.

        A block whose entry for "theta" is zero says nothing of the equation's parameters.
        """
        _check_arguments(phi, theta)
        found = _norms(self, phi, floats(theta))
        return {name: {"phi": float(a), "theta": float(b)} for name, (a, b) in found.items()}

    def row_names(self, theta: Any) -> list[str]:
        """The block of each residual, in the order of the Jacobian's rows; a system has several at a point."""
        check_parameters(HERE, theta)
        names: list[str] = []
        for block in self._blocks():
            rows = jax.eval_shape(lambda t, f=block.function, r=block.rows: _mapped(f, self.trial, t, r), theta)
            names += [block.name] * rows.size
        return names + ["weights"] * (0 if self.weight_scale is None else flat(self.trial).size)

    def _blocks(self) -> list[Block]:
        pde, blocks = self.pde, []
        for data in self.data:
            blocks.append(Block("data", _data_residual(data.observe), (data.points, data.values, data.scale)))
        blocks.append(Block("pde", _residual("pde", pde.residual, self.scale), pde.points))
        for name, conditions, scale in (
            ("boundary", pde.boundary, self.boundary_scale),
            ("initial", pde.initial, self.initial_scale),
        ):
            if scale is not None:
                blocks += [Block(name, _residual(name, c.residual, scale), c.points) for c in conditions]
        return blocks


def split(phi: Any) -> tuple[Any, Any]:
    """A trial function's parameters, and the rest of it."""
    return eqx.partition(phi, eqx.is_inexact_array)


def flat(phi: Any) -> Float[Array, " p"]:
    """A trial function's parameters as one vector."""
    return ravel_pytree(split(phi)[0])[0]


def check_trial(where: str, argument: str, trial: Any) -> Any:
    """A function of a point with parameters."""
    check_callable(where, argument, trial, "a function of a point")
    if not jax.tree.leaves(eqx.filter(trial, eqx.is_inexact_array)):
        raise ValueError(f"{where}: `{argument}` has no floating-point arrays, so nothing that could be fitted.")
    return trial


def rows_and_jacobian(
    problem: Problem, rest: Any, unravel: Callable, theta_of: Callable, x: Float[Array, " p"]
) -> tuple[Float[Array, " n"], Float[Array, "n p"]]:
    """All residuals and their derivatives: each row by its own reverse pass.

    ``unravel(x)`` are the trial function's parameters, ``theta_of(x)`` the equation's.
    """

    def one(block: Block) -> tuple[Array, Array]:
        def value(x: Array, row: Any) -> tuple[Array, Array]:
            r = block.function(eqx.combine(unravel(x), rest), theta_of(x), row)
            return r, r

        jacobian, r = jax.vmap(jax.jacrev(value, has_aux=True), in_axes=(None, 0))(x, block.rows)
        return r.ravel(), jacobian.reshape(-1, x.size)

    pairs = [one(block) for block in problem._blocks()]
    scale = problem.weight_scale
    if scale is not None:

        def weights(x: Array) -> Array:
            return ravel_pytree(unravel(x))[0] / scale

        pairs.append((weights(x), jax.jacfwd(weights)(x)))
    return jnp.concatenate([r for r, _ in pairs]), jnp.concatenate([j for _, j in pairs])


def all_residuals(problem: Problem, phi: Any, theta: Any) -> Float[Array, " n"]:
    """All residuals, in the order of the Jacobian's rows."""
    parts = [_mapped(block.function, phi, theta, block.rows) for block in problem._blocks()]
    if problem.weight_scale is not None:
        parts.append(flat(phi) / problem.weight_scale)
    return jnp.concatenate(parts)


def _mapped(function: Callable, phi: Any, theta: Any, rows: Any) -> Float[Array, " n"]:
    return jax.vmap(lambda row: function(phi, theta, row))(rows).ravel()


@eqx.filter_jit
def _norms(problem: Problem, phi: Any, theta: Any) -> dict[str, tuple[Array, Array]]:
    """Lengths of each block's gradient with respect to the trial function's parameters and to theta."""
    arrays, rest = split(phi)

    def part(arrays: Any, theta: Any, name: str) -> Array:
        return 0.5 * jnp.sum(problem.residuals(eqx.combine(arrays, rest), theta)[name] ** 2)

    found = {}
    for name in dict.fromkeys(problem.row_names(theta)):
        pair = jax.grad(part, argnums=(0, 1))(arrays, theta, name)
        found[name] = tuple(jnp.linalg.norm(ravel_pytree(g)[0]) for g in pair)
    return found


def _residual(name: str, function: Callable, scale: Array) -> Callable:
    def scaled(u: Callable, theta: Any, x: Array) -> Array:
        value = jnp.asarray(function(u, x, theta))
        if value.ndim > 1:
            raise ValueError(
                f"{HERE}: the residual of the block {name!r} must be a number or an array of shape (equations,) at a "
                f"point; got shape {value.shape}. u of a point of shape (d,) has shape () or (m,)."
            )
        value = jnp.atleast_1d(value)
        if scale.ndim and scale.shape != value.shape:
            raise ValueError(
                f"{HERE}: the scale of the block {name!r} has shape {scale.shape}, but its residual at a point "
                f"{value.shape}."
            )
        return value / jnp.asarray(scale, value.dtype)

    return scaled


def _data_residual(observe: Callable | None) -> Callable:
    def scaled(u: Callable, theta: Any, row: Any) -> Array:
        x, y, sigma = row
        seen = jnp.asarray(u(x) if observe is None else observe(u, x))
        if jnp.atleast_1d(seen).shape != y.shape:
            raise ValueError(
                f"{HERE}: data have {y.shape[0]} number(s) at a point, but what is observed of u there has shape "
                f"{seen.shape}. Give `observe=` to say what is seen."
            )
        return (jnp.atleast_1d(seen) - y) / sigma

    return scaled


def _check_arguments(phi: Any, theta: Any) -> None:
    check_callable(HERE, "phi", phi, "a function of a point")
    check_parameters(HERE, theta)


def _observations(data: Any, pde: PDE) -> tuple[Data, ...]:
    """Data in the domain, one or several."""
    several = tuple(data) if isinstance(data, tuple | list) else (data,)
    for one in several:
        check_instance(HERE, "data", one, Data, "Data")
        if not is_traced(one.points):
            pde.domain.check_points(HERE, "data.points", one.points)
    return several


def _scale(argument: str, value: Any) -> Array:
    found = jnp.asarray(check_positive(HERE, argument, value), jnp.result_type(float))
    if found.ndim > 1:
        raise ValueError(f"{HERE}: `{argument}` must be a number or of shape (equations,); got shape {found.shape}.")
    return found


def _imposed(name: str, conditions: tuple[Condition, ...], scale: Any, trial: Any) -> Array | None:
    if scale is not None:
        return _scale(f"{name}_scale", scale)
    if conditions and not isinstance(trial, Enforced):
        raise ValueError(
            f"{HERE}: nothing imposes the {name} conditions: give `{name}_scale`, the standard deviation allowed to "
            "them, or a trial space that satisfies them (`pinn.Enforced`)."
        )
    return None
