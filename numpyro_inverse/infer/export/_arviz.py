"""From NumPyro samples to an ArviZ ``DataTree`` whose fields have physical coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import numpyro
from jaxtyping import Array, Key, Shaped
from numpyro.distributions import Distribution, ExpandedDistribution, Independent
from numpyro.distributions.distribution import MaskedDistribution
from numpyro.infer import MCMC, NUTS

from numpyro_inverse._checks import check_count, check_flag, check_instance, check_key, check_model_call
from numpyro_inverse._model import Site, Trace, data_sites, latent_sites, simulate, trace_at
from numpyro_inverse.distributions._reparametrized import domain_of
from numpyro_inverse.domains import Domain
from numpyro_inverse.domains._domain import axis_names
from numpyro_inverse.domains._stacked import COUNTED, place_of
from numpyro_inverse.infer.export._draws import Draws, by_chain, check_shapes, map_draws, numbers, sampled
from numpyro_inverse.infer.export._orbit_draws import orbit_draws
from numpyro_inverse.infer.kernels._failures import FailureReport, counts_failures, failures_of
from numpyro_inverse.infer.whitening import LATENT
from numpyro_inverse.symmetry import Symmetry

if TYPE_CHECKING:
    from xarray import Dataset, DataTree

HERE = "to_arviz"
SAMPLE_DIMS = ("chain", "draw")
STATISTICS = {  # the last part of a kernel's extra field -> ArviZ's name
    "accept_prob": "acceptance_rate",
    "is_divergent": "diverging",
    "num_integration_steps": "n_steps",
    "num_steps": "n_steps",
}


def to_arviz(
    posterior: MCMC | Mapping[str, Shaped[Array, "..."]],
    model: Callable | None = None,
    domain: Mapping[str, Domain] | None = None,
    *,
    model_args: tuple | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    prior: Mapping[str, Shaped[Array, "draw ..."]] | None = None,
    posterior_predictive: bool = True,
    log_likelihood: bool = True,
    keep_latent: bool = False,
    symmetry: Symmetry | None = None,
    num_chains: int | None = None,
    length_unit: str = "length unit",
    batch_size: int = 32,
    key: Key[Array, ""] | None = None,
) -> DataTree:
    r"""Samples as an ArviZ ``DataTree``, with the coordinates of the fields' domains.

    Groups: ``posterior``; ``sample_stats``, from the kernel's ``extra_fields``, under ArviZ's names (``lp``,
    ``acceptance_rate``, ``n_steps``, ``step_size``, ``diverging``, ...); and, with a model, ``observed_data``,
    ``posterior_predictive`` (replicates :math:`\tilde y \sim p(\tilde y \mid \theta)` of every observed site, one per
    draw) and ``log_likelihood`` (:math:`\log p(y_i \mid \theta)` per observation :math:`i`, also where the site's
    distribution joins independent observations by ``to_event``). With ``prior``: ``prior`` and ``prior_predictive``.
    A ``numpyro.factor`` is not data and is in none of them. Observations that are masked out have no log-likelihood:
    those of such a site are in one row, without them, for ``loo`` to count what there is.

    >>> mcmc.run(key, data=y, extra_fields=("accept_prob", "num_steps", "potential_energy"))
    >>> tree = to_arviz(mcmc)
    >>> tree.posterior["field"].sel(x=0.3, y=0.1, method="nearest")

    Args:
        posterior: an ``MCMC`` that has run, or a dict of samples of shape ``(chain, draw, ...)``; with ``num_chains``,
            of shape ``(chain * draw, ...)``, chain after chain, as ``MCMC.get_samples()`` returns them.
        model: the model whose sites these are; default: the one that ``MCMC`` ran. It may be whitened.
        domain: where a site's values are, for further sites of the posterior or of the data (a field's own domain is
            taken from the model), or instead of the model's. The trailing axes are then called as the domain calls
            them, with its coordinates: ``x``, ``y``, ``z`` on a grid. Sites on the same domain share them. A name that
            is taken, by a site or by another domain, gets the site's name behind it: ``y_field``. In all names ``/``
            (of ``numpyro.handlers.scope``), which separates groups in a tree, becomes ``.``.
        model_args: the model's arguments, data included; default: those that ``MCMC`` ran with.
        model_kwargs: likewise its keyword arguments.
        prior: prior samples of shape ``(draw, ...)``, as ``Predictive`` returns them.
        posterior_predictive: whether to draw replicates of the data. They are of the data's shape, once per draw.
        log_likelihood: whether to evaluate the log-likelihood. It is of the data's shape, once per draw.
        keep_latent: whether to keep ``u_latent``, the white coordinates of a whitened field ``u``. Their axes are
            modes, not places, and they double the memory.
        symmetry: what the data cannot tell. The posterior then has each symmetric site ``u`` in canonical form, and its
            invariants beside it as ``u_invariants``, so that means, R-hat and effective sizes say something; see
            :func:`orbit_diagnostics`. Predictions and log-likelihoods are of the draws as they are.
        num_chains: number of chains in a dict of samples without a chain axis.
        length_unit: the unit of the grids' lengths, kept in the coordinates' attribute ``units``.
        batch_size: draws per evaluation of the model; bounds the memory on the device.
        key: for the replicates; default: ``jax.random.key(0)``.

    Warns:
        UserWarning: moves of the ``MCMC`` met points without a log density, as :func:`report_failures` says. The
            attributes of ``sample_stats`` have their number, and chain, iteration and site of the first.

    Raises:
        ValueError: a site that does not exist, is not finite or complex, is called ``chain`` or ``draw``, has the wrong
            number of chains, or whose trailing axes are not its domain's; no draw; samples that lack a site of the
            model or have another shape there.
        TypeError: ``posterior`` is neither an ``MCMC`` nor numbers by site name; another argument of the wrong kind.
    """
    from xarray import DataTree

    sampler = posterior if isinstance(posterior, MCMC) else None
    if sampler is not None:
        model = getattr(sampler.sampler, "model", None) if model is None else model
        model_args = sampler._args if model_args is None else model_args
        model_kwargs = sampler._kwargs if model_kwargs is None else model_kwargs
    samples = by_chain(HERE, posterior, num_chains)
    _check_numbers("posterior", samples)
    wanted = {"posterior_predictive": posterior_predictive, "log_likelihood": log_likelihood}
    _check_options(domain, prior, symmetry, length_unit, keep_latent=keep_latent, **wanted)
    batch_size = check_count(HERE, "batch_size", batch_size)
    key = jax.random.key(0) if key is None else check_key(HERE, "key", key)
    args = () if model_args is None else model_args
    call = ((), {}) if model is None else check_model_call(HERE, model, args, model_kwargs)[1:]
    sites: dict[str, _Site] = {}
    latents: Trace = {}
    observed: dict[str, Any] = {}
    if model is not None:
        sites, latents, observed = _inspect(model, samples, *call)
    hidden = set() if keep_latent else {f"{name}{LATENT}" for name, site in sites.items() if site.whitened}
    kept = {name: x for name, x in samples.items() if name not in hidden}

    if symmetry is not None:
        kept = orbit_draws(kept, symmetry)

    shapes = {name: x.shape[2:] for name, x in kept.items()} | {name: y.shape for name, y in observed.items()}
    dims = {name: _fitting(site.dims, shapes[name]) for name, site in sites.items() if name in shapes}
    domains = {name: site.domain for name, site in sites.items() if name in shapes and site.domain is not None}
    coords = _name_axes(domains | dict(domain or {}), shapes, dims, length_unit)

    def group(data, sample_dims=("chain", "draw"), dims=dims):
        return _dataset(data, sample_dims, dims, coords)

    groups = {"posterior": group(kept)}
    if sampler is not None:
        groups["sample_stats"] = group(_sample_stats(sampler), dims={})
        if counts_failures(sampler.last_state):
            report, message = failures_of(sampler.sampler, sampler.last_state, sampler._args, sampler._kwargs)
            tell_failures(groups["sample_stats"], report, message, stacklevel=3)
    if observed:
        groups["observed_data"] = group(observed, ())
        asked = {name for name, yes in wanted.items() if yes}
        if asked:
            draws = sampled(HERE, latents, samples)
            for name, data in _per_draw(asked, model, draws, observed, call, batch_size, key).items():
                groups[name] = group(data, dims={k: dims[k] for k in dims if _is_like(data.get(k), observed.get(k))})
    if prior is not None:
        draws = {k: v[None] for k, v in numbers(HERE, "prior", prior).items() if k not in hidden}
        if model is not None:
            draws = {k: v for k, v in draws.items() if k in sites}  # factors are left out
        _check_numbers("prior", draws)
        groups["prior"] = group({k: v for k, v in draws.items() if k not in observed})
        if any(k in observed for k in draws):
            groups["prior_predictive"] = group({k: v for k, v in draws.items() if k in observed})
    return DataTree.from_dict(groups)


@runtime_checkable
class _HasPlaces(Protocol):
    """What a tree has of a domain: that of a stored run is no more."""

    shape: Any
    coordinates: Any


def _check_options(domain: Any, prior: Any, symmetry: Any, length_unit: Any, **flags: Any) -> None:
    if domain is not None:
        for name, place in check_instance(HERE, "domain", domain, Mapping, "domains by site name").items():
            check_instance(HERE, f"domain[{name!r}]", place, _HasPlaces, "a domain")
    if prior is not None:
        check_instance(HERE, "prior", prior, Mapping, "samples by site name")
    if symmetry is not None:
        check_instance(HERE, "symmetry", symmetry, Symmetry, "a Symmetry of some sites, `Symmetry(group, sites)`")
    check_instance(HERE, "length_unit", length_unit, str, "a string")
    for name, flag in flags.items():
        check_flag(HERE, name, flag)


def tell_failures(stats: Any, report: FailureReport, message: str, stacklevel: int) -> None:
    """Warn of failures of the forward map, and keep their number, and the first one, as attributes."""
    first = {"first_failure_chain": report.chain, "first_failure": report.iteration, "first_failure_site": report.site}
    stats.attrs |= {"num_failures": report.num_failures} | {k: v for k, v in first.items() if v is not None}
    if message:
        warnings.warn(message, stacklevel=stacklevel)


def _is_like(values: Any, data: Any) -> bool:
    """Whether values per draw have the data's shape: masked observations have left some out."""
    return values is None or data is None or np.shape(values)[2:] == np.shape(data)


