"""The training loop: it resumes to the same result, stops when it should, and reads data that are not in memory."""

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zarr

from numpyro_inverse.nn import (
    CouplingFlow,
    MultiscaleFlow,
    TrainingSettings,
    dequantize,
    fit_flow,
    fit_module,
    load_metadata,
    save,
)
from numpyro_inverse.nn import _rows as rows_module
from numpyro_inverse.nn import _training as training_module
from numpyro_inverse.nn._fit_module import optimizer_of

rng = np.random.default_rng(0)
ROWS = np.tile(rng.normal(size=(40, 2)) + 1.0, (10, 1))  # the rows held out are like those trained on
OPTIONS = {"batch_size": 64, "max_epochs": 4, "progress_bar": False}


class Line(eqx.Module):
    """A mean to be learned."""

    mean: jax.Array

    def __init__(self):
        self.mean = jnp.zeros(2)


def squares(line, batch, key):
    return jnp.mean((batch - line.mean) ** 2)


class Interrupted:
    """Rows that are read from elsewhere, until they are not."""

    def __init__(self, rows, reads):
        self.rows, self.left = rows, reads
        self.shape, self.dtype = rows.shape, rows.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.rows[at]


def fit(rows=ROWS, **options):
    settings = TrainingSettings(**(OPTIONS | {"learning_rate": 0.05} | options))
    return fit_module(Line(), squares, rows, key=jax.random.key(1), settings=settings, name="fit")


def test_it_learns():
    found = fit(max_epochs=60)
    np.testing.assert_allclose(found.module.mean, ROWS.mean(axis=0), atol=0.02)
    assert found.held_out_loss[found.best_epoch] == min(found.held_out_loss)


def test_an_interrupted_run_continues_to_the_same_result(tmp_path):
    whole = fit(Interrupted(ROWS, 10**6))
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(ROWS, 8), checkpoint=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    continued = fit(Interrupted(ROWS, 10**6), checkpoint=tmp_path / "run")
    assert continued.training_loss == whole.training_loss
    assert continued.held_out_loss == whole.held_out_loss
    np.testing.assert_array_equal(continued.module.mean, whole.module.mean)
    again = fit(Interrupted(ROWS, 10**6), checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.module.mean, whole.module.mean)
    with pytest.raises(ValueError, match="another training"):
        fit(learning_rate=0.1, checkpoint=tmp_path / "run")
    other = TrainingSettings(**OPTIONS, learning_rate=0.05, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="another training"):
        fit_module(Line(), squares, ROWS, key=jax.random.key(2), settings=other, name="fit")


def test_checkpoints_that_are_none(tmp_path):
    save(tmp_path / "weights", Line())
    with pytest.raises(ValueError, match="fit: the checkpoint weights is of another training"):
        fit(checkpoint=tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="fit: there is no folder"):
        fit(checkpoint=tmp_path / "missing" / "run")
    fit(checkpoint=tmp_path / "run", max_epochs=1)
    settings = TrainingSettings(**(OPTIONS | {"max_epochs": 1, "learning_rate": 0.05, "checkpoint": tmp_path / "run"}))
    two, on_first = (Line(), Line()), lambda m, x, k: squares(m[0], x, k)
    with pytest.raises(ValueError, match=r"run is of another training \(initial state, loss differ\)"):
        fit_module(two, on_first, ROWS, key=jax.random.key(1), settings=settings, name="fit")
    content = (tmp_path / "run").read_bytes()
    for damaged in (content[:50], content[:-2] + b"xx", content.replace(b"best_epoch", b"bext_epoch")):
        (tmp_path / "run").write_bytes(damaged)
        with pytest.raises(ValueError, match="fit: the checkpoint run is damaged"):
            fit(checkpoint=tmp_path / "run", max_epochs=1)


