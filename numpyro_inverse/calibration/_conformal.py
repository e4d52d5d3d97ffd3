"""Credible sets corrected on held-out simulations, with a guarantee for any posterior approximation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_finite,
    check_fraction,
    check_instance,
    check_key,
    check_real,
    check_static,
    describe,
)
from numpyro_inverse.calibration._arguments import check_values

HERE = "conformalize"
FEWEST = 20  # simulations


class Conformal(NamedTuple):
    r"""Credible sets of a stated level, from draws of an approximation and how much wider they must be.

    An interval is :math:`[l - w (u - l), u + w (u - l)]`, with l and u the draws' own quantiles at
    :math:`(1 \mp \mathrm{level}) / 2`; a region of highest density has all values denser than the draws' quantile at
    ``1 - level``, less the ``drop``.

    Attributes:
        level: of the sets.
        widening: w, by site, for each of its numbers: negative where the draws are too wide; infinite where only the
            whole line is safe.
        drop: of the log density; None if it was not studied.
    """

    level: float
    widening: dict[str, Float[np.ndarray, "*site"]]
    drop: float | None

    def interval(
        self, draws: Float[Array, "draws *site"], site: str
    ) -> tuple[Float[Array, "*site"], Float[Array, "*site"]]:
        """Ends of the corrected interval of each number of a site.

        Args:
            draws: for some data, as many as the study had, made in the same way.
            site: their name.

        Raises:
            TypeError: ``site`` is no name, ``draws`` are no real numbers.
            ValueError: a site that was not studied; draws of another shape.
        """
        where = "Conformal.interval"
        if check_instance(where, "site", site, str, "the name of a site") not in self.widening:
            raise ValueError(f"{where}: `site` must be one that was studied, {', '.join(self.widening)}; got {site!r}.")
        draws = check_real(where, "draws", draws)
        shape = jnp.shape(draws)
        if not shape or shape[0] == 0 or shape[1:] != self.widening[site].shape:
            raise ValueError(
                f"{where}: `draws` of {site!r} must have shape {self.widening[site].shape} after their number; got "
                f"{shape}."
            )
        low, high = _ends(jnp.asarray(draws), self.level)
        change = jnp.asarray(self.widening[site], low.dtype) * (high - low)
        return low - change, high + change

    def density_threshold(self, log_probs: Float[Array, " draws"]) -> Float[Array, ""]:
        """Where the corrected region of highest density begins, from the log densities of the draws for some data.

        Raises:
            TypeError: what are no real numbers.
            ValueError: densities were not studied; no draw.
        """
        where = "Conformal.density_threshold"
        if self.drop is None:
            raise ValueError(f"{where}: densities were not studied; give `log_prob` to `conformalize`.")
        log_probs = check_real(where, "log_probs", log_probs)
        if jnp.ndim(log_probs) == 0 or jnp.size(log_probs) == 0:
            raise ValueError(f"{where}: `log_probs` must be one number for each draw; got {describe(log_probs)}.")
        return jnp.quantile(jnp.asarray(log_probs), 1 - self.level) - self.drop

    def verdict(self, level: float = 0.05) -> str:
        """One sentence: how the corrected sets differ from the draws' own."""
        parts = []
        for site, w in self.widening.items():
            low, high = f"{2 * np.min(w):.0%}", f"{2 * np.max(w):.0%}"
            parts.append(f"{site}: wider by {low if low == high else f'{low} to {high}'}")
        return f"Intervals that have the truth with {self.level:.0%}, relative to the draws' own: {'; '.join(parts)}."


def _ends(draws: Array, level: float) -> tuple[Array, Array]:
    low, high = jnp.quantile(draws, jnp.array([(1 - level) / 2, (1 + level) / 2]), axis=0)
    return low, high


