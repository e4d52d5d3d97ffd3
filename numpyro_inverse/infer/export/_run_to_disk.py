"""Long runs: chains written to disk block by block, which a killed process continues as if nothing had happened."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_callable, check_count, check_flag, check_instance, check_key, describe
from numpyro_inverse._identity import digest, kernel_settings
from numpyro_inverse._model import abstract_trace
from numpyro_inverse.infer.export._batch_means import smallest_ess, updated
from numpyro_inverse.infer.export._chains import HERE, POSTERIOR, Chains, check_finite, check_kept
from numpyro_inverse.infer.export._read_run import check_names, noted_fields
from numpyro_inverse.infer.export._run_folder import OLD_FORMAT, folder_of, writable_group
from numpyro_inverse.infer.export._run_identity import (
    check_same,
    environment,
    environment_warning,
    model_content,
    tree_content,
)
from numpyro_inverse.infer.export._run_store import RunStore, plan_of
from numpyro_inverse.infer.kernels._failures import counts_failures, failures_of


def run_to_disk(
    mcmc: MCMC,
    store: Any,
    rng_key: Key[Array, ""],
    *,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    block_size: int = 100,
    sites: Sequence[str] | None = None,
    quantities: Callable[[dict[str, Array]], dict[str, Array]] | None = None,
    extra_fields: Sequence[str] = (),
    init_params: Any = None,
    progress_bar: bool | None = None,
) -> None:
    """Run an ``MCMC`` in blocks and append each to a Zarr store; continue a run that was cut off, or lengthen one.

    The run is that of ``mcmc``: its kernel, ``num_warmup``, ``num_samples``, ``thinning``, ``num_chains`` and
    ``chain_method``. After ``block_size`` iterations (of the warm-up too) the kept draws, the extra fields and the
    state of the kernel are written and forced to the disk, and then the block's marker with the checksums of all; a
    block without its marker does not count. Called again with the same arguments after the process was killed, at
    whatever moment, it goes on after the last block that counts, and the draws are those of an uninterrupted run, bit
    for bit, on the same kind of machine with the same versions of JAX and NumPyro. With more ``num_samples`` a run is
    lengthened. A finished run is left as it is. :func:`read_run` reads what there is at any time.

    Memory holds one block and one state, whatever the number of draws. Only ``sites`` and ``quantities`` are computed
    and kept. The progress bar shows the smallest effective sample size so far over all kept numbers, by batch means of
    the blocks (Flegal & Jones, Ann. Stat. 38, 2010): rough below some twenty blocks, and too large if blocks are
    shorter than the autocorrelation time.

    >>> # not run: docs/long_runs.md does it
    >>> run_to_disk(mcmc, "run.zarr", jax.random.key(0), model_kwargs={"data": y}, sites=["range"])  # doctest: +SKIP
    >>> tree = read_run("run.zarr")  # doctest: +SKIP

    Args:
        mcmc: what would be run by ``mcmc.run(rng_key, *model_args, **model_kwargs)``; it is not changed.
        store: a directory, which has one writer at a time, or a Zarr store object, which has no lock.
        rng_key: a key.
        model_args: the model's arguments, with the data.
        model_kwargs: the model's keyword arguments, with the data.
        block_size: iterations in a block: a multiple of the thinning. With ten blocks an hour, a kill costs minutes.
        sites: sites to keep, deterministic ones included; default: all.
        quantities: a function from the sites of one draw, kept or not, to a dict of arrays to keep beside them.
        extra_fields: fields of the kernel's state, as for ``MCMC.run``; ``diverging`` is kept where it exists.
        init_params: as for ``MCMC.run``: with a leading axis of chains if there are several.
        progress_bar: whether to show the one progress bar; default: as ``mcmc`` says.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument out of range or a site or field that does not exist, named; a store that holds
            something else, or a run of another model, with other data, another key or other settings: it says which; a
            store that is damaged: it says what, in which block. What the kernel raises.
        ImportError: Zarr is missing.
        OSError: the store cannot be written (no space left, read-only); the blocks that count stay.
        RuntimeError: values of a block are not finite, and the blocks before it stay; or another process writes.

    Warns:
        UserWarning: the run is continued with other versions or on another processor; or its last block was damaged and
            is computed again; or moves of the run met points without a log density, as :func:`report_failures` says.
    """
    args, kwargs, options = _checked(
        mcmc, rng_key, model_args, model_kwargs, block_size, sites, quantities, extra_fields, progress_bar
    )
    folder_of(store, HERE)
    chains = Chains(mcmc, args, kwargs, **options)
    first = chains.first(rng_key, init_params)
    shapes = chains.shapes(first)
    check_kept(shapes)
    block_size, total = int(block_size), mcmc.num_samples - mcmc.num_samples % mcmc.thinning
    record, arrays = _record(chains, rng_key, init_params, block_size, first, shapes)
    here = record.pop("environment")
    with writable_group(store, HERE) as (group, folder):
        if group.attrs.get("format") == OLD_FORMAT:
            raise ValueError(
                f"{HERE}: the store was written by an earlier version, without checksums; `read_run` reads it, but it "
                "cannot be continued. Give another store."
            )
        run = RunStore(group, folder, HERE)
        if run.is_new:
            plan = plan_of(mcmc.num_warmup, total, block_size)
            run.create(record | {"plan": plan, "environments": [here | {"block": 0}]}, arrays, first)
        else:
            check_same(HERE, run.record, record | {"environment": here})
        done, state, sums = run.resume(first)
        if mcmc.num_samples > run.record["settings"]["num_samples"]:
            run.lengthen(mcmc.num_samples, plan_of(mcmc.num_warmup, total, block_size, run.plan))
        plan = run.plan
        message = environment_warning(run.record["environments"][-1], here)
        if message is not None and done < len(plan):
            warnings.warn(f"{HERE}: {message}", stacklevel=2)
            run.note_environment(here, done)

        programs: dict[tuple[bool, int], Callable] = {}
        shown = mcmc.progress_bar if progress_bar is None else progress_bar
        with _Bar(shown, sum(n for _, n in plan), sum(n for _, n in plan[:done])) as bar:
            for number in range(done, len(plan)):
                drawing, length = plan[number]
                if (drawing, length) not in programs:
                    programs[drawing, length] = chains.program(drawing, length)
                state, draws = jax.block_until_ready(programs[drawing, length](state))
                kept = {k: np.asarray(v) for k, v in draws.items()}
                check_finite(kept, number, sum(n for _, n in plan[:number]))
                sums = updated(sums, {k: v for k, v in kept.items() if k.startswith(POSTERIOR)})
                run.append(number, kept, state, sums)
                bar.advance(length, smallest_ess(sums))
        if counts_failures(state):
            report, message = failures_of(chains.kernel, state, args, kwargs)
            run.note_failures({**report._asdict(), "message": message})
            if message:
                warnings.warn(message, stacklevel=2)


def _checked(
    mcmc: Any,
    rng_key: Any,
    model_args: Any,
    model_kwargs: Any,
    block_size: Any,
    sites: Any,
    quantities: Any,
    extra_fields: Any,
    progress_bar: Any,
) -> tuple[tuple, dict[str, Any], dict[str, Any]]:
    """The model's arguments, and what is kept."""
    check_instance(HERE, "mcmc", mcmc, MCMC, "a numpyro.infer.MCMC")
    if mcmc.post_warmup_state is not None:
        raise ValueError(
            f"{HERE}: `mcmc` has a `post_warmup_state`, which a run on disk does not start from; give a fresh MCMC "
            "(and `init_params`)."
        )
    check_key(HERE, "rng_key", rng_key)
    check_count(HERE, "block_size", block_size)
    if block_size % mcmc.thinning:
        raise ValueError(f"{HERE}: `block_size` must be a multiple of thinning={mcmc.thinning}; got {block_size}.")
    if not isinstance(model_args, tuple | list):
        raise TypeError(f"{HERE}: `model_args` must be a tuple of the model's arguments; got {describe(model_args)}.")
    if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
        raise TypeError(
            f"{HERE}: `model_kwargs` must be a dict of the model's keyword arguments; got {describe(model_kwargs)}."
        )
    if progress_bar is not None:
        check_flag(HERE, "progress_bar", progress_bar)
    if quantities is not None:
        check_callable(HERE, "quantities", quantities, "a function from the sites of a draw to a dict of arrays")
    options = {
        "sites": None if sites is None else check_names(HERE, "sites", sites),
        "quantities": quantities,
        "extra_fields": check_names(HERE, "extra_fields", extra_fields),
    }
    return tuple(model_args), dict(model_kwargs or {}), options


