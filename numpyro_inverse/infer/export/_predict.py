"""A field at new points or on another domain, from finished draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float, Shaped
from numpyro.distributions import Distribution, TransformedDistribution
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_count, check_fraction, check_instance, check_real, describe
from numpyro_inverse._model import Site, Trace, abstract_trace, trace_at
from numpyro_inverse.distributions._reparametrized import domain_of, has_amplitudes, has_base, unwrapped
from numpyro_inverse.domains import Domain, Grid
from numpyro_inverse.domains._domain import axis_names
from numpyro_inverse.domains._stacked import Stacked
from numpyro_inverse.infer.export._arviz import _dataset, _fitting, _name_axes, _named_dims
from numpyro_inverse.infer.export._draws import Draws, map_draws, read_posterior, sampled, summarize
from numpyro_inverse.infer.whitening import LATENT, whiten
from numpyro_inverse.operators import Kronecker

if TYPE_CHECKING:
    from xarray import Dataset

HERE = "predict"


def predict(
    posterior: MCMC | Mapping[str, Shaped[Array, "..."]],
    site: str,
    points: Float[Array, "m ndim"] | None = None,
    *,
    domain: Domain | None = None,
    model: Callable | None = None,
    model_args: tuple | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    probability: float = 0.9,
    num_chains: int | None = None,
    length_unit: str = "length unit",
    batch_size: int = 32,
) -> Dataset:
    r"""A field at new points, or on another grid, given finished draws: the draws there, means, sds and intervals.

    A draw of a field on a :class:`~numpyro_inverse.domains.Grid` is a finite sum of modes,
    :math:`u(x) = m(x) + \sum_k w_k \phi_k(x)`, and is evaluated at :math:`x` as that sum: exactly, up to rounding. A
    field that is seen through a window (``padding``) is evaluated by the modes of its torus, whose coefficients are in
    the draws of a whitened model (``u_latent``). A mean given cell by cell is interpolated multilinearly. On another
    kind of domain the values go through its ``interpolation``. Of a field on copies of a domain
    (:class:`~numpyro_inverse.domains.Stacked`: times, components) each copy is evaluated by itself, and the axis stays;
    if it is padded, by the modes of its window's own boundary condition.

    **What lies between the cells.** The modes are all that a field on a grid has: given its values at the cells,
    nothing is random between them, and no conditional law between cells is drawn. What the continuum field has beyond
    them is the variance of wavenumbers that the grid does not resolve,

    .. math:: \tau^2 = \sigma^2 - \sum_{|k_i| < \pi / h_i} S(k) / |D| ,

    which the ``Matern`` field folds onto the modes of the grid. The variance at any point is so the continuum field's,
    away from boundaries, and its covariances between any two points are within :math:`\delta = 2 \tau^2`. With data
    at :math:`n` points, of covariance :math:`A` with their noise, kriging weights :math:`\lambda` and
    :math:`\alpha = A^{-1} y`, the predicted mean is within :math:`\delta\, (1 + |\lambda|_1)\, |\alpha|_1` of the
    continuum's and the predicted variance within :math:`\delta\, (1 + |\lambda|_1)^2` (docs/prediction.md: a table of
    :math:`\tau` by cells a range).

    >>> there = predict(mcmc, "field", points=[[0.31, 0.47], [0.9, 0.2]])
    >>> there["field_mean"], there["field_lower"], there["field_upper"]  # doctest: +ELLIPSIS
    (...
    >>> high = (there["field"] > 1.0).mean(("chain", "draw"))  # probability of exceeding 1
    >>> fine = predict(mcmc, "field", domain=grid.refined(2))

    Args:
        posterior: an ``MCMC`` that has run, or samples by site of shape ``(chain, draw, ...)``; with ``num_chains``, of
            shape ``(chain * draw, ...)``, as for :func:`to_arviz`. The sites that the
            model samples before the field are needed.
        site: the field.
        points: places of shape ``(m, ndim)``, in length units, within the field's domain.
        domain: instead of ``points``, a domain of the same space: another grid, a mesh, ... Of copies of a domain, one
            for all copies.
        model: the model whose draws these are; default: the one that ``MCMC`` ran. Whitened as it was when sampled.
        model_args: the model's arguments. Default: those that ``MCMC`` ran with; none as soon as ``model_kwargs`` are
            given.
        model_kwargs: likewise its keyword arguments.
        probability: that of the equal-tailed interval.
        num_chains: number of chains in samples without a chain axis.
        length_unit: the unit of lengths, kept in the coordinates' attribute ``units``.
        batch_size: draws per evaluation of the model; bounds the memory on the device.

    Returns:
        An xarray ``Dataset`` with the draws, under the site's name with dimensions ``chain`` and ``draw``, and their
        ``..._mean``, ``..._sd`` (both computed in double precision), ``..._lower`` and ``..._upper``. Coordinates are
        those of ``domain``, or ``x``, ``y``, ``z`` of each ``point``.

    Raises:
        ValueError: a site that is no field or does not exist; points outside its domain or of another dimension;
            samples that lack a site of the model, have another shape there, are not finite, or are of another model; a
            padded field whose torus is not in the draws.
        TypeError: arguments of another kind; both or neither of ``points`` and ``domain``.

    References:
        Rue & Held, Gaussian Markov Random Fields (2005), section 5.1 (what a grid resolves); Stein, Interpolation of
        Spatial Data (1999), chapters 1 and 3 (kriging with a slightly wrong covariance).
    """
    probability = check_fraction(HERE, "probability", probability)
    batch_size = check_count(HERE, "batch_size", batch_size)
    check_instance(HERE, "site", site, str, "the name of a site")
    check_instance(HERE, "length_unit", length_unit, str, "the name of a unit")
    if (points is None) == (domain is None):
        raise TypeError(f"{HERE}: give either `points` or `domain`, a place to predict at.")
    run = read_posterior(HERE, posterior, model, model_args, model_kwargs, num_chains)
    white = _as_sampled(run.model, site, run.draws, run.args, run.kwargs)
    trace = abstract_trace(white, run.args, run.kwargs)
    field = _field(trace, site)
    draws = sampled(HERE, _up_to(site, trace), run.draws)
    place = domain_of(field)
    target = _target(place, points, domain)
    evaluate = _evaluation(site, trace, field, target)

    def one(draw):
        sites = trace_at(white, run.args, run.kwargs, draw)
        return evaluate(sites), sites[site]["value"]

    first = {name: x[:1, :1] for name, x in draws.items()}
    _check_same(site, map_draws(one, (first,), (1, 1), 1)[1], run.draws)
    shape = next(iter(run.draws.values())).shape[:2]
    values = map_draws(lambda draw: one(draw)[0], (draws,), shape, batch_size)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{HERE}: site {site!r} is not finite in {int((~np.isfinite(values)).sum())} values.")
    dims = {site: _fitting(_named_dims(trace[site])[: values.ndim - 2 - len(target.shape)], values.shape[2:])}
    return _summary(site, values, dims, target, length_unit, probability)


def _summary(
    site: str, values: np.ndarray, dims: dict[str, list[str | None]], target: Domain, length_unit: str, p: float
) -> Dataset:
    coords = _name_axes({site: target}, {site: values.shape[2:]}, dims, length_unit)
    dims[site] = [name or f"{site}_dim_{axis}" for axis, name in enumerate(dims[site])]
    moments = {f"{site}_{what}": x for what, x in summarize(values, p).items()}
    out = _dataset({site: values}, ("chain", "draw"), dims, coords)
    out = out.merge(_dataset(moments, (), dict.fromkeys(moments, dims[site]), coords))
    out.attrs |= {"probability": p}
    return out


def _as_sampled(model: Callable, site: str, draws: Draws, args: tuple, kwargs: dict[str, Any]) -> Callable:
    """The model in the coordinates of the draws: the exact kernels whiten a plain model themselves."""
    trace = abstract_trace(model, args, kwargs)
    if site not in trace:
        values = [name for name, found in trace.items() if found["type"] in ("sample", "deterministic")]
        raise ValueError(f"{HERE}: the model has no site {site!r}; there are {', '.join(map(repr, values))}.")
    plain = trace[site]["type"] == "sample" and has_base(trace[site]["fn"])
    return whiten(model) if plain and f"{site}{LATENT}" in draws and f"{site}{LATENT}" not in trace else model


def _up_to(site: str, trace: Trace) -> Trace:
    """The sites on which a site may depend: those before it."""
    names = list(trace)
    return {name: trace[name] for name in names[: names.index(site) + 1]}


def _field(trace: Trace, site: str) -> Any:
    """The field's distribution, also where the site is computed from white coordinates."""
    found = trace[site]
    fn = found.get("fn") if found["type"] == "sample" else (found.get("infer") or {}).get("fn")
    if found["type"] not in ("sample", "deterministic") or fn is None or domain_of(fn) is None:
        raise ValueError(
            f"{HERE}: site {site!r} is not a field with a domain, so that it has no value elsewhere. Predict the field "
            "that it is computed from, and compute it from the draws there; data are predicted by `predict_data`."
        )
    return fn


@dataclass(frozen=True)
class _Points:
    """Places where a field is wanted: a domain but for its weights and interpolation, which nobody asks for."""

    names: tuple[str, ...]
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.places),)

    @property
    def coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        return {name: (("point",), x) for name, x in zip(self.names, self.places.T, strict=True)}