class _Plate(NamedTuple):
    name: str
    size: int


@dataclass(frozen=True)
class _Site:
    dims: list[_Plate | str | None]  # of the leading axes, where plates or `event_dims` name them
    domain: Any
    whitened: bool


def _check_numbers(argument: str, samples: Mapping[str, np.ndarray]) -> None:
    known: dict[str, str] = {}
    for name, x in samples.items():
        if known.setdefault(_in_tree(name), name) != name:
            raise ValueError(
                f"{HERE}: sites {known[_in_tree(name)]!r} and {name!r} have the same name in a tree, where `/` "
                "becomes `.`; rename one in the model."
            )
        if name in SAMPLE_DIMS:
            raise ValueError(f"{HERE}: site {name!r} has the name of an axis of samples; rename it in the model.")
        if x.size == 0:
            raise ValueError(f"{HERE}: `{argument}` has no draw of site {name!r} (shape {x.shape}).")
        if np.iscomplexobj(x):
            raise ValueError(f"{HERE}: site {name!r} is complex, which ArviZ has no place for; give its parts apart.")
        finite = np.isfinite(x)
        if not finite.all():
            chain, draw = np.argwhere(~finite)[0][:2]
            raise ValueError(
                f"{HERE}: `{argument}` has {int((~finite).sum())} values of site {name!r} that are not finite; the "
                f"first is in chain {chain}, draw {draw}."
            )


