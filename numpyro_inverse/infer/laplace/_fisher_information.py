"""The Fisher information of the data about the latents, for any NumPyro likelihood, by its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from numpyro_inverse._model import Trace, observed_sites, real_parameters, scale_of, simulated_data, unconstrained_trace

SIMULATIONS = 32  # simulated data sets, for likelihoods whose curvature depends on the data


def fisher_information(
    model: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    z: PyTree,
    key: Array,
    latents: Callable[[PyTree], dict[str, Array]] = dict,
) -> Callable:
    r"""Products with the data's Fisher information about the unconstrained latents at ``z``, flat.

    With :math:`\theta(z)` the parameters of the observed sites' distributions and J their Jacobian,

    .. math:: v \mapsto J^T \bigl( E_{y \sim p_\theta} [-\nabla_\theta^2 \log p(y \mid \theta)] \bigr) J v,

    for any likelihood: derivatives go through the parameters that the NumPyro distribution is made of, so that no
    residual has to be declared. The expectation is a mean over 32 simulated data sets; where the curvature does not
    depend on the data (the mean of a normal, logits, a log rate) it is exact, and the result is Gauss-Newton's
    :math:`J^T C^{-1} J`. A distribution that cannot be sampled is taken at its data. ``numpyro.factor`` is linear in
    its parameter, and informs nothing. Only reverse mode is used, so that a ``jax.custom_vjp`` will do.

    ``latents`` makes the model's latents of ``z``, where it is not all of them: the information about the others is
    then neither computed nor compiled.
    """
    x, unravel = ravel_pytree(z)

    def observed(x: Array) -> Trace:
        return observed_sites(unconstrained_trace(model, args, kwargs, latents(unravel(x))))

    def parameters(x: Array) -> tuple[list[Array], Callable]:
        return real_parameters({k: site["fn"] for k, site in observed(x).items()})

    sites = observed(x)
    data = simulated_data(sites, key, SIMULATIONS)
    theta, pull = jax.vjp(lambda x: parameters(x)[0], x)
    rebuild = parameters(x)[1]

    def surprise(theta: list[Array]) -> Array:
        total = jnp.zeros((), x.dtype)
        for name, fn in rebuild(theta).items():
            log_probs = jax.vmap(fn.log_prob)(data[name]) * scale_of(sites[name])
            total -= jnp.sum(log_probs) / len(data[name])
        return total

    def product(v: Array) -> Array:
        tangent = jax.vjp(lambda w: pull(w)[0], theta)[1](v)[0]  # J v, as the transpose of w -> J^T w
        curved = jax.vjp(jax.grad(surprise), theta)[1](tangent)[0]
        return pull(curved)[0]

    return product
