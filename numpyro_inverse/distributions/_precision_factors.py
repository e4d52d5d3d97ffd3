r"""Precisions by sparse factors, :math:`Q = K^{\mathsf T} C^{-1} K`, of one field and of mixtures of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Entries(NamedTuple):
    """The lower triangle of where symmetric matrices have entries."""

    rows: Int[Array, " nnz"]
    cols: Int[Array, " nnz"]


class PrecisionFactors(NamedTuple):
    r"""A precision :math:`K^{\mathsf T} C^{-1} K`, or :math:`K` where there is no :math:`C`, by values on entries.

    Attributes:
        outer: :math:`K` at ``(rows[k], cols[k])``.
        mirror: :math:`K` at ``(cols[k], rows[k])``, or None where it is symmetric.
        middle: :math:`C`, positive definite, or None: then :math:`K` is.
        logdet: log determinant of the precision.
        middle_logdet: that of :math:`C`, or 0.
    """

    outer: Float[Array, " nnz"]
    mirror: Float[Array, " nnz"] | None
    middle: Float[Array, " nnz"] | None
    logdet: Float[Array, ""]
    middle_logdet: float | Float[Array, ""]


def mixture_entries(entries: Entries, size: int, count: int, pairs: np.ndarray) -> Entries:
    """Those of ``count`` fields on the same ``size`` nodes; the pairs ``(a, b)`` of fields, ``a > b``, are coupled."""
    rows, cols = entries
    off = _off_diagonal(entries, size)
    starts, (above, left) = size * np.arange(count)[:, None], size * pairs.T[..., None]
    below = above + jnp.concatenate([rows, cols[off]]), left + jnp.concatenate([cols, rows[off]])
    own = starts + rows, starts + cols
    return Entries(*(jnp.concatenate([o.ravel(), b.ravel()]) for o, b in zip(own, below, strict=True)))


def _off_diagonal(entries: Entries, size: int) -> Int[Array, " off"]:
    return jnp.nonzero(entries.rows != entries.cols, size=len(entries.rows) - size)[0]


def mixture_factors(
    fields: Sequence[PrecisionFactors],
    entries: Entries,
    size: int,
    own: Float[Array, " count"],
    below: Float[Array, " pairs"],
    pairs: np.ndarray,
) -> PrecisionFactors:
    r"""The precision of u where :math:`w = R u` are independent fields, with a lower triangle R.

    With one field's :math:`Q_a = K_a^{\mathsf T} C_a^{-1} K_a` that of u is :math:`K^{\mathsf T} C^{-1} K`, the blocks
    of :math:`K` being :math:`R_{ab} K_a` and those of :math:`C` on the diagonal :math:`C_a`. A precision without a
    middle factor is :math:`K_a K_a^{-1} K_a`.

    Args:
        fields: one for each row of R, or one for all.
        entries: of one field.
        size: its number of nodes.
        own: the diagonal of R.
        below: R at the pairs.
        pairs: ``(a, b)``, ``a > b``.
    """
    each = [f if f.middle is not None else f._replace(middle=f.outer, middle_logdet=f.logdet) for f in fields]
    outer = jnp.stack([f.outer for f in each])
    mirror = jnp.stack([f.outer if f.mirror is None else f.mirror for f in each])
    off = _off_diagonal(entries, size)
    whole = jnp.concatenate([outer, mirror[:, off]], axis=1)
    coupled = below[:, None] * (whole if len(each) == 1 else whole[pairs[:, 0]])
    nothing = jnp.zeros(coupled.size, outer.dtype)
    count, copies = len(own), len(own) // len(each)
    middle = jnp.broadcast_to(jnp.stack([f.middle for f in each]), (count, outer.shape[1]))
    return PrecisionFactors(
        jnp.concatenate([(own[:, None] * outer).ravel(), coupled.ravel()]),
        jnp.concatenate([(own[:, None] * mirror).ravel(), nothing]),
        jnp.concatenate([middle.ravel(), nothing]),
        copies * sum(f.logdet for f in each) + 2 * size * jnp.sum(jnp.log(jnp.abs(own))),
        copies * sum(f.middle_logdet for f in each),
    )
