"""Fingerprints of numbers: the same on the host and in compiled programs, other for other numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse._fingerprint import fingerprint

TREES = {
    "floats": (np.linspace(0, 1, 7), {"b": 1.5}),
    "single": (np.linspace(-3, 1, 12, dtype=np.float32).reshape(3, 4),),
    "integers": (np.arange(5), 3, True),
    "small": (np.arange(5, dtype=np.uint8), np.array([True, False])),
    "complex": (np.array([1 + 2j, 3 - 1j]), 2j),
    "key": (jax.random.key(3), jax.random.PRNGKey(3)),
    "half": (jnp.arange(4, dtype=jnp.bfloat16),),
}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", TREES)
def test_the_same_in_a_compiled_program(name, double):
    with jax.enable_x64(double):
        tree = TREES[name]
        host = fingerprint(tree)
        assert isinstance(host, np.uint32)
        assert jax.jit(fingerprint)(jax.tree.map(jnp.asarray, tree)) == host
        # Only part of it traced.
        first, *rest = tree
        assert jax.jit(lambda x: fingerprint((x, *rest)))(jnp.asarray(first)) == host


@pytest.mark.parametrize("name", TREES)
def test_other_numbers_have_another(name):
    tree = TREES[name]
    first, *rest = tree
    changed = jax.random.key(4) if name == "key" else jnp.asarray(first).at[-1].set(0).at[1].set(0)
    assert fingerprint((changed, *rest)) != fingerprint(tree)
    if name != "key":
        assert fingerprint((jnp.asarray(first)[::-1], *rest)) != fingerprint(tree)


def test_constants_are_told_apart():
    # Powers of two have few bits: sums of weighted words would collide (0 and 2 in six numbers).
    arrays = [np.full(size, value, np.float32) for size in range(1, 33) for value in (0, 0.5, 1, 2, 4, 8, -2)]
    assert len({int(fingerprint((a,))) for a in arrays}) == len(arrays)


def test_collisions_are_as_rare_as_chance():
    # 3,000 arrays that differ in one of 2^8 places or one small number: 1e-3 collisions expected among 2^32 values.
    base = np.zeros(256, np.float32)
    found = [int(fingerprint((base + value * (np.arange(256) == i),))) for i in range(256) for value in range(1, 12)]
    assert len(set(found)) == len(found)


def test_what_is_no_number_does_not_count():
    assert fingerprint((None, "a", 1.0)) == fingerprint((None, "a", 1.0))
    assert fingerprint((None, "a", 1.0)) != fingerprint((None, "a", 2.0))
