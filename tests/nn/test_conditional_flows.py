"""Conditional flows: exact inverses and log determinants for each context, and fits to laws with a known entropy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.nn import AutoregressiveFlow, ContextEmbedding, CouplingFlow, fit_flow, flow_log_prob

ROOT = np.array([[1.0, 0, 0], [0.9, 0.4, 0], [-0.5, 0.3, 0.2]])
SLOPES = np.array([[1.0, -0.5], [0.3, 0.8], [-1.0, 0.4]])
ENTROPY = 1.5 * np.log(2 * np.pi * np.e) + np.log(np.diag(ROOT)).sum()


class Ravelled(eqx.Module):
    """A network for contexts that are matrices."""

    network: eqx.nn.MLP

    def __init__(self, key):
        self.network = eqx.nn.MLP(2, 8, 32, 1, activation=jax.nn.gelu, key=key)

    def __call__(self, c):
        return self.network(jnp.ravel(c))


def gaussian(n, seed):
    """Mean and covariance depend on c, uniform on [-1, 1]^2: x = M c + exp(c_1 / 2) R(c) z with
    R(c) = R + c_2 / 2 below the diagonal, so that the mean log determinant is that of R.
    """
    rng = np.random.default_rng(seed)
    c, z = rng.uniform(-1, 1, (n, 2)), rng.normal(size=(n, 3))
    root = ROOT + 0.5 * c[:, 1, None, None] * np.tri(3, k=-1)
    x = c @ SLOPES.T + np.exp(c[:, :1] / 2) * np.einsum("nij,nj->ni", root, z)
    return x.astype(np.float32), c.astype(np.float32)


def banana(n, seed):
    """Bent and moved by c: maps of unit determinant, so that the entropy is the Gaussian's."""
    rng = np.random.default_rng(seed)
    c, z = rng.uniform(-1, 1, (n, 1)), rng.normal(size=(n, 2)) * [1.0, 0.5]
    x = np.stack([z[:, 0] + c[:, 0], z[:, 1] + (1 + c[:, 0]) * z[:, 0] ** 2 / 2], axis=1)
    return x.astype(np.float32), c.astype(np.float32)


def matrices(n, seed):
    """The Gaussian's contexts as matrices of another scale."""
    x, c = gaussian(n, seed)
    return x, 100 + 30 * c[:, None, :]


BANANA_ENTROPY = np.log(2 * np.pi * np.e) + np.log(0.5)
KEY = jax.random.key(0)
FLOWS = {
    "splines": lambda size, context: CouplingFlow(size, layers=size + 1, width=32, context=context, key=KEY),
    "affine couplings": lambda size, context: CouplingFlow(size, layers=6, width=32, bins=0, context=context, key=KEY),
    "autoregressive": lambda size, context: AutoregressiveFlow(size, layers=3, width=32, context=context, key=KEY),
}
LAWS = {
    "Gaussian": (gaussian, ENTROPY, lambda: 2),
    "banana": (banana, BANANA_ENTROPY, lambda: 1),
    "Gaussian, embedded": (
        matrices,
        ENTROPY,
        lambda: ContextEmbedding((1, 2), Ravelled(KEY), data=matrices(500, 0)[1]),
    ),
}
SLOW = pytest.mark.statistical


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "flow"),
    [
        ("Gaussian", "autoregressive"),
        ("Gaussian, embedded", "affine couplings"),
        pytest.param("Gaussian", "splines", marks=SLOW),
        pytest.param("Gaussian", "affine couplings", marks=SLOW),
        pytest.param("Gaussian, embedded", "autoregressive", marks=SLOW),
        pytest.param("Gaussian, embedded", "splines", marks=SLOW),
        pytest.param("banana", "splines", marks=SLOW),
    ],
)
def test_the_conditional_entropy_is_reached(law, flow):
    """Within 0.02 nat per number, on 200,000 new pairs; 4 standard errors allowed for them."""
    draw, entropy, context = LAWS[law]
    rows = draw(20_000, 1)
    made = FLOWS[flow](rows[0].shape[1], context())
    options = {"batch_size": 256, "max_epochs": 12, "learning_rate": 5e-3, "progress_bar": False}
    fit = fit_flow(made, rows, key=jax.random.key(1), **options)
    x, c = draw(200_000, 2)
    values = -np.asarray(jax.jit(jax.vmap(lambda x, c: flow_log_prob(fit.module, x, c)))(x, c), float)
    error = values.std() / len(values) ** 0.5
    assert entropy - 4 * error < values.mean() < entropy + 0.02 * x.shape[1] + 4 * error


