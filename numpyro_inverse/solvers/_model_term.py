"""The data term of a NumPyro model: what its data say of one of its sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Normal

from numpyro_inverse._checks import check_instance, check_model_call, check_numeric, is_traced, show
from numpyro_inverse._model import (
    Trace,
    abstract_trace,
    check_complex_data,
    data_sites,
    is_factor,
    latent_sites,
    log_probs,
    not_finite,
    observed_sites,
    subsampling_plates,
    trace_at,
)
from numpyro_inverse.distributions._complex_normal import ComplexNormal
from numpyro_inverse.distributions._reparametrized import unwrapped
from numpyro_inverse.operators import LinearOperator
from numpyro_inverse.solvers._data_term import DataTerm, SmoothDataTerm
from numpyro_inverse.solvers._least_squares import LeastSquares

HERE = "model_data_term"


class ModelOperator(LinearOperator):
    """The linear part of a model's whitened data as a function of a site."""

    in_shape: tuple[int, ...] = eqx.field(static=True)
    out_shape: tuple[int, ...] = eqx.field(static=True)
    function: Callable
    dtype: Any = eqx.field(static=True)

    def mv(self, x):
        return self.function(x.astype(self.dtype)).astype(x.dtype)


def model_data_term(
    model: Callable,
    site: str,
    *,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    values: Mapping[str, Array] | None = None,
    observed: Sequence[str] | None = None,
) -> DataTerm:
    r"""The data term :math:`f(x) = -\sum_i \log p(y_i \mid x)` of a model, as a function of one latent site x.

    The model is written once: with the prior's own law for sampling, and for solvers, which put a denoiser in the
    prior's place, without it. Where all data are ``Normal`` or ``ComplexNormal``, of any shape, with a mean that is
    affine in x and scales that do not depend on it, f is a :class:`LeastSquares` (up to a constant) of the
    whitened residual :math:`S^{-1}(y - m(x))`, with a proximal operator; else a :class:`SmoothDataTerm`, as where a
    model argument is traced. Which it is was tried at two random points.

    >>> term = model_data_term(
    ...     model, "field", model_kwargs={"data": y}, values={"range": 0.3, "scale": 1.0, "noise": 0.1}
    ... )
    >>> term.has_prox
    True

    Args:
        model: a NumPyro model.
        site: the latent site that is solved for, in its own (constrained) space.
        model_args: the model's arguments, the data among them.
        model_kwargs: its keyword arguments.
        values: of all other latent sites, constrained.
        observed: which observed sites and factors make up the data. Default: all observed sites, in a model without
            factors; in one with a ``numpyro.factor`` it must be said, for a factor may be likelihood or prior.

    Raises:
        TypeError: ``model`` cannot be called, ``site`` is no string, ``model_args`` no tuple, ``model_kwargs`` or
            ``values`` no dictionary, ``observed`` no list.
        ValueError: no such latent or observed site, or a discrete latent; a latent without value, or with one that is
            not finite, of another shape, or outside the site's support; a factor that may be anything; data that are
            not finite, or complex under a real law; a plate that subsamples.
    """
    model, args, kwargs = check_model_call(HERE, model, model_args, model_kwargs)
    check_instance(HERE, "site", site, str, "the name of a latent site")
    if values is not None:
        check_instance(HERE, "values", values, Mapping, "a dictionary of values by site")
    if observed is not None:
        check_instance(HERE, "observed", observed, list | tuple, "a list of names of sites")
    trace = abstract_trace(model, args, kwargs)
    names = _names_of_data(trace, site, values or {}, observed)
    fixed = {name: _checked_value(name, trace[name]["fn"], value) for name, value in (values or {}).items()}
    shape = tuple(trace[site]["fn"].shape())

    def at(x: Float[Array, "*shape"]) -> Trace:
        with numpyro.validation_enabled(False):
            found = trace_at(model, args, kwargs, {**fixed, site: x})
        return {name: found[name] for name in names}

    def negative_log_density(x: Float[Array, "*shape"]) -> Float[Array, ""]:
        with numpyro.validation_enabled(False):
            return -sum(log_probs(at(x)).values(), start=jnp.zeros((), x.dtype))

    if all(_is_normal(trace[name]) for name in names) and not is_traced(args, kwargs, fixed):
        found = _least_squares(at, shape)
        if found is not None:
            return found
    return SmoothDataTerm(negative_log_density)


