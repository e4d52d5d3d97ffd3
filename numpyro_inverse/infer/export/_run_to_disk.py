"""Long runs: chains written to disk block by block, which a killed process continues as if nothing had happened."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import nested_attrgetter

from numpyro_inverse.domains import Grid
from numpyro_inverse.infer.export import _run_store as disk
from numpyro_inverse.infer.export._arviz import STATISTICS, to_arviz

if TYPE_CHECKING:
    from xarray import DataTree

HERE = "run_to_disk"


def run_to_disk(
    mcmc: MCMC,
    store: Any,
    rng_key: Array,
    *args: Any,
    block_size: int = 100,
    sites: Sequence[str] | None = None,
    quantities: Callable[[dict[str, Array]], dict[str, Array]] | None = None,
    extra_fields: Sequence[str] = (),
    init_params: Any = None,
    progress_bar: bool = True,
    **kwargs: Any,
) -> None:
    """Run an ``MCMC`` in blocks and append each to a Zarr store; continue a run that was cut off.

    The run is that of ``mcmc``: its kernel, ``num_warmup``, ``num_samples``, ``thinning``, ``num_chains`` and
    ``chain_method``. After ``block_size`` iterations (of the warm-up too) the kept draws, the extra fields and the
    state of the kernel are written, and then the block's marker; a block without its marker does not count. Called
    again with the same arguments after the process was killed, at whatever moment, it goes on after the last block that
    counts, and the draws are those of an uninterrupted run, bit for bit, on the same kind of machine with the same
    versions of JAX and NumPyro. A finished run is left as it is. :func:`read_run` reads what there is at any time.

    Memory holds one block and one state, whatever the number of draws. Only ``sites`` and ``quantities`` are computed
    and kept. The progress bar shows the smallest effective sample size so far over all kept numbers, by batch means of
    the blocks (Flegal & Jones, Ann. Stat. 38, 2010): rough below some twenty blocks, and too large if blocks are
    shorter than the autocorrelation time.

    >>> run_to_disk(mcmc, "run.zarr", jax.random.key(0), data=y, sites=["range", "scale"])
    >>> tree = read_run("run.zarr")

    Args:
        mcmc: what would be run by ``mcmc.run(rng_key, *args, **kwargs)``; it is not changed.
        store: a directory, or a Zarr store object.
        rng_key: a key.
        *args: the model's arguments, with the data.
        block_size: iterations in a block: a multiple of the thinning. With ten blocks an hour, a kill costs minutes.
        sites: sites to keep, deterministic ones included; default: all.
        quantities: a function from the sites of one draw, kept or not, to a dict of arrays to keep beside them.
        extra_fields: fields of the kernel's state, as for ``MCMC.run``; ``diverging`` is kept where it exists.
        init_params: as for ``MCMC.run``: with a leading axis of chains if there are several.
        progress_bar: whether to show the one progress bar.
        **kwargs: the model's keyword arguments, with the data.

    Raises:
        ValueError: an argument out of range or a site or field that does not exist, named; a store that holds
            something else, or a run of another model, with other data, another key or other settings: it says which.
            What the kernel raises.
        ImportError: Zarr is missing.
        RuntimeError: values of a block are not finite; the blocks before it stay.
    """
    if not isinstance(mcmc, MCMC):
        raise TypeError(f"{HERE}: `mcmc` must be a numpyro.infer.MCMC; got {type(mcmc).__name__}.")
    thinning = mcmc.thinning
    if int(block_size) != block_size or block_size < 1 or block_size % thinning:
        raise ValueError(f"{HERE}: `block_size` must be a positive multiple of thinning={thinning}; got {block_size}.")
    if mcmc.num_samples < thinning:
        raise ValueError(f"{HERE}: `num_samples` is {mcmc.num_samples}; there is no draw to keep.")
    if not (jnp.issubdtype(jnp.result_type(rng_key), jax.dtypes.prng_key) or jnp.shape(rng_key) == (2,)):
        raise TypeError(f"{HERE}: `rng_key` must be one key, `jax.random.key(0)`; got shape {jnp.shape(rng_key)}.")
    if jnp.issubdtype(jnp.result_type(rng_key), jax.dtypes.prng_key) and jnp.ndim(rng_key):
        raise ValueError(f"{HERE}: `rng_key` must be one key; the chains' keys are split from it.")
    zarr = disk.import_zarr(HERE)

    chains = _Chains(mcmc, args, kwargs, tuple(sites) if sites is not None else None, quantities, tuple(extra_fields))
    first = _strong(chains.first(rng_key, init_params))
    prototype = jax.eval_shape(lambda state: chains.block(state, 1), first)[1]
    _check_kept(prototype)
    lengths = _blocks(mcmc.num_warmup, mcmc.num_samples - mcmc.num_samples % thinning, int(block_size))
    settings = {
        "kernel": disk.kernel_settings(mcmc.sampler),
        "num_warmup": mcmc.num_warmup,
        "num_samples": mcmc.num_samples,
        "thinning": thinning,
        "num_chains": mcmc.num_chains,
        "chain_method": mcmc.chain_method if isinstance(mcmc.chain_method, str) else "function",
        "block_size": int(block_size),
        "kept": {k: [list(v.shape), str(v.dtype)] for k, v in sorted(prototype.items())},
        "data": disk.digest((args, kwargs)),
        "rng_key": disk.digest(rng_key),
        "init_params": disk.digest(init_params),
    }
    run = disk.RunStore(zarr, store, HERE)
    if run.is_new:
        run.create(settings, prototype, first, mcmc.num_chains, lengths, thinning)
    else:
        run.check(settings, first)
    done, state, progress = run.resume(first)
    bar = _Bar(progress_bar, sum(n for _, n in lengths), sum(n for _, n in lengths[:done]))
    programs: dict[tuple[bool, int], Callable] = {}
    with bar:
        for number in range(done, len(lengths)):
            drawing, length = lengths[number]
            if (drawing, length) not in programs:
                programs[drawing, length] = chains.program(drawing, length)
            state, draws = jax.block_until_ready(programs[drawing, length](state))
            kept = {k: np.asarray(v) for k, v in draws.items()} if drawing else {}
            _check_finite(kept, number, sum(n for _, n in lengths[:number]))
            progress = _updated(progress, kept)
            run.append(number, kept, state, progress)
            bar.advance(length, _smallest_ess(progress))


def read_run(
    store: Any, domain: Mapping[str, Grid] | None = None, *, sites: Sequence[str] | None = None, **to_arviz_options: Any
) -> DataTree:
    """What a run has written so far, as an ArviZ ``DataTree`` with the groups of :func:`to_arviz`.

    ``posterior`` has the kept sites and quantities, ``sample_stats`` the extra fields under ArviZ's names. Blocks that
    do not count yet are left out. The attributes of the tree have the settings of the run, and whether it is complete.

    Args:
        store: as for :func:`run_to_disk`.
        domain: the grids of sites, as for :func:`to_arviz`.
        sites: the sites to read; default: all. Only they are loaded.
        **to_arviz_options: passed on to :func:`to_arviz`: ``model`` with ``model_args`` and ``model_kwargs`` for
            replicates of the data, ``length_unit``, ...

    Raises:
        ValueError: there is no run in the store, no draw in it yet, or no such site; and as :func:`to_arviz`.
        ImportError: Zarr is missing.
    """
    from arviz_base import dict_to_dataset
    from xarray import DataTree

    run = disk.RunStore(disk.import_zarr("read_run"), store, "read_run", writable=False)
    draws, complete = run.read(sites)
    posterior = {k.removeprefix("posterior/"): v for k, v in draws.items() if k.startswith("posterior/")}
    tree = to_arviz(posterior, domain=domain, **to_arviz_options)
    stats = {}
    for field, value in draws.items():
        if field.startswith("sample_stats/"):
            name = field.removeprefix("sample_stats/").rsplit(".", 1)[-1]
            stats[STATISTICS.get(name, name) if name != "potential_energy" else "lp"] = (
                -value if name == "potential_energy" else value
            )
    if stats:
        tree["sample_stats"] = DataTree(dict_to_dataset(stats))
    tree.attrs |= {"complete": bool(complete)} | {f"run_{k}": v for k, v in run.settings.items() if k != "kept"}
    return tree


class _Chains:
    """What an ``MCMC`` would run, as functions of the state of its chains."""

    def __init__(self, mcmc: MCMC, args: tuple, kwargs: dict, sites: Any, quantities: Any, extra_fields: tuple):
        self.kernel: MCMCKernel = mcmc.sampler
        self.mcmc, self.args, self.kwargs = mcmc, args, kwargs
        self.sites, self.quantities = sites, quantities
        self.fields = tuple(dict.fromkeys((*mcmc._default_fields, *extra_fields)))
        self.fields = tuple(f for f in self.fields if f != mcmc._sample_field and not f.startswith("~"))
        self.batched = mcmc.num_chains > 1 and mcmc.chain_method == "vectorized"
        if self.kernel.is_ensemble_kernel:
            raise ValueError(f"{HERE}: ensemble kernels, such as {type(self.kernel).__name__}, are not supported.")

    def over_chains(self, function: Callable) -> Callable:
        """The function for all chains, by the chain method."""
        method = self.mcmc.chain_method
        if self.mcmc.num_chains == 1 or self.batched:
            return jax.jit(function)
        if method == "parallel":
            return jax.pmap(function)
        return jax.jit(partial(jax.lax.map, function) if method == "sequential" else method(function))

    def first(self, rng_key: Array, init_params: Any) -> PyTree:
        """The first states of all chains, as in ``MCMC.run``."""
        mcmc = self.mcmc
        init = partial(self.kernel.init, model_args=self.args, model_kwargs=self.kwargs)
        if mcmc.num_chains == 1:
            return init(rng_key, mcmc.num_warmup, init_params)
        keys = jax.random.split(rng_key, mcmc.num_chains)
        if init_params is not None and jnp.shape(jax.tree.leaves(init_params)[0])[:1] != (mcmc.num_chains,):
            raise ValueError(f"{HERE}: `init_params` must have a leading axis of {mcmc.num_chains} chains.")
        if self.batched:
            return init(keys, mcmc.num_warmup, init_params)
        one = [init(keys[c], mcmc.num_warmup, _chain(init_params, c)) for c in range(mcmc.num_chains)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *one)

    def program(self, drawing: bool, length: int) -> Callable:
        """The compiled program of a block: from a state to the next, and the draws of shape (chain, draw, ...)."""

        def run(state):
            if drawing:
                state, draws = self.block(state, length // self.mcmc.thinning, single=True)
                return _strong(state), draws
            return _strong(self.move(state, length)), {}

        program = self.over_chains(run)

        def shaped(state):
            state, draws = program(state)
            if self.mcmc.num_chains == 1:
                return state, {k: v[None] for k, v in draws.items()}
            return state, {k: jnp.swapaxes(v, 0, 1) for k, v in draws.items()} if self.batched else draws

        return shaped

    def move(self, state: PyTree, length: int) -> PyTree:
        """Iterations whose draws are not kept."""
        return jax.lax.fori_loop(0, length, lambda _, s: self.kernel.sample(s, self.args, self.kwargs), state)

    def block(self, state: PyTree, num_draws: int, single: bool = False) -> tuple[PyTree, dict[str, Array]]:
        """``num_draws`` kept draws. ``single`` if the state is of the chains that one program moves."""
        if not single and self.mcmc.num_chains > 1 and not self.batched:
            state = _chain(state, 0)

        def draw(state, _):
            state = self.move(state, self.mcmc.thinning)
            return state, self.kept(state)

        return jax.lax.scan(draw, state, length=num_draws)

    def kept(self, state: PyTree) -> dict[str, Array]:
        """What is kept of a state, named by group."""
        z, *fields = (
            nested_attrgetter(self.mcmc._sample_field, *self.fields)(state)
            if self.fields
            else (nested_attrgetter(self.mcmc._sample_field)(state),)
        )
        select = jax.vmap(self.selected) if self.batched else self.selected
        posterior = {f"posterior/{k}": v for k, v in select(z).items()}
        return posterior | {f"sample_stats/{k}": jnp.asarray(v) for k, v in zip(self.fields, fields, strict=True)}

    def selected(self, z: PyTree) -> dict[str, Array]:
        """The sites and quantities of one draw."""
        draw = self.kernel.postprocess_fn(self.args, self.kwargs)(z)
        draw = draw if isinstance(draw, dict) else {"z": draw}
        unknown = sorted(set(self.sites or ()) - set(draw))
        if unknown:
            raise ValueError(f"{HERE}: `sites` has {unknown[0]!r}; the model has {', '.join(map(repr, sorted(draw)))}.")
        found = {name: draw[name] for name in (draw if self.sites is None else self.sites)}
        if self.quantities is None:
            return found
        more = self.quantities(draw)
        if not isinstance(more, dict) or set(more) & set(found):
            raise ValueError(f"{HERE}: `quantities` must return a dict of arrays, under other names than the sites'.")
        return found | {name: jnp.asarray(value) for name, value in more.items()}


def _strong(tree: PyTree) -> PyTree:
    """Without weak types, which do not survive the disk and could change the program."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), tree)


