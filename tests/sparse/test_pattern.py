"""Patterns: values of matrices and back, products, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from numpyro_inverse import sparse


def analyzed(matrix):
    a, places, leaf_size = matrix
    return sparse.analyze(a, places, leaf_size=leaf_size)


@pytest.fixture(scope="module")
def triangle():
    """The pattern of three nodes, the first and the last of which do not touch."""
    return sparse.analyze(sp.csr_array([[2.0, 1, 0], [1, 3, 1], [0, 1, 4]]))


def test_values_are_those_of_the_lower_triangle(matrix, x64):
    pattern, a = analyzed(matrix), matrix[0]
    values = pattern.values(a)
    np.testing.assert_array_equal(values, a.toarray()[pattern.rows, pattern.cols])
    np.testing.assert_array_equal(pattern.matrix(values).toarray(), a.toarray())
    assert (pattern.rows >= pattern.cols).all()
    np.testing.assert_array_equal(pattern.rows[pattern.diagonal], np.arange(a.shape[0]))
    np.testing.assert_array_equal(pattern.cols[pattern.diagonal], np.arange(a.shape[0]))


def test_products(matrix, x64):
    pattern, a = analyzed(matrix), matrix[0]
    x = np.random.default_rng(0).normal(size=(a.shape[0], 2))
    values = pattern.values(a)
    np.testing.assert_allclose(pattern.mv(values, x), a @ x, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(pattern.mv(values, x[:, 0]), a @ x[:, 0], rtol=1e-13, atol=1e-13)


def test_values_may_be_fewer_than_the_pattern_but_not_outside(triangle):
    np.testing.assert_array_equal(triangle.matrix(triangle.values(sp.eye_array(3))).toarray(), np.eye(3))
    with pytest.raises(ValueError, match="1 entries outside the pattern"):
        triangle.values(sp.csr_array(np.ones((3, 3))))


def test_a_missing_diagonal_is_in_the_pattern():
    pattern = sparse.analyze(sp.csr_array([[0.0, 1], [1, 0]]))
    assert pattern.num_values == 3


def test_one_program_for_two_matrices_of_one_pattern(triangle):
    """The pattern is an argument: nothing about it is compiled in."""
    traced = []

    @jax.jit
    def logdet(pattern, values):
        traced.append(1)
        return sparse.logdet(pattern, values)

    other = sparse.analyze(sp.csr_array([[5.0, 1, 0], [1, 3, 1], [0, 1, 4]]))
    for pattern in (triangle, other):
        logdet(pattern, jnp.where(pattern.rows == pattern.cols, 3.0, 1.0))
    assert len(traced) == 1


NOT_SYMMETRIC = sp.csr_array([[2.0, 1.0], [0.5, 2.0]])
BAD_MATRICES = {
    "dense": (np.eye(3), TypeError, "scipy sparse matrix"),
    "complex": (sp.eye_array(3, dtype=complex), TypeError, "real numbers"),
    "not square": (sp.csr_array(np.ones((2, 3))), ValueError, "square"),
    "empty": (sp.csr_array((0, 0)), ValueError, "not empty"),
    "not finite": (sp.diags_array([1.0, np.nan]), ValueError, "1 of its entries"),
    "not symmetric": (NOT_SYMMETRIC, ValueError, r"\(0, 1\) and \(1, 0\) are 1.0 and 0.5"),
}


@pytest.mark.parametrize("bad", BAD_MATRICES)
def test_bad_matrices(bad):
    matrix, error, message = BAD_MATRICES[bad]
    with pytest.raises(error, match=message):
        sparse.analyze(matrix)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"coordinates": np.zeros(3)}, ValueError, r"shape \(3, d\)"),
        ({"coordinates": np.zeros((2, 2))}, ValueError, r"shape \(3, d\)"),
        ({"coordinates": np.full((3, 2), np.nan)}, ValueError, "finite"),
        ({"leaf_size": 0}, ValueError, "positive integer"),
        ({"leaf_size": "many"}, TypeError, "positive integer"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        sparse.analyze(sp.eye_array(3), **options)


def test_bad_arguments(triangle):
    values = jnp.ones(5)
    with pytest.raises(ValueError, match=r"`values` must have shape \(5,\)"):
        triangle.factor(jnp.ones(4))
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        triangle.factor(jnp.ones((2, 5)))
    with pytest.raises(TypeError, match="real numbers"):
        triangle.factor(values * 1j)
    with pytest.raises(ValueError, match="must have 3 rows"):
        triangle.values(sp.eye_array(4))
    with pytest.raises(ValueError, match=r"`x` must have shape \(3,\) or \(3, k\)"):
        triangle.mv(values, jnp.ones(4))
    for function in (sparse.logdet, lambda p, v: sparse.solve(p, v, values), sparse.first_bad_pivot):
        with pytest.raises(TypeError, match=r"made by `sparse.analyze`"):
            function("pattern", values)
    with pytest.raises(TypeError, match="traced"):
        jax.jit(sparse.first_bad_pivot)(triangle, values)
