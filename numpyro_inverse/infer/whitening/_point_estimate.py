"""One value for every site, where the posterior is: a point estimate that exists, unlike the joint mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from numpyro_inverse._model import unconstrained_trace
from numpyro_inverse.infer.whitening._coordinates import Coordinates
from numpyro_inverse.infer.whitening._reparam import LATENT
from numpyro_inverse.infer.whitening._whiten import whiten


def point_estimate(model: Callable, coordinates: Coordinates, *args: Any, **kwargs: Any) -> dict[str, Array]:
    r"""Hyperparameters near the mode of their marginal posterior, fields near their posterior mean given those.

    It is the center of the sketch that :func:`fit_coordinates` made, to about a tenth of a posterior standard deviation
    for Gaussian data; for anything better, sample. The **joint** mode of field and hyperparameters, which ``AutoDelta``
    or any optimizer of the log density looks for, is no estimate: with an unknown noise level it does not exist, for
    the density grows without bound as the field takes up the data and the noise goes to zero, and with an unknown scale
    it depends on the coordinates (white noise, or the field). The marginal has the determinant that stops this.

    Args:
        model: the model that the coordinates were fitted for, not whitened.
        coordinates: from ``fit_coordinates(model, ...)``.
        *args: the model's arguments, with the data.
        **kwargs: the model's keyword arguments, with the data.

    Returns:
        Values of the latent and of the deterministic sites, by name.

    >>> coordinates = fit_coordinates(model, data=y)
    >>> point_estimate(model, coordinates, data=y)["field"]
    """
    if not isinstance(coordinates, Coordinates):
        raise TypeError(
            "point_estimate: `coordinates` must be what `fit_coordinates(model, ...)` returns; got "
            f"{type(coordinates).__name__}."
        )

    @jax.jit
    def values() -> dict[str, Array]:
        modes = {f"{name}{LATENT}": value for name, value in coordinates.mode_location.items()}
        trace = unconstrained_trace(whiten(model, coordinates), args, kwargs, coordinates.hyper_location | modes)
        shown = {k: s for k, s in trace.items() if s["type"] in ("sample", "deterministic") and k not in modes}
        return {name: site["value"] for name, site in shown.items() if not site.get("is_observed", False)}

    return values()
