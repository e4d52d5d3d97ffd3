"""Joint draws of a model's latents and of what it simulates: the training set of every surrogate."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, PRNGKeyArray
from numpyro.distributions import biject_to
from tqdm.auto import tqdm

from numpyro_inverse import _model
from numpyro_inverse._checks import (
    check_choice,
    check_count,
    check_finite,
    check_flag,
    check_instance,
    check_key,
    describe,
)
from numpyro_inverse._devices import over_devices, rows_over
from numpyro_inverse._model import Trace, data_sites, sample_sites
from numpyro_inverse.infer.export._run_folder import folder_of
from numpyro_inverse.sbi._marked import (
    arguments_of,
    checked_model,
    marked_sites,
    programs_that_count,
    simulator_in,
    site_names,
)
from numpyro_inverse.sbi._simulation_store import NotKept, Rows, SimulationStore

HERE = "simulate"
EXAMPLE = 2**31 - 1  # folded into the key for the simulation by which a store knows the model


class Simulations(NamedTuple):
    """Joint draws, one per row, those that failed among them.

    Attributes:
        latents: by site, as the model has them.
        unconstrained: the same, each through the inverse of ``biject_to`` of its own support, which may depend on the
            draw.
        data: what was simulated, by site: simulators and sites that have data.
        arguments: what each simulator was given, by site: arrays of shape ``(row, *batch, *one simulation)``.
        usable: by site and element of its batch: finite, within the declared support, and of finite arguments.
        failures: how many elements were not, by reason, and what external programs told.
        proposed: names of latents that were given, not drawn from their priors.
    """

    latents: dict[str, np.ndarray]
    unconstrained: dict[str, np.ndarray]
    data: dict[str, np.ndarray]
    arguments: dict[str, tuple[np.ndarray, ...]]
    usable: dict[str, Bool[np.ndarray, "rows *batch"]]
    failures: dict[str, int]
    proposed: tuple[str, ...] = ()

    def rows(self) -> Bool[np.ndarray, " rows"]:
        """Rows of which everything is usable."""
        good = [u.reshape(len(u), -1).all(axis=1) for u in self.usable.values()]
        good += [np.isfinite(v).reshape(len(v), -1).all(axis=1) for v in self.unconstrained.values()]
        return np.logical_and.reduce(good)

    def followed_by(self, other: Simulations) -> Simulations:
        """The rows of two rounds; ``proposed`` is that of the second.

        Raises:
            TypeError: ``other`` is none.
            ValueError: it is of a model with other sites.
        """
        check_instance("Simulations.followed_by", "other", other, Simulations, "what `sbi.simulate` returns")
        mine, others = ([*part.latents, *part.data] for part in (self, other))
        if set(mine) != set(others):
            raise ValueError(
                f"Simulations.followed_by: `other` must be of the same model; it has the sites {', '.join(others)}, "
                f"where these have {', '.join(mine)}."
            )
        parts = (part._replace(failures={}, proposed=()) for part in (self, other))
        joined = jax.tree.map(lambda *v: np.concatenate(v), *parts)
        reasons = Counter(self.failures) + Counter(other.failures)
        return joined._replace(failures=dict(reasons), proposed=other.proposed)

    def pairs(self, site: str) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Arguments and values of a simulator's usable elements, batch axes among the rows.

        Raises:
            ValueError: ``site`` is no simulator.
        """
        check_choice("Simulations.pairs", "site", site, tuple(self.arguments))
        usable = self.usable[site]
        return tuple(arg[usable] for arg in self.arguments[site]), self.data[site][usable]


