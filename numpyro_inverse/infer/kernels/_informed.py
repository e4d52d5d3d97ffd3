"""Base of the kernels that know which directions the data inform."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from numpyro_inverse._model import Trace
from numpyro_inverse.infer.kernels._base import GradientKernel
from numpyro_inverse.infer.laplace import LaplaceReference, informed_reference


class InformedKernel(GradientKernel):
    """A kernel whose constants are the Laplace reference of ``_rank`` directions, from which its chains start."""

    _rank: int

    def _constants(self, trace: Trace, z: PyTree, args: tuple, kwargs: dict[str, Any]) -> LaplaceReference:
        potential = self._potential(args, kwargs, jax.random.key(0))
        return informed_reference(self._model, potential, trace, z, args, kwargs, self._rank)

    def _start(self, x: Float[Array, "n"], constants: LaplaceReference, key: Array) -> Float[Array, "n"]:
        return constants.value(jax.random.normal(key, x.shape, x.dtype))
