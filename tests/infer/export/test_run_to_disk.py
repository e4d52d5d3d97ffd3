"""Runs on disk: the same draws after kills, small memory, and clear errors."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zarr
from numpyro.infer import AIES, MCMC, NUTS

from numpyro_inverse import whiten
from numpyro_inverse.distributions import AutoregressiveField, Matern, SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import MALA, BlackJAX, ExactGaussian, read_run, run_to_disk, to_arviz
from numpyro_inverse.infer.export._batch_means import no_sums, smallest_ess, updated
from numpyro_inverse.infer.export._run_store import RunStore
from tests.domains.meshes import square

DATA = np.array([1.0, -0.5, 2.0], np.float32)
ROOT = Path(__file__).parents[3]


PARTS = ("posterior", "sample_stats")


def model(y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    white = numpyro.sample("white", dist.Normal().expand([3]).to_event(1))
    values = numpyro.deterministic("values", scale * white)
    numpyro.sample("y", dist.Normal(values, 0.5).to_event(1), obs=y)


def other_model(y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.301))
    white = numpyro.sample("white", dist.Normal().expand([3]).to_event(1))
    values = numpyro.deterministic("values", scale * white)
    numpyro.sample("y", dist.Normal(values, 0.5).to_event(1), obs=y)


def an_mcmc(kernel=None, num_warmup=40, num_samples=60, num_chains=2, chain_method="vectorized", **rest):
    kernel = MALA(model) if kernel is None else kernel
    return MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains,
                chain_method=chain_method, progress_bar=False, **rest)  # fmt: skip


def write(store, mcmc=None, seed=0, y=DATA, **options):
    options = {"block_size": 20, "progress_bar": False} | options
    run_to_disk(mcmc or an_mcmc(), store, jax.random.key(seed), model_kwargs={"y": y}, **options)


def raw(store):
    """Every kept number."""
    import zarr

    group = zarr.open_group(store, mode="r")
    return {f"{part}/{k}": x[...] for part in PARTS if part in group for k, x in group[part].arrays()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name


def stop_after(monkeypatch, blocks):
    """The process dies before the marker of a block is in place."""
    append = RunStore.append

    def dying(self, number, *rest):
        append(self, number, *rest)
        if number == blocks:
            self._forget(number)
            raise KeyboardInterrupt

    monkeypatch.setattr(RunStore, "append", dying)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chain_method", "chains", "kernel"),
    [
        ("sequential", 2, lambda: ExactGaussian(numpyro.handlers.condition(model, {"scale": 1.0}))),
        ("vectorized", 2, lambda: MALA(model)),
        ("parallel", 2, lambda: MALA(model)),
        ("sequential", 1, lambda: NUTS(model, max_tree_depth=3)),
    ],
    ids=["sequential", "vectorized", "parallel", "single"],
)
def test_draws_are_those_of_mcmc(tmp_path, chain_method, chains, kernel):
    def mcmc():
        return an_mcmc(kernel(), 4, 8, chains, chain_method)

    fields = () if chain_method == "sequential" and chains == 2 else ("accept_prob",)
    write(tmp_path / "run", mcmc(), block_size=4, extra_fields=fields)
    found, reference = raw(tmp_path / "run"), mcmc()
    reference.run(jax.random.key(0), y=DATA, extra_fields=fields)
    for site, values in reference.get_samples(group_by_chain=True).items():
        np.testing.assert_allclose(found[f"posterior/{site}"], values, rtol=2e-3, atol=2e-3)
    for field in fields:
        values = reference.get_extra_fields(group_by_chain=True)[field]
        np.testing.assert_allclose(found[f"sample_stats/{field}"], values, rtol=2e-3, atol=2e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, which no test changes."""
    store = tmp_path_factory.mktemp("store") / "whole"
    write(store)
    return store


