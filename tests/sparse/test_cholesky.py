"""The factorization and its derivatives against dense algebra.

Tolerances: double precision's 2e-16 times condition numbers (below 200 here) and a few hundred operations.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from numpyro_inverse import sparse
from tests.sparse.conftest import box, dense

CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def analyzed(matrix):
    a, places, leaf_size = matrix
    pattern = sparse.analyze(a, places, leaf_size=leaf_size)
    return pattern, pattern.values(a)


@jax.jit
def everything(pattern, values, b):
    """All results of one factorization."""
    factor = pattern.factor(values)
    names = ("solve", "lower", "upper", "inverse_lower", "inverse_upper")
    return {
        "logdet": factor.logdet(),
        "selected": factor.selected_inverse(),
        "variances": factor.inverse_diagonal(),
        "sample": factor.sample(jax.random.key(0), (2,)),
        "density": sparse.normal_log_density(pattern, values, b[:, 0]),
        **{name: getattr(factor, name)(b) for name in names},
        "lower upper": factor.lower(factor.upper(b)),
    }


@pytest.mark.slow
def test_against_dense_algebra(matrix, x64):
    pattern, values = analyzed(matrix)
    a, n = matrix[0].toarray(), pattern.size
    b = np.random.default_rng(0).normal(size=(n, 3))
    found, inverse = everything(pattern, values, b), np.linalg.inv(a)
    logdet = np.linalg.slogdet(a)[1]
    np.testing.assert_allclose(found["logdet"], logdet, **CLOSE)
    np.testing.assert_allclose(found["solve"], inverse @ b, **CLOSE)
    np.testing.assert_allclose(found["selected"], inverse[pattern.rows, pattern.cols], **CLOSE)
    np.testing.assert_allclose(found["variances"], np.diag(inverse), **CLOSE)
    density = 0.5 * (logdet - b[:, 0] @ a @ b[:, 0] - n * np.log(2 * np.pi))
    np.testing.assert_allclose(found["density"], density, **CLOSE)
    # L is any root of A, the same in all four products.
    np.testing.assert_allclose(found["lower upper"], a @ b, **CLOSE)
    np.testing.assert_allclose(found["lower"].T @ b, b.T @ found["upper"], **CLOSE)
    np.testing.assert_allclose(found["lower"].T @ inverse @ found["lower"], b.T @ b, **CLOSE)
    np.testing.assert_allclose(found["inverse_lower"].T @ found["inverse_lower"], b.T @ inverse @ b, **CLOSE)
    np.testing.assert_allclose(found["inverse_lower"].T @ b, b.T @ found["inverse_upper"], **CLOSE)
    # Samples are L^-T times white noise.
    noise = jax.random.normal(jax.random.key(0), (2, n))
    np.testing.assert_allclose(np.vecdot(found["sample"] @ a, found["sample"]), np.sum(noise**2, 1), **CLOSE)


def test_determinant_of_a_path(x64):
    """sinh((n + 1) t) / sinh(t) with 2 cosh(t) = 2 + c, for any n."""
    n, c = 300, 0.05
    matrix = sp.diags_array([-np.ones(n - 1), np.full(n, 2 + c), -np.ones(n - 1)], offsets=[-1, 0, 1])
    pattern = sparse.analyze(sp.csr_array(matrix), leaf_size=80)
    t = np.arccosh(1 + c / 2)
    exact = (n + 1) * t + np.log1p(-np.exp(-2 * (n + 1) * t)) - np.log(2 * np.sinh(t))
    assert abs(jax.jit(sparse.logdet)(pattern, pattern.values(matrix)) - exact) < 1e-12


def _of_factor(f, x):
    return f.logdet() + jnp.sum(f.solve(x) ** 3) + jnp.vdot(x, f.pattern.mv(f.values, x))


def _of_dense(a, x):
    return jnp.linalg.slogdet(a)[1] + jnp.sum(jnp.linalg.solve(a, x) ** 3) + x @ a @ x


FUNCTIONS = {
    "logdet, solve and product": (_of_factor, _of_dense),
    "inverse": (
        lambda f, x: jnp.vdot(x, f.inverse_diagonal() ** 2),
        lambda a, x: jnp.vdot(x, jnp.diag(jnp.linalg.inv(a)) ** 2),
    ),
    "root": (lambda f, x: jnp.sum(f.inverse_upper(f.lower(x)) ** 2), None),
}


def first_derivatives(function, values, x, direction):
    """The gradient."""
    return jax.grad(function, (0, 1))(values, x)


def second_derivatives(function, values, x, direction):
    """The gradient, and the Hessian times a direction, forward over reverse and reverse over reverse."""

    def slope(values, x):
        return sum(map(jnp.vdot, jax.grad(function, (0, 1))(values, x), direction))

    gradient, along = jax.jvp(jax.grad(function, (0, 1)), (values, x), direction)
    return gradient, along, jax.grad(slope, (0, 1))(values, x)


@partial(jax.jit, static_argnums=0)
def derivatives(which, pattern, values, x, direction):
    """Derivatives by the factorization, and by dense algebra."""
    found, wanted = {}, {}
    for name, (ours, theirs) in FUNCTIONS.items():
        found[name] = which(lambda v, x, f=ours: f(pattern.factor(v), x), values, x, direction)
        if theirs is not None:
            wanted[name] = which(lambda v, x, f=theirs: f(dense(pattern, v), x), values, x, direction)
    return found, wanted


def point(shape):
    """A pattern, a point and a direction."""
    a, places = box(*shape)
    pattern = sparse.analyze(a, places, leaf_size=6)
    rng = np.random.default_rng(2)
    at = (pattern.values(a), jnp.asarray(rng.normal(size=pattern.size)))
    return pattern, at, tuple(jnp.asarray(rng.normal(size=part.shape)) for part in at)


@pytest.fixture(scope="module")
def plane():
    """In two dimensions, all of them."""
    with jax.enable_x64(True):
        pattern, at, direction = point((4, 3))
        return pattern, at, direction, derivatives(second_derivatives, pattern, *at, direction)


def assert_close(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logdet, solve and product", "inverse"])
def test_derivatives_against_dense_algebra(plane, name):
    """Gradients, and Hessians in a direction both ways round."""
    found, wanted = plane[3]
    assert_close(found[name], wanted[name])


@pytest.mark.slow
def test_gradients_in_three_dimensions(x64):
    pattern, at, direction = point((2, 2, 3))
    found, wanted = derivatives(first_derivatives, pattern, *at, direction)
    assert_close({name: found[name] for name in wanted}, wanted)


@pytest.mark.slow
def test_derivatives_against_finite_differences(plane, x64):
    """Central differences: an error of h^2 from truncation, 1e-16 / h from rounding, h = 1e-5."""
    pattern, at, direction, (found, _) = plane
    h = 1e-5
    values = jax.jit(lambda p, v, x: {name: ours(p.factor(v), x) for name, (ours, _) in FUNCTIONS.items()})
    up, down = (values(pattern, *(a + s * h * d for a, d in zip(at, direction, strict=True))) for s in (1, -1))
    for name, (gradient, along, again) in found.items():
        slope = sum(map(jnp.vdot, gradient, direction))
        np.testing.assert_allclose(slope, (up[name] - down[name]) / (2 * h), rtol=1e-7, atol=1e-7)
        assert_close(along, again)  # second derivatives commute


@jax.jit
def value_and_gradient(pattern, values, b):
    def function(values, b):
        x, logdet = sparse.solve_and_logdet(pattern, values, b)
        return jnp.vdot(x, b) + logdet + sparse.inverse_upper(pattern, values, b)[0]

    return jax.value_and_grad(function, (0, 1))(values, b)


@pytest.fixture(scope="module")
def square():
    a, places = box(4, 3)
    pattern = sparse.analyze(a, places, leaf_size=6)
    return pattern, pattern.values(a), jnp.asarray(np.random.default_rng(3).normal(size=12), jnp.float32)


@pytest.mark.slow
def test_single_precision(square):
    """To float32's 1e-7 times condition numbers below 200."""
    pattern, values, b = square
    single = value_and_gradient(pattern, values, b)
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        double = value_and_gradient(pattern, *(jnp.asarray(np.asarray(x), jnp.float64) for x in (values, b)))
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_several_matrices_at_a_time(square):
    pattern, values, b = square
    several = jnp.stack([values, 1.3 * values]), jnp.stack([b, 2 * b])
    found = jax.jit(jax.vmap(value_and_gradient, (None, 0, 0)))(pattern, *several)
    for i in range(2):
        wanted = value_and_gradient(pattern, several[0][i], several[1][i])
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_not_positive_definite_is_nan_and_the_pivot_is_named(square):
    pattern, values, b = square
    bad = values.at[pattern.diagonal[5]].add(-10.0)
    for leaf in jax.tree.leaves(value_and_gradient(pattern, bad, b)):
        assert jnp.isnan(leaf).all()
    pivot = sparse.first_bad_pivot(pattern, bad)
    assert pivot is not None
    assert pivot.node == 5
    assert pivot.value < 0
    assert sparse.first_bad_pivot(pattern, values) is None
    assert np.isnan(sparse.first_bad_pivot(pattern, values.at[0].set(jnp.nan)).value)