def simulate(
    model: Callable,
    rng_key: PRNGKeyArray,
    num: int,
    *,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    observed: str | tuple[str, ...] = (),
    latents: Mapping[str, Array] | None = None,
    batch_size: int = 1000,
    sharding: NamedSharding | None = None,
    store: Any = None,
    client: Any = None,
    progress_bar: bool = True,
) -> Simulations:
    r"""Draws :math:`(\theta_i, x_i)`, :math:`\theta_i \sim p(\theta)`, :math:`x_i \sim p(x \mid \theta_i)`, of a
    NumPyro model.

    Latents are drawn from their priors and simulators (:class:`~numpyro_inverse.distributions.Simulator`) run; sites
    with data are drawn anew in the data's shape. Row i depends on the key and on i alone, so that an
    interruption changes nothing, the batch size rounding at most, and more rows can be added later.

    >>> simulations = simulate(simulator_model, jax.random.key(0), 64, progress_bar=False)

    Args:
        model: a NumPyro model.
        rng_key: a JAX random key.
        num: rows.
        model_args: the model's arguments.
        model_kwargs: its keyword arguments.
        observed: further sites that are data; they need not have any yet.
        latents: values of some latents, rows first, instead of draws from their priors: a proposal.
        batch_size: simulations that run at once.
        sharding: the devices among which they are divided, ``NamedSharding(mesh, PartitionSpec("rows"))``. Default: all
            local ones. The workers of a ``client`` use theirs.
        store: a directory or Zarr store that receives each finished batch; a run that was cut off goes on from it.
            Extra ``runs``.
        client: a ``dask.distributed.Client`` whose workers run the batches. Extra ``cluster``.
        progress_bar: show one.

    Returns:
        All rows. Failures (what is not finite or outside the support that its simulator declares, exceptions, time
        limits of :class:`External`) are counted in ``failures`` and told by a warning.

    Raises:
        TypeError, ValueError: arguments that make no sense; a discrete latent, a ``numpyro.factor`` or a plate that
            subsamples, by name; every simulation failed; a store of other simulations, or a damaged one.
        RuntimeError: another process writes to ``store``.
        OSError: ``store`` cannot be written.
        ImportError: an extra is missing.
    """
    check_key(HERE, "rng_key", rng_key)
    num, batch_size = check_count(HERE, "num", num), check_count(HERE, "batch_size", batch_size)
    check_flag(HERE, "progress_bar", progress_bar)
    if store is not None:
        folder_of(store, HERE)
    if client is not None and not hasattr(client, "submit"):
        raise TypeError(f"{HERE}: `client` must be a `dask.distributed.Client`; got {describe(client)}.")
    trace, args, kwargs = checked_model(HERE, model, model_args, model_kwargs, observed)
    data = data_names(HERE, trace, observed)
    latents = _checked_latents(trace, data, latents, num)
    program = Program(model, args, kwargs, data)
    external = programs_that_count(trace)
    told: Counter[str] = Counter()

    def batch_at(first: int) -> Rows:
        """Rows from one on, here."""
        before = [Counter(fn.failures) for fn in external]
        numbers = np.minimum(np.arange(first, first + batch_size), num - 1)
        rows = run(
            jax.vmap(jax.random.fold_in, (None, 0))(rng_key, numbers), {k: v[numbers] for k, v in latents.items()}
        )
        rows = jax.tree.map(np.asarray, rows)
        for fn, old in zip(external, before, strict=True):
            told.update(fn.failures - old)
        return rows

    run = program.compiled(sharding)
    with _kept(store, program, rng_key, latents, num, batch_size) as kept:
        firsts = range(0, num, batch_size)
        parts: dict[int, Rows] = {first: rows for first in firsts if (rows := kept.load(first)) is not None}
        missing = [first for first in firsts if first not in parts]
        made = ((first, batch_at(first)) for first in missing)
        if client is not None:
            made = _on_cluster(client, program, rng_key, latents, num, batch_size, missing, told)
        with tqdm(total=num, desc=HERE, unit="simulation", disable=not progress_bar) as bar:
            bar.update(sum(min(batch_size, num - first) for first in parts))
            for first, rows in made:
                parts[first] = jax.tree.map(lambda v, first=first: v[: num - first], rows)
                kept.save(first, parts[first])
                bar.update(min(batch_size, num - first))
    return _joined([parts[first] for first in firsts], tuple(sample_sites(trace)), data, told, tuple(latents))


def _kept(
    store: Any, program: Program, rng_key: PRNGKeyArray, latents: Mapping[str, np.ndarray], num: int, batch_size: int
) -> Any:
    """The store, as a context."""
    if store is None:
        return nullcontext(NotKept())
    example = jax.jit(program.row)(jax.random.fold_in(rng_key, EXAMPLE), {k: v[0] for k, v in latents.items()})
    return SimulationStore(store, rng_key, latents, num, batch_size, example, HERE)