def test_continues_to_the_same_bits(tmp_path, monkeypatch, whole):
    # Blocks 0 and 1 are warm-up, 2 to 4 draws. One run is cut off in block 0 and in block 2, when all is written but
    # the marker; `test_a_kill` and the tests of damage and of disks cut it off in the others.
    for blocks in (0, 2):
        with monkeypatch.context() as patch:
            stop_after(patch, blocks)
            with pytest.raises(KeyboardInterrupt):
                write(tmp_path / "cut")
    write(tmp_path / "cut")
    assert_same_bits(raw(whole), raw(tmp_path / "cut"))


@pytest.mark.statistical
@pytest.mark.parametrize(
    "kernel",
    [
        lambda: NUTS(model),
        lambda: BlackJAX(model, algorithm=blackjax.mala),
        lambda: ExactGaussian(numpyro.handlers.condition(model, {"scale": 1.0})),
    ],
    ids=["NUTS", "BlackJAX", "ExactGaussian"],
)
def test_any_kernel(tmp_path, monkeypatch, kernel):
    write(tmp_path / "whole", an_mcmc(kernel(), 10, 20, 1), block_size=10)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "cut", an_mcmc(kernel(), 10, 20, 1), block_size=10)
    write(tmp_path / "cut", an_mcmc(kernel(), 10, 20, 1), block_size=10)
    assert_same_bits(raw(tmp_path / "whole"), raw(tmp_path / "cut"))


@pytest.mark.slow
def test_ensembles(tmp_path, monkeypatch):
    def line(y=None):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", dist.Normal()), 0.5).to_event(0), obs=y)

    def mcmc():
        return an_mcmc(AIES(line, moves={AIES.DEMove(): 1.0}), 4, 8, 4)

    options = {"y": np.float32(1.0), "block_size": 4, "extra_fields": ("inner_state.accept_prob",)}
    write(tmp_path / "whole", mcmc(), **options)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "cut", mcmc(), **options)
    write(tmp_path / "cut", mcmc(), **options)
    assert_same_bits(raw(tmp_path / "whole"), raw(tmp_path / "cut"))
    reference = mcmc()
    reference.run(jax.random.key(0), y=np.float32(1.0))
    draws = raw(tmp_path / "whole")
    np.testing.assert_allclose(draws["posterior/x"], reference.get_samples(group_by_chain=True)["x"], rtol=1e-4)
    assert draws["sample_stats/inner_state.accept_prob"].shape == (4, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "begun",
    [pytest.param(40, id="whole blocks"), pytest.param(30, id="within a block", marks=pytest.mark.statistical)],
)
def test_a_longer_run(tmp_path, whole, begun):
    write(tmp_path / "run", an_mcmc(num_samples=begun))
    before = raw(tmp_path / "run")
    write(tmp_path / "run")
    after = raw(tmp_path / "run")
    for name, values in before.items():
        assert values.tobytes() == np.ascontiguousarray(after[name][:, :begun]).tobytes()
    if begun == 40:  # the blocks are those of a run that was as long from its start
        assert_same_bits(raw(whole), after)
    else:
        np.testing.assert_allclose(after["posterior/values"], raw(whole)["posterior/values"], rtol=1e-3, atol=1e-3)
    assert read_run(tmp_path / "run", sites=["scale"]).attrs["complete"]


