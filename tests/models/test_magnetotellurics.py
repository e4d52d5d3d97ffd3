"""Magnetotellurics against the half space and two layers in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import magnetotellurics as mt


def test_a_half_space():
    """In single precision: apparent resistivity is the resistivity, and the phase 45 degrees."""
    found = mt.response(jnp.full(mt.LAYERS, 1.7), mt.thicknesses())
    np.testing.assert_allclose(found[0], 1.7, atol=1e-5)
    np.testing.assert_allclose(found[1], 45, atol=1e-4)


def test_two_layers(x64):
    """Cagniard's formula by the reflection coefficient at the interface."""
    rho, h, periods = np.array([100.0, 3.0]), 500.0, np.logspace(-2, 2, 9)
    omega = 2 * np.pi / periods
    k = np.sqrt(1j * omega * mt.MU_0 / rho[0])
    reflection = (np.sqrt(rho[1]) - np.sqrt(rho[0])) / (np.sqrt(rho[1]) + np.sqrt(rho[0]))
    bounce = reflection * np.exp(-2 * k * h)
    z = 1j * omega * mt.MU_0 / k * (1 + bounce) / (1 - bounce)
    found = mt.response(np.log10(rho), np.array([h, 1.0]), periods)
    np.testing.assert_allclose(found[0], np.log10(np.abs(z) ** 2 / (omega * mt.MU_0)), atol=1e-10)
    np.testing.assert_allclose(found[1], np.rad2deg(np.angle(z)), atol=1e-8)


@pytest.mark.slow
def test_layers_of_equal_resistivity_are_one_and_gradients_are_finite():
    rho = jnp.array([2.0, 2.0, 1.0, 1.0])
    many = mt.response(rho, jnp.array([100.0, 200.0, 5.0, 5.0]))
    two = mt.response(rho[1:3], jnp.array([300.0, 10.0]))
    np.testing.assert_allclose(many, two, atol=2e-4)
    field, data = mt.simulate(jax.random.key(0))
    assert data.shape == (2, 25)
    gradient = jax.grad(lambda m: jnp.sum(((mt.response(m, mt.thicknesses()) - data) / mt.NOISE) ** 2))(field)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(np.mean(((mt.response(field, mt.thicknesses()) - data) / mt.NOISE) ** 2) - 1) < 1.2)