def test_a_checkpoint_knows_what_it_is_of(tmp_path):
    """By content: rows after the first few hundred, weights, and numbers that the loss and the optimizer refer to."""
    path, scale = tmp_path / "run", 1.0
    rows = np.tile(ROWS, (2, 1))

    def scaled(line, batch, key):
        return squares(line, scale * batch, key)

    def again(rows=rows, loss=scaled, module=None, **options):
        settings = TrainingSettings(**(OPTIONS | {"max_epochs": 1, "checkpoint": path} | options))
        module = Line() if module is None else module
        return fit_module(module, loss, rows, key=jax.random.key(1), settings=settings, name="fit")

    first = again()
    np.testing.assert_array_equal(again(np.array(rows)).module.mean, first.module.mean)
    other = rows.copy()
    other[-1, 0] += 1
    changed = eqx.tree_at(lambda m: m.mean, Line(), jnp.ones(2))
    for change, what in (
        ({"rows": other}, "data"),
        ({"rows": rows.astype(np.float32)}, "data"),
        ({"module": changed}, "initial state"),
        ({"optimizer": optax.sgd(0.1)}, "settings, initial state, loss"),
    ):
        with pytest.raises(ValueError, match=rf"of another training \({what} differ\)"):
            again(**change)
    scale = 2.0
    with pytest.raises(ValueError, match=r"of another training \(loss differ\)"):
        again()


def test_versions_are_in_a_checkpoint(tmp_path, monkeypatch):
    fit(checkpoint=tmp_path / "run", max_epochs=1)
    assert load_metadata(tmp_path / "run")["versions"]["jax"] == jax.__version__
    monkeypatch.setattr(training_module, "version", lambda package: "0")
    with pytest.warns(UserWarning, match=rf"was written with .*jax {jax.__version__}"):
        fit(checkpoint=tmp_path / "run", max_epochs=1)


def test_data_on_disk_train_as_well(tmp_path):
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=ROWS.shape)
    rows[:] = ROWS
    np.testing.assert_allclose(fit(rows, max_epochs=60).module.mean, ROWS.mean(axis=0), atol=0.02)


def test_all_rows_of_all_blocks_are_seen(monkeypatch):
    monkeypatch.setattr(rows_module, "BLOCK", 50)
    rows = np.arange(360.0)[:, None]
    for data in (rows, Interrupted(rows, 100)):
        batches = list(rows_module.shuffled(data, 360, 60, jax.random.key(0), "fit"))
        seen = np.concatenate(batches).ravel()
        np.testing.assert_array_equal(np.sort(seen), np.arange(360))
        assert np.mean(np.abs(np.diff(seen)) < 2) < 0.1
        assert {len(b) for b in batches} == {60}


class Regression(eqx.Module):
    """Linear regression with a weight per row."""

    weight: jax.Array

    def __init__(self, size=3):
        self.weight = jnp.zeros(size)


def weighted_squares(module, batch, key):
    """The batch is the pytree that was given."""
    x, (y, mask) = batch["x"], batch["rest"]
    return jnp.sum(mask * (x @ module.weight - y) ** 2) / len(y)


X = rng.normal(size=(300, 3))
Y = X @ [1.0, -2.0, 0.5] + rng.normal(size=300)
MASK = rng.random(300) < 0.7
LEAST_SQUARES = np.linalg.lstsq(X[MASK], Y[MASK], rcond=None)[0]


@pytest.mark.slow
def test_lbfgs_reaches_least_squares(tmp_path, x64):
    """All rows, with a mask, in memory and in a memory map, HDF5 and zarr; to 1e-7, half of double precision."""
    settings = TrainingSettings(
        batch_size=None, held_out=0, max_epochs=30, optimizer=optax.lbfgs(), patience=30, progress_bar=False
    )
    x = np.memmap(tmp_path / "x", X.dtype, "w+", shape=X.shape)
    x[:] = X
    mask = zarr.create_array(str(tmp_path / "mask"), shape=MASK.shape, dtype=bool)
    mask[:] = MASK
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["y"] = Y
        for data in ({"x": X, "rest": (Y, MASK)}, {"x": x, "rest": (file["y"], mask)}):
            found = fit_module(Regression(), weighted_squares, data, key=jax.random.key(0), settings=settings)
            np.testing.assert_allclose(found.module.weight, LEAST_SQUARES, atol=1e-7)
            residual = Y[MASK] - X[MASK] @ LEAST_SQUARES
            np.testing.assert_allclose(found.held_out_loss[-1], np.sum(residual**2) / 300, rtol=1e-12)


