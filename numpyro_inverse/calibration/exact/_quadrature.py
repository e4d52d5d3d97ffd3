"""The posterior of any NumPyro model of up to three latent numbers, by a product rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy
from scipy.special import logsumexp

from numpyro_inverse._checks import check_callable, check_positive_number
from numpyro_inverse._model import discrete_latents, latent_sites, trace_at, transforms
from numpyro_inverse.calibration._arguments import model_arguments
from numpyro_inverse.calibration.exact._reference import Reference

NODES = {1: 4001, 2: 401, 3: 101}  # per axis
LOOK = {1: 4001, 2: 201, 3: 61}  # the same while the posterior's place is looked for
DEPTH = 35.0  # log density below its largest at which the box ends
ROUNDS = 8
CHUNK = 4096


def quadrature(
    model: Callable,
    *,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> Reference:
    r"""Moments, evidence and draws of a posterior by the trapezoidal rule in unconstrained coordinates.

    For a smooth density that has died away at the ends of the box the trapezoidal rule converges faster than any power
    of the spacing. The box is found from prior draws, then grown and shrunk until it just holds every node within
    :math:`e^{-35}` of the largest density; modes far from all of them can be missed where the prior gives them no draw.
    The error is measured against every second node.

    Args:
        model: a NumPyro model; latent sites are continuous, one to three numbers together.
        model_args: its arguments, with the data.
        model_kwargs: its keyword arguments, with the data.
        tolerance: largest allowed difference from the rule with every second node, of log evidence and of means in
            posterior standard deviations.

    Returns:
        The reference, deterministic sites included; draws are nodes with a uniform shift within their cell.

    Raises:
        TypeError: ``model`` is no function, ``model_args`` no tuple, ``model_kwargs`` no mapping.
        ValueError: no latent number or more than three; a discrete site; a tolerance that is not met; a density that is
            not finite anywhere.

    References:
        Trefethen & Weideman, SIAM Review 56 (2014) 385-458, on the trapezoidal rule.
    """
    check_callable("quadrature", "model", model, "a NumPyro model")
    tolerance = check_positive_number("quadrature", "tolerance", tolerance)
    args, kwargs = model_arguments("quadrature", model_args, model_kwargs)
    with jax.enable_x64(True):
        return _quadrature(model, args, kwargs, tolerance)


def _quadrature(model: Callable, args: tuple, kwargs: dict[str, Any], tolerance: float) -> Reference:
    def unconstrained(key: Array) -> dict[str, Array]:
        """A draw from the prior."""
        latent = latent_sites(trace_at(model, args, kwargs, rng_key=key))
        for name in discrete_latents(latent):
            raise ValueError(f"quadrature: site {name!r} is discrete; enumerate it by hand.")
        maps = transforms(latent)
        return {name: maps[name].inv(jnp.asarray(site["value"], float)) for name, site in latent.items()}

    start = jax.eval_shape(unconstrained, jax.random.key(0))  # the model never runs outside jit
    d = sum(s.size for s in start.values())
    if d not in NODES:
        raise ValueError(
            f"quadrature: the model has {d} latent numbers (sites {', '.join(start)}); 1 to 3 can be done."
        )
    _, unravel = ravel_pytree({k: np.zeros(s.shape) for k, s in start.items()})

    @jax.jit
    def log_density(points: Float[Array, "n d"]) -> Float[Array, " n"]:
        return jax.lax.map(lambda x: -potential_energy(model, args, kwargs, unravel(x)), points, batch_size=CHUNK)

    prior = jax.jit(jax.vmap(lambda key: ravel_pytree(unconstrained(key))[0]))
    draws = np.asarray(prior(jax.random.split(jax.random.key(1), 2000)))
    draws = draws[np.all(np.isfinite(draws), axis=1)]
    margin = 0.1 * np.ptp(draws, axis=0) + 1e-6
    low, high = draws.min(axis=0) - margin, draws.max(axis=0) + margin
    for _ in range(ROUNDS):
        axes, values = _evaluate(log_density, low, high, LOOK[d])
        if not np.any(np.isfinite(values)):
            raise ValueError("quadrature: the density is nowhere finite where the prior lies; check data and units.")
        inside = values > np.nanmax(values) - DEPTH
        before = low, high
        low, high = (np.array(v, float) for v in zip(*(_hull(axes, inside, i) for i in range(d)), strict=True))
        if np.allclose(low, before[0], atol=0.03 * np.max(high - low)) and np.allclose(
            high, before[1], atol=0.03 * np.max(high - low)
        ):
            break
    axes, values = _evaluate(log_density, low, high, NODES[d])
    values = np.where(np.isnan(values), -np.inf, values)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    every, fine, moments = _moments(axes, values, 1)
    _, coarse, rough = _moments(axes, values, 2)
    error = max(abs(fine - coarse), float(np.max(np.abs(moments[0] - rough[0]) / moments[1])))
    if not error <= tolerance:
        raise ValueError(
            f"quadrature: the rule changes by {error:.2g} when every second node is left out, more than `tolerance` = "
            f"{tolerance:g}: the density is too rough or too narrow for {NODES[d]} nodes a side."
        )

    def sites(x: Array) -> dict[str, Array]:
        seeded = handlers.seed(model, jax.random.key(0))
        return constrain_fn(seeded, args, kwargs, unravel(x), return_deterministic=True)

    weights = every.ravel()
    kept = weights > 1e-16 * weights.max()
    at = jax.jit(lambda p: jax.lax.map(sites, p, batch_size=CHUNK))(jnp.asarray(points[kept]))
    flat_values = {k: np.asarray(v, float).reshape(kept.sum(), -1) for k, v in at.items()}
    mean = {k: weights[kept] @ v for k, v in flat_values.items()}
    covariance = {k: (v - mean[k]).T @ (weights[kept, None] * (v - mean[k])) for k, v in flat_values.items()}
    shapes = {k: v.shape[1:] for k, v in at.items()}
    spacing = np.array([axis[1] - axis[0] for axis in axes])

    def draw(key: Array, number: int) -> dict[str, Array]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        chosen = points[rng.choice(len(points), number, p=weights)] + spacing * rng.uniform(-0.5, 0.5, (number, d))
        with jax.enable_x64(True):
            drawn = jax.tree.map(np.asarray, jax.jit(jax.vmap(sites))(jnp.asarray(chosen)))
        return jax.tree.map(jnp.asarray, drawn)

    return Reference(
        {k: mean[k].reshape(shapes[k]) for k in mean},
        {k: np.sqrt(np.diagonal(covariance[k])).reshape(shapes[k]) for k in mean},
        draw,
        covariance,
        fine,
    )


def _evaluate(log_density: Callable, low: np.ndarray, high: np.ndarray, nodes: int) -> tuple[list, np.ndarray]:
    axes = [np.linspace(a, b, nodes) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return axes, np.asarray(log_density(jnp.asarray(points))).reshape((nodes,) * len(axes))


def _hull(axes: list, inside: np.ndarray, axis: int) -> tuple[float, float]:
    """The interval of the nodes inside, one and a half times as wide where they touch the end."""
    found = np.flatnonzero(np.any(inside, axis=tuple(i for i in range(len(axes)) if i != axis)))
    x, last = axes[axis], len(axes[axis]) - 1
    first, end = x[max(found[0] - 1, 0)], x[min(found[-1] + 1, last)]
    width = max(end - first, x[1] - x[0])
    return first - (0.5 * width if found[0] == 0 else 0.0), end + (0.5 * width if found[-1] == last else 0.0)


def _moments(axes: list, values: np.ndarray, stride: int) -> tuple[np.ndarray, float, tuple[np.ndarray, np.ndarray]]:
    """Weights of the nodes, log integral, and means and standard deviations of the coordinates."""
    chosen = values[(slice(None, None, stride),) * len(axes)]
    axes = [x[::stride] for x in axes]
    log_integral = float(logsumexp(chosen))
    weights = np.exp(chosen - log_integral)
    mean, sd = [], []
    for i, x in enumerate(axes):
        marginal = np.sum(weights, axis=tuple(j for j in range(len(axes)) if j != i))
        mean.append(marginal @ x)
        sd.append(np.sqrt(marginal @ (x - mean[-1]) ** 2))
    return weights, log_integral + sum(np.log(x[1] - x[0]) for x in axes), (np.array(mean), np.array(sd))
