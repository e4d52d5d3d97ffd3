"""Modules on disk: the same arrays come back, and any other file is refused."""

import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import safetensors.numpy

from numpyro_inverse.nn import CouplingFlow, load, load_metadata, load_pretrained, pretrained, save
from numpyro_inverse.nn._persistence import _digest
from numpyro_inverse.nn.pretrained import BLANK

FLOW = CouplingFlow(3, layers=2, width=4, key=jax.random.key(0))
OTHER = CouplingFlow(3, layers=2, width=4, key=jax.random.key(1))


def equal(a, b):
    """Compared on the host, where no program is compiled for each shape."""
    return eqx.tree_equal(*jax.device_get((a, b)))


def test_round_trip(tmp_path):
    save(tmp_path / "flow.safetensors", FLOW, seed=3, score={"nats": 1.5})
    back = load(tmp_path / "flow.safetensors", OTHER)
    assert equal(back, FLOW)
    assert not equal(back, OTHER)
    from_shapes = load(tmp_path / "flow.safetensors", eqx.filter_eval_shape(lambda: FLOW))
    inverse = eqx.filter_jit(lambda flow: flow.inverse_and_log_det(jnp.ones(3))[0])
    np.testing.assert_array_equal(inverse(from_shapes), inverse(FLOW))
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
    for broken in ({}, {"about": "{"}, {"about": "[" * 100_000}, {"about": "[]"}):
        header = {"format": "numpyro_inverse", "schema": "1", **broken}
        safetensors.numpy.save_file({"x": np.zeros(3)}, path, metadata=header)
        with pytest.raises(ValueError, match=r"load_metadata: x\.safetensors is damaged"):
            load_metadata(path)


def mutations(content, count, seed):
    """Copies with up to four changed, lost, doubled or exchanged bytes; half of the changes in the header."""
    rng = np.random.default_rng(seed)
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(count):
        new = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(header if rng.random() < 0.5 else len(new)))
            kind = rng.integers(4)
            if kind == 0:
                new[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                new[at] = int(rng.integers(256))
            elif kind == 2:
                del new[at]
            else:
                new[at:at] = new[at : at + 1]
        yield bytes(new)


def refused_or_unchanged(path, content, module, count, seed=0):
    """Whether every mutation is refused in our words, or loads as the same numbers; and how many are refused."""
    about, refused = load_metadata(path), 0
    for new in mutations(content, count, seed):
        path.write_bytes(new)
        try:
            assert equal(load(path, module), module)
            assert load_metadata(path) == about
        except ValueError as error:
            assert path.name in str(error)  # noqa: PT017
            refused += 1
    return refused


def test_mutations_of_a_small_file(tmp_path):
    path = tmp_path / "flow.safetensors"
    save(path, FLOW, seed=3, note="kept " * 500)
    assert refused_or_unchanged(path, path.read_bytes(), FLOW, 150) > 140


@pytest.mark.statistical
@pytest.mark.parametrize("name", sorted(BLANK))
def test_mutations_of_the_shipped_files(tmp_path, name):
    path = tmp_path / f"{name}.safetensors"
    content = (Path(pretrained.__file__).parent / path.name).read_bytes()
    path.write_bytes(content)
    assert refused_or_unchanged(path, content, load_pretrained(name), 1000) > 900


def test_shipped_files_have_a_hash():
    for name in BLANK:
        with safetensors.safe_open(Path(pretrained.__file__).parent / f"{name}.safetensors", framework="np") as file:
            assert len(file.metadata()["sha256"]) == 64
            assert file.metadata()["schema"] == "2"


def test_files_of_the_old_schema(tmp_path):
    """Without a hash, or with one of the arrays alone."""
    path, arrays = tmp_path / "x.safetensors", {"['x']": np.arange(3.0)}
    old = {"format": "numpyro_inverse", "schema": "1", "about": '{"seed": 1}'}
    for header in (old, old | {"sha256": _digest(arrays)}):
        safetensors.numpy.save_file(arrays, path, metadata=header)
        np.testing.assert_array_equal(load(path, {"x": jnp.zeros(3)})["x"], np.arange(3.0))
        assert load_metadata(path) == {"seed": 1}
    for header in (old | {"sha256": "0" * 64}, old | {"schema": "2"}):
        safetensors.numpy.save_file(arrays, path, metadata=header)
        with pytest.raises(ValueError, match="damaged"):
            load(path, {"x": jnp.zeros(3)})


SQUARE = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(SQUARE),
        SQUARE[:, ::-1],
        SQUARE.astype(">f8"),
        np.float64(2.5),
        np.array(3),
        np.zeros((0, 2)),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
        np.array([2**31 - 1, -(2**31)]),
        jnp.array([1 / 3, jnp.nan, jnp.inf], jnp.bfloat16),
        jnp.array([1 / 3, 448.0], jnp.float8_e4m3fn),
        np.array([1 / 3, 6e4], np.float16),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_layouts_and_types(tmp_path, array):
    """Values come back as they are, in short floating-point types too."""
    save(tmp_path / "x", {"x": array})
    back = load(tmp_path / "x", {"x": array})["x"]
    assert back.shape == array.shape
    short = jnp.issubdtype(array.dtype, jnp.floating) and jnp.finfo(array.dtype).bits < 32
    if short:
        assert back.dtype == array.dtype
    found, given = (np.asarray(x, float if short else array.dtype) for x in (back, array))
    np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1 + 2j]), "of complex128"),
        (jax.random.key(0), "is a random key"),
        (np.array([None]), "of object"),
        (np.array(["a"]), "of <U1"),
        (jnp.array([1], jnp.int4), "of int4"),
    ],
)
def test_types_that_cannot_be_saved(tmp_path, array, message):
    with pytest.raises(TypeError, match=rf"save: \['x'\] of `module` .*{message}"):
        save(tmp_path / "x", {"x": array})
    assert not list(tmp_path.iterdir())


