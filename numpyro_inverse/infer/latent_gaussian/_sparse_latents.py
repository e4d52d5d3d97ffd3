r"""Latents with sparse precisions: fields on meshes and normal effects, and how the data see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int
from numpyro.distributions import Normal

from numpyro_inverse._model import Trace
from numpyro_inverse.distributions._reparametrized import unwrapped
from numpyro_inverse.domains._stacked import Stacked
from numpyro_inverse.infer.latent_gaussian._reading import HERE, LatentModel, Values, _parameters, _same
from numpyro_inverse.sparse._quasidefinite import QuasiDefinite, QuasiDefinitePattern, analyze_quasidefinite
from numpyro_inverse.sparse._row_sums import row_sums, runs

COLUMNS = 256  # of the predictor's matrix that are computed together
PAIRS = 2**27  # products of coefficients that are kept
EFFECTS = 64  # normal effects, at most
CHANGE = 1e-3  # relative, of the predictor's matrix between two draws of the hyperparameters


class SparseRows(eqx.Module):
    """A sparse matrix whose products are sums of runs that are read, never scattered."""

    columns: Int[Array, " nnz"]
    coefficients: Float[Array, " nnz"]
    sums: tuple[Int[Array, "rows width"], ...]

    def __init__(self, rows: np.ndarray, columns: np.ndarray, coefficients: np.ndarray, count: int):
        self.columns = jnp.asarray(columns, jnp.int32)
        self.coefficients = jnp.asarray(coefficients, jnp.result_type(float))
        self.sums = runs(rows, count)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return row_sums(self.sums, self.coefficients.astype(x.dtype) * x[self.columns])


class SparseLatents(eqx.Module):
    r"""The constants of the latents: the pattern of :math:`Q + A^{\mathsf T} W A`, and :math:`A`, with
    :math:`\eta = o(\theta) + A (x - E x)`.

    Attributes:
        pattern: of the posterior precision.
        forward: A.
        adjoint: its transpose.
        products: from W to :math:`A^{\mathsf T} W A` on the pattern.
        squares: from a matrix on the pattern to the diagonal of :math:`A Z A^{\mathsf T}`.
        places: for each latent, where the entries of its precision stand on the pattern.
    """

    pattern: QuasiDefinitePattern
    forward: SparseRows
    adjoint: SparseRows
    products: SparseRows
    squares: SparseRows
    places: dict[str, Int[Array, " nnz"]]

    def at(self, model: LatentModel, hyper: Values) -> SparseGaussian:
        """The law of the latents at hyperparameters."""
        trace = model.trace(hyper)
        first, second, mirror, rest = jnp.zeros((4, len(self.pattern.rows)), jnp.result_type(float))
        first = first.at[self.pattern.diagonal].set(1.0)
        logdet = jnp.zeros((), first.dtype)
        for name, place in self.places.items():
            fn = unwrapped(trace[name]["fn"])
            if isinstance(fn, Normal):
                precision = jnp.broadcast_to(fn.scale, trace[name]["fn"].shape()).ravel() ** -2.0
                rest = rest.at[place].set(precision.astype(rest.dtype))
                logdet = logdet + jnp.sum(jnp.log(precision))
                continue
            parts = fn.precision_factors()
            logdet = logdet + parts.logdet + parts.middle_logdet
            if parts.middle is None:
                rest = rest.at[place].set(parts.outer)
            else:
                first, second = first.at[place].set(parts.middle), second.at[place].set(parts.outer)
                mirror = mirror.at[place].set(parts.outer if parts.mirror is None else parts.mirror)
        means = {name: trace[name]["value"] for name in model.latents}
        offset = model.predictor(trace)
        return SparseGaussian(self, model, hyper, means, offset, first, (second, mirror), rest, logdet)


class SparseGaussian(eqx.Module):
    """The law of sparse latents at hyperparameters; departures from their means are flat vectors r."""

    latents: SparseLatents
    model: LatentModel
    hyper: Values
    means: Values
    offset: Float[Array, " m"]
    c: Float[Array, " nnz"]
    k: tuple[Float[Array, " nnz"], Float[Array, " nnz"]]  # both triangles
    h: Float[Array, " nnz"]
    logdet: Float[Array, ""]  # of Q, plus that of C

    def fixed(self) -> SparseGaussian:
        """The same law, not differentiated."""
        where = lambda law: (law.offset, law.c, law.k, law.h, law.logdet)  # noqa: E731
        return eqx.tree_at(where, self, replace_fn=jax.lax.stop_gradient)

    def forward(self, r: Float[Array, " n"]) -> Float[Array, " m"]:
        """:math:`A r`."""
        return self.latents.forward(r)

    def adjoint(self, v: Float[Array, " m"]) -> Float[Array, " n"]:
        r""":math:`A^{\mathsf T} v`."""
        return self.latents.adjoint(v)

    def factor(self, weights: Float[Array, " m"]) -> SparsePosterior:
        r"""The factorization of :math:`Q + A^{\mathsf T} W A`."""
        return SparsePosterior(self, self.latents.pattern.factor(*self._parts(weights)))

    def _parts(self, weights: Float[Array, " m"]) -> tuple[Array, tuple[Array, Array], Array]:
        return self.c, self.k, self.h + self.latents.products(weights)

    def values(self, r: Float[Array, " n"]) -> Values:
        """The latent sites."""
        flat, unravel = ravel_in_order(self.means, self.model.latents)
        return unravel(flat + r)

    def draw(self, key: Array) -> Float[Array, " n"]:
        """From the prior."""
        parts, trace = [], self.model.trace(self.hyper)
        for name, key_ in zip(self.model.latents, jax.random.split(key, len(self.model.latents)), strict=True):
            parts.append(jnp.ravel(trace[name]["fn"].sample(key_) - self.means[name]))
        return jnp.concatenate(parts).astype(self.c.dtype)


class SparsePosterior(eqx.Module):
    r"""The Gaussian with precision :math:`Q + A^{\mathsf T} W A`."""

    law: SparseGaussian
    factored: QuasiDefinite

    def moved(self, weights: Float[Array, " m"]) -> SparsePosterior:
        """The same factorization as a function of weights that have the same numbers."""
        return SparsePosterior(self.law, self.factored.as_function_of(*self.law._parts(weights)))

    def solve(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """The covariance times b."""
        return self.factored.solve(b)

    def log_ratio(self) -> Float[Array, ""]:
        r""":math:`\log\det (Q + A^{\mathsf T} W A) - \log\det Q`."""
        return self.factored.logdet() - self.law.logdet

    def sds(self, r: Float[Array, " n"]) -> Values:
        """Standard deviations of the latent sites and of the predictors."""
        latents, model = self.law.latents, self.law.model
        inverse = self.factored.selected_inverse()
        found = ravel_in_order(self.law.means, model.latents)[1](jnp.sqrt(inverse[latents.pattern.diagonal]))
        both = jnp.where(latents.pattern.rows == latents.pattern.cols, 1.0, 2.0)
        trace = model.trace(self.law.hyper)
        return found | model.split(trace, jnp.sqrt(latents.squares(both * inverse)))


def ravel_in_order(values: Values, names: tuple[str, ...]) -> tuple[Array, Callable[[Array], Values]]:
    """The numbers of some sites, one site after the other, and back."""
    flat, unravel = ravel_pytree([values[name] for name in names])
    return flat.astype(jnp.result_type(float)), lambda x: dict(zip(names, unravel(x.astype(flat.dtype)), strict=True))


def sparse_latents(model: LatentModel, hyper: Values, others: Values) -> SparseLatents | None:
    """The constants, or None where the latents have no sparse precision, or A changes with the hyperparameters.

    Args:
        model: the model.
        hyper: hyperparameters.
        others: other ones, at which A must be the same.
    """
    trace = model.trace(hyper)
    effects = 0
    for name in model.latents:
        fn = unwrapped(trace[name]["fn"])
        if isinstance(fn, Normal):
            effects += int(np.prod(trace[name]["fn"].shape(), dtype=int))
        elif getattr(fn, "precision_entries", None) is None or trace[name]["fn"] is not fn:
            return None
    if effects > EFFECTS or all(isinstance(unwrapped(trace[name]["fn"]), Normal) for name in model.latents):
        return None
    matrix = _matrix(model, hyper)
    if not _is_constant(model, others, matrix):
        return None
    return _analyze(model, trace, matrix)


def _is_constant(model: LatentModel, others: Values, matrix: sp.csr_array) -> bool:
    """Whether A is the same at other hyperparameters, each latent site and each number of the predictor by itself, so
    that many hide no few; and whether the laws of latents do not depend on other latents."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    probe = np.random.default_rng(0).normal(size=matrix.shape[1]) / np.where(lengths > 0, lengths, 1)  # all count alike

    @eqx.filter_jit
    def measure(model: LatentModel, others: Values, probe: Array) -> tuple[Array, Array, Array]:
        there = model.trace(others)
        means = {name: there[name]["value"] for name in model.latents}
        start, back = ravel_in_order(means, model.latents)
        after = model.trace(others, back(start + probe))
        laws = [_parameters({name: t[name] for name in model.latents}) for t in (there, after)]
        slope = jax.linearize(lambda x: model.predictor(model.trace(others, back(x))), start)[1]
        counts = np.cumsum([np.size(means[name]) for name in model.latents])
        site = np.searchsorted(counts, np.arange(start.size), side="right")
        probes = jnp.where(site == np.arange(len(counts))[:, None], probe, 0)
        return probes, jax.vmap(slope)(probes), _same(*laws)

    probes, found, same = measure(model, others, jnp.asarray(probe))
    sites = np.asarray(probes, float).T
    error = np.abs(np.asarray(found, float).T - matrix @ sites)
    size = abs(matrix) @ np.abs(sites)
    return bool(same) and bool(np.all(error <= CHANGE * size + np.finfo(np.float32).eps * np.max(size)))


