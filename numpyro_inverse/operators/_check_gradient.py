"""Is the derivative that JAX uses the derivative of the function? Differences along random directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import factorial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, PyTree

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_finite,
    check_key,
    check_numeric,
    check_positive_number,
)

SAFETY = 10.0  # times the error that the differences show
UNKNOWN = 0.1  # relative accuracy of differences that decide nothing
RATIO = 2.0  # of two steps
NOISE_POINTS = 9  # values from which noise is told
SMOOTH = 4  # order of differences that a smooth function's values do not show in


@dataclass(frozen=True)
class GradientCheck:
    r"""What :func:`check_gradient` found, one entry per direction.

    Attributes:
        derivatives: :math:`\langle g, v \rangle`, by the derivative under test.
        differences: the same by extrapolated central differences.
        accuracies: how far the differences can be trusted; the tolerance of their distance.
        orders: of the Taylor remainder
            :math:`|\phi(x + h v) - \phi(x) - h \langle g, v \rangle| = O(h^p)` where it shows best: 2 for a right
            gradient, 1 for a wrong one, NaN where rounding hides it (a linear function has no remainder).
        steps: h, decreasing.
        remainders: directions by steps.
    """

    derivatives: np.ndarray
    differences: np.ndarray
    accuracies: np.ndarray
    orders: np.ndarray
    steps: np.ndarray
    remainders: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Distances of derivative and difference."""
        return np.abs(self.derivatives - self.differences)

    @property
    def decided(self) -> bool:
        """Whether the differences are good to a tenth of the typical one at least, so that they can tell."""
        size = max(float(np.sqrt(np.mean(np.square(part)))) for part in (self.derivatives, self.differences))
        return size == 0 or bool(np.all(self.accuracies <= UNKNOWN * size))

    @property
    def holds(self) -> bool:
        """Whether derivative and differences agree in each direction."""
        return self.decided and bool(np.all(self.errors <= self.accuracies))

    def __str__(self) -> str:
        verdict = "right" if self.holds else "wrong" if self.decided else "not decided: the differences are too rough"
        lines = [
            f"gradient {verdict}",
            f"{'direction':>9} {'derivative':>13} {'difference':>13} {'error':>9} {'tolerance':>9} {'order':>5}",
        ]
        rows = zip(self.derivatives, self.differences, self.errors, self.accuracies, self.orders, strict=True)
        for i, (s, d, error, accuracy, order) in enumerate(rows):
            lines.append(f"{i:>9} {s:>13.6g} {d:>13.6g} {error:>9.1e} {accuracy:>9.1e} {order:>5.2f}")
        return "\n".join(lines)

    def require(self, where: str) -> None:
        """Raise unless the gradient is right.

        Raises:
            ValueError: it is wrong, or the differences cannot tell; with the table.
        """
        if not self.holds:
            raise ValueError(f"{where}: {self}")


