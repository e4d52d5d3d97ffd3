"""Hyperparameters at their mode: as a few weighted points, on a grid or of a central composite design, and for NUTS."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy
from scipy.optimize import minimize

from numpyro_inverse._checks import check_count, check_key, check_positive_number
from numpyro_inverse._model import Trace, trace_at
from numpyro_inverse.infer._init_near import init_near
from numpyro_inverse.infer.latent_gaussian._reading import HERE

if TYPE_CHECKING:
    from numpyro_inverse.infer.latent_gaussian._latent_gaussian import LatentGaussian

GRID_LIMIT, CCD_LIMIT, NUTS_LIMIT = 3, 6, 64
RADIUS = 1.1  # of the design, times the square root of the dimension
NO_DENSITY = 1e29  # a potential above it stands for none
SEARCH = 100  # steps to the mode
EDGE = 0.02  # of the weight, at the edge of the grid
ACCEPTANCE = 0.9  # aimed at; at .8, 50 iterations ended with steps of half that rate, and with divergences


class HyperPoints(NamedTuple):
    """Weighted hyperparameters.

    Attributes:
        values: constrained values by site, with a leading axis of points.
        weights: one for each point, of sum 1.
        log_density: unnormalized, of the unconstrained values.
    """

    values: dict[str, Float[Array, "points ..."]]
    weights: Float[Array, " points"]
    log_density: Float[Array, " points"]

    def mean(self) -> dict[str, Array]:
        """Posterior means."""
        return {name: jnp.tensordot(self.weights, x, 1) for name, x in self.values.items()}

    def sd(self) -> dict[str, Array]:
        """Posterior standard deviations."""
        mean = self.mean()
        return {
            name: jnp.sqrt(jnp.tensordot(self.weights, (x - mean[name]) ** 2, 1)) for name, x in self.values.items()
        }

    def resample(self, key: Array, count: int) -> dict[str, Float[Array, "count ..."]]:
        """Points drawn by their weights.

        Raises:
            TypeError, ValueError: ``key`` is no random key, or ``count`` no positive integer.
        """
        check_key("HyperPoints.resample", "key", key)
        count = check_count("HyperPoints.resample", "count", count)
        chosen = jax.random.choice(key, len(self.weights), (count,), p=self.weights)
        return {name: x[chosen] for name, x in self.values.items()}


class _Surface:
    """The log density of unconstrained hyperparameters, flat, with its mode and the axes of its Hessian there."""

    def __init__(self, latent: LatentGaussian, limit: int, what: str):
        reading = latent.reading
        start = _unconstrained(latent)
        self.latent, self.size, self.dtype = latent, start.size, start.dtype
        names = ", ".join(map(repr, reading.hyper)) or "none"
        if not 1 <= self.size <= limit:
            raise ValueError(
                f"{HERE}: {what} is for 1 to {limit} hyperparameters; the model has {self.size} ({names}). Use NUTS."
            )
        if moving := _moving_supports(latent):
            raise ValueError(
                f"{HERE}: {what} needs hyperparameters with fixed supports; that of {moving[0]!r} depends on another. "
                "Use NUTS."
            )
        # A trust region: line searches from a draw of a wide prior go to where there is no density.
        found = minimize(
            self._potential,
            np.asarray(start, float),
            jac=True,
            hess=self._model_hessian,
            method="trust-exact",
            options={
                "gtol": 1e-2 if jnp.finfo(self.dtype).bits == 64 else 0.5,  # the values' rounding ends the search
                "maxiter": SEARCH,
                "max_trust_radius": 3.0,
            },
        )
        self.mode, self.axes, decrement = found.x, np.eye(self.size), np.inf
        for _ in range(2):  # a Newton step, and the Hessian where it leads
            hessian = self._hessian_at_mode()
            values, vectors = np.linalg.eigh(hessian)
            if not values[0] > 0:
                raise ValueError(
                    f"{HERE}: at the mode of the hyperparameters {names} their density has no negative "
                    f"definite Hessian (eigenvalues {-values[::-1]}), so that there is no scale."
                )
            self.axes = vectors / np.sqrt(values)
            decrements = self._decrement(self.mode), self._decrement(better := self._newton_step())
            if decrements[1] < decrements[0]:
                self.mode = better
            decrement = min(decrements)
        if decrement > 1:
            raise ValueError(f"{HERE}: the density of the hyperparameters {names} has no mode that could be found.")

    def _newton_step(self) -> np.ndarray:
        return self.mode - self.axes @ (self.axes.T @ self._potential(self.mode)[1])

    def _decrement(self, x: np.ndarray) -> float:
        """Squared length of the Newton step from there, in standard deviations."""
        value, gradient = self._potential(x)
        return float(np.sum((self.axes.T @ gradient) ** 2)) if value < NO_DENSITY else np.inf

    def _potential(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        found, slopes = _value_and_grad(self.latent, jnp.asarray(x, self.dtype))
        value, gradient = float(found), np.asarray(slopes, float)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return 10 * NO_DENSITY, np.zeros_like(x)
        return value, gradient

    def _hessian_at_mode(self) -> np.ndarray:
        hessian = self._differences(self.mode)
        if not np.isfinite(hessian).all():
            raise ValueError(
                f"{HERE}: beside the mode of the hyperparameters {', '.join(map(repr, self.latent.reading.hyper))} "
                "their density or its gradient is not finite; double precision (`jax.enable_x64`) may have it."
            )
        return hessian

    def _model_hessian(self, x: np.ndarray) -> np.ndarray:
        """For the search: where there is none, that of steepest descent."""
        hessian = self._differences(x)
        return hessian if np.isfinite(hessian).all() else np.eye(self.size)

    def _differences(self, x: np.ndarray) -> np.ndarray:
        """The Hessian by central differences of the gradient; infinite where a side has no density."""
        h = 30 * float(jnp.finfo(self.dtype).eps) ** 0.5
        columns = []
        for e in np.eye(self.size):
            (above, up), (below, down) = (self._potential(x + side * e) for side in (h, -h))
            columns.append(np.where(max(above, below) < NO_DENSITY, (up - down) / (2 * h), np.inf))
        return (np.stack(columns) + np.stack(columns).T) / 2

    def at(self, z: np.ndarray) -> tuple[dict[str, Array], np.ndarray]:
        """Constrained hyperparameters at standardized ones, and their log densities."""
        x = jnp.asarray(self.mode + z @ self.axes.T, self.dtype)
        density = np.array([-self._potential(np.asarray(point))[0] for point in x])
        return _constrained(self.latent, x), np.where(density > -NO_DENSITY, density, -np.inf)


def _moving_supports(latent: LatentGaussian) -> list[str]:
    """Hyperparameters whose supports are different at two draws."""
    reading = latent.reading
    draws = [reading.draw_hyper(jax.random.key(k)) for k in (11, 12)]
    traces = [trace_at(reading.model, reading.args, reading.kwargs, draw | reading.means(draw)) for draw in draws]
    ends = [{name: jax.tree.leaves(trace[name]["fn"].support) for name in reading.hyper} for trace in traces]
    return [k for k in reading.hyper if not all(map(np.array_equal, *(end[k] for end in ends)))]


def _transforms(latent: LatentGaussian) -> dict[str, Any]:
    reading = latent.reading
    trace: Trace = trace_at(reading.model, reading.args, reading.kwargs, latent.start | reading.means(latent.start))
    return {name: biject_to(trace[name]["fn"].support) for name in reading.hyper}


@eqx.filter_jit
def _unconstrained(latent: LatentGaussian) -> Array:
    """The first hyperparameters, unconstrained, one site after the other."""
    found = [jnp.ravel(transform.inv(latent.start[name])) for name, transform in _transforms(latent).items()]
    return jnp.concatenate([jnp.zeros(0), *found])


def _by_site(latent: LatentGaussian, x: Array) -> dict[str, Array]:
    found, start = {}, 0
    for name, transform in _transforms(latent).items():
        shape = transform.inverse_shape(latent.start[name].shape)
        count = int(np.prod(shape, dtype=int))
        found[name] = x[start : start + count].reshape(shape)
        start += count
    return found


def _energy(latent: LatentGaussian, x: Array) -> Array:
    return potential_energy(latent.model, (latent,), {}, _by_site(latent, x))


@eqx.filter_jit
def _split(latent: LatentGaussian, x: Array) -> dict[str, Array]:
    return _by_site(latent, x)


@eqx.filter_jit
def _value_and_grad(latent: LatentGaussian, x: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda x: _energy(latent, x))(x)


@eqx.filter_jit
def _constrained(latent: LatentGaussian, points: Array) -> dict[str, Array]:
    transforms = _transforms(latent)
    return jax.vmap(lambda x: {name: transforms[name](v) for name, v in _by_site(latent, x).items()})(points)


def grid_points(latent: LatentGaussian, step: float, span: float, drop: float) -> HyperPoints:
    """See :meth:`LatentGaussian.integrate_grid`."""
    step, span, drop = (
        check_positive_number(f"{HERE}.integrate_grid", name, value)
        for name, value in (("step", step), ("span", span), ("drop", drop))
    )
    surface = _Surface(latent, GRID_LIMIT, "a grid")
    count = int(np.floor(span / step + 1e-9))
    axis = step * np.arange(-count, count + 1)
    z = np.stack(np.meshgrid(*[axis] * surface.size, indexing="ij"), axis=-1).reshape(-1, surface.size)
    values, density = surface.at(z)
    weights = np.exp(density - density.max())
    weights /= weights.sum()
    edge = weights[np.abs(z).max(axis=1) > axis[-1] - step / 2].sum()
    if edge > EDGE:
        warnings.warn(
            f"{HERE}: {edge:.0%} of the weight is at the edge of the grid of hyperparameters; give a larger `span` "
            f"than {span:g}.",
            stacklevel=3,
        )
    kept = density > density.max() - drop
    return _points({name: x[kept] for name, x in values.items()}, weights[kept], density[kept])


def ccd_points(latent: LatentGaussian) -> HyperPoints:
    r"""See :meth:`LatentGaussian.integrate_ccd`.

    With n points on the sphere of radius :math:`f \sqrt d` and a weight w of each, times the density relative to the
    center's, a normal law has :math:`w_0 + n w e^{-d f^2 / 2} = 1` and
    :math:`n w e^{-d f^2 / 2} d f^2 = d`.
    """
    surface = _Surface(latent, CCD_LIMIT, "a design")
    d = surface.size
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=d)))
    around = corners if d == 1 else np.concatenate([corners, np.sqrt(d) * np.eye(d), -np.sqrt(d) * np.eye(d)])
    values, density = surface.at(np.concatenate([np.zeros((1, d)), RADIUS * around]))
    outer = np.exp(d * RADIUS**2 / 2) / (len(around) * RADIUS**2)
    base = np.concatenate([[1 - 1 / RADIUS**2], np.full(len(around), outer)])
    weights = base * np.exp(density - density[0])
    return _points(values, weights / weights.sum(), density)


def _points(values: dict[str, Array], weights: np.ndarray, density: np.ndarray) -> HyperPoints:
    return HyperPoints(values, jnp.asarray(weights / weights.sum()), jnp.asarray(density))


def nuts_settings(latent: LatentGaussian) -> dict[str, Any]:
    """See :meth:`LatentGaussian.nuts_settings`."""
    surface = _Surface(latent, NUTS_LIMIT, "a mass matrix")
    mode = _split(latent, jnp.asarray(surface.mode, surface.dtype))
    order = ravel_pytree(_split(latent, jnp.arange(surface.size)))[0]  # NumPyro's is that of the names
    covariance = jnp.asarray(surface.axes @ surface.axes.T, surface.dtype)[jnp.ix_(order, order)]
    names = tuple(sorted(mode))
    return {
        "target_accept_prob": ACCEPTANCE,
        "inverse_mass_matrix": {names: covariance},
        "dense_mass": [names],
        "adapt_mass_matrix": False,
        "init_strategy": init_near(mode, covariance),
    }
