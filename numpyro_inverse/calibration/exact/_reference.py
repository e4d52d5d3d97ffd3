"""A posterior that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution

from numpyro_inverse._checks import check_broadcast, check_callable, check_instance, check_number, check_real


@dataclass(frozen=True)
class Reference:
    """Moments of a posterior by site, and draws from it.

    Attributes:
        mean: of each site's shape.
        sd: likewise.
        draw: ``(key, number) -> {site: draws}``.
        covariance: of each raveled site where it is small enough to be dense.
        log_evidence: log density of the data, where it is known.

    Raises:
        TypeError: moments that are no real numbers by site, ``draw`` is no function.
        ValueError: no site, ``mean`` and ``sd`` of different sites or shapes, a covariance of another size.
    """

    mean: dict[str, Float[np.ndarray, "..."]]
    sd: dict[str, Float[np.ndarray, "..."]]
    draw: Callable[[Key[Array, ""], int], dict[str, Array]]
    covariance: dict[str, Float[np.ndarray, "n n"]] = field(default_factory=dict)
    log_evidence: float | None = None

    def __post_init__(self) -> None:
        where = "Reference"
        for argument in ("mean", "sd", "covariance"):
            given = check_instance(where, argument, getattr(self, argument), Mapping, "a dict by site")
            found = {k: np.asarray(check_real(where, f"{argument}[{k!r}]", v), float) for k, v in given.items()}
            object.__setattr__(self, argument, found)
        if not self.mean or set(self.mean) != set(self.sd):
            raise ValueError(
                f"{where}: `mean` and `sd` must have the same sites, one at least; got {list(self.mean)} and "
                f"{list(self.sd)}."
            )
        for name, value in self.mean.items():
            check_broadcast(f"{where}, site {name!r}", mean=value.shape, sd=self.sd[name].shape)
        for name, value in self.covariance.items():
            if name not in self.mean or value.shape != (self.mean[name].size,) * 2:
                raise ValueError(f"{where}: `covariance[{name!r}]` must be square, by `mean`; got shape {value.shape}.")
        check_callable(where, "draw", self.draw, "a function of a key and a number")
        if self.log_evidence is not None:
            check_number(where, "log_evidence", self.log_evidence)

    @classmethod
    def of(cls, **sites: Distribution) -> Reference:
        """Independent sites with known distributions, such as a conjugate posterior.

        Raises:
            TypeError: what is no distribution.
            ValueError: no site.
        """
        if not sites:
            raise ValueError("Reference.of: give at least one site, as `site=distribution`.")
        for name, fn in sites.items():
            check_instance("Reference.of", name, fn, Distribution, "a NumPyro distribution")

        def draw(key: Array, number: int) -> dict[str, Array]:
            keys = jax.random.split(key, len(sites))
            return {name: fn.sample(k, (number,)) for k, (name, fn) in zip(keys, sites.items(), strict=True)}

        mean = {name: np.asarray(fn.mean, float) for name, fn in sites.items()}
        return cls(mean, {name: np.sqrt(np.asarray(fn.variance, float)) for name, fn in sites.items()}, draw)
