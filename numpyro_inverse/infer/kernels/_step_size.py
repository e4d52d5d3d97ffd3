"""Step sizes derived from the curvature of the potential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_callable, check_count, check_fraction, check_key, check_positive_number
from numpyro_inverse._linalg import power_iteration
from numpyro_inverse._model import abstract_trace, sample_sites
from numpyro_inverse.distributions._energy import is_gradient_only
from numpyro_inverse.infer.kernels._mala import MALA
from numpyro_inverse.infer.kernels._ula import ULA


def lipschitz_constant(
    model: Callable,
    rng_key: Array,
    *,
    model_args: tuple = (),
    model_kwargs: dict[str, Any] | None = None,
    num_points: int = 4,
    num_warmup: int = 500,
    num_iterations: int = 50,
) -> float:
    r"""Largest curvature of the potential where the posterior is: :math:`\max_k \|\nabla^2 U(x_k)\|`.

    The points :math:`x_k` are the ends of independent :class:`MALA` chains, the norm is found by power iteration on
    Hessian-vector products. It is the Lipschitz constant of :math:`\nabla U` for a Gaussian posterior; else an estimate
    from below, of the curvature seen at these points. A model with a potential that is known by its gradient alone is
    measured at the ends of :class:`ULA` chains whose step is a quarter of the limit at their first points; what is
    found is then the growth of vectors under the Jacobian of the field, and where that is far from symmetric the limit
    of stability is below :math:`2 / L`.

    Args:
        model: a NumPyro model.
        rng_key: a random key.
        model_args: the model's arguments, with the data.
        model_kwargs: the model's keyword arguments, with the data.
        num_points: K.
        num_warmup: length of the chains.
        num_iterations: products a point; the mean relative error is below 0.871 / (50 - 1) times the logarithm of the
            dimension, whatever the spectrum, and much smaller with a gap.

    Raises:
        TypeError: ``rng_key`` is no random key.
        ValueError: a parameter not positive; a model that :class:`MALA` refuses; a curvature that is not finite.

    References:
        Kuczynski & Wozniakowski, SIAM J. Matrix Anal. Appl. 13 (1992) 1094-1122 (power iteration's error).
    """
    where, args, kwargs = "lipschitz_constant", tuple(model_args), dict(model_kwargs or {})
    key_run, key_start = jax.random.split(check_key(where, "rng_key", rng_key))
    num_points = check_count(where, "num_points", num_points)
    num_iterations = check_count(where, "num_iterations", num_iterations)
    num_warmup = check_count(where, "num_warmup", num_warmup)
    check_callable(where, "model", model, "a NumPyro model")
    call, keys = (num_warmup, args, kwargs), jax.random.split(key_run, num_points)

    def largest_at(kernel: Any, points: Any) -> float:
        found = _curvatures(kernel, points, args, kwargs, jax.random.split(key_start, num_points), num_iterations)
        return check_positive_number(where, "the curvature found", float(jnp.max(found)))

    if any(is_gradient_only(site["fn"]) for site in sample_sites(abstract_trace(model, args, kwargs)).values()):
        still = ULA(model, step_size=1e-30)
        first = 0.5 / largest_at(still, _ends(still, keys, 1, args, kwargs))
        kernel = ULA(model, step_size=first)
        return largest_at(kernel, _ends(kernel, keys, *call))
    kernel = MALA(model)
    return largest_at(kernel, _ends(kernel, keys, *call))


def _ends(kernel: Any, keys: Array, num_warmup: int, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Where independent chains are after their warm-up."""
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=1,
        num_chains=len(keys),
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(keys, *args, **kwargs)
    return mcmc.last_state.z if len(keys) > 1 else jax.tree.map(lambda v: v[None], mcmc.last_state.z)


def _curvatures(
    kernel: Any, points: Any, args: tuple, kwargs: dict[str, Any], keys: Array, num_iterations: int
) -> Float[Array, " points"]:
    """The norm of the Jacobian of the gradient at each point."""

    @jax.jit
    def curvatures(points, keys):
        def largest(z, key):
            x, unravel = ravel_pytree(z)
            potential = kernel._potential(args, kwargs, key)
            _, back = jax.vjp(jax.grad(lambda x: potential(unravel(x))), x)
            start = jax.random.normal(key, x.shape, x.dtype)
            return power_iteration(lambda v: back(v)[0], start, num_iterations)[0]

        return jax.vmap(largest)(points, keys)

    return curvatures(points, keys)


def suggest_step_size(
    model: Callable,
    rng_key: Array,
    *,
    model_args: tuple = (),
    model_kwargs: dict[str, Any] | None = None,
    safety: float = 0.5,
    num_points: int = 4,
    num_warmup: int = 500,
    num_iterations: int = 50,
) -> float:
    r"""A stable step for :class:`ULA`: ``safety`` times :math:`2 / L`, with L by :func:`lipschitz_constant`.

    At the default, :math:`\delta = 1/L`, the variance of a Gaussian along a direction with precision h is too large by
    the factor :math:`1 / (1 - \delta h / 2)`: 2 for the stiffest. Smaller steps are less biased and slower.

    >>> delta = suggest_step_size(model, jax.random.key(0), model_kwargs={"data": y})
    >>> mcmc = MCMC(ULA(model, step_size=delta), num_warmup=1000, num_samples=1000)

    Args:
        model: a NumPyro model.
        rng_key: a random key.
        model_args: the model's arguments, with the data.
        model_kwargs: the model's keyword arguments, with the data.
        safety: the fraction of the limit of stability, in (0, 1).
        num_points: as for :func:`lipschitz_constant`.
        num_warmup: as for :func:`lipschitz_constant`.
        num_iterations: as for :func:`lipschitz_constant`.

    Raises:
        TypeError: ``rng_key`` is no random key.
        ValueError: ``safety`` not in (0, 1); and as :func:`lipschitz_constant`.
    """
    safety = check_fraction("suggest_step_size", "safety", safety)
    largest = lipschitz_constant(
        model,
        rng_key,
        model_args=model_args,
        model_kwargs=model_kwargs,
        num_points=num_points,
        num_warmup=num_warmup,
        num_iterations=num_iterations,
    )
    return 2 * safety / largest
