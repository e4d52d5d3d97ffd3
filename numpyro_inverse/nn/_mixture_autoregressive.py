"""Autoregressive mixtures: each number's law is a mixture of normal ones, given the numbers before it and a context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from numpyro_inverse._checks import check_key, describe
from numpyro_inverse.nn._context_embedding import ContextEmbedding, as_embedding, features_of
from numpyro_inverse.nn._interval_mass import log_bin_mass
from numpyro_inverse.nn._networks import check_counts, check_event, check_rows

NARROWEST, WIDEST = -9.0, 3.0  # logarithms of a component's width in units of what the regression leaves
LARGEST_STRETCH = 7.0  # of a logarithm
NARROWEST_IN_BINS = 0.05  # the width of a component of integers; with all of it in one bin, narrower is the same
ROWS = 20_000  # for the linear regression at the start


class MixtureAutoregressive(eqx.Module):
    r"""The law :math:`p(x \mid c) = \prod_i \sum_k w_{ik} N(x_i; m_{ik}, s_{ik}^2)`, where the weights w, means m and
    widths s of number i are functions of the numbers before it, :math:`x_{<i}`, and of a context c.

    They are those of :math:`r = (y - a(c) - L(c) y) / e^{b(c)}` with y what the linear regression of each number on
    those before it and on the context leaves; shifts a, strictly lower triangular L and widths b come from a network of
    the context, and start at zero. So linear Gaussian laws are there from the start, Gaussian laws need no more than
    that network, and one masked residual network of :math:`r_{<i}` and the context learns what they lack.

    An integer has the probability of its bin, :math:`\sum_k w_k (\Phi((x + 1/2 - m_k) / s_k) - \Phi((x - 1/2 - m_k) /
    s_k))`, the bins at its bounds with all that is beyond them: binary, count and mixed data have exact masses, smooth
    in the context.

    >>> law = nn.MixtureAutoregressive(2, context=3, key=jax.random.key(0))
    >>> law.log_prob(jnp.zeros(2), jnp.ones(3)).shape, law.sample(jax.random.key(1), jnp.ones(3)).shape
    ((), (2,))

    Args:
        size: numbers per event, 1 or more.
        components: of each mixture.
        width: hidden units of a layer.
        depth: residual blocks of two layers each.
        kinds: NumPyro constraints, one for each number or one for all: ``real`` or an integer one (``boolean``,
            ``nonnegative_integer``, ``integer_interval(0, 9)``, ...). Default: all real.
        context: makes it conditional: the numbers in a context vector, or a
            :class:`~numpyro_inverse.nn.ContextEmbedding` for contexts on another scale, of another shape or seen
            through a network.
        data: rows, or the pair of rows and contexts, whose mean, standard deviation and linear regression it is to
            start with.
        key: of the initial weights.

    Raises:
        TypeError: a size that is no integer; a ``context`` that is neither a number nor an embedding; ``kinds`` that
            are no constraints.
        ValueError: a size, ``components``, ``width`` or ``depth`` that is too small; ``kinds`` of another number, or
            neither real nor integer; data of another shape, not finite, outside of their kinds or fewer than 2 rows.

    References:
        Uria, Murray & Larochelle, NeurIPS 2013, equations 1-5 (mixtures); Germain, Gregor, Murray & Larochelle, ICML
        2015 (masks); Salimans, Karpathy, Chen & Kingma, ICLR 2017, equation 2 (integers).
    """

    first: Float[Array, "width size"]
    blocks: tuple[_Block, ...]
    last: Float[Array, "out width"]
    bias: Float[Array, " out"]
    skip: Float[Array, "out size"]
    context_skip: Float[Array, "out features"] | None
    trunk: eqx.nn.MLP | None
    affine: Float[Array, "maps width"] | None
    regression: Float[Array, "size size"]
    context_regression: Float[Array, "size features"] | None
    offset: Float[Array, " size"]
    mean: Float[Array, " size"]
    deviation: Float[Array, " size"]
    scale: Float[Array, " size"]
    embedding: ContextEmbedding | None
    shape: tuple[int] = eqx.field(static=True)
    components: int = eqx.field(static=True)
    bounds: tuple[tuple[float, float] | None, ...] = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        components: int = 8,
        width: int = 64,
        depth: int = 2,
        kinds: constraints.Constraint | Sequence[constraints.Constraint] | None = None,
        context: int | ContextEmbedding | None = None,
        data: Float[np.ndarray, "n size"] | tuple[np.ndarray, np.ndarray] | None = None,
        key: PRNGKeyArray,
    ):
        name = "MixtureAutoregressive"
        check_counts(name, size=size, components=components, width=width, depth=depth)
        check_key(name, "key", key)
        self.shape, self.components = (size,), components
        self.bounds = _bounds(name, kinds, size)
        self.embedding = as_embedding(name, context)
        features = 0 if self.embedding is None else self.embedding.size
        rows, contexts = _rows(name, data, self.bounds, self.context_shape)

        keys = jax.random.split(key, depth + 2)
        out, dtype = size * 3 * components, jnp.result_type(float)
        self.first = _dense(keys[0], size, width)
        self.last, self.skip = jnp.zeros((out, width), dtype), jnp.zeros((out, size), dtype)
        self.trunk, self.affine, self.context_skip = None, None, None
        if features:
            self.trunk = eqx.nn.MLP(features, width, width, 2, jax.nn.gelu, jax.nn.gelu, key=keys[1])
            self.affine = jnp.zeros((2 * size + size * (size - 1) // 2, width), dtype)
            self.context_skip = jnp.zeros((out, features), dtype)
        self.blocks = tuple(_Block(width, features > 0, key=k) for k in keys[2:])

        regression, offset, spread = np.zeros((size, size + features)), np.zeros(size), np.ones(size)
        mean, deviation = np.zeros(size), np.ones(size)
        if rows is not None:
            mean, deviation = rows.mean(axis=0), rows.std(axis=0)
            deviation = np.where(deviation > 0, deviation, 1.0)
            seen = np.zeros((len(rows), features))
            if contexts is not None:
                seen = np.asarray(jax.lax.map(self._features, jnp.asarray(contexts, dtype)), float)
            regression, offset, spread = _regressions((rows - mean) / deviation, seen)
        self.mean, self.deviation = jnp.asarray(mean, dtype), jnp.asarray(deviation, dtype)
        self.scale = jnp.asarray(deviation * spread, dtype)
        regression = regression / spread[:, None]
        self.regression, self.offset = jnp.asarray(regression[:, :size], dtype), jnp.asarray(offset / spread, dtype)
        self.context_regression = jnp.asarray(regression[:, size:], dtype) if features else None
        # The components together are about the standard normal law.
        bias = np.zeros((size, 3, components))
        bias[:, 1] = 0.5 * _quantiles(components)
        bias[:, 2] = _before_bounds(np.log(0.75**0.5) if components > 1 else 0.0, self._narrowest(self.scale))[:, None]
        self.bias = jnp.asarray(bias.ravel(), dtype)

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """The shape of a context; None if the law takes none."""
        return None if self.embedding is None else self.embedding.shape

    def log_prob(self, x: Float[Array, " size"], context: Float[Array, "*context"] | None = None) -> Float[Array, ""]:
        """Log density of the real numbers and log mass of the integers in x; minus infinity off their bounds."""
        x = check_event("MixtureAutoregressive", "x", x, self.shape, booleans=True).astype(self.mean.dtype)
        features = self._features(context)
        seen = self._seen(features)
        shift, slopes, stretch = self._affine(seen)
        scale = jax.lax.stop_gradient(self.scale) * jnp.exp(stretch)
        left = (x - self._predicted(x, features)) / jax.lax.stop_gradient(self.scale)
        r = (left - shift - slopes @ left) * jnp.exp(-stretch)
        log_weight, mean, log_width = self._parameters(r, features, seen, scale)
        each = (r[:, None] - mean) * jnp.exp(-log_width)
        integers = self._integers
        terms = -0.5 * each**2 - log_width - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(scale)[:, None]
        inside: Any = True
        if len(integers):
            lower, upper = np.array([self.bounds[i] for i in integers]).T
            y = x[integers]
            bins = jnp.exp(-log_width[integers]) / scale[integers][:, None]
            mass = log_bin_mass(each[integers], bins, (y <= lower)[:, None], (y >= upper)[:, None])
            terms = terms.at[integers].set(mass)
            inside = jnp.all((y >= lower) & (y <= upper) & (y == jnp.round(y)))
        found = jnp.sum(jax.nn.logsumexp(log_weight + terms, axis=1))
        return jnp.where(inside, found, -jnp.inf)

    def sample(self, key: PRNGKeyArray, context: Float[Array, "*context"] | None = None) -> Float[Array, " size"]:
        """One draw, number by number; integers come out rounded and within their bounds."""
        check_key("MixtureAutoregressive", "key", key)
        features = self._features(context)
        lower, upper = np.array([(-np.inf, np.inf) if b is None else b for b in self.bounds]).T
        lower, upper = jnp.asarray(lower, self.mean.dtype), jnp.asarray(upper, self.mean.dtype)
        whole = jnp.asarray([b is not None for b in self.bounds])

        seen = self._seen(features)
        shift, slopes, stretch = self._affine(seen)
        scale = self.scale * jnp.exp(stretch)

        def one(i, state):
            x, left, r = state
            log_weight, mean, log_width = self._parameters(r, features, seen, scale)
            which, noise = jax.random.split(jax.random.fold_in(key, i))
            k = jax.random.categorical(which, log_weight[i])
            drawn = mean[i, k] + jnp.exp(log_width[i, k]) * jax.random.normal(noise, (), mean.dtype)
            predicted, center = self._predicted(x, features)[i], shift[i] + slopes[i] @ left
            y = predicted + self.scale[i] * center + scale[i] * drawn
            y = jnp.where(whole[i], jnp.clip(jnp.round(y), lower[i], upper[i]), y)
            now = (y - predicted) / self.scale[i]
            found = (now - center) * jnp.exp(-stretch[i])
            return x.at[i].set(y), left.at[i].set(now), r.at[i].set(found)

        zeros = jnp.zeros_like(self.mean)
        return jax.lax.fori_loop(0, self.shape[0], one, (self.mean, zeros, zeros))[0]

    @property
    def _integers(self) -> np.ndarray:
        """The places of the integers."""
        return np.flatnonzero([b is not None for b in self.bounds])

    def _narrowest(self, scale: Array) -> Array:
        """Logarithm of the smallest width of a component of each number."""
        in_bins = jnp.clip(jnp.log(NARROWEST_IN_BINS / scale), NARROWEST, WIDEST - 1)
        return jnp.where(jnp.asarray([b is None for b in self.bounds]), NARROWEST, in_bins)

    def _seen(self, features: Array | None) -> Array | None:
        """What all parts see of the context, besides its features."""
        return None if features is None or self.trunk is None else self.trunk(features)

    def _affine(self, seen: Array | None) -> tuple[Array, Array, Array]:
        """Shift, slopes on the numbers before and log stretch of what the regression leaves."""
        size = self.shape[0]
        zeros = jnp.zeros(size, self.mean.dtype)
        slopes = jnp.zeros((size, size), self.mean.dtype)
        if seen is None or self.affine is None:
            return zeros, slopes, zeros
        found = self.affine @ seen
        slopes = slopes.at[np.tril_indices(size, -1)].set(found[2 * size :])
        return found[:size], slopes, LARGEST_STRETCH * jnp.tanh(found[size : 2 * size] / LARGEST_STRETCH)

    def _predicted(self, x: Array, features: Array | None) -> Array:
        """The regression of each number on those before it and on the context."""
        mean, deviation = jax.lax.stop_gradient((self.mean, self.deviation))
        size = self.shape[0]
        found = (self.regression * np.tri(size, k=-1)) @ ((x - mean) / deviation) + self.offset
        if features is not None and self.context_regression is not None:
            found += self.context_regression @ features
        return mean + found * jax.lax.stop_gradient(self.scale)

    def _features(self, context: Array | None) -> Array | None:
        return features_of("MixtureAutoregressive", self.embedding, context)

    def _parameters(
        self, r: Array, features: Array | None, seen: Array | None, scale: Array
    ) -> tuple[Array, Array, Array]:
        """Log weights, means and log widths of all numbers, in the units of r, which are ``scale``."""
        size, width = self.shape[0], self.first.shape[0]
        # What a hidden unit sees: the numbers up to this one, or none (-1).
        least = -1 if size == 1 or seen is not None else 0
        sees = np.floor(np.linspace(least, size - 1, width, endpoint=False)).astype(int)
        number = np.repeat(np.arange(size), 3 * self.components)
        h = (self.first * (sees[:, None] >= np.arange(size))) @ jnp.arcsinh(r)
        for block in self.blocks:
            h = block(h, seen, sees[:, None] >= sees)
        out = (self.last * (number[:, None] > sees)) @ h + self.bias
        out += (self.skip * (number[:, None] > np.arange(size))) @ r
        if features is not None and self.context_skip is not None:
            out += self.context_skip @ features
        logits, mean, log_width = jnp.moveaxis(out.reshape(size, 3, self.components), 1, 0)
        return jax.nn.log_softmax(logits), mean, _bounded(log_width, self._narrowest(scale)[:, None])


class _Block(eqx.Module):
    """A masked residual block of two layers; what is seen of the context shifts and scales the units between them."""

    weights: tuple[Float[Array, "width width"], Float[Array, "width width"]]
    biases: tuple[Float[Array, " width"], Float[Array, " width"]]
    shift: Float[Array, "width width"] | None
    gate: Float[Array, "width width"] | None

    def __init__(self, width: int, conditional: bool, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        dtype = jnp.result_type(float)
        self.weights = (_dense(keys[0], width, width), _dense(keys[1], width, width))
        self.biases = (jnp.zeros(width, dtype), jnp.zeros(width, dtype))
        self.shift = _dense(keys[2], width, width) if conditional else None
        self.gate = _dense(keys[3], width, width) if conditional else None

    def __call__(self, h: Array, seen: Array | None, mask: np.ndarray) -> Array:
        inner = (self.weights[0] * mask) @ jax.nn.gelu(h) + self.biases[0]
        if seen is not None and self.shift is not None and self.gate is not None:
            inner = inner * (1 + self.gate @ seen) + self.shift @ seen
        return h + (self.weights[1] * mask) @ jax.nn.gelu(inner) + self.biases[1]


def _dense(key: PRNGKeyArray, n: int, m: int) -> Array:
    return jax.random.normal(key, (m, n)) / n**0.5


def _bounded(log_width: Array, least: Array) -> Array:
    """Between ``least`` and WIDEST, about the identity in the middle."""
    middle, half = (WIDEST + least) / 2, (WIDEST - least) / 2
    return middle + half * jnp.tanh((log_width - middle) / half)


def _before_bounds(log_width: float, least: Array) -> np.ndarray:
    """The inverse, for the numbers of a start."""
    middle, half = (WIDEST + np.asarray(least, float)) / 2, (WIDEST - np.asarray(least, float)) / 2
    return middle + half * np.arctanh(np.clip((log_width - middle) / half, -0.95, 0.95))


def _quantiles(components: int) -> np.ndarray:
    """Of the standard normal law, scaled to variance 1 if there are two or more."""
    found = np.asarray(ndtri((np.arange(components) + 0.5) / components), float)
    return found / max(found.std(), 1e-9) if components > 1 else found


def _regressions(z: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes on the numbers before and the features, offsets and residuals' deviations, for each number."""
    size = z.shape[1]
    table = np.concatenate([z, features - features.mean(axis=0)], axis=1)
    slopes, spread = np.zeros((size, table.shape[1])), np.ones(size)
    for i in range(size):
        seen = [*range(i), *range(size, table.shape[1])]
        slopes[i, seen] = np.linalg.lstsq(table[:, seen], z[:, i], rcond=1e-7)[0]
        spread[i] = np.std(z[:, i] - table @ slopes[i])
    offsets = -slopes[:, size:] @ features.mean(axis=0)
    return slopes, offsets, np.maximum(spread, np.exp(NARROWEST + 1))


