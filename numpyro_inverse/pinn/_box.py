"""Where an equation holds: a box, of space or of space and time, and the points at which it is looked at."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import qmc

from numpyro_inverse._checks import check_choice, check_count, check_finite, check_flag, check_static
from numpyro_inverse.pinn._parameters import as_point

HERE = "Box"


class Box(eqx.Module):
    r"""The box :math:`\prod_i [a_i, b_i]`; with ``time``, its last axis is time.

    A point is an array of shape (d,), coordinates first to last, in the units of the bounds; points have shape (n, d).

    Args:
        lower: :math:`a`, shape (d,), or one number for an interval.
        upper: :math:`b`.
        time: whether the last axis is time: its faces are no boundary, and an initial condition holds at its lower end.

    Raises:
        TypeError: bounds that are no numbers or are traced.
        ValueError: bounds of different shapes, not finite, or in the wrong order.
    """

    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    time: bool = eqx.field(static=True)

    def __init__(self, lower: Any, upper: Any, *, time: bool = False):
        low, high = (
            np.atleast_1d(np.asarray(check_finite(HERE, name, check_static(HERE, name, value)), float))
            for name, value in (("lower", lower), ("upper", upper))
        )
        if low.ndim != 1 or low.shape != high.shape:
            raise ValueError(f"{HERE}: `lower` and `upper` must have one shape (d,); got {low.shape} and {high.shape}.")
        if not np.all(low < high):
            raise ValueError(f"{HERE}: `lower` must be below `upper`; got {low} and {high}.")
        self.lower, self.upper = tuple(low.tolist()), tuple(high.tolist())
        self.time = check_flag(HERE, "time", time)

    @property
    def ndim(self) -> int:
        """Number of axes, time included."""
        return len(self.lower)

    @property
    def space(self) -> int:
        """Number of axes of space."""
        return self.ndim - self.time

    @property
    def extent(self) -> tuple[float, ...]:
        """Lengths of the sides."""
        return tuple(b - a for a, b in zip(self.lower, self.upper, strict=True))

    def grid(self, num: int | tuple[int, ...]) -> Float[Array, "n d"]:
        """The midpoints of equal cells, ``num`` along each axis; last axis fastest."""
        axes = [
            a + (np.arange(n) + 0.5) * (b - a) / n
            for a, b, n in zip(self.lower, self.upper, self._counts("grid", num, self.ndim), strict=True)
        ]
        return _product(axes)

    def nodes(self, num: int | tuple[int, ...]) -> Float[Array, "n d"]:
        """The inner nodes of a lattice, ``num`` along each axis, a step away from the faces; last axis fastest."""
        axes = [
            a + np.arange(1, n + 1) * (b - a) / (n + 1)
            for a, b, n in zip(self.lower, self.upper, self._counts("nodes", num, self.ndim), strict=True)
        ]
        return _product(axes)

    def latin_hypercube(self, num: int, *, seed: int) -> Float[Array, "n d"]:
        """A Latin hypercube design (SciPy's)."""
        seed = check_count("Box.latin_hypercube", "seed", seed, 0)
        unit = qmc.LatinHypercube(self.ndim, rng=seed).random(check_count("Box.latin_hypercube", "num", num))
        return self._scaled(unit)

    def sobol(self, num: int, *, seed: int) -> Float[Array, "n d"]:
        """The first points of a scrambled Sobol sequence (SciPy's); powers of two are balanced best."""
        count = check_count("Box.sobol", "num", num)
        sequence = qmc.Sobol(self.ndim, rng=check_count("Box.sobol", "seed", seed, 0))
        return self._scaled(sequence.random_base2(int(np.ceil(np.log2(count))))[:count])

    def boundary(self, num: int = 1) -> Float[Array, "n d"]:
        """Points on the faces across the axes of space: a lattice of ``num`` along each axis of every face.

        On an interval they are its two ends. With time, ``num`` times on each face, from the initial one to the last.
        """
        num = check_count("Box.boundary", "num", num)
        points = []
        for axis in range(self.space):
            axes = [
                np.linspace(a, b, num)
                if self.time and i == self.ndim - 1
                else a + (np.arange(num) + 0.5) * (b - a) / num
                for i, (a, b) in enumerate(zip(self.lower, self.upper, strict=True))
            ]
            for end in (self.lower[axis], self.upper[axis]):
                points.append(_product([np.array([end]) if i == axis else v for i, v in enumerate(axes)]))
        if not points:
            raise ValueError("Box.boundary: the box has no axis of space.")
        return jnp.concatenate(points)

    def initial(self, num: int = 1) -> Float[Array, "n d"]:
        """Points at the first time: a grid of ``num`` cells along each axis of space.

        Raises:
            ValueError: the box has no time.
        """
        if not self.time:
            raise ValueError("Box.initial: the box has no time. Make it with `time=True`.")
        num = check_count("Box.initial", "num", num)
        spaces = [
            a + (np.arange(num) + 0.5) * (b - a) / num for a, b in zip(self.lower[:-1], self.upper[:-1], strict=True)
        ]
        return _product([*spaces, np.array([self.lower[-1]])])

    def distance(self, x: Float[Array, " d"], *, boundary: bool = True, initial: bool = False) -> Float[Array, ""]:
        r"""A smooth function that vanishes on the boundary, and with ``initial`` at the first time, linearly:
        :math:`\prod_i 4 (x_i - a_i)(b_i - x_i) / (b_i - a_i)^2`, times :math:`(t - a_d)/(b_d - a_d)`.

        Raises:
            TypeError: ``x`` is no real numbers, a flag neither True nor False.
            ValueError: ``x`` is no point of the box's axes; ``initial`` of a box without time.
        """
        here = "Box.distance"
        x = as_point(here, x, self.ndim)
        boundary = check_flag(here, "boundary", boundary)
        if check_flag(here, "initial", initial) and not self.time:
            raise ValueError(f"{here}: `initial` needs a box with time; make it with `time=True`.")
        value = jnp.ones((), x.dtype)
        for i in range(self.space if boundary else 0):
            value = value * 4 * (x[i] - self.lower[i]) * (self.upper[i] - x[i]) / self.extent[i] ** 2
        if initial:
            value = value * (x[-1] - self.lower[-1]) / self.extent[-1]
        return value

    def unit(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The point in the box [-1, 1]^d."""
        x = as_point("Box.unit", x, self.ndim)
        low, length = (jnp.asarray(v, x.dtype) for v in (self.lower, self.extent))
        return 2 * (x - low) / length - 1

    def check_points(self, where: str, argument: str, points: Any, *, on: str = "inside") -> Float[Array, "n d"]:
        """Points of shape (n, d) in the closed box; ``on`` "boundary" or "initial" for those that must be there.

        Raises:
            TypeError, ValueError: not so; the first wrong point is named.
        """
        check_choice(where, "on", on, ("inside", "boundary", "initial"))
        found = check_finite(where, argument, check_static(where, argument, points))
        if np.ndim(found) != 2 or np.shape(found)[1] != self.ndim or np.shape(found)[0] == 0:
            raise ValueError(
                f"{where}: `{argument}` must be points, of shape (n, {self.ndim}); got shape {np.shape(found)}."
            )
        array, low, high = np.asarray(found, float), np.array(self.lower), np.array(self.upper)
        slack = 1e-6 * np.array(self.extent)
        good = np.all((array >= low - slack) & (array <= high + slack), axis=1)
        words = "in the domain"
        if on == "boundary":
            s = self.space
            on_face = (np.abs(array - low) <= slack) | (np.abs(array - high) <= slack)
            good, words = good & np.any(on_face[:, :s], axis=1), "on the boundary"
        if on == "initial":
            good, words = good & (np.abs(array[:, -1] - low[-1]) <= slack[-1]), "at the first time"
        if not good.all():
            raise ValueError(
                f"{where}: `{argument}` must lie {words}, {list(zip(self.lower, self.upper, strict=True))}; "
                f"{int((~good).sum())} of {len(good)} do not, the first of them {array[~good][0]}."
            )
        return jnp.asarray(found, jnp.result_type(float))

    def _scaled(self, unit: np.ndarray) -> Array:
        return jnp.asarray(np.array(self.lower) + unit * np.array(self.extent))

    def _counts(self, where: str, num: Any, axes: int) -> tuple[int, ...]:
        counts = tuple(num) if isinstance(num, tuple | list) else (num,) * axes
        if len(counts) != axes:
            raise ValueError(f"Box.{where}: `num` must be one count or {axes}; got {num}.")
        return tuple(check_count(f"Box.{where}", "num", n) for n in counts)


def _product(axes: list[np.ndarray]) -> Array:
    return jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)))
