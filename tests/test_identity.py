"""Digests see every bit, kernels are known by their settings, and differences are found."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import HMC, NUTS

from numpyro_inverse import _identity
from numpyro_inverse._identity import digest, first_difference, kernel_settings, versions


def model():
    pass


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool", "complex64", "bfloat16"])
def test_a_digest_sees_every_bit(dtype):
    x = np.arange(12).reshape(3, 4).astype(jnp.dtype(dtype))
    found = digest({"x": x})
    assert digest({"x": x.copy()}) == found
    assert digest({"x": np.asfortranarray(x)}) == found
    for place in range(0, 8 * x.nbytes, 7):
        raw = bytearray(x.tobytes())
        raw[place // 8] ^= 1 << place % 8
        assert digest({"x": np.frombuffer(raw, x.dtype).reshape(x.shape)}) != found
    assert digest({"y": x}) != found
    assert digest({"x": x.reshape(4, 3)}) != found
    assert digest([x]) != found


def test_blocks_of_rows_do_not_matter(monkeypatch, tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3, 2))
    np.save(tmp_path / "x.npy", x)
    whole = digest(x)
    monkeypatch.setattr(_identity, "BLOCK", 100)
    assert digest(x) == whole
    assert digest(np.load(tmp_path / "x.npy", mmap_mode="r")) == whole

    largest = []

    class Rows:
        """An array on disk: rows come when they are asked for."""

        shape, dtype = x.shape, x.dtype

        def __getitem__(self, rows):
            largest.append(len(x[rows]))
            return x[rows]

    assert digest(Rows()) == whole
    assert max(largest) == 2  # of 48 bytes each


def test_keys_numbers_and_other_things_count():
    key = jax.random.key(1)
    assert digest(key) == digest(jax.random.key(1)) != digest(jax.random.key(2))
    assert digest(1.5) != digest(2.5)
    assert digest(jnp.zeros(0)) != digest(jnp.zeros((0, 1)))
    assert digest((SimpleNamespace(),)) == digest((SimpleNamespace(),)) != digest((object(),))
    assert digest(None) != digest(())


def test_kernels_are_known_by_their_settings():
    assert kernel_settings(NUTS(model)) == kernel_settings(NUTS(model))
    assert first_difference(kernel_settings(NUTS(model)), kernel_settings(HMC(model)))[0] == "class"
    found = first_difference(kernel_settings(NUTS(model)), kernel_settings(NUTS(model, target_accept_prob=0.9)))
    assert found == ("target_accept_prob", 0.8, 0.9)
    nested = first_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    assert nested == ("a.c", 2, 3)
    assert first_difference({"a": 1}, {}) == ("a", 1, None)


def test_versions():
    assert versions()["jax"] == jax.__version__
