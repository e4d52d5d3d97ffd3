"""Many simulated data sets, each with its posterior, in one compiled program: what every study here runs on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int, Key
from tqdm.auto import tqdm

from numpyro_inverse._checks import check_callable, check_count, check_flag, check_key
from numpyro_inverse._devices import num_shards, over_devices, rows_over
from numpyro_inverse.calibration._arguments import check_values
from numpyro_inverse.calibration.ranks._posteriors import Call, Draws, Posterior, posterior_of
from numpyro_inverse.calibration.ranks._problem import Data, Problem, Quantity
from numpyro_inverse.calibration.ranks._rank import Score, rank_of
from numpyro_inverse.calibration.ranks._shelf import Shelf, content_of, study_identity

MEMORY = 2**29  # bytes of draws in flight
LARGEST_BATCH = 256
ATTEMPTS = 20  # to simulate finite data
EXAMPLE = 2**31 - 1  # folded into the key for the data set that is none of the study's


class Ranks(NamedTuple):
    """What one data set contributes, by test quantity."""

    rank: dict[str, Int[Array, "..."]]
    ess: dict[str, Float[Array, ""]]
    moves: dict[str, Bool[Array, ""]]
    value: dict[str, Float[Array, "..."]]
    finite: Bool[Array, ""]
    diverging: Bool[Array, ""]
    failures: dict[str, Int[Array, ""]]


def ranks_of(
    problem: Problem,
    inference: Any,
    call: Call,
    quantities: Mapping[str, Quantity],
    scores: Mapping[str, Score],
    *,
    needed: tuple[str, ...],
    num_datasets: int,
    rng_key: Key[Array, ""],
    batch_size: int | None,
    sharding: NamedSharding | None,
    store: str | os.PathLike | None,
    progress_bar: bool,
    title: str,
) -> tuple[Ranks, tuple[str, ...]]:
    """Ranks of the truth among the draws, for every quantity and data set, as numpy arrays, data sets first; and the
    names of the sites among which a failing one has its place.
    """
    check_key(title, "rng_key", rng_key)
    num_datasets = check_count(title, "num_datasets", num_datasets, 2)
    batch_size = None if batch_size is None else check_count(title, "batch_size", batch_size)
    check_flag(title, "progress_bar", progress_bar)
    for name, quantity in quantities.items():
        check_callable(title, f"quantities[{name!r}]", quantity, "a function of sites and data")
    key_example = jax.random.fold_in(rng_key, EXAMPLE)
    example = _finite_data(problem, key_example, title)
    posterior = posterior_of(inference, call, example)
    drawn = jax.eval_shape(lambda k: posterior.draw(k, example).sites, rng_key)
    _check_sites(problem, drawn, needed, title)
    keys = jax.random.split(rng_key, num_datasets)
    study = partial(_study, problem, posterior, quantities, example)
    rows = rows_over(title, sharding)
    batch = _batch_size(drawn, num_datasets, batch_size, num_shards(rows))
    many = jax.jit(over_devices(jax.vmap(lambda k: _ranked(study(k), posterior, scores, call.num_draws, k)), rows))
    with contextlib.ExitStack() as stack:
        shelf = None
        if store is not None:
            identity = study_identity(problem, inference, call, quantities, rng_key, num_datasets, batch)
            one = jax.jit(study)(key_example)
            identity["content"] = content_of(one.truth, one.data, one.draws, one.at_truth, one.at_draws)
            shelf = stack.enter_context(Shelf(store, identity, f"{title}: `store`"))
        parts = []
        with tqdm(total=num_datasets, desc=title, unit="data set", disable=not progress_bar) as bar:
            for first in range(0, num_datasets, batch):
                part = None if shelf is None else shelf.load(first, Ranks)
                if part is None:
                    chosen = np.minimum(np.arange(first, first + batch), num_datasets - 1)
                    part = jax.tree.map(np.asarray, many(keys[chosen]))
                    if shelf is not None:
                        shelf.save(first, part)
                parts.append(jax.tree.map(lambda v: v[: num_datasets - first], part))
                bar.update(len(parts[-1].finite))
    return jax.tree.map(lambda *v: np.concatenate(v), *parts), posterior.failing


def _finite_data(problem: Problem, rng_key: Array, title: str) -> Data:
    """A simulated data set that is finite: the forward map may fail in part of the prior's support."""
    simulate = jax.jit(problem.simulate)
    for attempt in range(ATTEMPTS):
        _, data = simulate(rng_key if attempt == 0 else jax.random.fold_in(rng_key, attempt))
        if _all_finite(data):
            return data
    raise ValueError(
        f"{title}: the model simulates data that are not finite, {ATTEMPTS} times in a row; see to it that the forward "
        "map is finite wherever the prior is."
    )


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