@dataclass(frozen=True)
class _Copies:
    """The same places for each copy of a stacked domain."""

    stacked: Stacked
    space: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stacked.count, *self.space.shape)

    @property
    def coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        name = self.stacked.name
        return {name: self.stacked.coordinates[name], **self.space.coordinates}


def _target(place: Domain, points: Any, domain: Any) -> Any:
    if isinstance(place, Stacked):
        if isinstance(domain, Stacked):
            if (domain.name, domain.count) != (place.name, place.count):
                raise ValueError(
                    f"{HERE}: `domain` has {domain.count} copies along {domain.name!r}; the field has {place.count} "
                    f"along {place.name!r}."
                )
            domain = domain.space
        return _Copies(place, _target(place.space, points, domain))
    if domain is None:
        found = np.asarray(check_real(HERE, "points", points), float)
        if found.ndim == 1 and place.ndim == 1:
            found = found[:, None]
        if found.ndim != 2 or found.shape[1] != place.ndim or len(found) == 0:
            raise ValueError(f"{HERE}: `points` must have shape (m, {place.ndim}), m >= 1; got {found.shape}.")
        if not np.all(np.isfinite(found)):
            raise ValueError(
                f"{HERE}: `points` has {int((~np.isfinite(found)).sum())} coordinates that are not finite."
            )
        return _Points(tuple(place.coordinates)[: place.ndim], found)
    if not isinstance(domain, Domain) or isinstance(domain, Stacked):
        raise TypeError(f"{HERE}: `domain` must be a domain, such as a Grid; got {describe(domain)}.")
    if domain.ndim != place.ndim:
        raise ValueError(f"{HERE}: `domain` is of dimension {domain.ndim}; the field's is of dimension {place.ndim}.")
    extents = (domain.extent, place.extent) if isinstance(domain, Grid) and isinstance(place, Grid) else ((), ())
    if any(there > here * (1 + 1e-6) for there, here in zip(*extents, strict=True)):
        raise ValueError(
            f"{HERE}: `domain` has the extent {extents[0]}, beyond the field's, {extents[1]}; a field has no values "
            "outside of its domain."
        )
    return domain


