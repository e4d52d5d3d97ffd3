"""Credible sets corrected on held-out simulations, with a guarantee for any posterior approximation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from numpyro_inverse._checks import check_count, check_fraction, check_key

HERE = "conformalize"
JOINT = "joint"  # the depth of a truth by its density
FEWEST = 20  # simulations


class Conformal(NamedTuple):
    r"""How deep truths lie among the draws for their data, and the credible sets that follow.

    The truth has depth d among S draws if :math:`d = \min(r, S - r)` of them are on its thinner side, r below it; by
    density, if d of them are less dense. The set of depth j has all values of depth j and more: between the j-th
    smallest and j-th largest draw, or denser than the j-th least dense draw; that of depth 0 is everything.

    Attributes:
        depths: sorted, held-out simulations first: by site, for each of its numbers; ``joint`` by density.
        num_draws: S.
    """

    depths: dict[str, Int[np.ndarray, "n *site"]]
    num_draws: int

    def depth(self, site: str, level: float) -> Int[np.ndarray, "*site"]:
        r"""The depth of the set that has the truth with probability ``level`` or more: the k-th smallest depth of n
        held-out simulations, :math:`k = \lfloor (n + 1)(1 - \mathrm{level}) \rfloor`; 0 for k = 0.

        Raises:
            ValueError: a site that was not studied; a level that is not within (0, 1).
        """
        level = check_fraction("Conformal", "level", level)
        if site not in self.depths:
            raise ValueError(f"Conformal: site {site!r} was not studied, only {', '.join(self.depths)}.")
        depths = self.depths[site]
        k = int(np.floor((len(depths) + 1) * (1 - level) + 1e-9))
        return depths[k - 1] if k else np.zeros_like(depths[0])

    def interval(
        self, draws: Float[Array, "draws *site"], site: str, level: float = 0.9
    ) -> tuple[Float[np.ndarray, "*site"], Float[np.ndarray, "*site"]]:
        """Ends of the corrected interval of each number of a site, infinite where only that is safe.

        Args:
            draws: posterior draws for some data: as many as the study had, made in the same way.
            site: their name.
            level: of the interval.
        """
        rows = np.sort(np.asarray(draws, float), axis=0)
        if rows.shape != (self.num_draws, *self.depths[site].shape[1:]):
            raise ValueError(
                f"Conformal: `draws` of {site!r} must have shape {(self.num_draws, *self.depths[site].shape[1:])}; got "
                f"{rows.shape}."
            )
        j = self.depth(site, level)
        low = np.take_along_axis(rows, np.maximum(j - 1, 0)[None], axis=0)[0]
        high = np.take_along_axis(rows, np.minimum(self.num_draws - j, self.num_draws - 1)[None], axis=0)[0]
        return np.where(j > 0, low, -np.inf), np.where(j > 0, high, np.inf)

    def density_threshold(self, log_probs: Float[Array, " draws"], level: float = 0.9) -> float:
        """Where the corrected region of highest density begins, from the log densities of the draws for some data."""
        rows = np.sort(np.asarray(log_probs, float))
        if rows.shape != (self.num_draws,):
            raise ValueError(f"Conformal: `log_probs` must have shape {(self.num_draws,)}; got {rows.shape}.")
        j = int(self.depth(JOINT, level))
        return float(rows[j - 1]) if j else -np.inf

    def verdict(self, level: float = 0.05) -> str:
        """One sentence: how the corrected 90 % sets differ from the draws' own."""
        own = (1 - 0.9) / 2 * (self.num_draws + 1)
        parts = []
        for site in self.depths:
            nominal = own * (2 if site == JOINT else 1)
            share = np.mean(self.depth(site, 0.9) / nominal)
            parts.append(f"{site} {share:.2f}")
        return (
            f"Depth of the corrected 90 % sets relative to that of an exact posterior, by site: {', '.join(parts)} "
            "(below 1: the draws are too narrow; above 1: too wide)."
        )


def conformalize(
    inference: Callable[[Array, Any], Mapping[str, Array]],
    truths: Mapping[str, Float[Array, "n *site"]],
    data: Any,
    rng_key: Key[Array, ""],
    *,
    log_prob: Callable[[Mapping[str, Array], Any], Array] | None = None,
    batch_size: int = 100,
) -> Conformal:
    r"""Find sets that have the truth with a stated probability, whatever the quality of a posterior approximation.

    For n held-out simulations :math:`(\theta_i, y_i)`, exchangeable with the truth and data to come, the depths of
    :math:`\theta_i` among draws for :math:`y_i` tell how deep a set may begin: a set of :meth:`Conformal.depth` has the
    next truth with probability ``level`` at least, on average over data sets. It says nothing of any one data set.

    Args:
        inference: from a key and data to draws by site, draws first, that JAX can trace: a fitted
            :class:`~numpyro_inverse.sbi.NPE`.
        truths: held-out latents, by site; not used in training.
        data: simulated from them: an array, or by site.
        rng_key: a JAX random key.
        log_prob: from latents by site (draws first) and data to log densities, for regions of highest density:
            ``lambda values, y: npe.posterior(y).log_prob(values)``.
        batch_size: data sets at a time.

    Raises:
        ValueError: fewer than 20 simulations, arrays of different lengths, draws that lack a site.

    References:
        Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005), proposition 2.3; Patel, McNamara,
        Loper, Regier & Tewari, arXiv:2305.19435 (posteriors).
    """
    check_key(HERE, "rng_key", rng_key)
    batch_size = check_count(HERE, "batch_size", batch_size)
    truths = {name: jnp.asarray(v) for name, v in truths.items()}
    lengths = {len(v) for v in jax.tree.leaves((truths, data))}
    if len(lengths) != 1:
        raise ValueError(
            f"{HERE}: `truths` and `data` must have one row each per simulation; got {sorted(lengths)} rows."
        )
    (n,) = lengths
    if n < FEWEST:
        raise ValueError(f"{HERE}: {n} simulations are too few for a level; give {FEWEST} at least.")

    def one(key: Array, truth: dict[str, Array], y: Any) -> tuple[dict[str, Array], Array]:
        draws = inference(key, y)
        missing = [name for name in truth if name not in draws]
        if missing:
            raise ValueError(f"{HERE}: `inference` draws no site {missing[0]!r}, only {', '.join(draws)}.")
        count = len(draws[next(iter(truth))])
        found = {}
        for name, value in truth.items():
            below, above = jnp.sum(draws[name] < value, axis=0), jnp.sum(draws[name] > value, axis=0)
            found[name] = jnp.minimum(below, above)
        if log_prob is not None:
            here = log_prob(jax.tree.map(lambda v: v[None], truth), y)[0]
            found[JOINT] = jnp.sum(log_prob({name: draws[name] for name in truth}, y) < here)
        return found, jnp.asarray(count)

    keys = jax.random.split(rng_key, n)
    depths, counts = jax.jit(
        lambda keys, truths, data: jax.lax.map(lambda row: one(*row), (keys, truths, data), batch_size=batch_size)
    )(keys, truths, data)
    return Conformal({name: np.sort(np.asarray(v), axis=0) for name, v in depths.items()}, int(counts[0]))