def test_a_finished_run_stays(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    before = raw(tmp_path / "run")
    write(tmp_path / "run")
    assert_same_bits(before, raw(tmp_path / "run"))


@pytest.mark.slow
def test_thinning_sites_and_quantities(tmp_path, whole):
    write(
        tmp_path / "few",
        an_mcmc(thinning=2),
        sites=["scale"],
        quantities=lambda draw: {"largest": jnp.max(draw["values"])},
    )
    full, few = raw(whole), raw(tmp_path / "few")
    assert {k for k in few if k.startswith("posterior")} == {"posterior/scale", "posterior/largest"}
    np.testing.assert_allclose(few["posterior/scale"], full["posterior/scale"][:, 1::2], rtol=1e-3)
    np.testing.assert_allclose(few["posterior/largest"], full["posterior/values"][:, 1::2].max(axis=2), rtol=1e-3)


def test_reader(tmp_path):
    grid, y = Grid((4, 4), extent=2.0), np.ones((4, 4), np.float32)

    def field_model(y=None):
        field = numpyro.sample("field", SpectralField(grid, 1.0 / (1.0 + grid.eigenvalues)))
        numpyro.deterministic("profile", field[0])
        numpyro.sample("y", dist.Normal(field, 0.5).to_event(2), obs=y)

    field_model, store = whiten(field_model), tmp_path / "run"
    fields = ("accept_prob", "potential_energy")
    write(store, an_mcmc(MALA(field_model), 0, 8), y=y, extra_fields=fields, block_size=4)
    tree = read_run(store, model=field_model, model_kwargs={"y": y})
    assert "field_latent" not in tree.posterior
    assert tree.attrs["complete"]
    assert tree.posterior.sizes["draw"] == 8
    assert tree.log_likelihood["y"].shape == (2, 8, 4, 4)
    np.testing.assert_allclose(np.asarray(tree.posterior["field"]), raw(store)["posterior/field"])
    (store / "marker" / "c.1.0.0").unlink()  # as if it still went on
    tree = read_run(store, {"profile": Grid(4, extent=2.0)}, length_unit="m")
    assert tree.posterior["field"].dims == ("chain", "draw", "x", "y")
    np.testing.assert_allclose(tree.posterior["x"], grid.coordinates["x"][1])
    assert tree.posterior["x"].attrs["units"] == "m"
    assert set(tree.posterior.data_vars) == {"field", "profile"}
    assert "field_latent" in read_run(store, keep_latent=True).posterior
    assert "field_latent" in read_run(store, sites=["field_latent"]).posterior
    assert tree.posterior.sizes["draw"] == 4
    assert not tree.attrs["complete"]
    assert set(tree.sample_stats) == {"acceptance_rate", "lp", "diverging"}
    assert tree.sample_stats.attrs["num_failures"] == 0


@pytest.mark.slow
def test_fields_on_meshes(tmp_path):
    """As `to_arviz` names them, triangles and units of stacked axes included; a flipped corner is told."""
    mesh = square(4)
    law = Matern(mesh, range=0.5, scale=1.0, smoothness=1.0)

    def field_model(y=None):
        numpyro.sample("field", law)
        numpyro.sample("years", AutoregressiveField(law, correlation=0.5, num_steps=3))

    store, mcmc = tmp_path / "run", an_mcmc(MALA(whiten(field_model)), 0, 2)
    write(store, mcmc, block_size=2)
    tree = read_run(store)
    places = {"field": law.domain, "years": AutoregressiveField(law, correlation=0.5, num_steps=3).domain}
    sites = {name: np.asarray(tree.posterior[name]) for name in places}
    expected = to_arviz(sites, domain=places)
    assert tree.posterior.coords.keys() == expected.posterior.coords.keys()
    for name, coordinate in expected.posterior.coords.items():
        np.testing.assert_array_equal(tree.posterior[name], coordinate)
        assert tree.posterior[name].attrs == coordinate.attrs
    np.testing.assert_array_equal(tree.posterior["node_simplices"], mesh.simplices)
    group = zarr.open_group(store, mode="r+")
    record = json.loads(group.attrs["run"])
    for domain in record["domains"]:  # as versions before wrote them
        del domain["space"], domain["simplices"]
    old = json.dumps(record)
    new = dict(group.attrs)
    group.attrs.update({"run": old, "sha256": hashlib.sha256(old.encode()).hexdigest()})
    earlier = read_run(store).posterior
    assert "node_simplices" not in earlier.coords
    np.testing.assert_array_equal(earlier["field"], tree.posterior["field"])
    group.attrs.update(new)
    corners = store / "simplices" / "0" / "c.0.0"
    corners.write_bytes(corners.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="simplices/0"):
        read_run(store)


def test_effective_sample_size_of_an_autoregressive_chain():
    # AR(1) with correlation 0.9: ESS = n (1 - 0.9) / (1 + 0.9); 400 batches know it to 7 % (one standard deviation).
    rng, x, rows = np.random.default_rng(0), np.zeros((4, 1)), []
    for _ in range(20_000):
        x = 0.9 * x + np.sqrt(1 - 0.81) * rng.standard_normal((4, 1))
        rows.append(x)
    draws = 5.0 + np.stack(rows, axis=1)
    sums = no_sums(1)
    for block in np.split(draws, 100, axis=1):
        sums = updated(sums, {"x": block})
    assert abs(smallest_ess(sums) / (80_000 / 19) - 1) < 0.35  # 5 standard deviations


@pytest.mark.slow
def test_progress_bar_shows_the_effective_sample_size(tmp_path, capsys):
    short = an_mcmc(num_warmup=0, num_samples=2)
    write(tmp_path / "quiet", short, block_size=2, progress_bar=None)  # as the MCMC says
    assert capsys.readouterr().err == ""
    write(tmp_path / "run", an_mcmc(num_warmup=0, num_samples=4), block_size=2, progress_bar=True)
    shown = capsys.readouterr().err
    assert "ESS" in shown
    assert "4/4" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mcmc": lambda: an_mcmc(MALA(other_model))}, "the model's log density of 'scale'"),
        ({"mcmc": lambda: an_mcmc(MALA(model, target_accept_prob=0.7))}, "target_accept_prob` was 0.574.* 0.7"),
        ({"mcmc": lambda: an_mcmc(NUTS(model))}, "class` was MALA.* NUTS"),
        ({"mcmc": lambda: an_mcmc(num_samples=40)}, "`num_samples` was 60, and is now 40; a run can be made longer"),
        ({"seed": 1}, "`rng_key`"),
        ({"y": 2 * DATA}, "`data`"),
        ({"block_size": 10}, "`block_size` was 20, and is now 10"),
        ({"sites": ["scale"]}, "`kept.posterior/values`"),
    ],
    ids=["model", "setting", "kernel", "length", "key", "data", "block", "sites"],
)
def test_a_store_of_another_run(whole, change, message):
    before = raw(whole)
    change = dict(change)
    mcmc = change.pop("mcmc", an_mcmc)()
    with pytest.raises(ValueError, match=message):
        write(whole, mcmc, **change)
    assert_same_bits(before, raw(whole))


