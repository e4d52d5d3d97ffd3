r"""Monte-Carlo dropout against the exact posterior of a linear-Gaussian problem.

Masks are Bernoulli with keep probability q, divided by q (inverted dropout), independent unless said otherwise; below
:math:`a = (1 - q) / q` is the variance of one mask. Output covariances are diagonal only in special cases (output
dropout, DropConnect, or weights whose rows stay orthogonal when weighted by the input), although the masks' always are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_finite,
    check_fraction,
    check_instance,
    check_key,
    check_number,
    check_numeric,
    check_static,
)
from numpyro_inverse.calibration._arguments import returned
from numpyro_inverse.calibration.two_sample._significance import check_covariance

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def _mask_variance(where: str, argument: str, keep: float) -> float:
    keep = check_number(where, argument, keep)
    if not 0 < keep <= 1:
        raise ValueError(f"{where}: `{argument}`, the probability that a unit stays, must be in (0, 1]; got {keep}.")
    return (1 - keep) / keep


def _layers(where: str, y: ArrayLike, /, **weights: ArrayLike) -> list[Any]:
    """The input of a network and the weights that it goes through, first to last."""
    found = [np.asarray(check_finite(where, "y", check_static(where, "y", y)), float)]
    if found[0].ndim != 1:
        raise ValueError(f"{where}: `y` must be one vector; got shape {found[0].shape}.")
    units = f"number of `y`, {len(found[0])}"
    for name, weight in weights.items():
        w = np.asarray(check_finite(where, name, check_static(where, name, weight)), float)
        if w.ndim != 2 or w.shape[1] != len(found[-1]):
            raise ValueError(f"{where}: `{name}` must be a matrix with a column for each {units}; got shape {w.shape}.")
        found.append(w)
        units = f"row of `{name}`, {len(w)}"
    return found


def input_dropout_covariance(
    weight: Float[ArrayLike, "d m"], y: Float[ArrayLike, " m"], keep: float
) -> Float[np.ndarray, "d d"]:
    r"""Of :math:`W (m \odot y) / q`: :math:`a\, W \operatorname{diag}(y^2) W^T`."""
    where = "input_dropout_covariance"
    y, w = _layers(where, y, weight=weight)
    return _mask_variance(where, "keep", keep) * (w * y**2) @ w.T


def hidden_dropout_covariance(
    last: Float[ArrayLike, "d h"], first: Float[ArrayLike, "h m"], y: Float[ArrayLike, " m"], keep: float
) -> Float[np.ndarray, "d d"]:
    r"""Of :math:`W_2 (m \odot W_1 y) / q`: :math:`a\, W_2 \operatorname{diag}((W_1 y)^2) W_2^T`."""
    where = "hidden_dropout_covariance"
    y, w1, w2 = _layers(where, y, first=first, last=last)
    return _mask_variance(where, "keep", keep) * (w2 * (w1 @ y) ** 2) @ w2.T


def output_dropout_covariance(
    weight: Float[ArrayLike, "d m"], y: Float[ArrayLike, " m"], keep: float
) -> Float[np.ndarray, "d d"]:
    r"""Of :math:`m \odot (W y) / q`: :math:`a \operatorname{diag}((W y)^2)`, diagonal."""
    where = "output_dropout_covariance"
    y, w = _layers(where, y, weight=weight)
    return _mask_variance(where, "keep", keep) * np.diag((w @ y) ** 2)


def dropconnect_covariance(
    weight: Float[ArrayLike, "d m"], y: Float[ArrayLike, " m"], keep: float
) -> Float[np.ndarray, "d d"]:
    r"""Of :math:`(M \odot W) y / q`, one mask per weight: :math:`a \operatorname{diag}(W^{\odot 2} y^2)`, diagonal."""
    where = "dropconnect_covariance"
    y, w = _layers(where, y, weight=weight)
    return _mask_variance(where, "keep", keep) * np.diag(w**2 @ y**2)


def two_layer_dropout_covariance(
    last: Float[ArrayLike, "d h"],
    first: Float[ArrayLike, "h m"],
    y: Float[ArrayLike, " m"],
    keep_input: float,
    keep_hidden: float,
) -> Float[np.ndarray, "d d"]:
    r"""Of :math:`W_2 (m_2 \odot W_1 (m_1 \odot y) / q_1) / q_2`:

    .. math:: a_2 W_2 \operatorname{diag}\bigl((W_1 y)^2 + a_1 W_1^{\odot 2} y^2\bigr) W_2^T
        + a_1 W_2 W_1 \operatorname{diag}(y^2) W_1^T W_2^T.
    """
    where = "two_layer_dropout_covariance"
    y, w1, w2 = _layers(where, y, first=first, last=last)
    a1, a2 = _mask_variance(where, "keep_input", keep_input), _mask_variance(where, "keep_hidden", keep_hidden)
    second_moment = (w1 @ y) ** 2 + a1 * w1**2 @ y**2
    return a2 * (w2 * second_moment) @ w2.T + a1 * ((w2 @ w1) * y**2) @ (w2 @ w1).T


class DropoutDraws(NamedTuple):
    """Outputs of a network under random masks, with their mean and covariance."""

    draws: Float[np.ndarray, "n d"]
    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]


def mc_dropout(
    network: Callable[[Float[Array, " m"], Key[Array, ""]], Float[Array, " d"]],
    y: Float[Array, " m"],
    rng_key: Key[Array, ""],
    *,
    num_draws: int = 1000,
) -> DropoutDraws:
    """Predictive draws of a network with dropout left on (Gal & Ghahramani, ICML 2016).

    Args:
        network: ``(y, key) -> output``, its masks drawn from the key; an Equinox network whose ``Dropout`` layers are
            active fits.
        y: one input.
        rng_key: a JAX random key.
        num_draws: of the masks.

    Raises:
        ValueError: fewer than two draws; outputs that are not finite, or that do not vary (dropout is off).
        TypeError: ``network`` is no function or does not return one array of real numbers, ``y`` is no numbers.
    """
    where = "mc_dropout"
    check_key(where, "rng_key", rng_key)
    check_callable(where, "network", network, "a function of input and key")
    num_draws = check_count(where, "num_draws", num_draws, 2)
    for part in jax.tree.leaves(y) or [y]:
        check_numeric(where, "y", part)
    returned(where, "network(y, key)", lambda k: network(y, k), rng_key)
    outputs = jax.jit(jax.vmap(lambda k: network(y, k)))(jax.random.split(rng_key, num_draws))
    draws = np.asarray(outputs, float).reshape(num_draws, -1)
    if not np.all(np.isfinite(draws)):
        raise ValueError("mc_dropout: `network` returned numbers that are not finite for this `y`.")
    if np.all(draws == draws[:1]):
        raise ValueError(
            "mc_dropout: outputs of `network` do not depend on the key; switch dropout on (no inference mode)."
        )
    return DropoutDraws(draws, draws.mean(axis=0), np.atleast_2d(np.cov(draws.T)))


@dataclass(frozen=True)
class LinearProblem:
    r"""Data :math:`y = A x + \epsilon`, :math:`x \sim N(0, \Gamma_0)`, :math:`\epsilon \sim N(0, \Gamma_n)`.

    Raises:
        TypeError: what are no real numbers.
        ValueError: shapes that do not fit, numbers that are not finite; a covariance that is asymmetric or indefinite,
            or that of the data singular.
    """

    forward: Float[np.ndarray, "m d"]
    prior: Float[np.ndarray, "d d"]
    noise: Float[np.ndarray, "m m"]

    def __post_init__(self) -> None:
        where = "LinearProblem"
        for name in ("forward", "prior", "noise"):  # lists become arrays
            object.__setattr__(self, name, check_finite(where, name, check_static(where, name, getattr(self, name))))
        if np.ndim(self.forward) != 2 or not np.size(self.forward):
            raise ValueError(f"{where}: `forward` must be a matrix (m, d); got shape {np.shape(self.forward)}.")
        m, d = np.shape(self.forward)
        if np.shape(self.prior) != (d, d) or np.shape(self.noise) != (m, m):
            raise ValueError(
                f"LinearProblem: `forward` is ({m}, {d}), so `prior` must be ({d}, {d}) and `noise` ({m}, {m}); got "
                f"{np.shape(self.prior)} and {np.shape(self.noise)}."
            )
        for name in ("prior", "noise"):
            check_covariance(where, name, np.asarray(getattr(self, name), float), singular=True)
        if np.linalg.eigvalsh(np.asarray(self._data_covariance, float))[0] <= 0:
            raise ValueError(
                f"{where}: `noise` must be positive definite where `forward` and `prior` give the data no variance; "
                "the data's covariance is singular."
            )

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        r""":math:`\Gamma = (\Gamma_0^{-1} + A^T \Gamma_n^{-1} A)^{-1}`, whatever the data."""
        gain = self.prior @ self.forward.T @ np.linalg.inv(self._data_covariance)
        return self.prior - gain @ self.forward @ self.prior

    @property
    def mean_map(self) -> Float[np.ndarray, "d m"]:
        r"""W with posterior mean :math:`W y`: the best linear network, :math:`\Gamma A^T \Gamma_n^{-1}`."""
        return self.prior @ self.forward.T @ np.linalg.inv(self._data_covariance)

    def trained_map(self, keep: float) -> Float[np.ndarray, "d m"]:
        r"""What training *with* input dropout finds instead,
        :math:`C_{xy} (C_{yy} + a \operatorname{diag} C_{yy})^{-1}`: a ridge-type shrinkage, not the posterior mean.
        """
        c, a = self._data_covariance, _mask_variance("LinearProblem.trained_map", "keep", keep)
        return self.prior @ self.forward.T @ np.linalg.inv(c + a * np.diag(np.diagonal(c)))

    @property
    def null_space(self) -> Float[np.ndarray, "d k"]:
        """Orthonormal basis of the directions that the data do not see."""
        return scipy.linalg.null_space(self.forward)

    @property
    def _data_covariance(self) -> np.ndarray:
        return self.forward @ self.prior @ self.forward.T + self.noise


@dataclass(frozen=True)
class DropoutComparison:
    """Dropout covariances of the posterior-mean network beside the exact posterior covariance.

    Attributes:
        covariances: in closed form, by kind of dropout.
        monte_carlo: the same from random masks.
        exact: the posterior covariance.
        directions: its eigenvectors, columns, largest variance first.
        ratios: dropout over exact variance in each direction, by kind.
        null_ratios: the same for the directions :math:`\\Gamma^{-1} n` dual to the null space of A, where the prior's
            variance is kept: 0 for every dropout of inputs or of a linear network's hidden units.
        off_diagonal: share of the squared entries off the diagonal, by kind.
        doubled: trace for the data doubled over trace, by kind: 4, where the exact covariance's is 1.
    """

    covariances: dict[str, Float[np.ndarray, "d d"]]
    monte_carlo: dict[str, Float[np.ndarray, "d d"]]
    exact: Float[np.ndarray, "d d"]
    directions: Float[np.ndarray, "d d"]
    ratios: dict[str, Float[np.ndarray, " d"]]
    null_ratios: dict[str, Float[np.ndarray, " k"]]
    off_diagonal: dict[str, float]
    doubled: dict[str, float]

    @property
    def table(self) -> DataFrame:
        """One row per kind of dropout."""
        from pandas import DataFrame

        rows = {}
        for kind, ratio in self.ratios.items():
            rows[kind] = {
                "trace / exact": float(np.trace(self.covariances[kind]) / np.trace(self.exact)),
                "smallest ratio": float(ratio.min()),
                "largest ratio": float(ratio.max()),
                "within 20 %": float(np.mean(np.abs(ratio - 1) < 0.2)),
                "null space": float(np.max(self.null_ratios[kind], initial=0.0)),
                "off-diagonal share": self.off_diagonal[kind],
                "Cov(2y) / Cov(y)": self.doubled[kind],
                "Monte-Carlo error": _relative(self.monte_carlo[kind], self.covariances[kind]),
            }
        return DataFrame.from_dict(rows, orient="index")

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        best = max(self.ratios, key=lambda kind: np.mean(np.abs(self.ratios[kind] - 1) < 0.2))
        share = np.mean(np.abs(self.ratios[best] - 1) < 0.2)
        return (
            f"MC dropout: at best ({best}) {100 * share:.0f} % of {len(self.exact)} directions have the exact variance "
            "within 20 %; its covariance scales with the squared data, the exact one does not depend on them."
        )

    def plot(self) -> Figure:
        """Variance ratios by direction."""
        from matplotlib import pyplot as plt

        figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
        for kind, ratio in self.ratios.items():
            ax.plot(np.maximum(ratio, 1e-6), ".-", lw=0.6, ms=4, label=kind)
        ax.axhline(1, color="0.4", lw=0.8)
        ax.set(yscale="log", xlabel="direction, largest posterior variance first", ylabel="dropout / exact variance")
        ax.legend(frameon=False, fontsize=8)
        return figure


def dropout_vs_posterior(
    problem: LinearProblem, y: Float[Array, " m"], rng_key: Key[Array, ""], *, keep: float = 0.9, num_draws: int = 20000
) -> DropoutComparison:
    r"""What fraction of the posterior covariance Monte-Carlo dropout finds, direction by direction.

    The network is the exact posterior mean map W, so that dropout is all that can be wrong; the hidden layer of the
    two-layer form is :math:`W = W \cdot I` split as :math:`W_2 = W U`, :math:`W_1 = U^T` with the eigenvectors U of the
    data's covariance.

    Args:
        problem: the linear-Gaussian problem.
        y: data.
        rng_key: a JAX random key.
        keep: keep probability q.
        num_draws: masks of the Monte-Carlo covariances.

    Raises:
        TypeError: ``problem`` is no ``LinearProblem``.
        ValueError: data of another length; ``keep`` outside (0, 1); a posterior covariance that is singular.
    """
    where = "dropout_vs_posterior"
    check_instance(where, "problem", problem, LinearProblem, "a LinearProblem")
    check_key(where, "rng_key", rng_key)
    keep = check_fraction(where, "keep", keep)
    num_draws = check_count(where, "num_draws", num_draws, 2)
    y = np.asarray(check_finite(where, "y", y), float)
    if y.shape != (len(problem.forward),):
        raise ValueError(f"{where}: `y` must have shape ({len(problem.forward)},); got {y.shape}.")
    w = problem.mean_map
    _, u = np.linalg.eigh(problem._data_covariance)

    def closed(y: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "input": input_dropout_covariance(w, y, keep),
            "hidden": hidden_dropout_covariance(w @ u, u.T, y, keep),
            "output": output_dropout_covariance(w, y, keep),
            "DropConnect": dropconnect_covariance(w, y, keep),
        }

    def mask(k: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.bernoulli(k, keep, shape) / keep

    networks = {
        "input": lambda y, k: w @ (mask(k, y.shape) * y),
        "hidden": lambda y, k: (w @ u) @ (mask(k, y.shape) * (u.T @ y)),
        "output": lambda y, k: mask(k, w.shape[:1]) * (w @ y),
        "DropConnect": lambda y, k: (mask(k, w.shape) * w) @ y,
    }
    keys = jax.random.split(rng_key, len(networks))
    covariances = closed(y)
    exact = problem.covariance
    values, vectors = np.linalg.eigh(exact)
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[-1] <= 0:
        raise ValueError(
            f"{where}: `problem` must have a posterior covariance of full rank; its prior or noise has not."
        )
    dual = np.linalg.solve(exact, problem.null_space)
    return DropoutComparison(
        covariances=covariances,
        monte_carlo={
            kind: mc_dropout(network, jnp.asarray(y), k, num_draws=num_draws).covariance
            for k, (kind, network) in zip(keys, networks.items(), strict=True)
        },
        exact=exact,
        directions=vectors,
        ratios={kind: np.diagonal(vectors.T @ c @ vectors) / values for kind, c in covariances.items()},
        null_ratios={
            kind: np.diagonal(dual.T @ c @ dual) / np.diagonal(dual.T @ exact @ dual) for kind, c in covariances.items()
        },
        off_diagonal={kind: 1 - float(np.sum(np.diagonal(c) ** 2) / np.sum(c**2)) for kind, c in covariances.items()},
        doubled={kind: float(np.trace(c) / np.trace(covariances[kind])) for kind, c in closed(2 * y).items()},
    )


def _relative(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