def _bounds(name: str, kinds: Any, size: int) -> tuple[tuple[float, float] | None, ...]:
    """Bounds of the integers, None for real numbers."""
    if kinds is None:
        return (None,) * size
    if not isinstance(kinds, constraints.Constraint | tuple | list):
        raise TypeError(f"{name}: `kinds` must be NumPyro constraints; got {describe(kinds)}.")
    each = [kinds] * size if isinstance(kinds, constraints.Constraint) else list(kinds)
    if len(each) != size:
        raise ValueError(f"{name}: `kinds` must be one constraint, or one for each of {size} numbers; got {len(each)}.")
    return tuple(_bounds_of(name, kind) for kind in each)


def _bounds_of(name: str, kind: Any) -> tuple[float, float] | None:
    if not isinstance(kind, constraints.Constraint):
        raise TypeError(f"{name}: `kinds` must be NumPyro constraints; got {type(kind).__name__}.")
    if kind is constraints.real:
        return None
    if not kind.is_discrete or kind.event_dim:
        raise ValueError(
            f"{name}: `kinds` must be `constraints.real` or constraints of one integer; got {kind}. Map other numbers "
            "to the real line first, with `biject_to`."
        )
    if kind is constraints.boolean:
        return 0.0, 1.0
    return float(getattr(kind, "lower_bound", -np.inf)), float(getattr(kind, "upper_bound", np.inf))


