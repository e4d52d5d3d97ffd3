"""Data that were not seen, predicted from finished draws, and scored where they are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key, Shaped
from numpyro.distributions import ExpandedDistribution, Independent
from numpyro.distributions.distribution import MaskedDistribution
from numpyro.infer import MCMC
from scipy.special import logsumexp

from numpyro_inverse._checks import (
    check_count,
    check_fraction,
    check_instance,
    check_key,
    check_real,
    describe,
)
from numpyro_inverse._model import Trace, abstract_trace, data_sites, is_factor, latent_sites, sample_sites, simulate
from numpyro_inverse.domains import Domain
from numpyro_inverse.infer.export._arviz import _dataset, _fitting, _name_axes, _named_dims, _pointwise
from numpyro_inverse.infer.export._draws import Run, map_draws, read_posterior, sampled, summarize

if TYPE_CHECKING:
    from xarray import Dataset

HERE = "predict_data"


def predict_data(
    posterior: MCMC | Mapping[str, Shaped[Array, "..."]],
    held_out: Mapping[str, Shaped[Array, "..."]] | None = None,
    *,
    model_args: tuple | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    model: Callable | None = None,
    sites: Sequence[str] | None = None,
    fresh: Sequence[str] = (),
    domain: Mapping[str, Domain] | None = None,
    probability: float = 0.9,
    num_chains: int | None = None,
    length_unit: str = "length unit",
    batch_size: int = 32,
    rng_key: Key[Array, ""] | None = None,
) -> Dataset:
    r"""The model's data at other arguments, such as new places or covariates: draws, intervals and, if known, scores.

    Draws :math:`\tilde y_s \sim p(\tilde y \mid \theta_s)`, one for each draw :math:`\theta_s` of the posterior, are
    from the posterior predictive law :math:`p(\tilde y \mid y)`. Against held-out values :math:`y_i` that are given:

    - coverage: the share of :math:`y_i` in their intervals; near ``probability`` if the model is right;
    - RMSE: the root of the mean of :math:`(y_i - \bar{\tilde y}_i)^2`;
    - CRPS: :math:`\mathbb{E}|\tilde y_i - y_i| - \tfrac12 \mathbb{E}|\tilde y_i - \tilde y_i'|`, in the data's units,
      smaller is better, unbiased for S draws;
    - log score: :math:`\log \frac1S \sum_s p(y_i \mid \theta_s)`, larger is better.

    Each is of one datum at a time; that the errors of neighbors go together is not seen. A field is called at new
    places by the model's own operator, so that what is said of :func:`predict` between cells holds for
    ``grid.interpolation``; ``multilinear_interpolation`` loses variance in addition.

    >>> there = predict_data(mcmc, {"data": y}, model_kwargs={"data": None})
    >>> float(there["data_coverage"]), float(there["data_crps"].mean())  # doctest: +ELLIPSIS
    (...

    Args:
        posterior: an ``MCMC`` that has run, or samples by site of shape ``(chain, draw, ...)``; with ``num_chains``, of
            shape ``(chain * draw, ...)``, as for :func:`to_arviz`. All sites that the model samples are needed.
        held_out: the true values of data sites, in the data's shape at these arguments.
        model_args: the model's arguments at the new places. Default: those that ``MCMC`` ran with, so that data like
            those that were seen are drawn; none as soon as ``model_kwargs`` are given. Data in them are not conditioned
            on; where they make the model's shapes, they must have those of the new data.
        model_kwargs: likewise its keyword arguments.
        model: the model whose draws these are; default: the one that ``MCMC`` ran. Whitened as it was when sampled.
        sites: the data sites. Default: those of ``held_out``; else those that ``MCMC`` observed; else those that
            are observed at these arguments.
        fresh: latent sites that belong to the new data, such as effects of groups that were not seen: drawn from their
            law given the other sites, also where the posterior has them.
        domain: where the values of data sites are, as for :func:`to_arviz`: their trailing axes get its coordinates.
        probability: that of the equal-tailed interval.
        num_chains: number of chains in samples without a chain axis.
        length_unit: the unit of lengths of ``domain``, kept in the coordinates' attribute ``units``.
        batch_size: draws per evaluation of the model; bounds the memory on the device.
        rng_key: default: ``jax.random.key(0)``.

    Returns:
        An xarray ``Dataset`` with, for a data site ``y``: the draws ``y`` with dimensions ``chain`` and ``draw``,
        ``y_mean``, ``y_sd`` (in double precision), ``y_lower``, ``y_upper``; and with held-out values
        ``y_observed``, ``y_crps``, ``y_log_score`` by datum, and the numbers ``y_coverage`` and ``y_rmse``.

    Raises:
        ValueError: a site that does not exist; held-out values of another shape or not finite; samples that lack a site
            of the model or have another shape there.
        TypeError: arguments of another kind.

    References:
        Gneiting & Raftery, JASA 102 (2007) 359-378, sections 4.1-4.2; Ferro, Q. J. R. Meteorol. Soc. 140 (2014)
        1917-1923 (the CRPS of S draws, unbiased).
    """
    probability = check_fraction(HERE, "probability", probability)
    batch_size = check_count(HERE, "batch_size", batch_size)
    check_instance(HERE, "length_unit", length_unit, str, "the name of a unit")
    rng_key = jax.random.key(0) if rng_key is None else check_key(HERE, "rng_key", rng_key)
    held_out = {} if held_out is None else check_instance(HERE, "held_out", held_out, Mapping, "data by site name")
    domain = {} if domain is None else check_instance(HERE, "domain", domain, Mapping, "domains by site name")
    run = read_posterior(HERE, posterior, model, model_args, model_kwargs, num_chains)
    trace = abstract_trace(run.model, run.args, run.kwargs)
    new = _names("fresh", fresh)
    absent = [name for name in new if name not in latent_sites(trace)]
    if absent:
        raise ValueError(f"{HERE}: `fresh` has {absent[0]!r}, which is not a latent site of the model.")
    names = _data_sites(trace, run, held_out, None if sites is None else _names("sites", sites))
    truth = {name: _held_out(name, y, trace) for name, y in held_out.items()}
    for name, place in domain.items():
        if name not in names or not isinstance(place, Domain):
            raise ValueError(f"{HERE}: `domain` must be domains of the data sites {', '.join(names)}; got {name!r}.")
    draws = sampled(HERE, trace, run.draws, (*names, *new))
    shape = next(iter(run.draws.values())).shape[:2]

    def one(key, draw):
        found = simulate(run.model, run.args, run.kwargs, key, draw)
        values = {name: found[name]["value"] for name in names}
        return values, {name: _pointwise({"fn": found[name]["fn"], "value": y}) for name, y in truth.items()}

    _check_scorable(trace, names, truth)
    values, log_density = map_draws(one, (jax.random.split(rng_key, shape), draws), shape, batch_size)
    shapes = {name: x.shape[2:] for name, x in values.items()}
    dims = {name: _fitting(_named_dims(trace[name]), shapes[name]) for name in names}
    coords = _name_axes(dict(domain), shapes, dims, length_unit)
    out = _dataset(values, ("chain", "draw"), dims, coords)
    for name, x in values.items():
        dims[name] = list(out[name].dims[2:])
        parts = {f"{name}_{what}": found for what, found in summarize(x, probability).items()}
        if name in truth:
            parts |= _scores(name, x, truth[name], log_density[name], parts)
        out = out.merge(_dataset(parts, (), {k: dims[name] for k, v in parts.items() if np.ndim(v)}, coords))
    out.attrs |= {"probability": probability}
    return out


def _names(argument: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__") or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{HERE}: `{argument}` must be a list of names of sites; got {describe(value)}.")
    return tuple(value)


def _data_sites(trace: Trace, run: Run, held_out: Mapping[str, Any], sites: tuple[str, ...] | None) -> tuple[str, ...]:
    there = [name for name, site in sample_sites(trace).items() if not is_factor(site)]
    if sites is None:
        sites = tuple(held_out)
        if not sites and run.own_call is not None:
            sites = tuple(data_sites(abstract_trace(run.model, *run.own_call)))
        sites = sites or tuple(data_sites(trace))
    if not sites:
        raise ValueError(
            f"{HERE}: nothing is observed at these arguments, so that it is not known what the data are. Name them: "
            f"`sites=[...]`, of {', '.join(map(repr, there))}."
        )
    for name in (*sites, *held_out):
        if name not in there:
            found = ", ".join(map(repr, there))
            raise ValueError(f"{HERE}: the model has no data site {name!r} at these arguments; sampled are {found}.")
    return tuple(dict.fromkeys((*sites, *held_out)))


def _held_out(name: str, value: Any, trace: Trace) -> np.ndarray:
    y = np.asarray(check_real(HERE, f"held_out[{name!r}]", value))
    shape = np.shape(trace[name]["value"])
    if y.shape != shape:
        raise ValueError(
            f"{HERE}: `held_out[{name!r}]` has shape {y.shape}, but the model's data have shape {shape} at these "
            "arguments."
        )
    bad = int((~np.isfinite(y)).sum())
    if bad:
        raise ValueError(f"{HERE}: `held_out[{name!r}]` has {bad} values that are not finite; leave them out.")
    return y


def _check_scorable(trace: Trace, names: Sequence[str], truth: Mapping[str, np.ndarray]) -> None:
    for name in names:
        fn = trace[name]["fn"]
        if np.iscomplexobj(trace[name]["value"]):
            raise ValueError(
                f"{HERE}: the data at site {name!r} are complex and have no intervals; observe their parts."
            )
        while name in truth and isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
            if isinstance(fn, MaskedDistribution):
                raise ValueError(
                    f"{HERE}: the data at site {name!r} are masked at these arguments; a score would count those that "
                    "are hidden. Call the model without the mask, with the data to be scored only."
                )
            fn = fn.base_dist


def _scores(
    name: str, draws: np.ndarray, y: np.ndarray, log_density: np.ndarray, summary: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    y = y.astype(np.float64)
    inside = (summary[f"{name}_lower"] <= y) & (y <= summary[f"{name}_upper"])
    count = draws.shape[0] * draws.shape[1]
    log_score = logsumexp(log_density.astype(np.float64), axis=(0, 1)) - np.log(count)
    return {
        f"{name}_observed": y,
        f"{name}_crps": crps(draws.reshape((count, *y.shape)), y),
        f"{name}_log_score": log_score,
        f"{name}_coverage": np.mean(inside),
        f"{name}_rmse": np.sqrt(np.mean((summary[f"{name}_mean"] - y) ** 2)),
    }


def crps(draws: Float[np.ndarray, "draw *shape"], y: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    r"""The continuous ranked probability score of draws, :math:`\frac1S \sum_s |x_s - y| - \frac{1}{S (S - 1)} \sum_s
    (2 s - S - 1) x_{(s)}` with sorted :math:`x_{(s)}`: unbiased for independent draws."""
    x = np.sort(draws.astype(np.float64) - y, axis=0)
    count = len(x)
    weights = (2 * np.arange(1, count + 1) - count - 1) / (count * max(count - 1, 1))
    return np.mean(np.abs(x), axis=0) - np.tensordot(weights, x, axes=1)
