"""Reparametrizations of field sites: through their base, or partially centered coefficient by coefficient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, Normal
from numpyro.distributions.distribution import MaskedDistribution
from numpyro.handlers import condition, do, reparam
from numpyro.infer.reparam import Reparam
from numpyro.primitives import _PYRO_STACK

from numpyro_inverse.distributions import Pushforward
from numpyro_inverse.distributions._reparametrized import domain_of, has_amplitudes, has_base, unwrapped

LATENT = "_latent"  # what whitening appends to the name of a site


class BaseReparam(Reparam):
    """Samples a map of a base (a generator, a flow, a field) by the base: ``u`` is deterministic in ``u_latent``.

    ``whiten(model)`` applies it to every such site; this is for some of them:

    >>> numpyro.handlers.reparam(model, config={"u": BaseReparam()})

    Raises:
        ValueError: when the model runs: the site has a value already, a scaled or masked log density, or a handler
        around
            the model gives it one; it is named.
    """

    def __call__(self, name, fn, obs):
        """The replacement of site ``name``: no distribution, and the value computed from the latent site."""
        _check_value(name, obs)
        fn, expand_shape, event_dim = self._unwrap(fn)
        base = fn.base_dist
        extra = event_dim - fn.event_dim
        z = numpyro.sample(f"{name}{LATENT}", self._wrap(base, expand_shape, base.event_dim + extra))
        return None, fn.from_base(z)


class CoefficientReparam(Reparam):
    r"""Partial centering of a map of independent coefficients, each by itself.

    With amplitude :math:`a_k` (a function of the hyperparameters) and its value :math:`b_k` at a reference, the
    coefficients of the field are :math:`w_k = v_k\, a_k^{1 - c_k} b_k^{c_k}` with :math:`v_k \sim N\bigl(0, (a_k /
    b_k)^{2 c_k}\bigr)`: white noise for c = 0, the coefficients themselves (over b) for c = 1 (Papaspiliopoulos,
    Roberts & Sköld, Statistical Science 22, 2007, section 3, per mode). The latent site is :math:`v - s`, with s a
    ``shift`` that may depend on what was sampled before.

    Args:
        centering: c; broadcasts to the coefficients, leading batch and plate axes included.
        reference: b.
        shift: from the latent's shape to s; default: zero.
        keep: called with v.
    """

    def __init__(
        self,
        centering: float | Float[Array, "..."] = 0.0,
        reference: float | Float[Array, "..."] = 1.0,
        shift: Callable[[], Float[Array, "..."]] | None = None,
        keep: Callable[[Float[Array, "..."]], None] | None = None,
    ):
        self.centering = centering
        self.reference = reference
        self.shift = shift
        self.keep = keep

    def __call__(self, name, fn, obs):
        """The replacement of site ``name``: no distribution, and the value computed from the latent site."""
        _check_value(name, obs)
        fn, expand_shape, event_dim = self._unwrap(fn)
        log_amplitude = jnp.log(fn.amplitudes)
        base = fn.base_dist
        full = expand_shape + log_amplitude.shape[len(fn.batch_shape) :]
        try:
            log_scale = self.centering * (log_amplitude - jnp.log(self.reference))
            log_scale = jnp.broadcast_to(log_scale, jnp.broadcast_shapes(log_scale.shape, log_amplitude.shape))
            jnp.broadcast_shapes(log_scale.shape, full)
            if log_scale.ndim > len(full):
                raise ValueError
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"whiten: `centering` for site {name!r} must broadcast to its coefficients {log_amplitude.shape}; "
                f"got shape {jnp.shape(self.centering)}."
            ) from error
        shift = None if self.shift is None else self.shift()
        loc = jnp.zeros((), log_scale.dtype) if shift is None else -shift
        latent = Normal(loc, jnp.exp(log_scale)).to_event(base.event_dim)
        v = numpyro.sample(
            f"{name}{LATENT}", self._wrap(latent, expand_shape, event_dim - fn.event_dim + base.event_dim)
        )
        v = v if shift is None else v + shift
        if self.keep is not None:
            self.keep(v)
        return None, fn.from_coefficients(v * jnp.exp(log_amplitude - log_scale))


def reparametrize(
    model: Callable, centering: Any = 0.0, reference: Any = 1.0, shifts: Mapping[str, Any] | None = None
) -> Callable:
    """``model`` with coefficients partially centered, and other maps of a base sampled by their base.

    ``centering`` and ``reference`` are values for all sites or dictionaries by site name; ``shifts`` has a pair of
    ``shift`` and ``keep`` of :class:`CoefficientReparam` by site name.
    """

    def of(values: Any, name: str) -> Any:
        return values.get(name, 0.0) if isinstance(values, dict) else values

    def config(site: dict[str, Any]) -> Reparam | None:
        fn, name = site["fn"], site["name"]
        core = unwrapped(fn.base_dist) if isinstance(fn, MaskedDistribution) else unwrapped(fn)
        if site["is_observed"]:
            if isinstance(core, Pushforward):
                raise ValueError(
                    f"whiten: site {name!r} is observed, but a `Pushforward` has no density. Leave out `obs` "
                    'and observe data given it: `numpyro.sample("data", dist.Normal(u, s).to_event(), obs=...)`.'
                )
            return None
        if not has_base(core):
            return None
        _check_handlers(site)
        c = of(centering, name)
        white = np.ndim(c) == 0 and not isinstance(c, jax.core.Tracer) and c == 0
        if (white and name not in (shifts or {})) or not has_amplitudes(core):
            return BaseReparam()
        return CoefficientReparam(c, of(reference, name), *(shifts or {}).get(name, ()))

    return _Whitening(model, config)


class _Whitening(reparam):
    """Notes, at the deterministic site that is left of a field, that it was whitened, its law and its domain."""

    def process_message(self, msg: dict[str, Any]) -> None:
        """Reparametrize, and leave a note in ``msg["infer"]``."""
        fn = msg.get("fn")
        super().process_message(msg)
        if fn is not None and msg["type"] == "deterministic":
            msg["infer"] = {"whitened": True, "domain": domain_of(fn), "fn": fn}


def _check_value(name: str, value: Any) -> None:
    if value is not None:
        raise ValueError(
            f"whiten: site {name!r} has a value already, from `obs` or from `substitute` inside `whiten`, and there is "
            "nothing to sample. Observe it instead: `whiten(condition(model, {...}))`."
        )


def _check_handlers(site: dict[str, Any]) -> None:
    """Refuse what white coordinates would ignore, or what would mean something else in them."""
    name, fn = site["name"], site["fn"]
    if site["scale"] is not None or isinstance(fn, MaskedDistribution) or _is_masked(fn):
        what = "masked (`mask`)" if site["scale"] is None else "scaled (`handlers.scale` or a subsampling plate)"
        raise ValueError(
            f"whiten: the log density of site {name!r} is {what}, inside `whiten`. In white coordinates that would be "
            "the law of another model, for the Jacobian is not. Leave the field's prior as it is."
        )
    for handler in _PYRO_STACK:
        data = getattr(handler, "data", None)
        if isinstance(handler, condition | do) and isinstance(data, Mapping) and name in data:
            raise ValueError(
                f"whiten: `{type(handler).__name__}` around `whiten` gives site {name!r} a value, which would be "
                f"ignored: what is sampled is {name + LATENT!r}. Apply it to the model, and then whiten."
            )
        strategy = getattr(handler, "substitute_fn", None)
        if isinstance(strategy, partial) and name in (strategy.keywords.get("values") or {}):
            raise ValueError(
                f"whiten: the initial value of site {name!r} would be ignored: what is sampled is {name + LATENT!r}. "
                "Give the values of that site."
            )


def _is_masked(fn: Distribution) -> bool:
    while not isinstance(fn, MaskedDistribution) and fn is not unwrapped(fn):
        fn = fn.base_dist
    return isinstance(fn, MaskedDistribution)
