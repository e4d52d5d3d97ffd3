"""How many directions a generator really has where the posterior is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro.distributions import Distribution

from numpyro_inverse._checks import check_count, check_positive_number
from numpyro_inverse.calibration.priors._latents import base_of, latent_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class EffectiveDimension:
    r"""Singular values of a generator's Jacobian, and the dimensions that they stand for.

    Attributes:
        singular_values: s per draw, largest first, in the unit of u per prior standard deviation of the latent.
        participation_ratio: per draw, :math:`(\sum_i s_i^2)^2 / \sum_i s_i^4`: r for r equal values and no others.
        above_noise: per draw, the number of values above ``noise``, or None.
        noise: as given.
    """

    singular_values: Float[np.ndarray, "draws r"] = field(repr=False)
    participation_ratio: Float[np.ndarray, " draws"] = field(repr=False)
    above_noise: Int[np.ndarray, " draws"] | None = field(repr=False)
    noise: float | None

    @property
    def mean(self) -> float:
        """Of the participation ratio over draws."""
        return float(np.mean(self.participation_ratio))

    @property
    def spread(self) -> float:
        """Standard deviation of the participation ratio over draws."""
        return float(np.std(self.participation_ratio))

    @property
    def mean_above_noise(self) -> float | None:
        """Of the number of directions above the noise, over draws."""
        return None if self.above_noise is None else float(np.mean(self.above_noise))

    @property
    def spread_above_noise(self) -> float | None:
        """Standard deviation of the number of directions above the noise, over draws."""
        return None if self.above_noise is None else float(np.std(self.above_noise))

    def verdict(self, level: float = 0.05) -> str:
        """One sentence; ``level`` is not used, for this is no test."""
        text = f"The generator has effective dimension {self.mean:.3g} +- {self.spread:.2g} (participation ratio)"
        if self.above_noise is not None:
            text += f" and {self.mean_above_noise:.3g} +- {self.spread_above_noise:.2g} directions above the noise"
        return f"{text}, of {self.singular_values.shape[1]}, over {len(self.singular_values)} draws."

    def plot(self) -> Figure:
        """Singular values: median and central 90 % over draws."""
        from matplotlib import pyplot as plt

        low, middle, high = np.quantile(self.singular_values, [0.05, 0.5, 0.95], axis=0)
        index = np.arange(1, len(middle) + 1)
        figure, ax = plt.subplots(figsize=(4.2, 2.8), layout="constrained")
        ax.fill_between(index, low, high, color="C0", alpha=0.3, lw=0)
        ax.plot(index, middle, ".-", ms=4, label="median and 90 % over draws")
        if np.min(low) > 0:
            ax.set_yscale("log")
        if self.noise is not None:
            ax.axhline(self.noise, color="0.4", lw=0.8, ls="--", label="noise")
        ax.set_xlabel("direction")
        ax.set_ylabel("singular value")
        ax.legend(frameon=False, fontsize=8)
        return figure


def effective_dimension(
    prior: Distribution,
    latent_draws: Float[Array, "*draws_and_latent"] | Mapping[str, Array],
    *,
    noise: float | None = None,
    site: str | None = None,
    batch_size: int = 16,
) -> EffectiveDimension:
    r"""Singular values of :math:`\partial G / \partial z\, L` at posterior latents, with :math:`L L^T` the prior
    covariance of z, so that they do not depend on the scale in which the latent is written.

    A value s means that one prior standard deviation along its direction moves u by s (root of the sum of squares). Of
    the prior variance along it, data u plus white noise of standard deviation ``noise`` leave the fraction
    :math:`1 / (1 + (s / \mathrm{noise})^2)`, to first order: less than half where s is above ``noise``. For data A(u)
    take ``Pushforward(lambda z: A(G(z)), base)``.

    Args:
        prior: a map of a base distribution, with ``from_base``: ``Pushforward``, ``Flow``, a field.
        latent_draws: posterior draws of the latent, its event axes last; or draws by site with a site ``u_latent``. A
            few dozen are enough.
        noise: standard deviation, in the unit of u.
        site: which latent, where there are several: ``"u"`` or ``"u_latent"``.
        batch_size: Jacobians at a time, each of the size of u times the size of z.

    Raises:
        TypeError: ``prior`` is no map of a base distribution; draws that are no real numbers.
        ValueError: a batch shape, no latent site, shapes other than the base's event, numbers that are not finite, a
            base without a finite variance, ``noise`` or ``batch_size`` not positive, a Jacobian that is zero or not
            finite.

    References:
        Spantini et al., SIAM J. Sci. Comput. 37 (2015) A2451-A2487, theorem 2.3 (directions that data inform).
    """
    name = "effective_dimension"
    base = base_of(name, prior)
    if not hasattr(prior, "from_base"):
        raise TypeError(f"{name}: `prior` must have a method `from_base`; {type(prior).__name__} has none.")
    noise = None if noise is None else check_positive_number(name, "noise", noise)
    batch_size = check_count(name, "batch_size", batch_size)
    z = latent_rows(name, "latent_draws", base, latent_draws, site)
    root = _root(name, base)
    size, k = prod(prior.event_shape), prod(base.event_shape)
    jacobian = jax.jacfwd if k <= size else jax.jacrev

    def values(at: Float[Array, "*latent"]) -> Float[Array, " r"]:
        found = jacobian(prior.from_base)(at).reshape(size, k)
        return jnp.linalg.svd(found * root if root.ndim == 1 else found @ root, compute_uv=False)

    s = np.asarray(jax.lax.map(values, jnp.asarray(z), batch_size=min(batch_size, len(z))), float)
    if not np.all(np.isfinite(s)) or np.any(s[:, 0] == 0):
        raise ValueError(f"{name}: `prior` has a generator whose Jacobian is zero or not finite at some latents.")
    relative = (s / s[:, :1]) ** 2
    return EffectiveDimension(
        s,
        np.sum(relative, axis=1) ** 2 / np.sum(relative**2, axis=1),
        None if noise is None else np.sum(s > noise, axis=1),
        noise,
    )


def _root(name: str, base: Distribution) -> Float[Array, " k"] | Float[Array, "k k"]:
    """A root of the base's covariance; its diagonal where the base's elements are independent."""
    covariance: Any = getattr(base, "covariance_matrix", None)
    try:
        found = jnp.sqrt(base.variance).ravel() if covariance is None else jnp.linalg.cholesky(covariance)
    except NotImplementedError:
        found = jnp.full((1,), jnp.nan)
    if not np.all(np.isfinite(found)):
        raise ValueError(
            f"{name}: the base of `prior` must have a finite variance, the scale of its latents; got "
            f"{type(base).__name__}."
        )
    return found
