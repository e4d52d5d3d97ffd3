"""Is an operator's adjoint its adjoint? The dot-product test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from numpyro_inverse._checks import check_count, check_key, check_positive_number
from numpyro_inverse.operators._linear_operator import LinearOperator, check_operator

ROUNDING = 10.0  # times epsilon times the root of the number of entries


@dataclass(frozen=True)
class AdjointCheck:
    r"""What :func:`check_adjoint` found, relative to :math:`|A x| \, |y| / \sqrt{m}`, one entry per pair.

    Attributes:
        mismatches: :math:`|\langle A x, y \rangle - \langle x, A^{\mathsf H} y \rangle|`.
        nonlinearities: :math:`|A(x + a z) - A x - a A z|`, relative to the norms.
        tolerance: of both.
    """

    mismatches: np.ndarray
    nonlinearities: np.ndarray
    tolerance: float

    @property
    def linear(self) -> bool:
        """Whether the operator is linear."""
        return bool(np.all(self.nonlinearities <= self.tolerance))

    @property
    def holds(self) -> bool:
        """Whether the operator is linear and the adjoint its adjoint."""
        return self.linear and bool(np.all(self.mismatches <= self.tolerance))

    def __str__(self) -> str:
        verdict = "right" if self.holds else "wrong" if self.linear else "none: the operator is not linear"
        return (
            f"adjoint {verdict}: dot products differ by {self.mismatches.max():.1e}, sums by "
            f"{self.nonlinearities.max():.1e} (allowed: {self.tolerance:.1e})"
        )

    def require(self, where: str) -> None:
        """Raise unless the adjoint is right.

        Raises:
            ValueError: it is not.
        """
        if not self.holds:
            raise ValueError(f"{where}: {self}.")


def check_adjoint(
    A: LinearOperator, *, rng_key: Key[Array, ""] | None = None, num_pairs: int = 4, tolerance: float | None = None
) -> AdjointCheck:
    r"""Test :math:`\langle A x, y \rangle = \langle x, A^{\mathsf H} y \rangle` for random x and y, and A linear.

    An operator of JAX code has its adjoint from JAX, and passes; :class:`ExternalLinear` has the one it was given. A
    wrong adjoint makes samplers and solvers that look as if they ran and converge to something else.

    >>> print(ni.operators.check_adjoint(ni.operators.Mask(np.arange(4) > 1)).holds)
    True

    Args:
        A: the operator; a pair of functions is an operator by :class:`ExternalLinear`.
        rng_key: of x and y; default: ``jax.random.key(0)``.
        num_pairs: how many.
        tolerance: relative; default: :math:`10 \sqrt{n + m}` roundings. Backprojectors that are only near the adjoint
            fail at any sensible one.

    Returns:
        The report.

    Raises:
        TypeError: ``A`` is no operator, ``rng_key`` no key, or an option no number.
        ValueError: an option out of range.
    """
    where = "check_adjoint"
    check_operator(where, "A", A)
    count = check_count(where, "num_pairs", num_pairs)
    if rng_key is not None:
        check_key(where, "rng_key", rng_key)
    if tolerance is not None:
        tolerance = check_positive_number(where, "tolerance", tolerance)
    keys = jax.random.split(jax.random.key(0) if rng_key is None else rng_key, (count, 4))
    dtype = jnp.result_type(float)
    out = jax.eval_shape(A.mv, jax.ShapeDtypeStruct(A.in_shape, dtype))
    x, z = (jax.vmap(lambda k: jax.random.normal(k, A.in_shape, dtype))(keys[:, i]) for i in (0, 1))
    y = jax.vmap(lambda k: jax.random.normal(k, A.out_shape, out.dtype))(keys[:, 2])
    factor = jax.vmap(lambda k: jax.random.normal(k, (), dtype))(keys[:, 3])
    Ax, Az, both = (_rows(A(v)) for v in (x, z, x + _columns(factor, x.ndim) * z))
    back, x, y, factor = _rows(A.H(y)), _rows(x), _rows(y), np.asarray(factor)
    m, n = y.shape[1], x.shape[1]
    if tolerance is None:
        tolerance = ROUNDING * float(np.sqrt(m + n)) * float(jnp.finfo(dtype).eps)
    products = np.sum(np.conj(Ax) * y, 1), np.sum(np.conj(x) * back, 1)
    mismatch = np.abs(products[0] - products[1])
    size = np.linalg.norm(Ax, axis=1) * np.linalg.norm(y, axis=1) / np.sqrt(m)
    sizes = np.linalg.norm(Ax, axis=1) + np.abs(factor) * np.linalg.norm(Az, axis=1)
    off = np.linalg.norm(both - Ax - factor[:, None] * Az, axis=1)
    return AdjointCheck(_ratio(mismatch, size), _ratio(off, sizes), tolerance)


def _ratio(part: Any, whole: Any) -> np.ndarray:
    return np.where(part == 0, 0.0, part / np.where(whole == 0, np.finfo(float).tiny, whole))


def _rows(values: Any) -> np.ndarray:
    """Rows of flat arrays, in double precision, so that the products' own rounding does not count."""
    array = np.asarray(values)
    return array.reshape(len(array), -1).astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _columns(factor: Any, ndim: int) -> Any:
    return factor.reshape((-1,) + (1,) * (ndim - 1))
