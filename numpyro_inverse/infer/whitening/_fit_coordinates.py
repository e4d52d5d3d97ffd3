"""Coordinates fitted to data: a rough posterior, and what the data say about each coefficient of each field there."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float
from numpyro.distributions import Normal, biject_to
from numpyro.infer.util import potential_energy

from numpyro_inverse._checks import check_callable
from numpyro_inverse._linalg import randomized_eigenpairs
from numpyro_inverse._model import (
    Trace,
    abstract_trace,
    data_sites,
    latent_sites,
    not_finite,
    real_parameters,
    resting_value,
    scale_of,
    trace_at,
    unconstrained_trace,
)
from numpyro_inverse.distributions._reparametrized import has_amplitudes, has_base, unwrapped
from numpyro_inverse.infer.laplace import fisher_information
from numpyro_inverse.infer.whitening._coordinates import Coordinates
from numpyro_inverse.infer.whitening._reparam import LATENT, reparametrize
from numpyro_inverse.infer.whitening._settle import potential_in, settled
from numpyro_inverse.infer.whitening._sketch import Sketch

HERE = "fit_coordinates"
ROUNDS = 4  # of: information, then optimization
SIMULATIONS = 32  # simulated data sets per information estimate; its relative error is sqrt(2 / SIMULATIONS)
MAX_HYPERPARAMETERS = 512
FEW = 512  # data, for which the directions they inform are found one by one
RELATED = 0.5  # squared correlation of two fields' scores from which their coefficients are coupled; by chance 1e-5
MAX_STEPS = 200  # of conjugate gradients
TOLERANCE, LAST_TOLERANCE = 1e-2, 1e-5  # in a round, and at the last point


def fit_coordinates(model: Callable, *args: Any, **kwargs: Any) -> Coordinates:
    r"""Find where the posterior lies, roughly, and how much the data say about each coefficient of each field there.

    Maximizes over the other sites :math:`\eta` and the coefficients' means :math:`\mu` the evidence lower bound with
    fixed spreads, :math:`E_{\epsilon} \log p(y, \eta, \mu + s \epsilon)`, by L-BFGS with one antithetic pair
    :math:`\pm\epsilon`, in partially centered coordinates. Between rounds the coordinates are renewed: the data's
    expected information about coefficient k is :math:`I_k = E_y (\partial_{w_k} \log p(y \mid w))^2` over data
    simulated from the model at the current point (for any likelihood; Gauss-Newton's diagonal if it is Gaussian) and
    the centering :math:`c_k = b_k^2 I_k / (1 + b_k^2 I_k)`.

    At the last point, with F the Fisher information of all coefficients v (in units of their prior) and
    :math:`B = \partial_v \partial_\eta` of the averaged potential, the fields follow the other sites as
    :math:`\partial \hat v / \partial \eta = -(I + F)^{-1} B =: C`, so that the marginal precision of :math:`\eta` is
    that of the potential along the directions :math:`(1, C)`. Where it is less than half of the precision given the
    fields (a ridge: an intercept beside a field), the coordinates are sheared by C. The coefficients' variances are
    those of 32 draws of :math:`N(0, (I + F)^{-1})`.

    Args:
        model: a NumPyro model with a field: a site whose distribution has ``amplitudes``, such as ``Matern``.
        *args: its arguments, with the data.
        **kwargs: its keyword arguments, with the data.

    Raises:
        TypeError: ``model`` cannot be called.
        ValueError: traced arguments; no field site; no data; data that are not finite; a latent site that is discrete,
            has an improper prior, or is neither a field nor small enough for a dense matrix; each is named.

    >>> coordinates = fit_coordinates(model, data=photo)
    >>> kernel = NUTS(whiten(model, coordinates), **coordinates.nuts_settings())
    """
    problem = _Problem(model, args, kwargs)
    key = jax.random.key(0)
    x, prior_spread = jax.jit(problem.start)(jax.random.fold_in(key, 0))
    modes = problem.first_modes(x)
    renew = jax.jit(problem.renew)
    programs = _Programs(
        jax.jit(jax.value_and_grad(lambda flat, modes: problem.potential(unflatten(flat), modes))),
        jax.jit(lambda rows, x, modes, tolerance: problem.solve(rows, x, modes, key, tolerance)),
    )
    _, unflatten = ravel_pytree(x)
    step = 0.05 * np.asarray(ravel_pytree(prior_spread)[0], float)
    doubt = jax.tree.map(lambda value: jnp.full_like(value, np.sqrt(0.5)), problem.of_effects(x[0]))
    for i in range(ROUNDS + 1):
        key_information, key_noise = jax.random.split(jax.random.fold_in(key, i + 1))
        modes, x, scores = renew(x, modes, doubt, key_information)
        tolerance = LAST_TOLERANCE if i == ROUNDS else TOLERANCE
        averaged = problem.averaged(x[0])
        sketch = Sketch(*programs, x, modes, scores, key_noise, step, tolerance, averaged, problem.fields)
        step, doubt = 0.5 * sketch.hyper_spread, problem.of_effects(sketch.spread_given_rest)
        if i < ROUNDS:  # the last coordinates are those at the final point
            x = sketch.minimize()
    if problem.few:
        pairs = jax.jit(lambda x, modes: problem.eigenpairs(x, modes, jax.random.fold_in(key, ROUNDS + 2)))
        sketch.take_directions(*pairs(x, modes))
        multiply = jax.jit(lambda rows, x, modes: jax.vmap(problem.information_product(x, modes, key))(rows))
        growths = sketch.growths(multiply, jax.jit(problem.amplitudes))
        fitted = sketch.coordinates(problem.downstream, growths)
        fitted = settled(fitted, potential_in(model, args, kwargs, fitted))
    else:
        sketch.measure_variances()
        fitted = settled(sketch.coordinates(problem.downstream, {}), sketch.standardized)
    bad = [leaf for leaf in jax.tree.leaves((fitted.mode_location, fitted.mode_variance, fitted.hyper_covariance))
           if not np.all(np.isfinite(leaf))]  # fmt: skip
    if bad:
        raise ValueError(
            f"{HERE}: no finite rough mode was found from the prior medians; give the hyperparameters proper priors in "
            "the right units, or whiten with a number (`whiten(model, 0.0)`)."
        )
    return fitted


class _Modes(NamedTuple):
    """Reference amplitudes and centering, by field and by site of group effects; spreads of the fields' latents given
    those before, couplings to them, by field."""

    reference: dict[str, Array]
    centering: dict[str, Array]
    spread: dict[str, Array]
    coupling: dict[str, dict[str, Array]]


class _Programs(NamedTuple):
    """What is compiled once and called in every round."""

    value_and_grad: Callable
    solve: Callable


class _Problem:
    """A model with its data, taken apart into fields' coefficients ``w``, other latents ``eta`` and data."""

    def __init__(self, model: Callable, args: tuple, kwargs: dict[str, Any]):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            raise ValueError(
                f"{HERE}: the data themselves are needed, but the model's arguments are being traced; call it outside "
                "`jit`, once, and pass the coordinates on."
            )
        self.model, self.args, self.kwargs = check_callable(HERE, "model", model, "a NumPyro model"), args, kwargs
        trace = abstract_trace(model, args, kwargs)
        latent, data = latent_sites(trace), data_sites(trace)
        self.fields = [name for name, site in latent.items() if has_amplitudes(site["fn"])]
        others = [name for name in latent if name not in self.fields]
        self.data = list(data)
        if not self.fields:
            raise ValueError(
                f"{HERE}: the model has no field whose modes can be centered one by one, that is, no latent site whose "
                "distribution has `amplitudes` (on a grid `Matern` and `SpectralField`, on a mesh `MaternKL`, "
                "`NormalSequence`, `SobolevSequence`, or your own). Sample others as white noise: `whiten(model, 0.0)`."
            )
        if not self.data:
            raise ValueError(f"{HERE}: the model has no observed site; call it with the data.")
        for name, site in data.items():
            if not_finite(site):
                raise ValueError(
                    f"{HERE}: site {name!r}: the data are not finite; leave missing values out with a Mask."
                )
        for name in others:
            if has_base(latent[name]["fn"]):
                raise ValueError(
                    f"{HERE}: site {name!r} has no `amplitudes` to center by, which fields on grids have, and "
                    "`MaternKL` on meshes; use `whiten(model, 0.0)`."
                )
            if latent[name]["fn"].support.is_discrete:
                raise ValueError(f"{HERE}: site {name!r} is discrete; it has no whitened coordinates.")
        size = sum(prod(latent[name]["fn"].shape()) for name in others)
        if size > MAX_HYPERPARAMETERS:
            raise ValueError(
                f"{HERE}: besides the fields there are {size} latent numbers (sites {', '.join(others)}), more "
                f"than {MAX_HYPERPARAMETERS}; use `whiten(model, 0.0)` and let NUTS adapt."
            )
        self.downstream = self._dependent(others, self.fields)
        self.count = sum(np.size(site["value"]) for site in data.values())
        laws = [latent[name]["fn"] for name in self.fields]
        self.few = self.count <= FEW and all(fn.batch_shape == () and unwrapped(fn).batch_shape == () for fn in laws)
        normal = [name for name in others if isinstance(unwrapped(latent[name]["fn"]), Normal)]
        self.effects = [
            name
            for name in self._dependent(normal, others)
            if name not in self.downstream and latent[name]["scale"] is None
        ]
        self.hyper = [f"{name}{LATENT}" if name in self.effects else name for name in others]
        self.normal = [f"{name}{LATENT}" if name in self.effects else name for name in normal]

    def _dependent(self, sites: list[str], on: list[str]) -> tuple[str, ...]:
        """Those of the sites whose prior depends on one of ``on``: its parameters change when these do."""

        @jax.jit
        def parameters(key: Array) -> dict[str, list[Array]]:
            trace = trace_at(self.model, self.args, self.kwargs, substitute_fn=_values_that_differ(on, key))
            return {name: real_parameters(trace[name]["fn"])[0] for name in sites}

        if not sites:
            return ()
        one, two = (parameters(jax.random.key(seed)) for seed in (1, 2))
        return tuple(
            name
            for name in sites
            if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(one[name], two[name], strict=True))
        )

    def of_effects(self, eta: dict[str, Array]) -> dict[str, Array]:
        """The part of eta that is group effects, by their site's own name."""
        return {name: eta[f"{name}{LATENT}"] for name in self.effects}

    def averaged(self, eta: dict[str, Array]) -> np.ndarray:
        """Which elements of eta, flat, have a normal prior, so that the potential is averaged over them too."""
        marks = {name: np.full(np.shape(value), name in self.normal) for name, value in eta.items()}
        return np.asarray(ravel_pytree(marks)[0], bool)

    def first_modes(self, x: tuple) -> _Modes:
        """Coordinates to begin with: centered, in units of one."""
        ones = jax.tree.map(jnp.ones_like, x[1])
        all_ones = ones | jax.tree.map(jnp.ones_like, self.of_effects(x[0]))
        return _Modes(all_ones, all_ones, ones, {name: {} for name in ones})

    def coefficient_model(self, modes: _Modes) -> Callable:
        """The model in the fields' coefficients, and in the group effects' coordinates."""
        ones = dict.fromkeys(self.fields, 1.0)
        centering = ones | {name: modes.centering[name] for name in self.effects}
        return reparametrize(self.model, centering, ones | {name: modes.reference[name] for name in self.effects})

    def start(self, key: Array) -> tuple[tuple, dict[str, Array]]:
        """Medians (given the medians upstream) of the other latents' priors and zero coefficients, and prior spreads.

        Medians and spreads are unconstrained, from 101 draws.
        """
        latents = {f"{name}{LATENT}" for name in self.fields}
        spread = {}

        def value(site):
            if site["type"] == "sample" and site["name"] in latents:
                return jnp.zeros(site["fn"].shape(), unwrapped(site["fn"]).scale.dtype)
            if site["name"] not in self.hyper:
                return None
            try:
                draws = site["fn"].sample(site["kwargs"]["rng_key"], (101,))
            except NotImplementedError as error:
                raise ValueError(
                    f"{HERE}: site {site['name']!r} has a prior that cannot be drawn from, "
                    f"{type(unwrapped(site['fn'])).__name__}; give it a proper one, however wide."
                ) from error
            spread[site["name"]] = jnp.std(biject_to(site["fn"].support).inv(draws), axis=0)
            return jnp.median(draws, axis=0)

        model = reparametrize(self.model, dict.fromkeys([*self.fields, *self.effects], 1.0))
        trace = trace_at(model, self.args, self.kwargs, substitute_fn=value, rng_key=key)
        eta = {name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name in self.hyper}
        return (eta, {name: trace[f"{name}{LATENT}"]["value"] for name in self.fields}), spread

    def trace_at(self, eta: dict[str, Array], w: dict[str, Array], modes: _Modes) -> Trace:
        """The model's sites with the given coefficients and hyperparameters."""
        return unconstrained_trace(self.coefficient_model(modes), self.args, self.kwargs, eta | _latents(w))

    def amplitudes(self, x: tuple, modes: _Modes) -> dict[str, Array]:
        """Prior standard deviations at (eta, v): of the fields' coefficients, of the group effects."""
        trace = self.trace_at(x[0], x[1], modes)
        scales = {name: (unwrapped(trace[f"{name}{LATENT}"]["fn"]).scale, value.shape) for name, value in x[1].items()}
        for name, value in self.of_effects(x[0]).items():
            scales[name] = unwrapped(trace[name]["infer"]["fn"]).scale, value.shape
        return {name: jnp.broadcast_to(scale, shape) for name, (scale, shape) in scales.items()}

    def score(self, eta: dict[str, Array], w: dict[str, Array], modes: _Modes, key: Array) -> dict[str, Array]:
        """Gradient in ``w`` of the log likelihood of data simulated at (eta, w)."""
        at = self.trace_at(eta, w, modes)
        data = {name: at[name]["fn"].sample(jax.random.fold_in(key, i)) for i, name in enumerate(self.data)}

        def log_likelihood(w: dict[str, Array]) -> Array:
            trace = self.trace_at(eta, w, modes)
            total = jnp.zeros(())
            for name, value in data.items():
                total += jnp.sum(trace[name]["fn"].log_prob(value)) * scale_of(trace[name])
            return total

        return jax.grad(log_likelihood)(w)

    def scores(self, eta: dict[str, Array], w: dict[str, Array], modes: _Modes, key: Array) -> dict[str, Array]:
        """Scores of simulated data sets, along a leading axis."""
        return jax.lax.map(lambda key: self.score(eta, w, modes, key), jax.random.split(key, SIMULATIONS))

    def renew(
        self, x: tuple, old: _Modes, doubt: dict[str, Array], key: Array
    ) -> tuple[_Modes, tuple, Float[Array, "simulations n"]]:
        """The coordinates that fit the point ``x`` = (eta, v) of the old ones, that point in the new ones, and scores.

        The scores, of simulated data, are in units of the coefficients' prior.

        ``doubt`` has the group effects' posterior over their prior standard deviations.
        """
        eta, v = x
        reference = self.amplitudes(x, old)
        w = {
            name: value * reference[name] ** (1 - old.centering[name]) * old.reference[name] ** old.centering[name]
            for name, value in (v | self.of_effects(eta)).items()
        }
        of_effects = {name: w.pop(name) for name in self.effects}
        scores = {name: score * reference[name] for name, score in self.scores(eta, w, old, key).items()}
        gain = {name: jnp.mean(score**2, axis=0) for name, score in scores.items()}
        centering = jax.tree.map(lambda g: g / (1 + g), gain)
        centering |= jax.tree.map(lambda ratio: jnp.clip(1 - ratio**2, 0.0, 1.0), doubt)
        products = {
            (later, earlier): jnp.mean(scores[later] * scores[earlier], axis=0)
            for j, later in enumerate(self.fields)
            for earlier in self.fields[:j]
            if w[later].shape == w[earlier].shape
        }
        precision, coupling = _eliminated(
            self.fields,
            gain,
            {(j, i): jnp.where(p**2 > RELATED * gain[j] * gain[i], p, 0) for (j, i), p in products.items()},
        )
        spread = jax.tree.map(lambda d: 1 / jnp.sqrt(d), precision)
        eta = eta | {f"{name}{LATENT}": of_effects[name] / reference[name] for name in self.effects}
        modes = _Modes(reference, centering, spread, coupling)
        return modes, (eta, {name: w[name] / reference[name] for name in w}), jax.vmap(_flat)(scores)

    def white_model(self, modes: _Modes) -> Callable:
        """The model in the coordinates' latents, without couplings."""
        return reparametrize(self.model, modes.centering, modes.reference)

    def potential(self, x: tuple, modes: _Modes) -> Array:
        """Potential energy at (eta, v)."""
        return potential_energy(self.white_model(modes), self.args, self.kwargs, x[0] | _latents(x[1]))

    def information_product(self, x: tuple, modes: _Modes, key: Array) -> Callable:
        """Products with the Fisher information about the coefficients v at x."""
        eta, v = x
        return fisher_information(self.white_model(modes), self.args, self.kwargs, v, key, lambda v: eta | _latents(v))

    def eigenpairs(self, x: tuple, modes: _Modes, key: Array) -> tuple[Float[Array, "r"], Float[Array, "n r"]]:
        """Of that information: all that few data have."""
        flat, _ = ravel_pytree(x[1])
        key_data, key_start = jax.random.split(key)
        rank = min(self.count, flat.size)
        return randomized_eigenpairs(self.information_product(x, modes, key_data), flat, rank, key_start)

    def solve(self, rows: Float[Array, "rows n"], x: tuple, modes: _Modes, key: Array, tolerance: float) -> Array:
        """``(I + F)^-1`` of each row, by conjugate gradients preconditioned by the diagonal."""
        product = self.information_product(x, modes, key)

        @jax.jit  # conjugate gradients trace it five times
        def multiply(rows: Array) -> Array:
            return jax.vmap(lambda row: row + product(row))(rows)

        precision = ravel_pytree(jax.tree.map(lambda s: s**2, modes.spread))[0]
        return cg(multiply, rows, tol=tolerance, maxiter=MAX_STEPS, M=lambda rows: rows * precision)[0]


