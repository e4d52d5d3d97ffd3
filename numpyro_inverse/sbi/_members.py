"""An estimator's density: one, or several trained from other weights on the same simulations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

if TYPE_CHECKING:
    from numpyro_inverse.nn import Fit


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

    together = isinstance(density, nn.Ensemble)
    fits = tuple(
        nn.fit_density(member, pairs, key=jax.random.fold_in(key, k) if k else key, **settings)
        for k, member in enumerate(density.members if together else (density,))
    )
    return (nn.Ensemble([fit.module for fit in fits]) if together else fits[0].module), fits
