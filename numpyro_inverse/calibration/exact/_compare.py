"""Draws against an exact posterior: one table, one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer import MCMC
from scipy.special import ndtri
from scipy.stats import chi2, norm

from numpyro_inverse._checks import check_count, check_fraction, check_instance, check_real
from numpyro_inverse.calibration.exact._reference import Reference
from numpyro_inverse.calibration.two_sample._wasserstein import gaussian_wasserstein

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

LEVEL = 0.9
REFERENCE_NUMBERS, REFERENCE_DRAWS = 2 * 10**6, (4000, 40_000)  # how many numbers of draws, and the fewest and most
FEWEST = 4  # draws a chain, for an effective number
AXES, AXES_DRAWS = 3, 1000  # principal axes that are tested from either end, and draws that they are of
DENSE = 500  # numbers up to which the distance between the Gaussians is computed


@dataclass(frozen=True)
class Comparison:
    """A posterior beside the exact one.

    Attributes:
        table: one row per site.
        mean_z: (estimated - exact mean) over its Monte-Carlo standard error, by site and element.
        sd_ratio: estimated over exact standard deviation, likewise.
        p_value: that location, width and correlations are the exact ones (Bonferroni over sites, elements and axes).
    """

    table: DataFrame
    mean_z: dict[str, Float[np.ndarray, "..."]]
    sd_ratio: dict[str, Float[np.ndarray, "..."]]
    p_value: float

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        level = check_fraction("Comparison.verdict", "level", level)
        outcome = "differs from" if self.p_value <= level else "agrees with"
        ratios = ", ".join(f"{name} {np.mean(ratio):.3f}" for name, ratio in self.sd_ratio.items())
        return (
            f"The posterior {outcome} the exact one within Monte-Carlo error (p = {self.p_value:.3g} at level "
            f"{level:g}); mean ratio of standard deviations: {ratios}."
        )

    def plot(self) -> Figure:
        """Histograms of the means' z-scores, beside a standard normal, and of the standard deviation ratios."""
        from matplotlib import pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
        grid = np.linspace(-4, 4, 200)
        left.plot(grid, norm.pdf(grid), color="0.4", lw=0.8)
        for name, z in self.mean_z.items():
            left.hist(np.clip(np.ravel(z), -6, 6), bins=30, density=True, alpha=0.5, label=name)
            right.hist(np.ravel(self.sd_ratio[name]), bins=30, density=True, alpha=0.5)
        left.set_xlabel("error of the mean / Monte-Carlo standard error")
        right.set_xlabel("standard deviation / exact")
        right.axvline(1, color="0.4", lw=0.8)
        left.legend(frameon=False, fontsize=8)
        for ax in (left, right):
            ax.set_yticks([])
        return figure


