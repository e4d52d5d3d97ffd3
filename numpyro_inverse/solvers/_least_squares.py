"""Gaussian data of a linear forward map: the data term whose proximal operator is exact."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from numpyro_inverse._checks import check_finite, check_numeric, check_positive, check_positive_number, is_traced
from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.denoisers._denoiser import check_signal
from numpyro_inverse.operators import LinearOperator
from numpyro_inverse.operators._linear_operator import check_operator
from numpyro_inverse.solvers._data_term import DataTerm, check_step
from numpyro_inverse.solvers._spectrum import Spectrum, spectrum_of

HERE = "LeastSquares"


class LeastSquares(DataTerm):
    r""":math:`f(x) = |A x - y|^2 / 2 s^2`, the data term of :math:`y \sim N(A x, s^2 I)`.

    With :math:`H = \mathrm{Re}\, A^{\mathsf H} A`, :math:`c = \gamma / s^2`,

    .. math:: \operatorname{prox}_{\gamma f}(x) = x + (I + c H)^{-1} c\, \mathrm{Re}\, A^{\mathsf H} (y - A x).

    The inverse is a product where H is diagonal (masks), a product of transforms where it is diagonal in
    the Fourier basis (periodic convolutions, Fourier samples), a product with the eigenvectors of H up to
    1024 numbers, and else conjugate gradients to a residual of ``tolerance`` times the right side; which one is found
    from what H does, so that compositions count too. A solve that misses its tolerance within 1000 steps gives NaN,
    which every solver reports.

    >>> term = LeastSquares(blur, y, 0.1)
    >>> term.lipschitz().certified
    True

    Args:
        operator: A. Weights of the data go into it. May be traced, and is then matrix-free.
        data: y, of the shape of A's output; may be traced.
        scale: s, the standard deviation of the noise: one number, which may be traced.
        tolerance: of conjugate gradients; default 1e-5 in single, 1e-10 in double precision.

    Raises:
        TypeError: ``operator`` is no operator, ``data`` or ``scale`` no numbers.
        ValueError: ``data`` of another shape or not finite, ``scale`` not positive; when called, ``x`` of another shape
            than the operator acts on.

    Derivatives with respect to A's own parameters are right where the term is made inside the differentiated function:
    a term that is itself differentiated has H as a constant.
    """

    operator: LinearOperator
    data: Inexact[Array, "*out_shape"]
    scale: Float[Array, ""]
    spectrum: Spectrum

    def __init__(self, operator: LinearOperator, data: Any, scale: Any, *, tolerance: float | None = None):
        self.operator = check_operator(HERE, "operator", operator)
        self.data = _checked_data(HERE, data, operator)
        self.scale = jnp.asarray(check_positive(HERE, "scale", scale), jnp.result_type(float))
        if self.scale.ndim != 0:
            raise ValueError(
                f"{HERE}: `scale` must be one number; got shape {self.scale.shape}. Weights of the data go into the "
                "operator."
            )
        if tolerance is None:
            tolerance = 1e-10 if jnp.finfo(jnp.result_type(float)).bits == 64 else 1e-5
        self.spectrum = spectrum_of(operator, check_positive_number(HERE, "tolerance", tolerance))

    def with_data(self, data: Any) -> LeastSquares:
        """The same term for other data, which may be traced: ``jax.vmap(lambda y: solve(term.with_data(y)))``."""
        checked = _checked_data(f"{HERE}.with_data", data, self.operator)
        return eqx.tree_at(lambda term: term.data, self, checked)

    def value(self, x):
        x = self._checked(x)
        residual = self.operator.mv(x) - self._data_for(x)
        return jnp.sum(jnp.abs(residual) ** 2) / (2 * self.scale.astype(x.dtype) ** 2)

    def gradient(self, x):
        x = self._checked(x)
        residual = self.operator.mv(x) - self._data_for(x)
        return self._adjoint(residual, x) / self.scale.astype(x.dtype) ** 2

    def prox(self, x, step):
        x, step = self._checked(x), check_step(f"{HERE}.prox", step)
        c = jnp.asarray(step, x.dtype) / self.scale.astype(x.dtype) ** 2
        residual = self._data_for(x) - self.operator.mv(x)
        return x + self.spectrum.resolvent(c * self._adjoint(residual, x), c)

    def _checked(self, x: Any) -> Array:
        x = check_signal(HERE, x, self.shape)
        return jnp.asarray(x, jnp.result_type(x, float))

    def _adjoint(self, residual: Array, x: Array) -> Array:
        return jnp.real(self.operator.H.mv(residual)).astype(x.dtype)

    def _data_for(self, x: Array) -> Array:
        dtype = jnp.result_type(x.dtype, jnp.complex64) if jnp.iscomplexobj(self.data) else x.dtype
        return self.data.astype(dtype)

    @property
    def shape(self):
        return tuple(self.operator.in_shape)

    @property
    def is_convex(self):
        return True

    @property
    def curvature(self):
        return self.spectrum, self.scale

    def lipschitz(self):
        return _scaled(self.spectrum.largest(), self._weight)

    def strong_convexity(self):
        return _scaled(self.spectrum.smallest(), self._weight)

    def least_lipschitz(self):
        return self.spectrum.least_largest() * self._weight

    @property
    def _weight(self) -> float:
        return 1 / float(self.scale) ** 2


def _scaled(certificate: Certificate, weight: float) -> Certificate:
    return certificate._replace(bound=certificate.bound * weight)


def _checked_data(where: str, data: Any, operator: LinearOperator) -> Array:
    found = check_numeric(where, "data", data)
    if not is_traced(found) and not jnp.iscomplexobj(found):
        check_finite(where, "data", found)
    elif not is_traced(found) and not bool(jnp.all(jnp.isfinite(found))):
        bad = int(jnp.sum(~jnp.isfinite(found)))
        raise ValueError(f"{where}: `data` must be finite; {bad} of its {jnp.size(found)} entries are not.")
    if jnp.shape(found) != tuple(operator.out_shape):
        raise ValueError(
            f"{where}: `data` must have the shape of the operator's output, {tuple(operator.out_shape)}; got "
            f"{jnp.shape(found)}."
        )
    return jnp.asarray(found) if jnp.iscomplexobj(found) else jnp.asarray(found, jnp.result_type(float))
