"""What the checks of learned priors ask of a prior, its latents and its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from numpyro_inverse._checks import check_real, check_static, describe


def base_of(name: str, prior: Any) -> Distribution:
    """The law of the latent.

    Raises:
        TypeError: ``prior`` is no map of a base distribution.
        ValueError: a batch shape.
    """
    base = getattr(prior, "base_dist", None)
    if not isinstance(prior, Distribution) or not isinstance(base, Distribution):
        raise TypeError(
            f"{name}: `prior` must be a map of a base distribution (`Pushforward`, `Flow`, a field); got "
            f"{describe(prior)}."
        )
    if base.batch_shape:
        raise ValueError(f"{name}: `prior` must have no batch shape; its base has {base.batch_shape}.")
    return base


def latent_rows(
    name: str, argument: str, base: Distribution, draws: Array | Mapping[str, Array], site: str | None
) -> Float[np.ndarray, "n *latent"]:
    """Latents with one leading axis, from an array or from posterior draws by site.

    Raises:
        TypeError: what are no real numbers; a site that is no name.
        ValueError: no such site or several, another shape, no draw, numbers that are not finite.
    """
    if site is not None and not isinstance(site, str):
        raise TypeError(f"{name}: `site` must be the name of a latent; got {describe(site)}.")
    if isinstance(draws, Mapping):
        draws = draws[_latent_site(name, argument, draws, site)]
    rows = np.asarray(check_real(name, argument, check_static(name, argument, draws)))
    shape = base.event_shape
    if rows.ndim < len(shape) or rows.shape[rows.ndim - len(shape) :] != shape:
        raise ValueError(
            f"{name}: latents must have shape (draws, *{shape}), the base's event; got `{argument}` of shape "
            f"{rows.shape}."
        )
    rows = rows.reshape(-1, *shape).astype(jax.dtypes.canonicalize_dtype(float))
    if not len(rows):
        raise ValueError(f"{name}: `{argument}` must have one draw at least; got shape {rows.shape}.")
    if not np.all(np.isfinite(rows)):
        raise ValueError(f"{name}: `{argument}` has numbers that are not finite.")
    return rows


def event_rows(
    name: str, argument: str, values: Array, prior: Distribution, minimum: int = 1
) -> Float[np.ndarray, "n *event"]:
    """Events of ``prior`` with one leading axis.

    Raises:
        TypeError: what are no real numbers.
        ValueError: another shape, fewer than ``minimum``, numbers that are not finite.
    """
    shape = prior.event_shape
    rows = np.asarray(check_real(name, argument, check_static(name, argument, values)))
    if rows.shape == shape and minimum == 1:
        rows = rows[None]
    if rows.ndim != len(shape) + 1 or rows.shape[1:] != shape:
        raise ValueError(f"{name}: `{argument}` must have shape (n, *{shape}), the prior's event; got {rows.shape}.")
    if len(rows) < minimum:
        raise ValueError(f"{name}: `{argument}` needs {minimum} examples at least; got {len(rows)}.")
    rows = rows.astype(jax.dtypes.canonicalize_dtype(float))
    if not np.all(np.isfinite(rows)):
        raise ValueError(f"{name}: `{argument}` has numbers that are not finite.")
    return rows


def _latent_site(name: str, argument: str, draws: Mapping[str, Array], site: str | None) -> str:
    found = [key for key in draws if isinstance(key, str) and key.endswith("_latent")]
    if site is not None:
        found = [key for key in (f"{site}_latent", site) if key in found]
    if not found:
        asked = "a site `u_latent`" if site is None else f"the site {site + '_latent'!r}"
        raise ValueError(
            f"{name}: `{argument}` has {list(draws)}, but not {asked}; sample `whiten(model)`, which has it."
        )
    if len(found) > 1 and site is None:
        raise ValueError(f"{name}: `{argument}` has several latents, {sorted(found)}; say which with `site`.")
    return found[0]
