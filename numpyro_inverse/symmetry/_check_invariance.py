"""Does a model have the symmetry? By how much not, and which of its factors breaks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from numpyro_inverse._checks import (
    check_count,
    check_instance,
    check_key,
    check_model_call,
    check_numeric,
    check_positive_number,
)
from numpyro_inverse._model import Trace, abstract_trace, latent_sites, log_probs, sample_sites, trace_at
from numpyro_inverse.symmetry._group import stacked
from numpyro_inverse.symmetry._symmetry import Symmetry


@dataclass(frozen=True)
class Invariance:
    """What :func:`check_invariance` found.

    Attributes:
        violation: the largest change of the log density along an orbit, the log determinant of the move included: by
            how much the log acceptance ratio of an orbit move differs from 0.
        by_site: the largest change of each site's own log density. Changes of several sites may cancel.
        log_abs_det: the largest log determinant.
        tolerance: of ``violation``.
    """

    violation: float
    by_site: dict[str, float]
    log_abs_det: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the model is invariant to within the tolerance."""
        return self.violation <= self.tolerance

    @property
    def broken_by(self) -> tuple[str, ...]:
        """Sites whose density changes, the worst first; empty if the model is invariant."""
        if self.holds:
            return ()
        changed = [name for name, change in self.by_site.items() if not change <= self.tolerance]
        return tuple(sorted(changed, key=lambda name: -self.by_site[name]))

    def __str__(self) -> str:
        if self.holds:
            return f"invariant: the log density changes by {self.violation:.2g} at most along an orbit."
        changes = ", ".join(f"{name!r} by {self.by_site[name]:.2g}" for name in self.broken_by)
        volume = f" The log determinant is up to {self.log_abs_det:.2g}." if self.log_abs_det > self.tolerance else ""
        return (
            f"not invariant: the log density changes by up to {self.violation:.2g} along an orbit (allowed: "
            f"{self.tolerance:.2g}); by site: {changes or 'none changes'}.{volume}"
        )

    def require(self, where: str) -> None:
        """Raise if the model is not invariant.

        Raises:
            ValueError: it is not; the sites that break the symmetry are named.
        """
        if not self.holds:
            raise ValueError(f"{where}: the model is {self}")


def check_invariance(
    model: Callable,
    symmetry: Symmetry,
    *,
    rng_key: Key[Array, ""] | None = None,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    values: Mapping[str, Shaped[Array, "points ..."]] | None = None,
    num_points: int = 16,
    tolerance: float = 1e-3,
) -> Invariance:
    r"""Measure whether a model's density is the same along orbits, :math:`p(g \theta)\, |\det g| = p(\theta)`.

    At points drawn from the model, and random elements g, the symmetric sites are moved and nothing else, and the
    densities of all sites are compared one by one. Which sites the symmetry moves says what is asked:

    - latent sites alone: **invariance.** The data cannot tell :math:`\theta` from :math:`g \theta`, and the posterior
      is invariant (blind deconvolution).
    - latent sites **and the data**: **equivariance.** Moved data have the moved posterior (deconvolution by a known
      kernel). Call the model without data then, so that it draws them.

    The sites' changes say which factor breaks a symmetry: a prior, or the likelihood.

    >>> from numpyro_inverse import symmetry
    >>> def square(data=None):
    ...     u = numpyro.sample("u", dist.Normal(0.1, 1.0))
    ...     numpyro.sample("data", dist.Normal(u**2, 0.3), obs=data)
    >>> symmetry.check_invariance(square, symmetry.Symmetry(symmetry.SignFlip(), "u")).broken_by
    ('u',)

    Args:
        model: a NumPyro model.
        symmetry: what moves.
        rng_key: of points and elements; default: ``jax.random.key(0)``.
        model_args: the model's arguments.
        model_kwargs: the model's keyword arguments, with data or without.
        values: points instead of draws of the prior (which an improper prior does not have), stacked, by site.
        num_points: points, each with an element.
        tolerance: of the change of the log density.

    Returns:
        The changes. Computed in double precision where the model lets it.

    Raises:
        TypeError: ``model`` cannot be called, ``symmetry`` is no :class:`Symmetry`, ``model_args`` no tuple,
            ``model_kwargs`` no dictionary, ``values`` no numbers by site, ``rng_key`` no key.
        ValueError: ``values`` of several lengths; a symmetric site that is not in the model, is computed from others,
            or has data; a prior that cannot be drawn from, without ``values``.
    """
    where = "check_invariance"
    model, model_args, kwargs = check_model_call(where, model, model_args, model_kwargs)
    check_instance(where, "symmetry", symmetry, Symmetry, "a Symmetry")
    tolerance = check_positive_number(where, "tolerance", tolerance)
    key = jax.random.key(0) if rng_key is None else check_key(where, "rng_key", rng_key)
    check_latent(where, symmetry, abstract_trace(model, model_args, kwargs))
    if values is None:
        count = check_count(where, "num_points", num_points)
    else:
        symmetry.check_sites(where, values)
        values = {name: check_numeric(where, f"values[{name!r}]", value) for name, value in values.items()}
        count = stacked(where, "values", values)
    keys = jax.random.split(key, count)

    def changes(key: Array, given: Any) -> tuple[dict[str, Array], Array]:
        key_point, key_element = jax.random.split(key)
        here = trace_at(model, model_args, kwargs, given, rng_key=key_point)
        point = {name: site["value"] for name, site in latent_sites(here).items()}
        g = symmetry.group.propose(key_element)
        there = trace_at(model, model_args, kwargs, symmetry.action(g, point))
        before, after = log_probs(sample_sites(here)), log_probs(sample_sites(there))
        return {name: after[name] - before[name] for name in before}, symmetry.log_abs_det(g, point)

    with jax.enable_x64(True):
        try:
            by_site, volume = jax.device_get(jax.jit(jax.vmap(changes))(keys, values))
        except NotImplementedError as error:
            raise ValueError(
                f"{where}: a prior of the model cannot be drawn from ({error or 'improper'}); give points as `values`."
            ) from error
    return Invariance(
        violation=float(jnp.max(jnp.abs(sum(by_site.values()) + volume))),
        by_site={name: float(jnp.max(jnp.abs(change))) for name, change in by_site.items()},
        log_abs_det=float(jnp.max(jnp.abs(volume))),
        tolerance=tolerance,
    )


def check_latent(where: str, symmetry: Symmetry, trace: Trace) -> None:
    """Raise unless the symmetry moves latent sites of the model."""
    latent = latent_sites(trace)
    for name in symmetry.sites:
        if name in latent:
            continue
        if name not in trace:
            reason = f"which the model does not have; its latent sites are {', '.join(map(repr, latent))}"
        elif trace[name]["type"] == "sample":
            reason = "which has data; call the model without them, so that the check can draw and move them"
        else:
            reason = "which is computed from others; name the latent sites that it comes from (of a whitened model too)"
        raise ValueError(f"{where}: the symmetry moves site {name!r}, {reason}.")
