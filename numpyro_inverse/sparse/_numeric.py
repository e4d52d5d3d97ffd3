"""The numeric part: a few batched dense operations for each level of the tree. Nothing here has rules of its own for
derivatives; ``_cholesky`` adds them.

All extension of a child's matrix or vector to its parent's front, and back, is by gathers: each place of the parent
reads from its two children, so that nothing is scattered.
"""

import jax
import jax.numpy as jnp
from jax.lax.linalg import cholesky, triangular_solve
from jaxtyping import Array, Float

from numpyro_inverse.sparse._pattern import Level, Pattern

Blocks = tuple[tuple[Array, Array], ...]


def factor(pattern: Pattern, values: Float[Array, " nnz"]) -> Blocks:
    """For each level the lower triangles (B, S, S) of the fronts' own nodes and the rows (B, U, S) of their borders."""
    blocks = []
    update = None
    start = 0
    for level in pattern.levels:
        number, own, border = level.size
        stop = start + level.slots.shape[-1]
        panel = jnp.zeros(number * (own + border) * own, values.dtype)
        panel = panel.at[level.slots].set(values[start:stop], unique_indices=True, mode="promise_in_bounds")
        panel = panel.reshape(number, own + border, own)
        start = stop
        if update is not None:
            panel = panel + _extend(update, level.children, slice(None), slice(own))
        diagonal, below = panel[:, :own], panel[:, own:]
        diagonal = _mirror(diagonal) + _identity_where_empty(pattern, level, values.dtype)
        l11 = cholesky(diagonal, symmetrize_input=False)
        l21 = triangular_solve(l11, below, left_side=False, lower=True, transpose_a=True)
        blocks.append((l11, l21))
        if level.parent is not None:
            rest = -(l21 @ _t(l21))
            if update is not None:
                rest = rest + _extend(update, level.children, slice(own, None), slice(own, None))
            update = rest
    return tuple(blocks)


def log_determinant(blocks: Blocks) -> Float[Array, ""]:
    """The logarithm of the determinant of the matrix."""
    diagonals = (jnp.diagonal(l11, axis1=1, axis2=2) for l11, _ in blocks)
    return 2 * sum(jnp.sum(jnp.log(d)) for d in diagonals)


