"""Unrolled solvers: what holds by construction holds, what is trained improves, and what they find serves inference."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS, SVI, Trace_ELBO, init_to_value

from numpyro_inverse.operators import Matrix
from numpyro_inverse.solvers import LeastSquares, SmoothDataTerm, model_data_term
from numpyro_inverse.solvers.unrolled import (
    AnalyticLISTA,
    CoupledLISTA,
    DeepEquilibrium,
    LearnedPrimalDual,
    LearnedProximalGradient,
    MoDL,
    NonexpansiveNetwork,
    analytic_weights,
    coherence,
    soft_threshold,
)

rng = np.random.default_rng(0)
ROWS, SIZE, LAYERS = 40, 50, 12
DICTIONARY = rng.normal(size=(ROWS, SIZE))
DICTIONARY /= np.linalg.norm(DICTIONARY, axis=0)

SMALL = 6
TERM = LeastSquares(Matrix(rng.normal(size=(4, SMALL)) / 2), np.zeros(4), 0.5)
LIPSCHITZ = TERM.lipschitz().bound


def sparse_signals(count, sparsity, size=SIZE, largest=1.0):
    rng, found = np.random.default_rng(1), np.zeros((count, size))
    for row in found:
        row[rng.choice(size, sparsity, replace=False)] = rng.uniform(-largest, largest, sparsity)
    return found


# LISTA.


def test_analytic_weights_by_their_definition():
    weights = np.asarray(analytic_weights(DICTIONARY), float)
    np.testing.assert_allclose(np.sum(weights * DICTIONARY, axis=0), 1, rtol=1e-5)
    # They minimize |W_i' A|^2 for W_i' a_i = 1: the gradient A A' W_i is along a_i.
    gradient = DICTIONARY @ DICTIONARY.T @ weights
    along = np.sum(gradient * DICTIONARY, axis=0) * DICTIONARY
    np.testing.assert_allclose(gradient, along, atol=1e-4)
    products = np.abs(weights.T @ DICTIONARY) - np.diag(np.full(SIZE, np.inf))
    assert coherence(weights, DICTIONARY) == pytest.approx(products.max(), rel=1e-6)


def test_analytic_weights_have_no_false_positives_and_the_predicted_rate(x64):
    """Over a hundred signals; a bound, so no error of chance."""
    network = AnalyticLISTA(DICTIONARY, LAYERS, sparsity=2, largest=1.0)
    mu = coherence(network.weights, DICTIONARY)
    assert network.rate == pytest.approx(3 * mu)
    truth = sparse_signals(100, 2)
    iterates = np.asarray(jax.jit(jax.vmap(network.iterates))(truth @ DICTIONARY.T))
    assert np.all(iterates[np.broadcast_to(truth[:, None] == 0, iterates.shape)] == 0)
    errors = np.abs(iterates - truth[:, None]).sum(-1).max(axis=0)
    assert np.all(errors <= 2 * network.rate ** np.arange(1, LAYERS + 1))
    # Not the bound of a contraction: in the Euclidean norm the layers stretch.
    assert np.linalg.norm(np.eye(SIZE) - np.asarray(network.weights).T @ DICTIONARY, 2) > 1
    # With thresholds a quarter of the theorem's there are false positives.
    low = eqx.tree_at(lambda n: n.thresholds, network, network.thresholds / 4)
    leaked = np.asarray(jax.vmap(low.iterates)(truth @ DICTIONARY.T))
    assert np.any(leaked[np.broadcast_to(truth[:, None] == 0, leaked.shape)] != 0)


def test_untrained_lista_is_iterative_soft_thresholding(x64):
    network = CoupledLISTA(DICTIONARY, 3, threshold=0.1)
    y = DICTIONARY @ sparse_signals(1, 3)[0]
    x, largest = np.zeros(SIZE), np.linalg.norm(DICTIONARY, 2) ** 2
    for _ in range(3):
        x = np.asarray(soft_threshold(x - DICTIONARY.T @ (DICTIONARY @ x - y) / largest, 0.1 / largest))
    np.testing.assert_allclose(network(jnp.asarray(y)), x, atol=1e-12)


# What training does.


class Correction(eqx.Module):
    """A small network on stacked arrays that starts as nearly zero."""

    layer: eqx.nn.Linear

    def __init__(self, parts, size, key):
        layer = eqx.nn.Linear(parts * size, size, key=key)
        self.layer = eqx.tree_at(lambda n: n.weight, layer, 0.1 * layer.weight)

    def __call__(self, stacked):
        return self.layer(stacked.ravel())


def trained(network, apply, rows, settings):
    from numpyro_inverse import nn

    def loss(network, batch, key):
        x, y = batch
        return jnp.mean((jax.vmap(lambda y: apply(network, y))(y) - x) ** 2)

    return nn.fit_module(network, loss, rows, key=jax.random.key(0), settings=nn.TrainingSettings(**settings))


SETTINGS = {"batch_size": 32, "max_epochs": 8, "learning_rate": 3e-2, "held_out": 0.25, "progress_bar": False}
KEYS = jax.random.split(jax.random.key(1), 6)
CONTRACTION = NonexpansiveNetwork(SMALL, 16, lipschitz=0.9, key=KEYS[0])
NETWORKS = {
    "learned proximal gradient": lambda: LearnedProximalGradient(
        [NonexpansiveNetwork(SMALL, 16, 1, key=k) for k in KEYS[:2]], lipschitz=LIPSCHITZ
    ),
    "learned primal-dual": lambda: LearnedPrimalDual(
        dual=[Correction(3, 4, k) for k in KEYS[:2]], primal=[Correction(2, SMALL, k) for k in KEYS[2:4]]
    ),
    "MoDL": lambda: MoDL(CONTRACTION, step=0.3, num_steps=4),
    "deep equilibrium": lambda: DeepEquilibrium(CONTRACTION, lipschitz=LIPSCHITZ, tolerance=1e-4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_training_end_to_end_lowers_the_error(name):
    """Gaussian signals around a mean that the network can learn; the operator and the data term stay as they are."""
    rng = np.random.default_rng(1)
    x = 1 + 0.3 * rng.normal(size=(128, SMALL))
    y = x @ np.asarray(TERM.operator.matrix).T + 0.1 * rng.normal(size=(128, 4))
    start = NETWORKS[name]()
    fit = trained(start, lambda network, y: network(TERM.with_data(y)), (x, y), SETTINGS)
    assert fit.held_out_loss[fit.best_epoch] < 0.5 * fit.held_out_loss[0]
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(fit.module), strict=True):
        assert not eqx.is_inexact_array(after) or np.all(np.isfinite(after))
        assert jnp.shape(before) == jnp.shape(after)
    if name == "deep equilibrium":  # what holds by construction still does
        assert 0 < float(fit.module.step) < 2 / LIPSCHITZ
        assert fit.module.solve(TERM.with_data(y[0])).converged
        found = fit.module.certificate(TERM)
        assert found.certified
        assert found.bound == pytest.approx(0.9)  # mu is 0


@pytest.mark.slow
def test_training_coupled_weights_beats_thresholding_and_leaves_the_matrix():
    x = sparse_signals(256, 3)
    untrained = CoupledLISTA(DICTIONARY, 4, threshold=0.05)
    fit = trained(untrained, lambda network, y: network(y), (x, x @ DICTIONARY.T), SETTINGS | {"learning_rate": 1e-2})
    assert fit.held_out_loss[fit.best_epoch] < 0.5 * fit.held_out_loss[0]
    np.testing.assert_array_equal(fit.module.matrix, untrained.matrix)


# By construction.


def test_a_nonexpansive_network_is_one_for_all_weights():
    """Weights of any size, a hundred pairs and Jacobians each; the rounding of single precision."""

    @eqx.filter_jit
    def images(network, x):
        return jax.vmap(network)(x), jax.vmap(jax.jacobian(network))(x)

    rng, found = np.random.default_rng(1), []
    x, z = rng.normal(size=(2, 100, SMALL))
    narrow = NonexpansiveNetwork(SMALL, 1, 1, lipschitz=0.9, key=KEYS[0])  # reflections, where the bound is reached
    for scale, like in [(0.01, CONTRACTION), (1.0, CONTRACTION), (100.0, CONTRACTION), (1.0, narrow)]:
        network = jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), float), like)
        (at_x, jacobians), (at_z, _) = images(network, jnp.asarray(x, float)), images(network, jnp.asarray(z, float))
        found.append(np.max(np.linalg.norm(at_x - at_z, axis=1) / np.linalg.norm(x - z, axis=1)))
        found.append(np.linalg.norm(np.asarray(jacobians), 2, axis=(1, 2)).max())
    assert np.all(np.array(found) <= 0.9 * (1 + 1e-5))
    assert max(found) > 0.9 * (1 - 1e-5)
    assert CONTRACTION.certificates()["lipschitz"].bound == 0.9


def test_the_certificate_of_a_learned_proximal_gradient_bounds_it(key):
    network = NETWORKS["learned proximal gradient"]()
    found = network.certificate(TERM)
    assert found.certified
    jacobian = jax.jit(jax.jacobian(lambda x: network(TERM, x)))(jax.random.normal(key, (SMALL,)))
    assert np.linalg.norm(jacobian, 2) <= found.bound * (1 + 1e-5)
    seen = LeastSquares(Matrix(np.eye(SMALL)), np.zeros(SMALL), 1.0)  # mu = L = 1 and steps of 1
    assert LearnedProximalGradient([CONTRACTION], lipschitz=1.0).certificate(seen).bound == pytest.approx(0, abs=1e-4)


@pytest.mark.statistical
def test_a_deep_equilibrium_is_trained_by_the_gradient_of_its_unrolling(x64):
    network = DeepEquilibrium(
        NonexpansiveNetwork(SMALL, 8, 1, lipschitz=0.7, key=KEYS[5]), lipschitz=LIPSCHITZ, tolerance=1e-11
    )
    term = TERM.with_data(np.arange(4.0))

    def implicit(network):
        return jnp.sum(jnp.cos(network(term)))

    def unrolled(network):
        def layer(x, _):
            return network.network(x - network.step * term.gradient(x)), None

        return jnp.sum(jnp.cos(jax.lax.scan(layer, jnp.zeros(SMALL), length=200)[0]))

    ours, theirs = (
        eqx.filter_jit(eqx.filter_grad(implicit))(network),
        eqx.filter_jit(eqx.filter_grad(unrolled))(network),
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)
    assert max(float(jnp.max(jnp.abs(a))) for a in jax.tree.leaves(ours)) > 1e-3


# In inference.

A = np.asarray(TERM.operator.matrix)


def model(y):
    x = numpyro.sample("x", dist.Normal(1.0, 0.3).expand([SMALL]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, 0.1).to_event(1), obs=y)


@pytest.mark.slow
def test_an_unrolled_solver_is_the_location_of_a_guide_and_the_start_of_nuts():
    """The best location of a Gaussian guide is the posterior mean, whatever its scales: MoDL finds it by the ELBO."""
    y = A @ (1 + 0.3 * np.random.default_rng(1).normal(size=SMALL))
    precision = np.eye(SMALL) / 0.3**2 + A.T @ A / 0.1**2
    mean = np.linalg.solve(precision, np.ones(SMALL) / 0.3**2 + A.T @ y / 0.1**2)
    spread = np.sqrt(np.diag(np.linalg.inv(precision)))
    term = model_data_term(model, "x", model_args=(y,))
    arrays, rest = eqx.partition(MoDL(CONTRACTION, step=0.1, num_steps=3), eqx.is_inexact_array)

    def located(arrays):
        return eqx.combine(arrays, rest)(term)

    def guide(y):
        location = located(numpyro.param("network", lambda key: arrays))
        log_scale = numpyro.param("log_scale", jnp.full(SMALL, -2.0))
        numpyro.sample("x", dist.Normal(location, jnp.exp(log_scale)).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(lambda i: 2e-2 * 0.5 ** (i / 250)), Trace_ELBO(num_particles=16))
    fit = svi.run(jax.random.key(0), 1500, jnp.asarray(y), progress_bar=False)
    location = located(fit.params["network"])
    before, after = (np.linalg.norm((x - mean) / spread) for x in (located(arrays), location))
    assert before > 2  # posterior standard deviations, over all six numbers
    assert after < 0.2  # what the noise of the gradients leaves
    kernel = NUTS(model, init_strategy=init_to_value(values={"x": location}))
    state = kernel.init(jax.random.key(1), 0, None, (jnp.asarray(y),), {})
    np.testing.assert_allclose(state.z["x"], location, atol=1e-6)


SMOOTH = SmoothDataTerm(jnp.sum)
BAD = {
    "matrix": (lambda: CoupledLISTA(np.ones(3), 2, threshold=1.0), ValueError, "`matrix` must be a matrix"),
    "NaN": (lambda: analytic_weights(np.full((2, 3), np.nan)), ValueError, "`matrix` must be finite"),
    "rank": (lambda: analytic_weights(np.ones((2, 3))), ValueError, "must have full row rank"),
    "layers": (lambda: CoupledLISTA(DICTIONARY, 0, threshold=1.0), ValueError, "`num_layers` must be"),
    "threshold": (lambda: CoupledLISTA(DICTIONARY, 2, threshold=0.0), ValueError, "`threshold` must be positive"),
    "sparsity": (
        lambda: AnalyticLISTA(DICTIONARY, 2, sparsity=20, largest=1.0),
        ValueError,
        "`sparsity` must be below",
    ),
    "y": (lambda: CoupledLISTA(DICTIONARY, 2, threshold=1.0)(np.ones(3)), ValueError, "`y` must be a vector of 40"),
    "no network": (lambda: LearnedProximalGradient([], lipschitz=1.0), ValueError, "one or more networks"),
    "network": (lambda: MoDL(1.0, step=1.0), TypeError, "`network` must be a function"),
    "step": (lambda: MoDL(jnp.sin, step=0.0), ValueError, "`step` must be positive"),
    "no prox": (lambda: MoDL(jnp.sin, step=1.0)(SMOOTH), TypeError, "no proximal operator"),
    "no shape": (lambda: LearnedProximalGradient([jnp.sin], lipschitz=1.0)(SMOOTH), ValueError, "`x0` must be given"),
    "x0": (lambda: MoDL(jnp.sin, step=1.0)(TERM, np.ones(2)), ValueError, "`x0` must have the shape"),
    "pairs": (lambda: LearnedPrimalDual(dual=[jnp.sum], primal=[jnp.sum] * 2), ValueError, "must be as many"),
    "primal-dual": (lambda: LearnedPrimalDual(dual=[jnp.sum], primal=[jnp.sum])(SMOOTH), TypeError, "a LeastSquares"),
    "certificate": (
        lambda: LearnedProximalGradient([jnp.sin], lipschitz=1.0).certificate(TERM),
        ValueError,
        "has no certificate",
    ),
    "lipschitz": (lambda: DeepEquilibrium(jnp.sin, lipschitz=0.0), ValueError, "`lipschitz` must be positive"),
    "expansive": (
        lambda: NonexpansiveNetwork(3, 3, lipschitz=1.1, key=jax.random.key(0)),
        ValueError,
        "`lipschitz` must be at most 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        make()