def conformalize(
    inference: Callable[[Array, Any], Mapping[str, Array]],
    truths: Mapping[str, Float[Array, "n *site"]],
    data: Any,
    rng_key: Key[Array, ""],
    *,
    level: float = 0.9,
    log_prob: Callable[[Mapping[str, Array], Any], Array] | None = None,
    batch_size: int = 100,
) -> Conformal:
    r"""Find sets that have the truth with a stated probability, whatever the quality of a posterior approximation.

    For n held-out simulations :math:`(\theta_i, y_i)`, exchangeable with the truth and data to come, the score of
    :math:`\theta_i` is how much the interval of the draws for :math:`y_i` must be widened to have it,
    :math:`\max(l_i - \theta_i, \theta_i - u_i) / (u_i - l_i)`; the :math:`\lceil (n + 1) \mathrm{level} \rceil`-th
    smallest is enough for the next truth with probability ``level`` at least, on average over data sets. It says
    nothing of any one data set. Densities are scored likewise.

    Args:
        inference: from a key and data to draws by site, draws first, that JAX can trace: a fitted
            :class:`~numpyro_inverse.sbi.NPE`.
        truths: held-out latents, by site; not used in training.
        data: simulated from them: an array, or by site.
        rng_key: a JAX random key.
        level: of the sets.
        log_prob: from latents by site (draws first) and data to log densities, for regions of highest density:
            ``lambda values, y: npe.posterior(y).log_prob(values)``.
        batch_size: data sets at a time.

    Raises:
        TypeError: ``inference`` or ``log_prob`` is no function or returns something else than it should, ``truths`` is
            no mapping of real numbers, ``data`` are no arrays.
        ValueError: fewer than 20 simulations, arrays of different lengths, truths that are not finite; draws that lack
            a site, have another shape, are not finite or do not differ; log densities that are not numbers.

    References:
        Romano, Patterson & Candès, NeurIPS 2019, theorem 1 (scores of intervals); Patel, McNamara, Loper, Regier &
        Tewari, arXiv:2305.19435 (posteriors).
    """
    check_key(HERE, "rng_key", rng_key)
    level = check_fraction(HERE, "level", level)
    batch_size = check_count(HERE, "batch_size", batch_size)
    check_callable(HERE, "inference", inference, "a function of a key and data")
    if log_prob is not None:
        check_callable(HERE, "log_prob", log_prob, "a function of latents by site and data")
    check_instance(HERE, "truths", truths, Mapping, "a dict of latents by site")
    if not truths:
        raise ValueError(f"{HERE}: `truths` must have one site at least; got none.")
    truths = {name: jnp.asarray(check_finite(HERE, f"truths[{name!r}]", v)) for name, v in truths.items()}
    lengths = {_length("truths", v) for v in truths.values()}
    lengths |= {_length("data", v) for v in jax.tree.leaves(data) or [data]}
    if len(lengths) != 1:
        raise ValueError(
            f"{HERE}: `truths` and `data` must have one row each per simulation; got {sorted(lengths)} rows."
        )
    (n,) = lengths
    if n < FEWEST:
        raise ValueError(f"{HERE}: `truths` of {n} simulations are too few for a level; give {FEWEST} at least.")

    def one(key: Array, truth: dict[str, Array], y: Any) -> tuple[dict[str, Array], Array | None]:
        draws = check_instance(HERE, "inference(key, data)", inference(key, y), Mapping, "a dict of draws by site")
        missing = [name for name in truth if name not in draws]
        if missing:
            raise ValueError(f"{HERE}: `inference` draws no site {missing[0]!r}, only {', '.join(map(str, draws))}.")
        found = {}
        for name, value in truth.items():
            drawn = jnp.asarray(check_real(HERE, f"inference(key, data)[{name!r}]", draws[name]))
            if drawn.shape[1:] != value.shape or drawn.size == 0:
                raise ValueError(
                    f"{HERE}: `inference` must draw site {name!r} in shape (draws, *{value.shape}), as in `truths`; "
                    f"got {drawn.shape}."
                )
            low, high = _ends(drawn, level)
            found[name] = jnp.maximum(low - value, value - high) / (high - low)
        if log_prob is None:
            return found, None
        here = _log_probs(log_prob(jax.tree.map(lambda v: v[None], truth), y))[0]
        dense = _log_probs(log_prob({name: draws[name] for name in truth}, y))
        return found, jnp.quantile(dense, 1 - level) - here

    keys = jax.random.split(rng_key, n)
    scores, drops = jax.jit(
        lambda keys, truths, data: jax.lax.map(lambda row: one(*row), (keys, truths, data), batch_size=batch_size)
    )(keys, truths, data)
    for name, value in scores.items():
        if not np.all(np.isfinite(value)):
            raise ValueError(
                f"{HERE}: `inference` draws {name!r} not finite, or all the same so that they have no interval, for "
                f"{int(np.sum(~np.isfinite(value).reshape(n, -1).all(axis=1)))} of {n} data sets."
            )
    if drops is not None and np.any(np.isnan(drops)):
        raise ValueError(f"{HERE}: `log_prob` is not a number for {np.sum(np.isnan(drops))} of {n} data sets.")
    widening = {name: _enough(np.asarray(v), level) for name, v in scores.items()}
    return Conformal(level, widening, None if drops is None else float(_enough(np.asarray(drops), level)))


def _length(argument: str, value: Any) -> int:
    """The number of simulations that an array has rows for."""
    check_static(HERE, argument, value)
    check_values(HERE, argument, value)
    if not hasattr(value, "shape") or np.ndim(value) == 0:
        raise TypeError(f"{HERE}: `{argument}` must be arrays with a row for each simulation; got {describe(value)}.")
    return len(value)


def _log_probs(found: Any) -> Array:
    found = jnp.asarray(check_real(HERE, "log_prob(values, data)", found))
    if found.ndim != 1:
        raise ValueError(f"{HERE}: `log_prob` must return one number for each draw; got shape {found.shape}.")
    return found


def _enough(scores: Float[np.ndarray, "n *site"], level: float) -> Float[np.ndarray, "*site"]:
    """The score that the next one does not exceed with probability ``level``."""
    k = int(np.ceil((len(scores) + 1) * level - 1e-9))
    ordered = np.sort(np.asarray(scores, float), axis=0)
    return ordered[k - 1] if k <= len(scores) else np.full(scores.shape[1:], np.inf)
