"""Sums over the entries of each row that are read and never scattered, so that they are fast on every device."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from numpyro_inverse._arrays import as_jax


def runs(row: np.ndarray, n: int) -> tuple[Int[Array, "rows width"], ...]:
    """Index arrays with which :func:`row_sums` sums entries by row; entries of row ``n`` are left out."""
    width = max(2, int(np.ceil(np.count_nonzero(row < n) / n)) + 1)
    sums = []
    entries = np.argsort(row, kind="stable")[: np.count_nonzero(row < n)]
    size, row = len(row), row[entries]
    total = None
    while total != n:
        counts = np.bincount(row, minlength=n)
        parts = np.maximum(1, -(-counts // width))
        first = np.concatenate([[0], np.cumsum(parts)])
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        total = int(first[-1])
        index = size + 2**30 + np.arange(total * width).reshape(total, width)  # beyond the end, all different
        index[first[row] + within // width, within % width] = entries
        sums.append(as_jax(index, np.int32))
        size, row, entries = total, np.repeat(np.arange(n), parts), np.arange(total)
    return tuple(sums)


def row_sums(sums: tuple[Int[Array, "rows width"], ...], entries: Float[Array, "m *k"]) -> Float[Array, "n *k"]:
    """Sums of the entries of each row: sums over short runs, then over runs of those, until each row has one.

    An index beyond the end is an empty place. No place is read twice, so that the adjoint scatters without collisions.
    """
    for index in sums:
        read = entries.at[index].get(mode="fill", fill_value=0, unique_indices=True)
        entries = jnp.sum(read, axis=1)
    return entries