def _values_that_differ(sites: list[str], key: Array) -> Callable:
    """Values of latent sites: drawn, in the support, for those named, and at rest for the others."""

    def value(site: dict[str, Any]) -> Any:
        if site["type"] != "sample" or site["is_observed"]:
            return None
        if site["name"] not in sites:
            return resting_value(site)
        transform = biject_to(site["fn"].support)
        shape = transform.inverse_shape(site["fn"].shape())
        return transform(jax.random.normal(jax.random.fold_in(key, sites.index(site["name"])), shape))

    return value


def _flat(tree: dict[str, Array]) -> Array:
    return ravel_pytree(tree)[0]


def _latents(values: dict[str, Array]) -> dict[str, Array]:
    return {f"{name}{LATENT}": value for name, value in values.items()}


def _eliminated(fields: list[str], gain: dict, products: dict) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """Precision matrices with diagonal 1 + gain and off-diagonal ``products``, one a coefficient, factorized.

    Returns the precision of each field's coefficients given the fields before it and the later ones integrated out, and
    by later field the factors of the earlier ones in its conditional mean.
    """
    matrix = dict(products) | {(j, j): 1 + gain[j] for j in fields}
    coupling: dict[str, dict[str, Array]] = {name: {} for name in fields}
    for j in reversed(fields):
        before = [i for i in fields if (j, i) in matrix and i != j]
        for i in before:
            coupling[j][i] = -matrix[j, i] / matrix[j, j]
        for a in before:
            for b in before:
                if (a, b) in matrix:
                    change = matrix[j, a] * matrix[j, b] / matrix[j, j]
                    matrix[a, b] = matrix[a, b] - change
    return {j: jnp.maximum(matrix[j, j], 1.0) for j in fields}, coupling