class One(NamedTuple):
    """One simulated data set with its posterior draws, and the test quantities at both; ``usable`` if it is finite."""

    truth: dict[str, Array]
    data: Data
    draws: Draws
    at_truth: dict[str, Array]
    at_draws: dict[str, Array]
    usable: Bool[Array, ""]


def _study(
    problem: Problem, posterior: Posterior, quantities: Mapping[str, Quantity], example: Data, rng_key: Array
) -> One:
    """``example`` is fitted in place of data that are not finite, from which no kernel could start."""
    key_simulate, key_draw, _ = jax.random.split(rng_key, 3)
    truth, data = problem.simulate(key_simulate)
    usable = _all_finite(data)
    data = jax.tree.map(lambda simulated, other: jnp.where(usable, simulated, other), data, example)
    draws = posterior.draw(key_draw, data)
    known = {name: value for name, value in truth.items() if name in draws.sites}
    at_truth = {
        name: check_values("calibration", f"quantities[{name!r}](values, data)", quantity(known, data))
        for name, quantity in quantities.items()
    }
    at_draws = {
        name: jax.vmap(quantity, (0, None))({k: draws.sites[k] for k in known}, data)
        for name, quantity in quantities.items()
    }
    return One(truth, data, draws, at_truth, at_draws, usable)


def _ranked(one: One, posterior: Posterior, scores: Mapping[str, Score], num_draws: int, rng_key: Array) -> Ranks:
    keys = jax.random.split(jax.random.split(rng_key, 3)[2], len(one.at_truth))
    found = {
        name: rank_of(k, one.at_truth[name], one.at_draws[name], num_draws, posterior.num_chains, scores.get(name))
        for k, name in zip(keys, one.at_truth, strict=True)
    }
    failures = one.draws.failures._asdict() | {"simulation": ~one.usable}
    return Ranks(
        rank={name: one.rank for name, one in found.items()},
        ess={name: one.ess for name, one in found.items()},
        moves={name: one.moves for name, one in found.items()},
        value=one.at_truth,
        finite=one.usable & _all_finite((one.at_truth, one.at_draws)),
        diverging=one.draws.diverging,
        failures={name: jnp.where(one.usable | (name == "simulation"), v, 0) for name, v in failures.items()},
    )


def _batch_size(drawn: Mapping[str, Any], num_datasets: int, batch_size: int | None, shards: int) -> int:
    """How many data sets go at a time: what fits in memory, as many on each device."""
    size = sum(np.prod(v.shape, dtype=int) * v.dtype.itemsize for v in jax.tree.leaves(drawn))
    batch = batch_size or int(np.clip(MEMORY // max(size, 1), 1, LARGEST_BATCH))
    return -(-min(batch, num_datasets) // shards) * shards


def _check_sites(problem: Problem, shapes: Mapping[str, Any], needed: tuple[str, ...], title: str) -> None:
    truth, _ = jax.eval_shape(problem.simulate, jax.random.key(0))
    missing = [name for name in needed if name not in shapes]
    if missing:
        raise ValueError(
            f"{title}: the posterior draws have no site {missing[0]!r}, only {', '.join(shapes)}. Name the sites to "
            "test in `sites`; the log likelihood and joint regions need all latent sites (`log_likelihood=False` or "
            "`joint=False` leaves them out)."
        )
    for name in shapes:
        if name in truth and shapes[name].shape[1:] != truth[name].shape:
            raise ValueError(
                f"{title}: site {name!r} has shape {truth[name].shape} in the model, but its draws have shape "
                f"{shapes[name].shape}; draws come first, then the site's shape."
            )
