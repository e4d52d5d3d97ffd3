"""Simulation-based calibration: the truth ranks uniformly among exact posterior draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import NamedSharding
from jaxtyping import Array, Key

from numpyro_inverse._checks import check_flag
from numpyro_inverse.calibration.ranks._posteriors import call_of
from numpyro_inverse.calibration.ranks._problem import (
    Quantity,
    check_quantities,
    problem_of,
    site_quantity,
    tested_sites,
)
from numpyro_inverse.calibration.ranks._rank_study import RankStudy, rank_study

LOG_LIKELIHOOD = "log_likelihood"


def sbc(
    model: Callable,
    inference: Any,
    *,
    rng_key: Key[Array, ""],
    num_datasets: int,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    observed: str | tuple[str, ...] = "data",
    quantities: Mapping[str, Quantity] | None = None,
    sites: tuple[str, ...] | None = None,
    log_likelihood: bool = True,
    num_draws: int = 99,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_steps: int = 2000,
    batch_size: int | None = None,
    sharding: NamedSharding | None = None,
    store: str | os.PathLike | None = None,
    progress_bar: bool = True,
) -> RankStudy:
    r"""Is the posterior right? Simulate :math:`\theta^* \sim p(\theta)`, :math:`y \sim p(y \mid \theta^*)`, draw S
    times from what claims to be :math:`p(\theta \mid y)`, and count: for every test quantity T

    .. math:: r = \#\{ s : T(\theta_s, y) < T(\theta^*, y) \} \sim \operatorname{Uniform}\{0, \dots, S\}

    if the draws are independent and exact. Quantities that depend on the data see what marginals cannot: the log
    likelihood, tested by default, rejects the prior handed in as posterior.

    All data sets are simulated and fitted in one compiled program, in batches that fit in memory, over all local
    devices. Correlated draws are thinned to their effective number (without, chains of autocorrelation 0.9 are
    rejected in 63 % of correct studies).

    >>> # not run: docs/calibration.md does it
    >>> mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=500)  # doctest: +SKIP
    >>> study = sbc(model, mcmc, num_datasets=500, rng_key=jax.random.key(0))  # doctest: +SKIP
    >>> print(study.verdict(), study.table)  # doctest: +SKIP

    Args:
        model: a NumPyro model; called without data it simulates them. A kernel gets each simulated data set as the
            keyword argument of its site's name.
        inference: an ``MCMC``, of which kernel, chains, warm-up, samples and thinning are used; a kernel by itself
            (``NUTS(whiten(model))``, ``ExactGaussian(model)``, ...); an ``SVI`` with an autoguide; or a function
            ``(key, data) -> {site: draws}`` that JAX can trace, draws first; ``data`` is the array of the only
            observed site, or a dict if there are several.
        rng_key: a JAX random key.
        num_datasets: N.
        model_args: the model's arguments.
        model_kwargs: the model's keyword arguments, without the data.
        observed: the data's site or sites.
        quantities: further test quantities, ``name -> function(values, data)`` of the dict of sites and the dict of
            data; see :mod:`numpyro_inverse.calibration.functionals`. Each may be an array; its elements are tested
            separately and the p-value corrected for their number.
        sites: the sites to test, each element by itself. Default: all latent sample sites.
        log_likelihood: test it too; needs draws of all latent sites.
        num_draws: S.
        num_warmup: of a kernel by itself, one chain per data set; default 300.
        num_samples: likewise, before thinning; default 500.
        num_steps: of an ``SVI``.
        batch_size: data sets at a time. Default: what fits in half a gigabyte, at most 256.
        sharding: the devices among which they are divided, ``NamedSharding(mesh, PartitionSpec("rows"))``. Default: all
            local ones.
        store: a folder in which finished batches are kept; a study that was interrupted continues from it. It knows
            the study by its arguments and by what model, inference and quantities give for one more data set, which
            costs one more fit to compile.
        progress_bar: show one.

    Raises:
        ValueError: a site that is missing, has data already or a scaled density, or whose draws have another shape; a
            ``numpyro.factor``, which simulation cannot follow; a test quantity that is constant; draws that do not
            move, or are not finite, in every data set; ``num_warmup`` or ``num_samples`` beside an ``MCMC``; a store
            of another study, or a damaged one.
        TypeError: ``inference`` is nothing that draws.
        RuntimeError: another process writes to ``store``.
        OSError: ``store`` cannot be written.

    References:
        Talts et al., arXiv:1804.06788; Modrák et al., Bayesian Analysis 20 (2025) 461-488, on data-dependent
        quantities; Säilynoja, Bürkner & Vehtari, Statistics and Computing 32 (2022), on the bands.
    """
    check_flag("sbc", "log_likelihood", log_likelihood)
    quantities = check_quantities("sbc", quantities)
    problem = problem_of(model, model_args, model_kwargs, observed)
    call = call_of("sbc", problem, num_draws, num_warmup, num_samples, num_steps)
    tested = {name: site_quantity(name) for name in tested_sites(problem, sites)}
    needed = tuple(dict.fromkeys([*tested, *(problem.latent_sites() if log_likelihood else ())]))
    if log_likelihood:
        tested[LOG_LIKELIHOOD] = problem.log_likelihood
    clash = set(tested) & set(quantities)
    if clash:
        raise ValueError(f"sbc: `quantities` has names that are tested already: {', '.join(sorted(clash))}.")
    tested |= quantities
    return rank_study(
        problem,
        inference,
        call,
        tested,
        needed=needed,
        num_datasets=num_datasets,
        rng_key=rng_key,
        batch_size=batch_size,
        sharding=sharding,
        store=store,
        progress_bar=progress_bar,
        title="simulation-based calibration",
    )
