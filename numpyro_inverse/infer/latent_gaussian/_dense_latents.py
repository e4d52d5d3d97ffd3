"""Latents of any Gaussian law, as white noise, by dense algebra in the space of the data or theirs, the smaller one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions import Normal

from numpyro_inverse._model import Site, Trace, latent_sites, trace_at
from numpyro_inverse.distributions._reparametrized import has_amplitudes, unwrapped
from numpyro_inverse.infer.exact._gaussian_site import gaussian_site
from numpyro_inverse.infer.latent_gaussian._few_data import FewDataPosterior, dot
from numpyro_inverse.infer.latent_gaussian._reading import HERE, LatentModel, Values, _affine, prior_mean
from numpyro_inverse.infer.whitening import LATENT, whiten

LIMIT = 2048  # rows and columns of the matrices that are factorized
ENTRIES = 2**25  # of the predictor's matrix, where the numbers are more than that
CHANGE = 1e-4  # relative, of the predictor between two draws of the hyperparameters
COLUMNS = 256  # of a root of the covariance that are computed together


class DenseLatents(eqx.Module):
    r"""The whitened latents: :math:`x = x(z; \theta)`, affine in :math:`z \sim N(0, I)`.

    Attributes:
        shapes: by site of the whitened model.
        rows: the predictor's matrix by coefficients :math:`w = a(\theta) z`, where it does not change with the
            hyperparameters, whose programs then neither transform fields nor interpolate them.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    rows: Float[Array, "m n"] | None = None

    @property
    def size(self) -> int:
        """How many numbers."""
        return int(sum(np.prod(shape, dtype=int) for _, shape in self.shapes))

    def pieces(self, z: Float[Array, " n"]) -> Iterator[Float[Array, "..."]]:
        """The numbers of one site after the other."""
        start = 0
        for _, shape in self.shapes:
            count = int(np.prod(shape, dtype=int))
            yield z[start : start + count].reshape(shape)
            start += count

    def trace(self, model: LatentModel, hyper: Values, z: Float[Array, " n"]) -> Trace:
        """The whitened model's sites."""
        white = dict(zip((name for name, _ in self.shapes), self.pieces(z), strict=True))

        def choose(site: Site) -> Any:
            if site["type"] != "sample" or site["is_observed"]:
                return None
            name = site["name"]
            return gaussian_site(site["fn"]).from_white(white[name]) if name in white else hyper[name]

        return trace_at(whiten(model.model), model.args, model.kwargs, substitute_fn=choose)

    def at(self, model: LatentModel, hyper: Values) -> DenseGaussian:
        """The law of the predictor at hyperparameters."""
        if self.rows is None:
            offset, root = _linear_map(lambda z: model.predictor(self.trace(model, hyper, z)), self.size)
        else:
            trace = model.trace(hyper)
            offset, root = model.predictor(trace), self.rows * self.amplitudes(trace, model.latents)
        fixed = jax.lax.stop_gradient(root)
        gram = dot(fixed, fixed.T) if offset.size < self.size else jnp.zeros((0, 0), root.dtype)
        return DenseGaussian(self, model, hyper, offset, root, gram)

    def amplitudes(self, trace: Trace, names: tuple[str, ...]) -> Float[Array, " n"]:
        """The coefficients' standard deviations."""
        found = []
        for name, (_, shape) in zip(names, self.shapes, strict=True):
            core = unwrapped(trace[name]["fn"])
            scales = core.amplitudes if has_amplitudes(core) else core.scale
            found.append(jnp.ravel(jnp.broadcast_to(scales, shape)))
        return jnp.concatenate(found)

    def with_rows(self, model: LatentModel, hyper: Values) -> DenseLatents:
        """The same with the predictor's matrix by coefficients at hyperparameters."""

        def predictor(w: Float[Array, " n"]) -> Float[Array, " m"]:
            departures = dict(zip(model.latents, self.pieces(w), strict=True))

            def choose(site: Site) -> Any:
                if site["type"] != "sample" or site["is_observed"]:
                    return None
                name, core = site["name"], unwrapped(site["fn"])
                if name not in departures:
                    return hyper[name]
                w = departures[name]
                return core.from_coefficients(w) if has_amplitudes(core) else prior_mean(site) + w

            return model.predictor(trace_at(model.model, model.args, model.kwargs, substitute_fn=choose))

        return DenseLatents(self.shapes, _linear_map(predictor, self.size)[1])


