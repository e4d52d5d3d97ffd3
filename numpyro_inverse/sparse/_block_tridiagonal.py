"""Block-tridiagonal and arrowhead matrices: space by time."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_real
from numpyro_inverse.sparse._numeric import inverse_root


class Blocks(eqx.Module):
    """The blocks of a symmetric block-tridiagonal matrix with an arrow.

    Attributes:
        diagonal: blocks ``(t, t)``.
        below: blocks ``(t + 1, t)``.
        arrow: blocks ``(last, t)``: the rows of what is coupled to every time.
        tip: block ``(last, last)``.
    """

    diagonal: Float[Array, "T s s"]
    below: Float[Array, "T-1 s s"]
    arrow: Float[Array, "T a s"]
    tip: Float[Array, "a a"]


class BlockTridiagonal(eqx.Module):
    r"""A positive definite block-tridiagonal matrix, with or without an arrow, and its Cholesky factor:

    .. math:: A = \begin{pmatrix} D_1 & B_1^{\mathsf T} & & F_1^{\mathsf T} \\ B_1 & D_2 & \ddots & \vdots \\
        & \ddots & \ddots & F_T^{\mathsf T} \\ F_1 & \cdots & F_T & E \end{pmatrix}.

    It is the precision of a field that is autoregressive in time, with effects that act at all times in the arrow. One
    scan over time factorizes it, in :math:`O(T (s + a) s^2)` operations; time is not padded or cut. For
    many places, whose precision is sparse, analyze the whole matrix instead (:func:`analyze`).

    Every method is differentiable any number of times, in forward and in reverse mode. The adjoint of the
    log-determinant is written by hand: the inverse on the blocks, by a scan backwards through the factor (Takahashi's
    recursion), where plain reverse mode would store each step of the elimination. If the matrix is not positive
    definite, all results are NaN.

    Args:
        diagonal: :math:`D_t`; their symmetric parts are used.
        below: :math:`B_t`, at row t + 1 and column t.
        arrow: :math:`F_t`; none by default.
        tip: :math:`E`, given if and only if ``arrow`` is.

    Raises:
        TypeError: a block is not real numbers.
        ValueError: the shapes do not fit.
    """

    matrix: Blocks
    factor: Any

    def __init__(
        self,
        diagonal: Float[Array, "T s s"],
        below: Float[Array, "T-1 s s"],
        arrow: Float[Array, "T a s"] | None = None,
        tip: Float[Array, "a a"] | None = None,
    ):
        where = "BlockTridiagonal"
        if (arrow is None) != (tip is None):
            raise ValueError(f"{where}: `arrow` and `tip` belong together; give both or none.")
        diagonal, below = (jnp.asarray(check_real(where, k, x)) for k, x in (("diagonal", diagonal), ("below", below)))
        if diagonal.ndim != 3 or diagonal.shape[1] != diagonal.shape[2] or diagonal.size == 0:
            raise ValueError(f"{where}: `diagonal` must have shape (T, s, s); got {diagonal.shape}.")
        times, size, _ = diagonal.shape
        if arrow is None:
            arrow, tip = jnp.zeros((times, 0, size), diagonal.dtype), jnp.zeros((0, 0), diagonal.dtype)
        arrow, tip = (jnp.asarray(check_real(where, k, x)) for k, x in (("arrow", arrow), ("tip", tip)))
        if tip.ndim != 2 or tip.shape[0] != tip.shape[1]:
            raise ValueError(f"{where}: `tip` must have shape (a, a); got {tip.shape}.")
        last = len(tip)
        expected = {"below": (times - 1, size, size), "arrow": (times, last, size), "tip": (last, last)}
        for name, block in (("below", below), ("arrow", arrow), ("tip", tip)):
            if block.shape != expected[name]:
                raise ValueError(
                    f"{where}: `{name}` must have shape {expected[name]} for {times} times of {size} places and a tip "
                    f"of {last}; got {block.shape}."
                )
        dtype = jnp.result_type(diagonal, below, arrow, tip, jnp.float32)
        diagonal, tip = ((x + jnp.swapaxes(x, -1, -2)) / 2 for x in (diagonal, tip))
        self.matrix = Blocks(*(x.astype(dtype) for x in (diagonal, below, arrow, tip)))
        self.factor = jax.lax.stop_gradient(_factor(jax.lax.stop_gradient(self.matrix)))

    @property
    def size(self) -> int:
        """Number of rows."""
        times, last, places = self.matrix.arrow.shape
        return times * places + last

    def logdet(self) -> Float[Array, ""]:
        r""":math:`\log\det A`."""
        return _logdet(self.matrix, self.factor)

    def mv(self, x: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        """The product with a vector, or with the columns of a matrix: times one after the other, then the tip."""
        columns = self._columns("BlockTridiagonal.mv", "x", x)
        return _product(self.matrix, columns).reshape(jnp.shape(x))

    def solve(self, b: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        r""":math:`A^{-1} b`, of a vector or of the columns of a matrix."""
        columns = self._columns("BlockTridiagonal.solve", "b", b)

        def solve(_, b):
            return jnp.where(jnp.isfinite(_log_determinant(self.factor)), _solve(self.factor, b), jnp.nan)

        found = jax.lax.custom_linear_solve(partial(_product, self.matrix), columns, solve, symmetric=True)
        return found.reshape(jnp.shape(b))

    def selected_inverse(self) -> Blocks:
        r"""The blocks of :math:`A^{-1}` where :math:`A` has blocks."""
        return _selected_inverse(self.matrix, self.factor)

    def _columns(self, where, argument, x):
        x = jnp.asarray(check_real(where, argument, x))
        if x.ndim not in (1, 2) or x.shape[0] != self.size:
            raise ValueError(
                f"{where}: `{argument}` must have shape ({self.size},) or ({self.size}, k); got {x.shape}."
            )
        x = x.astype(jnp.promote_types(x.dtype, self.matrix.tip.dtype))
        return x if x.ndim == 2 else x[:, None]


# A factor is (M, C, G, H): the inverses M of the triangles of the pivots, the rows C of the next time and G of the tip,
# the inverse H of the tip's triangle.


def _factor(matrix: Blocks):
    def eliminate(before, blocks):
        c, g, tip = before
        diagonal, below, arrow = blocks
        m = inverse_root(diagonal - c @ c.T)
        c, g = below @ m.T, (arrow - g @ c.T) @ m.T
        return (c, g, tip - g @ g.T), (m, c, g)

    below = _with_last(matrix.below)
    start = (jnp.zeros_like(below[0]), jnp.zeros_like(matrix.arrow[0]), matrix.tip)
    (_, _, tip), (m, c, g) = jax.lax.scan(eliminate, start, (matrix.diagonal, below, matrix.arrow))
    return m, c, g, inverse_root(tip) if tip.size else tip


def _log_determinant(factor):
    m, _, _, h = factor
    return -2 * (jnp.sum(jnp.log(jnp.diagonal(m, axis1=1, axis2=2))) + jnp.sum(jnp.log(jnp.diagonal(h))))


def _solve(factor, b):
    m, c, g, h = factor
    times, _, places = g.shape
    head, tail = b[: times * places].reshape(times, places, -1), b[times * places :]

    def down(before, blocks):
        m, c, g, b = blocks
        above, tail = before
        y = m @ (b - above)
        return (c @ y, tail - g @ y), y

    (_, tail), y = jax.lax.scan(down, (jnp.zeros_like(head[0]), tail), (m, c, g, head))
    tail = h.T @ (h @ tail)

    def up(after, blocks):
        m, c, g, y = blocks
        x = m.T @ (y - c.T @ after - g.T @ tail)
        return x, x

    _, x = jax.lax.scan(up, jnp.zeros_like(head[0]), (m, c, g, y), reverse=True)
    return jnp.concatenate([x.reshape(times * places, -1), tail])


def _product(matrix: Blocks, x):
    times, _, places = matrix.arrow.shape
    head, tail = x[: times * places].reshape(times, places, -1), x[times * places :]
    below = _with_last(matrix.below)
    y = matrix.diagonal @ head + jnp.swapaxes(matrix.arrow, 1, 2) @ tail
    y = y + jnp.swapaxes(below, 1, 2) @ jnp.roll(head, -1, axis=0) + jnp.roll(below @ head, 1, axis=0)
    tail = jnp.einsum("tas,tsk->ak", matrix.arrow, head) + matrix.tip @ tail
    return jnp.concatenate([y.reshape(times * places, -1), tail])


def _with_last(below):
    """One more block, of zeros, below the last time."""
    return jnp.concatenate([below, jnp.zeros((1, *below.shape[1:]), below.dtype)])


def _invert(factor):
    m, c, g, h = factor
    tip = h.T @ h

    def back(after, blocks):
        z, arrow = after  # of the next time
        m, c, g = blocks
        c, g = c @ m, g @ m
        below = -(z @ c + arrow.T @ g)
        arrow = -(arrow @ c + tip @ g)
        z = m.T @ m - c.T @ below - g.T @ arrow
        return (z, arrow), (z, below, arrow)

    start = (jnp.zeros_like(m[0]), jnp.zeros_like(g[0]))
    _, (diagonal, below, arrow) = jax.lax.scan(back, start, (m, c, g), reverse=True)
    found = Blocks(diagonal, below[:-1], arrow, tip)
    good = jnp.isfinite(_log_determinant(factor))
    return jax.tree.map(lambda x: jnp.where(good, x, jnp.nan), found)


@jax.custom_jvp
def _logdet(matrix, factor):
    return _log_determinant(factor)


@_logdet.defjvp
def _logdet_jvp(primals, tangents):
    inverse, change = _selected_inverse(*primals), tangents[0]
    once = jnp.vdot(inverse.diagonal, change.diagonal) + jnp.vdot(inverse.tip, change.tip)
    twice = jnp.vdot(inverse.below, change.below) + jnp.vdot(inverse.arrow, change.arrow)
    return _logdet(*primals), once + 2 * twice


@jax.custom_jvp
def _selected_inverse(matrix, factor):
    return _invert(factor)


@_selected_inverse.defjvp
def _selected_inverse_jvp(primals, tangents):
    return _selected_inverse(*primals), jax.jvp(lambda a: _invert(_factor(a)), (primals[0],), (tangents[0],))[1]