def test_rows_stay_together(monkeypatch):
    monkeypatch.setattr(rows_module, "BLOCK", 70)
    numbers = np.arange(300)
    for x in (numbers.astype(float)[:, None], Interrupted(numbers.astype(float)[:, None], 100)):
        data = {"x": x, "both": (-numbers, numbers % 2 == 0)}
        seen = list(rows_module.shuffled(data, 290, 20, jax.random.key(0), "fit"))
        assert len(seen) == 14
        for batch in seen:
            np.testing.assert_array_equal(batch["x"][:, 0], -batch["both"][0])
            np.testing.assert_array_equal(batch["both"][0] % 2 == 0, batch["both"][1])
        assert len({int(n) for batch in seen for n in batch["x"][:, 0]}) == 280


def test_rows_that_do_not_fit_together():
    for data, message in (
        ((X, Y[:-1]), r"same number of rows; \[0\] has 300, \[1\] has 299"),
        ({"x": X, "y": np.where(Y > 0, Y, np.nan)}, r"not finite .*at \['y'\]"),
    ):
        with pytest.raises(ValueError, match=f"fit: .*{message}"):
            fit_module(Regression(), lambda m, b, k: jnp.sum(m.weight), data, key=jax.random.key(0), name="fit")
    with pytest.raises(TypeError, match=r"must be real numbers; got an array of complex128 at \[1\]"):
        fit((X, Y.astype(complex)))
    with pytest.raises(TypeError, match=r"got float at \[0\]"):
        fit([1.0, 2.0])


def test_losses_are_means_over_their_rows():
    """With a learning rate of zero nearly: 6 batches of ones to train on, and held out 64 fives and 32 sevens."""
    rows = np.repeat([1.0, 5.0, 7.0], [384, 64, 32])[:, None] * np.ones(2)
    found = fit(rows, learning_rate=1e-12, held_out=0.2, max_epochs=1)
    np.testing.assert_allclose(found.training_loss, 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.held_out_loss, (64 * 25 + 32 * 49) / 96, rtol=1e-5)


def test_epochs_differ_in_the_noise_of_training_and_share_that_of_the_score():
    settings = TrainingSettings(**(OPTIONS | {"learning_rate": 1e-12}))

    def noise(line, batch, key):
        return jax.random.normal(key) + jnp.sum(0 * line.mean)

    found = fit_module(Line(), noise, ROWS, key=jax.random.key(1), settings=settings, name="fit")
    assert len(set(found.training_loss)) == 4
    assert len(set(found.held_out_loss)) == 1


def test_gradients_are_clipped_and_the_rate_falls_to_zero():
    """Adam's step at constant gradients is the rate, so a gradient above the norm must leave it as it is."""
    optimizer = optimizer_of(TrainingSettings(batch_size=10, max_epochs=10, gradient_norm=1.0), rows=200, every=2)
    memory, steps = optimizer.init(jnp.zeros(1)), []
    for i in range(101):
        change, memory = optimizer.update(jnp.array([1e6 if i == 50 else 1.0]), memory)
        steps.append(float(change[0]))
    # A warm-up over 2 steps, then half a cosine over 98; Adam's own rounding is 1e-4.
    rate = np.concatenate([[0.0, 0.5], 0.5 * (1 + np.cos(np.pi * np.arange(99) / 98))])
    np.testing.assert_allclose(steps, -1e-3 * rate, atol=1e-6)


