"""One training loop: epochs over rows that need not fit in memory, early stopping, checkpoints, a guard against NaN."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import (
    check_callable,
    check_flag,
    check_instance,
    check_key,
    check_positive_number,
    check_real,
    describe,
)
from numpyro_inverse.nn._identity import digest
from numpyro_inverse.nn._networks import check_counts
from numpyro_inverse.nn._persistence import load, load_metadata, save
from numpyro_inverse.nn._rows import block_size, count_rows, digest_rows, in_order, shuffled

Step = Callable[[Any, Any, PRNGKeyArray], tuple[Any, Float[Array, ""]]]
Score = Callable[[Any, Any, PRNGKeyArray], Float[Array, ""]]
Fault = Callable[[Any], str | None]

LOOK = 25  # steps between two looks at the loss
VERSIONS = ("jax", "optax", "equinox", "numpy")


class Fit(NamedTuple):
    """What training gives.

    Attributes:
        module: with the parameters of the epoch whose held-out loss was smallest, or those of the start if no epoch's
            was smaller than theirs.
        training_loss: mean over each epoch.
        held_out_loss: after each epoch.
        best_epoch: counted from 0; -1 is the start.
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
        batch_size: rows per step; None takes all of them in every step.
        max_epochs: passes over the data at most; the default optimizer's learning rate falls to zero along a cosine
            within them.
        learning_rate: of Adam, the default optimizer, after a rise over the first two hundredths of the steps.
        gradient_norm: its gradients are clipped to it.
        patience: epochs without a smaller held-out loss after which training stops.
        held_out: fraction of the rows (the last ones) that are not trained on but judge. With 0 all are trained on,
            and judge.
        optimizer: an Optax transformation instead of Adam. It is given the loss as a function, too, for line searches:
            ``optax.lbfgs()`` wants ``batch_size=None`` and a loss without randomness.
        checkpoint: a file; training that was interrupted continues from it to the same result.
        progress_bar: show one, with loss and rows per second.
    """

    batch_size: int | None = 128
    max_epochs: int = 50
    learning_rate: float = 1e-3
    gradient_norm: float = 1.0
    patience: int = 10
    held_out: float = 0.1
    optimizer: optax.GradientTransformation | None = None
    checkpoint: str | Path | None = None
    progress_bar: bool = True


def settings_from(name: str, given: dict[str, Any]) -> TrainingSettings:
    """Settings from keyword arguments, checked.

    Raises:
        TypeError: there is no such setting; one of the wrong type.
        ValueError: one that makes no sense.
    """
    for setting in given:
        if setting not in TrainingSettings._fields:
            raise TypeError(
                f"{name}: `{setting}` is neither an argument nor one of the training settings, which are "
                f"{', '.join(TrainingSettings._fields)}."
            )
    return checked_settings(name, TrainingSettings(**given))


def checked_settings(name: str, settings: TrainingSettings) -> TrainingSettings:
    """Settings that make sense, whatever the data.

    Raises:
        TypeError: one of the wrong type.
        ValueError: one that makes no sense.
    """
    check_instance(name, "settings", settings, TrainingSettings, "TrainingSettings")
    check_counts(name, max_epochs=settings.max_epochs)
    if settings.batch_size is not None:
        check_counts(name, batch_size=settings.batch_size)
    if settings.optimizer is not None and not isinstance(settings.optimizer, optax.GradientTransformation):
        raise TypeError(
            f"{name}: `optimizer` must be an Optax transformation, such as `optax.adam(1e-3)`; got "
            f"{describe(settings.optimizer)}."
        )
    for number in ("learning_rate", "gradient_norm", "patience", "held_out"):
        value = getattr(settings, number)
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name}: `{number}` must be a number; got {describe(value)}.")
        if number != "held_out" and not value > 0:
            raise ValueError(f"{name}: `{number}` must be positive; got {value}.")
    check_positive_number(name, "learning_rate", settings.learning_rate)  # the others may be infinite
    if not 0 <= settings.held_out < 1:
        raise ValueError(f"{name}: `held_out` must be a fraction, 0 or more and below 1; got {settings.held_out}.")
    if not isinstance(settings.checkpoint, str | Path | None):
        raise TypeError(f"{name}: `checkpoint` must be the path of a file; got {type(settings.checkpoint).__name__}.")
    check_flag(name, "progress_bar", settings.progress_bar)
    return settings


def training_rows(data: Any, settings: TrainingSettings, name: str) -> int:
    """How many of the rows are trained on.

    Raises:
        TypeError: ``data`` is no array or pytree of arrays, or not of real numbers; a setting of the wrong type.
        ValueError: arrays of different lengths; a setting that makes no sense; too few rows.
    """
    total = count_rows(data, name)
    checked_settings(name, settings)
    rows = total - (max(round(settings.held_out * total), 1) if settings.held_out else 0)
    if rows < (settings.batch_size or 1):
        raise ValueError(
            f"{name}: {rows} rows to train on are fewer than `batch_size` = {settings.batch_size or 1}; `data` has "
            f"{total} rows, of which {settings.held_out:.0%} are held out."
        )
    return rows


def train(
    step: Step,
    score: Score,
    state: Any,
    data: Any,
    *,
    key: PRNGKeyArray,
    settings: TrainingSettings | None = None,
    name: str = "train",
    fault: Fault | None = None,
) -> Fit:
    r"""Runs epochs of steps, each epoch followed by the score of the held-out rows.

    Every random number follows from ``key`` and the epoch, so that a run continued from a checkpoint takes the same
    path. A step whose loss or new state is not finite is not taken, and ends the training. A checkpoint belongs to one
    training: all rows, the key, the settings, the initial state, and the code of ``step`` and ``score`` with all that
    they refer to are compared by content.

    :func:`fit_module` is this loop with the step of an optimizer on one loss.

    Args:
        step: state, batch and key to the new state and the loss.
        score: state, batch and key to the mean loss of held-out rows, smaller is better.
        state: a pair of the module and whatever else the step needs (the optimizer's memory).
        data: rows; an array, or a pytree of arrays of one length (pairs, masks), each in memory or anything with
            ``shape``, ``dtype`` and slices (a memory map, HDF5, zarr). A batch is the same pytree of fewer rows.
        key: of shuffling and of the losses.
        settings: see :class:`TrainingSettings`.
        name: of the caller, for messages.
        fault: what is wrong with a batch of rows, or None; asked where a loss is not finite.

    Returns:
        The module of the epoch with the best score, and the losses.

    Raises:
        FileNotFoundError: the checkpoint's folder does not exist.
        TypeError: ``data`` is no array or pytree of arrays, or not of real numbers; a setting, key or function of the
            wrong type, or a function that returns something else; ``state`` is no pair.
        ValueError: arrays of different lengths; too few rows; data that are not finite or at fault; a setting that
            makes no sense; a checkpoint that is damaged or of another training.
    """
    from tqdm.auto import tqdm

    check_instance("train", "name", name, str, "a string")
    for argument, function in (("step", step), ("score", score)):
        check_callable(name, argument, function, "a function of state, batch and key")
    if fault is not None:
        check_callable(name, "fault", fault, "a function of a batch")
    if not isinstance(state, tuple) or len(state) != 2:
        raise TypeError(f"{name}: `state` must be a pair, of the module and the rest; got {describe(state)}.")
    if not any(map(eqx.is_inexact_array, jax.tree.leaves(state[0]))):
        raise TypeError(
            f"{name}: the module in `state` must have arrays of floating-point numbers; got {describe(state[0])}."
        )
    settings = TrainingSettings() if settings is None else settings
    rows = training_rows(data, settings, name)
    total, size = count_rows(data, name), settings.batch_size or rows
    check_key(name, "key", key)
    # What is not an array (activation functions) is put back after each compiled call.
    arrays, rest = eqx.partition(state, eqx.is_array)

    @jax.jit
    def guarded(arrays, batch, key):
        found = step(eqx.combine(arrays, rest), batch, key)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"{name}: `step` must return a pair, the new state and the loss; got {describe(found)}.")
        new, value = eqx.filter(found[0], eqx.is_array), check_loss(name, "step", found[1])
        if str(jax.tree.structure(new)) != str(jax.tree.structure(arrays)):
            raise ValueError(f"{name}: `step` must return a state of the same structure as the one that it is given.")
        good = jnp.isfinite(value) & _stays_finite(arrays, new)
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, arrays), value, good

    @jax.jit
    def held_out(arrays, batch, key):
        return check_loss(name, "score", score(eqx.combine(arrays, rest), batch, key))

    best, best_epoch, training, judged, first = arrays, -1, [], [], 0
    judges = (rows, total) if settings.held_out else (0, total)

    def judge(arrays):
        # The same numbers in every epoch: epochs are compared by their parameters alone.
        again = jax.random.fold_in(key, settings.max_epochs)
        scores = [
            (float(held_out(arrays, batch, jax.random.fold_in(again, i))), count)
            for i, (batch, count) in enumerate(in_order(data, *judges, size, name))
        ]
        return sum(v * n for v, n in scores) / sum(n for _, n in scores)

    at_start = judge(arrays)
    stopped = f"all {settings.max_epochs} epochs done"
    path = None if settings.checkpoint is None else Path(settings.checkpoint)
    if path is not None:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{name}: there is no folder {path.parent} for the `checkpoint`.")
        identity = {
            "training": name,
            "data": digest(digest_rows(data), block_size(data, rows)),
            "key": digest(key),
            "settings": digest(settings._replace(checkpoint=None, progress_bar=True)),
            "initial state": digest(state),
            "loss": digest(step, score),
        }
        versions = {package: version(package) for package in VERSIONS}
        if path.exists():
            about = _checked_metadata(path, identity, versions, name)
            try:
                arrays, best = load(path, (arrays, best))
            except ValueError as error:
                raise ValueError(
                    f"{name}: the checkpoint {path.name} is damaged. Delete it or name another. ({error})"
                ) from error
            best_epoch, training, judged = about["best_epoch"], about["training"], about["judged"]
            first = len(judged)

    per_epoch = rows // size
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
            for i, batch in enumerate(shuffled(data, rows, size, shuffle, name)):
                arrays, value, fine = guarded(arrays, batch, jax.random.fold_in(chain, i))
                good, values = good & fine, [*values, value]
                if i % LOOK == LOOK - 1 or i == per_epoch - 1:
                    bar.update(i + 1 + epoch * per_epoch - bar.n)
                    speed = (i + 1) * size / (monotonic() - started)
                    held = f"{judged[-1]:.4g}" if judged else "-"
                    bar.set_postfix_str(f"epoch {epoch}, loss {float(value):.4g}, held out {held}, {speed:.3g} rows/s")
                    if not good:
                        break
            if not good:
                _find_fault(data, total, size, fault, name)
                stopped = f"the loss or its gradient was not finite in epoch {epoch}"
                warnings.warn(f"{name}: {stopped}; the parameters before it are kept.", stacklevel=3)
                break
            training.append(float(np.mean([float(v) for v in values])))
            judged.append(judge(arrays))
            if not np.isfinite(judged[-1]):
                _find_fault(data, total, size, fault, name)
            if judged[-1] <= min((v for v in (at_start, *judged) if not np.isnan(v)), default=-np.inf):
                best, best_epoch = arrays, epoch
            if path is not None:
                progress = {"best_epoch": best_epoch, "training": training, "judged": judged}
                save(path, (arrays, best), identity=identity, versions=versions, **progress)
    return Fit(eqx.combine(best, rest)[0], training, judged, best_epoch, stopped)


def check_loss(name: str, argument: str, value: Any) -> Any:
    """What a loss function returned: one real number."""
    if np.shape(check_real(name, argument, value)) != ():
        raise ValueError(f"{name}: `{argument}` must return one number; got an array of shape {np.shape(value)}.")
    return value


def _checked_metadata(path: Path, identity: dict, versions: dict, name: str) -> dict[str, Any]:
    """What a checkpoint says of itself, if it is of this training."""
    try:
        about = load_metadata(path)
    except ValueError as error:
        raise ValueError(
            f"{name}: the checkpoint {path.name} is damaged. Delete it or name another. ({error})"
        ) from error
    found = about.get("identity") or {}
    if found != identity:
        differ = [part for part in identity if found.get(part) != identity[part]]
        raise ValueError(
            f"{name}: the checkpoint {path.name} is of another training ({', '.join(differ)} differ). Delete it or "
            "name another."
        )
    others = [f"{p} {v}" for p, v in about["versions"].items() if versions.get(p) != v]
    if others:
        warnings.warn(
            f"{name}: the checkpoint {path.name} was written with {', '.join(others)}; the last digits may differ from "
            "those of an uninterrupted training.",
            stacklevel=4,
        )
    return about


def _stays_finite(before: Any, after: Any) -> Array:
    """Whether what was finite still is: an optimizer's memory may start as infinity."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    found = [jnp.all(jnp.isfinite(b) | ~jnp.isfinite(a)) for a, b in pairs if eqx.is_inexact_array(b)]
    return jnp.all(jnp.stack(found))


def _find_fault(data: Any, total: int, size: int, fault: Fault | None, name: str) -> None:
    """Raise if something is wrong with one of the rows."""
    for batch, _ in in_order(data, 0, total, size, name):
        found = None if fault is None else fault(batch)
        if found is not None:
            raise ValueError(f"{name}: {found}")
