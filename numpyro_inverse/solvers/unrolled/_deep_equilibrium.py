"""A network defined by its fixed point, trained by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_count, check_positive_number
from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.solvers._data_term import DataTerm, check_data_term
from numpyro_inverse.solvers._fixed_point import Iteration, Scheme, Solution, solve
from numpyro_inverse.solvers.unrolled._learned_proximal_gradient import (
    first_guess,
    frozen,
    layer_certificate,
    returned,
)

HERE = "DeepEquilibrium"


class _Map(Iteration):
    """:math:`N(x - \\gamma \\nabla f(x))`."""

    network: Callable
    data_term: DataTerm
    step: Float[Array, ""]

    def __call__(self, z):
        return returned(HERE, "network", self.network, z - self.step.astype(z.dtype) * self.data_term.gradient(z), z)


class DeepEquilibrium(eqx.Module):
    r"""The solution of :math:`x = N(x - \gamma \nabla f(x))`: infinitely many layers with one set of weights.

    Its derivatives cost one linear solve and the memory of one layer. With a network of Lipschitz constant below 1
    (:class:`NonexpansiveNetwork`) and a convex f the solution exists, is one, and is found, for all weights:
    :math:`\gamma = (2 / L)\, \mathrm{sigmoid}(t)` stays below 2 / L. With others nothing is promised; :meth:`solve`
    says whether it converged.

    Args:
        network: N, from an array to an array of its shape.
        lipschitz: L of the data terms that it will be given, or a bound.
        max_steps: iterations at most.
        tolerance: of the relative residual; default 1e-5 in single, 1e-8 in double precision.

    Raises:
        TypeError: ``network`` cannot be called, or returns no real numbers.
        ValueError: ``network`` returns another shape; ``lipschitz``, ``max_steps`` or ``tolerance`` not positive.
        Divergence: as for the solvers, where it is called outside ``jit`` and ``grad``.

    References:
        Bai, Kolter & Koltun, NeurIPS (2019); Gilton, Ongie & Willett, IEEE Trans. Comput. Imaging 7 (2021) 1123-1133.
    """

    network: Callable
    raw_step: Float[Array, ""]
    lipschitz: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)

    def __init__(self, network: Callable, *, lipschitz: float, max_steps: int = 500, tolerance: float | None = None):
        self.network = check_callable(HERE, "network", network, "a function of an array")
        self.lipschitz = check_positive_number(HERE, "lipschitz", lipschitz)
        self.max_steps = check_count(HERE, "max_steps", max_steps)
        self.tolerance = None if tolerance is None else check_positive_number(HERE, "tolerance", tolerance)
        self.raw_step = jnp.zeros((), float)

    @property
    def step(self) -> Float[Array, ""]:
        """The step, in (0, 2 / L)."""
        return 2 / self.lipschitz * jax.nn.sigmoid(self.raw_step)

    def solve(self, data_term: DataTerm, x0: Any = None) -> Solution:
        """The fixed point and how it was reached.

        Args:
            data_term: f, such as ``term.with_data(y)``; it is not trained.
            x0: where to start; default: zeros of the data term's shape.
        """
        x: Array = first_guess(HERE, data_term, x0)
        iteration = _Map(self.network, frozen(data_term), self.step)
        return solve(HERE, iteration, x, Scheme(), max_steps=self.max_steps, tolerance=self.tolerance)

    def certificate(self, data_term: DataTerm) -> Certificate:
        """A bound of the Lipschitz constant of the map: below 1, there is one solution, and it is found.

        Raises:
            ValueError: the network has no certificate, or L or mu are not known.
        """
        check_data_term(f"{HERE}.certificate", data_term)
        return layer_certificate(HERE, self.network, float(self.step), data_term)

    def __call__(self, data_term: DataTerm, x0: Any = None) -> Float[Array, "*shape"]:
        """The fixed point."""
        return self.solve(data_term, x0).x
