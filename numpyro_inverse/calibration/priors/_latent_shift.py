"""Is a posterior in the tail of its prior, seen in the latent?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution, Normal
from scipy.stats import chi2

from numpyro_inverse._checks import check_count, check_fraction, check_key
from numpyro_inverse.calibration.priors._latents import base_of, latent_rows
from numpyro_inverse.distributions._reparametrized import unwrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LatentShift:
    r"""Where posterior draws of the latent lie in its prior.

    Attributes:
        statistic: per draw, how far out it is: :math:`|z|^2` under a standard normal base, else
            :math:`-\log p_0(z)`.
        tail_probability: per draw, the prior probability of a statistic at least as large.
        one_draw: the last of ``tail_probability``. Over data sets that the model made itself it is uniform.
        mean_tail_probability: the mean over draws. It is *not* uniform; see :func:`latent_shift`.
        p_value: min(1, 2 ``mean_tail_probability``): at most ``level`` with probability at most ``level``.
        mean_distance: the posterior mean's Mahalanobis distance from the prior mean.
        expected_mean_distance: root of the mean square that it has over data sets, given this posterior's covariance C:
            :math:`(k - \operatorname{tr} \Sigma^{-1} C)^{1/2}`.
        null: prior draws of the statistic; quantiles of chi-squared under a standard normal base.
    """

    statistic: Float[np.ndarray, " draws"] = field(repr=False)
    tail_probability: Float[np.ndarray, " draws"] = field(repr=False)
    one_draw: float
    mean_tail_probability: float
    p_value: float
    mean_distance: float
    expected_mean_distance: float
    null: Float[np.ndarray, " m"] = field(repr=False)

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        level = check_fraction("LatentShift.verdict", "level", level)
        outcome = "is in the tail of" if self.p_value <= level else "is not in the tail of"
        return (
            f"The posterior {outcome} its prior at level {level:g}: a prior draw is farther out than a posterior draw "
            f"with probability {self.mean_tail_probability:.3g} (p <= {self.p_value:.3g}); the posterior mean is "
            f"{self.mean_distance:.3g} prior units from the prior's, {self.expected_mean_distance:.3g} expected."
        )

    def plot(self) -> Figure:
        """The statistic of posterior draws over its law under the prior."""
        from matplotlib import pyplot as plt

        figure, ax = plt.subplots(figsize=(4.5, 2.8), layout="constrained")
        low, high = np.quantile(np.concatenate([self.statistic, self.null]), [0.002, 0.998])
        bins = np.linspace(low, high, 41).tolist()
        ax.hist(self.null, bins=bins, density=True, color="0.8", label="prior")
        ax.hist(self.statistic, bins=bins, density=True, histtype="step", color="C3", label="posterior")
        ax.set_xlabel("squared norm of the latent, or minus its log density")
        ax.set_title(f"mean tail probability {self.mean_tail_probability:.2g}", fontsize=9)
        ax.set_yticks([])
        ax.legend(frameon=False, fontsize=8)
        return figure


def latent_shift(
    prior: Distribution,
    draws: Float[Array, "*draws_and_latent"] | Mapping[str, Array],
    *,
    site: str | None = None,
    rng_key: Key[Array, ""] | None = None,
    num_simulations: int = 10_000,
) -> LatentShift:
    r"""Does a posterior lie where its prior hardly ever draws?

    With :math:`t(z) = |z|^2` for a standard normal base, :math:`-\log p_0(z)` for others, the tail probability of a
    latent is :math:`q(z) = P_{z' \sim p_0}(t(z') \ge t(z))`, by the chi-squared law or by simulation.

    **What the probabilities mean.** The null hypothesis is that the data came from the model: a latent of the prior,
    then data given it. A posterior is narrower than its prior, so its draws spread less than the prior's and cannot be
    compared with it as a sample. But one posterior draw, averaged over data sets, is a prior draw. Hence

    - ``one_draw`` is exactly uniform over data sets: one posterior draw per data set, of many data sets, may be tested
      for uniformity;
    - ``mean_tail_probability``, the mean of q over the draws of one posterior, has mean 1/2 over data sets and
      concentrates there as the data say less, so it is no p-value. It is an average of uniform numbers, and twice such
      an average is a p-value however they depend on each other: ``p_value`` is conservative. Its false-alarm rate is
      half the level where the data determine the latent, and less elsewhere.
    - ``mean_distance`` is 0 for data that say nothing, and its mean square plus :math:`\operatorname{tr} \Sigma^{-1} C`
      is k over data sets, with C the posterior's and :math:`\Sigma` the prior's covariance of the k latents.

    It can only see what the data inform: a latent that they leave free stays at its prior.

    Args:
        prior: a map of a base distribution: ``Pushforward``, ``Flow``, a field.
        draws: posterior draws of the latent, its event axes last; or draws by site, such as ``mcmc.get_samples()`` of
            a whitened model, with a site ``u_latent``. Correlated draws are allowed.
        site: which latent, where there are several: ``"u"`` or ``"u_latent"``.
        rng_key: a JAX random key; needed if the base is not standard normal.
        num_simulations: prior draws where they are needed.

    Raises:
        TypeError: ``prior`` is no map of a base distribution; draws that are no real numbers.
        ValueError: a batch shape, no latent site, shapes other than the base's event, numbers that are not finite, no
            ``rng_key`` where it is needed, fewer than 99 simulations or not more than the latent has numbers.

    References:
        Meng, Annals of Statistics 22 (1994) 1142-1160 (posterior predictive p-values); Vovk & Wang, Biometrika 107
        (2020) 791-808, section 1 (twice an average of p-values is a p-value, and no smaller factor will do).
    """
    name = "latent_shift"
    base = base_of(name, prior)
    if rng_key is not None:
        check_key(name, "rng_key", rng_key)
    num_simulations = check_count(name, "num_simulations", num_simulations)
    z = latent_rows(name, "draws", base, draws, site)
    flat = z.reshape(len(z), -1).astype(float)
    k = flat.shape[1]
    if _is_standard_normal(base):
        statistic = np.sum(flat**2, axis=1)
        tail = chi2.sf(statistic, k)
        null = _chi2_quantiles(k)
        centre, root = np.zeros(k), np.eye(k)
    else:
        if rng_key is None:
            raise ValueError(
                f"{name}: give a `rng_key`; the prior tail of a base that is not standard normal is simulated."
            )
        if num_simulations < max(99, k + 1):
            raise ValueError(
                f"{name}: `num_simulations` must be 99 or more, and more than the latent has numbers ({k}); got "
                f"{num_simulations}."
            )
        simulated = base.sample(rng_key, (num_simulations,))
        statistic = -_joint_log_prob(base, jnp.asarray(z))
        null = -_joint_log_prob(base, simulated)
        if np.any(np.isnan(statistic)):
            raise ValueError(f"{name}: the base of `prior` has a density that is not a number at some `draws`.")
        below = np.searchsorted(np.sort(null), statistic, side="left")
        tail = (1 + len(null) - below) / (1 + len(null))
        rows = np.asarray(simulated, float).reshape(num_simulations, -1)
        centre, root = np.mean(rows, axis=0), np.linalg.cholesky(np.atleast_2d(np.cov(rows, rowvar=False)))
    white = np.linalg.solve(root, (flat - centre).T).T
    within = np.sum(np.var(white, axis=0, ddof=1)) if len(white) > 1 else 0.0
    mean = float(np.mean(tail))
    return LatentShift(
        statistic,
        tail,
        float(tail[-1]),
        mean,
        min(1.0, 2 * mean),
        float(np.linalg.norm(np.mean(white, axis=0))),
        float(np.sqrt(max(k - within, 0.0))),
        null,
    )


def _is_standard_normal(base: Distribution) -> bool:
    inner = unwrapped(base)
    return isinstance(inner, Normal) and bool(
        np.all(np.asarray(inner.loc) == 0) and np.all(np.asarray(inner.scale) == 1)
    )


@cache
def _chi2_quantiles(k: int) -> Float[np.ndarray, " 2000"]:
    return chi2.ppf((np.arange(2000) + 0.5) / 2000, k)


def _joint_log_prob(base: Distribution, z: Array) -> Float[np.ndarray, " n"]:
    return np.asarray(jax.jit(base.log_prob)(z), float)