def _chain(tree: PyTree, c: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[c], tree)


def _check_kept(prototype: dict[str, Any]) -> None:
    if not any(name.startswith("posterior/") for name in prototype):
        raise ValueError(f"{HERE}: nothing to keep: `sites` is empty and there are no `quantities`.")


def _blocks(num_warmup: int, num_samples: int, size: int) -> list[tuple[bool, int]]:
    """Whether draws are kept, and the number of iterations, block after block."""
    parts = [(False, num_warmup), (True, num_samples)]
    return [(kept, min(size, total - start)) for kept, total in parts for start in range(0, total, size)]


def _check_finite(draws: dict[str, np.ndarray], number: int, start: int) -> None:
    for name, x in draws.items():
        if name.startswith("posterior/") and np.issubdtype(x.dtype, np.inexact) and not np.all(np.isfinite(x)):
            raise RuntimeError(
                f"{HERE}: site {name.removeprefix('posterior/')!r} has values that are not finite in block {number}, "
                f"which starts at iteration {start}; the blocks before it are kept."
            )


# The effective sample size so far, by batch means: sums over blocks and chains, of every kept number.


def _updated(progress: dict[str, np.ndarray], draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Counts and sums with one block more: ``n``, ``m`` (blocks times chains), and per number sums and squares."""
    values = [x.reshape((*x.shape[:2], -1)) for k, x in sorted(draws.items()) if k.startswith("posterior/")]
    if not values:
        return progress
    x = np.concatenate(values, axis=2).astype(np.float64)
    shift = np.where(progress["m"] > 0, progress["shift"], x[0, 0])
    x = x - shift
    means = x.mean(axis=1)
    return {
        "n": progress["n"] + x.shape[0] * x.shape[1],
        "m": progress["m"] + x.shape[0],
        "shift": shift,
        "sum": progress["sum"] + x.sum(axis=(0, 1)),
        "squares": progress["squares"] + (x**2).sum(axis=(0, 1)),
        "batch_sum": progress["batch_sum"] + means.sum(axis=0),
        "batch_squares": progress["batch_squares"] + (means**2).sum(axis=0),
    }


def _smallest_ess(progress: dict[str, np.ndarray]) -> float:
    """The smallest over all numbers that vary; NaN before there are two batches."""
    n, m = float(progress["n"]), float(progress["m"])
    if m < 2:
        return math.nan
    spread = progress["squares"] / n - (progress["sum"] / n) ** 2
    batches = (progress["batch_squares"] - progress["batch_sum"] ** 2 / m) / (m - 1)
    moving = (spread > 0) & (batches > 0)
    if not np.any(moving):
        return math.nan
    return float(np.min(m * spread[moving] / batches[moving]))


class _Bar:
    """The one progress bar."""

    def __init__(self, shown: bool, total: int, done: int):
        from tqdm import TqdmExperimentalWarning
        from tqdm.auto import tqdm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmExperimentalWarning)
            self._bar = tqdm(total=total, initial=done, disable=not shown, unit="it")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def advance(self, iterations: int, ess: float) -> None:
        """After a block."""
        self._bar.update(iterations)
        self._bar.set_postfix_str("warm-up" if math.isnan(ess) else f"ESS {ess:.0f}")
