"""The training loop: it resumes to the same result, stops when it should, and reads data that are not in memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.nn import CouplingFlow, MultiscaleFlow, TrainingSettings, dequantize, fit_flow, fit_module, save
from numpyro_inverse.nn import _rows as rows_module
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
    with pytest.raises(
        ValueError, match=r"fit: the checkpoint run is of another training \(initial state, loss differ\)"
    ):
        fit_module(
            (Line(), Line()),
            lambda m, x, k: squares(m[0], x, k),
            ROWS,
            key=jax.random.key(1),
            settings=settings,
            name="fit",
        )


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
