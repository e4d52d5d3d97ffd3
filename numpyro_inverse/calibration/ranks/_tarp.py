"""Tests of accuracy with random points: references near the posterior that depend on the data, and far-out ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import check_callable, check_count, check_instance, check_key, check_real
from numpyro_inverse.calibration.ranks._posteriors import call_of
from numpyro_inverse.calibration.ranks._problem import Data, problem_of, tested_sites
from numpyro_inverse.calibration.ranks._rank_study import RankStudy, rank_study

DISTANCE = "distance to reference"
DIRECTION = "direction"


def tarp(
    model: Callable,
    inference: Any,
    *,
    rng_key: Key[Array, ""],
    num_datasets: int,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    observed: str | tuple[str, ...] = "data",
    sites: tuple[str, ...] | None = None,
    reference: Callable[[Data], dict[str, Array]] | None = None,
    num_references: int = 1000,
    num_directions: int = 4,
    num_draws: int = 99,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_steps: int = 2000,
    batch_size: int | None = None,
    sharding: NamedSharding | None = None,
    store: str | os.PathLike | None = None,
    progress_bar: bool = True,
) -> RankStudy:
    r"""Is the truth as far from a reference point as the draws are?

    .. math:: f = \#\{ s : d(\theta_s, \theta_r) < d(\theta^*, \theta_r) \} \sim \operatorname{Uniform}\{0, \dots, S\}

    for exact draws and any :math:`\theta_r(y)`; if it holds for all :math:`\theta_r(y)`, the posterior is exact. The
    reference must depend on the data: with one that does not, the prior passes as posterior. The default is the
    parameter of the simulated data set nearest to y, of ``num_references`` that are used for nothing else; distances
    are Euclidean in units of the prior's standard deviations, data's in units of their marginal ones.

    Such a reference lies on all sides of the posterior, so that a shift lengthens some distances and shortens others.
    Beside it stand ``num_directions`` references infinitely far out in fixed directions, orthonormal in the same units
    and drawn at random: distances to them order as the projections :math:`-u^T \theta` do. They see shifts and
    correlations, not the prior as posterior; Bonferroni's correction joins all.

    The p-value is the exact one-sample test of :func:`~numpyro_inverse.calibration.sbc`. (Two implementations compare
    the coverage curve with its grid by a two-sample test, which does not reject a posterior half as wide as the truth.)

    Args:
        model: as :func:`~numpyro_inverse.calibration.sbc`, like everything that is not named here.
        inference: likewise.
        rng_key: likewise.
        num_datasets: likewise.
        model_args: likewise.
        model_kwargs: likewise.
        observed: likewise.
        sites: the sites that make up :math:`\theta`.
        reference: :math:`\theta_r(y)`, from the dict of data to a dict with all of ``sites``.
        num_references: simulated data sets to choose the default reference from, less those that are not finite.
        num_directions: references infinitely far out, at most as many as :math:`\theta` has numbers.
        num_draws: likewise.
        num_warmup: likewise.
        num_samples: likewise.
        num_steps: likewise.
        batch_size: likewise.
        sharding: likewise.
        store: likewise.
        progress_bar: likewise.

    Raises:
        ValueError: as :func:`~numpyro_inverse.calibration.sbc`; a ``reference`` without one of ``sites``;
            ``num_references`` below 2.

    References:
        Lemos, Coogan, Hezaveh & Perreault-Levasseur, ICML 2023 (arXiv:2302.03026), theorem 3.
    """
    check_key("tarp", "rng_key", rng_key)
    num_references = check_count("tarp", "num_references", num_references, 2)
    num_directions = check_count("tarp", "num_directions", num_directions, 0)
    if reference is not None:
        check_callable("tarp", "reference", reference, "a function of the data")
    problem = problem_of(model, model_args, model_kwargs, observed)
    call = call_of("tarp", problem, num_draws, num_warmup, num_samples, num_steps)
    names = tested_sites(problem, sites)
    key_bank, rng_key = jax.random.split(rng_key)
    truths, bank = jax.jit(jax.vmap(problem.simulate))(jax.random.split(key_bank, num_references))
    usable = np.all([np.isfinite(v).reshape(num_references, -1).all(axis=1) for v in bank.values()], axis=0)
    if usable.sum() < 2:
        raise ValueError(
            f"tarp: the model simulates data that are not finite, {int(np.sum(~usable))} of {num_references} times; "
            "see to it that the forward map is finite wherever the prior is."
        )
    truths, bank = jax.tree.map(lambda v: v[usable], (truths, bank))
    units = {name: _spread(truths[name]) for name in names}
    chosen = reference or _nearest(truths, bank, names)

    def point_at(data: Data) -> dict[str, Array]:
        where, point = "reference(data)", chosen(data)
        check_instance("tarp", where, point, Mapping, "a dict of values by site")
        return {k: jnp.asarray(check_real("tarp", f"{where}[{k!r}]", v)) for k, v in point.items() if k in names}

    found = jax.eval_shape(point_at, jax.tree.map(lambda v: v[0], bank))
    for name in names:
        if name not in found or found[name].shape != truths[name].shape[1:]:
            raise ValueError(
                f"tarp: `reference(data)` must return site {name!r} of shape {truths[name].shape[1:]}; it returned "
                f"{ {k: v.shape for k, v in found.items()} }."
            )

    def distance(values: dict[str, Array], data: Data) -> Float[Array, ""]:
        point = chosen(data)
        return sum((jnp.sum(((values[name] - point[name]) / units[name]) ** 2) for name in names), jnp.zeros(()))

    centers = {name: jnp.mean(truths[name].astype(float), axis=0) for name in names}
    frame = _directions(jax.random.fold_in(key_bank, 1), {name: centers[name].shape for name in names}, num_directions)

    def projection(direction: dict[str, Array], values: dict[str, Array], data: Data) -> Float[Array, ""]:
        scaled = {name: (values[name] - centers[name]) / units[name] for name in names}
        return -sum((jnp.sum(direction[name] * scaled[name]) for name in names), jnp.zeros(()))

    quantities = {DISTANCE: distance}
    quantities |= {f"{DIRECTION} {i + 1}": partial(projection, direction) for i, direction in enumerate(frame)}
    return rank_study(
        problem,
        inference,
        call,
        quantities,
        needed=names,
        num_datasets=num_datasets,
        rng_key=rng_key,
        batch_size=batch_size,
        sharding=sharding,
        store=store,
        progress_bar=progress_bar,
        title="TARP",
    )


def _directions(rng_key: Array, shapes: dict[str, tuple[int, ...]], count: int) -> list[dict[str, Array]]:
    """Random orthonormal directions in the product of all sites."""
    parts, start = {}, 0
    for name, shape in shapes.items():
        parts[name] = slice(start, start + prod(shape))
        start += prod(shape)
    if min(count, start) == 0:
        return []
    frame = jnp.linalg.qr(jax.random.normal(rng_key, (start, min(count, start))))[0].T
    return [{name: u[parts[name]].reshape(shape) for name, shape in shapes.items()} for u in frame]


def _nearest(truths: dict[str, Array], bank: Data, names: tuple[str, ...]) -> Callable[[Data], dict[str, Array]]:
    """The parameter whose data are nearest."""
    spreads = {name: _spread(value) for name, value in bank.items()}

    def reference(data: Data) -> dict[str, Array]:
        squares = [
            jnp.sum(((bank[name] - data[name]) / spreads[name]).reshape(len(bank[name]), -1) ** 2, axis=1)
            for name in bank
        ]
        nearest = jnp.argmin(sum(squares))
        return {name: truths[name][nearest] for name in names}

    return reference


def _spread(values: Array) -> Array:
    spread = jnp.std(values.astype(float), axis=0)
    return jnp.where(spread > 0, spread, 1.0)
