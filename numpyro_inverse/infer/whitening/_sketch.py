"""A Gaussian sketch of the posterior around a point, and the potential in its units, on the host."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from scipy.sparse.linalg import LinearOperator, lobpcg

from numpyro_inverse.infer.whitening._coordinates import Coordinates
from numpyro_inverse.infer.whitening._directions import Directions, field_by_field

STEPS = 30  # L-BFGS iterations a round
ROWS = 8  # linear systems that are solved together
PAIRS = 2  # of draws, over which the potential is averaged
DRAWS_TOLERANCE = 1e-2  # of conjugate gradients, relative
DRAWS = 32  # for the coefficients' variances; their relative error is sqrt(2 / DRAWS)
SUSPICION = 1.2  # precision given the fields over its rough marginal value, from which the latter is found exactly
SHEAR = 2.0  # and the exact ratio from which coordinates are sheared
CURVATURE_STEPS = 12  # of the search for a ridge


class Sketch:
    r"""The normal law of :math:`(\eta, v)` with :math:`\eta = \hat\eta + R u`, :math:`v = \hat v + C R u + T s u'`.

    R is the root of the covariance of :math:`\eta`, C the coefficients' change with it (rows of zeros where it is left
    out), T the unit triangular coupling of fields, s the spreads; u and u' are standard normal.

    Args:
        value_and_grad: of the potential, on flat (eta, v) and ``modes``.
        solve: ``(rows, x, modes, tolerance)`` to the rows' solutions with the information about v.
        x: the center, (eta, v).
        modes: spreads and couplings.
        scores: of simulated data, in units of v.
        key: of the antithetic pair over which the potential is averaged.
        step: of finite differences in eta.
        tolerance: of the coefficients' change with eta, relative.
        averaged: which elements of eta the potential is averaged over, the fields following.
        fields: in the model's order.
    """

    def __init__(
        self,
        value_and_grad: Callable,
        solve: Callable,
        x: tuple,
        modes: Any,
        scores: Float[Array, "simulations n"],
        key: Array,
        step: np.ndarray,
        tolerance: float,
        averaged: np.ndarray,
        fields: list[str],
    ):
        self.fields = fields
        flat, self.unravel = ravel_pytree(x)
        self.x, self.modes = x, modes
        self.center = np.asarray(flat, float)
        self.size, self.dtype = self.center.size, flat.dtype
        self.mode_spread = np.asarray(ravel_pytree(modes.spread)[0], float)
        self.p = self.size - self.mode_spread.size
        self.value_and_grad = lambda x: value_and_grad(x, modes)
        self.tolerance = tolerance
        self.solve = lambda rows, tolerance: self._in_blocks(
            lambda block: solve(jnp.asarray(block, self.dtype), x, modes, tolerance), rows
        )
        self.slices = _slices(x[1], {name: np.size(value) for name, value in x[1].items()})
        self.couplings = [
            (self.slices[j], self.slices[i], np.ravel(np.asarray(factor, float)))
            for j in fields
            for i, factor in modes.coupling[j].items()
            if np.any(factor)
        ]
        self.directions: dict[str, Directions] = {}
        key_hyper, key_modes = jax.random.split(key)
        self.rows = np.asarray(scores, float) + np.asarray(jax.random.normal(key_modes, scores.shape), float)
        self.noise = np.concatenate([np.zeros((PAIRS, self.p)), self.solve(self.rows[:PAIRS], DRAWS_TOLERANCE)], axis=1)
        self.shear = np.zeros((self.p, self.mode_spread.size))
        precision = self._marginal_precision(step)
        if np.any(averaged):
            self._average_over(averaged, precision, key_hyper)
            precision = self._marginal_precision(step)
        self.hyper_root = _inverse_root(precision)
        self.spread_given_rest = self._unravel_hyper(1 / np.sqrt(np.abs(np.diag(precision))))

    @property
    def hyper_spread(self) -> np.ndarray:
        """Marginal standard deviations of eta."""
        return np.sqrt(np.sum(self.hyper_root**2, axis=1))

    # The potential.

    def _potential(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.value_and_grad(np.asarray(point, self.dtype))
        return float(value), np.asarray(gradient, float)

    def _smoothed(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """The potential averaged over antithetic pairs of draws of the coefficients given eta."""
        found = [self._potential(point + sign * noise) for noise in self.noise for sign in (1, -1)]
        return float(np.mean([value for value, _ in found])), np.mean([gradient for _, gradient in found], axis=0)

    def _curved(self, direction: np.ndarray) -> np.ndarray:
        """The Hessian of the smoothed potential times a direction, by central differences over it."""
        up, down = self._smoothed(self.center + direction)[1], self._smoothed(self.center - direction)[1]
        return (up - down) / 2

    # The other sites, their coupling to the fields.

    def _marginal_precision(self, step: np.ndarray) -> np.ndarray:
        """The precision of eta with the coefficients integrated out where that matters; sets ``shear``."""
        n, p = self.mode_spread.size, self.p
        whole = np.zeros((p, p + n))
        for i, h in enumerate(step):
            direction = np.zeros(p + n)
            direction[i] = h
            whole[i] = self._curved(direction) / h
        given, cross = whole[:, :p], whole[:, p:]
        rough = np.diag(given) - np.sum(self._coupled_transpose(cross) ** 2 * self.mode_spread**2, axis=1)
        suspects = np.flatnonzero(~(np.diag(given) < SUSPICION * rough))
        if not len(suspects):
            return given
        shear = np.zeros((p, n))
        shear[suspects] = -self.solve(cross[suspects], self.tolerance)
        directions = np.concatenate([np.eye(p), shear], axis=1)
        products = whole.copy()
        for i in suspects:
            marginal = max(given[i, i] + cross[i] @ shear[i], 1e-3 * given[i, i])
            h = min(0.5 / np.sqrt(marginal), 20 * step[i]) if marginal > 0 else step[i]
            products[i] = self._curved(h * directions[i]) / h
        precision = directions @ products.T
        kept = self._whole_sites(np.diag(given) > SHEAR * np.abs(np.diag(precision)))
        self.shear = np.where(kept[:, None], shear, 0)
        directions = np.concatenate([np.eye(p), self.shear], axis=1)
        products = np.where(kept[:, None], products, whole)
        return directions @ products.T

    def _average_over(self, chosen: np.ndarray, precision: np.ndarray, key: Array) -> None:
        """Let the noise move chosen elements of eta by their spread given the others, and the fields along."""
        root = _inverse_root(precision[np.ix_(chosen, chosen)])
        z = np.asarray(jax.random.normal(key, (PAIRS, len(root))), float)
        z = z * np.sqrt(np.size(z)) / np.linalg.norm(z)  # of mean square one, for few they are
        moved = np.zeros((PAIRS, self.p))
        moved[:, chosen] = z @ root.T
        self.noise += np.concatenate([moved, moved @ self.shear], axis=1)

    def _unravel_hyper(self, flat: np.ndarray) -> dict[str, Array]:
        return ravel_pytree(self.x[0])[1](jnp.asarray(flat, self.dtype))

    def _whole_sites(self, chosen: np.ndarray) -> np.ndarray:
        """All elements of each site of which one is chosen."""
        spread = _slices(self.x[0], {name: np.size(value) for name, value in self.x[0].items()})
        found = chosen.copy()
        for part in spread.values():
            found[part] = np.any(chosen[part])
        return found

    def _in_blocks(self, function: Callable, rows: np.ndarray) -> np.ndarray:
        """A function of rows, called with blocks of one size, so that there is one program."""
        found = []
        for start in range(0, len(rows), ROWS):
            block = rows[start : start + ROWS]
            padded = np.concatenate([block, np.zeros((ROWS - len(block), rows.shape[1]))])
            found.append(np.asarray(function(padded), float)[: len(block)])
        return np.concatenate(found)

    # Linear maps.

    def _coupled(self, r: np.ndarray) -> np.ndarray:
        """T r."""
        r = r.copy()
        for later, earlier, factor in self.couplings:  # in the model's order
            r[later] += factor * r[earlier]
        return r

    def _coupled_transpose(self, g: np.ndarray) -> np.ndarray:
        """T' g, for rows."""
        g = g.copy()
        for later, earlier, factor in reversed(self.couplings):
            g[..., earlier] += factor * g[..., later]
        return g

    def _spread(self, u: np.ndarray) -> np.ndarray:
        """A root of the coefficients' covariance given eta times u."""
        if not self.directions:
            return self._coupled(self.mode_spread * u)
        v = u.copy()
        for name, part in self._in_order():
            d = self.directions[name]
            rows = _rows(d.vectors)
            change = (np.asarray(d.spread(), float) - 1) * (rows @ u[part])
            for earlier, factor in d.coupling.items():
                change -= _rows(factor) @ v[self.slices[earlier]]
            v[part] += change @ rows
        return v

    def _spread_transpose(self, g: np.ndarray) -> np.ndarray:
        if not self.directions:
            return self.mode_spread * self._coupled_transpose(g)
        g = g.copy()
        for name, part in reversed(self._in_order()):
            d = self.directions[name]
            rows = _rows(d.vectors)
            along = rows @ g[part]
            for earlier, factor in d.coupling.items():
                g[self.slices[earlier]] -= along @ _rows(factor)
            g[part] += ((np.asarray(d.spread(), float) - 1) * along) @ rows
        return g

    def _in_order(self) -> list[tuple[str, slice]]:
        """Where each field's coefficients are, in the model's order."""
        return [(name, self.slices[name]) for name in self.fields]

    def _at(self, u: np.ndarray) -> np.ndarray:
        eta = self.hyper_root @ u[: self.p]
        v = eta @ self.shear + self._spread(u[self.p :])
        return self.center + np.concatenate([eta, v])

    def _pull(self, gradient: np.ndarray) -> np.ndarray:
        eta, v = gradient[: self.p], gradient[self.p :]
        return np.concatenate([self.hyper_root.T @ (eta + self.shear @ v), self._spread_transpose(v)])

    def standardized(self, root: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """The potential and its gradient in units of the sketch, in which the posterior is near a standard normal.

        ``root`` takes the place of the root of eta's covariance, from here on.
        """
        self.hyper_root = root

        def function(u: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self._potential(self._at(u))
            return value, self._pull(gradient)

        return function

    # What is made of it.

    def minimize(self) -> tuple:
        """The point where L-BFGS on the smoothed potential ends, started at the center."""

        def objective(u):
            value, gradient = self._smoothed(self._at(u))
            return value, self._pull(gradient)

        options = {"maxiter": STEPS}
        found = scipy.optimize.minimize(objective, np.zeros(self.size), jac=True, method="L-BFGS-B", options=options)
        return self.unravel(jnp.asarray(self._at(found.x), self.dtype))

    def measure_variances(self) -> None:
        """Spreads from draws of the coefficients' posterior: the data's information need not be diagonal."""
        draws = self.solve(self.rows, DRAWS_TOLERANCE)
        for later, earlier, factor in reversed(self.couplings):
            draws[:, later] -= factor * draws[:, earlier]
        self.mode_spread = np.maximum(np.sqrt(np.mean(draws**2, axis=0)), self.mode_spread)

    def take_directions(self, values: Array, vectors: Array) -> None:
        """Take the information apart, few directions of it as it has, and the coefficients' law from there."""
        rows = np.asarray(vectors, float).T
        parts = {name: rows[:, part] for name, part in self.slices.items()}
        self.directions = field_by_field(self.fields, self.x[1], np.asarray(values, float), parts)
        self.couplings, self.mode_spread = [], np.ones_like(self.mode_spread)

    def growths(self, multiply: Callable, amplitudes: Callable) -> dict[str, np.ndarray]:
        r"""How what is known along each direction changes with eta, by field: rates of the three logarithms that
        :class:`Growth` has, of shape (3, directions, p), by central differences over half a standard deviation.

        A direction u is followed by the later fields, t = (u, their response), so that its information, with these
        integrated out, is :math:`t^T (I + F) t - 1`. It is taken where the fields have followed eta by C.
        """
        steps = np.minimum(self.hyper_spread, 1.0) / 2
        directions = np.concatenate([np.eye(self.p), self.shear], axis=1)
        ends = [
            [self.unravel(jnp.asarray(self.center + t * directions[i], self.dtype)) for t in (h, -h)]
            for i, h in enumerate(steps)
        ]
        log_amplitudes = [[jax.tree.map(jnp.log, amplitudes(x, self.modes)) for x in pair] for pair in ends]
        found = {}
        for name, part in self.slices.items():
            d = self.directions[name]
            vectors, centering = _rows(d.vectors), np.ravel(np.asarray(self.modes.centering[name], float))
            rows = np.zeros((len(vectors), self.mode_spread.size))
            rows[:, part] = vectors / np.asarray(d.spread(), float)[:, None]
            rows = np.stack([self._spread(row) for row in rows])
            rates = np.zeros((3, len(vectors), self.p))
            for i, h in enumerate(steps):
                up, down = (
                    np.sum(rows * self._products(multiply, rows, x), axis=1) + np.sum(rows**2, axis=1) - 1
                    for x in ends[i]
                )
                positive = np.minimum(up, down) > 0
                rates[0, positive, i] = np.log(up[positive] / down[positive]) / (2 * h)
                up, down = (np.ravel(np.asarray(found_there[name], float)) for found_there in log_amplitudes[i])
                change = (up - down) / (2 * h)
                rates[1, :, i] = vectors**2 @ ((1 - centering) * change)
                rates[2, :, i] = vectors**2 @ (-2 * centering * change)
            found[name] = rates
        return found

    def _products(self, multiply: Callable, rows: np.ndarray, x: tuple) -> np.ndarray:
        return self._in_blocks(lambda block: multiply(jnp.asarray(block, self.dtype), x, self.modes), rows)

    def smallest_curvature(self) -> float:
        """Of the smoothed potential in units of the sketch, by a few steps of a conjugate gradient eigensolver."""

        def product(u: np.ndarray) -> np.ndarray:
            u = np.ravel(u)
            length = np.linalg.norm(u)
            moved = self._at(u / max(length, 1e-30)) - self.center
            return self._pull(self._curved(moved)) * length

        operator = LinearOperator((self.size, self.size), matvec=product, dtype=float)
        start = np.random.default_rng(0).standard_normal((self.size, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it need not converge: what it has reached is an upper bound
            values, _ = lobpcg(operator, start, largest=False, maxiter=CURVATURE_STEPS, tol=1e-2)
        return float(values[0])

    def coordinates(self, downstream: tuple[str, ...], growths: dict[str, np.ndarray]) -> Coordinates:
        """As fitted coordinates, without a step size."""
        eta, v = self.x
        unravel_modes = ravel_pytree(v)[1]
        hyper = _slices(eta, {name: np.size(value) for name, value in eta.items()})
        coupled = {
            field: {
                site: jnp.asarray(
                    self.shear[rows][:, part].T.reshape((*np.shape(v[field]), *np.shape(eta[site]))), self.dtype
                )
                for site, rows in hyper.items()
                if np.any(self.shear[rows])
            }
            for field, part in self.slices.items()
        }
        field_coupling = (
            {
                j: {i: factor for i, factor in factors.items() if np.any(factor)}
                for j, factors in self.modes.coupling.items()
            }
            if not self.directions
            else {name: {} for name in v}
        )
        location = dict(v) if not self.directions else jax.tree.map(jnp.zeros_like, v)
        for later in v:  # v' = v - S r with r = v at the center, where eta does not depart
            for earlier, factor in field_coupling[later].items():
                location[later] = location[later] - factor * v[earlier]
        as_modes = lambda x: unravel_modes(jnp.asarray(x, self.dtype))  # noqa: E731
        return Coordinates(
            centering=self.modes.centering,
            reference=self.modes.reference,
            mode_location=location,
            mode_variance=as_modes(self.mode_spread**2),
            hyper_location=eta,
            hyper_spread=self._unravel_hyper(self.hyper_spread),
            hyper_covariance=jnp.asarray(self.hyper_root @ self.hyper_root.T, self.dtype),
            hyper_coupling=coupled,
            field_coupling=field_coupling,
            directions=self.directions,
            growth_rates={
                field: {
                    site: jnp.asarray(rates[..., part].reshape(*rates.shape[:2], *np.shape(eta[site])), self.dtype)
                    for site, part in hyper.items()
                    if np.any(rates[..., part]) and site not in downstream
                }
                for field, rates in growths.items()
            },
            step_size=jnp.asarray(np.nan, self.dtype),
            smallest_curvature=jnp.asarray(self.smallest_curvature(), self.dtype),
            downstream_sites=downstream,
        )


def _slices(tree: dict[str, Any], sizes: dict[str, int]) -> dict[str, slice]:
    """Where the values of each site are in the flat vector: in alphabetical order."""
    ends = np.cumsum([sizes[name] for name in sorted(tree)])
    return {name: slice(int(end) - sizes[name], int(end)) for name, end in zip(sorted(tree), ends, strict=True)}


def _rows(factor: Array) -> np.ndarray:
    return np.asarray(factor, float).reshape(len(factor), -1)


def _inverse_root(precision: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "p p"]:
    """The inverse square root of a precision matrix, its eigenvalues made positive."""
    values, vectors = np.linalg.eigh((precision + precision.T) / 2)
    return vectors / np.sqrt(np.maximum(np.abs(values), np.finfo(np.float32).tiny))