def _inspect(model: Callable, samples: Draws, args: tuple, kwargs: dict) -> tuple[dict[str, _Site], Trace, dict]:
    """The model's sites, its latent ones as they are traced, and the values of those that are observed."""
    draw = {name: x[0, 0] for name, x in samples.items()}
    sites: dict[str, _Site] = {}
    latents: Trace = {}

    @jax.jit  # only what the observed values need is computed
    def run():
        trace = trace_at(model, args, kwargs, draw)
        sites.update({name: _read(site) for name, site in trace.items() if _is_value(site)})
        latents.update({name: site for name, site in latent_sites(trace).items() if name in sites})
        check_shapes(HERE, latents, samples)
        return {name: site["value"] for name, site in data_sites(trace).items() if _is_value(site)}

    observed = jax.device_get(run())
    complex_data = [name for name, y in observed.items() if np.iscomplexobj(y)]
    if complex_data:
        raise ValueError(f"{HERE}: the data at site {complex_data[0]!r} are complex; observe their parts apart.")
    return sites, latents, observed


def _is_value(site: Site) -> bool:
    return site["type"] in ("sample", "deterministic") and not site.get("infer", {}).get("is_auxiliary", False)


def _read(site: Site) -> _Site:
    note = site.get("infer", {})
    domain = domain_of(site["fn"]) if site["type"] == "sample" else note.get("domain")
    return _Site(_named_dims(site), domain, note.get("whitened", False))