def _checked_value(name: str, fn: Any, value: Any) -> Array:
    """The value of a latent site: finite numbers that broadcast to its shape, within its bounds if it has any."""
    argument, shape = f"values[{name!r}]", fn.shape()
    value = check_numeric(HERE, argument, value)
    try:
        fits = np.broadcast_shapes(np.shape(value), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{HERE}: `{argument}` must have the shape {shape} of the site; got {np.shape(value)}.")
    if not is_traced(value):
        known, support = np.asarray(value), fn.support
        if not np.all(np.isfinite(known)):
            raise ValueError(f"{HERE}: `{argument}` must be finite; got {show(known)}.")
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        bounded = hasattr(support, "lower_bound") or hasattr(support, "upper_bound")
        if bounded and not is_traced(support) and not np.all(support(known)):
            raise ValueError(f"{HERE}: `{argument}` must be within the site's support, {support}; got {show(known)}.")
    return jnp.asarray(value)


def _names_of_data(trace: Trace, site: str, fixed: Mapping[str, Array], wanted: Sequence[str] | None) -> list[str]:
    """The sites that make up the data term, or an error that says what is missing."""
    latent, seen = latent_sites(trace), observed_sites(trace)
    if site not in latent:
        raise ValueError(f"{HERE}: `site` must be a latent site, {_listed(latent)}; got {site!r}.")
    if latent[site]["fn"].support.is_discrete:
        raise ValueError(f"{HERE}: `site` must be continuous; {site!r} is discrete, and has no gradient.")
    missing = [name for name in latent if name != site and name not in fixed]
    if missing:
        raise ValueError(f"{HERE}: `values` must have a value of every other latent site; {_listed(missing)} has none.")
    unknown = [name for name in fixed if name not in latent or name == site]
    if unknown:
        raise ValueError(f"{HERE}: `values` has {_listed(unknown)}, which is no other latent site of the model.")
    plates = subsampling_plates(trace)
    if plates:
        raise ValueError(f"{HERE}: plate {plates[0]!r} draws batches; a data term needs all data.")
    if wanted is None:
        factors = [name for name, found in seen.items() if is_factor(found)]
        if factors:
            raise ValueError(
                f"{HERE}: the model has the factor {factors[0]!r}, which may be part of the likelihood or the prior. "
                f"Name what makes up the data, of {_listed(seen)}, with `observed=`."
            )
        wanted = list(data_sites(trace))
    unknown = [name for name in wanted if name not in seen]
    if unknown or not wanted:
        raise ValueError(
            f"{HERE}: `observed` must name observed sites of the model, {_listed(seen)}; got {_listed(wanted)}."
        )
    chosen = {name: trace[name] for name in wanted}
    check_complex_data(HERE, data_sites(chosen))
    for name, found in data_sites(chosen).items():
        bad = not_finite(found)
        if bad:
            raise ValueError(f"{HERE}: {bad} data of site {name!r} are not finite.")
    return list(wanted)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "of which there is none"


def _is_normal(site: Any) -> bool:
    return type(unwrapped(site["fn"])) in (Normal, ComplexNormal) and site["scale"] is None


def _least_squares(at: Callable[[Array], Trace], shape: tuple[int, ...]) -> LeastSquares | None:
    """The data term of Gaussian data, if their means are affine and their scales constant."""
    dtype = jnp.result_type(float)

    def whitened(x: Array) -> Array:
        parts = []
        for site in at(x).values():
            fn = unwrapped(site["fn"])
            residual = ((site["value"] - fn.loc) / fn.scale).ravel()
            parts += [residual.real, residual.imag] if jnp.iscomplexobj(residual) else [residual]
        return jnp.concatenate(parts).astype(dtype)

    def scales(x: Array) -> Array:
        return jnp.concatenate([jnp.ravel(unwrapped(site["fn"]).scale) for site in at(x).values()]).astype(dtype)

    def probe(x: Array) -> tuple[Array, Array]:
        base, linear = jax.linearize(whitened, jnp.zeros(shape, dtype))
        bend = jnp.linalg.norm(whitened(x) - base - linear(x))
        change = jnp.max(jnp.abs(scales(x) / scales(jnp.zeros(shape, dtype)) - 1))
        return bend / jnp.maximum(jnp.linalg.norm(linear(x)) + jnp.linalg.norm(base), 1e-30), change

    with jax.core.eval_context():
        noise = np.random.default_rng(0).normal(size=(2, *shape)).astype(dtype)
        points = noise * np.array([1.0, 4.0], dtype).reshape((2,) + (1,) * len(shape))
        errors = jax.jit(lambda points: jax.lax.map(probe, points))(points)
        if not all(float(jnp.max(error)) <= float(jnp.finfo(dtype).eps) ** 0.75 for error in errors):
            return None
        origin = jnp.zeros(shape, dtype)
        base, linear = jax.linearize(jax.jit(whitened), origin)
        operator = ModelOperator(shape, base.shape, _minus(linear), dtype)
        return LeastSquares(operator, base, 1.0)


def _minus(linear: Callable) -> Callable:
    return jax.tree_util.Partial(_negated, linear)


def _negated(linear: Callable, x: Array) -> Array:
    return -linear(x)
