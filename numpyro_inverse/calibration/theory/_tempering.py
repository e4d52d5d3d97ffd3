"""The temperature at which noisy gradient descent really samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree
from numpyro.infer import MCMC

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_finite,
    check_key,
    check_positive_number,
    check_static,
)
from numpyro_inverse.calibration._arguments import returned
from numpyro_inverse.infer import TemperedSGLD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_HESSIAN = 1024


@dataclass(frozen=True)
class Tempering:
    r"""Declared and measured temperatures.

    Attributes:
        declared: :math:`\tau = s^2 / (2 \eta)`.
        measured: :math:`\widehat T = \frac1d E\,(x - \bar x)^T \nabla f(x)`, the temperature of the chain.
        standard_error: of ``measured``, from the effective sample size.
        predicted: :math:`\frac1d \sum_i \tau / (1 - \eta h_i / 2)` over the eigenvalues h of the Hessian at the mean:
            exact for a quadratic.
        by_block: the measured virial, averaged over blocks of the chains, for the plot.
        step_size: :math:`\eta`.
    """

    declared: float
    measured: float
    standard_error: float
    predicted: float
    by_block: Float[np.ndarray, "chains blocks"]
    step_size: float

    @property
    def z_score(self) -> float:
        """(measured - predicted) over the standard error."""
        return (self.measured - self.predicted) / self.standard_error

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        return (
            f"Tempering: declared temperature {self.declared:.4g}, sampled {self.measured:.4g} +- "
            f"{self.standard_error:.2g}, predicted at this step {self.predicted:.4g}."
        )

    def plot(self) -> Figure:
        """The virial along the chains, with the declared and predicted temperature."""
        from matplotlib import pyplot as plt

        figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
        ax.plot(self.by_block.T, color="0.7", lw=0.7)
        ax.axhline(self.measured, color="C0", label="measured")
        ax.axhline(self.predicted, color="C1", ls="--", label="predicted at this step")
        ax.axhline(self.declared, color="C3", ls=":", label=r"declared, $s^2 / 2\eta$")
        ax.set(xlabel="block of the chain", ylabel="temperature")
        ax.legend(frameon=False, fontsize=8)
        return figure


def measure_temperature(
    potential: Callable[[PyTree], Float[Array, ""]],
    start: PyTree,
    rng_key: Key[Array, ""],
    *,
    step_size: float,
    noise_scale: float,
    num_warmup: int = 1000,
    num_samples: int = 4000,
    num_chains: int = 4,
) -> Tempering:
    r"""Run :math:`x^+ = x - \eta \nabla f(x) + s z` and measure its temperature.

    For :math:`p \propto e^{-f / T}` integration by parts gives :math:`E\,(x - c)^T \nabla f(x) = d\,T` for every c, so
    the temperature is read off the chain without knowing the law. At a finite step the chain is hotter than
    :math:`\tau = s^2 / (2\eta)`: a mode with curvature h by :math:`1 / (1 - \eta h / 2)`.

    Args:
        potential: f, minus a log density, such as that of a posterior under a learned prior.
        start: the first point, an array or a pytree.
        rng_key: a JAX random key.
        step_size: :math:`\eta`.
        noise_scale: s.
        num_warmup: steps that are dropped.
        num_samples: steps that are kept, per chain.
        num_chains: started at ``start`` plus noise of standard deviation s.

    Raises:
        TypeError: ``potential`` is no function, or does not return one real number; ``start`` holds no real numbers.
        ValueError: a parameter that is not positive; more than 1024 dimensions; :math:`\eta h \ge 2` for a curvature at
            the mean, where the prediction has no meaning.
        RuntimeError: the chain leaves the finite numbers.
    """
    where = "measure_temperature"
    check_callable(where, "potential", potential, "a function of one point")
    check_key(where, "rng_key", rng_key)
    step_size = check_positive_number(where, "step_size", step_size)
    noise_scale = check_positive_number(where, "noise_scale", noise_scale)
    num_warmup = check_count(where, "num_warmup", num_warmup, 0)
    num_samples = check_count(where, "num_samples", num_samples, 4)
    num_chains = check_count(where, "num_chains", num_chains)
    for part in jax.tree.leaves(check_static(where, "start", start)) or [start]:
        check_finite(where, "start", part)
    flat, unravel = ravel_pytree(start)
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise TypeError(f"{where}: `start` must be floating-point numbers; got {flat.dtype}.")
    if not 0 < flat.size <= LARGEST_HESSIAN:
        raise ValueError(
            f"{where}: `start` must have 1 to {LARGEST_HESSIAN} numbers, for the prediction needs the Hessian; got "
            f"{flat.size}."
        )

    def energy(x: Array) -> Array:
        return potential(unravel(x))

    found = returned(where, "potential(x)", energy, flat)
    if found.shape != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"{where}: `potential` must return one real number; got shape {found.shape} of {found.dtype}.")
    key_start, key_run = jax.random.split(rng_key)
    declared = noise_scale**2 / (2 * step_size)
    kernel = TemperedSGLD(potential_fn=energy, step_size=step_size, temperature=declared)
    options: dict[str, Any] = {"num_chains": num_chains, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, **options)
    first = flat + noise_scale * jax.random.normal(key_start, (num_chains, flat.size), flat.dtype)
    mcmc.run(key_run, init_params=first if num_chains > 1 else first[0])
    draws = mcmc.get_samples(group_by_chain=True)
    centre = jnp.mean(draws, axis=(0, 1))
    virial = np.asarray(_virial(jax.grad(energy), draws, centre), float)
    import arviz as az

    ess = float(az.ess(az.from_dict({"posterior": {"v": virial}}), method="mean")["v"])
    curvatures = np.linalg.eigvalsh(np.asarray(jax.jit(jax.hessian(energy))(centre), float))
    if np.any(step_size * curvatures >= 2):
        raise ValueError(
            f"measure_temperature: the largest curvature at the mean, {curvatures[-1]:.3g}, makes `step_size` = "
            f"{step_size:g} unstable; it must be below {2 / curvatures[-1]:.3g}."
        )
    blocks = max(1, num_samples // 50)
    return Tempering(
        declared=declared,
        measured=float(virial.mean()),
        standard_error=float(virial.std() / np.sqrt(ess)),
        predicted=float(np.mean(declared / (1 - step_size * curvatures / 2))),
        by_block=np.stack([part.mean(axis=1) for part in np.array_split(virial, blocks, axis=1)], axis=1),
        step_size=step_size,
    )


def _virial(gradient: Callable, draws: Float[Array, "chain draw d"], centre: Float[Array, " d"]) -> Array:
    def one(x: Array) -> Array:
        return (x - centre) @ gradient(x) / x.size

    return jax.jit(jax.vmap(lambda chain: jax.lax.map(one, chain, batch_size=512)))(draws)