def _linear_map(function: Callable[[Float[Array, " n"]], Float[Array, " m"]], size: int) -> tuple[Array, Array]:
    """The value at zero and the matrix of an affine function, by the fewer of its rows and columns."""
    zero = jnp.zeros(size, jnp.result_type(float))
    offset, slope = jax.linearize(function, zero)
    if offset.size < size:
        back = jax.linear_transpose(slope, zero)
        return offset, jax.vmap(lambda v: back(v)[0])(jnp.eye(offset.size, dtype=offset.dtype))
    return offset, jax.vmap(slope, out_axes=1)(jnp.eye(size, dtype=zero.dtype))


class DenseGaussian(eqx.Module):
    """White noise z and the predictor ``offset + root @ z``.

    Attributes:
        gram: ``root @ root.T``, not differentiated; empty where the data are not fewer than the numbers.
    """

    latents: DenseLatents
    model: LatentModel
    hyper: Values
    offset: Float[Array, " m"]
    root: Float[Array, "m n"]
    gram: Float[Array, "k k"]

    @property
    def size(self) -> int:
        """How many numbers."""
        return self.root.shape[1]

    def fixed(self) -> DenseGaussian:
        """The same law, not differentiated."""
        return eqx.tree_at(lambda law: (law.offset, law.root), self, replace_fn=jax.lax.stop_gradient)

    def forward(self, r: Float[Array, " n"]) -> Float[Array, " m"]:
        """The predictor's departure."""
        return dot(self.root, r)

    def adjoint(self, v: Float[Array, " m"]) -> Float[Array, " n"]:
        """Its transpose."""
        return dot(v, self.root)  # several times faster than its transpose times v

    def factor(self, weights: Float[Array, " m"]) -> DensePosterior | FewDataPosterior:
        r"""The factorization of :math:`I + A^{\mathsf T} W A`."""
        if len(weights) < self.size:
            return FewDataPosterior(self, weights)
        precision = jnp.eye(self.size, dtype=self.root.dtype) + dot(self.root.T * weights, self.root)
        return DensePosterior(self, jnp.linalg.cholesky(precision))

    def values(self, r: Float[Array, " n"]) -> Values:
        """The latent sites."""
        trace = self.latents.trace(self.model, self.hyper, r)
        return {name: trace[name]["value"] for name in self.model.latents}

    def sds(self, posterior: DensePosterior | FewDataPosterior, r: Float[Array, " n"]) -> Values:
        """Standard deviations of the latent sites and of the predictors under a posterior with the mean r."""

        def sites(z: Array) -> Values:
            trace = self.latents.trace(self.model, self.hyper, z)
            return {name: trace[name]["value"] for name in (*self.model.latents, *self.model.predictors)}

        found, slope = jax.linearize(sites, r)

        def add(variances: Values, columns: Float[Array, "n k"]) -> Values:
            pushed = jax.vmap(slope, 1)(columns)
            return jax.tree.map(lambda v, x: v + jnp.sum(x**2, axis=0), variances, pushed)

        def block(variances: Values, start: Array) -> tuple[Values, None]:
            places = start + jnp.arange(COLUMNS)
            unit = (jnp.arange(self.size)[:, None] == places).astype(self.root.dtype)  # zero beyond the last
            return add(variances, posterior.roots(unit)), None

        variances = add(jax.tree.map(jnp.zeros_like, found), posterior.beyond())
        variances, _ = jax.lax.scan(block, variances, jnp.arange(0, self.size, COLUMNS))
        return jax.tree.map(jnp.sqrt, variances)

    def draw(self, key: Array) -> Float[Array, " n"]:
        """From the prior."""
        return jax.random.normal(key, (self.size,), self.root.dtype)