def _places(target: Any) -> Any:
    """The coordinates of every value of a domain, of shape (size, ndim)."""
    axes = axis_names(target)
    columns = []
    for names, values in target.coordinates.values():
        shape = [target.shape[axes.index(name)] if name in names else 1 for name in axes]
        columns.append(np.broadcast_to(np.reshape(values, shape), target.shape).ravel())
    return np.stack(columns, axis=1)


def _interpolation(source: Domain, target: Any) -> Callable[[Array], Array]:
    """From values on ``source`` to values on ``target``; between grids, axis by axis; copies are batch axes."""
    if isinstance(source, Stacked):
        return _interpolation(source.space, target.space)
    if isinstance(source, Grid) and isinstance(target, Grid):
        rows = [
            Grid(n, length, boundary).interpolation(np.minimum(x, length)).factors[0]
            for n, length, boundary, x in zip(source.shape, source.extent, source.boundary, target.axes, strict=True)
        ]
        return Kronecker(rows)
    operator = source.interpolation(_places(target))
    return lambda x: operator(x).reshape((*x.shape[: x.ndim - len(source.shape)], *target.shape))


def _evaluation(site: str, trace: Trace, field: Any, target: Any) -> Callable[[Trace], Array]:
    """From a trace at a draw to the field on ``target``."""
    core: Any = unwrapped(field)
    window: Any = domain_of(field)
    modes: Any = getattr(core, "domain", None)
    space, goal = window, target
    while isinstance(space, Stacked):
        space, goal = space.space, goal.space
    summed = isinstance(modes, Grid) and has_amplitudes(field)
    each = space is not window and type(core).mean is not Distribution.mean
    if not isinstance(space, Grid) or not (summed or each):
        there = _interpolation(window, target)
        return lambda sites: there(sites[site]["value"])

    # What is random is a sum of modes; the mean is known at the cells, and need not obey the boundary condition.
    padded = summed and modes != window
    if padded and f"{site}{LATENT}" not in trace:
        raise ValueError(
            f"{HERE}: site {site!r} is seen through a window of a torus {modes.shape}, whose modes are not in the "
            f"draws. Sample `whiten(model)`, and pass it with all its sites ({site + LATENT!r} among them)."
        )
    edges = ["periodic" if b == "periodic" and not padded else "neumann" for b in space.boundary]
    mean_there = Grid(space.shape, space.extent, edges).multilinear_interpolation(_places(goal))
    modes_there = _interpolation(modes if summed else window, target)

    def evaluate(sites: Trace) -> Array:
        fn = unwrapped(_field(sites, site))
        if padded:
            random = modes.inverse_transform(fn.amplitudes * _white(sites[f"{site}{LATENT}"]))
        else:
            random = sites[site]["value"] - fn.mean
        mean = mean_there(fn.mean)
        return modes_there(random) + mean.reshape((*mean.shape[:-1], *goal.shape))

    return evaluate


def _white(latent: Site) -> Array:
    """White coefficients: the latent site standardized by its own law, whatever the coordinates."""
    law, value = unwrapped(latent["fn"]), latent["value"]
    if isinstance(law, TransformedDistribution):  # fitted coordinates
        for transform in reversed(law.transforms):
            value = transform.inv(value)
        law = unwrapped(law.base_dist)
    return (value - law.loc) / law.scale


def _check_same(site: str, value: Array, draws: Draws) -> None:
    """Whether the model gives the field that was drawn."""
    if site not in draws:
        return
    drawn, found = draws[site][0, 0], np.asarray(value)[0, 0]
    scale = np.max(np.abs(drawn))
    if drawn.shape != found.shape or not np.allclose(drawn, found, rtol=0, atol=1e-3 * scale):
        raise ValueError(
            f"{HERE}: the model gives site {site!r} other values than the draws have; these are of another model, or "
            "of one that was whitened otherwise. Pass the model that was sampled."
        )
