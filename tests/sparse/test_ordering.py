"""Separators separate, and halves are alike."""

import numpy as np
import pytest
import scipy.sparse as sp

from numpyro_inverse.sparse._ordering import nested_dissection


def below(parts, i):
    """All nodes in the tree from part i down."""
    if i >= len(parts):
        return np.zeros(0, int)
    return np.concatenate([parts[i], below(parts, 2 * i + 1), below(parts, 2 * i + 2)])


def full(matrix):
    return sp.csr_array(abs(matrix) + sp.eye_array(matrix.shape[0]))


def test_nothing_crosses_a_separator(matrix):
    a, places, leaf_size = matrix
    a = full(a)
    parts = nested_dissection(a, places, leaf_size)
    assert sorted(below(parts, 0)) == list(range(a.shape[0]))
    for i in range(len(parts)):
        left, right = below(parts, 2 * i + 1), below(parts, 2 * i + 2)
        assert a[left][:, right].nnz == 0


@pytest.mark.parametrize("with_places", [True, False])
def test_a_square_is_cut_along_its_rows(with_places):
    """A square of m x m nodes has a separator of m; distances from a corner cut along a diagonal instead."""
    m = 20
    i, j = np.divmod(np.arange(m * m), m)
    places = np.stack([i, j], axis=1).astype(float)
    near = np.abs(i[:, None] - i) + np.abs(j[:, None] - j) <= 1
    parts = nested_dissection(sp.csr_array(near.astype(float)), places if with_places else None, 20)
    assert len(parts[0]) <= (m if with_places else 1.2 * m)
    assert len(below(parts, 1)) == pytest.approx(len(below(parts, 2)), rel=0.2)
    assert max(len(part) for part in parts[len(parts) // 2 :]) <= 30


def test_a_node_that_touches_all_others_goes_to_the_root():
    star = sp.lil_array((400, 400))
    star[7, :] = star[:, 7] = 1.0
    parts = nested_dissection(full(star), None, 10)
    np.testing.assert_array_equal(parts[0], [7])
