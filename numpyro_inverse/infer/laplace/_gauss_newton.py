r"""The directions that the data inform: eigenpairs of the Gauss-Newton Hessian of the misfit, and the Laplace point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from numpyro_inverse._model import Trace, observed_sites, real_parameters, scale_of, simulated_data, unconstrained_trace
from numpyro_inverse.infer.laplace._reference import InformedDirections, LaplaceReference, Reference, prior_reference

OVERSAMPLING = 10  # further random directions, for accuracy
SIMULATIONS = 32  # simulated data sets, for likelihoods whose curvature depends on the data
ROUNDS = 2  # of: optimisation, then eigenpairs
STEPS = 100  # L-BFGS iterations a round, at most
TRIALS = 10  # of step lengths in an iteration, at most
GRADIENT_TOLERANCE = 0.03  # of the standardised potential, times the square root of the dimension
BATCH = 8  # products that are computed together


def informed_reference(
    model: Callable | None,
    potential: Callable,
    trace: dict[str, Any],
    z: PyTree,
    args: tuple,
    kwargs: dict[str, Any],
    rank: int,
) -> LaplaceReference:
    """The Laplace reference of a kernel's model, or of its ``potential`` of a pytree if ``model`` is None.

    A model's Hessian is :func:`fisher_information`; a potential's is its own, less the identity.
    """
    prior = prior_reference(trace, z)
    x, unravel = ravel_pytree(z)
    key_information, key = jax.random.split(jax.random.key(0))

    def of_vector(x: Array) -> Array:
        return potential(unravel(x))

    def fisher(x: Array) -> Callable:
        return fisher_information(model, args, kwargs, unravel(x), key_information)  # type: ignore[arg-type]

    def curvature(x: Array) -> Callable:
        product = jax.vjp(jax.grad(of_vector), x)[1]
        return lambda v: product(v)[0] - v

    with numpyro.validation_enabled(False):
        return laplace_reference(of_vector, curvature if model is None else fisher, prior, x, rank, key)


def laplace_reference(
    potential: Callable, information: Callable, prior: Reference, x: Float[Array, "n"], rank: int, key: Array
) -> LaplaceReference:
    r"""A Gaussian at a mode of :math:`e^{-U}`, in the prior's units: precision :math:`I + V \Lambda V^T`.

    From ``x``, L-BFGS (in the prior's units), then eigenpairs there; once more in the units of what was found.

    Args:
        potential: U of flat vectors.
        information: ``information(x)`` is the function :math:`v \mapsto H v`, H the Hessian of the misfit in the
            units of ``x``, or Gauss-Newton's.
        prior: the reference that the misfit is relative to.
        x: first point.
        rank: number of eigenpairs, at most.
        key: a key.
    """

    def round_(here: LaplaceReference, key: Array) -> tuple[LaplaceReference, None]:
        w = _minimise(lambda w: potential(here.value(w)), jnp.zeros_like(here.centre))
        x = here.value(w)
        product = information(x)
        found = eigenpairs(lambda v: prior.scale * product(prior.scale * v), x, rank, key)
        return LaplaceReference(prior, prior.noise(x), found, jnp.diag(1 / jnp.sqrt(1 + found.values))), None

    rank = min(rank, x.size)
    nothing = InformedDirections(jnp.zeros(rank, x.dtype), jnp.zeros((x.size, rank), x.dtype))
    start = LaplaceReference(prior, prior.noise(x), nothing, jnp.eye(rank, dtype=x.dtype))
    return jax.lax.scan(round_, start, jax.random.split(key, ROUNDS))[0]


def eigenpairs(product: Callable, like: Float[Array, "n"], rank: int, key: Array) -> InformedDirections:
    r"""The dominant eigenpairs of a symmetric matrix H, by a randomised double pass.

    :math:`Q` spans :math:`H \Omega` for rank + 10 Gaussian vectors; :math:`Q^T H Q = W \Lambda W^T`,
    :math:`V = Q W`. It takes 2 (rank + 10) products and is exact if the rank of H is no more than that. Eigenvalues
    are those of largest modulus, descending; none below -0.9 is returned.

    References:
        Halko, Martinsson & Tropp, SIAM Review 53 (2011) 217-288, algorithms 4.1 and 5.3.
    """
    count = min(rank + OVERSAMPLING, like.size)
    products = lambda rows: jax.lax.map(product, rows, batch_size=BATCH)  # noqa: E731
    rows = products(jax.random.normal(key, (count, like.size), like.dtype))
    basis = jnp.linalg.qr(rows.T)[0]
    small = jnp.matmul(products(basis.T), basis, precision="highest")
    values, vectors = jnp.linalg.eigh((small + small.T) / 2)
    keep = jnp.argsort(-jnp.abs(values))[:rank]
    keep = keep[jnp.argsort(-values[keep])]
    vectors = jnp.matmul(basis, vectors[:, keep], precision="highest")
    return InformedDirections(jnp.maximum(values[keep], -0.9), vectors)


def fisher_information(model: Callable, args: tuple, kwargs: dict[str, Any], z: PyTree, key: Array) -> Callable:
    r"""Products with the data's Fisher information about the unconstrained latents at ``z``, flat.

    With :math:`\theta(z)` the parameters of the observed sites' distributions and J their Jacobian,

    .. math:: v \mapsto J^T \bigl( E_{y \sim p_\theta} [-\nabla_\theta^2 \log p(y \mid \theta)] \bigr) J v,

    for any likelihood: derivatives go through the parameters that the NumPyro distribution is made of, so that no
    residual has to be declared. The expectation is a mean over 32 simulated data sets; where the curvature does not
    depend on the data (the mean of a normal, logits, a log rate) it is exact, and the result is Gauss-Newton's
    :math:`J^T C^{-1} J`. A distribution that cannot be sampled is taken at its data. ``numpyro.factor`` is linear in
    its parameter, and informs nothing. Only reverse mode is used, so that a ``jax.custom_vjp`` will do.
    """
    x, unravel = ravel_pytree(z)

    def observed(x: Array) -> Trace:
        return observed_sites(unconstrained_trace(model, args, kwargs, unravel(x)))

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


def _minimise(function: Callable, start: Float[Array, "n"]) -> Float[Array, "n"]:
    """Where L-BFGS ends: the gradient is small, or 100 iterations are over."""
    solver = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(TRIALS, initial_guess_strategy="one"))
    value_and_grad = optax.value_and_grad_from_state(function)
    tolerance = GRADIENT_TOLERANCE * start.size**0.5

    def unfinished(carry: tuple) -> Array:
        _, state = carry
        count, grad = (optax.tree.get(state, name) for name in ("count", "grad"))
        return (count == 0) | ((count < STEPS) & (jnp.linalg.norm(grad) > tolerance))

    def step(carry: tuple) -> tuple:
        w, state = carry
        value, grad = value_and_grad(w, state=state)
        updates, state = solver.update(grad, state, w, value=value, grad=grad, value_fn=function)
        new = optax.apply_updates(w, updates)
        return jnp.where(jnp.all(jnp.isfinite(new)), new, w), state

    return jax.lax.while_loop(unfinished, step, (start, solver.init(start)))[0]
