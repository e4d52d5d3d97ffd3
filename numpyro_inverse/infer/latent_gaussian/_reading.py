"""A NumPyro model read as: hyperparameters, Gaussian latents, a linear predictor, data given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import Distribution, Normal

from numpyro_inverse._model import (
    Site,
    Trace,
    abstract_trace,
    check_complex_data,
    latent_sites,
    log_probs,
    not_finite,
    observed_sites,
    sample_sites,
    subsampling_plates,
    trace_at,
)
from numpyro_inverse.distributions._reparametrized import domain_of, has_amplitudes, has_base, unwrapped
from numpyro_inverse.infer.exact._gaussian_site import describe, is_gaussian, is_masked
from numpyro_inverse.infer.exact._requirements import improper_at_rest

HERE = "LatentGaussian"
ROUNDING = 0.75  # power of machine epsilon that is granted to the rounding of a forward map

Values = dict[str, Array]


class LatentModel(eqx.Module):
    r"""Hyperparameters :math:`\theta`, latents x that are Gaussian given them, a predictor :math:`\eta` that is affine
    in x, and data whose density depends on x through :math:`\eta` alone.

    Attributes:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        predictors: names of the deterministic sites that are :math:`\eta`, one after the other.
        latents: names of the latent sites x.
        hyper: names of the others.
        names: of all sites.
    """

    model: Callable = eqx.field(static=True)
    args: tuple
    kwargs: dict[str, Any]
    predictors: tuple[str, ...] = eqx.field(static=True)
    latents: tuple[str, ...] = eqx.field(static=True)
    hyper: tuple[str, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def trace(self, hyper: Mapping[str, Array], values: Mapping[str, Array] | None = None) -> Trace:
        """The sites at hyperparameters and at ``values`` of latents or predictors; other latents at their mean."""
        values = dict(values or {})

        def choose(site: Site) -> Any:
            name = site["name"]
            if name in values:
                return values[name]
            if site["type"] != "sample" or site["is_observed"]:
                return None
            return hyper[name] if name in hyper else prior_mean(site)

        return trace_at(self.model, self.args, self.kwargs, substitute_fn=choose)

    def means(self, hyper: Mapping[str, Array]) -> Values:
        """The latents at their prior means."""
        trace = self.trace(hyper)
        return {name: trace[name]["value"] for name in self.latents}

    def predictor(self, trace: Trace) -> Float[Array, " m"]:
        """The linear predictor in a trace, flat."""
        return jnp.concatenate([jnp.ravel(trace[name]["value"]) for name in self.predictors])

    def split(self, trace: Trace, eta: Float[Array, " m"]) -> Values:
        """A flat predictor as the values of its sites."""
        like = {name: trace[name]["value"] for name in self.predictors}
        found, start = {}, 0
        for name, value in like.items():
            count = jnp.size(value)
            found[name] = eta[start : start + count].reshape(jnp.shape(value))
            start += count
        return found

    def log_likelihood(self, hyper: Mapping[str, Array], like: Trace) -> Callable[[Float[Array, " m"]], Array]:
        r""":math:`\log p(y \mid \eta, \theta)` as a function of :math:`\eta`; ``like`` is a trace, for shapes.

        At :math:`\eta = 0`, where one begins, the gradient of NumPyro's laws of logits is wrong (:math:`y - 1` or
        :math:`y` for :math:`y - 1/2`: they are written with a kink there), so zeros are moved by a rounding.
        """

        def of_predictor(eta: Array) -> Array:
            eta = eta + jnp.where(eta == 0, jnp.finfo(eta.dtype).eps, 0)
            trace = self.trace(hyper, self.split(like, eta))
            return sum(log_probs(observed_sites(trace)).values(), jnp.zeros((), eta.dtype))

        return of_predictor

    @eqx.filter_jit
    def draw_hyper(self, key: Array) -> Values:
        """Hyperparameters from their prior."""
        at_mean = handlers.substitute(improper_at_rest(self.model), substitute_fn=self._mean)
        trace = trace_at(at_mean, self.args, self.kwargs, rng_key=key)
        return {name: trace[name]["value"] for name in self.hyper}

    def _mean(self, site: Site) -> Any:
        return prior_mean(site) if site["type"] == "sample" and site["name"] in self.latents else None


def prior_mean(site: Site) -> Float[Array, "..."]:
    """The mean of a site, floating also where that of ``Normal(0, 3)`` is an integer, which has no derivative."""
    mean = jnp.broadcast_to(site["fn"].mean, site["fn"].shape())
    return mean.astype(jnp.result_type(float, mean))


def read_model(
    model: Callable, args: tuple, kwargs: Mapping[str, Any], predictors: tuple[str, ...], sites: Sequence[str] | None
) -> tuple[LatentModel, Values, Float[Array, " m"]]:
    """The model read, hyperparameters from the prior and the predictor at the latents' mean there.

    Raises as :class:`LatentGaussian` says.
    """
    trace = abstract_trace(model, args, kwargs)
    latent, observed = latent_sites(trace), observed_sites(trace)
    _check_sites(trace, latent, observed, predictors)
    fields = tuple(name for name, site in latent.items() if domain_of(site["fn"]) is not None)
    rest = tuple(name for name in latent if name not in fields)
    whole = LatentModel(model, args, dict(kwargs), predictors, fields, rest, tuple(trace))
    chosen = _chosen(whole, latent, sites)
    left = tuple(name for name in latent if name not in chosen)
    for name in left:
        if latent[name]["fn"].support.is_discrete:
            raise ValueError(f"{HERE}: hyperparameter {name!r} is discrete; sum it out in the model.")
    found = LatentModel(model, args, dict(kwargs), predictors, chosen, left, tuple(trace))
    hyper = found.draw_hyper(jax.random.key(0))
    return found, hyper, _check_structure(found, hyper)


def _check_sites(trace: Trace, latent: Trace, observed: Trace, predictors: tuple[str, ...]) -> None:
    if not latent:
        raise ValueError(f"{HERE}: the model has no latent site.")
    if not observed:
        raise ValueError(f"{HERE}: the model has no observed site; call it with the data (`obs=...`).")
    known = [name for name, site in trace.items() if site["type"] == "deterministic"]
    for name in predictors:
        if name not in known:
            there = ", ".join(map(repr, known)) or "none"
            raise ValueError(
                f"{HERE}: `predictor` {name!r} is no deterministic site of the model (there: {there}). Name the linear "
                f'predictor in the model: `eta = numpyro.deterministic("{name}", a + seen(field))`.'
            )
    if plates := subsampling_plates(trace):
        raise ValueError(f"{HERE}: plate {plates[0]!r} draws batches of the data, of which there is no mode.")
    check_complex_data(HERE, observed)
    for name, site in observed.items():
        if bad := not_finite(site):
            raise ValueError(f"{HERE}: {bad} of the data at site {name!r} are not finite; leave them out by a mask.")


def _chosen(model: LatentModel, latent: Trace, sites: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the latents: those given, or the fields and every effect that acts on the predictor alone."""
    if sites is not None:
        unknown = [name for name in sites if name not in latent]
        if unknown or not sites:
            there = ", ".join(map(repr, latent))
            what = f"has {unknown[0]!r}" if unknown else "is empty"
            raise ValueError(f"{HERE}: `sites` {what}; latent are {there}.")
        chosen = tuple(name for name in latent if name in sites)
    else:
        fields = model.latents
        others = [k for k, s in latent.items() if k not in fields and _may_act(s["fn"])]
        chosen = (*fields, *_effects(model, latent, others)) if others else fields
        if not any(has_base(latent[name]["fn"]) for name in chosen):
            raise ValueError(
                f"{HERE}: the model has no Gaussian field, such as `Matern(mesh, ...)`; name the latents that are to "
                "be integrated out in `sites`."
            )
    for name in chosen:
        _check_latent(name, latent[name])
    return tuple(sorted(chosen, key=lambda name: isinstance(unwrapped(latent[name]["fn"]), Normal)))  # effects last


