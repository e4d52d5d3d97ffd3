"""An estimator's density: one, or several trained from other weights on the same simulations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

if TYPE_CHECKING:
    from numpyro_inverse.nn import Fit


def check_settings(where: str, settings: dict[str, Any]) -> None:
    """Raise, before anything is simulated, where training settings make no sense."""
    from numpyro_inverse.nn._training import settings_from

    settings_from(where, settings)


@contextmanager
def as_observation(where: str) -> Iterator[None]:
    """Errors of what is called `y` elsewhere say that it is the ``observation``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: `observation` must be data of the model. {error}") from error


def started(make: Callable[[Array], Any], key: Array, members: int) -> Any:
    """An untrained density, or an ensemble of them."""
    from numpyro_inverse import nn

    if members == 1:
        return make(key)
    return nn.Ensemble([make(jax.random.fold_in(key, k) if k else key) for k in range(members)])


def trained(
    density: Any, pairs: tuple[np.ndarray, np.ndarray], key: Array, settings: dict[str, Any]
) -> tuple[Any, tuple[Fit, ...]]:
    """A density after training, each member of an ensemble by itself, and the fits."""
    from numpyro_inverse import nn

    if not isinstance(density, nn.Ensemble):
        fit = nn.fit_density(density, pairs, key=key, **settings)
        return fit.module, (fit,)
    fits = tuple(
        nn.fit_density(member, pairs, key=jax.random.fold_in(key, k) if k else key, **numbered(settings, "member", k))
        for k, member in enumerate(density.members)
    )
    return nn.Ensemble([fit.module for fit in fits]), fits


def numbered(settings: dict[str, Any], what: str, k: int) -> dict[str, Any]:
    """Settings of the k-th of several trainings: all but the first have a checkpoint with another name, as a checkpoint
    is of one training."""
    given = settings.get("checkpoint")
    if k == 0 or not isinstance(given, str | Path):
        return settings
    path = Path(given)
    return settings | {"checkpoint": path.with_name(f"{path.stem}-{what}-{k + 1}{path.suffix}")}