def _named_dims(site: Site) -> list[_Plate | str | None]:
    plates = {frame.dim: _Plate(frame.name, frame.size) for frame in site["cond_indep_stack"]}
    if site["type"] == "deterministic":  # its batch axes are not known; plates come first
        return [plates[dim] for dim in sorted(plates)]
    batch = len(site["fn"].batch_shape)
    return [plates.get(axis - batch) for axis in range(batch)] + list(site["infer"].get("event_dims", []))


def _fitting(dims: list[_Plate | str | None], shape: tuple[int, ...]) -> list[str | None]:
    """Names, less those of plates whose size the axis does not have: a mean over the plate has other axes there."""
    sizes = [*shape, *[None] * len(dims)]
    names = [d.name if isinstance(d, _Plate) and d.size == n else d for d, n in zip(dims, sizes, strict=False)]
    return [name if isinstance(name, str) else None for name in names]


def _name_axes(
    domain: Mapping[str, Domain], shapes: Mapping[str, tuple], dims: dict[str, list[str | None]], length_unit: str
) -> dict[str, Any]:
    """Name the trailing axes of the sites in ``domain``, in ``dims``; returns the coordinates."""
    coords: dict[str, Any] = {}
    taken = {*shapes, *(name for names in dims.values() for name in names), *SAMPLE_DIMS}
    known: list[tuple[Any, dict[str, str]]] = []
    for site, place in domain.items():
        if site not in shapes:
            raise ValueError(
                f"{HERE}: `domain` names the site {site!r}, which is neither in the posterior nor observed; there "
                f"are {', '.join(map(repr, sorted(shapes)))}."
            )
        batch = len(shapes[site]) - len(place.shape)
        if batch < 0 or shapes[site][batch:] != tuple(place.shape):
            raise ValueError(
                f"{HERE}: `domain[{site!r}]` has shape {place.shape}, which are not the trailing axes of site "
                f"{site!r}, of shape {shapes[site]} per draw."
            )
        names = next((names for other, names in known if _same(other, place)), None)
        if names is None:
            plain = (*axis_names(place), *place.coordinates)
            names = {name: f"{name}_{site}" if name in taken else name for name in plain}
            taken |= set(names.values())
            known.append((place, names))
            space = place_of(place)
            for name, (axes, values) in place.coordinates.items():
                attributes = {"units": length_unit if name in space.coordinates else COUNTED}
                if name in space.coordinates and getattr(space, "simplices", None) is not None:  # for pictures
                    attributes["mesh"] = f"{names[axes[0]]}_simplices"
                    corners = [f"{names[axes[0]]}_simplex", f"{names[axes[0]]}_corner"]
                    coords[attributes["mesh"]] = (corners, np.asarray(space.simplices), {"start_index": 0})
                coords[names[name]] = ([names[axis] for axis in axes], np.asarray(values), attributes)
        leading = [*dims.get(site, []), *[None] * batch][:batch]
        dims[site] = [*leading, *(names[axis] for axis in axis_names(place))]
    return coords


