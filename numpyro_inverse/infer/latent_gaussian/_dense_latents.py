"""Latents of any Gaussian law, as white noise of at most some thousand numbers, by dense algebra."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from numpyro_inverse._model import Site, Trace, latent_sites, trace_at
from numpyro_inverse.infer.exact._gaussian_site import gaussian_site
from numpyro_inverse.infer.latent_gaussian._reading import HERE, LatentModel, Values, _affine
from numpyro_inverse.infer.whitening import LATENT, whiten

LIMIT = 2048


class DenseLatents(eqx.Module):
    r"""The whitened latents: :math:`x = x(z; \theta)`, affine in :math:`z \sim N(0, I)`.

    Attributes:
        shapes: by site of the whitened model.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)

    @property
    def size(self) -> int:
        """How many numbers."""
        return int(sum(np.prod(shape, dtype=int) for _, shape in self.shapes))

    def trace(self, model: LatentModel, hyper: Values, z: Float[Array, " n"]) -> Trace:
        """The whitened model's sites."""
        pieces, start = {}, 0
        for name, shape in self.shapes:
            count = int(np.prod(shape, dtype=int))
            pieces[name] = z[start : start + count].reshape(shape)
            start += count

        def choose(site: Site) -> Any:
            if site["type"] != "sample" or site["is_observed"]:
                return None
            name = site["name"]
            return gaussian_site(site["fn"]).from_white(pieces[name]) if name in pieces else hyper[name]

        return trace_at(whiten(model.model), model.args, model.kwargs, substitute_fn=choose)

    def at(self, model: LatentModel, hyper: Values) -> DenseGaussian:
        """The law of the predictor at hyperparameters."""
        zero = jnp.zeros(self.size, jnp.result_type(float))
        offset, slope = jax.linearize(lambda z: model.predictor(self.trace(model, hyper, z)), zero)
        root = jax.vmap(slope, out_axes=1)(jnp.eye(self.size, dtype=zero.dtype))
        return DenseGaussian(self, model, hyper, offset, root)


class DenseGaussian(eqx.Module):
    """White noise z and the predictor ``offset + root @ z``."""

    latents: DenseLatents
    model: LatentModel
    hyper: Values
    offset: Float[Array, " m"]
    root: Float[Array, "m n"]

    @property
    def size(self) -> int:
        """How many numbers."""
        return self.latents.size

    def fixed(self) -> DenseGaussian:
        """The same law, not differentiated."""
        return eqx.tree_at(lambda law: (law.offset, law.root), self, replace_fn=jax.lax.stop_gradient)

    def forward(self, r: Float[Array, " n"]) -> Float[Array, " m"]:
        """The predictor's departure."""
        return _dot(self.root, r)

    def adjoint(self, v: Float[Array, " m"]) -> Float[Array, " n"]:
        """Its transpose."""
        return _dot(self.root.T, v)

    def factor(self, weights: Float[Array, " m"]) -> DensePosterior:
        r"""The factorization of :math:`I + A^{\mathsf T} W A`."""
        precision = jnp.eye(self.size, dtype=self.root.dtype) + _dot(self.root.T * weights, self.root)
        return DensePosterior(self, jnp.linalg.cholesky(precision))

    def values(self, r: Float[Array, " n"]) -> Values:
        """The latent sites."""
        trace = self.latents.trace(self.model, self.hyper, r)
        return {name: trace[name]["value"] for name in self.model.latents}

    def draw(self, key: Array) -> Float[Array, " n"]:
        """From the prior."""
        return jax.random.normal(key, (self.size,), self.root.dtype)


class DensePosterior(eqx.Module):
    """The Gaussian with a dense precision."""

    law: DenseGaussian
    root: Float[Array, "n n"]

    def moved(self, weights: Float[Array, " m"]) -> DensePosterior:
        """The factorization as a function of other weights."""
        return self.law.factor(weights)

    def solve(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The covariance times b."""
        return cho_solve((self.root, True), b)

    def log_ratio(self) -> Float[Array, ""]:
        """The precision's log determinant."""
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.root)))

    def sds(self, r: Float[Array, " n"]) -> Values:
        """Standard deviations of the latent sites and of the predictors."""
        model, latents = self.law.model, self.law.latents

        def sites(z: Array) -> Values:
            trace = latents.trace(model, self.law.hyper, z)
            return {name: trace[name]["value"] for name in (*model.latents, *model.predictors)}

        slope = jax.linearize(sites, r)[1]
        columns = solve_triangular(self.root, jnp.eye(self.law.size, dtype=self.root.dtype), lower=True)
        return {name: jnp.sqrt(jnp.sum(x**2, axis=0)) for name, x in jax.vmap(slope)(columns).items()}


def dense_latents(model: LatentModel, hyper: Values) -> DenseLatents:
    """The whitened latents.

    Raises:
        ValueError: there are too many.
    """
    trace = trace_at(whiten(model.model), model.args, model.kwargs)
    names = [name if name in latent_sites(trace) else name + LATENT for name in model.latents]
    found = DenseLatents(tuple((name, tuple(trace[name]["fn"].shape())) for name in names))
    if found.size > LIMIT:
        raise ValueError(
            f"{HERE}: the latents {', '.join(map(repr, model.latents))} are {found.size} numbers without a sparse "
            f"precision, or the predictor's dependence on them changes with the hyperparameters; dense algebra goes "
            f"up to {LIMIT}. Sparse are `Matern` fields on a mesh with a smoothness of up to 2 - d / 2, whose scale is "
            "an argument of `Matern`."
        )
    if not _is_affine(found, model, hyper):
        raise ValueError(
            f"{HERE}: the latents {', '.join(map(repr, model.latents))} are not jointly Gaussian: the law of one "
            "depends on another in more than its mean. Leave the other one out of them by `sites`."
        )
    return found


@eqx.filter_jit
def _is_affine(latents: DenseLatents, model: LatentModel, hyper: Values) -> Array:
    """Whether the predictor is affine in the white noise, on a line in a direction drawn at random."""
    step = jax.random.normal(jax.random.key(3), (latents.size,), jnp.result_type(float))
    return _affine(*(model.predictor(latents.trace(model, hyper, s * step)) for s in (0.0, 1.0, 3.0)))[0]


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")
