"""How the gradient of a log likelihood grows with the time that is observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import Independent, biject_to

from numpyro_inverse._checks import (
    check_count,
    check_finite,
    check_instance,
    check_key,
    check_model_call,
    check_static,
    describe,
)
from numpyro_inverse._model import (
    Trace,
    abstract_trace,
    data_sites,
    discrete_latents,
    latent_sites,
    sample_sites,
    simulate,
    simulated_data,
    unconstrained_trace,
)

HERE = "sbi.shattering"
REACH = 1024  # leapfrog steps in the longest trajectory of NUTS with its default depth
POLYNOMIAL = 3.0  # growth up to t^3 is not called exponential
FEWEST_WINDOWS = 8


class Shattering(NamedTuple):
    r"""The gradient of the log likelihood of the data up to each time.

    Attributes:
        times: ends of the windows.
        log_gradient: mean over draws of the logarithm of the gradient's norm, in unconstrained coordinates.
        median_gradient: median over draws of that norm.
        growth_rate: slope of ``log_gradient`` in the second half of the time; of a chaotic system its largest Lyapunov
            exponent.
        standard_error: of ``growth_rate``, from the spread over draws.
        horizon: the time from which the exact likelihood is useless to a gradient sampler; infinite if its gradient
            does not grow exponentially, extrapolated at ``growth_rate`` if it lies beyond ``times``.
        precision_horizon: the time from which the log likelihood at neighboring floating-point numbers differs by more
            than 1: not even its value can be trusted then. Infinite if that is not reached within ``times``.
        reason: in words.
    """

    times: Float[np.ndarray, " windows"]
    log_gradient: Float[np.ndarray, " windows"]
    median_gradient: Float[np.ndarray, " windows"]
    growth_rate: float
    standard_error: float
    horizon: float
    precision_horizon: float
    reason: str


def shattering(
    model: Callable,
    rng_key: Array,
    *,
    site: str | None = None,
    times: Float[Array, " windows"] | None = None,
    wrt: Sequence[str] | None = None,
    params: Mapping[str, Array] | None = None,
    num_draws: int = 128,
    time_axis: int = 0,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> Shattering:
    r"""Measure how the gradient of the log likelihood grows with the time that is observed.

    For draws of the latents z and the data y from the model, the gradients of

    .. math:: \ell_k(z) = \sum_{i \le k} \log p(y_i \mid z), \qquad k = 1, \dots, T,

    at the z that made the data, with respect to its unconstrained coordinates; all of them from one derivative in
    forward mode of the T terms. In a chaotic system :math:`|\nabla \ell_k| \sim e^{\lambda t_k}` with the largest
    Lyapunov exponent :math:`\lambda`, and the posterior's width, which is the inverse of the gradient's root mean
    square (the information identity), falls as fast, while beyond it the likelihood has local maxima without number.
    The horizon is where the largest derivative (in the prior's standard deviations, median over draws) exceeds 1,024,
    the leapfrog steps of the longest trajectory of NUTS, which then no longer crosses the prior in steps
    as wide as the posterior. It is infinite if the gradient grows no more than :math:`t^3` does from the middle of the
    time to its end, or no faster than its Monte Carlo error: data that are plenty and not chaotic sharpen a posterior
    too, but leave it smooth.

    Remedy: data that are averages over time (``models/lorenz63.py``), whose law, learned by
    :class:`numpyro_inverse.sbi.NLE`, is smooth in the parameters. Their derivatives along a trajectory shatter too.

    The derivative needs forward mode: ``diffrax.diffeqsolve`` gets ``adjoint=diffrax.DirectAdjoint()``.

    Args:
        model: a NumPyro model with a site that is independent over times given the latents.
        rng_key: of the draws.
        site: that site. Default: the one with data; in a model called without data the last one.
        times: one for each element along ``time_axis``, increasing. Default: what the model says at the site,
            ``infer={"times": times}``; else 1, 2, ....
        wrt: the latent sites in whose direction the gradient is taken, with one forward pass for each of their
            numbers. Default: all.
        params: constrained values of latent sites at which the gradient is taken. Default: a draw from the prior each.
        num_draws: data sets, at least 2.
        time_axis: among the batch axes of the site's law (without ``to_event``).
        model_args: arguments of the model.
        model_kwargs: keyword arguments of the model.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a model without latents, or discrete ones among ``wrt``; an unknown name in ``site``, ``wrt`` or
            ``params``, or no site to be found; a law with one density for all times; ``times`` that do not fit or
            increase; fewer than 8 times; a gradient that is zero; gradients that overflow so early that fewer are left.

    References:
        L. Metz, C. D. Freeman, S. S. Schoenholz and T. Kachman, Gradients are not all you need, arXiv 2111.05803.
        The name is of D. Balduzzi et al., The shattered gradients problem, ICML 2017.
    """
    model, args, kwargs = check_model_call(HERE, model, model_args, model_kwargs)
    call = args, kwargs
    check_key(HERE, "rng_key", rng_key)
    num_draws = check_count(HERE, "num_draws", num_draws, 2)
    if not isinstance(site, str | None):
        raise TypeError(f"{HERE}: `site` must be the name of a site; got {describe(site)}.")
    if wrt is not None and (not isinstance(wrt, tuple | list) or not all(isinstance(name, str) for name in wrt)):
        raise TypeError(f"{HERE}: `wrt` must be a tuple of names of sites; got {describe(wrt)}.")
    if params is not None:
        check_instance(HERE, "params", params, Mapping, "a dictionary of values by site")
    trace = abstract_trace(model, *call)
    site = _site(trace, site)
    latents = _latents(trace, site, wrt, params or {})
    ends = _times(trace[site], times, time_axis)

    @jax.jit
    def derivatives(key: Array) -> tuple[Array, ...]:
        """Latents at which the gradient is taken, latents of the prior, derivatives and values of each time's term."""
        key_here, key_prior, key_data = jax.random.split(key, 3)
        here = simulate(model, *call, key_here, params)
        others = {name: here[name]["value"] for name in latent_sites(trace) if name not in (*latents, site)}
        z, unravel = ravel_pytree(_unconstrained(here, latents))
        prior, _ = ravel_pytree(_unconstrained(simulate(model, *call, key_prior), latents))

        def terms(z: Array) -> tuple[Array, Array]:
            # The data are drawn here, for a law computed twice differs by rounding, which grows like the gradient.
            found = unconstrained_trace(handlers.substitute(model, data=others), *call, unravel(z))[site]
            data = jax.lax.stop_gradient(simulated_data({site: found}, key_data, 1)[site][0])
            values = _terms(found, data, time_axis)
            return values, values

        return z, prior, *jax.jacfwd(terms, has_aux=True)(z)

    found = jax.vmap(derivatives)(jax.random.split(rng_key, num_draws))
    z, prior, each, values = (np.asarray(part) for part in found)
    precision = jnp.finfo(each.dtype)
    gradients = np.cumsum(each.astype(float), axis=1)
    spread = prior.astype(float).std(0)
    good = np.all(np.isfinite(gradients), axis=(0, 2)) & np.all(np.isfinite(values), axis=0)
    count = np.argmax(np.append(~good, True))  # windows without overflow
    if count < FEWEST_WINDOWS:
        raise ValueError(
            f"{HERE}: the gradient is not finite from time {ends[count]:g} on in {each.dtype}; observe shorter "
            f"intervals, at least {FEWEST_WINDOWS} of them before that"
            + ("." if precision.bits == 64 else ", or use double precision (`jax.enable_x64(True)`).")
        )
    return _report(ends[:count], gradients[:, :count], np.abs(z.astype(float)), spread, precision)


def _report(times: Any, gradients: Any, size: Any, spread: Any, precision: Any) -> Shattering:
    """What gradients, (draws, windows, latents), say."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.linalg.norm(gradients, axis=2))
    late = times >= times[-1] / 2
    if not np.all(np.isfinite(logs[:, late])):
        raise ValueError(f"{HERE}: the gradient is zero; the law of the site must depend smoothly on the latents.")
    t = times[late] - times[late].mean()
    slopes = (logs[:, late] @ t) / (t @ t)
    rate, error = float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(len(slopes)))

    relative = np.median(np.max(np.abs(gradients * spread), axis=2), axis=0)  # in the prior's standard deviations
    rounding = np.median(np.sum(np.abs(gradients) * np.maximum(size, spread)[:, None], axis=2), axis=0) * precision.eps
    precision_horizon = _first(times, rounding > 1)
    span = times[-1] - times[late][0]
    exponential = rate * span > POLYNOMIAL * np.log(times[-1] / times[late][0]) and rate > 3 * error
    horizon = np.inf
    if exponential:
        horizon = _first(times, relative > REACH)
        if not np.isfinite(horizon):
            horizon = float(times[-1] + np.log(REACH / relative[-1]) / rate)
    reason = _reason(rate, error, horizon, times[-1], precision_horizon, precision.bits)
    logs, medians = logs.mean(0), np.exp(np.median(logs, axis=0))
    return Shattering(times, logs, medians, rate, error, horizon, precision_horizon, reason)


def _first(times: Any, reached: Any) -> float:
    """The first time from which it holds at all later ones; infinite if not at the last."""
    return float(times[np.argmax(np.logical_and.accumulate(reached[::-1])[::-1])]) if reached[-1] else np.inf


def _reason(rate: float, error: float, horizon: float, end: float, precision_horizon: float, bits: int) -> str:
    if np.isfinite(horizon):
        text = (
            f"The gradient grows like exp(({rate:.3g} +- {error:.2g}) t). From t = {horizon:.3g} on"
            f"{' (extrapolated)' if horizon > end else ''} the likelihood is more than {REACH} times narrower than the "
            "prior and jagged around its maximum: no trajectory of NUTS crosses the prior in steps of that width. Give "
            "it shorter data, or averages over time whose law is learned (`sbi.NLE`)."
        )
    else:
        text = (
            f"Up to t = {end:.3g} the gradient grows no faster than a power of t (rate {rate:.3g} +- {error:.2g}): "
            "the exact likelihood is fit for a gradient sampler."
        )
    if np.isfinite(precision_horizon):
        remedy = "use double precision (`jax.enable_x64(True)`)" if bits == 32 else "no precision helps for long"
        text += (
            f" From t = {precision_horizon:.3g} on its value changes by more than 1 between neighboring numbers of "
            f"{bits} bits: {remedy}."
        )
    return text


def _site(trace: Trace, name: str | None) -> str:
    sites = sample_sites(trace)
    data = list(data_sites(trace))
    if name is None:
        if len(data) > 1 or not sites:
            raise ValueError(f"{HERE}: name the `site` of the data; the model has {', '.join(data) or 'no sites'}.")
        return data[0] if data else list(sites)[-1]
    if name not in sites:
        raise ValueError(
            f"{HERE}: the model has no sample site {name!r} (`site`); it has {', '.join(sites) or 'none'}."
        )
    return name


def _latents(trace: Trace, site: str, wrt: Sequence[str] | None, params: Mapping[str, Any]) -> list[str]:
    """Names of the latent sites of the gradient."""
    latents = [name for name in latent_sites(trace) if name != site]
    if not latents:
        raise ValueError(f"{HERE}: the model has no latent sites besides {site!r}.")
    for argument, names in (("wrt", wrt or ()), ("params", params)):
        if unknown := [name for name in names if name not in latents]:
            raise ValueError(
                f"{HERE}: `{argument}` has {unknown[0]!r}, which is no latent site; those are {', '.join(latents)}."
            )
    chosen = latents if wrt is None else list(wrt)
    if not chosen:
        raise ValueError(f"{HERE}: `wrt` must name one latent site or more; got none.")
    for name, value in params.items():
        check_finite(HERE, f"params[{name!r}]", value)
        if np.shape(value) != trace[name]["fn"].shape():
            raise ValueError(
                f"{HERE}: `params[{name!r}]` must have shape {trace[name]['fn'].shape()}, as the site; got "
                f"{np.shape(value)}."
            )
    if discrete := [name for name in discrete_latents(trace) if name in chosen]:
        raise ValueError(f"{HERE}: there is no gradient with respect to the discrete sites {', '.join(discrete)}.")
    return chosen


def _times(found: dict[str, Any], times: Any, axis: int) -> np.ndarray:
    """Ends of the windows, checked against the law of the site."""
    shape = _elementwise(found["fn"]).batch_shape
    if isinstance(check_static(HERE, "time_axis", axis), bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"{HERE}: `time_axis` must be an integer; got {describe(axis)}.")
    if not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"{HERE}: site {found['name']!r} has no batch axis {axis} (`time_axis`), but one density for all times; "
            f"its law must be independent over times, as `Normal(path, noise).to_event(2)`; its batch shape is {shape}."
        )
    if times is None:
        times = found["infer"].get("times", np.arange(1, shape[axis] + 1))
    ends = np.asarray(check_finite(HERE, "times", times), float)
    if ends.shape != (shape[axis],) or np.any(np.diff(ends, prepend=0) <= 0):
        raise ValueError(
            f"{HERE}: `times` must be {shape[axis]} positive, increasing numbers, one for each element along axis "
            f"{axis} of site {found['name']!r}; got shape {ends.shape}."
        )
    if len(ends) < FEWEST_WINDOWS:
        raise ValueError(
            f"{HERE}: growth is measured over {FEWEST_WINDOWS} times or more; site {found['name']!r} has {len(ends)}."
        )
    return ends


def _elementwise(fn: Any) -> Any:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def _terms(site: dict[str, Any], data: Array, axis: int) -> Array:
    """The log likelihood of each time."""
    log_prob = jnp.moveaxis(_elementwise(site["fn"]).log_prob(data), axis, 0)
    return jnp.sum(log_prob.reshape(len(log_prob), -1), axis=1)


def _unconstrained(trace: Trace, latents: list[str]) -> dict[str, Array]:
    return {name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name in latents}