def inverse_lower(pattern: Pattern, blocks: Blocks, x: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The factor's inverse times the columns of x."""
    found, update = [], None
    x = _pad(x)
    for level, (l11, l21) in zip(pattern.levels, blocks, strict=True):
        own = level.nodes.shape[1]
        head, tail = x[level.nodes], None
        if update is not None:
            lifted = _lift(update, level.children)
            head, tail = head + lifted[:, :own], lifted[:, own:]
        y = triangular_solve(l11, head, left_side=True, lower=True)
        found.append(y)
        update = -(l21 @ y) if tail is None else tail - l21 @ y
    return _collect(pattern, found)


def inverse_upper(pattern: Pattern, blocks: Blocks, z: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The inverse of the factor's transpose times the columns of z."""
    found, front = [], None
    z = _pad(z)
    for level, (l11, l21) in zip(reversed(pattern.levels), reversed(blocks), strict=True):
        above = _lower_part(level, front, z)
        own = triangular_solve(l11, z[level.nodes] - _t(l21) @ above, left_side=True, lower=True, transpose_a=True)
        found.append(own)
        front = jnp.concatenate([own, above], axis=1)
    return _collect(pattern, found[::-1])


def lower(pattern: Pattern, blocks: Blocks, z: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The factor times the columns of z."""
    found, update = [], None
    z = _pad(z)
    for level, (l11, l21) in zip(pattern.levels, blocks, strict=True):
        own = z[level.nodes]
        head, tail = l11 @ own, l21 @ own
        if update is not None:
            lifted = _lift(update, level.children)
            head, tail = head + lifted[:, : own.shape[1]], tail + lifted[:, own.shape[1] :]
        found.append(head)
        update = tail
    return _collect(pattern, found)


def upper(pattern: Pattern, blocks: Blocks, x: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The factor's transpose times the columns of x."""
    found, front = [], None
    x = _pad(x)
    for level, (l11, l21) in zip(reversed(pattern.levels), reversed(blocks), strict=True):
        above = _lower_part(level, front, x)
        own = x[level.nodes]
        found.append(_t(l11) @ own + _t(l21) @ above)
        front = jnp.concatenate([own, above], axis=1)
    return _collect(pattern, found[::-1])


def selected_inverse(pattern: Pattern, blocks: Blocks) -> Float[Array, " nnz"]:
    """The entries of the inverse on the pattern, from the root down.

    With W = L21 L11^-1, the inverse's blocks of a front are Z21 = -Z22 W and Z11 = L11^-T L11^-1 - W^T Z21, where Z22
    is read from the parent's front (Takahashi, Fagan and Chen 1973; by fronts, Campbell and Davis 1995).
    """
    found = []
    whole = None
    for k in reversed(range(len(blocks))):
        level, (l11, l21) = pattern.levels[k], blocks[k]
        number, own, border = level.size
        eye = jnp.broadcast_to(jnp.eye(own, dtype=l11.dtype), (number, own, own))
        inverse = triangular_solve(l11, eye, left_side=True, lower=True)
        z11 = _t(inverse) @ inverse
        z21 = jnp.zeros((number, border, own), l11.dtype)
        z22 = jnp.zeros((number, border, border), l11.dtype)
        if level.parent is not None:
            z22 = _restrict(whole, level.parent)
            w = l21 @ inverse
            z21 = -(z22 @ w)
            z11 = z11 - _t(w) @ z21
        panel = jnp.concatenate([z11, z21], axis=1)
        found.append(panel.reshape(-1).at[level.slots].get(unique_indices=True, mode="promise_in_bounds"))
        if k:  # the deepest level has no children to read from it
            whole = jnp.concatenate([panel, jnp.concatenate([_t(z21), z22], axis=1)], axis=2)
    return jnp.concatenate(found[::-1])


# Between the levels.


def _extend(update: Array, children: Array, rows: slice, columns: slice) -> Array:
    """The children's updates (2 B, U, U), summed at their places in part of the parent's front."""
    number, width = children.shape[0], update.shape[-1]
    start = (jnp.arange(2 * number, dtype=jnp.int32) * width**2).reshape(number, 2)
    r, c = children[:, :, rows], children[:, :, columns]
    flat = update.reshape(-1)

    def child(k):
        index = (start[:, k, None] + r[:, k] * width)[:, :, None] + c[:, k, None, :]
        return flat.at[index].get(mode="promise_in_bounds")

    return child(0) + child(1)


def _lift(update: Array, children: Array) -> Array:
    """The children's vectors (2 B, U, k), summed at their places in the parent's front."""
    number, width, k = children.shape[0], *update.shape[1:]
    start = (jnp.arange(2 * number, dtype=jnp.int32) * width).reshape(number, 2, 1)
    read = update.reshape(-1, k).at[start + children].get(mode="promise_in_bounds")
    return read[:, 0] + read[:, 1]


def _restrict(whole: Array, parent: Array) -> Array:
    """The parents' matrices (B / 2, F, F) at the places of the borders."""
    number, width = parent.shape[0], whole.shape[-1]
    start = jnp.arange(number, dtype=jnp.int32)[:, None] // 2 * width**2
    index = (start + parent * width)[:, :, None] + parent[:, None, :]
    return whole.reshape(-1).at[index].get(mode="promise_in_bounds")


def _lower_part(level: Level, front: Array | None, like: Array) -> Array:
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


def _mirror(a: Array) -> Array:
    """Symmetric matrices from their lower triangles; the derivative of a Cholesky factor reads both."""
    return jnp.tril(a) + _t(jnp.tril(a, -1))


def _identity_where_empty(pattern: Pattern, level: Level, dtype) -> Array:
    empty = (level.nodes == pattern.size).astype(dtype)
    return jax.vmap(jnp.diag)(empty)


def _t(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)
