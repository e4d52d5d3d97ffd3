"""Any kernel, composed with moves along the orbits of a symmetry."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Float, Int, PyTree
from numpyro.infer import Gibbs
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from numpyro_inverse._checks import check_instance, is_traced
from numpyro_inverse._model import (
    Trace,
    abstract_trace,
    latent_sites,
    log_probs,
    sample_sites,
    trace_at,
    unconstrained_trace,
)
from numpyro_inverse.distributions._energy import is_gradient_only, without_value
from numpyro_inverse.infer.kernels._metropolis import probability
from numpyro_inverse.symmetry import Symmetry
from numpyro_inverse.symmetry._check_action import check_laws
from numpyro_inverse.symmetry._check_invariance import check_latent

SAME = 1e-5  # relative change of a value that is rounding
OWN_KEY = 17  # what is folded into the key of a run for the moves' own


class OrbitState(NamedTuple):
    """State of :class:`OrbitMoves`; every field is available as an extra field, and so are those of the kernel's state.

    Attributes:
        i: iteration, warm-up included.
        z: latent values in unconstrained space.
        orbit_accept_prob: of the last move along an orbit; the mean of several symmetries' moves. 0 during warm-up.
        diverging: the kernel's last trajectory, if it says so.
        kernel_state: of the kernel.
        rng_key: key of the next move.
    """

    i: Int[Array, ""]
    z: PyTree
    orbit_accept_prob: Float[Array, ""]
    diverging: Bool[Array, ""]
    kernel_state: Any
    rng_key: Array

    def __getattr__(self, name: str) -> Any:
        """A field of the kernel's state."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.kernel_state, name)


