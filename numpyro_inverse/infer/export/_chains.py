"""What an ``MCMC`` would run, as functions of the state of its chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import nested_attrgetter

from numpyro_inverse._checks import show
from numpyro_inverse.infer.export._arviz import SAMPLE_DIMS

HERE = "run_to_disk"
POSTERIOR, STATS = "posterior/", "sample_stats/"  # groups of what is kept


class Chains:
    """The chains of an ``MCMC`` on a model's arguments, and what is kept of a state.

    What is kept is named by group: ``posterior/site``, ``sample_stats/field``.
    """

    def __init__(
        self,
        mcmc: MCMC,
        args: tuple,
        kwargs: dict[str, Any],
        sites: tuple[str, ...] | None = None,
        quantities: Callable | None = None,
        extra_fields: tuple[str, ...] = (),
    ):
        self.kernel: MCMCKernel = mcmc.sampler
        self.mcmc, self.args, self.kwargs = mcmc, args, kwargs
        self.sites, self.quantities = sites, quantities
        fields = tuple(dict.fromkeys((*mcmc._default_fields, *extra_fields)))
        self.fields = tuple(f for f in fields if f != mcmc._sample_field and not f.startswith("~"))
        self.batched = mcmc.num_chains > 1 and mcmc.chain_method == "vectorized"
        if self.kernel.is_ensemble_kernel and (not self.batched or mcmc.num_chains % 2):
            raise ValueError(
                f"{HERE}: {type(self.kernel).__name__} moves an ensemble of chains: `mcmc` needs "
                f'chain_method="vectorized" and an even number of chains; it has {mcmc.chain_method!r} and '
                f"{mcmc.num_chains}."
            )

    def first(self, rng_key: Array, init_params: Any) -> PyTree:
        """The first states of all chains, as in ``MCMC.run``."""
        mcmc = self.mcmc
        init = partial(self.kernel.init, model_args=self.args, model_kwargs=self.kwargs)
        if mcmc.num_chains == 1:
            return strong(init(rng_key, mcmc.num_warmup, init_params))
        keys = jax.random.split(rng_key, mcmc.num_chains)
        for leaf in jax.tree.leaves(init_params):
            if jnp.shape(leaf)[:1] != (mcmc.num_chains,):
                raise ValueError(
                    f"{HERE}: `init_params` must have a leading axis of {mcmc.num_chains} chains; got an array of "
                    f"shape {jnp.shape(leaf)}."
                )
        if self.batched:
            return strong(init(keys, mcmc.num_warmup, init_params))
        one = [init(keys[c], mcmc.num_warmup, _chain(init_params, c)) for c in range(mcmc.num_chains)]
        return strong(jax.tree.map(lambda *leaves: jnp.stack(leaves), *one))

    def program(self, drawing: bool, length: int) -> Callable:
        """The compiled program of a block: from a state to the next, and the draws of shape (chain, draw, ...)."""

        def run(state: PyTree) -> tuple[PyTree, dict[str, Array]]:
            if drawing:
                state, draws = self._block(state, length // self.mcmc.thinning)
                return strong(state), draws
            return strong(self._move(state, length)), {}

        program = self._over_chains(run)

        def shaped(state: PyTree) -> tuple[PyTree, dict[str, Array]]:
            state, draws = program(state)
            if self.mcmc.num_chains == 1:
                return state, {k: v[None] for k, v in draws.items()}
            return state, {k: jnp.swapaxes(v, 0, 1) for k, v in draws.items()} if self.batched else draws

        return shaped

    def kept_of(self, states: PyTree) -> dict[str, Array]:
        """What is kept of one state: of all chains if they are one state, otherwise of the first chain."""
        return self._kept(states if self.mcmc.num_chains == 1 or self.batched else _chain(states, 0))

    def shapes(self, first: PyTree) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape per draw and chain, and type, of what is kept."""
        found = jax.eval_shape(self.kept_of, first)
        leading = 1 if self.batched else 0
        return {name: jax.ShapeDtypeStruct(x.shape[leading:], x.dtype) for name, x in found.items()}

    def _over_chains(self, function: Callable) -> Callable:
        """The function for all chains, by the chain method."""
        method = self.mcmc.chain_method
        if self.mcmc.num_chains == 1 or self.batched:
            return jax.jit(function)
        if method == "parallel":
            return jax.pmap(function)
        return jax.jit(partial(jax.lax.map, function) if method == "sequential" else method(function))

    def _move(self, state: PyTree, length: int) -> PyTree:
        """Iterations whose draws are not kept."""
        return jax.lax.fori_loop(0, length, lambda _, s: self.kernel.sample(s, self.args, self.kwargs), state)

    def _block(self, state: PyTree, num_draws: int) -> tuple[PyTree, dict[str, Array]]:
        def draw(state, _):
            state = self._move(state, self.mcmc.thinning)
            return state, self._kept(state)

        return jax.lax.scan(draw, state, length=num_draws)

    def _kept(self, state: PyTree) -> dict[str, Array]:
        z = nested_attrgetter(self.mcmc._sample_field)(state)
        select = jax.vmap(self._selected) if self.batched else self._selected
        posterior = {f"{POSTERIOR}{name}": value for name, value in select(z).items()}
        return posterior | {f"{STATS}{name}": self._field(state, name) for name in self.fields}

    def _field(self, state: PyTree, name: str) -> Array:
        try:
            value = nested_attrgetter(name)(state)
        except (AttributeError, KeyError, TypeError):
            there = ", ".join(getattr(state, "_fields", ())) or type(state).__name__
            raise ValueError(
                f"{HERE}: `extra_fields` has {name!r}, which the state of {type(self.kernel).__name__} lacks; it has "
                f"{there}."
            ) from None
        if isinstance(value, tuple | dict | list):
            raise ValueError(f"{HERE}: `extra_fields` has {name!r}, which is no array; name a part of it.")
        value = jnp.asarray(value)
        one_for_all = self.kernel.is_ensemble_kernel and value.shape[:1] != (self.mcmc.num_chains,)
        return jnp.broadcast_to(value, (self.mcmc.num_chains, *value.shape)) if one_for_all else value

    def _selected(self, z: PyTree) -> dict[str, Array]:
        """The sites and quantities of one draw."""
        constrain = self.mcmc.postprocess_fn or self.kernel.postprocess_fn(self.args, self.kwargs)
        draw = constrain(z)
        draw = draw if isinstance(draw, dict) else {"z": draw}
        unknown = sorted(set(self.sites or ()) - set(draw))
        if unknown:
            raise ValueError(f"{HERE}: `sites` has {unknown[0]!r}; the model has {', '.join(map(repr, sorted(draw)))}.")
        found = {name: draw[name] for name in (draw if self.sites is None else self.sites)}
        if self.quantities is None:
            return found
        more = self.quantities(draw)
        if not isinstance(more, Mapping) or set(more) & set(found):
            raise ValueError(f"{HERE}: `quantities` must return a dict of arrays, under other names than the sites'.")
        return found | {name: jnp.asarray(value) for name, value in more.items()}