def compare(
    posterior: MCMC | Mapping[str, Float[Array, "draws ..."]], reference: Reference, *, num_chains: int = 1
) -> Comparison:
    r"""How far draws are from an exact posterior, measured in what their effective number allows.

    Per site: the root mean square of the means' z-scores (1 if all is well); the mean, smallest and largest ratio of
    standard deviations; the Wasserstein-2 distance of the two Gaussians with these moments over the exact root trace
    (up to 500 numbers); and how much of the exact posterior the draws' central 90 % intervals hold.

    For the p-value each number is replaced by its normal score, the normal quantile at its level among draws of the
    reference, so that heavy tails do no harm: under the reference scores are standard normal, whatever it is. Tested
    are their means, with the effective sample size of the scores; their mean squares, with that of the squares; the
    mean of the latter over all elements of a site, with the mean of their errors, an upper bound whatever their
    correlation; and the same along principal axes of all sites' scores together, which see correlations.

    >>> print(compare(mcmc, exact.linear_gaussian(model, model_kwargs={"data": y})).table)

    Args:
        posterior: a finished ``MCMC``, or draws by site, draws first (chains one after the other).
        reference: the exact posterior.
        num_chains: of draws given as a mapping.

    Raises:
        TypeError: ``posterior`` or ``reference`` is something else; draws that are no real numbers.
        ValueError: an ``MCMC`` that did not run, fewer than four draws a chain, no site in common, shapes that differ,
            numbers that are not finite, draws that do not move.
    """
    check_instance("compare", "reference", reference, Reference, "a Reference")
    check_instance("compare", "posterior", posterior, (MCMC, Mapping), "a finished MCMC, or draws by site")
    num_chains = check_count("compare", "num_chains", num_chains)
    if isinstance(posterior, MCMC):
        if posterior.last_state is None:
            raise ValueError("compare: `posterior` must be a finished MCMC; this one did not run.")
        chains = {k: np.asarray(v, float) for k, v in posterior.get_samples(group_by_chain=True).items()}
    else:
        chains = {
            k: np.atleast_1d(np.asarray(check_real("compare", f"posterior[{k!r}]", v), float))
            for k, v in posterior.items()
        }
        uneven = [k for k, v in chains.items() if len(v) % num_chains]
        if uneven:
            raise ValueError(
                f"compare: `posterior` has {len(chains[uneven[0]])} draws of site {uneven[0]!r}, not {num_chains} "
                f"chains of one length, as `num_chains` says."
            )
        chains = {k: v.reshape(num_chains, -1, *v.shape[1:]) for k, v in chains.items()}
    names = [name for name in reference.mean if name in chains]
    if not names:
        raise ValueError(
            f"compare: `posterior` has {', '.join(map(str, chains)) or 'no site'}, but the reference has "
            f"{', '.join(reference.mean)}."
        )
    few = [name for name in names if chains[name].shape[1] < FEWEST]
    if few:
        raise ValueError(
            f"compare: `posterior` must have {FEWEST} draws a chain; site {few[0]!r} has {chains[few[0]].shape[1]} "
            f"in each of {len(chains[few[0]])} (`num_chains`)."
        )
    numbers = sum(reference.mean[name].size for name in names)
    exact_draws = reference.draw(jax.random.key(0), int(np.clip(REFERENCE_NUMBERS // numbers, *REFERENCE_DRAWS)))
    rows, mean_z, sd_ratio = {}, {}, {}
    tests: list[Float[np.ndarray, " k"]] = []
    scores, exact_scores = [], []
    for name in names:
        draws, mean, sd = chains[name], reference.mean[name], reference.sd[name]
        if draws.shape[2:] != mean.shape:
            raise ValueError(
                f"compare: `posterior` has site {name!r} in shape {draws.shape[2:]}, the reference in {mean.shape}."
            )
        if not np.all(np.isfinite(draws)):
            raise ValueError(f"compare: `posterior` has draws of site {name!r} that are not finite.")
        flat = draws.reshape(*draws.shape[:2], -1)
        if np.any(np.all(flat == flat[:1, :1], axis=(0, 1))):
            raise ValueError(f"compare: `posterior` has an element of site {name!r} whose draws are identical.")
        m, s = np.ravel(mean), np.ravel(sd)
        ess = _ess(flat)
        z = (np.mean(flat, axis=(0, 1)) - m) / (s / np.sqrt(ess))
        ratio = np.std(flat, axis=(0, 1), ddof=1) / s
        exact = np.asarray(exact_draws[name], float).reshape(-1, len(m))
        score = normal_scores(flat, exact)
        tests.append(_p_values(score, len(exact)))
        scores.append(score)
        exact_scores.append(normal_scores(exact[None], exact)[0])
        low, high = np.quantile(flat, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=(0, 1))
        rows[name] = {
            "elements": len(m),
            "min ESS": float(ess.min()),
            "rms z": float(np.sqrt(np.mean(z**2))),
            "sd ratio": float(np.mean(ratio)),
            "smallest": float(ratio.min()),
            "largest": float(ratio.max()),
            "W2": _distance(flat, reference, name),
            f"mass in {100 * LEVEL:g} %": float(np.mean((exact >= low) & (exact <= high))),
        }
        mean_z[name], sd_ratio[name] = z.reshape(mean.shape), ratio.reshape(mean.shape)
    if numbers > 1:
        tests.append(_joint_p_values(np.concatenate(scores, axis=2), np.concatenate(exact_scores, axis=1)))
    every = np.concatenate(tests)
    from pandas import DataFrame

    table = DataFrame.from_dict(rows, orient="index")
    return Comparison(table, mean_z, sd_ratio, min(1.0, len(every) * float(np.min(every))))


def normal_scores(
    flat: Float[np.ndarray, "chain draw n"], exact: Float[np.ndarray, "m n"]
) -> Float[np.ndarray, "chain draw n"]:
    """Each value's normal quantile at its level in the draws of the reference, element by element."""
    rows = flat.reshape(-1, flat.shape[2])
    ordered = np.sort(exact, axis=0)
    found = np.empty_like(rows)
    for i in range(rows.shape[1]):
        low, high = (np.searchsorted(ordered[:, i], rows[:, i], side=side) for side in ("left", "right"))
        found[:, i] = ndtri((0.5 * (low + high) + 0.5) / (len(ordered) + 1))
    return found.reshape(flat.shape)


def _p_values(score: Float[np.ndarray, "chain draw n"], num_exact: int) -> Float[np.ndarray, " k"]:
    """That means of the scores are 0 and their mean squares 1, by element, and the latter over all elements.

    The levels come from ``num_exact`` draws, whose error adds to that of the draws.
    """
    number = 1 / (1 / _ess(score) + 1 / num_exact)
    number_squares = 1 / (1 / _ess((score - np.mean(score, axis=(0, 1))) ** 2) + 1 / num_exact)
    z = np.mean(score, axis=(0, 1)) * np.sqrt(number)
    squares = np.mean(score**2, axis=(0, 1))
    tails = np.minimum(
        chi2.cdf(number_squares * squares, number_squares), chi2.sf(number_squares * squares, number_squares)
    )
    z_all = np.mean(squares - 1) / np.mean(np.sqrt(2 / number_squares))
    return np.concatenate([2 * norm.sf(np.abs(z)), 2 * tails, [2 * norm.sf(abs(z_all))]])


def _joint_p_values(
    score: Float[np.ndarray, "chain draw n"], exact: Float[np.ndarray, "m n"]
) -> Float[np.ndarray, " k"]:
    """The same tests along principal axes of the reference's scores, which see what marginals do not."""
    some = min(AXES_DRAWS, len(exact) // 4)
    _, _, axes = np.linalg.svd(exact[:some], full_matrices=False)
    chosen = axes[:AXES]
    if 4 * exact.shape[1] <= some:  # the last axes are known
        chosen = np.unique(np.concatenate([chosen, axes[-AXES:]]), axis=0)
    rest = exact[some:] @ chosen.T
    return _p_values(normal_scores(score @ chosen.T, rest), len(rest))


def _ess(flat: Float[np.ndarray, "chain draw n"]) -> Float[np.ndarray, " n"]:
    """Effective sample size for the mean, at most the number of draws."""
    import arviz as az

    found = np.ravel(az.ess(az.from_dict({"posterior": {"x": flat}}), method="mean")["x"].values)
    return np.minimum(found, flat.shape[0] * flat.shape[1])


def _distance(flat: Float[np.ndarray, "chain draw n"], reference: Reference, name: str) -> float:
    if name not in reference.covariance or flat.shape[2] > DENSE:
        return float("nan")
    rows = flat.reshape(-1, flat.shape[2])
    covariance = reference.covariance[name]
    found = gaussian_wasserstein(rows.mean(0), np.cov(rows.T), np.ravel(reference.mean[name]), covariance)
    return found / float(np.sqrt(np.trace(covariance)))
