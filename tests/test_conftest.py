"""The fixtures that other tests rely on."""

import jax
import jax.numpy as jnp


def test_default_precision_is_single_and_two_devices():
    assert jnp.zeros(1).dtype == jnp.float32
    assert jax.local_device_count() >= 2 or jax.default_backend() != "cpu"


def test_x64(x64):
    assert jnp.zeros(1).dtype == jnp.float64


def test_key_is_the_same_in_every_run(key):
    assert jax.random.key_data(key).tolist() == [0, 2867267660]
