"""A study on disk continues, knows whose it is, and tells when it is damaged."""

import errno
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from numpyro_inverse._files import sole_writer
from numpyro_inverse.calibration import coverage, sbc, tarp

KEY = jax.random.key(0)


def model(data=None, noise=1.0, scale=1.0):
    x = numpyro.sample("x", dist.Normal(0, scale))
    numpyro.sample("data", dist.Normal(x, noise), obs=data)


def exact(key, y, scale=1.0, draws=99):
    return {"x": y / 2 + scale * np.sqrt(0.5) * jax.random.normal(key, (draws,))}


def study(inference=exact, m=model, **options):
    return sbc(m, inference, **{"num_datasets": 40, "rng_key": KEY, "batch_size": 10, "progress_bar": False} | options)


@pytest.mark.slow
def test_an_interrupted_study_continues(tmp_path):
    whole = study()
    study(store=tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 4
    files[2].unlink()  # lost
    touched = files[0].stat().st_mtime_ns
    again = study(store=tmp_path)
    for name in whole.ranks:
        np.testing.assert_array_equal(whole.ranks[name], again.ranks[name])
    assert files[0].stat().st_mtime_ns == touched
    assert files[2].exists()


def stricter(values, data):
    return values["x"] ** 3


OTHERS = {
    "number": ("num_datasets", {"num_datasets": 41}),
    "key": ("rng_key", {"rng_key": jax.random.key(1)}),
    "batch": ("batch_size", {"batch_size": 20}),
    "draws": ("num_draws", {"num_draws": 49}),
    "quantities": ("quantities", {"quantities": {"cube": stricter}}),
    "arguments": ("model_args", {"model_kwargs": {"noise": 0.5}}),
    "partial": ("other draws of 'x'", {"inference": partial(exact, scale=0.99)}),
    "function": ("other draws of 'x'", {"inference": lambda key, y: exact(jax.random.fold_in(key, 1), y)}),
    "kernel": ("inference", {"inference": MCMC(NUTS(model), num_warmup=20, num_samples=30)}),
    "prior": ("another 'x' from the prior", {"m": lambda data=None: model(data, scale=1.01)}),
    "likelihood": ("simulates other data 'data'", {"m": lambda data=None: model(data, noise=1.01)}),
}
SLOW = ("batch", "function", "kernel", "quantities")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study(store=folder)
    return folder


@pytest.mark.parametrize("name", [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in OTHERS])
def test_another_study_is_refused(begun, name):
    told, options = OTHERS[name]
    with pytest.raises(ValueError, match=f"`store`: the folder belongs to another study: .*{told}"):
        study(store=begun, **options)


@pytest.mark.slow
def test_another_kind_of_study_is_refused(begun):
    options = {"num_datasets": 40, "rng_key": KEY, "batch_size": 10, "progress_bar": False, "store": begun}
    for test in (coverage, tarp):
        with pytest.raises(ValueError, match="belongs to another study: `quantities`"):
            test(model, exact, **options)


@pytest.mark.slow
def test_a_sampler_of_another_model_is_refused(tmp_path):
    """What its kernel's settings do not show, its draws do."""

    def wrong(data=None):
        model(data, noise=0.1)

    options = {"num_datasets": 6, "num_warmup": 20, "num_samples": 30, "batch_size": 6, "store": tmp_path}
    study(NUTS(model), **options)
    study(NUTS(lambda data=None: model(data)), **options)  # the same in other words
    with pytest.raises(ValueError, match="other draws of 'x' for the same data and key"):
        study(NUTS(wrong), **options)


@pytest.mark.slow
def test_a_test_quantity_is_known_by_its_values(tmp_path):
    study(store=tmp_path, quantities={"cube": stricter})
    study(store=tmp_path, quantities={"cube": lambda values, data: stricter(values, data)})
    with pytest.raises(ValueError, match="test quantity 'cube' has other values"):
        study(store=tmp_path, quantities={"cube": lambda values, data: 1.01 * values["x"] ** 3})


@pytest.mark.slow
def test_the_references_of_tarp_count(tmp_path):
    options = {"num_datasets": 10, "rng_key": KEY, "progress_bar": False, "store": tmp_path}
    tarp(model, exact, **options, reference=lambda data: {"x": data["data"]})
    with pytest.raises(ValueError, match="has other values"):
        tarp(model, exact, **options, reference=lambda data: {"x": 1.1 * data["data"]})


def test_flipped_bits_are_told(begun):
    """Each of 200 bits all over a file; without the checksum most of them would be another verdict."""
    path = sorted(begun.glob("*.safetensors"))[1]
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(good[:8], "little")
    places = np.concatenate([rng.integers(0, 8 * header, 100), rng.integers(8 * header, 8 * len(good), 100)])
    try:
        from numpyro_inverse.calibration.ranks._batches import Ranks
        from numpyro_inverse.calibration.ranks._shelf import Shelf

        shelf = Shelf(begun, {}, "sbc: `store`")
        shelf._check = lambda found: None  # the identity is another matter
        before = jax.tree.map(np.asarray, shelf.load(10, Ranks))
        for place in places:
            raw = bytearray(good)
            raw[place // 8] ^= 1 << place % 8
            path.write_bytes(raw)
            with pytest.raises(ValueError, match=r"sbc: `store`: .*datasets-0000010\.safetensors' is damaged"):
                shelf.load(10, Ranks)
        path.write_bytes(good)
        jax.tree.map(np.testing.assert_array_equal, before, shelf.load(10, Ranks))
        path.write_bytes(good[:100])
        with pytest.raises(ValueError, match="is damaged; delete it"):
            study(store=begun)
        path.write_bytes(sorted(begun.glob("*.safetensors"))[0].read_bytes())  # the batch of another place
        with pytest.raises(ValueError, match="is damaged"):
            study(store=begun)
    finally:
        path.write_bytes(good)


def test_one_writer(begun):
    with sole_writer(begun, "another"), pytest.raises(RuntimeError, match="`store`: another process writes"):
        study(store=begun)


@pytest.mark.slow
def test_a_full_disk_and_no_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="`store` must be a folder"):
        study(store=tmp_path / "file")
    with pytest.raises(TypeError, match="`store` must be a path; got int"):
        study(store=5)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"`store`: cannot write .*No space left"):
        study(store=tmp_path / "full")
    monkeypatch.undo()
    assert not list((tmp_path / "full").glob("*.safetensors"))
    np.testing.assert_array_equal(study(store=tmp_path / "full").ranks["x"], study().ranks["x"])


def test_versions_are_kept_and_named(begun, monkeypatch):
    from numpyro_inverse.calibration.ranks import _shelf

    monkeypatch.setattr(_shelf, "versions", lambda: {"jax": "99"})
    study(store=begun)  # the same numbers, so the same study
    with pytest.raises(ValueError, match=rf"begun with .*'jax': '{jax.__version__}'"):
        study(store=begun, inference=partial(exact, scale=0.9))


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_compared_too(tmp_path):
    def fragile(key, y):
        return {"x": jnp.where(y > 0, jnp.nan, 1.0) * exact(key, y)["x"]}

    study(fragile, store=tmp_path)
    assert study(fragile, store=tmp_path).failed.any()