class OrbitMoves(MCMCKernel):
    r"""A kernel whose every draw is followed by a move along the orbit: g uniform on the group, and
    :math:`\theta' = g \theta` accepted with probability

    .. math:: \min\Bigl(1, \frac{\pi(g \theta)\, |\det g|}{\pi(\theta)}\Bigr),

    :math:`\pi` the posterior density of the sites in the units of the model. If model and prior have the symmetry it is
    1, and chains jump freely between the copies of a mode that the kernel alone would never leave. **If the prior only
    has it approximately, or not at all, the draws are as exact,** and the copies get the weights that the posterior
    gives them.

    A non-compact group (:class:`~numpyro_inverse.symmetry.Scaling`) takes steps from its ``propose`` instead of uniform
    ones. Moves begin after the warm-up, so that step size and mass matrix are those of one copy. The kernel must find
    all that is not on an orbit by itself: look at :func:`orbit_diagnostics`, for random flips make a chain *look* well
    mixed.

    A move costs two values of the model's density and one refreshment of the kernel's state (a gradient).

    >>> # not run: docs/symmetries.md does it
    >>> kernel = OrbitMoves(NUTS(model), Symmetry(SignFlip(), "u"))  # doctest: +SKIP

    Extra fields: ``orbit_accept_prob``, and all of the kernel's.

    Args:
        kernel: any kernel that implements ``refresh``: NumPyro's ``HMC`` and ``NUTS``, all of this package. As a block
            of ``Gibbs``, ``OrbitMoves`` goes inside.
        symmetry: of latent sites of the kernel's model; several make a move each, one after the other.

    Raises:
        TypeError: ``kernel`` is no kernel, ``symmetry`` no ``Symmetry``.
        ValueError: a kernel whose state cannot be moved; no symmetry. When a run starts: a symmetric site that is no
            latent site of the kernel's model (or has another shape than the group acts on), or actions that are no
            group's.

    References:
        Hastings, Biometrika 57 (1970) 97-109; Liu & Sabatti, Biometrika 87 (2000) 353-369 (moves along orbits); for
        label switching, Frühwirth-Schnatter, J. Am. Stat. Assoc. 96 (2001) 194-209.
    """

    sample_field = "z"
    needs_density: bool = True

    def __init__(self, kernel: MCMCKernel, symmetry: Symmetry | Sequence[Symmetry]):
        self._kernel = check_instance("OrbitMoves", "kernel", kernel, MCMCKernel, "an MCMC kernel")
        if isinstance(kernel, Gibbs) or kernel.is_ensemble_kernel:
            raise ValueError(
                f"OrbitMoves: `kernel` is {type(kernel).__name__}, whose state is not one point; put OrbitMoves around "
                "the block of `Gibbs` that owns the symmetric sites."
            )
        if type(kernel).refresh is MCMCKernel.refresh:
            raise ValueError(
                f"OrbitMoves: {type(kernel).__name__} does not implement `refresh`, so its state cannot be moved."
            )
        several = (symmetry,) if isinstance(symmetry, Symmetry) else symmetry
        given = tuple(check_instance("OrbitMoves", "symmetry", several, Sequence, "a Symmetry, or several"))
        if not given:
            raise ValueError("OrbitMoves: `symmetry` is empty.")
        self._symmetries = tuple(
            check_instance("OrbitMoves", "symmetry", one, Symmetry, "a Symmetry, or several") for one in given
        )
        self._num_warmup = 0
        self._sample_fn: Callable | None = None  # MCMC initialises a kernel for which this is None

    @property
    def model(self) -> Callable | None:
        """The kernel's model."""
        return getattr(self._kernel, "model", None)

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields that ``MCMC`` always collects."""
        return ("z", "diverging")

    def get_diagnostics_str(self, state: OrbitState) -> str:
        """What the progress bar shows."""
        shown = self._kernel.get_diagnostics_str(state.kernel_state)
        return f"{shown}{', ' if shown else ''}orbit acceptance {float(state.orbit_accept_prob):.2f}"

    def init(
        self, rng_key: Array, num_warmup: int, init_params: Any, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> OrbitState:
        """The first state."""
        self._num_warmup = num_warmup
        self._sample_fn = self._move_one
        single = is_prng_key(rng_key)
        own = partial(jax.random.fold_in, data=OWN_KEY)
        key = own(rng_key) if single else jax.vmap(own)(rng_key)
        # The kernel starts where it would start by itself.
        state = self._kernel.init(rng_key, num_warmup, init_params, model_args, model_kwargs)
        z = getattr(state, self._kernel.sample_field)
        self._check(z if single else jax.tree.map(lambda v: v[0], z), model_args, model_kwargs or {})
        shape = () if single else rng_key.shape[:1]
        return OrbitState(
            i=jnp.zeros(shape, int),
            z=z,
            orbit_accept_prob=jnp.zeros(shape),
            diverging=jnp.broadcast_to(getattr(state, "diverging", False), shape),
            kernel_state=state,
            rng_key=key,
        )

    def sample(self, state: OrbitState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> OrbitState:
        """The next state: one of the kernel, moved along its orbit."""
        kernel_state = self._kernel.sample(state.kernel_state, model_args, model_kwargs)
        one = partial(self._move_one, model_args=model_args, model_kwargs=model_kwargs)
        state = state._replace(kernel_state=kernel_state)
        return one(state) if is_prng_key(state.rng_key) else jax.vmap(one)(state)

    def _move_one(self, state: OrbitState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> OrbitState:
        kwargs = model_kwargs or {}
        rng_key, key = jax.random.split(state.rng_key)
        begun = state.i >= self._num_warmup
        z = getattr(state.kernel_state, self._kernel.sample_field)
        values, log_density = self._start(z, model_args, kwargs)
        moved, rates = jnp.zeros((), bool), []
        for symmetry, key_move in zip(self._symmetries, jax.random.split(key, len(self._symmetries)), strict=True):
            key_element, key_accept = jax.random.split(key_move)
            g = symmetry.group.propose(key_element)
            proposal = symmetry.action(g, values)
            z_there, there = self._there(z, proposal, symmetry, model_args, kwargs)
            log_ratio = there - log_density + symmetry.log_abs_det(g, values)
            log_ratio = jnp.where(jnp.isfinite(there) & ~jnp.isnan(log_ratio), log_ratio, -jnp.inf)
            accepted = begun & (jnp.log(jax.random.uniform(key_accept, dtype=log_ratio.dtype)) < log_ratio)
            choose = partial(jnp.where, accepted)
            z, values, log_density = jax.tree.map(choose, (z_there, proposal, there), (z, values, log_density))
            moved = moved | accepted
            rates.append(jnp.where(begun, probability(log_ratio), 0))

        fresh = self._kernel.refresh(
            state.kernel_state._replace(**{self._kernel.sample_field: z}), model_args, model_kwargs
        )
        kernel_state = jax.tree.map(partial(_choose, moved), fresh, state.kernel_state)
        return OrbitState(
            i=state.i + 1,
            z=z,
            orbit_accept_prob=jnp.mean(jnp.stack(rates)).astype(state.orbit_accept_prob.dtype),
            diverging=jnp.asarray(getattr(kernel_state, "diverging", False)),
            kernel_state=kernel_state,
            rng_key=rng_key,
        )

    def _start(self, z: PyTree, args: tuple, kwargs: dict[str, Any]) -> tuple[dict[str, Array], Float[Array, ""]]:
        """The latent values in the model's units, and their log density."""
        if self.model is None:
            return z, -self._potential(z)
        trace = unconstrained_trace(self.model, args, kwargs, z)
        return {name: site["value"] for name, site in latent_sites(trace).items()}, _log_density(trace)

    def _there(
        self, z: PyTree, values: dict[str, Array], symmetry: Symmetry, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[PyTree, Float[Array, ""]]:
        """The unconstrained point of moved values, and their log density, minus infinity outside of the supports."""
        if self.model is None:
            return values, -self._potential(values)
        with numpyro.validation_enabled(False):  # values outside of a support are proposed, and rejected
            trace = trace_at(self.model, args, kwargs, values)
            found, inside = dict(z), jnp.ones((), bool)
            for name in z:
                support = trace[name]["fn"].support
                transform = numpyro.distributions.biject_to(support)
                inside = inside & jnp.all(support(values[name]))
                at = transform.inv(values[name])
                if name not in symmetry.sites:
                    # Its support may depend on a moved site; where it does not, the point stays as it is.
                    change = jnp.abs(transform(z[name]) - values[name])
                    at = jnp.where(jnp.all(change <= SAME * jnp.abs(values[name])), z[name], at)
                inside = inside & jnp.all(jnp.isfinite(at))
                found[name] = at.astype(z[name].dtype)
            return found, jnp.where(inside, _log_density(trace), -jnp.inf)

    @property
    def _potential(self) -> Callable:
        return self._kernel._potential_fn  # type: ignore[attr-defined]

    def _check(self, z: PyTree, args: tuple, kwargs: dict[str, Any]) -> None:
        """Refuse a symmetry that is not one of this model's latent sites, or no group action at all."""
        if self.model is not None:
            trace = abstract_trace(self.model, args, kwargs)
            for name, site in sample_sites(trace).items():
                if is_gradient_only(site["fn"]):
                    raise ValueError(f"OrbitMoves: site {name!r}: {without_value(site['fn'])}")
            for symmetry in self._symmetries:
                check_latent("OrbitMoves", symmetry, trace)
        values = z if self.model is None else {}
        if self.model is not None and not is_traced(z):
            values = self._start(z, args, kwargs)[0]
        for symmetry in self._symmetries:
            if values and not is_traced(values):
                symmetry.check_sites("OrbitMoves", values)
                check_laws("OrbitMoves", symmetry, {name: values[name] for name in symmetry.sites})

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """The kernel's."""
        return self._kernel.postprocess_fn(model_args, model_kwargs)

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """The kernel's."""
        return self._kernel.get_constrain_fn(model_args, model_kwargs)

    def refresh(self, state: OrbitState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> OrbitState:
        """The state for other model arguments, as Gibbs sampling needs it."""
        return state._replace(kernel_state=self._kernel.refresh(state.kernel_state, model_args, model_kwargs))

    def wrap_model(self, wrapper: Callable) -> OrbitMoves:
        """A copy around the kernel for the wrapped model."""
        moves = copy.copy(self)
        moves._kernel = self._kernel.wrap_model(wrapper)
        moves._sample_fn = None
        return moves

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sample_fn": None}


def _log_density(trace: Trace) -> Float[Array, ""]:
    return sum(log_probs(sample_sites(trace)).values(), jnp.zeros(()))


def _choose(moved: Bool[Array, ""], fresh: Array, old: Array) -> Array:
    """Fresh where the state has moved; keys of random numbers stay."""
    return old if jnp.issubdtype(old.dtype, jax.dtypes.prng_key) else jnp.where(moved, fresh, old)