def _same(one: Any, other: Any) -> bool:
    """Whether two domains have the same coordinates."""
    here, there = one.coordinates, other.coordinates
    return here.keys() == there.keys() and all(
        here[name][0] == there[name][0] and np.array_equal(here[name][1], there[name][1]) for name in here
    )


def _dataset(data: Mapping[str, Any], sample_dims: tuple[str, ...], dims: Mapping, coords: Mapping) -> Dataset:
    from arviz_base import dict_to_dataset

    data = {_in_tree(site): x for site, x in data.items()}
    dims = {_in_tree(site): [name and _in_tree(name) for name in names] for site, names in dims.items()}
    coords = {_in_tree(name): ([_in_tree(axis) for axis in x[0]], *x[1:]) for name, x in coords.items()}
    named: dict[Hashable, Sequence[Hashable]] = {}
    for site, x in data.items():
        n = np.ndim(x) - len(sample_dims)
        names = dims.get(site, [])[:n]
        named[site] = [name or f"{site}_dim_{axis}" for axis, name in enumerate([*names, *[None] * (n - len(names))])]
    dataset = dict_to_dataset(
        dict(data), inference_library=numpyro, sample_dims=list(sample_dims), dims=named, check_conventions=False
    )
    here = {name: x for name, x in coords.items() if set(x[0]) <= set(dataset.dims)}
    joined = {x[2]["mesh"] for x in here.values() if len(x) > 2 and "mesh" in x[2]}
    return dataset.assign_coords(here | {name: x for name, x in coords.items() if name in joined})


def _in_tree(name: str) -> str:
    """A name without ``/``, which ``numpyro.handlers.scope`` writes and which separates groups in a tree."""
    return name.replace("/", ".")


def _sample_stats(mcmc: MCMC) -> dict[str, np.ndarray]:
    stats = {}
    for field, value in mcmc.get_extra_fields(group_by_chain=True).items():
        if not hasattr(value, "shape"):
            continue
        name = field.rsplit(".", 1)[-1]
        if name == "potential_energy":
            stats["lp"] = -np.asarray(value)
        else:
            stats[STATISTICS.get(name, name)] = np.asarray(value)
    if "n_steps" in stats and isinstance(mcmc.sampler, NUTS):
        stats["tree_depth"] = np.frexp(stats["n_steps"])[1]  # 1 + floor(log2 n)
    return stats


def _per_draw(
    wanted: set[str], model: Any, draws: Draws, observed: Mapping, call: tuple, batch_size: int, key: Array
) -> dict[str, dict[str, np.ndarray]]:
    """Replicates of the observed sites and their pointwise log-likelihood, by group, in batches of draws."""
    args, kwargs = call
    shape = next(iter(draws.values())).shape[:2]

    def one(key, draw):
        groups = {}
        if "posterior_predictive" in wanted:
            sites = simulate(model, args, kwargs, key, draw)
            groups["posterior_predictive"] = {name: sites[name]["value"] for name in observed}
        if "log_likelihood" in wanted:
            sites = trace_at(model, args, kwargs, draw)
            groups["log_likelihood"] = {name: _pointwise(sites[name]) for name in observed}
        return groups

    out = map_draws(one, (jax.random.split(key, shape), draws), shape, batch_size)
    if "log_likelihood" in wanted:
        first = trace_at(model, args, kwargs, {name: x[0, 0] for name, x in draws.items()})
        for name, values in out["log_likelihood"].items():
            mask = _mask(first[name])
            if not mask.all():
                out["log_likelihood"][name] = values[:, :, np.broadcast_to(mask, values.shape[2:])]
    return out


def _pointwise(site: Mapping[str, Any]) -> Array:
    """Log-likelihood per observation: independent ones joined by ``to_event`` are taken apart."""
    fn = site["fn"]
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn.log_prob(site["value"])


def _mask(site: Site) -> np.ndarray:
    """Which observations count."""
    fn: Distribution = site["fn"]
    mask = np.ones((), bool)
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            mask = mask & np.asarray(fn._mask)
        fn = fn.base_dist
    return mask
