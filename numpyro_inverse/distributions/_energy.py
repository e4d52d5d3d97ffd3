"""Unnormalized laws given by a potential, and the guard for those of which only the gradient is known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, Unit, constraints
from numpyro.primitives import Messenger

from numpyro_inverse._checks import check_callable, check_instance, check_sample_shape, check_trailing

WAYS_OUT = (
    "Sample with a kernel that uses gradients alone (ULA, SKROCK, PnPULA); or use a denoiser with a potential (a "
    "gradient-step denoiser, `denoisers.LineIntegral` for one whose Jacobian is symmetric); or declare the potential "
    "whose law is to be sampled (`denoisers.DeclaredPotential`)."
)


class Energy(Distribution):
    r"""The unnormalized law with density :math:`e^{-U(x)}` on arrays of a shape, for a latent site:

    >>> def model(data=None):
    ...     image = numpyro.sample("image", ni.distributions.Energy(lambda x: jnp.sum(jnp.abs(x)), (8, 8)))
    ...     numpyro.sample("data", dist.Normal(blur(image), 0.1).to_event(2), obs=data)

    ``log_prob`` is :math:`-U` **without its normalizing constant**: parameters of U that are sampled too have the law
    whose joint density with x is the product of theirs and :math:`e^{-U}`. There is no ``sample``.

    Args:
        potential: U, a function of one array that returns one number; or a potential of
            :mod:`numpyro_inverse.factors`. One that is ``gradient_only`` has no value: ``log_prob`` raises, unless the
            site is reached by a kernel that uses gradients alone.
        event_shape: of x.
        support: a NumPyro constraint; real arrays by default.

    Raises:
        TypeError: ``potential`` cannot be called; ``event_shape`` is no tuple of integers, ``support`` no
            constraint.
        ValueError: ``potential`` does not return one number; the law has no value, only a gradient.
    """

    pytree_data_fields = ("_arrays",)
    pytree_aux_fields = ("_rest", "_support", "_gradients_suffice")

    def __init__(
        self,
        potential: Callable[[Float[Array, "*shape"]], Float[Array, ""]],
        event_shape: tuple[int, ...],
        *,
        support: Any = None,
        validate_args: bool | None = None,
    ):
        event_shape = check_sample_shape("Energy", "event_shape", event_shape)
        potential = (
            potential if hasattr(potential, "energy") else _Potential(check_callable("Energy", "potential", potential))
        )
        if support is not None:
            check_instance("Energy", "support", support, constraints.Constraint, "a NumPyro constraint")
        self._support = constraints.independent(constraints.real, len(event_shape)) if support is None else support
        self._arrays, self._rest = _split(potential)
        self._gradients_suffice = False
        found = jax.eval_shape(_evaluated(potential), jax.ShapeDtypeStruct(event_shape, jnp.result_type(float)))
        if found.shape != ():
            raise ValueError(
                f"Energy: `potential` must return one number for an array of shape {event_shape}; got shape "
                f"{found.shape}."
            )
        super().__init__((), event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        """As given."""
        return self._support

    @property
    def potential(self) -> Any:
        """What was given, with the method ``energy``."""
        return _join(self._arrays, self._rest)

    @property
    def gradient_only(self) -> bool:
        """Whether U has no value, only a gradient."""
        return getattr(self.potential, "gradient_only", False)

    def sample(self, key, sample_shape=()):
        """Not possible.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "Energy: a law that is given by its potential cannot be sampled directly; run MCMC on a model that has it."
        )

    def log_prob(self, value, intermediates=None):
        r""":math:`-U(x)`, without the normalizing constant.

        Raises:
            ValueError: U has no value, only a gradient; the trailing axes of ``value`` are not the event's.
        """
        value = jnp.asarray(check_trailing("Energy.log_prob", "value", value, self.event_shape))
        potential = self.potential
        if self.gradient_only and not self._gradients_suffice:
            raise ValueError(f"Energy: {without_value(self)}")
        batch = value.shape[: value.ndim - len(self.event_shape)]
        flat = value.reshape((-1, *self.event_shape)) if batch else value
        energy = _evaluated(potential)
        return -(jax.vmap(energy)(flat).reshape(batch) if batch else energy(flat))


