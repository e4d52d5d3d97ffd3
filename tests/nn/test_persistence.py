"""Modules on disk: the same arrays come back, and any other file is refused."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from numpyro_inverse.nn import CouplingFlow, load, load_metadata, save

FLOW = CouplingFlow(3, layers=2, width=4, key=jax.random.key(0))
OTHER = CouplingFlow(3, layers=2, width=4, key=jax.random.key(1))


def test_round_trip(tmp_path):
    save(tmp_path / "flow.safetensors", FLOW, seed=3, score={"nats": 1.5})
    back = load(tmp_path / "flow.safetensors", OTHER)
    assert eqx.tree_equal(back, FLOW)
    assert not eqx.tree_equal(back, OTHER)
    from_shapes = load(tmp_path / "flow.safetensors", eqx.filter_eval_shape(lambda: FLOW))
    np.testing.assert_array_equal(
        from_shapes.inverse_and_log_det(jnp.ones(3))[0], FLOW.inverse_and_log_det(jnp.ones(3))[0]
    )
    assert load_metadata(tmp_path / "flow.safetensors") == {"seed": 3, "score": {"nats": 1.5}}


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "flow.safetensors"
    save(path, FLOW)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="of another module"):
        load(path, CouplingFlow(3, layers=3, width=4, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="in the file only"):
        load(path, eqx.tree_at(lambda f: f.shifts, FLOW, ()))
    turned = eqx.tree_at(lambda f: f.networks[0].first.weight, FLOW, jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"has shape \(4, 1\), in `like` \(1, 4\)"):
        load(path, turned)
    with pytest.raises(ValueError, match="has shape"):
        load(path, CouplingFlow(3, layers=2, width=5, key=jax.random.key(0)))
    for damaged in (content[: len(content) // 2], b"\x80\x04pickle", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            load(path, FLOW)
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="was not written by"):
        load(path, FLOW)
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, metadata={"format": "numpyro_inverse", "schema": "0"})
    with pytest.raises(ValueError, match="schema 0"):
        load(path, FLOW)
    with pytest.raises(FileNotFoundError, match=r"no file .*missing"):
        load(tmp_path / "missing", FLOW)
    with pytest.raises(FileNotFoundError, match="save: there is no folder"):
        save(tmp_path / "missing" / "flow.safetensors", FLOW)


def test_changed_numbers_are_seen(tmp_path):
    path = tmp_path / "flow.safetensors"
    save(path, FLOW)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged: its numbers are not those that were written"):
        load(path, FLOW)


def test_other_types_and_descriptions_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, {"x": np.zeros(3), "n": np.arange(2)})
    assert load(path, {"x": jnp.ones(3), "n": jnp.ones(2, int)})["n"].dtype == jnp.result_type(int)
    with pytest.raises(ValueError, match=r"\['n'\] in x.safetensors is of int64, in `like` of float32"):
        load(path, {"x": jnp.ones(3), "n": jnp.ones(2)})
    for broken in ({}, {"about": "{"}):
        header = {"format": "numpyro_inverse", "schema": "1", **broken}
        safetensors.numpy.save_file({"x": np.zeros(3)}, path, metadata=header)
        with pytest.raises(ValueError, match=r"load_metadata: x\.safetensors is damaged"):
            load_metadata(path)


def test_nothing_is_half_written(tmp_path, monkeypatch):
    path = tmp_path / "flow.safetensors"
    save(path, FLOW)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(path, OTHER)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_what_json_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path / "flow.safetensors", FLOW, score=jnp.zeros(3))
