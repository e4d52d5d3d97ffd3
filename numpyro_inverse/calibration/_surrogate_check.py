"""A learned law against its simulator, where the posterior went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import check_count, check_finite, check_instance, check_key, check_static
from numpyro_inverse.calibration.two_sample import SignificanceTest, c2st
from numpyro_inverse.calibration.two_sample._significance import check_permutations
from numpyro_inverse.sbi import NLE

HERE = "surrogate_check"


class SurrogateCheck(NamedTuple):
    """Whether a surrogate's posterior may be trusted.

    Attributes:
        test: the surrogate's draws against the simulator's, at arguments from the posterior.
        outside: share of those arguments farther from the training set than all but 1 in 1000 of its own.
    """

    test: SignificanceTest
    outside: float

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        where = f"{self.outside:.1%} of the posterior's arguments are outside of what the surrogate was trained on"
        return f"Surrogate against simulator at the posterior: {self.test.verdict(level)} {where}."


def surrogate_check(
    estimator: NLE,
    draws: Mapping[str, Float[Array, "draws *site"]],
    rng_key: Key[Array, ""],
    *,
    num: int = 500,
    num_permutations: int = 499,
) -> SurrogateCheck:
    r"""Does :math:`q(x \mid \theta)` equal :math:`p(x \mid \theta)` where the posterior is?

    A surrogate that is right on average over the prior may be wrong in the small region that data select, and its
    posterior with it. The simulator runs at ``num`` posterior draws, the surrogate is drawn at ``num`` others, and a
    classifier two-sample test compares the pairs of arguments and values.

    Args:
        estimator: a fitted :class:`~numpyro_inverse.sbi.NLE`.
        draws: of the posterior of its ``model``, by latent site, draws first (``mcmc.get_samples()``).
        rng_key: a JAX random key.
        num: draws of either.
        num_permutations: of the test.

    Raises:
        TypeError: ``estimator`` is no ``NLE``, ``draws`` no mapping of real numbers.
        ValueError: fewer than 2 ``num`` draws, a latent without any, or one that is not finite.
    """
    check_key(HERE, "rng_key", rng_key)
    check_instance(HERE, "estimator", estimator, NLE, "a fitted sbi.NLE")
    law, _, trained_at = estimator.learned
    num = check_count(HERE, "num", num)
    check_permutations(HERE, num_permutations)
    check_instance(HERE, "draws", draws, Mapping, "draws by site, such as `mcmc.get_samples()`")
    missing = [name for name in estimator.latents if name not in draws]
    if missing:
        raise ValueError(f"{HERE}: `draws` have no site {missing[0]!r}, only {', '.join(map(str, draws))}.")
    given = {name: np.asarray(_draws(name, draws[name])) for name in estimator.latents}
    length = min(len(v) for v in given.values())
    if length < 2 * num:
        raise ValueError(
            f"{HERE}: `draws` are {length}; {2 * num} are needed, half for the simulator and half for the surrogate."
        )
    key_choose, key_simulate, key_surrogate, key_test = jax.random.split(rng_key, 4)
    chosen = np.asarray(jax.random.choice(key_choose, length, (2 * num,), replace=False))
    latents = {name: value[chosen] for name, value in given.items()}
    simulations = estimator.simulate(key_simulate, 2 * num, latents=latents, progress_bar=False)
    args, values = simulations.pairs(estimator.site)
    half = len(values) // 2
    keys = jax.random.split(key_surrogate, len(values) - half)
    surrogate = jax.jit(jax.vmap(law.sample))(keys, *(arg[half:] for arg in args))
    features = np.asarray(jax.jit(jax.vmap(law.features))(*args))
    z = np.concatenate([law.event.vectors(values[:half]), law.event.vectors(np.asarray(surrogate))])
    rows = np.concatenate([features, z], axis=1)
    rows = rows[:, rows.std(axis=0) > 0]
    test = c2st(jnp.asarray(rows[:half]), jnp.asarray(rows[half:]), key_test, num_permutations=num_permutations)
    return SurrogateCheck(test, trained_at.share_outside(features))


def _draws(name: str, value: Array) -> Array:
    where = f"draws[{name!r}]"
    found = check_finite(HERE, where, check_static(HERE, where, value))
    if np.ndim(found) == 0:
        raise ValueError(f"{HERE}: `{where}` must be draws along the first axis; got one number.")
    return found
