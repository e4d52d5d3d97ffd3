"""Whitened coordinates for field sites, as an effect handler."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from numpyro.handlers import block

from numpyro_inverse.infer.whitening._coordinates import Coordinates, fit_coordinates
from numpyro_inverse.infer.whitening._reparam import reparametrize


class Whitened:
    """A model in whitened coordinates; made by :func:`whiten`, called like the model itself."""

    def __init__(self, model: Callable, centering: float | Float[Array, "..."] | str):
        update_wrapper(self, model)
        self.model = model
        self.centering = centering
        self._coordinates: Coordinates | None = None

    def coordinates(self, *args: Any, **kwargs: Any) -> Coordinates:
        """The coordinates fitted to the data in the model's arguments; found at the first call, then kept.

        They change how the posterior is explored, not the posterior: other data may be used with them.

        Raises:
            ValueError: ``centering`` is not ``"auto"``, or as :func:`fit_coordinates`.
        """
        if not self.automatic:
            raise ValueError('coordinates are fitted to data only for `whiten(model, centering="auto")`.')
        if self._coordinates is None:
            self._coordinates = fit_coordinates(self.model, args, kwargs)
        return self._coordinates

    @property
    def automatic(self) -> bool:
        """Whether the centring is found from the data."""
        return isinstance(self.centering, str)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.automatic:
            with block(), jax.ensure_compile_time_eval():  # kernels trace the model, with the data at hand
                fitted = self.coordinates(*args, **kwargs)
            return reparametrize(self.model, fitted.centering, fitted.reference)(*args, **kwargs)
        return reparametrize(self.model, self.centering)(*args, **kwargs)


def whiten(model: Callable, centering: float | Float[Array, "..."] | str = 0.0) -> Whitened:
    r"""The same model with every field site sampled in whitened coordinates.

    A field site ``u`` becomes a deterministic site computed from the sampled site ``u_latent``; the joint law of
    everything else is unchanged, hyperparameters included. For a :class:`SpectralField` with amplitudes
    :math:`a_k` the latent site is :math:`v_k \sim N(0, (a_k / b_k)^{2 c_k})` and the field's coefficients are
    :math:`v_k a_k^{1-c_k} b_k^{c_k}`; other maps of a base distribution are sampled through their base.

    Args:
        model: a NumPyro model.
        centering: :math:`c`: 0 (white noise, right for weak data), 1 (centred coefficients, right for strong data), an
            array with one number per mode, or ``"auto"``: :math:`c_k = b_k^2 I_k / (1 + b_k^2 I_k)` with :math:`b_k`
            the amplitude and :math:`I_k` the data's expected information about mode k, both at a rough mode of the
            posterior that is found from the first data the model is called with (:func:`fit_coordinates`).

    Returns:
        A callable with the model's arguments. With ``"auto"`` it keeps what it found, so that later calls, with or
        without data, use the same coordinates.

    Raises:
        ValueError: ``centering`` is a string other than ``"auto"`` or a number outside [0, 1].

    >>> mcmc = MCMC(NUTS(whiten(model, centering="auto")), num_warmup=500, num_samples=500)
    """
    if isinstance(centering, str):
        if centering != "auto":
            raise ValueError(f'whiten: `centering` must be numbers in [0, 1] or "auto"; got {centering!r}.')
    elif not np.all((np.asarray(centering) >= 0) & (np.asarray(centering) <= 1)):
        raise ValueError(f'whiten: `centering` must be numbers in [0, 1] or "auto"; got {centering}.')
    return Whitened(model, centering)