def check_kept(shapes: Mapping[str, Any]) -> None:
    """Refuse at the start what could not be written or read in the end."""
    if not any(name.startswith(POSTERIOR) for name in shapes):
        raise ValueError(f"{HERE}: nothing to keep: `sites` is empty and there are no `quantities`.")
    for full, x in shapes.items():
        name = full.split("/", 1)[1]
        what = f"site or quantity {name!r}" if full.startswith(POSTERIOR) else f"field {name!r}"
        if not isinstance(name, str) or not name or name in SAMPLE_DIMS:
            raise ValueError(f"{HERE}: {what} has the name of an axis of samples, or none; rename it.")
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or np.dtype(x.dtype).kind not in "biuf":
            raise ValueError(
                f"{HERE}: {what} is of type {x.dtype}, which ArviZ has no place for; keep real numbers (for example by "
                "`quantities`), or leave it out of `sites` or `extra_fields`."
            )
        if 0 in x.shape:
            raise ValueError(f"{HERE}: {what} has shape {x.shape}, without a number; leave it out of `sites`.")


def check_finite(draws: Mapping[str, np.ndarray], number: int, start: int) -> None:
    """The draws of a block, which starts at an iteration."""
    for name, x in draws.items():
        if name.startswith(POSTERIOR) and np.issubdtype(x.dtype, np.inexact) and not np.all(np.isfinite(x)):
            chain, draw = np.argwhere(~np.isfinite(x))[0][:2]
            raise RuntimeError(
                f"{HERE}: site {show(name.removeprefix(POSTERIOR))} has values that are not finite in block {number}, "
                f"which starts at iteration {start}: first in chain {chain}, draw {draw} of the block; the blocks "
                "before it are kept."
            )


def strong(tree: PyTree) -> PyTree:
    """Without weak types, which do not survive the disk and could change the program."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), tree)


def _chain(tree: PyTree, c: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[c], tree)
