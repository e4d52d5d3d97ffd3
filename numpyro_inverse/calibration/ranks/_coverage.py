"""How often credible regions hold the truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Key

from numpyro_inverse._checks import check_flag, check_fraction, check_instance
from numpyro_inverse.calibration.ranks._posteriors import call_of
from numpyro_inverse.calibration.ranks._problem import (
    Quantity,
    check_quantities,
    problem_of,
    site_quantity,
    tested_sites,
)
from numpyro_inverse.calibration.ranks._rank_study import RankStudy, rank_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

JOINT = "all sites"
CENTRAL, HIGHEST = "central", "highest density"
LEVELS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Coverage:
    """Coverage of central and highest-density regions.

    Attributes:
        study: the ranks behind it. A rank r of one of its quantities, such as ``central field``, says that the truth
            enters the region at credible level (r + 1) / (S + 1).
    """

    study: RankStudy

    @property
    def p_values(self) -> dict[str, float]:
        """By region and quantity: exact, against coverage at every level at once."""
        return self.study.p_values

    @property
    def p_value(self) -> float:
        """Of all regions together (Bonferroni)."""
        return self.study.p_value

    def empirical(self, name: str, level: float) -> Float[np.ndarray, "..."]:
        """Share of data sets whose truth lies in the region of credible ``level``, by element.

        Raises:
            ValueError: no such region, or a level that is not in (0, 1).
        """
        if check_instance("coverage", "name", name, str, "the name of a region") not in self.study.ranks:
            raise ValueError(
                f"coverage: there is no region {name!r}; `name` must be one of {', '.join(self.study.ranks)}."
            )
        level = check_fraction("coverage", "level", level)
        cells = level * (self.study.num_draws + 1)
        ranks = self.study.ranks[name]
        whole = int(cells + 1e-9)  # a level between two attainable ones is interpolated
        part = cells - whole
        return np.mean(ranks < whole, axis=0) + part * np.mean(ranks == whole, axis=0)

    @property
    def table(self) -> DataFrame:
        """Coverage at 50, 80, 90 and 95 %, mean over elements, and p-values."""
        from pandas import DataFrame

        rows = {
            name: {f"{100 * level:g} %": float(np.mean(self.empirical(name, level))) for level in LEVELS}
            | {"p_value": p}
            for name, p in self.p_values.items()
        }
        return DataFrame.from_dict(rows, orient="index")

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        return self.study.verdict(level)

    def plot(self, coverage: float = 0.94) -> Figure:
        """Empirical less nominal coverage over the nominal one, in exact simultaneous bands."""
        figure = self.study.plot(coverage)
        figure.supxlabel("credible level", fontsize=9)
        figure.supylabel("coverage - level", fontsize=9)
        return figure


def coverage(
    model: Callable,
    inference: Any,
    *,
    rng_key: Key[Array, ""],
    num_datasets: int,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    observed: str | tuple[str, ...] = "data",
    quantities: Mapping[str, Quantity] | None = None,
    sites: tuple[str, ...] | None = None,
    joint: bool = True,
    num_draws: int = 99,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_steps: int = 2000,
    batch_size: int | None = None,
    sharding: NamedSharding | None = None,
    store: str | os.PathLike | None = None,
    progress_bar: bool = True,
) -> Coverage:
    r"""Coverage of credible regions over simulated data sets, at every level, with exact tests.

    Central regions lie between two order statistics of the S draws. The highest-density region of a scalar holds the
    draws whose distance to their :math:`\lceil\sqrt{S + 1}\rceil` nearest neighbours is smallest, truth and draws
    treated alike, which keeps its level exact at finite S; that of all sites together holds the draws of largest joint
    density :math:`p(\theta, y)`, the posterior's up to a constant. In each case the level at which the truth enters is
    a rank, uniform for exact draws.

    Regions of single quantities see width; shifts that are small against it, and correlations, only the joint region
    sees, so with ``joint=False`` they pass.

    >>> # not run: docs/calibration.md does it
    >>> result = coverage(model, NUTS(model), num_datasets=500, rng_key=jax.random.key(0))  # doctest: +SKIP
    >>> result.empirical("central field", 0.9)  # per pixel  # doctest: +SKIP

    Args:
        model: as :func:`~numpyro_inverse.calibration.sbc`, like everything that is not named here.
        inference: likewise.
        rng_key: likewise.
        num_datasets: likewise.
        model_args: likewise.
        model_kwargs: likewise.
        observed: likewise.
        quantities: functionals whose coverage is wanted beside that of ``sites``.
        sites: likewise.
        joint: the highest-density region of all latent sites together too; needs draws of all of them.
        num_draws: likewise.
        num_warmup: likewise.
        num_samples: likewise.
        num_steps: likewise.
        batch_size: likewise.
        sharding: likewise.
        store: likewise.
        progress_bar: likewise.

    Raises:
        ValueError: as :func:`~numpyro_inverse.calibration.sbc`.

    References:
        Hermans et al., TMLR 2022, section 3, on expected coverage by density ranks.
    """
    check_flag("coverage", "joint", joint)
    quantities = check_quantities("coverage", quantities)
    problem = problem_of(model, model_args, model_kwargs, observed)
    call = call_of("coverage", problem, num_draws, num_warmup, num_samples, num_steps)
    tested = {name: site_quantity(name) for name in tested_sites(problem, sites)}
    needed = tuple(dict.fromkeys([*tested, *(problem.latent_sites() if joint else ())]))
    tested |= quantities
    both = {f"{region} {name}": quantity for name, quantity in tested.items() for region in (CENTRAL, HIGHEST)}
    neighbours = ceil(sqrt(call.num_draws + 1))
    scores = {f"{HIGHEST} {name}": partial(nearness, neighbours) for name in tested}
    if joint:
        both[f"{HIGHEST} {JOINT}"] = problem.log_density
    study = rank_study(
        problem,
        inference,
        call,
        both,
        scores,
        needed=needed,
        num_datasets=num_datasets,
        rng_key=rng_key,
        batch_size=batch_size,
        sharding=sharding,
        store=store,
        progress_bar=progress_bar,
        title="coverage",
    )
    rng = np.random.default_rng(0)
    folded = {}
    for name, ranks in study.ranks.items():
        if name.startswith(CENTRAL):  # |2u - 1| of the randomised probability integral transform u
            pit = (ranks + rng.uniform(size=ranks.shape)) / (study.num_draws + 1)
            folded[name] = np.minimum((np.abs(2 * pit - 1) * (study.num_draws + 1)).astype(int), study.num_draws)
        else:
            folded[name] = study.num_draws - ranks
    return Coverage(replace(study, ranks=folded))


def nearness(neighbours: int, values: Float[Array, "n q"], valid: Bool[Array, " n"]) -> Float[Array, "n q"]:
    """Minus the width of the shortest interval with ``neighbours`` other values about each, column by column."""
    n = values.shape[0]
    m = min(neighbours, n - 1)
    ordered = jnp.where(valid[:, None], values.astype(float), jnp.inf)
    order = jnp.argsort(ordered, axis=0)
    ordered = jnp.take_along_axis(ordered, order, axis=0)
    gaps = ordered[m:] - ordered[:-m]
    gaps = jnp.where(jnp.isnan(gaps), jnp.inf, gaps)
    padded = jnp.pad(gaps, ((m, m), (0, 0)), constant_values=jnp.inf)
    width = jax.lax.reduce_window(padded, jnp.inf, jax.lax.min, (m + 1, 1), (1, 1), "VALID")
    return -jnp.take_along_axis(width, jnp.argsort(order, axis=0), axis=0)
