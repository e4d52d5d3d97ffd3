"""Many simulated data sets, each with its posterior, in one compiled program: what every study here runs on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro import handlers
from numpyro.distributions import Unit
from numpyro.infer.mcmc import MCMCKernel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm.auto import tqdm

from numpyro_inverse.calibration.ranks._posteriors import Call, Data, posterior_of
from numpyro_inverse.infer.export._run_store import kernel_settings

MEMORY = 2**29  # bytes of draws in flight
LARGEST_BATCH = 256
SCHEMA = 1
FEWEST_DRAWS = 9

Quantity = Callable[[dict[str, Array], Data], Array]
Score = Callable[[Float[Array, "n q"], Bool[Array, " n"]], Float[Array, "n q"]]  # symmetric in the n values


class Ranks(NamedTuple):
    """What one data set contributes, by test quantity."""

    rank: dict[str, Int[Array, "..."]]
    ess: dict[str, Float[Array, ""]]
    moves: dict[str, Bool[Array, ""]]
    value: dict[str, Float[Array, "..."]]
    finite: Bool[Array, ""]
    diverging: Bool[Array, ""]


class Problem(NamedTuple):
    """A model to simulate from."""

    model: Callable
    args: tuple
    kwargs: Mapping[str, Any]
    observed: tuple[str, ...]

    def simulate(self, key: Array) -> tuple[dict[str, Array], Data]:
        """Values of the latent and deterministic sites from the prior, and data given them."""
        trace = self._prior_trace(key)
        data = {name: trace[name]["value"] for name in self.observed}
        kinds = ("sample", "deterministic")
        return {k: s["value"] for k, s in trace.items() if s["type"] in kinds and k not in data}, data

    def latent_sites(self) -> tuple[str, ...]:
        """Names of the sample sites that have no data."""
        found: dict[str, Any] = {}
        jax.eval_shape(lambda: found.update(self._prior_trace(jax.random.key(0))))
        return tuple(k for k, s in found.items() if s["type"] == "sample" and k not in self.observed)

    def log_likelihood(self, values: dict[str, Array], data: Data) -> Float[Array, ""]:
        """Log density of the observed sites given the others."""
        trace = self._trace(values, data)
        return sum((_log_prob(trace[name]) for name in self.observed), jnp.zeros(()))

    def log_density(self, values: dict[str, Array], data: Data) -> Float[Array, ""]:
        """Log joint density of all sites: the posterior's up to a constant."""
        trace = self._trace(values, data)
        sites = (site for site in trace.values() if site["type"] == "sample")
        return sum((_log_prob(site) for site in sites), jnp.zeros(()))

    def _prior_trace(self, key: Array) -> dict[str, Any]:
        return handlers.trace(handlers.seed(self.model, key)).get_trace(*self.args, **self.kwargs)

    def _trace(self, values: dict[str, Array], data: Data) -> dict[str, Any]:
        model = handlers.substitute(handlers.seed(self.model, jax.random.key(0)), data=values | data)
        return handlers.trace(model).get_trace(*self.args, **self.kwargs)


def _log_prob(site: dict[str, Any]) -> Float[Array, ""]:
    return jnp.sum(site["fn"].log_prob(site["value"]))


def problem_of(model: Callable, args: tuple, kwargs: Mapping[str, Any], observed: str | tuple[str, ...]) -> Problem:
    """The model, checked: all that it says can be simulated, and it has the observed sites.

    Raises:
        ValueError: a site of ``observed`` that the model does not have; any site that has data already or a scaled
            density, and any ``numpyro.factor``, none of which a simulation follows; no latent site.
        TypeError: ``model`` is not callable.
    """
    if not callable(model):
        raise TypeError(f"calibration: `model` must be a NumPyro model; got {type(model).__name__}.")
    observed = (observed,) if isinstance(observed, str) else tuple(observed)
    found: dict[str, Any] = {}

    def run():
        found.update(handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs))

    jax.eval_shape(run)
    sites = {name: site for name, site in found.items() if site["type"] == "sample"}
    for name in observed:
        if name not in sites:
            raise ValueError(
                f"calibration: the model has no sample site {name!r} to simulate data from; its sites are "
                f"{', '.join(sites) or 'none'}. Name the data's sites in `observed`."
            )
    for name, site in sites.items():
        if isinstance(site["fn"], Unit):
            raise ValueError(
                f"calibration: site {name!r} is a `numpyro.factor`: simulation cannot follow it, so ranks would be "
                "wrong. Write it as a distribution."
            )
        if site["is_observed"]:
            raise ValueError(
                f"calibration: site {name!r} has data already; the study simulates its own, so call the model without "
                "(its other arguments are passed on, and each simulated data set goes to the keyword of the site's "
                "name)."
            )
        if site["scale"] is not None:
            raise ValueError(
                f"calibration: the density of site {name!r} is scaled by {site['scale']} (a subsampling plate, or "
                "`handlers.scale`): its posterior is not that of the data that the model simulates."
            )
    if not any(name not in observed for name in sites):
        raise ValueError("calibration: the model has no latent site, so there is no posterior to check.")
    return Problem(model, args, kwargs, observed)