class DensePosterior(eqx.Module):
    """The Gaussian with a dense precision."""

    law: DenseGaussian
    root: Float[Array, "n n"]

    def moved(self, weights: Float[Array, " m"]) -> DensePosterior | FewDataPosterior:
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
        return self.law.sds(self, r)

    def roots(self, z: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """A square root of the covariance, times z."""
        return solve_triangular(self.root, z, lower=True, trans=1)

    def beyond(self) -> Float[Array, "n 0"]:
        """Nothing is missing in it."""
        return jnp.zeros((self.law.size, 0), self.root.dtype)


def dense_latents(model: LatentModel, hyper: Values, others: Values) -> DenseLatents:
    """The whitened latents.

    Args:
        model: the model.
        hyper: hyperparameters.
        others: other ones, at which the predictor's matrix by coefficients is looked at again.

    Raises:
        ValueError: there are too many, or they are not jointly Gaussian.
    """
    trace = trace_at(whiten(model.model), model.args, model.kwargs)
    names = [name if name in latent_sites(trace) else name + LATENT for name in model.latents]
    found = DenseLatents(tuple((name, tuple(trace[name]["fn"].shape())) for name in names))
    data = sum(int(np.size(trace[name]["value"])) for name in model.predictors)
    if found.size > LIMIT and (data > LIMIT or found.size * data > ENTRIES):
        raise ValueError(
            f"{HERE}: the latents {', '.join(map(repr, model.latents))} are {found.size} numbers without a sparse "
            f"precision, or the predictor's dependence on them changes with the hyperparameters; dense algebra goes "
            f"up to {LIMIT} numbers, or {LIMIT} data ({data} here) with {ENTRIES} as the product of both. Sparse are "
            "`Matern` fields on a mesh with a smoothness of up to 2 - d / 2, whose scale is an argument of `Matern`."
        )
    laws = [unwrapped(site["fn"]) for name, site in model.trace(hyper).items() if name in model.latents]
    if all(has_amplitudes(fn) or isinstance(fn, Normal) for fn in laws):
        by_coefficients, constant = _by_coefficients(found, model, hyper, others)
        if constant:
            return by_coefficients
    if not _is_affine(found, model, hyper):
        raise ValueError(
            f"{HERE}: the latents {', '.join(map(repr, model.latents))} are not jointly Gaussian: the law of one "
            "depends on another in more than its mean. Leave the other one out of them by `sites`."
        )
    return found


@eqx.filter_jit
def _by_coefficients(
    latents: DenseLatents, model: LatentModel, hyper: Values, others: Values
) -> tuple[DenseLatents, Array]:
    """The latents with the predictor's matrix, and whether that gives the predictor at other hyperparameters too: at
    white noise in each site by itself, so that many numbers hide no few, and in all at one and three times its size."""
    found = latents.with_rows(model, hyper)
    law = found.at(model, others)
    noise = jax.random.normal(jax.random.key(4), (latents.size,), law.offset.dtype)
    counts = np.cumsum([np.prod(shape, dtype=int) for _, shape in latents.shapes])
    site = np.searchsorted(counts, np.arange(latents.size), side="right")
    alone = jnp.where(site == np.arange(len(counts))[:, None], noise, 0)
    probes = jnp.concatenate([alone, jnp.stack([noise, 3 * noise])])
    eta = jax.lax.map(lambda z: model.predictor(latents.trace(model, others, z)), probes)
    error = jnp.abs(eta - law.offset - jax.vmap(law.forward)(probes))
    size = jnp.sqrt(dot(probes**2, law.root.T**2))
    rounding = 10 * jnp.finfo(eta.dtype).eps * (jnp.max(size, axis=1, keepdims=True) + jnp.abs(law.offset))
    return found, jnp.all(error <= CHANGE * size + rounding)


@eqx.filter_jit
def _is_affine(latents: DenseLatents, model: LatentModel, hyper: Values) -> Array:
    """Whether the predictor is affine in the white noise, on a line in a direction drawn at random."""
    step = jax.random.normal(jax.random.key(3), (latents.size,), jnp.result_type(float))
    return _affine(*(model.predictor(latents.trace(model, hyper, s * step)) for s in (0.0, 1.0, 3.0)))[0]