def test_a_score_that_is_not_a_number_is_never_the_best():
    def loss(line, batch, key):
        value = squares(line, batch, key)
        return jnp.where((line.mean[0] < 0.2) & (len(batch) != 64), jnp.nan, value)

    settings = TrainingSettings(**(OPTIONS | {"learning_rate": 0.05, "max_epochs": 4}))
    found = fit_module(Line(), loss, ROWS, key=jax.random.key(1), settings=settings, name="fit")
    assert np.isnan(found.held_out_loss[0])
    assert found.held_out_loss[found.best_epoch] == np.nanmin(found.held_out_loss)


def test_it_stops_when_held_out_rows_no_longer_gain(tmp_path):
    rows = np.concatenate([ROWS[:200] + 3, ROWS[:60]])  # the last rows have another mean
    options = {"max_epochs": 50, "patience": 3, "held_out": 60 / 260, "checkpoint": tmp_path / "run"}
    found = fit(rows, **options)
    assert found.stopped == "no smaller held-out loss for 3 epochs"
    assert len(found.held_out_loss) == found.best_epoch + 4 < 50
    assert np.all(np.abs(found.module.mean - rows[200:].mean(axis=0)) < 0.3)
    again = fit(rows, **options)  # the best parameters are in the checkpoint as well
    np.testing.assert_array_equal(again.module.mean, found.module.mean)
    assert again.stopped == found.stopped


def test_a_start_that_no_epoch_improves_is_kept():
    """The mean of the held-out rows is the best constant; steps of 0.5 lead away from it."""
    best = eqx.tree_at(lambda line: line.mean, Line(), jnp.asarray(ROWS[-40:].mean(axis=0)))
    settings = TrainingSettings(**OPTIONS | {"max_epochs": 30, "patience": 3, "optimizer": optax.sgd(0.5)})
    noisy = ROWS + 5 * np.random.default_rng(1).normal(size=ROWS.shape)
    noisy[-40:] = ROWS[-40:]
    fit = fit_module(best, squares, noisy, key=jax.random.key(0), settings=settings)
    assert fit.best_epoch == -1
    np.testing.assert_array_equal(fit.module.mean, best.mean)
    assert len(fit.held_out_loss) == 3
    far = eqx.tree_at(lambda line: line.mean, best, best.mean + 30)
    assert fit_module(far, squares, noisy, key=jax.random.key(0), settings=settings).best_epoch >= 0


def test_a_loss_that_is_not_finite_ends_it_with_the_last_good_parameters():
    def loss(line, batch, key):
        return squares(line, batch, key) + jnp.where(line.mean[0] > 0.3, jnp.nan, 0.0)

    settings = TrainingSettings(**(OPTIONS | {"learning_rate": 0.05, "max_epochs": 20}))
    with pytest.warns(UserWarning, match="not finite in epoch"):
        found = fit_module(Line(), loss, ROWS, key=jax.random.key(1), settings=settings, name="fit")
    assert "not finite" in found.stopped
    assert np.all(np.isfinite(found.module.mean))
    assert 0 < found.module.mean[0] <= 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.where(np.arange(400)[:, None] == 17, np.nan, ROWS)}, "not finite"),
        ({"rows": ROWS[:40]}, "fewer than `batch_size`"),
        ({"held_out": 1.0}, "`held_out`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"learning_rate": -1.0}, "`learning_rate`"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        fit(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [1.0, 2.0]}, "`data` must be an array"),
        ({"rows": None}, "`data` must be an array"),
        ({"optimizer": "adam"}, "`optimizer` must be an Optax transformation"),
        ({"checkpoint": 3}, "`checkpoint` must be the path of a file; got int"),
        ({"learning_rate": "fast"}, "`learning_rate` must be a number"),
        ({"held_out": None}, "`held_out` must be a number"),
        ({"rows": ROWS.astype(str)}, "`data` must be real numbers; got an array of <U"),
        ({"rows": ROWS.astype(object)}, "`data` must be real numbers; got an array of object"),
        ({"rows": ROWS.astype(complex)}, "`data` must be real numbers; got an array of complex128"),
        ({"batch_size": 8.5}, "`batch_size` must be an integer; got 8.5"),
        ({"max_epochs": 1.5}, "`max_epochs` must be an integer; got 1.5"),
    ],
)
def test_bad_types(change, message):
    with pytest.raises(TypeError, match=message):
        fit(**change)