class PotentialFactor(Unit):
    """The law of a factor site that is a potential at an array: like NumPyro's ``Unit``, evaluated when asked.

    What is kept is the array, so that a model with a factor without value may be traced, simulated and drawn.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    pytree_data_fields = ("_arrays", "x")
    pytree_aux_fields = ("_rest", "name", "_gradients_suffice")

    def __init__(self, name: str, potential: Any, x: Array, event_dim: int):
        self.name, self.x = name, x
        self._arrays, self._rest = _split(potential)
        self._gradients_suffice = False
        Distribution.__init__(self, x.shape[: x.ndim - event_dim], (0,))

    @property
    def potential(self) -> Any:
        """The potential."""
        return _join(self._arrays, self._rest)

    @property
    def gradient_only(self) -> bool:
        """Whether the potential has no value, only a gradient."""
        return getattr(self.potential, "gradient_only", False)

    def expand(self, batch_shape):
        """Itself, where it has as many elements; a number would be counted once for each element of a plate.

        Raises:
            ValueError: another batch shape.
        """
        if tuple(batch_shape) != self.batch_shape:
            raise ValueError(
                f"factor {self.name!r}: it is called in plates of shape {tuple(batch_shape)} for potentials of shape "
                f"{self.batch_shape}, and would be counted once for each element. Call it outside the plates, or give "
                "`event_dim`, the number of trailing axes of `x` that are one array."
            )
        return self

    def log_prob(self, value, intermediates=None):
        """Minus the potential of each array.

        Raises:
            ValueError: it has no value, only a gradient.
        """
        potential = self.potential
        if self.gradient_only and not self._gradients_suffice:
            raise ValueError(f"factor {self.name!r}: {without_value(self)}")
        batch = self.batch_shape
        if not batch:
            return -_evaluated(potential)(self.x)
        flat = self.x.reshape((-1, *self.x.shape[len(batch) :]))
        return -jax.vmap(_evaluated(potential))(flat).reshape(batch)


class gradients_suffice(Messenger):
    """The effect handler of a kernel that uses gradients alone: sites without a value of their density may be used.

    Under it the log density of such a site is 0, with the right gradient; what adds up log densities leaves it out.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        """Tell the site."""
        if msg["type"] == "sample" and is_gradient_only(msg["fn"]):
            msg["fn"] = _told(msg["fn"])


def is_gradient_only(fn: Any) -> bool:
    """Whether a site's log density has a gradient and no value."""
    return getattr(_inside(fn), "gradient_only", False) is True


def without_value(fn: Any) -> str:
    """What to say of a law without a value of its density."""
    return no_value(_inside(fn).potential)


def no_value(potential: Any) -> str:
    """What to say of a potential without a value."""
    denoiser = getattr(potential, "denoiser", None)
    function = getattr(denoiser, "function", denoiser)
    of = "" if denoiser is None else f" of {getattr(function, '__name__', type(function).__name__)}"
    return (
        f"the potential {type(potential).__name__}{of} is known by its gradient alone, which may be the gradient of "
        f"nothing, and the log density was asked for. {WAYS_OUT}"
    )


def _evaluated(potential: Any) -> Callable:
    """The energy, or what has its gradient where there is no value."""
    return potential.stand_in if getattr(potential, "gradient_only", False) else potential.energy


def _inside(fn: Any) -> Any:
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist
    return fn


def _told(fn: Any) -> Any:
    told = copy.copy(fn)
    if hasattr(fn, "_gradients_suffice"):
        told._gradients_suffice = True
    else:
        told.base_dist = _told(fn.base_dist)
    return told


class _Potential(eqx.Module):
    """A plain function as a potential."""

    function: Any

    def energy(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        return jnp.asarray(self.function(x))


def _split(potential: Any) -> tuple[tuple, tuple]:
    """Arrays, which cross ``jit`` as data, and the rest, which is compared and hashed."""
    leaves, structure = jax.tree.flatten(potential)
    arrays = tuple(leaf if eqx.is_array(leaf) else None for leaf in leaves)
    rest = tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)
    return arrays, (rest, structure)


def _join(arrays: tuple, rest: tuple) -> Any:
    others, structure = rest
    leaves = [other if array is None else array for array, other in zip(arrays, others, strict=True)]
    return jax.tree.unflatten(structure, leaves)
