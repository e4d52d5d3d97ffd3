"""Orbit losses, the outer-product loss, and the estimates that belong to them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpyro_inverse.nn import TrainingSettings, fit_module
from numpyro_inverse.symmetry import (
    CyclicShift,
    GlobalPhase,
    Permutation,
    Scaling,
    SignFlip,
    Symmetry,
    orbit_loss,
    orbit_mean,
    outer_product_estimate,
    outer_product_loss,
    squared_outer_product_distance,
)

vectors = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).normal(size=(2, 4)) * [[1], [seed % 7]])
distance = jax.jit(squared_outer_product_distance)


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_the_identity_of_outer_products(pair):
    u, v = pair
    direct = np.sum((np.outer(u, u) - np.outer(v, v)) ** 2)
    product = np.sum((u + v) ** 2) * np.sum((u - v) ** 2)
    np.testing.assert_allclose(2 * direct, product + (u @ u - v @ v) ** 2, rtol=1e-10, atol=1e-10)
    assert product / 2 - 1e-9 <= direct <= product + 1e-9
    np.testing.assert_allclose(
        distance(jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32)), direct, rtol=1e-4, atol=1e-5
    )


def test_outer_products_of_complex_vectors_and_of_equals():
    rng = np.random.default_rng(0)
    u, v = (rng.normal(size=4) + 1j * rng.normal(size=4) for _ in range(2))
    direct = np.sum(np.abs(np.outer(u, u.conj()) - np.outer(v, v.conj())) ** 2)
    np.testing.assert_allclose(squared_outer_product_distance(u, v), direct, rtol=1e-5)
    np.testing.assert_allclose(squared_outer_product_distance(u, 1j * u), 0, atol=1e-4)
    assert np.all(np.isfinite(jax.grad(squared_outer_product_distance)(jnp.ones(3), -jnp.ones(3))))


# Estimates.


def test_the_outer_product_estimate_is_the_best_of_all(x64):
    draws = np.random.default_rng(1).normal([2, 0, 1], size=(500, 3))
    draws *= np.random.default_rng(2).choice([-1, 1], (500, 1))
    found = outer_product_estimate(draws)
    values, vectors = np.linalg.eigh(draws.T @ draws / 500)
    np.testing.assert_allclose(np.abs(found), np.sqrt(values[-1]) * np.abs(vectors[:, -1]), rtol=1e-10)
    risk = jax.jit(lambda v: jnp.mean(jax.vmap(squared_outer_product_distance, (0, None))(draws, v)))
    np.testing.assert_allclose(jax.grad(risk)(found), 0, atol=1e-8)
    assert all(risk(found) < risk(found + 0.05 * d) for d in np.random.default_rng(3).normal(size=(10, 3)))
    complex_draws = draws * np.exp(1j * np.random.default_rng(4).uniform(0, 6, (500, 1)))
    np.testing.assert_allclose(np.abs(outer_product_estimate(complex_draws)), np.abs(found), rtol=1e-10)


@pytest.mark.slow
def test_the_orbit_mean_of_signs_is_a_fixed_point_and_has_its_risk():
    rng = np.random.default_rng(5)
    draws = (rng.normal([1.5, -1, 0.5], size=(400, 3)) * rng.choice([-1, 1], (400, 1))).astype(np.float32)
    found = orbit_mean(draws, SignFlip())
    assert found.converged
    fixed = np.mean(np.sign(draws @ np.asarray(found.mean))[:, None] * draws, axis=0)
    np.testing.assert_allclose(found.mean, fixed, atol=1e-5)
    np.testing.assert_allclose(found.risk, np.mean(np.sum(draws**2, axis=1)) - fixed @ fixed, rtol=1e-5)
    assert np.linalg.norm(draws.mean(0)) < 0.3  # the plain mean says nothing
    assert np.linalg.norm(fixed) > 1.5


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(CyclicShift((5,)), id="shift"),
        pytest.param(Permutation(5), id="permutation", marks=pytest.mark.statistical),
        pytest.param(GlobalPhase(), id="phase", marks=pytest.mark.statistical),
        pytest.param(CyclicShift((5,)) * SignFlip(), id="shift and sign", marks=pytest.mark.statistical),
    ],
)
def test_an_orbit_mean_finds_a_signal_behind_random_moves(group):
    truth = jnp.array([3.0, 1.0, -1.0, 0.5, 0.0])
    truth = truth + 0.5j * truth[::-1] if isinstance(group, GlobalPhase) else truth
    noisy = truth + 0.1 * jax.random.normal(jax.random.key(0), (64, 5))
    draws = jax.jit(jax.vmap(group.action))(jax.vmap(group.sample)(jax.random.split(jax.random.key(1), 64)), noisy)
    found = orbit_mean(draws, group, num_starts=2)
    assert group.orbit_distance(found.mean, truth) < 0.1


def test_an_orbit_mean_of_sites():
    rng = np.random.default_rng(6)
    shifts, image, kernel = rng.integers(0, 5, 64), np.array([3.0, 1, -1, 0.5, 0]), np.array([1.0, 0.2, 0, 0, 0])
    draws = {
        "image": np.stack([np.roll(image, s) for s in shifts]) + 0.05 * rng.normal(size=(64, 5)),
        "kernel": np.stack([np.roll(kernel, -s) for s in shifts]) + 0.05 * rng.normal(size=(64, 5)),
        "other": np.zeros(64),
    }
    symmetry = Symmetry(CyclicShift((5,)), {"image": 1, "kernel": -1})
    found = orbit_mean(draws, symmetry, num_starts=1)
    assert symmetry.orbit_distance(found.mean, {"image": image, "kernel": kernel}) < 0.1
    assert set(found.mean) == {"image", "kernel"}


# Training: y = |A u| says nothing of the sign of u.

SIZE, ROWS = 4, 2000
FORWARD = np.random.default_rng(7).normal(size=(12, SIZE)).astype(np.float32)
MEAN = np.array([1.5, -1.0, 0.5, 1.0], np.float32)


def problem():
    rng = np.random.default_rng(8)
    u = (MEAN + 0.4 * rng.normal(size=(ROWS, SIZE))) * rng.choice([-1, 1], (ROWS, 1))
    u = u.astype(np.float32)
    return np.abs(u @ FORWARD.T), u


def trained(loss):
    network = eqx.nn.MLP(12, SIZE, 32, 1, key=jax.random.key(2))
    options = TrainingSettings(max_epochs=40, batch_size=200, optimizer=optax.adam(3e-3))
    network = fit_module(network, loss, problem(), key=jax.random.key(3), settings=options).module
    y, u = problem()
    v = jax.vmap(network)(y)
    error = jax.vmap(SignFlip().squared_orbit_distance)(v, u)
    size = np.mean(np.sum(u**2, axis=1))
    return np.sqrt(np.mean(np.sum(v**2, axis=1)) / size), np.sqrt(np.mean(error) / size)


def plain_loss(module, batch, key):
    x, u = batch
    return jnp.mean(jnp.sum((jax.vmap(module)(x) - u) ** 2, axis=1))


@pytest.mark.slow
def test_the_plain_mean_square_learns_zero_and_the_others_learn_the_signal():
    norm, error = trained(plain_loss)
    assert norm < 0.2
    assert error > 0.8
    for loss in (orbit_loss(SignFlip()), outer_product_loss):
        norm, error = trained(loss)
        assert abs(norm - 1) < 0.1
        assert error < 0.1, error


# Bad input.


def test_bad_input():
    with pytest.raises(TypeError, match="`group` must be a group"):
        orbit_loss("sign")
    with pytest.raises(TypeError, match="`group` must be a group"):
        orbit_mean(np.ones((3, 2)), "sign")
    with pytest.raises(ValueError, match="`group` scales"):
        orbit_mean(np.ones((3, 2)), SignFlip() * Scaling())
    with pytest.raises(ValueError, match="`num_starts` must be a positive integer"):
        orbit_mean(np.ones((3, 2)), SignFlip(), num_starts=0)
    with pytest.raises(ValueError, match="`draws` must have draws first"):
        outer_product_estimate(np.ones((0, 2)))