def test_a_directory_that_holds_something_else(tmp_path):
    import zarr

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("keep me")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        write(tmp_path / "notes")
    zarr.open_group(tmp_path / "other", mode="w").create_array("x", shape=(2,), dtype="f4")
    with pytest.raises(ValueError, match="holds no run"):
        write(tmp_path / "other")
    with pytest.raises(ValueError, match="no store"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        write(tmp_path / "file")


def test_values_that_are_not_finite_end_the_run(tmp_path):
    def quantities(draw):
        return {"root": jnp.sqrt(draw["white"][0])}

    with pytest.raises(RuntimeError, match="'root' has values that are not finite in block 0"):
        write(tmp_path / "run", an_mcmc(num_warmup=0), quantities=quantities)


@pytest.mark.slow
def test_failures_of_the_forward_map_are_told(tmp_path):
    """By the run at its end, by the same call of a finished run, and by the reader."""

    def failing(y=None):
        u = numpyro.sample("u", dist.Normal())
        numpyro.sample("y", dist.Normal(jnp.where(u > 1.0, jnp.nan, u), 1.0, validate_args=False), obs=y)

    def run():
        kernel = MALA(failing)
        write(tmp_path / "run", an_mcmc(kernel, 20, 40), y=0.0, extra_fields=("num_failures",), init_params=first)

    first, told = {"u": jnp.zeros(2)}, r"MALA: \d+ moves of 2 chain\(s\) met .* of chain [01], where site 'y' has log"
    for act in (run, run, lambda: read_run(tmp_path / "run")):
        with pytest.warns(UserWarning, match=told) as warned:
            tree = act()
    stats = tree.sample_stats
    assert stats.attrs["num_failures"] == stats["num_failures"][:, -1].sum() > 2
    assert stats.attrs["first_failure_site"] == "y"
    assert f"iteration {stats.attrs['first_failure']} of chain {stats.attrs['first_failure_chain']}" in str(
        warned[0].message
    )


def test_an_edited_quantity(tmp_path):
    short = an_mcmc(num_warmup=0, num_samples=2)
    write(tmp_path / "run", short, block_size=2, quantities=lambda draw: {"q": jnp.max(draw["values"])})
    with pytest.raises(ValueError, match=r"the first .*posterior/q.* differs"):
        write(tmp_path / "run", short, block_size=2, quantities=lambda draw: {"q": jnp.min(draw["values"])})


@pytest.mark.slow
def test_an_edited_model_among_many_data(tmp_path):
    # The log density is some -30,000, and changes by 4: seen because each site is compared by its own size.
    y = np.random.default_rng(0).normal(2.0, 1.0, 20_000).astype(np.float32)

    def edited(loc):
        def model(y=None):
            mean = numpyro.sample("mean", dist.Normal(0, 10))
            numpyro.sample("free", dist.Normal(loc, 1.0))
            numpyro.sample("y", dist.Normal(mean, 1.0).expand([len(y)]).to_event(1), obs=y)

        return an_mcmc(MALA(model), 0, 2, 1)

    write(tmp_path / "run", edited(0.0), y=y, block_size=2)
    with pytest.raises(ValueError, match="model's log density of 'free'"):
        write(tmp_path / "run", edited(4.0), y=y, block_size=2)


@pytest.mark.slow
def test_other_versions(tmp_path, monkeypatch, whole):
    from numpyro_inverse.infer.export import _run_to_disk

    shutil.copytree(whole, tmp_path / "run")
    here = _run_to_disk.environment()
    monkeypatch.setattr(_run_to_disk, "environment", lambda: here | {"jax": "9.9"})
    write(tmp_path / "run")  # finished: nothing is computed
    with pytest.warns(UserWarning, match=r"\(now 9.9\).*not promised"):
        write(tmp_path / "run", an_mcmc(num_samples=80))
    write(tmp_path / "run", an_mcmc(num_samples=100))  # told once
    environments = read_run(tmp_path / "run", sites=["scale"]).attrs["run_environments"]
    assert [(about["block"], about["jax"]) for about in environments] == [(0, here["jax"]), (5, "9.9")]


# Damage. Blocks 0 and 1 are warm-up, 2 to 4 draws, of which chunk 0 to 2.


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.fixture
def copied(tmp_path, whole):
    return Path(shutil.copytree(whole, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("posterior/values/c.0.1.0", flip, r"'values' in block 3 \(draws 20 to 39 of each chain\)"),
        ("posterior/values/c.0.1.0", zero, "'values' in block 3"),
        ("posterior/values/c.0.1.0", Path.unlink, "'values' in block 3 .* has not the values that were written"),
        ("posterior/values/zarr.json", flip, "posterior/values|'values'"),
        ("posterior/values/zarr.json", Path.unlink, "the array 'posterior/values' is missing"),
        ("marker/c.2.0.0", Path.unlink, "block 2 has lost its marker"),
        ("marker/c.2.0.0", flip, "marker of block 2"),
        ("marker/c.2.0.0", zero, "marker of block 2"),
        ("zarr.json", flip, "record of the run|metadata"),
        ("zarr.json", Path.unlink, "'.*zarr.json' is missing"),
    ],
)
def test_damage_is_told_by_the_reader(copied, name, damage, message):
    damage(copied / name)
    with pytest.raises(ValueError, match=f"^read_run: .*{message}"):
        read_run(copied)


def test_damage_elsewhere_does_not_matter(copied, whole):
    flip(copied / "posterior" / "values" / "c.0.1.0")
    found = read_run(copied, sites=["scale"])
    assert found.attrs["complete"]
    np.testing.assert_array_equal(found.posterior["scale"], raw(whole)["posterior/scale"])


@pytest.mark.parametrize(
    "name",
    [
        "posterior/values/c.0.2.0",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("state/c.0.0", "marker/c.4.0.0")),
    ],
)
def test_a_damaged_last_block_is_computed_again(copied, whole, name):
    flip(copied / name)
    with pytest.warns(UserWarning, match="damaged: .*block 4.*Block 4 is computed again"):
        write(copied)
    assert_same_bits(raw(whole), raw(copied))
    assert read_run(copied).attrs["complete"]