def ranks_of(
    problem: Problem,
    inference: Any,
    call: Call,
    quantities: Mapping[str, Quantity],
    scores: Mapping[str, Score],
    *,
    needed: tuple[str, ...],
    num_datasets: int,
    key: Array,
    batch_size: int | None,
    store: str | os.PathLike | None,
    progress_bar: bool,
    title: str,
) -> Ranks:
    """Ranks of the truth among the draws, for every quantity and data set; numpy arrays, data sets first."""
    if num_datasets < 2:
        raise ValueError(f"{title}: `num_datasets` must be 2 or more; got {num_datasets}.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"{title}: `batch_size` must be 1 or more; got {batch_size}.")
    if call.num_draws < FEWEST_DRAWS:
        raise ValueError(
            f"{title}: `num_draws` must be {FEWEST_DRAWS} or more, for ranks among fewer do not show the tails; got "
            f"{call.num_draws}."
        )
    _, example = jax.jit(problem.simulate)(jax.random.fold_in(key, 2**31 - 1))
    posterior = posterior_of(inference, call, example)

    def one(key: Array) -> Ranks:
        key_simulate, key_draw, key_rank = jax.random.split(key, 3)
        truth, data = problem.simulate(key_simulate)
        draws = posterior.draw(key_draw, data)
        known = {name: value for name, value in truth.items() if name in draws.sites}
        at_truth = {name: quantity(known, data) for name, quantity in quantities.items()}
        at_draws = {
            name: jax.vmap(quantity, (0, None))({k: draws.sites[k] for k in known}, data)
            for name, quantity in quantities.items()
        }
        keys = jax.random.split(key_rank, len(quantities))
        found = [
            _rank(k, at_truth[name], at_draws[name], call.num_draws, posterior.independent, scores.get(name))
            for k, name in zip(keys, quantities, strict=True)
        ]
        rank, ess, moves = (dict(zip(quantities, column, strict=True)) for column in zip(*found, strict=True))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves((at_truth, at_draws))]))
        return Ranks(rank, ess, moves, at_truth, finite, draws.diverging)

    shapes = jax.eval_shape(lambda k: posterior.draw(k, example).sites, key)
    _check_sites(problem, shapes, needed, title)
    size = sum(np.prod(v.shape, dtype=int) * v.dtype.itemsize for v in jax.tree.leaves(shapes))
    devices = jax.local_devices()
    batch = batch_size or int(np.clip(MEMORY // max(size, 1), 1, LARGEST_BATCH))
    batch = -(-min(batch, num_datasets) // len(devices)) * len(devices)
    many = jax.vmap(one)
    if len(devices) > 1:
        mesh = jax.make_mesh((len(devices),), ("datasets",), (jax.sharding.AxisType.Auto,), devices=devices)
        spec = jax.sharding.PartitionSpec("datasets")
        many = jax.shard_map(many, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    many = jax.jit(many)

    keys = jax.random.split(key, num_datasets)
    shelf = None if store is None else _Shelf(Path(store), keys, batch, sorted(quantities), call, example, inference)
    parts = []
    with tqdm(total=num_datasets, desc=title, unit="data set", disable=not progress_bar) as bar:
        for first in range(0, num_datasets, batch):
            part = None if shelf is None else shelf.load(first)
            if part is None:
                chosen = np.minimum(np.arange(first, first + batch), num_datasets - 1)
                part = jax.tree.map(np.asarray, many(keys[chosen]))
                if shelf is not None:
                    shelf.save(first, part)
            parts.append(jax.tree.map(lambda v: v[: num_datasets - first], part))
            bar.update(len(parts[-1].finite))
    return jax.tree.map(lambda *v: np.concatenate(v), *parts)


def _check_sites(problem: Problem, shapes: Mapping[str, Any], needed: tuple[str, ...], title: str) -> None:
    truth, _ = jax.eval_shape(problem.simulate, jax.random.key(0))
    missing = [name for name in needed if name not in shapes]
    if missing:
        raise ValueError(
            f"{title}: the posterior draws have no site {missing[0]!r}, only {', '.join(shapes)}. Name the sites to "
            "test in `sites`; the log likelihood and joint regions need all latent sites (`log_likelihood=False` or "
            "`joint=False` leaves them out)."
        )
    for name in shapes:
        if name in truth and shapes[name].shape[1:] != truth[name].shape:
            raise ValueError(
                f"{title}: site {name!r} has shape {truth[name].shape} in the model, but its draws have shape "
                f"{shapes[name].shape}; draws come first, then the site's shape."
            )


def _rank(
    key: Array,
    truth: Float[Array, "*shape"],
    draws: Float[Array, "n *shape"],
    num_draws: int,
    independent: bool,
    score: Score | None,
) -> tuple[Int[Array, "*shape"], Float[Array, ""], Bool[Array, ""]]:
    """The rank of the truth among the draws, 0 to ``num_draws``, ties broken at random.

    Correlated draws are thinned to their effective number. Where that is not ``num_draws``, the rank r among n goes to
    the common scale through :math:`(r + V) / (n + 1)`, V uniform, which is exactly uniform.
    """
    n = draws.shape[0]
    flat = draws.reshape(n, -1)
    if jnp.issubdtype(flat.dtype, jnp.bool_):
        flat = flat.astype(int)
    continuous = jnp.issubdtype(flat.dtype, jnp.floating)  # a discrete posterior may well have one value only
    moves = jnp.all(jnp.any(flat != flat[:1], axis=0)) | (not continuous)
    ess = jnp.asarray(float(n)) if independent else _smallest_ess(flat)
    step = jnp.where(ess > 0, jnp.ceil(n / jnp.maximum(ess, 1.0)), n).astype(int)
    kept = jnp.arange(n) % step == 0
    count = jnp.sum(kept)
    value = jnp.ravel(truth).astype(flat.dtype)
    if score is not None:
        everything = score(jnp.concatenate([value[None], flat]), jnp.concatenate([jnp.ones(1, bool), kept]))
        value, flat = everything[0], everything[1:]
    kept = kept[:, None]
    below = jnp.sum((flat < value) & kept, axis=0)
    ties = jnp.sum((flat == value) & kept, axis=0)
    key_ties, key_scale = jax.random.split(key)
    rank = below + jnp.floor(jax.random.uniform(key_ties, below.shape) * (ties + 1)).astype(int)
    pit = (rank + jax.random.uniform(key_scale, below.shape)) / (count + 1)
    common = jnp.minimum(jnp.floor(pit * (num_draws + 1)).astype(int), num_draws)
    common = jnp.where(count == num_draws, rank, common)
    return common.reshape(truth.shape), count.astype(float), moves


def _smallest_ess(flat: Float[Array, "n q"]) -> Float[Array, ""]:
    """The smallest effective number of draws, of values and of squared deviations.

    The squares see what antithetic chains hide: draws that alternate about the mean rank too evenly.
    """
    from blackjax.diagnostics import effective_sample_size  # importing BlackJAX starts JAX's backends

    flat = flat.astype(float)
    both = jnp.concatenate([flat, (flat - jnp.mean(flat, axis=0)) ** 2], axis=1)
    ess = effective_sample_size(both[None])
    return jnp.minimum(jnp.min(ess), flat.shape[0])


class _Shelf:
    """Finished batches on disk, each written whole or not at all."""

    def __init__(self, folder: Path, keys: Array, batch: int, names: list[str], call: Call, example: Data, how: Any):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        about = {
            "schema": SCHEMA,
            "keys": np.asarray(jax.random.key_data(keys[:1])).tolist(),
            "num_datasets": len(keys),
            "batch": batch,
            "quantities": names,
            "data": hashlib.sha256(b"".join(np.asarray(example[k]).tobytes() for k in sorted(example))).hexdigest(),
            "inference": kernel_settings(how) if isinstance(how, MCMCKernel) else _name_of(how),
            "call": [call.num_draws, call.num_warmup, call.num_samples, call.num_steps],
        }
        self.about = json.dumps(about, sort_keys=True)

    def _path(self, first: int) -> Path:
        return self.folder / f"datasets-{first:07d}.safetensors"

    def load(self, first: int) -> Ranks | None:
        path = self._path(first)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                about = (file.metadata() or {}).get("about")
                flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"store {str(self.folder)!r}: {path.name} is damaged ({error}); delete it.") from error
        if about != self.about:
            raise ValueError(
                f"store {str(self.folder)!r} belongs to another study: it has {about}, this one is {self.about}. Use "
                "another `store`, or delete that one."
            )
        fields: dict[str, Any] = {name: {} for name in Ranks._fields}
        for name, value in flat.items():
            field, _, quantity = name.partition("/")
            if quantity:
                fields[field][quantity] = value
            else:
                fields[field] = value
        return Ranks(**fields)

    def save(self, first: int, part: Ranks) -> None:
        flat: dict[str, np.ndarray] = {}
        for field, value in part._asdict().items():
            entries = {f"{field}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {field: value}
            flat |= {k: np.ascontiguousarray(v) for k, v in entries.items()}
        path = self._path(first)
        draft = path.with_suffix(".part")
        with open(draft, "wb") as file:
            file.write(save(flat, metadata={"about": self.about}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)


def _name_of(inference: Any) -> str:
    """A function by its name, a partial by what it is a partial of, an object by its class."""
    inner = inference.func if isinstance(inference, partial) else inference
    return f"{type(inference).__name__} {getattr(inner, '__qualname__', type(inner).__name__)}"


def site_quantity(name: str) -> Quantity:
    """The site itself as a test quantity."""
    return partial(_value, name)


def _value(name: str, values: dict[str, Array], data: Data) -> Array:
    return values[name]
