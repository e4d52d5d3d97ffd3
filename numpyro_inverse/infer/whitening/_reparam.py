"""Reparametrisations of field sites: through their base, or partially centred mode by mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, Normal
from numpyro.infer.reparam import Reparam

from numpyro_inverse.distributions import Flow, Pushforward, ReparametrizedDistribution, SpectralField


class BaseReparam(Reparam):
    """Samples a map of a base (a generator, a flow, a field) by the base: ``u`` is deterministic in ``u_latent``.

    ``whiten(model)`` applies it to every such site; this is for some of them:

    >>> numpyro.handlers.reparam(model, config={"u": BaseReparam()})
    """

    def __call__(self, name, fn, obs):
        """The replacement of site ``name``: no distribution, and the value computed from the latent site."""
        if obs is not None:
            raise ValueError(f"site {name!r}: an observed site cannot be whitened.")
        fn, expand_shape, event_dim = self._unwrap(fn)
        base = fn.base_dist
        extra = event_dim - fn.event_dim
        z = numpyro.sample(f"{name}_latent", self._wrap(base, expand_shape, base.event_dim + extra))
        return None, fn.from_base(z)


class SpectralReparam(Reparam):
    r"""Partial centring of a :class:`SpectralField`, mode by mode.

    With amplitude :math:`a_k` (a function of the hyperparameters) and its value :math:`b_k` at a reference,
    the latent site is :math:`v_k \sim N\bigl(0, (a_k / b_k)^{2 c_k}\bigr)` and the coefficients of the field are
    :math:`w_k = v_k\, a_k^{1 - c_k} b_k^{c_k}`: white noise for c = 0, the coefficients themselves (over b) for c = 1
    (Papaspiliopoulos, Roberts & Sköld, Statistical Science 22, 2007, section 3, per mode).
    """

    def __init__(self, centering: float | Float[Array, "..."] = 0.0, reference: float | Float[Array, "..."] = 1.0):
        self.centering = centering
        self.reference = reference

    def __call__(self, name, fn, obs):
        """The replacement of site ``name``: no distribution, and the value computed from the latent site."""
        if obs is not None:
            raise ValueError(f"site {name!r}: an observed site cannot be whitened.")
        fn, expand_shape, event_dim = self._unwrap(fn)
        modes = fn.domain.shape
        log_amplitude = 0.5 * jnp.log(fn.spectrum / fn.domain.cell_volume)
        try:
            shift = self.centering * (log_amplitude - jnp.log(self.reference))
            log_scale = jnp.broadcast_to(shift, log_amplitude.shape)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"whiten: `centering` for site {name!r} must broadcast to its modes {log_amplitude.shape}; "
                f"got shape {jnp.shape(self.centering)}."
            ) from error
        latent = Normal(jnp.zeros((), log_scale.dtype), jnp.exp(log_scale)).to_event(len(modes))
        v = numpyro.sample(f"{name}_latent", self._wrap(latent, expand_shape, event_dim))
        return None, fn.from_coefficients(v * jnp.exp(log_amplitude - log_scale))


def unwrapped(fn: Distribution) -> Distribution:
    """The distribution inside NumPyro's ``expand`` and ``to_event`` wrappers."""
    while isinstance(fn, Independent | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def reparametrize(model: Callable, centering: Any = 0.0, reference: Any = 1.0) -> Callable:
    """``model`` with stationary fields sampled by :class:`SpectralReparam` and other maps of a base by their base.

    ``centering`` and ``reference`` are values for all fields or dictionaries by site name.
    """

    def of(values: Any, name: str) -> Any:
        return values[name] if isinstance(values, dict) else values

    def config(site: dict[str, Any]) -> Reparam | None:
        fn = unwrapped(site["fn"])
        if site["is_observed"]:
            if isinstance(fn, Pushforward):
                raise ValueError(
                    f"whiten: site {site['name']!r} is observed, but a `Pushforward` has no density. Leave out `obs` "
                    'and observe data given it: `numpyro.sample("data", dist.Normal(u, s).to_event(), obs=...)`.'
                )
            return None
        if not isinstance(fn, ReparametrizedDistribution | Flow):
            return None
        c = of(centering, site["name"])
        white = np.ndim(c) == 0 and not isinstance(c, jax.core.Tracer) and c == 0
        if white or not isinstance(fn, SpectralField):
            return BaseReparam()
        return SpectralReparam(c, of(reference, site["name"]))

    return numpyro.handlers.reparam(model, config=config)