def test_a_lost_last_marker_costs_a_block(copied, whole):
    (copied / "marker" / "c.4.0.0").unlink()
    assert not read_run(copied).attrs["complete"]
    write(copied)
    assert_same_bits(raw(whole), raw(copied))


def test_damage_that_cannot_be_repaired(copied):
    # Two lost markers: the state that would be needed has been overwritten by one that is two blocks older.
    for number in (3, 4):
        (copied / "marker" / f"c.{number}.0.0").unlink()
    with pytest.raises(ValueError, match="state after block 2 is missing; in its place there is another"):
        write(copied)
    flip(copied / "posterior" / "values" / "c.0.0.0")
    with pytest.raises(ValueError, match=r"^run_to_disk: .*damaged.* block 2"):
        write(copied)


def test_chunks_of_another_run(copied, tmp_path):
    write(tmp_path / "other", seed=1)
    for name in ("posterior/values/c.0.1.0", "marker/c.3.0.0"):
        shutil.copy(tmp_path / "other" / name, copied / name)
    with pytest.raises(ValueError, match="marker of block 3"):
        read_run(copied)


@pytest.mark.statistical
@pytest.mark.parametrize("finished", [True, False])
def test_sixty_flipped_bits(copied, tmp_path, whole, finished):
    """Each is told, or the draws are the same; and so if the run is then continued."""
    if not finished:
        (copied / "marker" / "c.4.0.0").unlink()
    good = raw(whole)
    files = [path for path in copied.rglob("*") if path.is_file() and path.stat().st_size]
    rng, told = np.random.default_rng(0), []
    for _ in range(60):
        store = Path(shutil.copytree(copied, tmp_path / "hit"))
        flip(store / files[rng.integers(len(files))].relative_to(copied), rng.uniform())
        for act in (read_run, _resumed):
            try:
                tree = act(store)
            except ValueError as error:
                told.append(str(error))
            else:
                assert tree.attrs["complete"] == (finished or act is _resumed)
                for name, values in tree.posterior.data_vars.items():
                    found = np.asarray(values)
                    np.testing.assert_array_equal(found, good[f"posterior/{name}"][:, : found.shape[1]])
        shutil.rmtree(store)
    assert len(told) > 30
    assert all("damaged" in message or "holds no run" in message for message in told)


