"""What a solver needs of the data: a smooth function, its gradient, its proximal operator, its bounds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import (
    check_callable,
    check_instance,
    check_nonnegative_number,
    check_positive_number,
    check_real,
    is_traced,
)
from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.denoisers._denoiser import check_scalar

STATED = "stated by the user"


class DataTerm(eqx.Module):
    r"""A smooth function f of one array, :math:`-\log p(y \mid x)` up to a constant.

    What a term has beyond value and gradient is asked for by method: :meth:`prox` raises where there is none, and the
    bounds are None where nothing is known.
    """

    @abstractmethod
    def value(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """:math:`f(x)`."""

    def gradient(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r""":math:`\nabla f(x)`, by automatic differentiation unless a subclass knows better."""
        x = check_real(type(self).__name__, "x", x)
        return jax.grad(self.value)(jnp.asarray(x, jnp.result_type(x, float)))

    def prox(self, x: Float[Array, "*shape"], step: Any) -> Float[Array, "*shape"]:
        r""":math:`\operatorname{prox}_{\gamma f}(x) = \arg\min_u f(u) + |u - x|^2 / 2 \gamma`, :math:`\gamma` the step.

        Raises:
            TypeError: the term has no proximal operator.
        """
        raise TypeError(
            f"{type(self).__name__}.prox: this data term has no proximal operator. Use a solver that takes its "
            "gradient (`pnp_pgd`, `red_gradient_descent`), or a `LeastSquares`."
        )

    @property
    def has_prox(self) -> bool:
        """Whether :meth:`prox` exists."""
        return type(self).prox is not DataTerm.prox

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of x, where the term knows it."""
        return None

    @property
    def is_convex(self) -> bool:
        """Whether f is known to be convex."""
        return False

    @property
    def curvature(self) -> Any:
        """What the bounds depend on; where it is traced they are not known."""
        return self

    def lipschitz(self) -> Certificate | None:
        r"""L, :math:`|\nabla f(x) - \nabla f(z)| \le L |x - z|`; None where nothing is known. Not within ``jit``."""
        return None

    def strong_convexity(self) -> Certificate | None:
        r""":math:`\mu \ge 0` such that :math:`f - \mu |x|^2 / 2` is convex: here ``bound`` is from **below**, and
        certified if never above the largest such number; None where nothing is known. Not within ``jit``.
        """
        return None

    def least_lipschitz(self) -> float | None:
        """A number that L cannot be below: what shows that a step is too long."""
        found = self.lipschitz()
        return None if found is None else found.bound


class SmoothDataTerm(DataTerm):
    """Any differentiable function, without proximal operator.

    >>> term = SmoothDataTerm(lambda x: jnp.sum(jnp.cosh(x)), strong_convexity=1.0)
    >>> term.gradient(jnp.zeros(3))
    Array([0., 0., 0.], dtype=float32)

    Args:
        function: from one array to a number, differentiable by JAX.
        lipschitz: L of its gradient, if you know it: it is believed, and reported as stated by you.
        strong_convexity: :math:`\\mu`, likewise; 0 says that the function is convex. None: nothing is known.

    Raises:
        TypeError: ``function`` cannot be called, or returns no real number; when called, ``x`` not of real numbers.
        ValueError: ``lipschitz`` not positive, ``strong_convexity`` negative or above ``lipschitz``; ``function``
            returns an array.
    """

    function: Callable
    stated_lipschitz: float | None = eqx.field(static=True)
    stated_convexity: float | None = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[Float[Array, "*shape"]], Float[Array, ""]],
        *,
        lipschitz: float | None = None,
        strong_convexity: float | None = None,
    ):
        here = "SmoothDataTerm"
        self.function = check_callable(here, "function", function, "a function from an array to a number")
        self.stated_lipschitz = None if lipschitz is None else check_positive_number(here, "lipschitz", lipschitz)
        self.stated_convexity = (
            None if strong_convexity is None else check_nonnegative_number(here, "strong_convexity", strong_convexity)
        )
        largest, least = self.stated_lipschitz, self.stated_convexity
        if largest is not None and least is not None and least > largest:
            raise ValueError(f"{here}: `strong_convexity` {least} is above `lipschitz` {largest}; none has both.")

    def value(self, x):
        found = self.function(check_real("SmoothDataTerm", "x", x))
        if jnp.shape(check_real("SmoothDataTerm", "what the function returns", found)) != ():
            raise ValueError(f"SmoothDataTerm: `function` must return one number; got shape {jnp.shape(found)}.")
        return found

    @property
    def is_convex(self):
        return self.stated_convexity is not None

    def lipschitz(self):
        bound = self.stated_lipschitz
        return None if bound is None else Certificate(bound, STATED, True, "the statement is true")

    def strong_convexity(self):
        bound = self.stated_convexity
        return None if bound is None else Certificate(bound, STATED, True, "the statement is true")


def check_data_term(where: str, value: Any, *, prox: bool = False) -> DataTerm:
    """A data term; with ``prox`` one that has a proximal operator."""
    check_instance(where, "data_term", value, DataTerm, "a DataTerm (`LeastSquares(operator, data, scale)` makes one)")
    if prox and not value.has_prox:
        raise TypeError(
            f"{where}: `data_term`, a {type(value).__name__}, has no proximal operator, which this solver needs. Use "
            "`pnp_pgd` or `red_gradient_descent`, or a `LeastSquares`."
        )
    return value


def check_step(where: str, step: Any) -> Any:
    """A positive number, known or traced."""
    return check_scalar(where, "step", step)


def check_stable(where: str, term: DataTerm, step: Any, most: float, range_: str) -> None:
    """Raise if ``step`` times L is ``most`` or more for certain, where both are known.

    A bound of L from above proves that a step is short enough; only one from below proves that it is too long.
    """
    if is_traced(step, term.curvature):
        return
    with jax.core.eval_context():
        above = term.lipschitz()
        if above is None or float(step) * above.bound < most:
            return
        below = term.least_lipschitz()
    if below is not None and float(step) * below >= most * (1 + 1e-5):
        raise ValueError(
            f"{where}: `step` must be {range_} = {most / below:.4g}, with L the Lipschitz constant of the gradient of "
            f"the data term, at least {below:.4g}; got {float(step):.4g}."
        )
