r"""The posterior of white noise given fewer data than there are numbers, by matrices of the data's size.

With the predictor :math:`o + A z`, :math:`z \sim N(0, I_n)`, and m weights :math:`W = W_+ - W_-` (negative ones where a
likelihood is not log-concave), the covariance is found in two steps. That for the positive weights is

.. math:: (I + A^{\mathsf T} W_+ A)^{-1} = I - A^{\mathsf T} H_+ A, \qquad H_+ = W_+^{1/2} B_+^{-1} W_+^{1/2}, \qquad
    B_+ = I + W_+^{1/2} A A^{\mathsf T} W_+^{1/2}

(Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 3.4), and has the square root

.. math:: R = I - A^{\mathsf T} M A, \qquad M = W_+^{1/2} L^{-\mathsf T} (L + I)^{-1} W_+^{1/2}, \qquad
    B_+ = L L^{\mathsf T}

(Andrews, AIAA Journal 6 (1968) 1165-1166), which no cancellation spoils. The negative weights add

.. math:: R S S^{\mathsf T} R^{\mathsf T}, \qquad S = (A R)^{\mathsf T} N, \qquad N = W_-^{1/2} L_-^{-\mathsf T}, \qquad
    I - W_-^{1/2} A R (A R)^{\mathsf T} W_-^{1/2} = L_- L_-^{\mathsf T} ,

and the precision's determinant is :math:`|L|^2 |L_-|^2`. Where the last matrix is not positive definite there is no
posterior: NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

from numpyro_inverse.infer.latent_gaussian._reading import Values

if TYPE_CHECKING:
    from numpyro_inverse.infer.latent_gaussian._dense_latents import DenseGaussian

REFINEMENTS = 6  # of a solution, at most; each costs four products with the predictor's matrix


class FewDataPosterior(eqx.Module):
    """The Gaussian with precision I + A^T W A, factorized in the space of the data.

    The matrices are not differentiated: :meth:`solve` and :meth:`log_ratio` have first derivatives by A and W of their
    own, also where a weight is zero and its square root has none.

    Attributes:
        law: the prior.
        weights: W, which :meth:`moved` replaces.
        plus: the square roots of W_+.
        first: L.
        second: L_-.
        minus: N.
    """

    law: DenseGaussian
    weights: Float[Array, " m"]
    plus: Float[Array, " m"]
    first: Float[Array, "m m"]
    second: Float[Array, "m m"]
    minus: Float[Array, "m m"]

    def __init__(self, law: DenseGaussian, weights: Float[Array, " m"]):
        self.law, self.weights = law, weights
        w = stop_gradient(weights)
        self.plus, minus = jnp.sqrt(jnp.maximum(w, 0)), jnp.sqrt(jnp.maximum(-w, 0))
        one = jnp.eye(len(w), dtype=law.gram.dtype)
        self.first = jnp.linalg.cholesky(one + self.plus[:, None] * law.gram * self.plus)
        seen = self._if_negative(lambda half: dot(half, half.T), jnp.zeros_like(one))
        self.second = jnp.linalg.cholesky(one - minus[:, None] * seen * minus)
        self.minus = solve_triangular(self.second, jnp.diag(minus), lower=True).T

    def _if_negative(self, function: Callable[[Array], Array], otherwise: Array) -> Array:
        """A function of A R if there are negative weights."""
        return jax.lax.cond(_any_negative(self.weights), lambda: function(self._half()), lambda: otherwise)

    def _half(self) -> Float[Array, "m n"]:
        """A R."""
        root = stop_gradient(self.law.root)
        return root - dot(self._inner_transposed(self.law.gram).T, root)

    def _inner(self, v: Float[Array, "m *k"]) -> Float[Array, "m *k"]:
        """M v, by solutions: as a matrix it would lose what is small in it."""
        one = jnp.eye(len(self.plus), dtype=v.dtype)
        v = solve_triangular(self.first + one, _rows(self.plus, v), lower=True)
        return _rows(self.plus, solve_triangular(self.first, v, lower=True, trans=1))

    def _inner_transposed(self, v: Float[Array, "m *k"]) -> Float[Array, "m *k"]:
        """Its transpose times v."""
        one = jnp.eye(len(self.plus), dtype=v.dtype)
        v = solve_triangular(self.first, _rows(self.plus, v), lower=True)
        return _rows(self.plus, solve_triangular(self.first + one, v, lower=True, trans=1))

    def moved(self, weights: Float[Array, " m"]) -> FewDataPosterior:
        """The same factorization as a function of weights that have the same numbers."""
        return eqx.tree_at(lambda posterior: posterior.weights, self, weights)

    def solve(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The covariance times b.

        It is refined as long as that helps: a wide prior of an effect that all data share makes B_+ ill conditioned,
        where the precision itself is merely badly scaled.
        """

        def precision(x: Array) -> Array:
            return x + self.law.adjoint(self.weights * self.law.forward(x))

        def refined(precision: Callable[[Array], Array], b: Array) -> Array:
            def helps(carry: tuple) -> Array:
                _, _, count, helped = carry
                return helped & (count < REFINEMENTS)

            def refine(carry: tuple) -> tuple:
                x, before, count, _ = carry
                rest = b - precision(x)
                step = self._covariance(rest)
                length = jnp.abs(jnp.vdot(rest, step))  # squared, in posterior standard deviations
                helped = length < 0.25 * before
                return jnp.where(helped, x + step, x), length, count + 1, helped

            first = self._covariance(b)
            start = first, jnp.abs(jnp.vdot(b, first)), 0, jnp.asarray(True)
            return jax.lax.while_loop(helps, refine, start)[0]

        return jax.lax.custom_linear_solve(precision, b, refined, symmetric=True)

    def _covariance(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The covariance times b, up to rounding times the condition number of B_+.

        Products with A A^T in place of those with A would be cheaper, and lose what is small beside it.
        """
        root = stop_gradient(self.law.root)

        def transposed(z: Array) -> Array:
            return z - dot(self._inner_transposed(dot(root, z)), root)

        def added(z: Array) -> Array:
            seen = dot(self.minus.T, dot(root, self.roots(z)))
            return z + transposed(dot(dot(self.minus, seen), root))

        return self.roots(jax.lax.cond(_any_negative(self.weights), added, lambda z: z, transposed(b)))

    def roots(self, z: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        """R z, R being a square root of the covariance but for what the negative weights add."""
        root = stop_gradient(self.law.root)
        return z - dot(self._inner(dot(root, z)).T, root).T

    def log_ratio(self) -> Float[Array, ""]:
        r"""The precision's log determinant.

        Its derivative is :math:`\sum_i P_{ii}\, dW_i + 2 \langle W A C, dA \rangle` with the posterior covariance C and
        :math:`P = A C A^{\mathsf T}`.
        """
        return _log_determinant(self.law.root, self.weights, stop_gradient(self))

    def sds(self, r: Float[Array, " n"]) -> Values:
        """Standard deviations of the latent sites and of the predictors."""
        return self.law.sds(self, r)

    def beyond(self) -> Float[Array, "n m"]:
        """What the negative weights add to the covariance is this matrix times its transpose."""
        return self.roots(dot(self._half().T, self.minus))


@eqx.filter_custom_jvp
def _log_determinant(root: Array, weights: Array, posterior: FewDataPosterior) -> Array:
    """That of the precision, from its factors: a function of root and weights in its derivative, which costs more."""
    first, second = (jnp.sum(jnp.log(jnp.diagonal(factor))) for factor in (posterior.first, posterior.second))
    return 2 * (first + second)


@_log_determinant.def_jvp
def _log_determinant_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    root, weights, posterior = primals
    half = posterior._half()
    nothing = jnp.zeros_like(posterior.minus)
    added = posterior._if_negative(lambda half: dot(half, dot(half.T, posterior.minus)), nothing)
    beyond = posterior._if_negative(lambda half: dot(dot(added, posterior.minus.T), half), jnp.zeros_like(half))
    variances = jnp.sum(half**2, axis=1) + jnp.sum(added**2, axis=1)
    seen = posterior.roots((half + beyond).T).T
    found = _log_determinant(root, weights, posterior)
    change = jnp.zeros_like(found)
    for slope, tangent in zip((2 * stop_gradient(weights)[:, None] * seen, variances), tangents[:2], strict=True):
        change = change if tangent is None else change + jnp.vdot(slope, tangent)
    return found, change


def _any_negative(weights: Float[Array, " m"]) -> Bool[Array, ""]:
    """Whether there are negative weights, in any of a batch: else a batch would pay for them at each evaluation."""
    return _any(stop_gradient(weights) < 0)


@jax.custom_batching.custom_vmap
def _any(x: Bool[Array, "..."]) -> Bool[Array, ""]:
    return jnp.any(x)


@_any.def_vmap
def _any_of_batch(axis_size: int, in_batched: list[bool], x: Bool[Array, "..."]) -> tuple[Array, bool]:
    return _any(x), False


def _rows(weights: Float[Array, " m"], v: Float[Array, "m *k"]) -> Float[Array, "m *k"]:
    """Each row of v times its weight."""
    return weights.reshape(-1, *(1,) * (v.ndim - 1)) * v


def dot(a: Array, b: Array) -> Array:
    """A product at full precision."""
    return jnp.matmul(a, b, precision="highest")
