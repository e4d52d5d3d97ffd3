"""The effect handler that puts a surrogate in the place of a model's forward map."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from numpyro_inverse._checks import check_callable, check_instance
from numpyro_inverse._model import real_parameters
from numpyro_inverse.infer.surrogates._surrogate import Surrogate


class emulate(Messenger):
    """Effect handler: the observed sites' distributions get the parameters that a surrogate predicts.

    ``emulate(model, surrogate)`` is a NumPyro model with the same sites, priors and data. The forward map is still
    written in it, but nothing depends on its result, and compilation leaves it out. Its posterior is that of the
    surrogate; :class:`DelayedAcceptance` makes it that of the model.

    Args:
        fn: the model that the surrogate was made for.
        surrogate: the surrogate.

    Raises:
        TypeError: ``fn`` cannot be called, ``surrogate`` is none.
        ValueError: when the model runs: another order, other shapes or other sites than the surrogate's.
    """

    def __init__(self, fn: Callable | None = None, surrogate: Surrogate | None = None):
        self.surrogate = check_instance("emulate", "surrogate", surrogate, Surrogate, "a Surrogate")
        if fn is not None:
            check_callable("emulate", "fn", fn, "a NumPyro model")
        self._values: dict[str, Array] = {}
        self._parameters: Array | None = None
        super().__init__(fn)

    def __enter__(self) -> emulate:
        self._values, self._parameters = {}, None
        return super().__enter__()

    def process_message(self, msg: dict[str, Any]) -> None:
        """Put the predicted parameters into the distribution of an emulated site."""
        name = msg["name"]
        places = [(k, p) for k, p in enumerate(self.surrogate.places) if p[0] == name]
        if msg["type"] != "sample" or not places:
            return
        if self._parameters is None:
            self._parameters = self.surrogate(self._vector(name))
        ends = np.cumsum([math.prod(shape) for *_, shape in self.surrogate.places])
        values, rebuild = real_parameters(msg["fn"])
        for k, (_, which, shape) in places:
            if which >= len(values) or values[which].shape != shape:
                raise ValueError(
                    f"emulate: site {name!r} is not as it was when the surrogate was made; make a new one."
                )
            part = self._parameters[ends[k] - math.prod(shape) : ends[k]]
            values[which] = part.reshape(shape).astype(values[which].dtype)
        msg["fn"] = rebuild(values)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Remember the latents, in unconstrained space."""
        if msg["type"] == "sample" and msg["name"] in dict(self.surrogate.latents):
            self._values[msg["name"]] = biject_to(msg["fn"].support).inv(msg["value"])

    def _vector(self, site: str) -> Array:
        parts = []
        for name, shape in self.surrogate.latents:
            if name not in self._values or self._values[name].shape != shape:
                raise ValueError(
                    f"emulate: before site {site!r} the model must sample the latent {name!r}, of shape {shape} in "
                    f"unconstrained space; found {self._values[name].shape if name in self._values else 'none'}."
                )
            parts.append(jnp.ravel(self._values[name]))
        return jnp.concatenate(parts)
