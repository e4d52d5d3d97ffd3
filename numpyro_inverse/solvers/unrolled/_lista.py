"""Learned iterative soft thresholding for sparse signals: trained weights, or weights from the matrix alone."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import (
    check_broadcast,
    check_count,
    check_finite,
    check_positive_number,
    check_real,
    check_static,
    is_traced,
    show,
)


def soft_threshold(x: Float[Array, "*shape"], threshold: Any) -> Float[Array, "*shape"]:
    r""":math:`\eta_\theta(x) = \mathrm{sign}(x) \max(|x| - \theta, 0)`.

    Raises:
        TypeError: no real numbers.
        ValueError: shapes that do not broadcast; a negative ``threshold``.
    """
    here = "soft_threshold"
    x, threshold = check_real(here, "x", x), check_finite(here, "threshold", threshold)
    if not is_traced(threshold) and np.any(np.asarray(threshold) < 0):
        raise ValueError(f"{here}: `threshold` must not be negative; got {show(threshold)}.")
    check_broadcast(here, x=jnp.shape(x), threshold=jnp.shape(threshold))
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


def analytic_weights(matrix: Any) -> Float[Array, "m n"]:
    r"""The weights of least coherence in the Euclidean norm, in closed form:

    .. math:: W_i = \frac{(A A^{\mathsf T})^{-1} a_i}{a_i^{\mathsf T} (A A^{\mathsf T})^{-1} a_i},
        \qquad W_i^{\mathsf T} a_i = 1.

    Args:
        matrix: A, of full row rank, with columns :math:`a_i`.

    Raises:
        TypeError, ValueError: no matrix of finite real numbers, or one without full row rank.

    References:
        Liu, Chen, Wang & Yin, ICLR (2019), section 3, for the problem that they solve.
    """
    a = _checked_matrix("analytic_weights", matrix)
    if np.linalg.matrix_rank(a) < a.shape[0]:
        raise ValueError(f"analytic_weights: `matrix` must have full row rank; its shape is {a.shape}.")
    solved = np.linalg.solve(a @ a.T, a)
    return jnp.asarray(solved / np.sum(a * solved, axis=0), float)


def coherence(weights: Any, matrix: Any) -> float:
    r""":math:`\tilde\mu = \max_{i \ne j} |W_i^{\mathsf T} a_j|`.

    Raises:
        TypeError, ValueError: no matrices of finite real numbers, or of two shapes.
    """
    w, a = _checked_matrix("coherence", weights, "weights"), _checked_matrix("coherence", matrix)
    if w.shape != a.shape:
        raise ValueError(f"coherence: `weights` must have the shape of `matrix`, {a.shape}; got {w.shape}.")
    products = np.abs(w.T @ a)
    np.fill_diagonal(products, 0)
    return float(products.max())


class _Unrolled(eqx.Module):
    r""":math:`x^{k+1} = \eta_{\theta_k}(x^k + \gamma_k W_k^{\mathsf T}(y - A x^k))`, from zero."""

    matrix: Float[Array, "m n"]
    thresholds: Float[Array, " layers"]
    steps: Float[Array, " layers"]

    def layer_weights(self) -> Float[Array, "layers m n"] | Float[Array, "1 m n"]:
        """W, of each layer or of all."""
        raise NotImplementedError

    def iterates(self, y: Float[Array, " m"]) -> Float[Array, "layers n"]:
        """x after each layer.

        Raises:
            TypeError: ``y`` no real numbers.
            ValueError: ``y`` has not the length of a column of the matrix.
        """
        y = check_real(type(self).__name__, "y", y)
        if jnp.shape(y) != (self.matrix.shape[0],):
            raise ValueError(
                f"{type(self).__name__}: `y` must be a vector of {self.matrix.shape[0]}; got shape {jnp.shape(y)}."
            )
        y = jnp.asarray(y, jnp.result_type(y, float))
        matrix = jax.lax.stop_gradient(self.matrix).astype(y.dtype)
        weights, layers = self.layer_weights().astype(y.dtype), len(self.thresholds)

        def layer(x: Array, parameters: tuple) -> tuple[Array, Array]:
            weight, step, threshold = parameters
            residual = y - jnp.matmul(matrix, x, precision="highest")
            # A threshold that training made negative would stretch.
            x = soft_threshold(x + step * jnp.matmul(weight.T, residual, precision="highest"), jnp.abs(threshold))
            return x, x

        weights = jnp.broadcast_to(weights, (layers, *matrix.shape))
        parameters = weights, self.steps.astype(y.dtype), self.thresholds.astype(y.dtype)
        return jax.lax.scan(layer, jnp.zeros(matrix.shape[1], y.dtype), parameters)[1]

    def __call__(self, y: Float[Array, " m"]) -> Float[Array, " n"]:
        """x after the last layer.

        Raises:
            TypeError, ValueError: as :meth:`iterates`.
        """
        return self.iterates(y)[-1]


class CoupledLISTA(_Unrolled):
    r"""LISTA with coupled weights: :math:`x^{k+1} = \eta_{\theta_k}(x^k + \gamma_k W_k^{\mathsf T}(y - A x^k))`, each
    :math:`W_k` trained.

    The coupling of the two matrices of a layer is necessary for convergence. It starts as iterative soft thresholding,
    :math:`W_k = A / |A|^2`, with thresholds ``threshold``:math:`/ |A|^2`.

    Args:
        matrix: A.
        num_layers: number of layers.
        threshold: weight of :math:`|x|_1` against :math:`|A x - y|^2 / 2`.

    Raises:
        TypeError: an argument that is not of real numbers.
        ValueError: no matrix, or not finite; ``num_layers`` or ``threshold`` not positive.

    References:
        Gregor & LeCun, ICML (2010); Chen, Liu, Wang & Yin, NeurIPS (2018), equation 14.
    """

    weights: Float[Array, "layers m n"]

    def __init__(self, matrix: Float[Array, "m n"], num_layers: int, *, threshold: float):
        here = "CoupledLISTA"
        a = _checked_matrix(here, matrix)
        layers, largest = check_count(here, "num_layers", num_layers), float(np.linalg.norm(a, 2)) ** 2
        self.matrix = jnp.asarray(a, float)
        self.weights = jnp.broadcast_to(jnp.asarray(a / largest, float), (layers, *a.shape))
        self.thresholds = jnp.full(layers, check_positive_number(here, "threshold", threshold) / largest)
        self.steps = jnp.ones(layers)

    def layer_weights(self):
        return self.weights


class AnalyticLISTA(_Unrolled):
    r"""LISTA whose weights follow from the matrix (:func:`analytic_weights`): thresholds and steps alone are trained.

    Untrained, it is what a theorem is about. For every x of at most s nonzero entries, each at most B in size, and
    :math:`y = A x` without noise, with :math:`\tilde\mu` the :func:`coherence`, :math:`s < (1 + 1/\tilde\mu)/2` and
    :math:`\theta_k = \tilde\mu\, s B\, \rho^k`, :math:`\rho = (2 s - 1) \tilde\mu < 1`:

    - **no false positives**: :math:`x^k` is zero wherever x is;
    - :math:`|x^k - x|_1 \le s B \rho^k`.

    The layers are **no contraction in the Euclidean norm**: :math:`|I - W^{\mathsf T} A|` may be above 1. Training
    moves the thresholds away from the theorem.

    Args:
        matrix: A, of full row rank.
        num_layers: number of layers.
        sparsity: s.
        largest: B.

    Raises:
        TypeError: an argument that is not of real numbers.
        ValueError: a matrix without full row rank; ``num_layers``, ``sparsity`` or ``largest`` not positive; a sparsity
            for which the matrix is too coherent.

    References:
        Liu, Chen, Wang & Yin, ICLR (2019), theorem 1.
    """

    weights: Float[Array, "m n"]
    rate: float = eqx.field(static=True)

    def __init__(self, matrix: Float[Array, "m n"], num_layers: int, *, sparsity: int, largest: float):
        here = "AnalyticLISTA"
        a = _checked_matrix(here, matrix)
        layers, s = check_count(here, "num_layers", num_layers), check_count(here, "sparsity", sparsity)
        bound = s * check_positive_number(here, "largest", largest)
        self.weights = analytic_weights(a)
        mu = coherence(self.weights, a)
        self.rate = (2 * s - 1) * mu
        if self.rate >= 1:
            raise ValueError(
                f"{here}: `sparsity` must be below (1 + 1 / coherence) / 2 = {(1 + 1 / mu) / 2:.3g} for this matrix; "
                f"got {s}."
            )
        self.matrix = jnp.asarray(a, float)
        self.thresholds = jnp.asarray(mu * bound * self.rate ** np.arange(layers), float)
        self.steps = jnp.ones(layers)

    def layer_weights(self):
        return jax.lax.stop_gradient(self.weights)[None]


def _checked_matrix(where: str, matrix: Any, argument: str = "matrix") -> np.ndarray:
    found = np.asarray(check_finite(where, argument, check_static(where, argument, matrix)), float)
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"{where}: `{argument}` must be a matrix; got shape {found.shape}.")
    return found