def _may_act(fn: Distribution) -> bool:
    """Whether it is a normal law or one of a field's coefficients."""
    return isinstance(unwrapped(fn), Normal) or has_amplitudes(fn)


def _check_latent(name: str, site: Site) -> None:
    fn = site["fn"]
    if is_masked(fn) or site["scale"] is not None:
        raise ValueError(f"{HERE}: the log density of latent site {name!r} is masked or scaled.")
    base = getattr(unwrapped(fn), "base_dist", None) if has_base(fn) else fn
    if base is None or not is_gaussian(base):
        raise ValueError(
            f"{HERE}: latent site {name!r} is {describe(fn)}, not Gaussian. Leave it out of `sites`, or use NUTS."
        )


def _effects(model: LatentModel, latent: Trace, names: list[str]) -> list[str]:
    """The sites in which the predictor is affine and on which the rest of the model does not depend."""

    hyper = model.draw_hyper(jax.random.key(0))
    steps = {name: 1 + jax.random.uniform(jax.random.key(1), latent[name]["fn"].shape()) for name in names}
    good = _acts_alone(model, hyper, steps)
    return [name for name in names if good[name]]


@eqx.filter_jit
def _acts_alone(model: LatentModel, hyper: Values, steps: Values) -> dict[str, Array]:
    """Whether the predictor changes on a line as a site moves by 1 and 3 steps, and no law does at a fixed one."""
    here = model.trace(hyper)
    fixed = {name: here[name]["value"] for name in model.predictors}

    def at(name: str, s: Array) -> tuple[Array, Array]:
        moved = hyper | {name: hyper[name] + s * steps[name]}
        others = {k: site for k, site in sample_sites(model.trace(moved, fixed)).items() if k != name}
        return model.predictor(model.trace(moved)), _parameters(others)

    found = {}
    for name in steps:
        eta, laws = jax.lax.map(partial(at, name), jnp.array([0.0, 1.0, 3.0]))
        affine, size = _affine(*eta)
        found[name] = (size > 0) & affine & _same(laws[0], laws[1]) & _same(laws[0], laws[2])
    return found


