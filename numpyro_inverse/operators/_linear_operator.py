"""The algebra of linear forward maps: ``A @ x``, ``A.T``, ``A.H``, sums, products, scalings."""

from abc import abstractmethod
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from numpyro_inverse._checks import check_instance, check_numeric, check_trailing
from numpyro_inverse.operators._inputs import in_precision_of


class LinearOperator(eqx.Module):
    r"""A linear map :math:`A : \mathbb{R}^{\text{in\_shape}} \to \mathbb{R}^{\text{out\_shape}}` as a pytree.

    A subclass defines ``in_shape``, ``out_shape`` and :meth:`mv` for one array; batching, the algebra and the
    adjoint follow. Adjoints come from :func:`jax.linear_transpose`, so
    :math:`\langle A x, y\rangle = \langle x, A^{\mathsf T} y\rangle` holds to rounding. Where an operator knows a
    provable bound of its largest singular value, :meth:`norm_bound` gives it.
    """

    in_shape: eqx.AbstractVar[tuple[int, ...]]
    out_shape: eqx.AbstractVar[tuple[int, ...]]

    @abstractmethod
    def mv(self, x: Inexact[Array, "*in_shape"]) -> Inexact[Array, "*out_shape"]:
        """Apply the operator to one array of shape ``in_shape``."""

    def norm_bound(self) -> Any | None:
        """A certified upper bound of the spectral norm, or ``None`` where none is known."""
        return None

    def __call__(self, x: Inexact[Array, "*batch_and_in"]) -> Inexact[Array, "*batch_and_out"]:
        """Apply the operator to the trailing axes of ``x``; leading axes are batch axes.

        Integers and booleans are taken for floating-point numbers, half precision for single.

        Raises:
            TypeError: ``x`` is not an array of numbers.
            ValueError: the trailing axes of ``x`` are not ``in_shape``.
        """
        x = as_numbers(type(self).__name__, x)
        batch = _batch_shape(type(self).__name__, x, self.in_shape)
        if not batch:
            return self.mv(x)
        flat = jax.vmap(self.mv)(x.reshape((prod(batch), *self.in_shape)))
        return flat.reshape(batch + self.out_shape)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, LinearOperator):
            return Composition(self, other)
        return self(other)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return Sum(self, -1.0 * other) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: Any) -> "LinearOperator":
        if isinstance(factor, LinearOperator):
            return NotImplemented
        return Scaled(self, jnp.asarray(check_numeric(f"{type(self).__name__} * factor", "factor", factor)))

    __rmul__ = __mul__

    def __neg__(self) -> "LinearOperator":
        return Scaled(self, jnp.asarray(-1.0))

    @property
    def T(self) -> "LinearOperator":
        """The transpose (the adjoint without conjugation; the same as ``H`` for real operators)."""
        return Transpose(self)

    @property
    def H(self) -> "LinearOperator":
        """The adjoint: :math:`\\langle A x, y\\rangle = \\langle x, A^{\\mathsf H} y\\rangle`."""
        return Adjoint(self)

    def as_matrix(self) -> Inexact[Array, "out_size in_size"]:
        """The dense matrix acting on raveled arrays; for small operators and tests."""
        columns = jax.vmap(lambda e: jnp.ravel(self.mv(e.reshape(self.in_shape))))(jnp.eye(prod(self.in_shape)))
        return columns.T


def as_numbers(name: str, x: Any) -> Array:
    """``x`` as an array of floating-point or complex numbers of single precision at least."""
    boolean = getattr(x, "dtype", None) in (np.bool_, bool)
    x = jnp.asarray(x if boolean else check_numeric(name, "x", x))
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x.astype(jnp.result_type(float))
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def check_operator(where: str, argument: str, value: Any) -> Any:
    """A linear operator."""
    return check_instance(
        where, argument, value, LinearOperator, "a LinearOperator (`Matrix(a)` makes one of an array)"
    )


