"""The numeric part: a few batched dense operations for each level of the tree. Nothing here has rules of its own for
derivatives; ``_cholesky`` adds them.

All extension of a child's matrix or vector to its parent's front, and back, is by gathers: each place of the parent
reads from its two children, so that nothing is scattered.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.lax.linalg import cholesky, triangular_solve
from jaxtyping import Array, Float

from numpyro_inverse.sparse._pattern import Level, Pattern

Blocks = tuple[tuple[Array, Array], ...]


def eliminate(pattern: Pattern, values: Float[Array, " nnz"]) -> Iterator[tuple[Array, Array, Array]]:
    """Eliminates level after level: the fronts' own matrices (lower triangles), the inverses of their Cholesky factors,
    both (B, S, S), and the factor's rows of their borders (B, U, S).

    With the small inverses at hand, solves and the selected inverse are products, which every device does in batches.
    """
    update: Array | None = None
    start = 0
    for level in pattern.levels:
        number, own, border = level.size
        stop = start + level.slots.shape[-1]
        panel = jnp.zeros(number * (own + border) * own, values.dtype)
        panel = panel.at[level.slots].set(values[start:stop], unique_indices=True, mode="promise_in_bounds")
        panel = panel.reshape(number, own + border, own)
        start = stop
        if update is not None:
            panel = panel + _extend(update, level, slice(None), slice(own))
        panel = _settled(panel)
        diagonal = panel[:, :own] + _identity_where_empty(pattern, level, values.dtype)
        inverse = inverse_root(diagonal)
        l21 = _settled(panel[:, own:]) @ _t(inverse)
        yield diagonal, inverse, l21
        if level.parent is not None:
            rest = -_settled(l21 @ _t(l21))
            if update is not None:
                rest = rest + _extend(update, level, slice(own, None), slice(own, None))
            update = _settled(rest)


def factor(pattern: Pattern, values: Float[Array, " nnz"]) -> Blocks:
    """The factor: for each level the inverses of the fronts' triangles and the rows of their borders."""
    return tuple((inverse, l21) for _, inverse, l21 in eliminate(pattern, values))


def log_determinant(blocks: Blocks) -> Float[Array, ""]:
    """The logarithm of the determinant of the matrix."""
    diagonals = [jnp.diagonal(inverse, axis1=1, axis2=2).reshape(-1) for inverse, _ in blocks]
    return -2 * jnp.sum(jnp.log(jnp.concatenate(diagonals)))


