"""A posterior that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution


@dataclass(frozen=True)
class Reference:
    """Moments of a posterior by site, and draws from it.

    Attributes:
        mean: of each site's shape.
        sd: likewise.
        draw: ``(key, number) -> {site: draws}``.
        covariance: of each raveled site where it is small enough to be dense.
        log_evidence: log density of the data, where it is known.
    """

    mean: dict[str, Float[np.ndarray, "..."]]
    sd: dict[str, Float[np.ndarray, "..."]]
    draw: Callable[[Key[Array, ""], int], dict[str, Array]]
    covariance: dict[str, Float[np.ndarray, "n n"]] = field(default_factory=dict)
    log_evidence: float | None = None

    @classmethod
    def of(cls, **sites: Distribution) -> Reference:
        """Independent sites with known distributions, such as a conjugate posterior.

        Raises:
            ValueError: no site.
        """
        if not sites:
            raise ValueError("Reference.of: give at least one site, as `site=distribution`.")

        def draw(key: Array, number: int) -> dict[str, Array]:
            keys = jax.random.split(key, len(sites))
            return {name: fn.sample(k, (number,)) for k, (name, fn) in zip(keys, sites.items(), strict=True)}

        mean = {name: np.asarray(fn.mean, float) for name, fn in sites.items()}
        return cls(mean, {name: np.sqrt(np.asarray(fn.variance, float)) for name, fn in sites.items()}, draw)
