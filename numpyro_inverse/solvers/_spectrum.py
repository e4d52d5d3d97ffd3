r"""The matrix :math:`H = \mathrm{Re}\, A^{\mathsf H} A` of an operator, in a form that inverts :math:`I + c H`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Complex, Float

from numpyro_inverse._linalg import power_iteration
from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.operators import LinearOperator

DENSE_LIMIT = 1024  # numbers in x up to which H is diagonalized as a dense matrix
MAX_STEPS = 1000  # of conjugate gradients
ITERATIONS = 100  # of an estimate of the norm


class Spectrum(eqx.Module):
    """H, in one of four forms; :func:`spectrum_of` finds which."""

    @abstractmethod
    def resolvent(self, x: Float[Array, "*shape"], c: Any) -> Float[Array, "*shape"]:
        """:math:`(I + c H)^{-1} x`."""

    @abstractmethod
    def largest(self) -> Certificate:
        """The largest eigenvalue, bounded from above."""

    @abstractmethod
    def smallest(self) -> Certificate:
        """The smallest eigenvalue, bounded from below."""

    @abstractmethod
    def least_largest(self) -> float:
        """The largest eigenvalue, bounded from below."""


class Diagonalized(Spectrum):
    """Eigenvalues are known, but for rounding of ``margin`` times the largest."""

    eigenvalues: eqx.AbstractVar[Array]
    basis = "known"

    @property
    def margin(self) -> float:
        """Relative error of the largest eigenvalue, at most."""
        return 8 * self.eigenvalues.size * float(jnp.finfo(self.eigenvalues.dtype).eps)

    def largest(self):
        return Certificate(float(jnp.max(self.eigenvalues)) * (1 + self.margin), f"eigenvalues ({self.basis})", True)

    def smallest(self):
        bound = float(jnp.min(self.eigenvalues)) - self.margin * float(jnp.max(self.eigenvalues))
        return Certificate(max(bound, 0.0), f"eigenvalues ({self.basis})", True)

    def least_largest(self):
        return float(jnp.max(self.eigenvalues)) * (1 - self.margin)


class Diagonal(Diagonalized):
    """H multiplies each entry by a number."""

    eigenvalues: Float[Array, "*shape"]
    basis = "diagonal"

    def resolvent(self, x, c):
        return x / (1 + c * self.eigenvalues.astype(x.dtype))


class Circulant(Diagonalized):
    """H is a convolution on a torus."""

    eigenvalues: Float[Array, "*half_spectrum"]
    basis = "Fourier"

    @property
    def margin(self) -> float:
        return 8 * (1 + float(np.log2(self.eigenvalues.size))) * float(jnp.finfo(self.eigenvalues.dtype).eps)

    def resolvent(self, x, c):
        filtered = jnp.fft.rfftn(x) / (1 + c * self.eigenvalues.astype(x.dtype))
        return jnp.fft.irfftn(filtered, x.shape)


class Dense(Diagonalized):
    """H is a symmetric matrix with known eigenvectors."""

    eigenvalues: Float[Array, " n"]
    vectors: Float[Array, "n n"]
    basis = "dense"

    def resolvent(self, x, c):
        values, vectors = self.eigenvalues.astype(x.dtype), self.vectors.astype(x.dtype)
        # Rounding in the eigenvalues must not make 1 + c h negative.
        inner = jnp.matmul(x.ravel(), vectors, precision="highest") / (1 + c * jnp.maximum(values, 0))
        return jnp.matmul(vectors, inner, precision="highest").reshape(x.shape)


class MatrixFree(Spectrum):
    """H is known by its products: conjugate gradients, until the residual is below ``tolerance`` of the right side."""

    operator: LinearOperator
    tolerance: float = eqx.field(static=True)

    def resolvent(self, x, c):
        def product(u):
            return u + c * gram(self.operator, u)

        structure = jax.eval_shape(lambda: x)
        system = lx.FunctionLinearOperator(product, structure, lx.positive_semidefinite_tag)
        # Lineax calls a system singular when a step is longer than 1 / (100 eps n); a large preconditioner keeps steps
        # short. It compares residuals with `rtol` entry by entry, so the right side is made of length 1 instead.
        large = max(1.0, 1e3 * x.size * float(jnp.finfo(x.dtype).eps))
        preconditioner = lx.FunctionLinearOperator(lambda u: large * u, structure, lx.positive_semidefinite_tag)
        solver = lx.CG(rtol=0.0, atol=self.tolerance, norm=_length, stabilise_every=None, max_steps=MAX_STEPS)
        length = jnp.maximum(_length(x), jnp.finfo(x.dtype).tiny)
        solution = lx.linear_solve(system, x / length, solver, options={"preconditioner": preconditioner}, throw=False)
        return jnp.where(solution.result == lx.RESULTS.successful, length * solution.value, jnp.nan)

    def largest(self):
        bound = self.operator.norm_bound()
        if bound is None:
            return Certificate(self.least_largest(), f"power iteration, {ITERATIONS} steps: a bound from below", False)
        return Certificate(float(bound) ** 2, "norm_bound of the operator", True)

    def smallest(self):
        return Certificate(0.0, "no bound of the smallest singular value is known", True)

    def least_largest(self):
        return float(_power(self.operator, _noise(self.operator.in_shape)))


def gram(operator: LinearOperator, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """:math:`H x`."""
    return jnp.real(operator.H.mv(operator.mv(x))).astype(x.dtype)


def _length(x: Any) -> Array:
    return jnp.linalg.norm(jnp.ravel(x))


def _noise(shape: tuple[int, ...]) -> Any:
    """White noise, the same each time; NumPy's, for the random numbers of JAX take XLA long to compile."""
    return np.random.default_rng(0).normal(size=shape).astype(jnp.result_type(float))


