"""Simulations of a model: the joint law, the same rows however they are made, nothing lost, failures told."""

import pickle
import signal
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.distributions import constraints

from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi import External, simulate
from numpyro_inverse.sbi import _simulation_store as store_module
from tests.sbi.programs import faulty, hanging, shifted


def _noisy(key, loc, scale):
    return loc + scale * random.normal(key)


def model(x=None):
    """A support that depends on a parent, a plate, and a site of another law."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    with numpyro.plate("units", 3):
        loc = numpyro.sample("loc", dist.Uniform(-scale, scale))
        numpyro.sample("x", Simulator(_noisy, loc, scale), obs=x)
    numpyro.sample("other", dist.Normal(scale, 1.0))


@pytest.fixture(scope="module")
def rows():
    return simulate(model, random.key(0), 2500, observed="other", progress_bar=False)


def test_the_joint_law(rows):
    # 8 limits of 4.9 standard errors, false alarm about 1e-5 in all; the log of scale is normal, loc / scale uniform,
    # (x - loc) / scale and other - scale standard normal.
    assert rows.failures == {}
    log_scale = np.log(rows.latents["scale"])
    noises = [
        log_scale / 0.3,
        rows.latents["loc"] / rows.latents["scale"][:, None] * np.sqrt(3),
        (rows.data["x"] - rows.latents["loc"]) / rows.latents["scale"][:, None],
        rows.data["other"] - rows.latents["scale"],
    ]
    for noise in noises:
        n = noise.size
        fourth = np.mean(noise**4)
        assert abs(noise.mean()) < 4.9 / np.sqrt(n)
        assert abs(np.mean(noise**2) - 1) < 4.9 * np.sqrt((fourth - 1) / n)


def test_latents_are_unconstrained_by_their_own_support(rows):
    scale, loc = rows.latents["scale"], rows.latents["loc"]
    share = (loc + scale[:, None]) / (2 * scale[:, None])
    np.testing.assert_allclose(rows.unconstrained["scale"], np.log(scale), atol=1e-5)
    np.testing.assert_allclose(rows.unconstrained["loc"], np.log(share / (1 - share)), rtol=2e-3, atol=2e-3)


def test_what_the_simulator_was_given(rows):
    loc, scale = rows.arguments["x"]
    np.testing.assert_array_equal(loc, rows.latents["loc"])
    np.testing.assert_array_equal(scale, np.repeat(rows.latents["scale"][:, None], 3, axis=1))
    (loc, scale), x = rows.pairs("x")
    assert loc.shape == scale.shape == x.shape == (7500,)


def test_many_arguments_keep_their_order():
    def many(x=None):
        loc = numpyro.sample("loc", dist.Normal())
        given = [loc, *(float(i) for i in range(1, 12))]
        numpyro.sample("x", Simulator(lambda key, *args: jnp.stack(args), *given), obs=x)

    found = simulate(many, random.key(0), 4, progress_bar=False)
    np.testing.assert_array_equal([arg[0] for arg in found.arguments["x"][1:]], np.arange(1.0, 12.0))
    np.testing.assert_array_equal(found.data["x"][:, 1:], np.tile(np.arange(1.0, 12.0), (4, 1)))


@pytest.mark.slow
def test_rows_do_not_depend_on_the_batch_size(rows):
    other = simulate(model, random.key(0), 100, observed="other", batch_size=33, progress_bar=False)
    for one, two in zip(jax.tree.leaves(rows.data), jax.tree.leaves(other.data), strict=True):
        np.testing.assert_allclose(one[:100], two, rtol=1e-5, atol=1e-6)  # but for rounding


def test_a_proposal_for_some_latents():
    scale = np.linspace(1.0, 2.0, 60)
    found = simulate(model, random.key(0), 60, latents={"scale": scale}, batch_size=40, progress_bar=False)
    np.testing.assert_allclose(found.latents["scale"], scale, rtol=1e-6)
    assert (np.abs(found.latents["loc"]) <= scale[:, None]).all()


def test_double_precision(x64):
    found = simulate(model, random.key(0), 5, progress_bar=False)
    assert found.data["x"].dtype == np.float64


# Stores.


def _same(one, two):
    for a, b in zip(
        jax.tree.leaves(one._replace(failures={})), jax.tree.leaves(two._replace(failures={})), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def _stored(store, num=250, key=0):
    return simulate(model, random.key(key), num, batch_size=50, store=store, progress_bar=False)


class _Killed(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return _stored(tmp_path_factory.mktemp("whole") / "store")


@pytest.mark.parametrize("call", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 6, 9))])
def test_what_was_cut_off_goes_on(tmp_path, whole, monkeypatch, call):
    """After the rows of a batch, or before its marker, or after it."""
    flush, calls = store_module.flush, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == call:
            raise _Killed
        flush(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "flush", interrupted)
        with pytest.raises(_Killed):
            _stored(tmp_path / "store")
    _same(_stored(tmp_path / "store"), whole)


def test_finished_batches_are_read_not_made(tmp_path, whole, monkeypatch):
    _stored(tmp_path / "store")
    saved = []
    monkeypatch.setattr(store_module.SimulationStore, "save", lambda self, first, rows: saved.append(first))
    _same(_stored(tmp_path / "store"), whole)
    assert saved == []


def test_a_store_grows(tmp_path, whole):
    _stored(tmp_path / "store", num=120)  # ends within a batch
    _same(_stored(tmp_path / "store"), whole)
    shorter = _stored(tmp_path / "store", num=70)
    np.testing.assert_array_equal(shorter.data["x"], whole.data["x"][:70])


def test_a_store_of_other_simulations_is_refused(tmp_path):
    store = tmp_path / "store"
    _stored(store, num=60)
    with pytest.raises(ValueError, match="`rng_key` was"):
        _stored(store, num=60, key=1)
    with pytest.raises(ValueError, match="`batch_size` was 50, and is now 60"):
        simulate(model, random.key(0), 60, batch_size=60, store=store, progress_bar=False)

    def shifted_model(x=None):
        scale = numpyro.sample("scale", dist.LogNormal(0.1, 0.3))
        with numpyro.plate("units", 3):
            loc = numpyro.sample("loc", dist.Uniform(-scale, scale))
            numpyro.sample("x", Simulator(_noisy, loc, scale), obs=x)
        numpyro.sample("other", dist.Normal(scale, 1.0))

    with pytest.raises(ValueError, match="for the same key the model gives other"):
        simulate(shifted_model, random.key(0), 60, batch_size=50, store=store, progress_bar=False)
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "file").write_text("")
    with pytest.raises(ValueError, match="holds something else"):
        _stored(tmp_path / "things")


@pytest.mark.parametrize("which", ["rows/data/x/c.1.0", "marker/c.1.0"])
def test_damage_is_told(tmp_path, which):
    _stored(tmp_path / "store")
    path = tmp_path / "store" / which
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="the store is damaged: batch 1"):
        _stored(tmp_path / "store")


KILLED = """
import time
from jax import random
from numpyro_inverse.sbi import _simulation_store, simulate
from tests.sbi.test_simulate import model
save = _simulation_store.SimulationStore.save
def slow(self, first, rows):
    time.sleep(0.02)
    save(self, first, rows)