def _resumed(store):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*computed again")
        write(store)
    return read_run(store)


# The disk.


def test_one_writer(copied):
    from numpyro_inverse.infer.export._run_folder import writable_group

    with writable_group(copied, "the other"), pytest.raises(RuntimeError, match="another process writes"):
        write(copied)
    write(copied)


@pytest.mark.parametrize(
    ("written", "error"),
    [
        pytest.param(0, errno.EROFS, marks=pytest.mark.slow, id="read-only"),
        pytest.param(5, errno.ENOSPC, marks=pytest.mark.slow, id="full among arrays"),
        pytest.param(34, errno.ENOSPC, id="full within block 3"),
    ],
)
def test_a_disk_that_takes_no_more(tmp_path, monkeypatch, whole, error, written):
    from zarr.storage import _local

    put, count = _local._put, iter(range(10_000))

    def failing(*arguments, **options):
        if next(count) >= written:
            raise OSError(error, os.strerror(error))
        return put(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(_local, "_put", failing)
        with pytest.raises(OSError, match=f"run_to_disk: `store` .*cannot write '.*run': {os.strerror(error)}"):
            write(tmp_path / "run")
    write(tmp_path / "run")
    assert_same_bits(raw(whole), raw(tmp_path / "run"))


def test_a_store_in_memory(whole):
    import zarr

    store = zarr.storage.MemoryStore()
    write(store)
    assert_same_bits(raw(whole), raw(store))
    assert read_run(store).attrs["complete"]


def test_runs_of_version_1():
    import zarr

    store = zarr.storage.ZipStore(Path(__file__).parent / "data" / "run_version_1.zip", mode="r")
    tree = read_run(store)
    np.testing.assert_allclose(tree.posterior["total"][:, 5], [0.97956187, 0.88353789], rtol=1e-6)
    assert set(tree.sample_stats) == {"lp", "diverging"}
    assert tree.attrs["complete"]
    assert tree.attrs["run_num_samples"] == 8


@pytest.mark.slow
def test_sites_with_slashes(tmp_path):
    def part():
        return numpyro.sample("x", dist.Normal().expand([2]).to_event(1))

    def scoped(y=None):
        left, right = numpyro.handlers.scope(part, "left")(), numpyro.handlers.scope(part, "right")()
        numpyro.sample("y", dist.Normal(left + right, 0.5).to_event(1), obs=y)

    y = np.ones(2, np.float32)
    write(tmp_path / "run", an_mcmc(MALA(scoped), 0, 4), y=y, block_size=4)
    tree = read_run(tmp_path / "run", model=scoped, model_kwargs={"y": y})
    assert set(tree.posterior.data_vars) == {"left.x", "right.x"}
    assert tree.log_likelihood["y"].shape == (2, 4, 2)
    assert set(read_run(tmp_path / "run", sites=["left/x"]).posterior.data_vars) == {"left.x"}


def test_zarr_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"numpyro-inverse\[runs\]"):
        write(tmp_path / "run")
    with pytest.raises(ImportError, match=r"numpyro-inverse\[runs\]"):
        read_run(tmp_path / "run")


