"""The training loop: it resumes to the same result, stops when it should, and reads data that are not in memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.nn import CouplingFlow, Settings, dequantize, fit_flow
from numpyro_inverse.nn.training import fit_module

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
    settings = Settings(**(OPTIONS | {"learning_rate": 0.05} | options))
    return fit_module(Line(), squares, rows, jax.random.key(1), settings, "fit")


def test_it_learns():
    found = fit(max_epochs=60)
    np.testing.assert_allclose(found.module.mean, ROWS.mean(axis=0), atol=0.02)
    assert found.held_out_loss[found.best_epoch] == min(found.held_out_loss)


def test_an_interrupted_run_continues_to_the_same_result(tmp_path):
    whole = fit(Interrupted(ROWS, 10**6))
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(ROWS, 7), checkpoint=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    continued = fit(Interrupted(ROWS, 10**6), checkpoint=tmp_path / "run")
    assert continued.training_loss == whole.training_loss
    assert continued.held_out_loss == whole.held_out_loss
    np.testing.assert_array_equal(continued.module.mean, whole.module.mean)
    again = fit(Interrupted(ROWS, 10**6), checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.module.mean, whole.module.mean)
    with pytest.raises(ValueError, match="another training"):
        fit(learning_rate=0.1, checkpoint=tmp_path / "run")


def test_data_on_disk_train_as_well(tmp_path):
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=ROWS.shape)
    rows[:] = ROWS
    np.testing.assert_allclose(fit(rows, max_epochs=60).module.mean, ROWS.mean(axis=0), atol=0.02)


def test_all_rows_of_all_blocks_are_seen(monkeypatch):
    from numpyro_inverse.nn import training

    monkeypatch.setattr(training, "BLOCK", 50)
    rows = np.arange(360.0)[:, None]
    for data in (rows, Interrupted(rows, 100)):
        batches = list(training._batches(data, 360, 60, jax.random.key(0), "fit"))
        seen = np.concatenate(batches).ravel()
        np.testing.assert_array_equal(np.sort(seen), np.arange(360))
        assert np.mean(np.abs(np.diff(seen)) < 2) < 0.1
        assert {len(b) for b in batches} == {60}


def test_it_stops_when_held_out_rows_no_longer_gain():
    rows = np.concatenate([ROWS[:200] + 3, ROWS[:60]])  # the last rows have another mean
    found = fit(rows, max_epochs=50, patience=3, held_out=60 / 260)
    assert found.stopped == "no smaller held-out loss for 3 epochs"
    assert len(found.held_out_loss) == found.best_epoch + 4 < 50
    assert np.all(np.abs(found.module.mean - rows[200:].mean(axis=0)) < 0.3)


def test_a_loss_that_is_not_finite_ends_it_with_the_last_good_parameters():
    def loss(line, batch, key):
        return squares(line, batch, key) + jnp.where(line.mean[0] > 0.3, jnp.nan, 0.0)

    settings = Settings(**(OPTIONS | {"learning_rate": 0.05, "max_epochs": 20}))
    with pytest.warns(UserWarning, match="not finite in epoch"):
        found = fit_module(Line(), loss, ROWS, jax.random.key(1), settings, "fit")
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


def test_no_array():
    with pytest.raises(TypeError, match="`data` must be an array"):
        fit([1.0, 2.0])


def test_dequantisation_keeps_the_grey_value(key):
    images = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = dequantize(images, key)
    assert values.min() >= 0
    assert values.max() < 1 + 1e-6
    np.testing.assert_array_equal(np.minimum(np.floor(np.asarray(values) * 256), 255), images)
    assert abs(np.mean(np.asarray(values) * 256 - images) - 0.5) < 5 * (1 / 12 / 256) ** 0.5


def test_data_outside_of_the_range_of_the_flow(key):
    from numpyro_inverse.nn import MultiscaleFlow

    flow = MultiscaleFlow((4, 4), np.linspace(0, 1, 100), width=4, key=key)
    with pytest.raises(ValueError, match="outside the flow's range"):
        fit_flow(flow, np.full((300, 4, 4), 1.5), key=key, **OPTIONS)
    with pytest.raises(ValueError, match="outside the flow's range"):
        fit_flow(CouplingFlow(2, key=key), np.full((300, 2), np.nan), key=key, **OPTIONS)
