"""How far a field is from everything that a generator can make."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from numpyro.distributions import biject_to

from numpyro_inverse._checks import check_count, check_fraction, check_key, describe
from numpyro_inverse.calibration.priors._latents import base_of, event_rows
from numpyro_inverse.distributions import Pushforward

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORY = 10  # pairs of steps and gradients
TRIALS = 15  # of one line search


@dataclass(frozen=True)
class ManifoldDistance:
    r"""Distances :math:`\min_z \operatorname{rms}(u - G(z))`, with those of held-out examples beside them.

    Attributes:
        distance: one per u, in the unit of u.
        held_out_distance: one per held-out example.
        quantile: per u, (1 + number of held-out distances at or above its own) / (1 + their number): uniform, up to
            ties, where u is an example like the held-out ones, and small where it is farther than they are.
        latent: the z found for each u.
        nearest: G(z) there.
        agreement: per u, the share of starts that came within one per cent of the best; where it is low, more starts
            may come closer, for a distance found by search is an upper bound.
    """

    distance: Float[np.ndarray, " n"]
    held_out_distance: Float[np.ndarray, " m"]
    quantile: Float[np.ndarray, " n"]
    latent: Float[np.ndarray, "n *latent"] = field(repr=False)
    nearest: Float[np.ndarray, "n *event"] = field(repr=False)
    agreement: Float[np.ndarray, " n"] = field(repr=False)

    def verdict(self, level: float = 0.05) -> str:
        """Two sentences."""
        level = check_fraction("ManifoldDistance.verdict", "level", level)
        excluded = "The prior excludes what is off the range: its intervals cannot cover such a truth."
        usual = f"held-out examples are at {np.median(self.held_out_distance):.3g} (median)"
        if len(self.distance) == 1:
            outcome = "farther than they" if self.quantile[0] <= level else "no farther than they"
            return (
                f"The field is {self.distance[0]:.3g} (rms) from the generator's range; {usual}: {outcome} at level "
                f"{level:g} (p = {self.quantile[0]:.3g}). {excluded}"
            )
        far = int(np.sum(self.quantile <= level))
        return (
            f"The fields are {np.median(self.distance):.3g} (median rms) from the generator's range; {usual}: {far} of "
            f"{len(self.distance)} are farther at level {level:g}, {level * len(self.distance):.3g} expected. "
            f"{excluded}"
        )

    def plot(self) -> Figure:
        """The held-out distances with those of u among them."""
        from matplotlib import pyplot as plt

        figure, ax = plt.subplots(figsize=(4.5, 2.8), layout="constrained")
        every = np.concatenate([self.distance, self.held_out_distance])
        bins = np.linspace(np.min(every), np.max(every) * (1 + 1e-6) + 1e-12, 31).tolist()
        ax.hist(self.held_out_distance, bins=bins, density=True, color="0.8", label="held out")
        if len(self.distance) > 10:
            ax.hist(self.distance, bins=bins, density=True, histtype="step", color="C3", label="u")
        else:
            for i, value in enumerate(self.distance):
                ax.axvline(value, color="C3", lw=1, label="u" if i == 0 else None)
        ax.set_xlabel("rms distance from the generator's range")
        ax.set_yticks([])
        ax.legend(frameon=False, fontsize=8)
        return figure


def manifold_distance(
    prior: Pushforward,
    u: Float[Array, "*n_and_event"],
    *,
    held_out: Float[Array, "m *event"],
    rng_key: Key[Array, ""],
    num_starts: int = 8,
    num_steps: int = 100,
    batch_size: int = 128,
) -> ManifoldDistance:
    r"""The distance of u from the range of a generator, beside that of held-out examples.

    .. math:: d(u) = \min_z \Bigl(\frac{1}{d} \sum_i (u_i - G(z)_i)^2\Bigr)^{1/2}

    A :class:`~numpyro_inverse.distributions.Pushforward` excludes everything at a positive distance, whatever the data.
    The minimum is over all z that the base allows, likely or not; whether z is likely is a question for
    :func:`latent_shift`. It is found by L-BFGS from ``num_starts`` draws of the base, so it is an upper bound. Held-out
    examples are searched in the same way, and so ``quantile`` is a p-value for "u is an example like these" even where
    a search ends in a local minimum. Posterior draws under a ``Pushforward`` are on the range by construction; ask this
    of truths, of posterior means, and of draws under richer priors.

    Args:
        prior: the generator's law.
        u: one event, or several along the first axis.
        held_out: examples that took no part in training.
        rng_key: a JAX random key.
        num_starts: per event.
        num_steps: of L-BFGS at most.
        batch_size: searches at a time.

    Raises:
        TypeError: ``prior`` is not a ``Pushforward`` (an invertible flow reaches everything).
        ValueError: a residual, shapes other than the prior's event, fewer than 10 held-out examples, numbers that are
            not finite, no start, step or batch, a generator that is not finite from any start.

    References:
        Bora, Jalal, Price & Dimakis, ICML 2017 (representation error); Liu & Nocedal, Mathematical
        Programming 45 (1989) 503-528 (L-BFGS).
    """
    name = "manifold_distance"
    if not isinstance(prior, Pushforward):
        raise TypeError(
            f"{name}: `prior` must be a `Pushforward`, the law of a generator; got {describe(prior)}. A prior "
            "with a density reaches every field, at distance 0."
        )
    if prior.residual is not None:
        raise ValueError(
            f"{name}: `prior` has a residual, with which every field is reached; give the `Pushforward` without its "
            "residual."
        )
    check_key(name, "rng_key", rng_key)
    num_starts = check_count(name, "num_starts", num_starts)
    num_steps = check_count(name, "num_steps", num_steps)
    batch_size = check_count(name, "batch_size", batch_size)
    base = base_of(name, prior)
    rows = event_rows(name, "u", u, prior)
    others = event_rows(name, "held_out", held_out, prior, minimum=10)
    every = jnp.asarray(np.concatenate([rows, others]))
    scale = float(np.mean((others - np.mean(others, axis=0)) ** 2)) or 1.0

    bijection = biject_to(base.support)
    starts = bijection.inv(base.sample(rng_key, (len(every) * num_starts,)))
    batch_size = min(batch_size, len(starts))
    w, squares = _search(prior, every, starts, scale, num_starts, num_steps, batch_size)
    distances = np.sqrt(np.asarray(squares, float)).reshape(len(every), num_starts)
    best = np.argmin(distances, axis=1)
    found = distances[np.arange(len(every)), best]
    if not np.all(np.isfinite(found)):
        raise ValueError(
            f"{name}: the generator of `prior` is not finite from any start for {np.sum(~np.isfinite(found))} events."
        )
    n = len(rows)
    w = w.reshape(len(every), num_starts, *w.shape[1:])[np.arange(n), best[:n]]
    latent = bijection(w)
    distance, held = found[:n], found[n:]
    slack = 1e-6 * np.std(held)
    close = distances[:n] <= 1.01 * distance[:, None] + 1e-3 * np.sqrt(scale)
    return ManifoldDistance(
        distance,
        held,
        (1 + np.sum(held >= distance[:, None] - slack, axis=1)) / (1 + len(held)),
        np.asarray(latent),
        np.asarray(prior.from_base(latent)),
        np.mean(close, axis=1),
    )


@partial(jax.jit, static_argnames=("num_starts", "num_steps", "batch_size"))
def _search(
    prior: Pushforward,
    rows: Float[Array, "n *event"],
    starts: Float[Array, "n_starts *latent"],
    scale: float,
    num_starts: int,
    num_steps: int,
    batch_size: int,
) -> tuple[Float[Array, "n_starts *latent"], Float[Array, " n_starts"]]:
    """The best point of each search, and its mean square."""
    solver = optax.lbfgs(
        memory_size=MEMORY, linesearch=optax.scale_by_zoom_linesearch(TRIALS, initial_guess_strategy="one")
    )
    bijection = biject_to(prior.base_dist.support)
    tolerance = 0.1 * jnp.sqrt(jnp.finfo(rows.dtype).eps)

    def one(argument):
        target, start = argument

        def loss(w):
            return jnp.mean((rows[target] - prior.generator(bijection(w))) ** 2) / scale

        value_and_grad = optax.value_and_grad_from_state(loss)

        def go_on(carry):
            step, _, _, _, _, norm = carry
            return (step < num_steps) & (norm > tolerance)

        def advance(carry):
            step, w, state, best_w, best, _ = carry
            value, grad = value_and_grad(w, state=state)
            better = value < best
            best_w, best = jnp.where(better, w, best_w), jnp.where(better, value, best)
            updates, state = solver.update(grad, state, w, value=value, grad=grad, value_fn=loss)
            return step + 1, optax.apply_updates(w, updates), state, best_w, best, jnp.linalg.norm(jnp.ravel(grad))

        infinite = jnp.full((), jnp.inf, rows.dtype)
        carry = (0, start, solver.init(start), start, infinite, infinite)
        _, w, _, best_w, best, _ = jax.lax.while_loop(go_on, advance, carry)
        last = loss(w)
        better = last < best
        return jnp.where(better, w, best_w), jnp.where(better, last, best) * scale

    # Whole batches: `lax.map` compiles the search a second time for a remainder.
    count = len(starts)
    order = jnp.arange(count + -count % batch_size) % count
    w, squares = jax.lax.map(one, (order // num_starts, starts[order]), batch_size=batch_size)
    return w[:count], squares[:count]