def _matrix(model: LatentModel, hyper: Values) -> sp.csr_array:
    """A, some columns at a time."""
    trace = model.trace(hyper)
    flat, unravel = ravel_in_order({name: trace[name]["value"] for name in model.latents}, model.latents)
    count = flat.size

    @eqx.filter_jit
    def block(model: LatentModel, hyper: Values, numbers: Array) -> Array:
        slope = jax.linearize(lambda x: model.predictor(model.trace(hyper, unravel(x))), flat)[1]
        return jax.vmap(lambda j: slope(jnp.zeros_like(flat).at[j].set(1.0)))(numbers)

    parts = []
    for start in range(0, count, COLUMNS):
        numbers = np.minimum(np.arange(start, start + COLUMNS), count - 1)
        found = np.asarray(block(model, hyper, jnp.asarray(numbers)), float)[: count - start]
        parts.append(sp.csr_array(found))
    matrix = sp.csr_array(sp.vstack(parts).T)
    matrix.sort_indices()
    return matrix


def _analyze(model: LatentModel, trace: Trace, matrix: sp.csr_array) -> SparseLatents:
    m, n = matrix.shape
    graph, starts, coordinates = _graph(model, trace)
    last = sum(_count(trace, name) for name in model.latents if isinstance(unwrapped(trace[name]["fn"]), Normal))
    per_row = np.diff(matrix.indptr)
    if np.sum(per_row.astype(float) ** 2) > PAIRS:
        raise ValueError(
            f"{HERE}: the predictor's numbers depend on up to {per_row.max()} latents each, so that the posterior "
            "precision is not sparse. Use NUTS on `whiten(model)`, a coarser mesh, or fewer data."
        )
    rows, cols, coefficients = np.repeat(np.arange(m), per_row), matrix.indices, matrix.data
    first, second = _pairs(per_row)
    i, j = cols[first], cols[second]
    touched = sp.csr_array((np.ones(len(i)), (i, j)), shape=(n, n))
    whole = sp.csr_array(graph + touched + touched.T + sp.eye_array(n))
    whole.data[:] = 1
    pattern = analyze_quasidefinite(whole, coordinates, last)
    key = np.asarray(pattern.rows).astype(np.int64) * n + np.asarray(pattern.cols)
    by_key = np.argsort(key)

    def entries(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        wanted = np.maximum(i, j).astype(np.int64) * n + np.minimum(i, j)
        return by_key[np.searchsorted(key, wanted, sorter=by_key)]

    places = {}
    for name in model.latents:
        fn, node = unwrapped(trace[name]["fn"]), starts[name] + np.arange(_count(trace, name))
        own = (node, node) if isinstance(fn, Normal) else (node[np.asarray(x)] for x in fn.precision_entries)
        places[name] = jnp.asarray(entries(*own), jnp.int32)
    at, products = entries(i, j), coefficients[first] * coefficients[second]
    with jax.ensure_compile_time_eval():
        return SparseLatents(
            pattern,
            SparseRows(rows, cols, coefficients, m),
            SparseRows(cols, rows, coefficients, n),
            SparseRows(at, rows[first], products, len(key)),
            SparseRows(rows[first], at, products, m),
            places,
        )


def _count(trace: Trace, name: str) -> int:
    return int(np.prod(trace[name]["fn"].shape(), dtype=int))


def _graph(model: LatentModel, trace: Trace) -> tuple[sp.csr_array, dict[str, int], np.ndarray | None]:
    """What the prior couples, where each latent starts, and the places of the fields' nodes."""
    starts, start, parts = {}, 0, []
    points: list[Any] = []
    for name in model.latents:
        fn, count = unwrapped(trace[name]["fn"]), _count(trace, name)
        starts[name] = start
        start += count
        if isinstance(fn, Normal):
            parts.append(sp.eye_array(count, format="csr"))
            continue
        rows, cols = (np.asarray(axis) for axis in fn.precision_entries)
        half = sp.csr_array((np.ones(len(rows)), (rows, cols)), (count, count))
        parts.append(half + half.T)
        points.append(_places(getattr(fn, "domain", None)))
    return sp.csr_array(sp.block_diag(parts)), starts, _side_by_side(points)


def _places(domain: Any) -> np.ndarray | None:
    """Of the nodes; copies of a mesh are a typical edge apart along a further axis, so that cuts are short."""
    if not isinstance(domain, Stacked):
        return getattr(domain, "points", None)
    one = _places(domain.space)
    if one is None:
        return None
    extents = np.ptp(one, axis=0)
    edge = (np.prod(extents[extents > 0]) / len(one)) ** (1 / np.count_nonzero(extents))
    along = edge * (np.arange(domain.count) - (domain.count - 1) / 2)
    return np.column_stack([np.tile(one, (domain.count, 1)), np.repeat(along, len(one))])


def _side_by_side(points: list[np.ndarray | None]) -> np.ndarray | None:
    """Places of several fields; one without copies lies in the middle of those with."""
    known = [p for p in points if p is not None]
    if not known or len(known) < len(points):
        return None
    width = max(p.shape[1] for p in known)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]))) for p in known])


def _pairs(per_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of entries of the same row, each once, an entry with itself too."""
    begin = np.concatenate([[0], np.cumsum(per_row)])
    first, second = [np.zeros(0, int)], [np.zeros(0, int)]
    for length in np.unique(per_row[per_row > 0]):
        of = begin[:-1][per_row == length]
        i, j = np.tril_indices(length)
        first.append((of[:, None] + i).ravel())
        second.append((of[:, None] + j).ravel())
    return np.concatenate(first), np.concatenate(second)