def _batch_shape(name: str, x: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    check_trailing(name, "x", x, tuple(shape))
    return x.shape[: x.ndim - len(shape)]


class Transpose(LinearOperator):
    """The transpose of ``operator``, derived by :func:`jax.linear_transpose`."""

    operator: LinearOperator

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.operator.out_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.operator.in_shape

    def mv(self, x):
        domain = jax.ShapeDtypeStruct(self.operator.in_shape, x.dtype)
        codomain = jax.eval_shape(self.operator.mv, domain)
        domain = domain.update(dtype=codomain.dtype)  # complex if the operator is, also for real x
        (y,) = jax.linear_transpose(self.operator.mv, domain)(x.astype(codomain.dtype))
        return y

    def norm_bound(self):
        return self.operator.norm_bound()

    @property
    def T(self) -> "LinearOperator":
        return self.operator


class Adjoint(LinearOperator):
    """The conjugate transpose of ``operator``."""

    operator: LinearOperator

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.operator.out_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.operator.in_shape

    def mv(self, x):
        return jnp.conj(self.operator.T.mv(jnp.conj(x)))

    def norm_bound(self):
        return self.operator.norm_bound()

    @property
    def H(self) -> "LinearOperator":
        return self.operator


class Composition(LinearOperator):
    """``outer @ inner``."""

    outer: LinearOperator
    inner: LinearOperator

    def __check_init__(self):
        check_operator("Composition", "outer", self.outer)
        check_operator("Composition", "inner", self.inner)
        if self.outer.in_shape != self.inner.out_shape:
            raise ValueError(
                f"Composition: `outer`, a {type(self.outer).__name__}, acts on shape {self.outer.in_shape}, but "
                f"`inner`, a {type(self.inner).__name__}, returns shape {self.inner.out_shape}."
            )

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.inner.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.outer.out_shape

    def mv(self, x):
        return self.outer.mv(self.inner.mv(x))

    def norm_bound(self):
        a, b = self.outer.norm_bound(), self.inner.norm_bound()
        return None if a is None or b is None else a * b


class Sum(LinearOperator):
    """``left + right``."""

    left: LinearOperator
    right: LinearOperator

    def __check_init__(self):
        check_operator("Sum", "left", self.left)
        check_operator("Sum", "right", self.right)
        if (self.left.in_shape, self.left.out_shape) != (self.right.in_shape, self.right.out_shape):
            raise ValueError(
                f"Sum: `left` and `right` must act alike; their shapes are {self.left.in_shape} -> "
                f"{self.left.out_shape} and {self.right.in_shape} -> {self.right.out_shape}."
            )

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.left.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.left.out_shape

    def mv(self, x):
        return self.left.mv(x) + self.right.mv(x)

    def norm_bound(self):
        a, b = self.left.norm_bound(), self.right.norm_bound()
        return None if a is None or b is None else a + b


class Scaled(LinearOperator):
    """``factor * operator`` for a scalar factor."""

    operator: LinearOperator
    factor: Inexact[Array, ""]

    def __check_init__(self):
        if jnp.ndim(self.factor) != 0:
            raise ValueError(f"Scaled: `factor` must be a scalar; got an array of shape {jnp.shape(self.factor)}.")

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.operator.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.operator.out_shape

    def mv(self, x):
        y = self.operator.mv(x)
        return in_precision_of(y, self.factor) * y

    def norm_bound(self):
        bound = self.operator.norm_bound()
        return None if bound is None else jnp.abs(self.factor) * bound


class Stack(LinearOperator):
    r"""Operators on one input, their raveled outputs joined: :math:`x \mapsto (A_1 x, \dots, A_m x)`."""

    operators: tuple[LinearOperator, ...]

    def __init__(self, *operators: LinearOperator):
        if not operators:
            raise ValueError("Stack: `operators` must be one or more; got none.")
        for op in operators:
            check_operator("Stack", "operators", op)
        shapes = {op.in_shape for op in operators}
        if len(shapes) > 1:
            raise ValueError(f"Stack: `operators` must act on one shape; got {sorted(shapes)}.")
        self.operators = operators

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.operators[0].in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (sum(prod(op.out_shape) for op in self.operators),)

    def split(self, y: Inexact[Array, " out"]) -> tuple[Array, ...]:
        """The outputs of each operator, in their own shapes."""
        y = check_trailing("Stack.split", "y", y, self.out_shape)
        ends = np.cumsum([prod(op.out_shape) for op in self.operators])[:-1]
        parts = jnp.split(y, ends, axis=-1)
        return tuple(p.reshape(p.shape[:-1] + op.out_shape) for p, op in zip(parts, self.operators, strict=True))

    def mv(self, x):
        return jnp.concatenate([jnp.ravel(op.mv(x)) for op in self.operators])

    def norm_bound(self):
        bounds = [op.norm_bound() for op in self.operators]
        if any(b is None for b in bounds):
            return None
        return jnp.sqrt(sum(jnp.asarray(b) ** 2 for b in bounds))
