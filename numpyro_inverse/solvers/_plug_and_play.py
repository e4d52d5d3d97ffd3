"""What the iterations with a denoiser have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_real
from numpyro_inverse.denoisers._denoiser import check_denoiser, check_noise_level, denoised
from numpyro_inverse.solvers._data_term import DataTerm, check_data_term, check_step
from numpyro_inverse.solvers._fixed_point import Iteration


class DenoiserIteration(Iteration):
    """A map made of a data term and a denoiser.

    Args:
        data_term: f.
        denoiser: D, any function of an array and a noise level.
        sigma: its noise level.
        step: :math:`\\gamma`.

    Raises:
        TypeError: ``data_term`` is none or lacks a proximal operator that is needed; ``denoiser`` cannot be called.
        ValueError: ``sigma`` or ``step`` not positive; when called, an array of another shape than the data term's.
    """

    data_term: DataTerm
    denoiser: Any
    sigma: Float[Array, ""]
    step: Float[Array, ""]

    solver = "a solver"  # that errors name
    needs_prox = False

    def __init__(self, data_term: DataTerm, denoiser: Any, *, sigma: Any, step: Any):
        here = self.solver
        self.data_term = check_data_term(here, data_term, prox=self.needs_prox)
        self.denoiser = check_denoiser(here, denoiser)
        self.sigma = jnp.asarray(check_noise_level(here, sigma), float)
        self.step = jnp.asarray(check_step(here, step), float)

    def __call__(self, z):
        z = check_real(self.solver, "z", z)
        shape = self.data_term.shape
        if shape is not None and jnp.shape(z) != tuple(shape):
            raise ValueError(
                f"{self.solver}: `z` must have the shape {tuple(shape)} that the data term acts on; got "
                f"{jnp.shape(z)}. `jax.vmap` makes batches."
            )
        return self.image(jnp.asarray(z, jnp.result_type(z, float)))

    @abstractmethod
    def image(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """:math:`T(z)`, of what has been checked."""

    def denoise(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """:math:`D(x)`, its shape and kind checked."""
        return denoised(self.solver, self.denoiser, x, self.sigma)

    def descend(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r""":math:`x - \gamma \nabla f(x)`."""
        return x - self.step.astype(x.dtype) * self.data_term.gradient(x)

    def approach(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r""":math:`\operatorname{prox}_{\gamma f}(x)`."""
        return self.data_term.prox(x, self.step.astype(x.dtype))
