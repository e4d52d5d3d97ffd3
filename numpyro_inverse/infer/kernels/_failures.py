"""Failures of the forward map or the likelihood: counted while a chain runs, reported afterwards by site."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_instance
from numpyro_inverse._model import Trace, log_probs, sample_sites, unconstrained_trace
from numpyro_inverse.distributions._energy import gradients_suffice

ADVICE = "They were rejected; see to it that the forward map and the likelihood are finite wherever the prior is."


class Failure(NamedTuple):
    """Whether a move met a point without a log density, and the point."""

    happened: Bool[Array, ""]
    x: Float[Array, "n"]


class FailureReport(NamedTuple):
    """What :func:`report_failures` found.

    Attributes:
        num_failures: moves that met such a point, of all chains, warm-up included.
        chain: the chain of the first of them; None if there is none.
        iteration: its iteration, warm-up included.
        site: the first site, in the model's order, whose log density is not a number there; None where that is not
            known.
    """

    num_failures: int
    chain: int | None
    iteration: int | None
    site: str | None


def has_failed(point: Any) -> Bool[Array, ""]:
    """Whether the potential at a point is not a number, or its gradient is not though it is.

    A zero density, an infinite potential, is no failure.
    """
    energy = point.potential_energy
    broken = jnp.isfinite(energy) & ~jnp.all(jnp.isfinite(point.grad))
    return jnp.isnan(energy) | (energy == -jnp.inf) | broken


def site_densities(model: Any, args: tuple, kwargs: dict[str, Any], z: Any) -> dict[str, Float[Array, ""]]:
    """Log density of each sample site of the model at unconstrained latents."""
    trace: Trace = unconstrained_trace(model, args, kwargs, z)
    return log_probs(sample_sites(trace))


def failing_site(model: Any, args: tuple, kwargs: dict[str, Any], z: Any, names: Sequence[str]) -> Int[Array, ""]:
    """Place among ``names`` of the first site whose log density at unconstrained latents is not a number, or -1."""
    with numpyro.validation_enabled(False):
        found = site_densities(model, args, kwargs, z)
    failed = jnp.stack([jnp.isnan(found[name]) | (found[name] == jnp.inf) for name in names])
    return jnp.where(jnp.any(failed), jnp.argmax(failed), -1)


def counts_failures(state: Any) -> bool:
    """Whether a state is of a kernel that counts failures."""
    return hasattr(state, "num_failures")


def failures_of(
    kernel: Any, state: Any, args: tuple | None, kwargs: Mapping[str, Any] | None
) -> tuple[FailureReport, str]:
    """What the last state of all chains counted, and the sentence that tells it; empty if there is nothing to tell."""
    counts, firsts = np.atleast_1d(state.num_failures), np.atleast_1d(state.first_failure)
    count = int(counts.sum())
    if count == 0:
        return FailureReport(0, None, None, None), ""
    chain = int(np.argmin(np.where(counts > 0, firsts, np.iinfo(firsts.dtype).max)))
    iteration, site = int(firsts[chain]), None
    if kernel.model is not None:
        z = state.z if np.ndim(state.num_failures) == 0 else jax.tree.map(lambda v: v[chain], state.z)
        _, unravel = ravel_pytree(z)
        where = unravel(jnp.reshape(state.failed_at, (len(counts), -1))[chain])
        call = tuple(args or ()), dict(kwargs or {})
        with numpyro.validation_enabled(False):
            found = jax.jit(lambda z: site_densities(gradients_suffice(kernel.model), *call, z))(where)
        site = next((name for name, value in found.items() if np.isnan(value) or value == np.inf), None)
    named = "where the log density or its gradient is not a number"
    if site is not None:
        named = f"where site {site!r} has log density {float(found[site])}"
    message = (
        f"{type(kernel).__name__}: {count} moves of {len(counts)} chain(s) met points without a log density, first in "
        f"iteration {iteration} of chain {chain}, {named}. {ADVICE}"
    )
    return FailureReport(count, chain, iteration, site), message


def report_failures(mcmc: MCMC) -> FailureReport:
    """The moves of a run that met a point at which the log density or its gradient is not a number, with a warning.

    Such a proposal is rejected, and the move called divergent, by every kernel of this package that rejects; the
    posterior is then that of the model restricted to where its forward map works. The counts are in the extra fields
    ``num_failures`` and ``first_failure`` too, and in the progress bar. What takes a run further warns in the same
    words: :func:`to_arviz`, :func:`run_to_disk`, :func:`read_run`, and the studies of calibration.

    Args:
        mcmc: after its run, with a kernel of this package.

    Warns:
        UserWarning: there are failures; with the number, and the first one's chain, iteration and site.

    Raises:
        TypeError: ``mcmc`` is no ``MCMC`` object, or its kernel does not count failures.
        ValueError: the run has not been started.
    """
    check_instance("report_failures", "mcmc", mcmc, MCMC, "an MCMC object")
    state, kernel = mcmc.last_state, mcmc.sampler
    if state is None:
        raise ValueError("report_failures: `mcmc` has no state; call its `run` first.")
    if not counts_failures(state):
        raise TypeError(f"report_failures: the kernel {type(kernel).__name__} does not count failures.")
    report, message = failures_of(kernel, state, mcmc._args, mcmc._kwargs)
    if message:
        warnings.warn(message, stacklevel=2)
    return report
