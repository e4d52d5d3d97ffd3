"""What a run on disk has written so far, as an ArviZ tree whose fields have their coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from numpyro_inverse._checks import describe
from numpyro_inverse._model import Trace
from numpyro_inverse.distributions._reparametrized import domain_of
from numpyro_inverse.domains import Domain
from numpyro_inverse.domains._stacked import place_of
from numpyro_inverse.infer.export._arviz import STATISTICS, tell_failures, to_arviz
from numpyro_inverse.infer.export._chains import POSTERIOR, STATS
from numpyro_inverse.infer.export._old_runs import OldRun
from numpyro_inverse.infer.export._run_folder import OLD_FORMAT, readable_group
from numpyro_inverse.infer.export._run_store import RunStore, sha256_of
from numpyro_inverse.infer.kernels._failures import FailureReport
from numpyro_inverse.infer.whitening import LATENT

if TYPE_CHECKING:
    from xarray import DataTree

HERE = "read_run"


def read_run(
    store: Any,
    domain: Mapping[str, Domain] | None = None,
    *,
    sites: Sequence[str] | None = None,
    keep_latent: bool = False,
    **to_arviz_options: Any,
) -> DataTree:
    """Read what a run has written so far as an ArviZ ``DataTree``, with the groups of :func:`to_arviz`.

    ``posterior`` has the kept sites and quantities, fields with the coordinates of their domains; ``sample_stats`` has
    the extra fields under ArviZ's names. Blocks that do not count yet are left out; what is read is verified by its
    checksums. A run may be read while it goes on. The attributes of the tree have the settings of the run, the versions
    that it was computed with, and whether it is complete. In names of sites, ``/`` (of ``numpyro.handlers.scope``)
    becomes ``.``, for in a tree it separates groups.

    Args:
        store: as for :func:`run_to_disk`.
        domain: where the values of sites are, for further ones than the fields of the model, or instead of theirs.
        sites: the sites to read; default: all. Only they are loaded.
        keep_latent: whether to read ``u_latent``, the white coordinates of a whitened field ``u`` that was kept too;
            one that ``sites`` names is read.
        **to_arviz_options: passed on to :func:`to_arviz`: ``model`` with ``model_args`` and ``model_kwargs`` for
            replicates of the data, ``length_unit``, ...

    Warns:
        UserWarning: moves of the finished run met points without a log density, as :func:`report_failures` says.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: there is no run in the store, no draw in it yet, or no such site; draws are damaged: it says of
            which site, in which block; and as :func:`to_arviz`.
        ImportError: Zarr is missing.
    """
    from arviz_base import dict_to_dataset
    from xarray import DataTree

    places: dict[str, Any] = {}
    failures = None
    if sites is not None:
        sites = check_names(HERE, "sites", sites)
    group = readable_group(store, HERE)
    if group.attrs.get("format") == OLD_FORMAT:
        old = OldRun(group, HERE)
        names = _wanted(old.kept, sites)
        draws, complete = old.read(names)
        about = old.settings
    else:
        run = RunStore(group, None, HERE)
        kept = [name for name, _, _ in run.record["kept"]]
        names = _wanted(kept, sites)
        if sites is None and not keep_latent and "model" not in to_arviz_options:
            names = [name for name in names if name not in _latents(run.record["whitened"], kept)]
        draws, complete = run.read(names)
        places = _stored_domains(run, [name.removeprefix(POSTERIOR) for name in names if name.startswith(POSTERIOR)])
        about = run.record["settings"] | {"environments": run.record["environments"]}
        failures = run.record.get("failures")

    tree = to_arviz(
        {k.removeprefix(POSTERIOR): v for k, v in draws.items() if k.startswith(POSTERIOR)},
        domain=places | dict(domain or {}),
        keep_latent=keep_latent or sites is not None,
        **to_arviz_options,
    )
    stats = {}
    for field, value in draws.items():
        if field.startswith(STATS):
            name = field.removeprefix(STATS).rsplit(".", 1)[-1]
            stats[STATISTICS.get(name, name) if name != "potential_energy" else "lp"] = (
                -value if name == "potential_energy" else value
            )
    if stats:
        tree["sample_stats"] = DataTree(dict_to_dataset(stats))
        if failures is not None:
            report = FailureReport(*(failures[name] for name in FailureReport._fields))
            tell_failures(tree["sample_stats"], report, failures["message"], stacklevel=3)
    tree.attrs |= {"complete": bool(complete)} | {f"run_{k}": v for k, v in about.items() if k != "kept"}
    return tree


def check_names(where: str, argument: str, names: Any) -> tuple[str, ...]:
    """A sequence of strings, not a string."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{where}: `{argument}` must be a sequence of names, such as ['x']; got {describe(names)}.")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{where}: `{argument}` must be names; got {describe(name)} among them.")
    return tuple(dict.fromkeys(found))


