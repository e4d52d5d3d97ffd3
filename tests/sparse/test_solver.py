"""Solutions by another library, and their derivatives, against dense algebra.

Tolerances: double precision's 2e-16 times condition numbers (below 1e4 here) and a few hundred operations.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse import sparse
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Mesh
from tests.sparse.conftest import box, dense

CLOSE = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture(scope="module")
def problem():
    """A pattern, the same one solved by CHOLMOD, and what is solved."""
    with jax.enable_x64(True):
        matrix, places = box(12, 11)
        pattern = sparse.analyze(matrix, places)
        b = jnp.asarray(np.random.default_rng(0).normal(size=(pattern.size, 2)))
        return pattern, pattern.with_solver(sparse.cholmod), pattern.values(matrix), b


@partial(jax.jit, static_argnums=0)
def solutions(solve, pattern, values, b):
    """Of a vector and of columns, of two matrices at once, and first and second derivatives."""
    solve = partial(solve, pattern)

    def square(values, b):
        return jnp.sum(solve(values, b) ** 2)

    along = jax.grad(lambda s: square(s**2 * values, b[:, 0]))
    scales = jnp.array([1.0, 2.0])
    return {
        "vector": solve(values, b[:, 0]),
        "columns": solve(values, b),
        "matrices": jax.vmap(lambda s: solve(s * values, b))(scales),
        "right-hand sides": jax.vmap(lambda x: solve(values, x), 1)(b),
        "first": jax.grad(square, (0, 1))(values, b),
        "first of two": jax.vmap(lambda s: jax.grad(square)(s * values, b[:, 0]))(scales),
        "second": jax.jvp(along, (1.0,), (1.0,)),
    }


def by_dense_algebra(pattern, values, b):
    return jnp.linalg.solve(dense(pattern, values), b)


def test_solutions_and_their_derivatives(problem, x64):
    _, theirs, values, b = problem
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, **CLOSE),
        solutions(sparse.solve, theirs, values, b),
        solutions(by_dense_algebra, theirs, values, b),
    )


@jax.jit
def field(mesh, z, range):
    """A whitened field and its derivative by the range."""

    def draw(range):
        return Matern(mesh, range=range, scale=1.0, smoothness=1.0).from_base(z)

    return jax.jvp(draw, (range,), (jnp.ones_like(range),))


@pytest.mark.slow
def test_a_field_on_a_mesh_by_cholmod(x64, key):
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 2), axis=-1).reshape(-1, 2)
    i = np.arange(81).reshape(9, 9)[:-1, :-1].ravel()
    mesh = Mesh(points, np.concatenate([np.c_[i, i + 1, i + 10], np.c_[i, i + 10, i + 9]]))
    other, z = mesh.with_solver(sparse.cholmod), jax.random.normal(key, (81,))
    assert other == mesh
    assert other.with_solver(None).pattern.solver is None
    for ours, theirs in zip(field(mesh, z, jnp.array(0.5)), field(other, z, jnp.array(0.5)), strict=True):
        np.testing.assert_allclose(theirs, ours, **CLOSE)
    nothing = mesh.with_solver(lambda rows, cols, values, b: 0 * b)
    assert jnp.all(field(nothing, z, jnp.array(0.5))[0] == 0)  # the field is what the solver says
    for wild in (0.0, 1e-200, 1e200, jnp.inf, jnp.nan):  # a step of a sampler in warm-up, which must not end the run
        assert jnp.all(jnp.isnan(field(other, z, jnp.array(wild))[0])), wild


def test_what_is_not_positive_definite_is_nan(problem, x64):
    _, theirs, values, b = problem
    off = theirs.rows != theirs.cols
    bad = -values, values.at[3].set(jnp.nan), jnp.where(off, 100 * values, values)
    found = jax.jit(jax.vmap(partial(sparse.solve, theirs), (0, None)))(jnp.stack([values, *bad]), b)
    np.testing.assert_allclose(found[0], by_dense_algebra(theirs, values, b), **CLOSE)
    assert jnp.all(jnp.isnan(found[1:]))


def test_single_precision_gets_solutions_in_double(problem):
    _, theirs, values, b = problem
    found = jax.jit(partial(sparse.solve, theirs))(jnp.float32(values), jnp.float32(b))
    assert found.dtype == jnp.float32
    with jax.enable_x64(True):
        np.testing.assert_allclose(found, by_dense_algebra(theirs, values, b), rtol=1e-4, atol=1e-5)


def test_chains_in_threads(problem, x64):
    """Factors of several matrices on one pattern are not mixed up."""
    _, theirs, values, b = problem

    def chain(scale):
        return jax.lax.map(lambda k: sparse.solve(theirs, (scale + k) * values, b[:, 0]), jnp.arange(20.0))

    found = jax.pmap(chain)(jnp.array([1.0, 100.0]))
    scales = jnp.array([1.0, 100.0])[:, None, None] + jnp.arange(20.0)[:, None]
    np.testing.assert_allclose(found, by_dense_algebra(theirs, values, b[:, 0]) / scales, **CLOSE)


def test_bad_input(problem, monkeypatch):
    pattern, theirs, values, b = problem
    with pytest.raises(TypeError, match=r"Pattern\.with_solver: `solver` must be a function of rows.*got 3"):
        pattern.with_solver(3)
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match=r"must return the shape of its right-hand side, \(132, 2\); got \(2,\)"),
    ):
        jax.eval_shape(sparse.solve, pattern.with_solver(lambda rows, cols, values, b: b[0]), values, b)
    monkeypatch.setitem(sys.modules, "cvxopt", None)
    with jax.enable_x64(True), pytest.raises(ImportError, match=r"pip install numpyro-inverse\[cholmod\]"):
        jax.eval_shape(sparse.solve, theirs, values, b)
