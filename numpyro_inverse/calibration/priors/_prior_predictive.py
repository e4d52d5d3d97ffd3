"""Do draws of a learned prior look like data that it was not trained on?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution
from scipy.linalg import solve_triangular

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_fraction,
    check_instance,
    check_key,
    check_positive_number,
)
from numpyro_inverse.calibration._arguments import returned
from numpyro_inverse.calibration.priors._latents import event_rows
from numpyro_inverse.calibration.two_sample._mmd import mmd
from numpyro_inverse.calibration.two_sample._significance import SignificanceTest, check_permutations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHUNK = 256  # rows per evaluation of a density
SHOWN = 6  # examples kept for the plot


@dataclass(frozen=True)
class PriorPredictiveCheck(SignificanceTest):
    r"""The two-sample test of prior draws against held-out data, and the held-out score.

    Scores are :math:`-\frac{1}{d} \log_2 p(u) - \log_2 w` averaged over held-out examples, d numbers in bins of width
    w: smaller is better.

    Attributes:
        bits_per_dimension: the score, infinite if an example has density zero; None if the prior has no density.
        standard_error: of ``bits_per_dimension`` over the held-out examples.
        gaussian_bits_per_dimension: the score of the Gaussian fitted to ``training``, or None.
        gain: ``gaussian_bits_per_dimension - bits_per_dimension``, positive if the prior is better, or None.
        gain_standard_error: of ``gain``, from the differences per example.
        num_held_out: examples that the scores are means of.
        draws: some prior draws.
        examples: some held-out examples.
    """

    bits_per_dimension: float | None = None
    standard_error: float | None = None
    gaussian_bits_per_dimension: float | None = None
    gain: float | None = None
    gain_standard_error: float | None = None
    num_held_out: int = 0
    draws: Float[np.ndarray, "shown *event"] = field(default_factory=lambda: np.zeros(0), repr=False)
    examples: Float[np.ndarray, "shown *event"] = field(default_factory=lambda: np.zeros(0), repr=False)

    def verdict(self, level: float = 0.05) -> str:
        """The test, and the score."""
        level = check_fraction("PriorPredictiveCheck.verdict", "level", level)
        outcome = "are told" if self.p_value <= level else "cannot be told"
        parts = [f"Prior draws {outcome} from held-out data at level {level:g} ({self.name}, p = {self.p_value:.3g})"]
        if self.bits_per_dimension is None:
            parts.append("the prior has no density, so no held-out score")
        elif self.bits_per_dimension == np.inf:
            parts.append("held-out examples have density zero under it")
        else:
            parts.append(f"{self.bits_per_dimension:.3f} +- {self.standard_error:.3f} bits per dimension held out")
        if self.gaussian_bits_per_dimension is not None:
            parts.append(f"a Gaussian has {self.gaussian_bits_per_dimension:.3f}")
        return "; ".join(parts) + "."

    def plot(self) -> Figure:
        """The null distribution; for events of two axes, prior draws above held-out examples beside it."""
        if self.draws.ndim != 3:
            return super().plot()
        from matplotlib import pyplot as plt

        columns = len(self.draws)
        figure = plt.figure(figsize=(1.1 * columns + 3.2, 2.6), layout="constrained")
        images, histogram = figure.subfigures(1, 2, width_ratios=[1.1 * columns, 3.2])
        axes = images.subplots(2, columns, squeeze=False)
        low, high = np.quantile(self.examples, [0.005, 0.995])
        for row, (title, values) in enumerate((("prior draws", self.draws), ("held out", self.examples))):
            axes[row, 0].set_title(title, fontsize=8, loc="left")
            for ax, value in zip(axes[row], values, strict=True):
                ax.imshow(value, cmap="gray", vmin=low, vmax=high)
                ax.axis("off")
        ax = histogram.subplots()
        ax.hist(self.null, bins=min(40, 5 + len(self.null) // 10), color="0.8", label="if they are equal")
        ax.axvline(self.statistic, color="C3", label=f"found, p = {self.p_value:.2g}")
        ax.set_xlabel(self.name)
        ax.set_yticks([])
        ax.legend(frameon=False, fontsize=8)
        return figure


def prior_predictive_check(
    prior: Distribution,
    held_out: Float[Array, "n *event"],
    *,
    rng_key: Key[Array, ""],
    num_draws: int = 500,
    features: Callable[[Float[Array, "*event"]], Float[Array, "..."]] | None = None,
    training: Float[Array, "m *event"] | None = None,
    bin_width: float = 1.0,
    num_permutations: int = 499,
) -> PriorPredictiveCheck:
    r"""Do draws of ``prior`` look like data that it was not trained on, and what does it give for them?

    The test is :func:`mmd` between prior draws and held-out examples: its permutation null makes the p-value exact for
    any prior, with a density or without, and for any number of dimensions. (A classifier, :func:`c2st`, has an exact
    null as well, but in 256 dimensions with 150 draws it had less power against a missing half of the data.) It sees
    location, scale and missing modes; name what matters to you with ``features``, for instance the energy of a band of
    frequencies, to which distances between whole images are nearly blind.

    The score is the mean of :math:`-\frac{1}{d} \log_2 p(u) - \log_2 w` over the held-out examples, in bits per
    dimension. A prior without a density, such as :class:`~numpyro_inverse.distributions.Pushforward`, has none.

    Args:
        prior: a NumPyro distribution without batch shape.
        held_out: examples that took no part in training, independent of each other.
        rng_key: a JAX random key.
        num_draws: prior draws in the test; it takes as many held-out examples at most, chosen by ``rng_key``.
        features: a JAX function of one event, a number or an array; each is scaled by its standard deviation
            over both samples. Default: the event itself, unscaled.
        training: other examples, more than an event has numbers; a Gaussian with their mean and covariance is scored
            beside the prior.
        bin_width: w, of the bins that the numbers were dequantised from: 1/256 for bytes scaled to [0, 1] makes the
            score bits per byte. With 1 it is the differential cross-entropy, which depends on the unit of u.
        num_permutations: labellings.

    Raises:
        TypeError: ``prior`` is no distribution, ``features`` no function that returns one array; what are no real
            numbers.
        ValueError: a batch shape, shapes other than the prior's event, fewer than 10 examples or draws, numbers that
            are not finite, ``training`` without a covariance of full rank, a bin width that is not positive.

    References:
        Gretton et al., JMLR 13 (2012) 723-773, lemma 6 (the statistic); Theis, van den Oord & Bethge, ICLR 2016,
        section 3.1 (bits per dimension of dequantised data).

    >>> check = prior_predictive_check(flow, test_images, rng_key=rng_key, bin_width=1 / 256)
    >>> print(check.verdict())
    """
    name = "prior_predictive_check"
    check_instance(name, "prior", prior, Distribution, "a NumPyro distribution")
    if prior.batch_shape:
        raise ValueError(f"{name}: `prior` must have no batch shape; got {prior.batch_shape}.")
    check_key(name, "rng_key", rng_key)
    num_draws = check_count(name, "num_draws", num_draws, 10)
    num_permutations = check_permutations(name, num_permutations)
    bin_width = check_positive_number(name, "bin_width", bin_width)
    if features is not None:
        check_callable(name, "features", features, "a function of one event")
    rows = event_rows(name, "held_out", held_out, prior, minimum=10)
    other = None if training is None else event_rows(name, "training", training, prior, minimum=2)

    key_draws, key_subset, key_test = jax.random.split(rng_key, 3)
    draws = event_rows(name, "prior draws", prior.sample(key_draws, (num_draws,)), prior)
    subset = rows[np.asarray(jax.random.permutation(key_subset, len(rows)))[:num_draws]]
    x, y = (draws, subset) if features is None else _scaled_features(name, features, draws, subset)
    test = mmd(jnp.asarray(x), jnp.asarray(y), key_test, num_permutations=num_permutations)

    width = np.log2(bin_width)
    scores = _bits(prior, rows)
    found: dict[str, Any] = {}
    if scores is not None:
        found |= dict(zip(("bits_per_dimension", "standard_error"), _mean(scores - width), strict=True))
    if other is not None:
        gaussian = _gaussian_bits(name, rows, other)
        found["gaussian_bits_per_dimension"] = _mean(gaussian - width)[0]
        if scores is not None:
            found |= dict(zip(("gain", "gain_standard_error"), _mean(gaussian - scores), strict=True))
    return PriorPredictiveCheck(
        test.name,
        test.statistic,
        test.null,
        test.p_value,
        num_held_out=len(rows),
        draws=draws[: min(SHOWN, len(subset))],
        examples=subset[: min(SHOWN, len(draws))],
        **found,
    )


def _scaled_features(
    name: str, features: Callable, draws: np.ndarray, subset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # The scale is the same under every relabelling, so the permutation null stays exact.
    both = jnp.asarray(np.concatenate([draws, subset]))
    returned(name, "features(u)", features, both[0])
    found = jax.lax.map(features, both, batch_size=CHUNK)
    rows = np.asarray(found, float).reshape(len(found), -1)
    if not np.all(np.isfinite(rows)):
        raise ValueError(f"{name}: `features` returned numbers that are not finite.")
    spread = np.std(rows, axis=0)
    rows = rows / np.where(spread > 0, spread, 1.0)
    return rows[: len(draws)], rows[len(draws) :]


def _bits(prior: Distribution, rows: np.ndarray) -> Float[np.ndarray, " n"] | None:
    """Minus the log density of each row to base 2, per dimension; None where there is no density."""
    log_prob = jax.jit(prior.log_prob)
    try:
        found = [np.asarray(log_prob(jnp.asarray(rows[i : i + CHUNK])), float) for i in range(0, len(rows), CHUNK)]
    except NotImplementedError:
        return None
    log_p = np.concatenate(found)
    if np.any(np.isnan(log_p)):
        raise ValueError(
            f"prior_predictive_check: the prior's density is not a number for {np.sum(np.isnan(log_p))} of {len(rows)} "
            "held-out examples; are they in the range that it was trained on?"
        )
    return -log_p / (rows[0].size * np.log(2))


def _gaussian_bits(name: str, rows: np.ndarray, training: np.ndarray) -> Float[np.ndarray, " n"]:
    flat, fitted = (v.reshape(len(v), -1).astype(float) for v in (rows, training))
    d = flat.shape[1]
    try:
        root = np.linalg.cholesky(np.atleast_2d(np.cov(fitted, rowvar=False)))
    except np.linalg.LinAlgError:
        root = np.zeros((d, d))
    diagonal = np.diag(root)
    if len(fitted) <= d or np.min(diagonal) <= 1e-7 * np.max(diagonal):
        raise ValueError(
            f"{name}: the covariance of `training` is singular, {len(fitted)} examples of {d} numbers; give more "
            "examples, or dequantised ones."
        )
    white = solve_triangular(root, (flat - np.mean(fitted, axis=0)).T, lower=True)
    nats = 0.5 * np.sum(white**2, axis=0) + np.sum(np.log(diagonal)) + 0.5 * d * np.log(2 * np.pi)
    return nats / (d * np.log(2))


def _mean(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean and standard error."""
    if not np.all(np.isfinite(values)):
        return (float("inf") if np.any(values == np.inf) else float("-inf")), float("nan")
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