class Program(NamedTuple):
    """One row of a model's simulations, as a function of key and proposed latents."""

    model: Callable
    args: tuple
    kwargs: dict[str, Any]
    data: tuple[str, ...]

    def row(self, rng_key: PRNGKeyArray, latents: Mapping[str, Array]) -> Rows:
        """What is kept of one simulation."""
        trace = _model.simulate(self.model, self.args, self.kwargs, rng_key, latents)
        sites = sample_sites(trace)
        unconstrained = {}
        for name, site in sites.items():
            if name not in self.data:
                unconstrained[name] = biject_to(site["fn"].support).inv(site["value"])
        marked = marked_sites(trace)
        arguments = {name: arguments_of(site["fn"]) for name, site in marked.items() if name in self.data}
        return {
            "latents": {name: sites[name]["value"] for name in unconstrained},
            "unconstrained": unconstrained,
            "data": {name: sites[name]["value"] for name in self.data},
            "arguments": {f"{name}.{i:04d}": arg for name, given in arguments.items() for i, arg in enumerate(given)},
            "usable": {name: _usable(sites[name], arguments.get(name, ())) for name in self.data},
        }

    def compiled(self, sharding: NamedSharding | None = None) -> Callable[[Array, Mapping[str, Array]], Rows]:
        """Many rows in one program, over devices."""
        return jax.jit(over_devices(jax.vmap(self.row), rows_over(HERE, sharding)))


def _usable(site: dict[str, Any], arguments: tuple[Array, ...]) -> Bool[Array, "*batch"]:
    """Element by element of the batch: finite and within the support."""
    fn, value = site["fn"], jnp.asarray(site["value"])
    simulator = simulator_in(fn)
    event = fn.event_dim if simulator is None else len(simulator.event_shape)
    batch = value.shape[: value.ndim - event]
    finite = jnp.all(jnp.isfinite(value).reshape((*batch, -1)), axis=-1)
    for arg in arguments:
        finite &= jnp.all(jnp.isfinite(arg).reshape((*batch, -1)), axis=-1)
    if simulator is None:
        return finite
    return finite & jnp.all(jnp.asarray(simulator.support(value)).reshape((*batch, -1)), axis=-1)


def data_names(where: str, trace: Trace, observed: Any) -> tuple[str, ...]:
    """Names of the sites that are data, in the model's order.

    Raises:
        ValueError: a name that the model does not have; nothing is data.
    """
    named = site_names(where, observed)
    for name in named:
        if name not in sample_sites(trace):
            raise ValueError(
                f"{where}: the model has no sample site {name!r} (`observed`); its sites are "
                f"{', '.join(sample_sites(trace)) or 'none'}."
            )
    data = {*named, *marked_sites(trace), *data_sites(trace)}
    if not data:
        raise ValueError(
            f"{where}: nothing in the model is data: mark a site by `distributions.Simulator(fn, *args)`, or name it "
            "in `observed`."
        )
    found = tuple(name for name in sample_sites(trace) if name in data)
    if len(found) == len(sample_sites(trace)):
        raise ValueError(f"{where}: the model has no latent site; there is nothing to infer.")
    return found


def _checked_latents(
    trace: Trace, data: tuple[str, ...], latents: Mapping[str, Array] | None, num: int
) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    if latents is None:
        return found
    for name, value in check_instance(HERE, "latents", latents, Mapping, "a dictionary of values by site").items():
        if name in data or name not in sample_sites(trace):
            raise ValueError(f"{HERE}: `latents` has {name!r}, which is no latent site of the model.")
        found[name] = np.asarray(check_finite(HERE, f"latents[{name!r}]", value))
        if found[name].shape != (num, *trace[name]["fn"].shape()):
            raise ValueError(
                f"{HERE}: `latents[{name!r}]` must have shape {(num, *trace[name]['fn'].shape())}; got "
                f"{found[name].shape}."
            )
    return found