def test_dequantisation_keeps_the_grey_value(key):
    images = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = dequantize(images, key)
    assert values.min() >= 0
    assert values.max() < 1 + 1e-6
    np.testing.assert_array_equal(np.minimum(np.floor(np.asarray(values) * 256), 255), images)
    assert abs(np.mean(np.asarray(values) * 256 - images) - 0.5) < 5 * (1 / 12 / 256) ** 0.5


@pytest.mark.slow
def test_what_cannot_be_dequantized(key):
    for images in (np.ones(3), np.ones(3, bool)):
        with pytest.raises(TypeError, match="dequantize: `images` must be integers from 0 to 255; got an array of"):
            dequantize(images, key)
    for images in ([0, 300], [-1, 255]):
        with pytest.raises(ValueError, match="dequantize: `images` must be integers from 0 to 255; they range from"):
            dequantize(np.array(images), key)
    np.testing.assert_array_equal(jax.jit(dequantize)(jnp.array([-1, 7, 300]), key) > 0, [False, True, False])
    rows = np.full((400, 2), 100)
    rows[300] = 300  # after the rows that are looked at before training
    with pytest.raises(ValueError, match="dequantize: `images` must be integers from 0 to 255; they range from 100 to"):
        fit_flow(CouplingFlow(2, layers=1, bins=0, width=4, key=key), rows, key=key, prepare=dequantize, **OPTIONS)


@pytest.mark.slow
def test_data_outside_of_the_range_of_the_flow(key):
    """In the first rows before training; in later ones when their density is met."""
    flow = MultiscaleFlow((4, 4), np.linspace(0, 1, 100), width=4, key=key)
    with pytest.raises(ValueError, match="outside the flow's range"):
        fit_flow(flow, np.full((300, 4, 4), 1.5), key=key, **OPTIONS)
    with pytest.raises(ValueError, match="outside the flow's range"):
        fit_flow(CouplingFlow(2, layers=1, key=key), np.full((300, 2), np.nan), key=key, **OPTIONS)
    for at in (300, -1):
        rows = np.full((400, 4, 4), 0.5)
        rows[at, 0, 0] = 1.5
        with pytest.raises(ValueError, match=r"`data` has rows outside the flow's range.*ranges from 0.5 to 1.5"):
            fit_flow(flow, rows, key=key, **OPTIONS)


def test_bad_keys(key):
    flow = CouplingFlow(2, layers=1, key=key)
    for bad, error in ((0, TypeError), (None, TypeError), (jax.random.split(key), ValueError)):
        with pytest.raises(error, match="fit_flow: `key` must be"):
            fit_flow(flow, ROWS, key=bad)
    with pytest.raises(TypeError, match="fit: `key` must be a random key"):
        fit_module(Line(), squares, ROWS, key=7, name="fit")
    old = fit_module(Line(), squares, ROWS, key=jax.random.PRNGKey(1), settings=TrainingSettings(**OPTIONS))
    np.testing.assert_array_equal(old.module.mean, fit(learning_rate=1e-3).module.mean)


def test_bad_input_to_fit_flow(key):
    flow = CouplingFlow(2, layers=1, key=key)
    with pytest.raises(TypeError, match="fit_flow: `flow` must be a module"):
        fit_flow(squares, ROWS, key=key)
    with pytest.raises(TypeError, match="fit_flow: `data` must be an array"):
        fit_flow(flow, None, key=key)
    with pytest.raises(TypeError, match="fit_flow: `prepare` must be a function"):
        fit_flow(flow, ROWS, key=key, prepare=3)
    with pytest.raises(ValueError, match=r"rows of `data` have shape \(1,\); the flow is for \(2,\)"):
        fit_flow(flow, ROWS[:, :1], key=key)