@eqx.filter_jit
def _power(operator: LinearOperator, start: Float[Array, "*shape"]) -> Array:
    return power_iteration(lambda v: gram(operator, v), start, ITERATIONS, growth=1e-6)[0]


def spectrum_of(operator: LinearOperator, tolerance: float) -> Spectrum:
    """The form in which H is cheapest to invert: diagonal, diagonal in the Fourier basis, dense, matrix-free.

    The first two are recognized by what H does to the ones, to the first unit array and to random arrays, so that
    compositions and sums are as good as single operators. An operator that is traced is matrix-free.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(operator)):
        return MatrixFree(operator, tolerance)
    with jax.core.eval_context():
        probes = _probes(operator, _noise((2, *operator.in_shape)))
        agreed = float(jnp.finfo(probes.ones.dtype).eps) ** 0.75
        if float(probes.diagonal_error) <= agreed:
            return Diagonal(probes.ones)
        if float(probes.circulant_error) <= agreed:
            return Circulant(jnp.maximum(probes.transfer.real, 0))
        if prod(operator.in_shape) <= DENSE_LIMIT:
            return Dense(*_eigenpairs(operator))
    return MatrixFree(operator, tolerance)


class _Probes(eqx.Module):
    """What H does to a few arrays."""

    ones: Float[Array, "*shape"]
    transfer: Complex[Array, "*half_spectrum"]
    diagonal_error: Float[Array, ""]
    circulant_error: Float[Array, ""]


@eqx.filter_jit
def _probes(operator: LinearOperator, noise: Float[Array, "2 *shape"]) -> _Probes:
    shape, dtype = operator.in_shape, noise.dtype
    diagonal = gram(operator, jnp.ones(shape, dtype))
    transfer = jnp.fft.rfftn(gram(operator, jnp.zeros(shape, dtype).at[(0,) * len(shape)].set(1)))
    images = jax.vmap(lambda v: gram(operator, v))(noise)

    def error(guess: Callable) -> Array:
        return jnp.linalg.norm(images - jax.vmap(guess)(noise)) / jnp.maximum(jnp.linalg.norm(images), 1e-30)

    return _Probes(
        diagonal,
        transfer,
        error(lambda v: diagonal * v),
        error(lambda v: jnp.fft.irfftn(transfer * jnp.fft.rfftn(v), shape)),
    )


@eqx.filter_jit
def _eigenpairs(operator: LinearOperator) -> tuple[Array, Array]:
    matrix = operator.as_matrix()
    matrix = jnp.concatenate([matrix.real, matrix.imag]) if jnp.iscomplexobj(matrix) else matrix
    product = jnp.matmul(matrix.T, matrix, precision="highest")
    return jnp.linalg.eigh((product + product.T) / 2)
