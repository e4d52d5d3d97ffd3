"""Ranks over many data sets, and what they say: p-values, a table, a picture, a sentence."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from numpyro_inverse._checks import check_fraction
from numpyro_inverse.calibration.ranks._batches import Ranks, ranks_of
from numpyro_inverse.calibration.ranks._posteriors import Call
from numpyro_inverse.calibration.ranks._problem import Problem, Quantity, names_of
from numpyro_inverse.calibration.ranks._rank import Score
from numpyro_inverse.calibration.ranks._uniformity import (
    Bands,
    counts_below,
    p_value_of_statistic,
    rank_bands,
    rank_statistics,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from xarray import DataTree


@dataclass(frozen=True)
class RankStudy:
    """Ranks of the truth among posterior draws, data set by data set, and what they say.

    Attributes:
        ranks: by test quantity; shape ``(num_datasets, *quantity's shape)``, values 0, ..., ``num_draws``. Data sets
            whose fit failed are not among them: see ``failed``.
        num_draws: draws each rank is among.
        ess: draws that were left after thinning, by quantity and data set.
        failed: data sets whose data or draws are not finite, or whose draws do not move.
        diverging: data sets with a divergent transition; they are among the ranks.
        title: of the study.
        failures: what there is to say of truths whose data are not finite, and of moves that met points without a log
            density: how many, in how many fits, and where the first was; empty if there were none.
        num_failures: how many they were, by data set; 0 for what does not count them.
    """

    ranks: dict[str, Int[np.ndarray, "datasets ..."]]
    num_draws: int
    ess: dict[str, Float[np.ndarray, " datasets"]]
    failed: Bool[np.ndarray, " all"]
    diverging: Bool[np.ndarray, " all"]
    title: str = "simulation-based calibration"
    failures: str = ""
    num_failures: Int[np.ndarray, " all"] = field(default_factory=lambda: np.zeros(0, int))

    @cached_property
    def p_values(self) -> dict[str, float]:
        """By quantity: the exact p-value of its least uniform element times the number of elements, at most 1."""
        found = {}
        for name, ranks in self.ranks.items():
            flat = ranks.reshape(len(ranks), -1)
            worst = float(np.min(rank_statistics(flat, self.num_draws)))
            found[name] = min(1.0, flat.shape[1] * p_value_of_statistic(worst, len(flat), self.num_draws))
        return found

    @property
    def p_value(self) -> float:
        """Of all quantities together: the smallest of ``p_values`` times their number, at most 1 (Bonferroni)."""
        return min(1.0, len(self.p_values) * min(self.p_values.values()))

    @property
    def few_draws(self) -> Bool[np.ndarray, " datasets"]:
        """Data sets whose fit left fewer effective draws, of some quantity, than ``num_draws``."""
        return np.any([ess < self.num_draws for ess in self.ess.values()], axis=0)

    @property
    def table(self) -> DataFrame:
        """One row per quantity: elements, p-value, mean and spread of its ranks relative to uniform ones, ESS.

        ``bias`` is the mean rank's distance from the middle in standard errors (positive: draws lie too low);
        ``dispersion`` the ranks' variance over a uniform's (above 1: posterior too narrow).
        """
        from pandas import DataFrame

        rows = {}
        for name, ranks in self.ranks.items():
            pit = (ranks.reshape(len(ranks), -1) + 0.5) / (self.num_draws + 1)
            rows[name] = {
                "elements": pit.shape[1],
                "p_value": self.p_values[name],
                "bias": float(np.mean(pit - 0.5) * np.sqrt(12 * len(pit))),
                "dispersion": float(12 * np.mean((pit - 0.5) ** 2) / (1 - 1 / (self.num_draws + 1) ** 2)),
                "min ESS": float(np.min(self.ess[name])),
                "mean ESS": float(np.mean(self.ess[name])),
            }
        return DataFrame.from_dict(rows, orient="index")

    def verdict(self, level: float = 0.05) -> str:
        """One sentence: what was tested, how it came out, and what failed."""
        level = check_fraction("RankStudy.verdict", "level", level)
        count = len(next(iter(self.ranks.values())))
        outcome = "rejected" if self.p_value <= level else "not rejected"
        worst = min(self.p_values, key=self.p_values.__getitem__)
        text = (
            f"{self.title}: {count} data sets, {len(self.ranks)} test quantities; exactness is {outcome} at level "
            f"{level:g} (p = {self.p_value:.3g}, smallest for {worst})."
        )
        few = self.few_draws
        if few.any():
            least = min(float(np.min(ess)) for ess in self.ess.values())
            text += (
                f" {int(few.sum())} of {count} fits left fewer effective draws than the {self.num_draws} that are "
                f"ranked, as few as {least:.0f}: the test is as exact, but less sharp; run longer chains."
            )
        if self.failed.any():
            text += f" {int(self.failed.sum())} of {len(self.failed)} fits FAILED and have no rank."
        if self.diverging.any():
            text += f" {int(self.diverging.sum())} of {len(self.diverging)} fits had divergences."
        return f"{text} {self.failures}" if self.failures else text

    def bands(self, coverage: float = 0.94) -> Bands:
        """Exact simultaneous bands for the number of ranks below 1, ..., S of one element.

        Raises:
            ValueError: ``coverage`` is not in (0, 1).
        """
        coverage = check_fraction("RankStudy.bands", "coverage", coverage)
        return rank_bands(len(next(iter(self.ranks.values()))), self.num_draws, coverage)

    def to_arviz(self) -> DataTree:
        """An ArviZ ``DataTree`` with group ``prior_sbc``: (rank + V) / (S + 1), V uniform, data sets as draws."""
        import arviz as az

        rng = np.random.default_rng(0)
        pit = {k: ((r + rng.uniform(size=r.shape)) / (self.num_draws + 1))[None] for k, r in self.ranks.items()}
        return az.from_dict({"prior_sbc": pit})

    def plot(self, coverage: float = 0.94, quantities: tuple[str, ...] | None = None) -> Figure:
        """Each quantity's rank distribution less the uniform one, in exact simultaneous bands.

        Args:
            coverage: of the bands, for one element.
            quantities: which to draw; the twelve least uniform if there are more.

        Raises:
            TypeError: ``quantities`` are no names.
            ValueError: a quantity that was not tested; ``coverage`` is not in (0, 1).
        """
        from matplotlib import pyplot as plt

        chosen = names_of("RankStudy.plot", "quantities", quantities or ())
        unknown = [name for name in chosen if name not in self.ranks]
        if unknown:
            raise ValueError(f"RankStudy.plot: `quantities` must be among {', '.join(self.ranks)}; got {unknown[0]!r}.")
        names = list(chosen or sorted(self.p_values, key=self.p_values.__getitem__)[:12])
        bands, count = self.bands(coverage), len(next(iter(self.ranks.values())))
        z = np.arange(1, self.num_draws + 1) / (self.num_draws + 1)
        columns = min(len(names), 4)
        rows = -(-len(names) // columns)
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(3.2 * columns, 2.6 * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for ax, name in zip(axes.flat, names, strict=False):
            ax.fill_between(z, bands.lower / count - z, bands.upper / count - z, color="0.88", lw=0)
            flat = self.ranks[name].reshape(count, -1)
            shown = flat[:, :: max(1, flat.shape[1] // 50)].T
            for ranks in shown:
                below = counts_below(ranks, self.num_draws) / count - z
                ax.plot(z, below, lw=1.2 if len(shown) == 1 else 0.4, color="C0", alpha=1.0 if len(shown) == 1 else 0.5)
            ax.axhline(0, color="0.4", lw=0.6)
            ax.set_title(f"{name}, p = {self.p_values[name]:.2g}", fontsize=9)
        for ax in axes.flat[len(names) :]:
            ax.set_axis_off()
        figure.supxlabel("rank / (draws + 1)", fontsize=9)
        figure.supylabel("ECDF - uniform", fontsize=9)
        figure.suptitle(f"{self.title}: {count} data sets, {100 * coverage:.0f} % simultaneous bands", fontsize=10)
        return figure


def rank_study(
    problem: Problem,
    inference: Any,
    call: Call,
    quantities: Mapping[str, Quantity],
    scores: Mapping[str, Score] | None = None,
    *,
    title: str,
    **options: Any,
) -> RankStudy:
    """Ranks of ``quantities``, with failed fits set apart; a warning tells of failures of the forward map."""
    found, sites = ranks_of(problem, inference, call, quantities, scores or {}, title=title, **options)
    failed = _failed(found, title)
    kept = ~failed
    failures = _told(found.failures, sites)
    if failures:
        warnings.warn(
            f"{title}: {failures} What is tested is the posterior where the forward map works; see to it that it and "
            "the likelihood are finite wherever the prior is.",
            stacklevel=3,
        )
    return RankStudy(
        ranks={name: found.rank[name][kept] for name in quantities},
        num_draws=call.num_draws,
        ess={name: ess[kept] for name, ess in found.ess.items()},
        failed=failed,
        diverging=np.asarray(found.diverging),
        title=title,
        failures=failures,
        num_failures=np.asarray(found.failures["number"]),
    )


def _told(failures: Mapping[str, Any], sites: Sequence[str]) -> str:
    """Sentences on truths without finite data and on moves that met no log density; empty if there are none."""
    number, broken = np.asarray(failures["number"]), np.asarray(failures["simulation"])
    told = []
    if broken.any():
        told.append(
            f"The model simulates data that are not finite for {int(broken.sum())} of {len(broken)} data sets, first "
            f"for data set {int(np.flatnonzero(broken)[0])}; these have no rank."
        )
    if number.any():
        dataset = int(np.flatnonzero(number)[0])
        chain, iteration, site = (int(failures[name][dataset]) for name in ("chain", "iteration", "site"))
        named = f"site {sites[site]!r} has none" if site >= 0 else "it or its gradient is not a number"
        told.append(
            f"{int(number.sum())} moves in {int(np.sum(number > 0))} of {len(number)} fits met points without a log "
            f"density and were rejected, first for data set {dataset} in iteration {iteration} of chain {chain}, where "
            f"{named}."
        )
    return " ".join(told)


def _failed(found: Ranks, title: str) -> Bool[np.ndarray, " all"]:
    """Data sets without a usable rank.

    Raises:
        ValueError: a quantity that says nothing, or no data set left.
    """
    failed = ~np.asarray(found.finite)
    if failed.all():
        raise ValueError(f"{title}: the draws or test quantities are not finite in any of the {len(failed)} data sets.")
    for name, moves in found.moves.items():
        value = found.value[name][found.finite]
        if np.any(np.all(value == value[:1], axis=0)):
            raise ValueError(
                f"{title}: test quantity {name!r} has an element that is the same in every data set, so it can test "
                "nothing; leave it out with `sites` or `quantities`."
            )
        if not moves.any():
            raise ValueError(
                f"{title}: all draws of {name!r} are identical, in every data set: the sampler does not move. Look at "
                "its acceptance rate for one data set."
            )
        failed = failed | ~moves
    if np.sum(~failed) < 2:
        raise ValueError(
            f"{title}: the fit failed on {int(failed.sum())} of {len(failed)} data sets; fewer than 2 are left."
        )
    return failed