def _wanted(kept: Sequence[str], sites: Sequence[str] | None) -> list[str]:
    if sites is None:
        return list(kept)
    there = [name.removeprefix(POSTERIOR) for name in kept if name.startswith(POSTERIOR)]
    unknown = [site for site in sites if site not in there]
    if unknown or not sites:
        found = repr(unknown[0]) if unknown else "no site"
        raise ValueError(f"{HERE}: `sites` has {found}; the run kept {', '.join(map(repr, there))}.")
    return [*(f"{POSTERIOR}{site}" for site in sites), *(name for name in kept if name.startswith(STATS))]


def _latents(whitened: Iterable[str], kept: Iterable[str]) -> set[str]:
    """White coordinates of fields that are there themselves."""
    return {f"{POSTERIOR}{field}{LATENT}" for field in whitened if f"{POSTERIOR}{field}" in kept}


# The domains of fields, noted when the run is begun.


@dataclass(frozen=True)
class StoredSpace:
    """The coordinates of a domain in space, and the corners of simplices if it is a mesh."""

    coordinates: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
    simplices: np.ndarray | None


@dataclass(frozen=True)
class StoredDomain:
    """Shape and coordinates of a domain and of the one that it has copies of, all that an ArviZ tree has of one."""

    shape: tuple[int, ...]
    coordinates: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
    space: StoredSpace


def noted_fields(trace: Trace, kept: Iterable[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the reader needs of a model's fields: for the record, and the arrays of coordinates.

    Args:
        trace: the model's abstract trace.
        kept: names of what is kept, by group.
    """
    whitened = [name for name, site in trace.items() if site.get("infer", {}).get("whitened")]
    places: dict[str, Any] = {}
    for name, site in trace.items():
        if f"{POSTERIOR}{name}" in kept:
            place = domain_of(site["fn"]) if site["type"] == "sample" else site.get("infer", {}).get("domain")
            if place is not None:
                places[name] = place
    distinct: list[Any] = []
    index: dict[str, int] = {}
    for name, place in places.items():
        known = next((i for i, other in enumerate(distinct) if other is place or other == place), None)
        if known is None:
            distinct.append(place)
        index[name] = len(distinct) - 1 if known is None else known
    arrays: dict[str, np.ndarray] = {}
    domains: list[dict[str, Any]] = []
    for i, place in enumerate(distinct):
        values = {name: np.asarray(x) for name, (_, x) in place.coordinates.items()}
        arrays |= {_coordinate_array(i, name): x for name, x in values.items()}
        axes = {name: list(names) for name, (names, _) in place.coordinates.items()}
        sums = {name: sha256_of(x) for name, x in values.items()}
        space = place_of(place)
        domains.append({"shape": list(place.shape), "axes": axes, "sha256": sums, "space": list(space.coordinates)})
        if hasattr(space, "simplices"):
            arrays[_simplices_array(i)] = np.asarray(space.simplices)
            domains[-1]["simplices"] = sha256_of(arrays[_simplices_array(i)])
    return {"whitened": whitened, "domains": domains, "domain_of": index}, arrays


def _coordinate_array(index: int, coordinate: str) -> str:
    """Name of the array with a coordinate of a domain."""
    return f"domains/{index}/{quote(coordinate, safe='')}"


def _simplices_array(index: int) -> str:
    """Name of the array with the corners of a domain's simplices."""
    return f"simplices/{index}"


def _stored_domains(run: RunStore, sites: Sequence[str]) -> dict[str, StoredDomain]:
    found: dict[int, StoredDomain] = {}
    for index in {run.record["domain_of"][site] for site in sites if site in run.record["domain_of"]}:
        about = run.record["domains"][index]
        coordinates = {
            name: (tuple(axes), run.read_array(_coordinate_array(index, name), about["sha256"][name]))
            for name, axes in about["axes"].items()
        }
        mesh = about.get("simplices")  # not in runs of earlier versions, as "space"
        space = StoredSpace(
            {name: coordinates[name] for name in about.get("space", coordinates)},
            None if mesh is None else run.read_array(_simplices_array(index), mesh),
        )
        found[index] = StoredDomain(tuple(about["shape"]), coordinates, space)
    return {site: found[run.record["domain_of"][site]] for site in sites if site in run.record["domain_of"]}