def test_numbers_that_cannot_be_loaded(tmp_path):
    """Integers and magnitudes beyond 32 bits, and single precision into a shorter type."""
    for array, like in (
        (np.array([2**40]), np.array([0])),
        (np.array([1e300]), np.array([0.0])),
        (np.array([1 / 3], np.float32), jnp.zeros(1, jnp.bfloat16)),
    ):
        save(tmp_path / "x", {"x": array})
        with pytest.raises(ValueError, match=r"load: \['x'\] in x holds numbers that \w+ cannot"):
            load(tmp_path / "x", {"x": like})
        if like.dtype.itemsize == 8:
            with jax.enable_x64(True):
                np.testing.assert_array_equal(load(tmp_path / "x", {"x": like})["x"], array)


def test_distributions_keep_their_parameters(tmp_path):
    """NumPyro's own order of them depends on the process: the names must be those of the attributes."""
    law = {"prior": (dist.Normal(1.0, 2.0).expand([3]).to_event(1), dist.Gamma(3.0, 4.0).mask(jnp.array(True)))}
    save(tmp_path / "x", jax.tree.map(jnp.asarray, law))
    with safetensors.safe_open(tmp_path / "x", framework="np") as file:
        found = {name: float(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    assert {name.rsplit(".")[-1]: value for name, value in found.items()} == {
        "loc": 1.0,
        "scale": 2.0,
        "concentration": 3.0,
        "rate": 4.0,
        "_mask": 1.0,
    }
    assert equal(load(tmp_path / "x", jax.tree.map(jnp.zeros_like, law)), jax.tree.map(jnp.asarray, law))


def test_bad_arguments(tmp_path):
    save(tmp_path / "x", FLOW)
    for path in (None, 3, ["x"], ""):
        with pytest.raises(TypeError, match="save: `path` must be the path of a file"):
            save(path, FLOW)
        with pytest.raises(TypeError, match="load: `path` must be the path of a file"):
            load(path, FLOW)
        with pytest.raises(TypeError, match="load_metadata: `path` must be the path of a file"):
            load_metadata(path)
    assert equal(load(str(tmp_path / "x"), FLOW), FLOW)
    with pytest.raises(TypeError, match="load: `like` is missing, a module of the structure that was saved"):
        load(tmp_path / "x")
    with pytest.raises(ValueError, match="save: `module` has no arrays; got function"):
        save(tmp_path / "x", save)
    with pytest.raises(TypeError, match="is a shape without numbers"):
        save(tmp_path / "x", eqx.filter_eval_shape(lambda: FLOW))
    with pytest.raises(IsADirectoryError, match=r"save: .* is a folder"):
        save(tmp_path, FLOW)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="save: `about` nests too deeply"):
        save(tmp_path / "x", FLOW, deep=deep)


def test_nothing_is_half_written(tmp_path, monkeypatch):
    path = tmp_path / "flow.safetensors"
    save(path, FLOW)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"save: `path`: cannot write .*flow.safetensors.*: no space"):
        save(path, OTHER)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_what_json_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path / "flow.safetensors", FLOW, score=jnp.zeros(3))
