"""Matrices at the door: real, square, symmetric scipy matrices."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from numpyro_inverse._checks import describe

SYMMETRIC = 1e-8  # largest asymmetry, relative to the largest entry


def canonical(where: str, matrix: Any, size: int | None = None) -> sp.csr_array:
    """A symmetric matrix in CSR form with sorted indices, each place once."""
    if not sp.issparse(matrix) or matrix.dtype.kind not in "fiub":
        raise TypeError(f"{where}: `matrix` must be a scipy sparse matrix of real numbers; got {describe(matrix)}.")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"{where}: `matrix` must be square and not empty; got shape {matrix.shape}.")
    if size is not None and matrix.shape[0] != size:
        raise ValueError(f"{where}: `matrix` must have {size} rows, as the pattern; got {matrix.shape[0]}.")
    found = sp.csr_array(matrix, dtype=float, copy=True)
    found.sum_duplicates()
    found.sort_indices()
    if not np.isfinite(found.data).all():
        raise ValueError(
            f"{where}: `matrix` must be finite; {(~np.isfinite(found.data)).sum()} of its entries are not."
        )
    gap = abs(found - found.T)
    if gap.nnz and gap.max() > SYMMETRIC * abs(found).max():
        i, j = (int(axis[np.argmax(gap.tocoo().data)]) for axis in gap.tocoo().coords)
        raise ValueError(
            f"{where}: `matrix` must be symmetric; its entries ({i}, {j}) and ({j}, {i}) are {found[i, j]} and "
            f"{found[j, i]}. Give (A + A.T) / 2."
        )
    return found