def inverse_lower(pattern: Pattern, blocks: Blocks, x: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The factor's inverse times the columns of x."""
    found: list[Array] = []
    update: Array | None = None
    x = _pad(x)
    for level, (inverse, l21) in zip(pattern.levels, blocks, strict=True):
        _, own, _ = level.size
        front = _lift(update, level, l21.dtype)
        y = inverse @ (x[level.nodes] + front[:, :own])
        found.append(y)
        update = front[:, own:] - l21 @ y
    return _collect(pattern, found)


def inverse_upper(pattern: Pattern, blocks: Blocks, z: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The inverse of the factor's transpose times the columns of z."""
    found: list[Array] = []
    front: Array | None = None
    z = _pad(z)
    for level, (inverse, l21) in zip(reversed(pattern.levels), reversed(blocks), strict=True):
        above = _lower_part(front, level, z)
        own = _t(inverse) @ (z[level.nodes] - _t(l21) @ above)
        found.append(own)
        front = jnp.concatenate([own, above], axis=1)
    return _collect(pattern, found[::-1])


def lower(pattern: Pattern, blocks: Blocks, z: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The factor times the columns of z."""
    found: list[Array] = []
    update: Array | None = None
    z = _pad(z)
    for level, (inverse, l21) in zip(pattern.levels, blocks, strict=True):
        _, own, _ = level.size
        front = _lift(update, level, l21.dtype)
        head = z[level.nodes]
        found.append(triangular_solve(inverse, head, left_side=True, lower=True) + front[:, :own])
        update = front[:, own:] + l21 @ head
    return _collect(pattern, found)


def upper(pattern: Pattern, blocks: Blocks, x: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The factor's transpose times the columns of x."""
    found: list[Array] = []
    front: Array | None = None
    x = _pad(x)
    for level, (inverse, l21) in zip(reversed(pattern.levels), reversed(blocks), strict=True):
        above = _lower_part(front, level, x)
        own = x[level.nodes]
        product = triangular_solve(inverse, own, left_side=True, lower=True, transpose_a=True)
        found.append(product + _t(l21) @ above)
        front = jnp.concatenate([own, above], axis=1)
    return _collect(pattern, found[::-1])


def selected_inverse(pattern: Pattern, blocks: Blocks) -> Float[Array, " nnz"]:
    """The entries of the inverse on the pattern, from the root down.

    With W = L21 L11^-1, the inverse's blocks of a front are Z21 = -Z22 W and Z11 = L11^-T L11^-1 - W^T Z21, where Z22
    is read from the parent's front (Takahashi, Fagan and Chen 1973; by fronts, Campbell and Davis 1995).
    """
    found: list[Array] = []
    whole: Array | None = None
    for k in reversed(range(len(blocks))):
        level, (inverse, l21) = pattern.levels[k], blocks[k]
        z22 = _restrict(whole, level, inverse.dtype)
        w = _settled(l21 @ inverse)
        z21 = _settled(-(_settled(z22) @ w))
        z11 = _t(inverse) @ inverse - _t(w) @ z21
        panel = _settled(jnp.concatenate([z11, z21], axis=1))
        found.append(panel.reshape(-1).at[level.slots].get(unique_indices=True, mode="promise_in_bounds"))
        if k:  # the deepest level has no children to read from it
            whole = jnp.concatenate([panel, jnp.pad(z22, ((0, 0), (level.size[1], 0), (0, 0)))], axis=2)
            whole = _settled(whole)
    return jnp.concatenate(found[::-1])


@jax.custom_jvp
def inverse_root(a: Array) -> Array:
    """The inverses of the Cholesky factors of symmetric matrices, of which the lower triangles are read."""
    root = cholesky(a, symmetrize_input=False)
    eye = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    return triangular_solve(root, eye, left_side=False, lower=True)


@inverse_root.defjvp
def inverse_root_jvp(primals, tangents):
    r"""With M = L^-1: dM = -tril(M dA M^T) M, half of the diagonal counted."""
    inverse = inverse_root(*primals)
    change = jnp.tril(tangents[0])
    change = inverse @ (change + _t(jnp.tril(change, -1))) @ _t(inverse)
    half = jnp.tril(change) - 0.5 * change * jnp.eye(change.shape[-1], dtype=change.dtype)
    return inverse, -(half @ inverse)


# Between the levels.

_settled = jax.lax.optimization_barrier  # keeps XLA from computing the gathers again inside of every product


def _extend(update: Array, level: Level, rows: slice, columns: slice) -> Array:
    """The children's updates (2 B, U, U), summed at their places in part of the fronts."""
    assert level.children is not None
    number, width = level.children.shape[0], update.shape[-1]
    start = (jnp.arange(2 * number, dtype=jnp.int32) * width**2).reshape(number, 2)
    r, c = level.children[:, :, rows], level.children[:, :, columns]

    def child(k):
        index = (start[:, k, None] + r[:, k] * width)[:, :, None] + c[:, k, None, :]
        return update.reshape(-1).at[index].get(mode="promise_in_bounds")

    return child(0) + child(1)


def _lift(update: Array | None, level: Level, dtype) -> Array:
    """The children's vectors (2 B, U, k), summed at their places in the fronts; zero at the deepest level."""
    if update is None or level.children is None:
        return jnp.zeros((1, sum(level.size[1:]), 1), dtype)
    number, width, k = level.children.shape[0], *update.shape[1:]
    start = (jnp.arange(2 * number, dtype=jnp.int32) * width).reshape(number, 2, 1)
    read = update.reshape(-1, k).at[start + level.children].get(mode="promise_in_bounds")
    return read[:, 0] + read[:, 1]


def _restrict(whole: Array | None, level: Level, dtype) -> Array:
    """The parents' matrices (B / 2, F, F), of which the lower triangles are read, at the places of the borders; zero at
    the root."""
    number, _, border = level.size
    if whole is None or level.parent is None:
        return jnp.zeros((number, border, border), dtype)
    width = whole.shape[-1]
    start = jnp.arange(number, dtype=jnp.int32)[:, None, None] // 2 * width**2
    i, j = level.parent[:, :, None], level.parent[:, None, :]
    index = start + jnp.maximum(i, j) * width + jnp.minimum(i, j)
    return whole.reshape(-1).at[index].get(mode="promise_in_bounds")


def _lower_part(front: Array | None, level: Level, like: Array) -> Array:
    """The parents' vectors (B / 2, F, k) at the places of the borders; zero at the root."""
    number, _, border = level.size
    if front is None or level.parent is None:
        return jnp.zeros((number, border, like.shape[1]), like.dtype)
    width, k = front.shape[1:]
    start = jnp.arange(number, dtype=jnp.int32)[:, None] // 2 * width
    return front.reshape(-1, k).at[start + level.parent].get(mode="promise_in_bounds")


def _pad(x: Array) -> Array:
    return jnp.pad(x, ((0, 1), (0, 0)))


def _collect(pattern: Pattern, found: list[Array]) -> Array:
    flat = jnp.concatenate([y.reshape(-1, y.shape[-1]) for y in found])
    return flat.at[pattern.places].get(unique_indices=True, mode="promise_in_bounds")


def _identity_where_empty(pattern: Pattern, level: Level, dtype) -> Array:
    empty = (level.nodes == pattern.size).astype(dtype)
    return jax.vmap(jnp.diag)(empty)


def _t(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)