_simulation_store.SimulationStore.save = slow
print("ready", flush=True)
simulate(model, random.key(0), 20_000, batch_size=50, store={store!r}, progress_bar=False)
"""


@pytest.mark.statistical
def test_twenty_kills(tmp_path):
    rng, kills, store = np.random.default_rng(0), 0, tmp_path / "killed"
    while kills < 20:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED.format(store=str(store))], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + rng.uniform(2.0, 8.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    found = simulate(model, random.key(0), 20_000, batch_size=50, store=store, progress_bar=False)
    _same(found, simulate(model, random.key(0), 20_000, batch_size=50, progress_bar=False))


# Failures.


def _external_model(program):
    def external_model(x=None):
        loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
        numpyro.sample("x", Simulator(program, loc), obs=x)

    return external_model


@pytest.mark.slow
def test_external_programs():
    with External(shifted, (2,), processes=2) as program:
        found = simulate(_external_model(program), random.key(0), 40, batch_size=20, progress_bar=False)
        again = simulate(_external_model(program), random.key(0), 40, batch_size=40, progress_bar=False)
    assert found.failures == {}
    np.testing.assert_allclose(found.data["x"], again.data["x"], rtol=1e-5)
    noise = found.data["x"] - found.latents["loc"][:, None]
    assert len(np.unique(noise)) == 80
    assert abs(noise.mean()) < 4.9 / np.sqrt(80)  # false alarm 1e-6


def test_failures_of_programs_are_counted():
    with External(faulty, (2,), processes=2) as program, pytest.warns(UserWarning, match="failures"):
        found = simulate(_external_model(program), random.key(0), 200, progress_bar=False)
    bad = ~found.usable["x"]
    told = {name: count for name, count in found.failures.items() if name != "x is not finite"}
    assert 0.15 < bad.mean() < 0.45  # 60 expected, 6.5 standard deviations
    assert found.failures["x is not finite"] == bad.sum()
    assert set(told) == {"RuntimeError: the solver did not converge", "an array of shape (3,) instead of (2,)"}
    nan = bad.sum() - sum(told.values())
    assert nan > 0
    (loc,), x = found.pairs("x")
    assert len(loc) == len(x) == (~bad).sum()
    assert np.isfinite(x).all()
    assert found.rows().sum() == (~bad).sum()


def test_a_program_goes_to_other_processes_without_its_own():
    with External(shifted, (2,), processes=1) as program:
        program.failures["once"] += 1
        copy = pickle.loads(pickle.dumps(program))
    assert copy.failures == {}
    assert program.failures == {"once": 1}


@pytest.mark.statistical
def test_a_program_that_hangs_is_ended():
    with (
        External(hanging, (2,), processes=2, timeout=1.0) as program,
        pytest.warns(UserWarning, match="no result within"),
    ):
        found = simulate(_external_model(program), random.key(0), 40, progress_bar=False)
    assert found.failures["no result within 1 s"] == (~found.usable["x"]).sum() > 0


def _half_nan(key, loc):
    return jnp.where(random.bernoulli(key, 0.05), jnp.nan, loc + jnp.zeros(2))


def test_nan_and_what_is_outside_the_declared_support():
    with pytest.warns(UserWarning, match="'x is not finite' .of 2000 rows"):
        found = simulate(_external_model(_half_nan), random.key(0), 2000, progress_bar=False)
    assert 50 < found.failures["x is not finite"] < 150  # 100 expected; 5.1 standard deviations

    def positive(x=None):
        loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
        numpyro.sample("x", Simulator(_noisy, loc, 0.0, support=constraints.positive), obs=x)

    with pytest.warns(UserWarning, match="outside its support"):
        found = simulate(positive, random.key(0), 400, progress_bar=False)
    np.testing.assert_array_equal(found.usable["x"], found.latents["loc"] > 0)


def test_all_simulations_failed():
    with pytest.raises(ValueError, match=r"all 50 simulations of site 'x' failed: x is not finite \(50\)"):
        simulate(_external_model(lambda key, loc: loc * jnp.nan), random.key(0), 50, progress_bar=False)


# A cluster.


def test_a_cluster_makes_the_same_rows(tmp_path, whole):
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dashboard
        with (
            distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            found = simulate(
                model, random.key(0), 250, batch_size=50, store=tmp_path / "store", client=client, progress_bar=False
            )
    for one, two in zip(jax.tree.leaves(found.data), jax.tree.leaves(whole.data), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)  # one device there, two here
    _same(_stored(tmp_path / "store"), found)


# Bad input.


def _discrete(x=None):
    k = numpyro.sample("k", dist.Poisson(3.0))
    numpyro.sample("x", Simulator(_noisy, k, 1.0), obs=x)


def _with_factor(x=None):
    loc = numpyro.sample("loc", dist.Normal())
    numpyro.factor("bonus", loc)
    numpyro.sample("x", Simulator(_noisy, loc, 1.0), obs=x)


def _subsampling(x=None):
    loc = numpyro.sample("loc", dist.Normal())
    with numpyro.plate("n", 10, subsample_size=2):
        numpyro.sample("x", Simulator(_noisy, loc, 1.0), obs=x)


def _no_latent(x=None):
    numpyro.sample("x", Simulator(_noisy, 0.0, 1.0), obs=x)


def _no_data():
    numpyro.sample("loc", dist.Normal())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: simulate(_discrete, random.key(0), 5), ValueError, "latent site 'k' is discrete"),
        (lambda: simulate(_with_factor, random.key(0), 5), ValueError, "'bonus' is a `numpyro.factor`"),
        (lambda: simulate(_subsampling, random.key(0), 5), ValueError, "plate 'n' takes batches"),
        (lambda: simulate(_no_latent, random.key(0), 5), ValueError, "no latent site"),
        (lambda: simulate(_no_data, random.key(0), 5), ValueError, "nothing in the model is data"),
        (lambda: simulate(model, random.key(0), 0), ValueError, "`num` must be a positive integer"),
        (lambda: simulate(model, 0, 5), TypeError, "`rng_key` must be a random key"),
        (lambda: simulate(3, random.key(0), 5), TypeError, "`model` must be a NumPyro model"),
        (lambda: simulate(model, random.key(0), 5, observed="z"), ValueError, "no sample site 'z'"),
        (lambda: simulate(model, random.key(0), 5, latents={"x": 1.0}), ValueError, "'x', which is no latent"),
        (lambda: simulate(model, random.key(0), 5, latents={"scale": [1.0]}), ValueError, r"must have shape \(5,\)"),
        (lambda: External(3), TypeError, "`function` must be a function"),
        (lambda: External(lambda seed: seed), TypeError, "cannot be sent to another process"),
        (lambda: External(shifted, (2,), timeout=0.0), ValueError, "`timeout` must be positive"),
        (lambda: External(shifted, (2,), processes=-1), ValueError, "`processes` must be a positive integer"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