def check_gradient(
    f: Callable[[Any], Any],
    x: PyTree,
    *,
    rng_key: Key[Array, ""] | None = None,
    num_directions: int = 4,
    first_step: float = 0.1,
    num_steps: int = 12,
) -> GradientCheck:
    r"""Compare JAX's reverse-mode derivative of ``f`` at ``x`` with differences of its values.

    With :math:`\phi(x) = \langle w, f(x) \rangle` for a random w (a scalar function keeps w = 1) and random directions
    v, the derivative :math:`\langle \nabla \phi, v \rangle` is held against central differences
    :math:`(\phi(x + h v) - \phi(x - h v)) / 2h` on a ladder :math:`h_k = h_0 2^{-k}`, extrapolated (Ridders). The
    tolerance is not a setting: it is ten times the disagreement within the extrapolation, or what the noise of the
    values makes of it, be it rounding or an inner solver's (measured along each direction, Moré and Wild). In single
    precision errors of about 1e-3 are found, in double precision (``jax.enable_x64``) of 1e-9.

    Wrong entries of the gradient are seen in every direction, as v and w are dense. Steps are relative to the root mean
    square of each array of x (or 1, where it is 0).

    >>> print(ni.operators.check_gradient(lambda x: jnp.sum(x**3), jnp.arange(3.0)).holds)
    True

    Args:
        f: from a pytree of arrays to a pytree of arrays. Made for custom rules, external programs and solvers.
        x: where.
        rng_key: of v and w; default: ``jax.random.key(0)``.
        num_directions: v and w are drawn this often.
        first_step: :math:`h_0`.
        num_steps: of the ladder.

    Returns:
        The report; printed, it is a table.

    Raises:
        TypeError: ``f`` cannot be called, ``x`` or f(x) is not of numbers, or ``rng_key`` no key.
        ValueError: x is not finite; f or its derivative is not finite at x; no numbers, or f complex.

    References:
        C. J. F. Ridders, Accurate computation of F'(x) and F'(x) F''(x), Advances in Engineering Software 4 (1982).
        J. J. Moré, S. M. Wild, Estimating computational noise, SIAM Journal on Scientific Computing 33 (2011), (2.4).
    """
    where = "check_gradient"
    check_callable(where, "f", f)
    if rng_key is not None:
        check_key(where, "rng_key", rng_key)
    num_directions = check_count(where, "num_directions", num_directions)
    num_steps = check_count(where, "num_steps", num_steps, 3)
    steps = check_positive_number(where, "first_step", first_step) * RATIO ** -np.arange(num_steps)
    x = jax.tree.map(lambda a: jnp.asarray(check_finite(where, "x", a), jnp.result_type(float)), x)
    flat, unravel = ravel_pytree(x)
    if flat.size == 0:
        raise ValueError(f"{where}: `x` has no numbers.")
    scale, _ = ravel_pytree(jax.tree.map(_scale, x))
    values = jax.jit(lambda z: ravel_pytree(jax.tree.map(partial(check_numeric, where, "f(x)"), f(unravel(z))))[0])
    pull = jax.jit(lambda z, w: jax.vjp(values, z)[1](w)[0])
    base = values(flat)
    if jnp.iscomplexobj(base) or base.size == 0:
        what = (
            "returns no numbers" if base.size == 0 else "returns complex numbers; give their real and imaginary parts"
        )
        raise ValueError(f"{where}: `f` {what}.")
    if not np.all(np.isfinite(np.asarray(base))):
        raise ValueError(f"{where}: `f` is not finite at `x`.")
    key = jax.random.key(0) if rng_key is None else rng_key
    found = []
    for key_direction in jax.random.split(key, num_directions):
        key_v, key_w = jax.random.split(key_direction)
        v = np.asarray(scale * jax.random.normal(key_v, flat.shape, flat.dtype), float)
        w = np.ones(1) if base.size == 1 else np.asarray(jax.random.normal(key_w, base.shape), float)
        gradient = np.asarray(pull(flat, jnp.asarray(w, base.dtype)), float)
        if not np.all(np.isfinite(gradient)):
            raise ValueError(f"{where}: the derivative of `f` is not finite at `x`.")
        found.append(_along(values, flat, base, gradient, v, w, steps))
    derivatives, differences, accuracies, orders, remainders = (np.stack(part) for part in zip(*found, strict=True))
    return GradientCheck(derivatives, differences, accuracies, orders, steps, remainders)


def _scale(array: Any) -> Array:
    size = jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(array, float))))
    return jnp.full(jnp.shape(array), jnp.where(size > 0, size, 1.0))


def _along(values: Any, flat: Any, base: Any, gradient: Any, v: Any, w: Any, steps: Any) -> tuple[Any, ...]:
    """Derivative, difference, accuracy, order and remainders in one direction."""
    x0, f0, eps = np.asarray(flat, float), np.asarray(base, float), float(jnp.finfo(flat.dtype).eps)
    rounding = eps * (np.abs(w) @ np.abs(f0) + np.abs(gradient) @ np.abs(x0))  # of one value of phi, and of x + h v

    def phi(t: float) -> float:
        return float(w @ (np.asarray(values(jnp.asarray(x0 + t * v, flat.dtype)), float) - f0))

    ahead, behind = (np.asarray([phi(sign * h) for h in steps]) for sign in (1, -1))
    noise = max(rounding, _noise(np.asarray([phi(k * steps[-1]) for k in range(NOISE_POINTS)])))
    slope = float(gradient @ v)
    remainders = np.abs(ahead - steps * slope)
    difference, accuracy = _extrapolate((ahead - behind) / (2 * steps), noise / steps)
    return slope, difference, accuracy, _order(steps, remainders, SAFETY * noise), remainders


def _noise(values: np.ndarray) -> float:
    """The standard deviation of noise on values at equal steps: of their differences of high order, where smooth
    functions leave nothing."""
    found = []
    for order in range(1, len(values) - 2):
        values = np.diff(values)
        if order >= SMOOTH:
            found.append(np.mean(values**2) * factorial(order) ** 2 / factorial(2 * order))
    return float(np.sqrt(np.max(found)))


def _extrapolate(central: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Ridders' table over the ladder: the entry whose neighbors agree best, and ten times by how much they do not."""
    best, error = float(central[0]), np.inf
    table = [central]
    for column in range(1, len(central)):
        factor = RATIO ** (2 * column)
        left = table[-1]
        table.append((factor * left[1:] - left[:-1]) / (factor - 1))
        for k, value in enumerate(table[-1]):
            off = max(abs(value - left[k]), abs(value - left[k + 1]), noise[k + column])
            if np.isfinite(value) and off < error:
                best, error = float(value), float(off)
    return best, SAFETY * error


def _order(steps: np.ndarray, remainders: np.ndarray, floor: float) -> float:
    """The slope of the remainder over its smallest steps that rounding leaves visible."""
    seen = np.flatnonzero(np.isfinite(remainders) & (remainders > floor))[-3:]
    if len(seen) < 2:
        return float("nan")
    return float(np.polyfit(np.log(steps[seen]), np.log(remainders[seen]), 1)[0])