def moved(flow):
    """The flow with weights away from where training starts."""
    return jax.tree.map(
        lambda leaf: (
            leaf + 0.1 * np.random.default_rng(leaf.size).normal(size=leaf.shape)
            if eqx.is_inexact_array(leaf)
            else leaf
        ),
        flow,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("kind", sorted(FLOWS))
def test_inverse_and_log_determinant(x64, kind, size):
    """Against automatic differentiation; the map and all of its outputs change with the context."""
    flow = moved(FLOWS[kind](size, 2))
    z = jax.random.normal(jax.random.key(2), (size,))

    @jax.jit
    def both(z, c):
        x, log_det = flow.forward_and_log_det(z, c)
        jacobian = jax.jacfwd(lambda z: flow.forward_and_log_det(z, c)[0])(z)
        return x, log_det, jacobian, *flow.inverse_and_log_det(x, c)

    found = [both(z, c) for c in jnp.array([[0.5, -1.0], [-2.0, 0.3]])]
    for x, log_det, jacobian, back, log_det_back in found:
        np.testing.assert_allclose(back, z, atol=1e-9)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-9)
        np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-9)
        assert not np.allclose(x, z)
    assert np.min(np.abs(found[0][0] - found[1][0])) > 1e-4
    assert abs(found[0][1] - found[1][1]) > 1e-4


@pytest.mark.slow
def test_autoregressive_order_with_a_context(x64):
    """One layer: a number's map depends on the context and on the numbers before it alone."""
    flow = moved(AutoregressiveFlow(4, layers=1, width=8, context=2, key=KEY))
    flow = eqx.tree_at(lambda f: (f.matrix, f.shift), flow, (jnp.eye(4), jnp.zeros(4)))
    x, c = jnp.arange(4.0), jnp.ones(2)
    jacobian = jax.jacfwd(lambda x: flow.inverse_and_log_det(x, c)[0])(x)[:, ::-1]
    assert np.all(np.abs(jacobian[np.tril_indices(4)]) > 1e-9)
    np.testing.assert_array_equal(jacobian[np.triu_indices(4, 1)], 0)


@pytest.mark.slow
def test_contexts_are_standardized():
    contexts = np.random.default_rng(0).normal(size=(50, 2, 3)) * 7 + 100
    contexts[:, 0, 0] = 5  # a number that is always the same
    embedding = ContextEmbedding((2, 3), data=contexts)
    found = np.asarray(jax.vmap(embedding)(jnp.asarray(contexts, jnp.float32)))
    assert found.shape == (50, 6)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found[:, 1:].std(axis=0), 1, rtol=1e-4)
    flow = CouplingFlow(2, layers=1, width=4, bins=0, context=embedding, key=KEY)
    rows = (np.ones((50, 2)) * np.arange(50)[:, None], contexts)
    fit = fit_flow(flow, rows, key=KEY, batch_size=10, max_epochs=1, progress_bar=False)
    np.testing.assert_array_equal(fit.module.embedding.mean, embedding.mean)  # not trained


def test_bad_input():
    flow, rows = FLOWS["affine couplings"](3, 2), gaussian(300, 0)
    plain = CouplingFlow(3, layers=1, key=KEY)
    with pytest.raises(TypeError, match=r"CouplingFlow: the flow is conditional and needs a `context` of shape \(2,\)"):
        flow.forward_and_log_det(jnp.zeros(3))
    with pytest.raises(TypeError, match="CouplingFlow: the flow was made without `context`"):
        plain.inverse_and_log_det(jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"AutoregressiveFlow: `context` must have shape \(2,\); got \(3,\)"):
        FLOWS["autoregressive"](3, 2).forward_and_log_det(jnp.zeros(3), jnp.zeros(3))
    for make in (CouplingFlow, AutoregressiveFlow):
        with pytest.raises(TypeError, match=f"{make.__name__}: `context` must be the numbers in a context vector"):
            make(3, context=2.0, key=KEY)
        with pytest.raises(ValueError, match=f"{make.__name__}: `context` must be 1 or more"):
            make(3, context=0, key=KEY)
    with pytest.raises(ValueError, match=r"fit_flow: the flow is conditional; `data` .* pair of examples and contexts"):
        fit_flow(flow, rows[0], key=KEY)
    with pytest.raises(ValueError, match=r"fit_flow: contexts in `data` have shape \(1,\); the flow is for \(2,\)"):
        fit_flow(flow, (rows[0], rows[1][:, :1]), key=KEY)
    with pytest.raises(ValueError, match=r"fit_flow: rows of `data` have shape \(2,\); the flow is for \(3,\)"):
        fit_flow(flow, (rows[0][:, :2], rows[1]), key=KEY)
    with pytest.raises(ValueError, match="fit_flow: the flow takes one array of examples"):
        fit_flow(plain, rows, key=KEY)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3,), TypeError, "`shape` must be a tuple of integers"),
        (((2.5,),), TypeError, "`shape` must be an integer; got 2.5"),
        (((0,),), ValueError, "`shape` must be 1 or more"),
        (((2,), 3), TypeError, "`network` must be a function of one array"),
        (((3,), eqx.nn.Linear(2, 2, key=KEY)), ValueError, r"`network` does not take an array of shape \(3,\)"),
        (((2,), jnp.sum), ValueError, "`network` must return a vector"),
    ],
)
def test_bad_embeddings(arguments, error, message):
    with pytest.raises(error, match=f"ContextEmbedding: {message}"):
        ContextEmbedding(*arguments)


def test_bad_contexts_of_an_embedding():
    for data in (np.zeros((5, 3)), np.zeros((0, 2)), np.full((5, 2), np.nan)):
        with pytest.raises(ValueError, match=r"ContextEmbedding: `data` must be finite contexts of shape \(2,\)"):
            ContextEmbedding((2,), data=data)
