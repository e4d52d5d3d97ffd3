"""Averaged iteration of any nonexpansive map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_real, is_traced
from numpyro_inverse.denoisers._denoiser import check_scalar, one_number
from numpyro_inverse.solvers._fixed_point import Iteration, Scheme, Solution, solve

HERE = "krasnoselskii_mann"


class _Any(Iteration):
    """A function as it is."""

    function: Callable

    def __call__(self, z):
        found = check_real(HERE, "what the operator returns", self.function(z))
        if jnp.shape(found) != jnp.shape(z):
            raise ValueError(
                f"{HERE}: `operator` must return an array of the shape of `x0`, {jnp.shape(z)}; got {jnp.shape(found)}."
            )
        return jnp.asarray(found, z.dtype)


class Averaged(Scheme):
    """:math:`z_{k+1} = (1 - a_k) z_k + a_k T(z_k)`."""

    relaxation: Any

    def next(self, z, image, memory, k):
        weight = self.relaxation
        if callable(weight):
            weight = one_number(HERE, "what the relaxation returns", weight(k))
        return z + jnp.asarray(weight, z.dtype) * (image - z), memory


def krasnoselskii_mann(
    operator: Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]],
    x0: Float[Array, "*shape"],
    *,
    relaxation: float | Callable[[Any], Any] = 0.5,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r"""The Krasnosel'skii-Mann iteration: :math:`x_{k+1} = (1 - a_k) x_k + a_k T(x_k)`.

    It converges for every **nonexpansive** T that has a fixed point, if :math:`\sum_k a_k (1 - a_k) = \infty`, as for a
    constant in (0, 1). Plain iteration, :math:`a_k = 1`, does not: T = -I. An :math:`\alpha`-averaged T allows
    :math:`a_k` in :math:`(0, 1/\alpha)`: over-relaxation. The maps of the solvers here may be iterated this way.

    >>> krasnoselskii_mann(lambda x: 2 - x, jnp.array([3.0, 5.0])).x.tolist()
    [1.0, 1.0]

    Args:
        operator: T, any function of an array; a pytree (an Equinox module, one of ``ProximalGradientMap``,
            ``ADMMMap``, ...) is compiled once for all values of its arrays. A map starts at ``x0`` by its own rule, and
            the solution is read off its fixed point.
        x0: where to start.
        relaxation: :math:`a_k`, one number, or a function of k = 0, 1, ...
        max_steps: iterations at most.
        tolerance: of the relative residual :math:`|T(x) - x| / |T(x)|`.

    Raises:
        TypeError: ``operator`` cannot be called, or returns no real numbers; ``relaxation`` no number and no function.
        ValueError: ``relaxation`` not one number, not positive, or 2 or more; ``operator`` returns another shape;
            ``x0`` not finite.
        Divergence: as :func:`pnp_pgd`.

    References:
        Krasnosel'skii, Uspekhi Mat. Nauk 10 (1955) 123-127; Mann, Proc. Amer. Math. Soc. 4 (1953) 506-510; Bauschke &
        Combettes, *Convex Analysis and Monotone Operator Theory*, theorem 5.15.
    """
    check_callable(HERE, "operator", operator, "a function of an array")
    iteration = operator if isinstance(operator, Iteration) else _Any(operator)
    if not callable(relaxation):
        check_scalar(HERE, "relaxation", relaxation)
        if not is_traced(relaxation) and not float(relaxation) < 2:
            raise ValueError(
                f"{HERE}: `relaxation` must be below 2, and below 1 unless the map is averaged; got {relaxation}."
            )
        relaxation = jnp.asarray(relaxation, float)
    scheme = Averaged(relaxation)
    shape = getattr(getattr(iteration, "data_term", None), "shape", None)
    return solve(HERE, iteration, x0, scheme, max_steps=max_steps, tolerance=tolerance, shape=shape)