def _rows(
    name: str, data: Any, bounds: tuple[tuple[float, float] | None, ...], shape_of_context: tuple[int, ...] | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The first rows, and their contexts if there are some."""
    if data is None:
        return None, None
    if isinstance(data, tuple) and len(data) != 2:
        raise ValueError(f"{name}: `data` must be rows, or a pair of rows and contexts; got a tuple of {len(data)}.")
    rows, contexts = data if isinstance(data, tuple) else (data, None)
    size, rows = len(bounds), check_rows(name, "data", rows, ROWS)
    if rows.ndim != 2 or rows.shape[1] != size or len(rows) < 2 or not np.all(np.isfinite(rows)):
        raise ValueError(
            f"{name}: `data` must be two finite rows of {size} numbers or more; got shape {rows.shape}"
            f"{'' if np.all(np.isfinite(rows)) else ' with numbers that are not finite'}."
        )
    for i, bound in enumerate(bounds):
        y = rows[:, i]
        if bound is not None and not np.all((y >= bound[0]) & (y <= bound[1]) & (y == np.round(y))):
            raise ValueError(
                f"{name}: number {i} of `data` is to be an integer from {bound[0]:g} to {bound[1]:g}; it ranges from "
                f"{y.min():g} to {y.max():g}{'' if np.all(y == np.round(y)) else ' and is not whole'}."
            )
    if contexts is None:
        return rows, None
    if shape_of_context is None:
        raise ValueError(f"{name}: `data` has contexts, and the law has none; say `context`.")
    contexts = check_rows(name, "data", contexts, ROWS)
    if contexts.shape[1:] != shape_of_context or not contexts.ndim:
        raise ValueError(
            f"{name}: contexts in `data` must have shape {shape_of_context} each, one per row; got an array of shape "
            f"{contexts.shape}."
        )
    if len(contexts) != len(rows) or not np.all(np.isfinite(contexts)):
        raise ValueError(
            f"{name}: contexts in `data` must be finite, one per row; got {len(contexts)} for {len(rows)} rows"
            f"{'' if np.all(np.isfinite(contexts)) else ', with numbers that are not finite'}."
        )
    return rows, contexts