def test_bad_news_reaches_what_is_not_connected():
    """Two nodes that do not touch, one with a negative variance: no number of the other one is given out."""
    pattern = sparse.analyze(sp.eye_array(2), leaf_size=1)
    values = jnp.where(pattern.rows == 1, -1.0, 1.0)

    @jax.jit
    def results(pattern, values):
        factor = pattern.factor(values)
        return factor.solve(jnp.ones(2)), factor.lower(jnp.ones(2)), factor.selected_inverse()

    for found in results(pattern, values):
        assert jnp.isnan(found).all()
    assert sparse.first_bad_pivot(pattern, values) == (1, -1.0)
    assert sparse.first_bad_pivot(pattern, -jnp.ones(2)) == (0, -1.0)  # the first of two fronts that both fail


def test_the_order_of_elimination_decides_which_pivot_is_first(x64):
    """What is left at the last node of a path is its Schur complement: c - 1 / c where a pivot c came before it."""
    matrix = sp.csr_array([[2.0, 1.0], [1.0, 0.25]])
    pattern = sparse.analyze(matrix, leaf_size=2)
    pivot = sparse.first_bad_pivot(pattern, pattern.values(matrix))
    assert pivot.node == 1
    np.testing.assert_allclose(pivot.value, 0.25 - 0.5)


def test_bad_arguments(square):
    factor = jax.jit(lambda pattern, values: pattern.factor(values))(*square[:2])
    with pytest.raises(ValueError, match=r"Cholesky.solve: `b` must have shape \(12,\) or \(12, k\)"):
        factor.solve(jnp.ones(11))
    with pytest.raises(ValueError, match="`z` must have shape"):
        factor.inverse_upper(jnp.ones((12, 1, 1)))
    with pytest.raises(TypeError, match="`x` must be real numbers"):
        factor.upper(jnp.ones(12) * 1j)
    with pytest.raises(TypeError, match="random key"):
        factor.sample(0)
    with pytest.raises(TypeError, match="tuple of integers"):
        factor.sample(jax.random.key(0), 3)