def _record(
    chains: Chains, rng_key: Any, init_params: Any, block_size: int, first: Any, shapes: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All that a store remembers of a run before its first block, and the arrays of its domains."""
    mcmc = chains.mcmc
    settings = {
        "kernel": kernel_settings(mcmc.sampler),
        "num_warmup": mcmc.num_warmup,
        "num_samples": mcmc.num_samples,
        "thinning": mcmc.thinning,
        "num_chains": mcmc.num_chains,
        "chain_method": mcmc.chain_method if isinstance(mcmc.chain_method, str) else "function",
        "block_size": block_size,
        "kept": {name: [list(x.shape), str(x.dtype)] for name, x in sorted(shapes.items())},
        "data": digest((chains.args, chains.kwargs)),
        "rng_key": digest(rng_key),
        "init_params": digest(init_params),
    }
    content = tree_content("the first", jax.jit(chains.kept_of)(first)) | tree_content("the first state's", first)
    model = getattr(mcmc.sampler, "model", None)
    trace = {} if model is None else abstract_trace(model, chains.args, chains.kwargs)
    if model is not None:
        content = model_content(model, chains.args, chains.kwargs, trace) | content
    notes, arrays = noted_fields(trace, shapes)
    record = {
        "settings": settings,
        "content": content,
        "environment": environment(),
        "kept": [[name, list(x.shape), str(x.dtype)] for name, x in sorted(shapes.items())],
    }
    return record | notes, arrays


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
