"""Block-tridiagonal matrices with an arrow, against dense algebra: to 1e-16 times a condition of 100 and some tens."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse import sparse

T, S, A = 4, 3, 2


def places():
    """Rows and columns of all numbers of the blocks, one block after the other."""
    at = np.arange(T * S + A)
    time, tip = at[: T * S].reshape(T, S), at[T * S :]
    pairs = [(time, time), (time[1:], time[:-1]), (np.broadcast_to(tip, (T, A)), time), (tip, tip)]
    rows = [np.broadcast_to(i[..., :, None], (*i.shape, j.shape[-1])).ravel() for i, j in pairs]
    columns = [np.broadcast_to(j[..., None, :], (*i.shape, j.shape[-1])).ravel() for i, j in pairs]
    return np.concatenate(rows), np.concatenate(columns)


def dense(diagonal, below, arrow, tip):
    """The matrix, both triangles."""
    diagonal, tip = (0.5 * (x + jnp.swapaxes(x, -1, -2)) for x in (diagonal, tip))
    values = jnp.concatenate([x.ravel() for x in (diagonal, below, arrow, tip)])
    rows, columns = places()
    a = jnp.zeros((T * S + A, T * S + A)).at[rows, columns].set(values)
    return a.at[columns, rows].set(values)


@jax.jit
def both(blocks, x, direction):
    """Values and derivatives of one function, by blocks and by dense algebra; the rest of the results."""

    def ours(blocks, x):
        a = sparse.BlockTridiagonal(*blocks)
        inverse = a.selected_inverse()
        return a.logdet() + jnp.sum(a.solve(x) ** 3) + jnp.vdot(a.mv(x), x) + jnp.sum(inverse.below**2)

    def theirs(blocks, x):
        a = dense(*blocks)
        inverse = jnp.linalg.inv(a)
        squares = sum(jnp.sum(inverse[(t + 1) * S : (t + 2) * S, t * S : (t + 1) * S] ** 2) for t in range(T - 1))
        return jnp.linalg.slogdet(a)[1] + jnp.sum((inverse @ x) ** 3) + x @ a @ x + squares

    def derived(function):
        return function(blocks, x), jax.jvp(jax.grad(function, (0, 1)), (blocks, x), direction)

    a = sparse.BlockTridiagonal(*blocks)
    return derived(ours), derived(theirs), a.selected_inverse(), jnp.linalg.inv(dense(*blocks))


def make(rng):
    shapes = (T, S, S), (T - 1, S, S), (T, A, S), (A, A)
    diagonal, below, arrow, tip = (jnp.asarray(0.3 * rng.normal(size=shape)) for shape in shapes)
    return diagonal + 3 * jnp.eye(S), below, arrow, tip + 3 * jnp.eye(A)


@pytest.mark.slow
def test_against_dense_algebra(x64):
    rng = np.random.default_rng(0)
    blocks, x = make(rng), jnp.asarray(rng.normal(size=T * S + A))
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), (blocks, x))
    found, wanted, inverse, z = both(blocks, x, direction)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)
    for t in range(T):
        here = slice(t * S, (t + 1) * S)
        np.testing.assert_allclose(inverse.diagonal[t], z[here, here], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(inverse.arrow[t], z[T * S :, here], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(inverse.tip, z[T * S :, T * S :], rtol=1e-11, atol=1e-12)


def test_autoregression_by_a_field(x64):
    """The precision of an AR(1) process of fields is Qt x Qs, with log det = s log det Qt + T log det Qs and
    det Qt = 1 - phi^2 (innovations of variance 1, a stationary start)."""
    phi, times = 0.8, 30
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5))
    space = jnp.asarray(root @ root.T + np.eye(5))
    inner = jnp.full(times, 1 + phi**2).at[jnp.array([0, -1])].set(1.0)
    logdet = jax.jit(lambda diagonal, below: sparse.BlockTridiagonal(diagonal, below).logdet())
    found = logdet(inner[:, None, None] * space, jnp.broadcast_to(-phi * space, (times - 1, 5, 5)))
    exact = 5 * np.log(1 - phi**2) + times * np.linalg.slogdet(space)[1]
    np.testing.assert_allclose(found, exact, rtol=1e-12)


def test_not_positive_definite_is_nan():
    blocks = make(np.random.default_rng(2))

    @jax.jit
    def results(*blocks):
        a = sparse.BlockTridiagonal(*blocks)
        return a.logdet(), a.solve(jnp.ones(T * S + A)), a.selected_inverse()

    for leaf in jax.tree.leaves(results(blocks[0].at[1].add(-9 * jnp.eye(S)), *blocks[1:])):
        assert jnp.isnan(leaf).all()


def test_bad_blocks():
    d, b, f, e = make(np.random.default_rng(2))
    make_it = partial(sparse.BlockTridiagonal, d, b)
    with pytest.raises(ValueError, match=r"`diagonal` must have shape \(T, s, s\)"):
        sparse.BlockTridiagonal(d[0], b)
    with pytest.raises(ValueError, match=r"`below` must have shape \(3, 3, 3\)"):
        sparse.BlockTridiagonal(d, d)
    with pytest.raises(ValueError, match="belong together"):
        make_it(f)
    with pytest.raises(ValueError, match=r"`arrow` must have shape \(4, 2, 3\)"):
        make_it(jnp.swapaxes(f, 1, 2), e)
    with pytest.raises(TypeError, match="real numbers"):
        make_it(f, e * 1j)
    with pytest.raises(ValueError, match=r"`b` must have shape \(14,\)"):
        make_it(f, e).solve(jnp.ones(3))