def _joined(
    parts: list[Rows], order: tuple[str, ...], data: tuple[str, ...], told: Counter[str], proposed: tuple[str, ...]
) -> Simulations:
    """All rows, sites in the model's order: JAX sorts dictionaries by name."""
    rows = jax.tree.map(lambda *v: np.concatenate(v), *parts)
    failures = {}
    for name in data:
        value, usable = rows["data"][name], rows["usable"][name]
        finite = np.isfinite(value).reshape((*usable.shape, -1)).all(axis=-1)
        for what, bad in (
            ("is not finite", ~finite),
            ("is outside its support, or of arguments that are not finite", finite & ~usable),
        ):
            if bad.any():
                failures[f"{name} {what}"] = int(bad.sum())
        if not usable.any():
            reasons = "; ".join([f"{k} ({v})" for k, v in (failures | dict(told)).items()])
            raise ValueError(f"{HERE}: all {usable.size} simulations of site {name!r} failed: {reasons}.")
    failures |= dict(told)
    if failures:
        reasons = ", ".join(f"{v} x {k!r}" for k, v in failures.items())
        warnings.warn(
            f"{HERE}: failures: {reasons} (of {len(rows['data'][data[0]])} rows). They are left out of training, so "
            "what is learned is the law of the simulations that succeed.",
            stacklevel=3,
        )
    arguments: dict[str, tuple[np.ndarray, ...]] = dict.fromkeys(data, ())
    for key, value in sorted(rows["arguments"].items()):
        arguments[key.rpartition(".")[0]] += (value,)

    def ordered(part: str) -> dict[str, np.ndarray]:
        return {name: rows[part][name] for name in order if name in rows[part]}

    latents, unconstrained, values, usable = map(ordered, ("latents", "unconstrained", "data", "usable"))
    return Simulations(latents, unconstrained, values, arguments, usable, failures, proposed)


# On a cluster.


def _on_cluster(
    client: Any,
    program: Program,
    rng_key: PRNGKeyArray,
    latents: Mapping[str, np.ndarray],
    num: int,
    batch_size: int,
    missing: list[int],
    told: Counter[str],
) -> Any:
    """Batches as workers finish them."""
    try:
        import cloudpickle
        from distributed import as_completed
    except ImportError as error:
        raise ImportError(f"{HERE}: `client` needs Dask: pip install 'numpyro-inverse[cluster]'.") from error
    parcel = cloudpickle.dumps(
        (tuple(program), np.asarray(jax.random.key_data(rng_key)), bool(jax.config.jax_enable_x64))
    )
    futures = {}
    for first in missing:
        numbers = np.minimum(np.arange(first, first + batch_size), num - 1)
        chosen = {k: v[numbers] for k, v in latents.items()}
        futures[client.submit(_batch_on_worker, parcel, numbers, chosen, pure=False)] = first
    for future in as_completed(list(futures)):
        rows, failures = future.result()
        told.update(failures)
        yield futures[future], rows
        future.release()


def _batch_on_worker(parcel: bytes, numbers: np.ndarray, latents: dict[str, np.ndarray]) -> tuple[Rows, Counter[str]]:
    run, rng_key, external, x64 = _unpacked(parcel)
    before = [Counter(fn.failures) for fn in external]
    with jax.enable_x64(x64):
        rows = run(jax.vmap(jax.random.fold_in, (None, 0))(rng_key, numbers), latents)
        rows = jax.tree.map(np.asarray, rows)
    failures: Counter[str] = Counter()
    for fn, old in zip(external, before, strict=True):
        failures.update(fn.failures - old)
    return rows, failures


@cache
def _unpacked(parcel: bytes) -> tuple[Callable, Array, list[Any], bool]:
    """The compiled program of a parcel, once for each worker."""
    import cloudpickle

    parts, key_data, x64 = cloudpickle.loads(parcel)
    with jax.enable_x64(x64):
        program = Program(*parts)
        trace = _model.abstract_trace(program.model, program.args, program.kwargs)
        key = jax.random.wrap_key_data(jnp.asarray(key_data))
        return program.compiled(), key, programs_that_count(trace), x64
