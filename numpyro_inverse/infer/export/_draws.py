"""Draws as predictions need them: read from a run or a dict, sent through a function in batches, summarized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_callable, check_count, check_instance, describe
from numpyro_inverse._model import Trace, latent_sites

Draws = dict[str, np.ndarray]  # of shape (chain, draw, ...)
BLOCK = 2**22  # numbers that are summarized at once


class Run(NamedTuple):
    """What is known of finished draws."""

    draws: Draws
    model: Callable
    args: tuple  # of the call to be made
    kwargs: dict[str, Any]
    own_call: tuple[tuple, dict[str, Any]] | None  # with which the draws were made, if known


def read_posterior(
    where: str, posterior: Any, model: Any, model_args: Any, model_kwargs: Any, num_chains: int | None
) -> Run:
    """The draws by chain and the call of their model; checked."""
    own_call = None
    if isinstance(posterior, MCMC):
        model = getattr(posterior.sampler, "model", None) if model is None else model
        own_call = (tuple(posterior._args), dict(posterior._kwargs))
    draws = by_chain(where, posterior, num_chains)
    if model is None:
        raise ValueError(f"{where}: `model` is missing; give the model that the draws are of, whitened if it was.")
    check_callable(where, "model", model, "a NumPyro model")
    if model_args is None and model_kwargs is None:
        args, kwargs = own_call or ((), {})
    else:
        args = check_instance(where, "model_args", () if model_args is None else model_args, tuple | list, "a tuple")
        kwargs = check_instance(where, "model_kwargs", {} if model_kwargs is None else model_kwargs, Mapping, "a dict")
    return Run(draws, model, tuple(args), dict(kwargs), own_call)


def by_chain(where: str, posterior: Any, num_chains: int | None) -> Draws:
    """The samples of an ``MCMC`` or of a dict, checked; with ``num_chains`` those of a dict have no chain axis."""
    if isinstance(posterior, MCMC):
        posterior, num_chains = posterior.get_samples(group_by_chain=True), None
    if not isinstance(posterior, Mapping):
        raise TypeError(
            f"{where}: `posterior` must be an MCMC that has run, or samples by site name; got {describe(posterior)}."
        )
    found = numbers(where, "posterior", posterior)
    if not found:
        raise ValueError(f"{where}: `posterior` has no site.")
    for name, x in found.items():
        if num_chains is not None:
            chains = check_count(where, "num_chains", num_chains)
            if x.ndim < 1 or len(x) % chains:
                raise ValueError(
                    f"{where}: `num_chains` is {chains}, which does not divide the first axis of site {name!r}, of "
                    f"shape {x.shape}."
                )
            found[name] = x.reshape((chains, len(x) // chains, *x.shape[1:]))
    first, shape = next((name, x.shape[:2]) for name, x in found.items())
    for name, x in found.items():
        if x.ndim < 2 or x.shape[:2] != shape or 0 in shape:
            raise ValueError(
                f"{where}: `posterior` must have leading axes (chain, draw), the same for every site and not empty; "
                f"{first!r} has {shape} and {name!r} has shape {x.shape}. For samples without a chain axis pass "
                "`num_chains`."
            )
    return found


def numbers(where: str, argument: str, draws: Mapping[Any, Any]) -> Draws:
    """The draws as arrays by site name."""
    found = {}
    for name, x in draws.items():
        try:
            array = np.asarray(x)
        except ValueError:  # a ragged list
            array = np.asarray(None)
        if array.dtype.kind not in "fiubc":
            raise TypeError(f"{where}: `{argument}` must have numbers at every site; {name!r} has {describe(x)}.")
        found[str(name)] = array
    return found


def sampled(where: str, trace: Trace, draws: Draws, may_lack: tuple[str, ...] = ()) -> Draws:
    """The draws of the sites that the model samples; what is computed from them is computed again."""
    latent = {name: site for name, site in latent_sites(trace).items() if name not in may_lack}
    missing = [name for name in latent if name not in draws]
    if missing:
        raise ValueError(
            f"{where}: `posterior` lacks {', '.join(map(repr, missing))}, which the model samples, so nothing can be "
            "predicted. Give all sites, those ending in `_latent` for a whitened model too "
            "(`to_arviz(keep_latent=True)`), and the `model` that was sampled."
        )
    check_shapes(where, latent, draws)
    for name in latent:
        bad = ~np.isfinite(draws[name])
        if bad.any():
            raise ValueError(f"{where}: `posterior` has {int(bad.sum())} values of site {name!r} that are not finite.")
    return {name: draws[name] for name in latent}


def check_shapes(where: str, latent: Trace, draws: Draws) -> None:
    """Raise if a latent site has another shape in the model than in the draws, where it is there."""
    for name, site in latent.items():
        if name in draws and site["fn"].shape() != draws[name].shape[2:]:
            raise ValueError(
                f"{where}: site {name!r} has shape {site['fn'].shape()} in the model and {draws[name].shape[2:]} in a "
                "draw; the samples are of another model, or the model is called with other arguments."
            )


def map_draws(function: Callable[..., PyTree], draws: PyTree, shape: tuple[int, int], batch_size: int) -> PyTree:
    """``function`` of every draw, ``batch_size`` at a time; from leading axes ``shape`` to the same."""
    n = shape[0] * shape[1]
    flat = jax.tree.map(lambda x: x.reshape((n, *x.shape[2:])), draws)
    batch_size = min(batch_size, n)
    evaluate = jax.jit(jax.vmap(function))
    out: Any = None
    for start in range(0, n, batch_size):
        # Every batch has the same size, so that there is one program; the last is filled up with its last draw.
        rows = np.minimum(np.arange(start, start + batch_size), n - 1)
        part = jax.device_get(evaluate(*jax.tree.map(lambda x, rows=rows: x[rows], flat)))
        if out is None:
            out = jax.tree.map(lambda x: np.empty((n, *x.shape[1:]), x.dtype), part)
        stop = min(start + batch_size, n)
        jax.tree.map(
            lambda whole, x, start=start, stop=stop: whole.__setitem__(slice(start, stop), x[: stop - start]), out, part
        )
    return jax.tree.map(lambda x: x.reshape((*shape, *x.shape[1:])), out)


def summarize(
    draws: Float[np.ndarray, "chain draw *shape"], probability: float
) -> dict[str, Float[np.ndarray, "*shape"]]:
    """``mean``, ``sd``, and the ends ``lower`` and ``upper`` of the equal-tailed interval, in double precision."""
    shape = draws.shape[2:]
    flat = draws.reshape((draws.shape[0] * draws.shape[1], -1))
    step = max(BLOCK // len(flat), 1)
    parts = []
    for start in range(0, flat.shape[1], step):
        block = flat[:, start : start + step].astype(np.float64)
        ends = np.quantile(block, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
        parts.append([block.mean(0), block.std(0), *ends])
    columns = np.concatenate([np.asarray(part) for part in parts], axis=1)
    return {name: x.reshape(shape) for name, x in zip(("mean", "sd", "lower", "upper"), columns, strict=True)}
