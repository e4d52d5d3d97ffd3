"""Trial spaces that are linear in their coefficients: sines, Chebyshev polynomials, powers."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_instance, check_real
from numpyro_inverse.pinn._box import Box
from numpyro_inverse.pinn._parameters import as_point


class LinearBasis(eqx.Module):
    r"""Functions :math:`u(x) = \sum_k \phi_k e_k(x)`; the coefficients :math:`\phi` are the parameters.

    Subclasses say what the :math:`e_k` are. For a system of m functions the coefficients have shape (K, m).
    """

    coefficients: eqx.AbstractVar[Float[Array, "k *m"]]

    @abstractmethod
    def functions(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        """The :math:`e_k` at a point."""

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "*m"]:
        x = as_point(type(self).__name__, x)
        return jnp.tensordot(self.functions(x), self.coefficients.astype(x.dtype), axes=1)

    def with_coefficients(self, coefficients: Float[Array, "k *m"]) -> LinearBasis:
        """The function with other coefficients, which may be traced.

        Raises:
            TypeError: no real numbers.
            ValueError: of another shape.
        """
        found = jnp.asarray(check_real(type(self).__name__, "coefficients", coefficients))
        if found.shape != self.coefficients.shape:
            raise ValueError(
                f"{type(self).__name__}: `coefficients` must have shape {self.coefficients.shape}; got {found.shape}."
            )
        return eqx.tree_at(lambda u: u.coefficients, self, found)


class ProductBasis(LinearBasis):
    """Products of :math:`K_i` functions of each coordinate; the last axis is fastest."""

    coefficients: Float[Array, "k *m"]
    domain: Box
    num: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, domain: Box, num: int | tuple[int, ...], *, outputs: int | None = None):
        name = type(self).__name__
        self.domain = check_instance(name, "domain", domain, Box, "a Box")
        counts = tuple(num) if isinstance(num, tuple | list) else (num,) * domain.ndim
        if len(counts) != domain.ndim:
            raise ValueError(f"{name}: `num` must be one count or {domain.ndim}; got {num}.")
        self.num = tuple(check_count(name, "num", n) for n in counts)
        size = int(np.prod(self.num))
        self.coefficients = jnp.zeros((size,) if outputs is None else (size, check_count(name, "outputs", outputs)))

    @abstractmethod
    def along(self, t: Float[Array, ""], n: int) -> Float[Array, " n"]:
        """The first n functions of one coordinate, mapped to :math:`[-1, 1]`."""

    def functions(self, x):
        value, *others = [self.along(t, n) for n, t in zip(self.num, self.domain.unit(x), strict=True)]
        for other in others:
            value = jnp.outer(value, other).ravel()
        return value


class SineBasis(ProductBasis):
    r"""The eigenfunctions of the Laplacian that vanish on the boundary,
    :math:`\prod_i \sqrt{2} \sin(k_i \pi (x_i - a_i)/(b_i - a_i))`, :math:`k_i = 1, \dots, K_i`: orthonormal on the unit
    box.

    Args:
        domain: the box.
        num: :math:`K_i`, one count or one an axis; the last axis is fastest.
        outputs: the number m of functions of a system; None for one number.
    """

    def along(self, t, n):
        return jnp.sqrt(2.0).astype(t.dtype) * jnp.sin(jnp.arange(1, n + 1) * jnp.pi * (t + 1) / 2)


class ChebyshevBasis(ProductBasis):
    r"""Products of Chebyshev polynomials :math:`T_0, \dots, T_{K-1}` of each coordinate, the box mapped to
    :math:`[-1, 1]^d`.

    Args:
        domain: the box.
        num: K, one count or one an axis; the last axis is fastest.
        outputs: the number m of functions of a system; None for one number.
    """

    def along(self, t, n):
        values = [jnp.ones_like(t), t]
        while len(values) < n:
            values.append(2 * t * values[-1] - values[-2])
        return jnp.stack(values[:n])


class PolynomialBasis(ProductBasis):
    r"""Products of powers :math:`1, s, \dots, s^{K-1}` of each coordinate, the box mapped to :math:`[-1, 1]^d`.

    What people write first, and ill-conditioned: beyond ten powers take :class:`ChebyshevBasis`.

    Args:
        domain: the box.
        num: K, one count or one an axis; the last axis is fastest.
        outputs: the number m of functions of a system; None for one number.
    """

    def along(self, t, n):
        values = [jnp.ones_like(t)]
        while len(values) < n:
            values.append(values[-1] * t)
        return jnp.stack(values)
