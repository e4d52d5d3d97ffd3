r"""The posterior of white noise given fewer data than there are numbers, by matrices of the data's size.

With the predictor :math:`o + A z`, :math:`z \sim N(0, I_n)`, and m weights :math:`W = W_+ - W_-` (negative ones where a
likelihood is not log-concave), the covariance is found in two steps. That for the positive weights is

.. math:: (I + A^{\mathsf T} W_+ A)^{-1} = I - A^{\mathsf T} H_+ A, \qquad H_+ = W_+^{1/2} B_+^{-1} W_+^{1/2}, \qquad
    B_+ = I + W_+^{1/2} A A^{\mathsf T} W_+^{1/2}

(Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 3.4), and has the square root

.. math:: R = I - A^{\mathsf T} W_+^{1/2} L^{-\mathsf T} (L + I)^{-1} W_+^{1/2} A, \qquad B_+ = L L^{\mathsf T}

(Andrews, AIAA Journal 6 (1968) 1165-1166), which no cancellation spoils. The negative weights add

.. math:: R S S^{\mathsf T} R^{\mathsf T}, \qquad S = (A R)^{\mathsf T} W_-^{1/2} L_-^{-\mathsf T}, \qquad
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
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from numpyro_inverse.infer.latent_gaussian._reading import Values

if TYPE_CHECKING:
    from numpyro_inverse.infer.latent_gaussian._dense_latents import DenseGaussian

REFINEMENTS = 6  # of a solution; each costs two products with the predictor's matrix


class FewDataPosterior(eqx.Module):
    """The Gaussian with precision I + A^T W A, factorized in the space of the data.

    The matrices are not differentiated: :meth:`solve` and :meth:`log_ratio` have first derivatives by A and W of their
    own, also where a weight is zero and its square root has none.

    Attributes:
        law: the prior.
        weights: W, which :meth:`moved` replaces.
        plus: the square roots of W_+.
        minus: those of W_-.
        first: L.
        half: A R.
        second: L_-.
    """

    law: DenseGaussian
    weights: Float[Array, " m"]
    plus: Float[Array, " m"]
    minus: Float[Array, " m"]
    first: Float[Array, "m m"]
    half: Float[Array, "m n"]
    second: Float[Array, "m m"]

    def __init__(self, law: DenseGaussian, weights: Float[Array, " m"]):
        self.law, self.weights = law, weights
        root, w = stop_gradient(law.root), stop_gradient(weights)
        self.plus, self.minus = jnp.sqrt(jnp.maximum(w, 0)), jnp.sqrt(jnp.maximum(-w, 0))
        one, scaled = jnp.eye(len(w), dtype=root.dtype), self.plus[:, None] * root
        self.first = jnp.linalg.cholesky(one + dot(scaled, scaled.T))
        inner = solve_triangular(self.first, self.plus[:, None] * dot(root, root.T), lower=True)
        self.half = root - dot(solve_triangular(self.first + one, inner, lower=True, trans=1).T, scaled)
        scaled = self.minus[:, None] * self.half
        self.second = jnp.linalg.cholesky(one - dot(scaled, scaled.T))

    def moved(self, weights: Float[Array, " m"]) -> FewDataPosterior:
        """The same factorization as a function of weights that have the same numbers."""
        return eqx.tree_at(lambda posterior: posterior.weights, self, weights)

    def solve(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The covariance times b.

        It is refined: a wide prior of an effect that all data share makes B_+ ill conditioned, where the precision
        itself is merely badly scaled.
        """

        def precision(x: Array) -> Array:
            return x + self.law.adjoint(self.weights * self.law.forward(x))

        def refined(precision: Callable[[Array], Array], b: Array) -> Array:
            x = self._covariance(b)
            for _ in range(REFINEMENTS):
                x = x + self._covariance(b - precision(x))
            return x

        return jax.lax.custom_linear_solve(precision, b, refined, symmetric=True)

    def _covariance(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The covariance times b, up to rounding times the condition number of B_+."""
        root = self.plus[:, None] * stop_gradient(self.law.root)
        inner = solve_triangular(self.first, dot(root, b), lower=True)
        one = jnp.eye(len(inner), dtype=b.dtype)
        inner = b - dot(root.T, solve_triangular(self.first + one, inner, lower=True, trans=1))
        seen = cho_solve((self.second, True), self.minus * dot(self.half, inner))
        return self.roots(inner + dot(self.half.T, self.minus * seen))

    def roots(self, z: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        """R z, R being a square root of the covariance but for what the negative weights add."""
        root = self.plus[:, None] * stop_gradient(self.law.root)
        one = jnp.eye(len(root), dtype=root.dtype)
        inner = solve_triangular(self.first + one, dot(root, z), lower=True)
        return z - dot(root.T, solve_triangular(self.first, inner, lower=True, trans=1))

    def _beyond(self) -> Float[Array, "n m"]:
        """S."""
        return dot(self.half.T, solve_triangular(self.second, jnp.diag(self.minus), lower=True).T)

    def log_ratio(self) -> Float[Array, ""]:
        r"""The precision's log determinant.

        Its derivative is :math:`\sum_i P_{ii}\, dW_i + 2 \langle W A C, dA \rangle` with the posterior covariance C and
        :math:`P = A C A^{\mathsf T}`.
        """
        root, w = stop_gradient(self.law.root), stop_gradient(self.weights)
        value = 2 * sum(jnp.sum(jnp.log(jnp.diagonal(factor))) for factor in (self.first, self.second))
        beyond = self._beyond()
        added = dot(self.half, beyond)
        variances = jnp.sum(self.half**2, axis=1) + jnp.sum(added**2, axis=1)
        seen = self.roots((self.half + dot(added, beyond.T)).T).T
        change = jnp.vdot(variances, self.weights - w) + 2 * jnp.vdot(w[:, None] * seen, self.law.root - root)
        return value + change

    def sds(self, r: Float[Array, " n"]) -> Values:
        """Standard deviations of the latent sites and of the predictors."""
        return self.law.sds(self, r)

    def beyond(self) -> Float[Array, "n m"]:
        """What the negative weights add to the covariance is this matrix times its transpose."""
        return self.roots(self._beyond())


def dot(a: Array, b: Array) -> Array:
    """A product at full precision."""
    return jnp.matmul(a, b, precision="highest")
