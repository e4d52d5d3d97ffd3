"""A Gaussian model with an affine mean, as one affine map of white noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._model import (
    Trace,
    abstract_trace,
    latent_sites,
    observed_sites,
    trace_at,
)
from numpyro_inverse.infer.exact._gaussian_site import describe, gaussian_site, is_gaussian, size
from numpyro_inverse.infer.exact._requirements import require_gaussian_sites


class Affine(NamedTuple):
    r"""The whitened problem :math:`\min_\xi \|r_0 - \tilde A \xi\|^2 + \|\xi\|^2`.

    :math:`\xi \sim N(0, I_n)` makes the latent sites, and :math:`r_0 - \tilde A \xi` is the whitened data residual,
    :math:`S^{-1}(y - m(\xi))` over all observed sites. The posterior is :math:`N(H^{-1} \tilde A^T r_0, H^{-1})` with
    :math:`H = I + \tilde A^T \tilde A`.
    """

    offset: Float[Array, " m"]
    forward: Callable[[Float[Array, " n"]], Float[Array, " m"]]
    adjoint: Callable[[Float[Array, " m"]], Float[Array, " n"]]

    def hessian(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        r""":math:`H x`."""
        return x + self.adjoint(self.forward(x))

    def gradient(self, x: Float[Array, " n"], data: Float[Array, " m"], prior: Float[Array, " n"] | float = 0.0):
        r""":math:`\tilde A^T (d - \tilde A x) + p - x`: the residual of :math:`H x = \tilde A^T d + p`.

        Subtracting in the data space first keeps the rounding error of order machine epsilon times signal-to-noise in
        units of the posterior's standard deviations, where :math:`b - H x` would square the signal-to-noise ratio.
        """
        return self.adjoint(data - self.forward(x)) + (prior - x)


class Checks(NamedTuple):
    """What random points say about a model; dictionaries are keyed by site."""

    finite: dict[str, Array]  # is everything finite?
    scale_change: dict[str, Array]  # largest relative change of a scale with the latents
    bend: dict[str, Array]  # norm of the departure from the linearization, in noise standard deviations
    size: dict[str, Array]  # norm of the whitened residual, in noise standard deviations
    constant_change: dict[str, Array]  # change of the log density of an observed site that is not Gaussian


class AffineModel:
    """A NumPyro model whose latent sites are Gaussian, as a function of the white noise they are made of.

    ``caller`` is the kernel that errors name.
    """

    def __init__(self, model: Callable, args: tuple, kwargs: dict[str, Any] | None, caller: str = "ExactGaussian"):
        self.model, self.args, self.kwargs, self.caller = model, args, kwargs or {}, caller
        trace = abstract_trace(self.model, self.args, self.kwargs)
        require_gaussian_sites(trace, caller)
        latent, observed = latent_sites(trace), observed_sites(trace)
        self.shapes = {name: tuple(site["fn"].shape()) for name, site in latent.items()}
        self.size = size(self.shapes)
        self.data = [name for name, site in observed.items() if is_gaussian(site["fn"])]
        self.constants = {name: describe(site["fn"]) for name, site in observed.items() if name not in self.data}
        self.dtype = jnp.result_type(float)

    def trace_at(self, noise: Float[Array, " n"]) -> Trace:
        """The model's sites when the latent sites are made of ``noise``."""
        pieces, start = {}, 0
        for name, shape in self.shapes.items():
            count = int(np.prod(shape, dtype=int))
            pieces[name] = noise[start : start + count].reshape(shape)
            start += count

        def value(site):
            if site["type"] != "sample" or site["is_observed"] or site["name"] not in pieces:
                return None
            return gaussian_site(site["fn"]).from_white(pieces[site["name"]])

        trace = trace_at(self.model, self.args, self.kwargs, substitute_fn=value)
        for name in (*self.shapes, *self.data, *self.constants):
            if name not in trace:
                raise ValueError(
                    f"{self.caller}: site {name!r} is in one run of the model and not in another; sites must not "
                    "change from call to call."
                )
        return trace

    def latents(self, noise: Float[Array, " n"]) -> dict[str, Array]:
        """Values of the latent sites."""
        trace = self.trace_at(noise)
        return {name: trace[name]["value"] for name in self.shapes}

    def values(self, noise: Float[Array, " n"]) -> dict[str, Array]:
        """Values of the latent sites and of the real deterministic sites."""
        trace = self.trace_at(noise)
        return {
            name: jnp.asarray(site["value"])
            for name, site in trace.items()
            if name in self.shapes
            or (site["type"] == "deterministic" and jnp.issubdtype(jnp.result_type(site["value"]), jnp.floating))
        }

    def residuals(self, noise: Float[Array, " n"]) -> dict[str, Array]:
        """Whitened data residuals of the Gaussian observed sites, raveled."""
        trace = self.trace_at(noise)
        return {
            name: gaussian_site(trace[name]["fn"], trace[name]["value"])
            .to_white(trace[name]["value"])
            .ravel()
            .astype(self.dtype)
            for name in self.data
        }

    def affine(self) -> Affine:
        """The model linearized at the prior mean: exact if the model is what :meth:`check` verifies."""

        def residual(noise):
            parts = list(self.residuals(noise).values())
            return jnp.concatenate(parts) if parts else jnp.zeros((0,), self.dtype)

        origin = jnp.zeros(self.size, self.dtype)
        offset, minus_forward = jax.linearize(residual, origin)
        transpose = jax.linear_transpose(minus_forward, origin)
        return Affine(offset, lambda x: -minus_forward(x), lambda y: -transpose(y)[0])

    def check(self, key: Array) -> Checks:
        """Compare the model with its linearization at the prior mean, at three random points."""
        origin = jnp.zeros(self.size, self.dtype)
        noise = jax.random.normal(key, (3, self.size), self.dtype) * jnp.array([1, 1, 4], self.dtype)[:, None]
        base, linear = jax.linearize(self.residuals, origin)
        scales, constants = self._scales(origin), self._constants(origin)

        def at(x):
            actual, slope = self.residuals(x), linear(x)
            bend = {k: jnp.linalg.norm(actual[k] - base[k] - slope[k]) for k in base}
            length = {k: jnp.linalg.norm(actual[k]) + jnp.linalg.norm(base[k]) for k in base}
            scale = {k: jnp.max(jnp.abs(s - scales[k]) / jnp.abs(scales[k])) for k, s in self._scales(x).items()}
            constant = {k: jnp.abs(c - constants[k]) for k, c in self._constants(x).items()}
            finite = {k: jnp.all(jnp.isfinite(actual[k])) & jnp.all(jnp.isfinite(slope[k])) for k in base}
            return Checks(finite, scale, bend, length, constant)

        found = jax.lax.map(at, noise)
        return Checks(jax.tree.map(jnp.all, found.finite), *(jax.tree.map(jnp.max, field) for field in found[1:]))

    def _scales(self, noise: Array) -> dict[str, Array]:
        """Non-zero entries of each Gaussian site's root (a triangular root's zeros are left at one)."""
        trace = self.trace_at(noise)
        roots = {name: gaussian_site(trace[name]["fn"]).root for name in (*self.shapes, *self.data)}
        return {name: jnp.where(root == 0, 1, root) for name, root in roots.items()}

    def _constants(self, noise: Array) -> dict[str, Array]:
        trace = self.trace_at(noise)
        return {name: jnp.sum(trace[name]["fn"].log_prob(trace[name]["value"])) for name in self.constants}

    def log_normalizer(self) -> Float[Array, ""]:
        r""":math:`-\tfrac{m}{2} \log 2\pi - \log |S|`, plus the log density of the observed sites that are constant."""
        origin = jnp.zeros(self.size, self.dtype)
        trace = self.trace_at(origin)
        sites = [gaussian_site(trace[name]["fn"], trace[name]["value"]) for name in self.data]
        total = sum(-0.5 * np.log(2 * np.pi) * s.num_counting - s.log_scale for s in sites)
        return total + sum(self._constants(origin).values())

    def is_affine(self, checks: Checks, tolerance: float) -> Array:
        """Whether :class:`Checks` find nothing, for use inside ``jit``."""
        rounding = rounding_allowance(self.dtype)
        still = [change <= rounding for change in (*checks.scale_change.values(), *checks.constant_change.values())]
        straight = [bend <= jnp.maximum(tolerance, rounding * checks.size[k]) for k, bend in checks.bend.items()]
        return jnp.all(jnp.asarray([*checks.finite.values(), *still, *straight]))

    def raise_unless_affine(self, checks: Checks, tolerance: float) -> None:
        """Turn :class:`Checks` into the error a user can act on."""
        here, rounding = self.caller, rounding_allowance(self.dtype)
        for name, ok in checks.finite.items():
            if not bool(ok):
                raise ValueError(
                    f"{here}: at a prior draw the mean of site {name!r}, its data or their scale is not finite."
                )
        for name, change in checks.constant_change.items():
            if not float(change) <= rounding:
                raise ValueError(
                    f"{here}: observed site {name!r} is {self.constants[name]}, not Gaussian, and depends on the "
                    "latents (a `numpyro.factor` shows as Unit). Use NUTS, or approximate the likelihood by a Gaussian."
                )
        for name, change in checks.scale_change.items():
            if not float(change) <= rounding:
                raise ValueError(
                    f"{here}: the scale of site {name!r} changes with the latents (by {float(change):.2g} of itself "
                    "between draws from the prior), so the posterior is not Gaussian. Fix what it depends on with "
                    "`numpyro.handlers.condition`, or use NUTS."
                )
        for name, bend in checks.bend.items():
            length = float(checks.size[name])
            if not float(bend) <= max(tolerance, rounding * length):
                raise ValueError(
                    f"{here}: the mean of site {name!r} is not affine in the latents: at a draw from the prior it "
                    f"is {float(bend):.3g} noise standard deviations off its linearization ({float(bend) / length:.2g} "
                    f"of the residual; allowed: {max(tolerance, rounding * length):.2g}). Use NUTS, or linearize the "
                    "model yourself."
                )


def rounding_allowance(dtype: Any) -> float:
    """Relative error granted to the rounding of a forward map: machine epsilon to the power 3/4."""
    return float(jnp.finfo(dtype).eps) ** 0.75
