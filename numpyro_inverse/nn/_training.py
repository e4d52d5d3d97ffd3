"""One training loop: epochs over data that need not fit in memory, early stopping, checkpoints, a guard against NaN."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse.nn._networks import check_counts
from numpyro_inverse.nn._persistence import load, load_metadata, save

Loss = Callable[[Any, Array, PRNGKeyArray], Float[Array, ""]]
Step = Callable[[Any, Array, PRNGKeyArray], tuple[Any, Float[Array, ""]]]
Score = Callable[[Any, Array, PRNGKeyArray], Float[Array, ""]]
Fault = Callable[[np.ndarray], str | None]

BLOCK = 16384  # rows read at a time from data that are not in memory
LOOK = 25  # steps between two looks at the loss


class Fit(NamedTuple):
    """What training gives.

    Attributes:
        module: with the parameters of the epoch whose held-out loss was smallest.
        training_loss: mean over each epoch.
        held_out_loss: after each epoch.
        best_epoch: counted from 0.
        stopped: why training ended.
    """

    module: Any
    training_loss: list[float]
    held_out_loss: list[float]
    best_epoch: int
    stopped: str


class TrainingSettings(NamedTuple):
    """How to train; the same for every kind of model.

    Attributes:
        batch_size: rows per step.
        max_epochs: passes over the data at most; the learning rate falls to zero along a cosine within them.
        learning_rate: of Adam, after a rise over the first two hundredths of the steps.
        gradient_norm: gradients are clipped to it.
        patience: epochs without a smaller held-out loss after which training stops.
        held_out: fraction of the rows (the last ones) that are not trained on but judge.
        checkpoint: a file; training that was interrupted continues from it to the same result.
        progress_bar: show one, with loss and rows per second.
    """

    batch_size: int = 128
    max_epochs: int = 50
    learning_rate: float = 1e-3
    gradient_norm: float = 1.0
    patience: int = 10
    held_out: float = 0.1
    checkpoint: str | Path | None = None
    progress_bar: bool = True


def optimizer_of(settings: TrainingSettings, rows: int, every: int = 1, **adam: float) -> optax.GradientTransformation:
    """Adam with clipped gradients and a cosine learning rate, for an update ``every`` so many batches of those rows."""
    steps = settings.max_epochs * max(rows // settings.batch_size, 1) // every
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, max(steps // 50, 1), max(steps, 2))
    return optax.chain(optax.clip_by_global_norm(settings.gradient_norm), optax.adam(rate, **adam))


def training_rows(data: Any, settings: TrainingSettings, name: str) -> int:
    """How many of the rows are trained on.

    Raises:
        TypeError: ``data`` is no array, or not of real numbers; a setting that must be an integer and is none.
        ValueError: a setting that makes no sense, or too few rows.
    """
    if not hasattr(data, "shape") or not hasattr(data, "dtype") or len(data.shape) < 1:
        raise TypeError(f"{name}: `data` must be an array, one example per row; got {type(data).__name__}.")
    if not jnp.issubdtype(data.dtype, np.number) or jnp.issubdtype(data.dtype, np.complexfloating):
        raise TypeError(f"{name}: `data` must be real numbers; got an array of {data.dtype}.")
    check_counts(name, batch_size=settings.batch_size, max_epochs=settings.max_epochs)
    if not 0 < settings.held_out < 1:
        raise ValueError(f"{name}: `held_out` must be a fraction between 0 and 1; got {settings.held_out}.")
    for positive in ("learning_rate", "gradient_norm", "patience"):
        if not getattr(settings, positive) > 0:
            raise ValueError(f"{name}: `{positive}` must be positive; got {getattr(settings, positive)}.")
    rows = len(data) - max(round(settings.held_out * len(data)), 1)
    if rows < settings.batch_size:
        raise ValueError(
            f"{name}: {rows} rows to train on are fewer than `batch_size` = {settings.batch_size}; `data` has "
            f"{len(data)} rows, of which {settings.held_out:.0%} are held out."
        )
    return rows


def fit_module(
    module: Any,
    loss: Loss,
    data: Any,
    key: PRNGKeyArray,
    settings: TrainingSettings,
    name: str,
    fault: Fault | None = None,
) -> Fit:
    """Minimises a loss over the floating-point arrays of an Equinox module."""
    optimizer = optimizer_of(settings, training_rows(data, settings, name))

    def step(state, batch, key):
        module, memory = state
        value, gradient = eqx.filter_value_and_grad(loss)(module, batch, key)
        change, memory = optimizer.update(gradient, memory)
        return (eqx.apply_updates(module, change), memory), value

    state = (module, optimizer.init(eqx.filter(module, eqx.is_inexact_array)))
    return run(step, lambda state, batch, key: loss(state[0], batch, key), state, data, key, settings, name, fault)


def run(
    step: Step,
    score: Score,
    state: Any,
    data: Any,
    key: PRNGKeyArray,
    settings: TrainingSettings,
    name: str,
    fault: Fault | None = None,
) -> Fit:
    r"""The loop: epochs of steps, each followed by the score of the held-out rows.

    Every random number follows from ``key`` and the epoch, so that a run continued from a checkpoint takes the same
    path. A step whose loss or new state is not finite is not taken, and ends the training.

    Args:
        step: state, batch and key to the new state and the loss.
        score: state, batch and key to the mean loss of held-out rows, smaller is better.
        state: a pair of the module and whatever else the step needs (the optimiser's memory).
        data: rows; an array, or anything with ``shape`` and slices (a memory map, HDF5, zarr).
        key: of shuffling and of the losses.
        settings: see :class:`TrainingSettings`.
        name: of the caller, for messages.
        fault: what is wrong with a batch of rows, or None; asked where a loss is not finite.

    Raises:
        FileNotFoundError: the checkpoint's folder does not exist.
        TypeError, ValueError: as :func:`training_rows`; data that are not finite or at fault; a checkpoint that is
            damaged or of another training.
    """
    from tqdm.auto import tqdm

    rows = training_rows(data, settings, name)
    fingerprint = {
        "data": [list(data.shape), hashlib.sha256(np.ascontiguousarray(data[: min(256, rows)]).tobytes()).hexdigest()],
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "settings": [v for k, v in settings._asdict().items() if k not in ("checkpoint", "progress_bar")],
        "name": name,
    }
    # What is not an array (activation functions) is put back after each compiled call.
    arrays, rest = eqx.partition(state, eqx.is_array)

    @jax.jit
    def guarded(arrays, batch, key):
        new, value = step(eqx.combine(arrays, rest), batch, key)
        new = eqx.filter(new, eqx.is_array)
        good = jnp.isfinite(value) & _finite(new)
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, arrays), value, good

    @jax.jit
    def held_out(arrays, batch, key):
        return score(eqx.combine(arrays, rest), batch, key)

    best, best_epoch, training, judged, first = arrays, 0, [], [], 0
    stopped = f"all {settings.max_epochs} epochs done"
    path = None if settings.checkpoint is None else Path(settings.checkpoint)
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {path.parent} for the `checkpoint`.")
    if path is not None and path.exists():
        about = load_metadata(path)
        if about.get("fingerprint") != fingerprint:
            raise ValueError(
                f"{name}: the checkpoint {path.name} is of another training (data, key or settings differ). Delete it "
                "or name another."
            )
        try:
            arrays, best = load(path, (arrays, best))
        except ValueError as error:
            raise ValueError(
                f"{name}: the checkpoint {path.name} is damaged or of another module. Delete it or name another. "
                f"({error})"
            ) from error
        best_epoch, training, judged = about["best_epoch"], about["training"], about["judged"]
        first = len(judged)

    per_epoch = rows // settings.batch_size
    bar = tqdm(
        total=settings.max_epochs * per_epoch,
        initial=first * per_epoch,
        desc=name,
        unit="step",
        disable=not settings.progress_bar,
    )
    with bar:
        for epoch in range(first, settings.max_epochs):
            if epoch - best_epoch > settings.patience:
                stopped = f"no smaller held-out loss for {settings.patience} epochs"
                break
            shuffle, chain = jax.random.split(jax.random.fold_in(key, epoch))
            values: list[Array] = []
            started, good = monotonic(), jnp.asarray(True)
            for i, batch in enumerate(_batches(data, rows, settings.batch_size, shuffle, name)):
                arrays, value, fine = guarded(arrays, batch, jax.random.fold_in(chain, i))
                good, values = good & fine, [*values, value]
                if i % LOOK == LOOK - 1 or i == per_epoch - 1:
                    bar.update(i + 1 + epoch * per_epoch - bar.n)
                    speed = (i + 1) * settings.batch_size / (monotonic() - started)
                    held = f"{judged[-1]:.4g}" if judged else "-"
                    bar.set_postfix_str(f"epoch {epoch}, loss {float(value):.4g}, held out {held}, {speed:.3g} rows/s")
                    if not good:
                        break
            if not good:
                _find_fault(data, settings.batch_size, fault, name)
                stopped = f"the loss or its gradient was not finite in epoch {epoch}"
                warnings.warn(f"{name}: {stopped}; the parameters before it are kept.", stacklevel=3)
                break
            # The same numbers in every epoch: epochs are compared by their parameters alone.
            scores = [
                (
                    float(held_out(arrays, batch, jax.random.fold_in(jax.random.fold_in(key, settings.max_epochs), i))),
                    len(batch),
                )
                for i, batch in enumerate(_in_order(data, rows, len(data), settings.batch_size, name))
            ]
            training.append(float(np.mean([float(v) for v in values])))
            judged.append(sum(v * n for v, n in scores) / sum(n for _, n in scores))
            if not np.isfinite(judged[-1]):
                _find_fault(data, settings.batch_size, fault, name)
            if judged[-1] <= min((v for v in judged if not np.isnan(v)), default=-np.inf):
                best, best_epoch = arrays, epoch
            if path is not None:
                state = {"best_epoch": best_epoch, "training": training, "judged": judged}
                save(path, (arrays, best), fingerprint=fingerprint, **state)
    return Fit(eqx.combine(best, rest)[0], training, judged, best_epoch, stopped)


def _finite(tree: Any) -> Array:
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.stack(leaves))


def _batches(data: Any, rows: int, size: int, key: PRNGKeyArray, name: str):
    """Shuffled batches of one size: all rows if they are in memory, else blocks of neighbours in a random order."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    block = rows if type(data) is np.ndarray or eqx.is_array(data) else BLOCK
    left = np.empty((0, *data.shape[1:]), data.dtype)
    for start in rng.permutation(np.arange(0, rows, block)):
        read = np.asarray(data[int(start) : int(min(start + block, rows))])
        left = np.concatenate([left, read]) if len(left) else read
        left = left[rng.permutation(len(left))]
        while len(left) >= size:
            yield _checked(left[:size], name)
            left = left[size:]


def _in_order(data: Any, start: int, stop: int, size: int, name: str):
    for i in range(start, stop, size):
        yield _checked(np.asarray(data[i : min(i + size, stop)]), name)


def _find_fault(data: Any, size: int, fault: Fault | None, name: str) -> None:
    """Raise if something is wrong with one of the rows."""
    for batch in _in_order(data, 0, len(data), size, name):
        found = None if fault is None else fault(batch)
        if found is not None:
            raise ValueError(f"{name}: {found}")


def _checked(batch: np.ndarray, name: str) -> np.ndarray:
    if np.issubdtype(batch.dtype, np.floating) and not np.all(np.isfinite(batch)):
        raise ValueError(f"{name}: `data` holds numbers that are not finite (NaN or infinite). Remove those rows.")
    return batch
