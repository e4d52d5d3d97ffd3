"""The Cholesky factor of a sparse matrix, and its derivatives."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_key, check_real, check_sample_shape, describe
from numpyro_inverse.sparse import _numeric
from numpyro_inverse.sparse._pattern import Pattern


class Cholesky(eqx.Module):
    r"""The factor :math:`L` of a positive definite matrix on a pattern, :math:`A = L L^{\mathsf T}`.

    :math:`L` is a lower triangle in the order of elimination and acts on vectors in the original order: with the
    permutation :math:`P` it is :math:`P^{\mathsf T} \hat L P`. Every method is differentiable any number of times, in
    forward and in reverse mode, with respect to ``values`` and to its argument, and one factorization serves all of
    them:

    .. math:: d \log\det A = \operatorname{tr}(A^{-1} dA), \qquad d(A^{-1} b) = A^{-1} (db - dA \, A^{-1} b), \qquad
        d A^{-1} = -A^{-1} \, dA \, A^{-1},

    where the trace needs the inverse on the pattern alone. If the matrix is not positive definite, all results are
    NaN, which a sampler counts as a divergence; :func:`first_bad_pivot` says where it failed.

    Made by :meth:`Pattern.factor`. A pytree; for several matrices use ``jax.vmap`` around what is computed with it.

    Raises:
        TypeError: ``pattern`` is no pattern, or ``values`` are not real numbers.
        ValueError: there are not as many values as the pattern has.

    Attributes:
        pattern: where the matrix has entries.
        values: those entries, in the pattern's order.
    """

    pattern: Pattern
    values: Float[Array, " nnz"]
    blocks: Any

    def __init__(self, pattern: Pattern, values: Float[Array, " nnz"]):
        self.pattern = check_pattern("Cholesky", pattern)
        values = jnp.asarray(pattern._check("Cholesky", values))
        self.values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        self.blocks = jax.lax.stop_gradient(_numeric.factor(pattern, jax.lax.stop_gradient(self.values)))

    def logdet(self) -> Float[Array, ""]:
        r""":math:`\log\det A`."""
        return _logdet(self.pattern, self.values, self.blocks)

    def solve(self, b: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        r""":math:`A^{-1} b`, of a vector or of the columns of a matrix.

        Raises:
            TypeError: ``b`` is not real numbers.
            ValueError: it does not have as many rows as the matrix, or the pattern's solver returns another shape.
        """
        b = self._columns("Cholesky.solve", "b", b)

        def solve(_, b):
            if self.pattern.solver is not None:
                values = jax.lax.stop_gradient(self.values)
                found = self.pattern.solver(self.pattern.rows, self.pattern.cols, values, b)
                found = jnp.asarray(check_real("Cholesky.solve", "solver's answer", found))
                if jnp.shape(found) != b.shape:
                    raise ValueError(
                        "Cholesky.solve: the pattern's `solver` must return the shape of its right-hand side, "
                        f"{b.shape}; got {jnp.shape(found)}."
                    )
                return found.astype(b.dtype)
            y = _numeric.inverse_lower(self.pattern, self.blocks, b)
            return self._or_nan(_numeric.inverse_upper(self.pattern, self.blocks, y))

        # Its derivatives are those of the product with A, and solves.
        x = jax.lax.custom_linear_solve(partial(self.pattern.mv, self.values), self._two_axes(b), solve, symmetric=True)
        return x.reshape(b.shape)

    def lower(self, z: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        r""":math:`L z`: a draw from :math:`N(0, A)` if z is white noise."""
        return self._apply("lower", z)

    def upper(self, x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        r""":math:`L^{\mathsf T} x`: white noise if x is a draw from :math:`N(0, A^{-1})`."""
        return self._apply("upper", x)

    def inverse_lower(self, x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        r""":math:`L^{-1} x`: white noise if x is a draw from :math:`N(0, A)`."""
        return self._apply("inverse_lower", x)

    def inverse_upper(self, z: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        r""":math:`L^{-\mathsf T} z`: a draw from :math:`N(0, A^{-1})` if z is white noise."""
        return self._apply("inverse_upper", z)

    def sample(self, key: Array, sample_shape: Sequence[int] = ()) -> Float[Array, "*sample n"]:
        r"""Draws from :math:`N(0, A^{-1})`, of shape ``sample_shape + (n,)``.

        Raises:
            TypeError: ``key`` is no random key, or ``sample_shape`` no tuple of integers.
        """
        check_key("Cholesky.sample", "key", key)
        shape = check_sample_shape("Cholesky.sample", "sample_shape", sample_shape)
        noise = jax.random.normal(key, (*shape, self.pattern.size), self.values.dtype)
        return self.inverse_upper(noise.reshape(-1, self.pattern.size).T).T.reshape(noise.shape)

    def selected_inverse(self) -> Float[Array, " nnz"]:
        r"""The entries of :math:`A^{-1}` on the pattern: ``[k]`` stands at ``(rows[k], cols[k])``."""
        return _selected_inverse(self.pattern, self.values, self.blocks)

    def inverse_diagonal(self) -> Float[Array, " n"]:
        r"""The diagonal of :math:`A^{-1}`: marginal variances of :math:`N(0, A^{-1})`."""
        return self.selected_inverse()[self.pattern.diagonal]

    def _apply(self, name, x):
        x = self._columns(f"Cholesky.{name}", "x" if name in ("upper", "inverse_lower") else "z", x)
        found = _apply(name, self.pattern, self.values, self.blocks, self._two_axes(x))
        return self._or_nan(found).reshape(x.shape)

    def _columns(self, where, argument, x):
        x = jnp.asarray(self.pattern._check_rows(where, argument, x))
        return x.astype(jnp.promote_types(x.dtype, self.values.dtype))

    @staticmethod
    def _two_axes(x):
        return x if x.ndim == 2 else x[:, None]

    def _or_nan(self, x):
        """The bad news of one front reaches all nodes, those too that the graph does not connect with it."""
        return jnp.where(jnp.isfinite(_numeric.log_determinant(self.blocks)), x, jnp.nan)


# Derivatives. The blocks are functions of the values, held only in order not to compute them again: what is derived
# here is derived by the values.


@jax.custom_jvp
def _logdet(pattern, values, blocks):
    return _numeric.log_determinant(blocks)


@_logdet.defjvp
def _logdet_jvp(primals, tangents):
    pattern, values, blocks = primals
    both = jnp.where(pattern.rows == pattern.cols, 1, 2)  # a value off the diagonal stands at two places
    inverse = _selected_inverse(pattern, values, blocks)
    return _logdet(pattern, values, blocks), jnp.sum(both * inverse * tangents[1])


@jax.custom_jvp
def _selected_inverse(pattern, values, blocks):
    found = _numeric.selected_inverse(pattern, blocks)
    return jnp.where(jnp.isfinite(_numeric.log_determinant(blocks)), found, jnp.nan)


@_selected_inverse.defjvp
def _selected_inverse_jvp(primals, tangents):
    pattern, values, blocks = primals

    def again(values):
        return _numeric.selected_inverse(pattern, _numeric.factor(pattern, values))

    return _selected_inverse(pattern, values, blocks), jax.jvp(again, (values,), (tangents[1],))[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _apply(name, pattern, values, blocks, x):
    return getattr(_numeric, name)(pattern, blocks, x)


@_apply.defjvp
def _apply_jvp(name, primals, tangents):
    pattern, values, _, x = primals

    def again(values, x):
        return getattr(_numeric, name)(pattern, _numeric.factor(pattern, values), x)

    return _apply(name, *primals), jax.jvp(again, (values, x), (tangents[1], tangents[3]))[1]


def check_pattern(where: str, pattern: Any) -> Pattern:
    """A pattern."""
    if not isinstance(pattern, Pattern):
        raise TypeError(f"{where}: `pattern` must be a Pattern, made by `sparse.analyze`; got {describe(pattern)}.")
    return pattern
