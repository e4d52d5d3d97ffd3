"""Digests by content: the same in every process, another one wherever something that matters changes."""

import functools
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from numpyro_inverse.nn._identity import digest

FACTOR = 1.0
NETWORK = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))


class Scaled:
    """A function with a number."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x


def of_a_global(x):
    return FACTOR * x


def scaled(factor, x):
    return factor * x


def things(factor=1.0):
    """What a training may refer to, all with one number."""
    return {
        "closure": lambda x: factor * x,
        "default": lambda x, f=factor: f * x,
        "nested": lambda x: jax.tree.map(lambda leaf: factor * leaf, x),
        "object": Scaled(factor),
        "method": Scaled(factor).__call__,
        "partial": functools.partial(scaled, factor),
        "compiled": jax.jit(lambda x: factor * x),
        "optimizer": optax.chain(optax.clip(1.0), optax.adamw(factor)),
        "distributions": [law(factor, 2.0) for law in (dist.Gamma, dist.Normal, dist.Beta, dist.LogNormal)],
        "batch": dist.Normal(factor, 2.0).expand([3]).to_event(1),
        "network": eqx.tree_at(lambda m: m.layers[0].bias, NETWORK, jnp.full(4, factor)),
        "array": np.full(3, factor),
        "dictionary": {"a": {"b", "c"}, "b": [factor, None]},
    }


def test_numbers_count():
    first, again, other = ({name: digest(x) for name, x in things(f).items()} for f in (1.0, 1.0, 2.0))
    assert first == again
    assert not {name for name in first if first[name] == other[name]}
    assert len(set(first.values())) == len(first)


def test_globals_and_activations_count(monkeypatch):
    before = digest(of_a_global)
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    assert digest(of_a_global) != before
    first, second = (eqx.nn.MLP(2, 2, 4, 1, activation=f, key=jax.random.key(0)) for f in (jax.nn.relu, jax.nn.gelu))
    assert digest(first) != digest(second)
    assert digest(np.zeros(2)) != digest(np.zeros(2, np.float32)) != digest(np.zeros((2, 1), np.float32))


def test_circles_end():
    circle = [1]
    circle.append(circle)
    assert digest(circle) == digest(circle)


@pytest.mark.slow
def test_the_same_in_every_process():
    here = os.path.dirname(__file__)
    program = f"import sys; sys.path.insert(0, {here!r}); import test_identity as t; print(t.digest(t.things()))"
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=300,
        )
        for seed in ("1", "2931")
    ]
    assert found[0].returncode == 0, found[0].stderr
    assert found[0].stdout == found[1].stdout