SCRIPT = """
import sys, time
from tests.infer.export.test_run_to_disk import an_mcmc, write
from numpyro_inverse.infer.export._run_store import RunStore

append, (store, num_warmup, num_samples, pause) = RunStore.append, sys.argv[1:]
def slow(self, number, *rest):
    print(number, flush=True)
    append(self, number, *rest)
    time.sleep(float(pause))
RunStore.append = slow
print("ready", flush=True)
write(store, an_mcmc(num_warmup=int(num_warmup), num_samples=int(num_samples)))
"""


def _start(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _killed(process):
    """Whether it was still running."""
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return running


def _complete(store):
    try:
        return read_run(store, sites=["scale"]).attrs["complete"]
    except ValueError:
        return False


def test_a_kill(tmp_path, whole):
    process = _start(tmp_path / "killed", 40, 60, 0.3)
    assert [process.stdout.readline() for _ in range(5)] == ["ready\n", "0\n", "1\n", "2\n", "3\n"]
    assert _killed(process)  # while it writes block 3, or soon after
    write(tmp_path / "killed")
    assert_same_bits(raw(whole), raw(tmp_path / "killed"))


@pytest.mark.statistical
def test_twenty_kills(tmp_path):
    long, killed = {"num_warmup": 200, "num_samples": 2000}, tmp_path / "killed"
    write(tmp_path / "whole", an_mcmc(**long))
    rng, kills = np.random.default_rng(0), 0
    while kills < 20:
        process = _start(killed, 200, 2000, 0.02)
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + rng.uniform(0.0, 6.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        kills += _killed(process)
        if kills < 20 and (killed / "marker").exists() and _complete(killed):
            assert_same_bits(raw(tmp_path / "whole"), raw(killed))
            shutil.rmtree(killed)  # a further kill needs a further run
    write(killed, an_mcmc(**long))
    assert_same_bits(raw(tmp_path / "whole"), raw(killed))