def _affine(one: Array, two: Array, three: Array) -> tuple[Array, Array]:
    """Whether values at 0, 1 and 3 steps lie on a line, and the length of a step."""
    size = jnp.linalg.norm(two - one)
    bend = jnp.linalg.norm((three - one) - 3 * (two - one))
    return bend <= _rounding(one) * (size + jnp.linalg.norm(one)), size


def _same(one: Array, two: Array) -> Array:
    return jnp.all((jnp.abs(one - two) <= _rounding(one) * (1 + jnp.abs(one))) | (jnp.isnan(one) & jnp.isnan(two)))


def _parameters(sites: Trace) -> Array:
    """All numbers that the laws of some sites are made of, and their data."""
    trees = [(site["fn"], site["value"] if site["is_observed"] else ()) for site in sites.values()]
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(trees)]
    split = [(leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,) for leaf in leaves]
    numbers = [part.astype(float) for parts in split for part in parts]
    return jnp.concatenate([jnp.zeros(1), *numbers])


def _check_structure(model: LatentModel, hyper: Values) -> Float[Array, " m"]:
    """The predictor is affine in the latents, they enter nothing else, and the data are independent given it."""

    mean, *checks = _structure(model, hyper)
    finite, affine, moves, same, smooth, diagonal = (bool(x) for x in checks)
    eta, latents = (", ".join(map(repr, names)) for names in (model.predictors, model.latents))
    if not finite:
        raise ValueError(f"{HERE}: the predictor {eta} is not finite at latents drawn at random.")
    if not affine:
        raise ValueError(
            f"{HERE}: the predictor {eta} is not affine in the latents {latents}. Leave a site out of them by `sites`, "
            "or use NUTS."
        )
    if not moves:
        raise ValueError(f"{HERE}: the predictor {eta} does not depend on the latents {latents}.")
    if not same:
        raise ValueError(
            f"{HERE}: at a fixed predictor the laws of other sites change with the latents {latents}: they must enter "
            f"through the predictor {eta} alone."
        )
    if not smooth:
        raise ValueError(
            f"{HERE}: the log likelihood at the prior mean of the predictor {eta}, or a derivative, is not finite."
        )
    if not diagonal:
        raise ValueError(
            f"{HERE}: the data are not independent given the predictor {eta}: the Hessian of their log density is not "
            "diagonal. Each number of the predictor must have its own data."
        )
    return mean


@eqx.filter_jit
def _structure(model: LatentModel, hyper: Values) -> tuple[Array, ...]:
    """The predictor at the prior mean, and what :func:`_check_structure` asks of the model."""
    trace = model.trace(hyper)
    flat, unravel = ravel_pytree({name: trace[name]["value"] for name in model.latents})
    key, other = jax.random.split(jax.random.key(2))
    step = jax.random.normal(key, flat.shape, flat.dtype)

    def predictor(s: Array) -> Array:
        return model.predictor(model.trace(hyper, unravel(flat + s * step)))

    def laws(s: Array) -> Array:
        sites = sample_sites(model.trace(hyper, unravel(flat + s * step) | fixed))
        return _parameters({name: site for name, site in sites.items() if name not in model.latents})

    eta = jax.lax.map(predictor, jnp.array([0.0, 1.0, 3.0]))
    one = eta[0]
    fixed = model.split(trace, one)
    known = jax.lax.map(laws, jnp.array([0.0, 1.0]))
    gradient = jax.grad(model.log_likelihood(hyper, trace))
    direction = jax.random.normal(other, one.shape, one.dtype)
    curved = jax.jvp(gradient, (one,), (direction,))[1]
    off = curved - direction * jax.jvp(gradient, (one,), (jnp.ones_like(one),))[1]
    # Far from the data a Hessian is the difference of terms as large as the gradient: y - y for a count y.
    lost = 10 * jnp.finfo(one.dtype).eps * jnp.linalg.norm(direction * gradient(one))
    diagonal = jnp.linalg.norm(off) <= _rounding(one) * jnp.linalg.norm(curved) + lost
    affine, size = _affine(*eta)
    finite, smooth = jnp.all(jnp.isfinite(eta[2])), jnp.all(jnp.isfinite(curved))
    return one, finite, affine, size > 0, _same(*known), smooth, diagonal


def _rounding(like: Array) -> float:
    return float(jnp.finfo(like.dtype).eps) ** ROUNDING
