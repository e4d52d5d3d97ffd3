"""Coordinates fitted to data: a rough posterior, and what the data say about each mode there."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import Unit, biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from numpyro_inverse.distributions import Flow, ReparametrizedDistribution, SpectralField
from numpyro_inverse.infer.whitening._reparam import reparametrize, unwrapped
from numpyro_inverse.infer.whitening._trial_chain import trial_step_size

ROUNDS = 4  # of: information, then optimisation
STEPS = 30  # L-BFGS iterations a round
SIMULATIONS = 32  # simulated data sets per information estimate; its relative error is sqrt(2 / SIMULATIONS)
MAX_HYPERPARAMETERS = 512


class Coordinates(NamedTuple):
    """Per-mode centring of every stationary field, and a Gaussian sketch of the posterior in those coordinates.

    Dictionaries are keyed by field site (``centering``, ``reference``), by latent site (``mode_*``) or by the other
    latent sites (``hyper_*``, unconstrained). ``step_size`` suits NUTS in units of the sketch (``None``: none
    that was tried does).
    """

    centering: dict[str, Float[Array, "..."]]
    reference: dict[str, Float[Array, "..."]]
    mode_location: dict[str, Float[Array, "..."]]
    mode_variance: dict[str, Float[Array, "..."]]
    hyper_location: dict[str, Float[Array, "..."]]
    hyper_spread: dict[str, Float[Array, "..."]]
    hyper_covariance: Float[Array, "p p"]
    step_size: float | None


def fit_coordinates(model: Callable, args: tuple, kwargs: dict[str, Any], seed: int = 0) -> Coordinates:
    r"""Find where the posterior lies, roughly, and how much the data say about each mode of each field there.

    Maximises over the hyperparameters :math:`\eta` and the modes' means :math:`\mu` the evidence lower bound with
    fixed spreads, :math:`E_{\epsilon} \log p(y, \eta, \mu + s \epsilon)`, by L-BFGS with one antithetic pair
    :math:`\pm\epsilon`, in partially centred coordinates. Between rounds the coordinates are renewed: the data's
    expected information about coefficient k is :math:`I_k = E_y (\partial_{w_k} \log p(y \mid w))^2` over data
    simulated from the model at the current point (for any likelihood; Gauss-Newton's diagonal if it is Gaussian), the
    centring :math:`c_k = b_k^2 I_k / (1 + b_k^2 I_k)` and the spread :math:`s_k = (1 + b_k^2 I_k)^{-1/2}`.

    Raises:
        ValueError: traced arguments; no field site; no data; data that are not finite; a latent site that is neither a
            field's modes nor few enough for a dense matrix.
    """
    problem = _Problem(model, args, kwargs)
    key = jax.random.key(seed)
    x, prior_spread = jax.jit(problem.start)(jax.random.fold_in(key, 0))
    modes = _Modes(*(jax.tree.map(jnp.ones_like, x[1]) for _ in _Modes._fields))
    renew = jax.jit(problem.renew)
    _, unflatten = ravel_pytree(x)
    value_and_grad = jax.jit(jax.value_and_grad(lambda flat, modes: problem.potential(unflatten(flat), modes)))
    step = 0.05 * np.asarray(ravel_pytree(prior_spread)[0], float)
    for i in range(ROUNDS + 1):
        key_information, key_noise = jax.random.split(jax.random.fold_in(key, i + 1))
        modes, mean = renew(x, modes, key_information)
        sketch = _Sketch(value_and_grad, (x[0], mean), modes, key_noise, step)
        step = 0.5 * sketch.hyper_spread
        if i < ROUNDS:  # the last coordinates are those at the final point
            x = sketch.minimise()
    _, unravel = ravel_pytree(x[0])  # sites in alphabetical order, as in NumPyro's mass matrix blocks
    fitted = Coordinates(
        centering=modes.centering,
        reference=modes.reference,
        mode_location={f"{name}_latent": value for name, value in mean.items()},
        mode_variance={f"{name}_latent": value**2 for name, value in modes.spread.items()},
        hyper_location=x[0],
        hyper_spread=unravel(jnp.asarray(sketch.hyper_spread)),
        hyper_covariance=jnp.asarray(sketch.hyper_root @ sketch.hyper_root.T),
        step_size=trial_step_size(sketch.standardised, sketch.size),
    )
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(fitted)):
        raise ValueError(
            'whiten(centering="auto"): no finite rough mode was found from the prior medians; give the hyperparameters '
            "proper priors in the right units, or set `centering` by hand."
        )
    return fitted


class _Modes(NamedTuple):
    """Reference amplitudes, centring, and posterior standard deviations of the latents, by field site."""

    reference: dict[str, Array]
    centering: dict[str, Array]
    spread: dict[str, Array]


class _Problem:
    """A model with its data, taken apart into fields' coefficients ``w``, other latents ``eta`` and data."""

    def __init__(self, model: Callable, args: tuple, kwargs: dict[str, Any]):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            raise ValueError(
                'whiten(centering="auto") needs the data themselves, but the model\'s arguments are being traced; call '
                "`.coordinates(...)` with the data once, outside `jit` (and without `jit_model_args`)."
            )
        self.model, self.args, self.kwargs = model, args, kwargs
        sites = self._sites()
        latent = {name: site["fn"] for name, site in sites.items() if not site["is_observed"]}
        self.fields = [name for name, fn in latent.items() if isinstance(unwrapped(fn), SpectralField)]
        self.others = [name for name in latent if name not in self.fields]
        self.data = [name for name, site in sites.items() if site["is_observed"] and not isinstance(site["fn"], Unit)]
        if not self.fields:
            raise ValueError('whiten(centering="auto"): the model has no site whose distribution is a SpectralField.')
        if not self.data:
            raise ValueError('whiten(centering="auto"): the model has no observed site; call it with the data.')
        for name in self.data:
            value = sites[name]["value"]
            if not isinstance(value, jax.core.Tracer) and not np.all(np.isfinite(value)):
                raise ValueError(f"site {name!r}: the data are not finite; leave missing values out with a Mask.")
        for name in self.others:
            if isinstance(unwrapped(latent[name]), ReparametrizedDistribution | Flow):
                raise ValueError(f'whiten(centering="auto"): site {name!r} is no SpectralField; use `centering=0`.')
            if latent[name].support.is_discrete:
                raise ValueError(f"site {name!r} is discrete; it has no whitened coordinates.")
        size = sum(prod(latent[name].shape()) for name in self.others)
        if size > MAX_HYPERPARAMETERS:
            raise ValueError(
                f'whiten(centering="auto"): besides the fields there are {size} latent numbers (sites '
                f"{', '.join(self.others)}), more than {MAX_HYPERPARAMETERS}; use `centering=0` and let NUTS adapt."
            )

    def _sites(self) -> dict[str, Any]:
        """The model's sample sites; their types and shapes, not their values, are meant to be used."""
        found: dict[str, Any] = {}

        def run():
            seeded = handlers.seed(self.model, jax.random.key(0))
            found.update(handlers.trace(seeded).get_trace(*self.args, **self.kwargs))

        jax.eval_shape(run)  # no computation, no compilation
        return {name: site for name, site in found.items() if site["type"] == "sample"}

    def start(self, key: Array) -> tuple[tuple, dict[str, Array]]:
        """Medians (given the medians upstream) of the other latents' priors and zero coefficients, and prior spreads.

        Medians and spreads are unconstrained, from 101 draws.
        """
        latents = {f"{name}_latent" for name in self.fields}
        spread = {}

        def value(site):
            if site["type"] == "sample" and site["name"] in latents:
                return jnp.zeros(site["fn"].shape(), unwrapped(site["fn"]).scale.dtype)
            if site["name"] not in self.others:
                return None
            draws = site["fn"].sample(site["kwargs"]["rng_key"], (101,))
            spread[site["name"]] = jnp.std(biject_to(site["fn"].support).inv(draws), axis=0)
            return jnp.median(draws, axis=0)

        seeded = handlers.seed(reparametrize(self.model, 1.0), key)
        trace = handlers.trace(handlers.substitute(seeded, substitute_fn=value)).get_trace(*self.args, **self.kwargs)
        eta = {name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name in self.others}
        return (eta, {name: trace[f"{name}_latent"]["value"] for name in self.fields}), spread

    def trace_at(self, eta: dict[str, Array], w: dict[str, Array]) -> dict[str, Any]:
        """The model's sites with the given coefficients and hyperparameters."""
        model = handlers.seed(reparametrize(self.model, 1.0), jax.random.key(0))
        latents = eta | {f"{name}_latent": value for name, value in w.items()}
        values = constrain_fn(model, self.args, self.kwargs, latents)
        return handlers.trace(handlers.substitute(model, data=values)).get_trace(*self.args, **self.kwargs)

    def amplitudes(self, eta: dict[str, Array], w: dict[str, Array]) -> dict[str, Array]:
        trace = self.trace_at(eta, w)
        return {
            name: jnp.broadcast_to(unwrapped(trace[f"{name}_latent"]["fn"]).scale, value.shape)
            for name, value in w.items()
        }

    def information(self, eta: dict[str, Array], w: dict[str, Array], key: Array) -> dict[str, Array]:
        """Mean squared score of each coefficient over data simulated at (eta, w)."""
        at = self.trace_at(eta, w)

        def log_likelihood(w: dict[str, Array], data: dict[str, Array]) -> Array:
            trace = self.trace_at(eta, w)
            total = jnp.zeros(())
            for name, value in data.items():
                scale = trace[name]["scale"]
                total += jnp.sum(trace[name]["fn"].log_prob(value)) * (1.0 if scale is None else scale)
            return total

        def add_square(total: dict[str, Array], key: Array):
            data = {name: at[name]["fn"].sample(jax.random.fold_in(key, i)) for i, name in enumerate(self.data)}
            score = jax.grad(log_likelihood)(w, data)
            return jax.tree.map(lambda t, g: t + g**2, total, score), None

        total, _ = jax.lax.scan(add_square, jax.tree.map(jnp.zeros_like, w), jax.random.split(key, SIMULATIONS))
        return jax.tree.map(lambda t: t / SIMULATIONS, total)

    def renew(self, x: tuple, old: _Modes, key: Array) -> tuple[_Modes, dict[str, Array]]:
        """The coordinates that fit the point ``x`` = (eta, v in the old coordinates), and v in the new ones."""
        eta, v = x
        reference = self.amplitudes(eta, v)
        w = jax.tree.map(lambda v, a, b, c: v * a ** (1 - c) * b**c, v, reference, old.reference, old.centering)
        gain = jax.tree.map(lambda b, i: b**2 * i, reference, self.information(eta, w, key))
        centering = jax.tree.map(lambda g: g / (1 + g), gain)
        spread = jax.tree.map(lambda g: 1 / jnp.sqrt(1 + g), gain)
        return _Modes(reference, centering, spread), jax.tree.map(jnp.divide, w, reference)

    def potential(self, x: tuple, modes: _Modes) -> Array:
        """Potential energy at (eta, v)."""
        model = reparametrize(self.model, modes.centering, modes.reference)
        return potential_energy(model, self.args, self.kwargs, x[0] | {f"{k}_latent": v for k, v in x[1].items()})


class _Sketch:
    """A Gaussian sketch of the posterior around a point, and the potential in its units, on the host."""

    def __init__(self, value_and_grad: Callable, x: tuple, modes: _Modes, key: Array, step: np.ndarray):
        flat, self.unravel = ravel_pytree(x)
        self.centre = np.asarray(flat, float)
        self.size = self.centre.size
        self.dtype = flat.dtype
        self.mode_spread = np.asarray(ravel_pytree(modes.spread)[0], float)
        self.p = self.size - self.mode_spread.size
        self.value_and_grad = lambda x: value_and_grad(x, modes)
        noise = np.asarray(jax.random.normal(key, self.mode_spread.shape), float)
        self.noise = np.concatenate([np.zeros(self.p), self.mode_spread * noise])
        self.hyper_root = _inverse_root(self._hyper_hessian(step))
        self.hyper_spread = np.sqrt(np.sum(self.hyper_root**2, axis=1))

    def _potential(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.value_and_grad(np.asarray(point, self.dtype))
        return float(value), np.asarray(gradient, float)

    def _smoothed(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """The potential averaged over an antithetic pair of the modes' spread."""
        up, down = self._potential(point + self.noise), self._potential(point - self.noise)
        return (up[0] + down[0]) / 2, (up[1] + down[1]) / 2

    def _hyper_hessian(self, step: np.ndarray) -> np.ndarray:
        """Hessian of the smoothed potential in eta, by central differences of its gradient over ``step`` either way."""
        hessian = np.zeros((self.p, self.p))
        for i, h in enumerate(step):
            shift = np.zeros(self.size)
            shift[i] = h
            up, down = self._smoothed(self.centre + shift)[1], self._smoothed(self.centre - shift)[1]
            hessian[i] = (up - down)[: self.p] / (2 * h)
        return hessian

    def _at(self, u: np.ndarray) -> np.ndarray:
        return self.centre + np.concatenate([self.hyper_root @ u[: self.p], self.mode_spread * u[self.p :]])

    def _pull(self, gradient: np.ndarray) -> np.ndarray:
        return np.concatenate([self.hyper_root.T @ gradient[: self.p], self.mode_spread * gradient[self.p :]])

    def standardised(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """The potential and its gradient in units of the sketch, in which the posterior is near a standard normal."""
        value, gradient = self._potential(self._at(u))
        return value, self._pull(gradient)

    def minimise(self) -> tuple:
        """The point where L-BFGS on the smoothed potential ends, started at the centre."""

        def objective(u):
            value, gradient = self._smoothed(self._at(u))
            return value, self._pull(gradient)

        options = {"maxiter": STEPS}
        found = scipy.optimize.minimize(objective, np.zeros(self.size), jac=True, method="L-BFGS-B", options=options)
        return self.unravel(jnp.asarray(self._at(found.x), self.dtype))


def _inverse_root(hessian: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "p p"]:
    """The inverse square root of a Hessian, its eigenvalues made positive."""
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    return vectors / np.sqrt(np.maximum(np.abs(values), np.finfo(np.float32).tiny))
