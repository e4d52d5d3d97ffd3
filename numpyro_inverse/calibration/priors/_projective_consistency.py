"""Do priors on a coarse and on a fine domain belong to one law on functions?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import Distribution, LowRankMultivariateNormal, MultivariateNormal, Normal

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_fraction,
    check_key,
    check_positive_number,
    describe,
)
from numpyro_inverse.calibration._arguments import returned
from numpyro_inverse.calibration.two_sample import SignificanceTest, mmd
from numpyro_inverse.distributions import restrict_noise
from numpyro_inverse.distributions._reparametrized import has_amplitudes, has_base, unwrapped
from numpyro_inverse.domains import l2_projection

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LARGEST = 4096  # values on the fine domain up to which covariances are compared
LEAST_ORDER = 0.25  # below which a gap does not count as falling
ROUNDING = 1e4  # times the precision
COLUMNS = 512  # statistics that are compared together
NUM_PERMUTATIONS = 9999  # p-values of several pairs and two tests, joined, get below 1e-3


@dataclass(frozen=True)
class ProjectiveConsistency:
    r"""How far projections of a prior on fine domains are from the prior on coarse ones.

    Attributes:
        label: ``"exact"``: no gap beyond rounding; ``"asymptotic"``: gaps that fall with the spacing;
            ``"inconsistent"``: gaps that do not; ``"inexact"``: a gap of a single pair of domains, which shows no
            order; ``"not distinguished"``: draws of both that the two-sample test cannot tell apart.
        order: p of a gap like :math:`h^p`, or None where there are no two gaps, or only draws.
        evidence: ``"covariance"``, ``"pathwise"`` or ``"two-sample"``.
        spacings: h of the coarse domain of each pair, :math:`(|D| / n)^{1/d}`.
        gaps: of each pair, relative; see :func:`check_projective_consistency`.
        p_values: of the tests of draws, shared among tests and pairs by Bonferroni, or None.
        tolerance: up to which a gap is rounding.
    """

    label: str
    order: float | None
    evidence: str
    spacings: Float[np.ndarray, " pairs"] = field(repr=False)
    gaps: Float[np.ndarray, " pairs"]
    p_values: Float[np.ndarray, " pairs"] | None = field(repr=False)
    tolerance: float

    def verdict(self, level: float = 0.05) -> str:
        """One sentence; ``level`` is not used, for the label is decided already."""
        kind = {
            "covariance": "largest relative difference of covariances and means",
            "pathwise": "root mean square relative difference of fields with one latent",
            "two-sample": "maximum mean discrepancy of draws",
        }[self.evidence]
        by = f"{kind} {', '.join(f'{gap:.2g}' for gap in self.gaps)}"
        if self.p_values is not None:
            by += f", p = {', '.join(f'{p:.2g}' for p in self.p_values)}"
        what = {
            "exact": "The priors are one law on functions, exactly",
            "asymptotic": "The priors approach one law on functions"
            + ("" if self.order is None else f", with order {self.order:.2g}"),
            "inconsistent": "The priors do not approach one law on functions on these domains",
            "inexact": "The priors are not projections of each other (give finer domains to see an order)",
            "not distinguished": "The priors could not be told from projections of each other",
        }[self.label]
        return f"{what}: {by}."

    @property
    def table(self) -> pd.DataFrame:
        """Spacing and gap of each pair of domains."""
        import pandas as pd

        columns = {"spacing": self.spacings, "gap": self.gaps}
        return pd.DataFrame(columns if self.p_values is None else columns | {"p": self.p_values})

    def plot(self) -> Figure:
        """The gap against the spacing."""
        from matplotlib import pyplot as plt

        figure, ax = plt.subplots(figsize=(4.2, 2.8), layout="constrained")
        ax.loglog(self.spacings, np.maximum(self.gaps, np.finfo(float).tiny), "o-", ms=4)
        ax.axhline(self.tolerance, color="0.4", lw=0.8, ls="--", label="rounding")
        ax.set_xlabel("spacing of the coarse domain")
        ax.set_ylabel("gap")
        ax.set_title(self.label if self.order is None else f"{self.label}, order {self.order:.2g}", fontsize=9)
        ax.legend(frameon=False, fontsize=8)
        return figure


def check_projective_consistency(
    prior: Callable[[Any], Distribution],
    coarse: Any,
    fine: Any,
    *finer: Any,
    rng_key: Key[Array, ""],
    projection: Callable[[Any, Any], Any] = l2_projection,
    num_draws: int = 400,
    tolerance: float | None = None,
    level: float = 1e-3,
) -> ProjectiveConsistency:
    r"""Is :math:`\Pi_\# \mu_h = \mu_H`: is the prior on a coarse domain the projection of that on a fine one?

    If so for all domains, the priors are one law on functions, seen at several resolutions, and refinement changes
    nothing but resolution. Each domain is compared with the next, by what shows most:

    - **covariance**, of Gaussian laws (of up to 4096 values): :math:`A C_h A^{\mathsf T} = C_H` and
      :math:`A m_h = m_H`; the gap is the largest difference over the largest variance, or standard deviation;
    - **pathwise**, of laws with one latent, carried from one domain to the next by
      :func:`~numpyro_inverse.distributions.restrict_noise`: :math:`\Pi u_h(z) = u_H(z)`; the gap is the root mean
      square of the difference over that of :math:`u_H - E u_H`. A pathwise gap that does not fall is no gap of laws,
      which are then compared by draws;
    - **two-sample**, of other laws: the maximum mean discrepancy of draws of one and the next, both projected to the
      coarsest domain, with its permutation test; where there is one latent, also the means, the variances and the
      variances of differences between neighbors, of pairs with the same latent, whose p-value joins by Bonferroni. It
      shows no order: a family is asymptotic if gaps are seen, but none between the two finest domains.

    A family is exact if no gap is larger than rounding; asymptotic, with the order that a straight line through
    :math:`\log` gap against :math:`\log h` has, if gaps fall from each pair to the next with an order of at least 1/4
    (the pairs' factors of refinement should be the same); else inconsistent, as far as these domains show: begin with
    one that resolves the field, of some spacings a range.

    What is exact depends on the projection. Averages and other L2 projections, the default, ask what the law says of
    integrals, and see white noise of a standard deviation that does not know the cell; values at shared points
    (:func:`~numpyro_inverse.domains.point_values`) do not, for independent values are consistent among themselves. A
    law of point values is exact by these and differs from its averages by the variation within a cell. The Galerkin
    field on a mesh is exact by its Ritz projection, ``lambda coarse, fine: prior(fine).ritz_projection(coarse)``.

    >>> def prior(grid):
    ...     return dist.Normal(0.0, 1.0).expand(grid.shape).to_event(1)
    >>> grids = (ni.domains.Grid(n) for n in (8, 16, 32))
    >>> check_projective_consistency(prior, *grids, rng_key=jax.random.key(0)).label
    'inconsistent'

    Args:
        prior: the law on a domain, without batch shape.
        coarse: a domain.
        fine: a refinement of it.
        *finer: refinements of that, one after the other; two pairs at least are needed to see an order.
        rng_key: a JAX random key.
        projection: coarse and fine domain to a map of a fine field to a coarse one: a linear operator, or any function
            of one array that ``jax.vmap`` takes.
        num_draws: fields of each law, where draws are compared.
        tolerance: up to which a gap is rounding; default: 1e4 times the precision of the fields.
        level: of the two-sample tests, together.

    Raises:
        TypeError: ``prior`` or ``projection`` is no function, or ``prior`` returns no distribution; a domain is none.
        ValueError: a batch shape, or a discrete law; a projection that does not return arrays of the coarse law's
            shape; numbers that are not finite; ``num_draws`` below 10, a tolerance that is not positive.

    References:
        Stuart, Acta Numerica 19 (2010) 451-559, section 2; Lassas, Saksman & Siltanen, Inverse Problems and Imaging 3
        (2009) 87-122 (discretization invariance).
    """
    name = "check_projective_consistency"
    for argument, function in (("prior", prior), ("projection", projection)):
        check_callable(name, argument, function)
    check_key(name, "rng_key", rng_key)
    num_draws = check_count(name, "num_draws", num_draws, 10)
    level = check_fraction(name, "level", level)
    tolerance = None if tolerance is None else check_positive_number(name, "tolerance", tolerance)
    domains = (coarse, fine, *finer)
    for argument, domain in zip(("coarse", "fine", *("finer",) * len(finer)), domains, strict=True):
        if isinstance(domain, type) or not hasattr(domain, "weights"):
            raise TypeError(f"{name}: `{argument}` must be a domain, such as a Grid or a Mesh; got {describe(domain)}.")
    laws = [_law(name, prior(domain)) for domain in domains]
    pairs = [
        (laws[i], laws[i + 1], _projected(name, projection(*two), laws[i + 1], laws[i]))
        for i, two in enumerate(pairwise(domains))
    ]
    spacings = np.asarray([_spacing(domain) for domain in domains[:-1]])
    precision = max(float(jnp.finfo(_dtype(law)).eps) for law in laws)
    limit = ROUNDING * precision if tolerance is None else tolerance
    keys = jax.random.split(rng_key, len(pairs))

    moments = [found for law in laws if (found := _moments(law)) is not None]
    if len(moments) == len(laws):
        between = zip(pairs, pairwise(moments), strict=True)
        gaps = _finite(name, [_of_moments(*two, f.event_shape, project) for (_, f, project), two in between])
        return _report("covariance", spacings, gaps, limit)
    shared = None
    if all(_coupled(c, f) for c, f, _ in pairs):
        # One key, so that a latent that is the same on every domain has the same draws for each pair.
        shared = [_both(*pair, rng_key, num_draws) for pair in pairs]
        found = _report("pathwise", spacings, _finite(name, [_pathwise(*two) for two in shared]), limit)
        if found.label in ("exact", "asymptotic"):
            return found
    tests = _by_draws(laws, [project for _, _, project in pairs], keys, num_draws)
    p_values = np.asarray([test.p_value for test in tests])
    if shared is not None:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[0])))
        p_values = 2 * np.minimum(p_values, [_paired(*two, rng) for two in shared])
    return _report_of_tests(spacings, tests, p_values, limit, level)


def _report(evidence: str, spacings: np.ndarray, gaps: np.ndarray, limit: float) -> ProjectiveConsistency:
    order = None
    if len(gaps) > 1 and np.all(gaps > limit):
        order = float(np.polyfit(np.log(spacings), np.log(gaps), 1)[0])
    falls = bool(np.all(np.diff(gaps) < 0)) and (order is None or order >= LEAST_ORDER)
    if np.all(gaps <= limit):
        label = "exact"
    elif len(gaps) == 1:
        label = "inexact"
    else:
        label = "asymptotic" if falls else "inconsistent"
    return ProjectiveConsistency(label, order, evidence, spacings, gaps, None, limit)


def _report_of_tests(
    spacings: np.ndarray, tests: list[SignificanceTest], p_values: np.ndarray, limit: float, level: float
) -> ProjectiveConsistency:
    gaps = np.asarray([max(test.statistic, 0.0) ** 0.5 for test in tests])
    p_values = np.minimum(1.0, len(tests) * p_values)
    seen = p_values <= level
    if not np.any(seen):
        label = "not distinguished"
    elif len(tests) == 1:
        label = "inexact"
    else:
        label = "inconsistent" if seen[-1] else "asymptotic"
    return ProjectiveConsistency(label, None, "two-sample", spacings, gaps, p_values, limit)


def _law(name: str, law: Any) -> Distribution:
    if not isinstance(law, Distribution):
        raise TypeError(f"{name}: `prior` must return a NumPyro distribution; got {type(law).__name__}.")
    if law.batch_shape:
        raise ValueError(f"{name}: `prior` returned a law of batch shape {law.batch_shape}; use `.to_event()`.")
    if law.support.is_discrete:
        raise ValueError(
            f"{name}: `prior` returned a discrete law, {type(unwrapped(law)).__name__}, not one on functions."
        )
    return law


def _projected(name: str, project: Any, fine: Distribution, coarse: Distribution) -> Callable[[Array], Array]:
    """The projection mapped over a leading axis."""
    check_callable(name, "projection(coarse, fine)", project)
    given = jax.ShapeDtypeStruct(fine.event_shape, _dtype(fine))
    found = returned(name, "projection(coarse, fine)(u)", project, given)
    if found.shape != coarse.event_shape:
        raise ValueError(
            f"{name}: `projection` must take fields of shape {fine.event_shape} to fields of shape "
            f"{coarse.event_shape}; got {found.shape}."
        )
    return jax.jit(jax.vmap(project))


def _spacing(domain: Any) -> float:
    d = getattr(domain, "manifold_dim", domain.ndim)
    return float((np.sum(np.asarray(domain.weights)) / domain.size) ** (1 / d))


def _dtype(law: Distribution) -> Any:
    return jax.eval_shape(law.sample, jax.random.key(0)).dtype


def _moments(law: Distribution) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and covariance of a Gaussian law, flat; None of others."""
    core, n = unwrapped(law), prod(law.event_shape)
    gaussian = isinstance(core, Normal | MultivariateNormal | LowRankMultivariateNormal)
    mapped = _is_one(law) and isinstance(unwrapped(core.base_dist), Normal)  # type: ignore[attr-defined]
    if n > LARGEST or not (gaussian or (mapped and (has_amplitudes(core) or hasattr(type(core), "covariance_matrix")))):
        return None
    mean = np.asarray(law.mean, float).reshape(n)
    if isinstance(core, Normal):
        return mean, np.diag(np.asarray(law.variance, float).reshape(n))
    if hasattr(type(core), "covariance_matrix"):
        covariance = np.asarray(jax.jit(lambda law: law.covariance_matrix)(core), float)
        return (mean, covariance) if covariance.shape == (n, n) else None
    amplitudes: Any = core.amplitudes
    rows = jax.vmap(core.from_coefficients)(jnp.diag(amplitudes.ravel()).reshape(-1, *amplitudes.shape))
    root = np.asarray(rows, float).reshape(-1, n) - mean
    return mean, root.T @ root


def _of_moments(
    coarse: tuple[np.ndarray, np.ndarray],
    fine: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, ...],
    project: Callable[[Array], Array],
) -> float:
    def apply(rows: np.ndarray) -> np.ndarray:
        return np.asarray(project(jnp.asarray(rows).reshape(-1, *shape)), float).reshape(len(rows), -1)

    (mean, covariance), (finer_mean, finer) = coarse, fine
    root = np.sqrt(np.max(np.diag(covariance)))
    of_covariance = np.max(np.abs(apply(apply(finer).T) - covariance)) / root**2
    return float(max(of_covariance, np.max(np.abs(apply(finer_mean[None])[0] - mean)) / root))


def _is_one(law: Distribution) -> bool:
    """Whether the law is a map of a base, and not several of them by ``expand``."""
    return has_base(law) and unwrapped(law).event_shape == law.event_shape


def _coupled(coarse: Distribution, fine: Distribution) -> bool:
    """Whether the noise of the fine law says what that of the coarse one is."""
    if not (_is_one(coarse) and _is_one(fine)):
        return False
    inner, outer = unwrapped(fine), unwrapped(coarse)
    return hasattr(inner, "restrict_noise") or inner.base_dist.event_shape == outer.base_dist.event_shape  # type: ignore[attr-defined]


def _both(
    coarse: Distribution, fine: Distribution, project: Callable[[Array], Array], key: Array, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Projected draws of the fine law and draws of the coarse one with the same latents, flat."""
    inner, outer = unwrapped(fine), unwrapped(coarse)

    @jax.jit
    def draw(z: Array) -> tuple[Array, Array]:
        return inner.from_base(z), outer.from_base(restrict_noise(inner, outer, z))  # type: ignore[attr-defined]

    finer, there = draw(inner.base_dist.sample(key, (num_draws,)))  # type: ignore[attr-defined]
    projected = project(finer.reshape(num_draws, *fine.event_shape))
    return np.asarray(projected, float).reshape(num_draws, -1), np.asarray(there, float).reshape(num_draws, -1)


def _pathwise(projected: np.ndarray, there: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        spread = np.mean((there - there.mean(axis=0)) ** 2)
        return float(np.sqrt(np.mean((projected - there) ** 2) / spread))


def _paired(projected: np.ndarray, there: np.ndarray, rng: np.random.Generator) -> float:
    """p-value of equal means, variances and variances of differences between neighbors, by pairs with one latent.

    The largest self-normalized sum of differences, against those with random signs: what the latent explains of both
    cancels, so that a scale that is off by a few percent is seen in hundreds of draws.
    """
    a, b = projected - there.mean(axis=0), there - there.mean(axis=0)
    differences = np.concatenate([a - b, a**2 - b**2, np.diff(a) ** 2 - np.diff(b) ** 2], axis=1)
    length = np.linalg.norm(differences, axis=0)
    unit = differences[:, length > 0] / length[length > 0]
    signs = np.concatenate([np.ones((1, len(unit))), rng.choice([-1.0, 1.0], (NUM_PERMUTATIONS, len(unit)))])
    largest = np.zeros(len(signs))
    for start in range(0, unit.shape[1], COLUMNS):
        block = np.abs(signs @ unit[:, start : start + COLUMNS])
        largest = np.maximum(largest, np.max(block, axis=1))
    return float(np.mean(largest >= largest[0]))


def _by_draws(
    laws: list[Distribution], projections: list[Callable[[Array], Array]], keys: Array, num_draws: int
) -> list[SignificanceTest]:
    """Each law against the next, both projected to the coarsest domain, where all have the same dimension."""

    def coarsest(i: int, key: Array) -> Array:
        draws = laws[i].sample(key, (num_draws,))
        for project in reversed(projections[:i]):
            draws = project(draws)
        return draws

    tests = []
    for i, key in enumerate(keys):
        one, two, labels = jax.random.split(key, 3)
        tests.append(mmd(coarsest(i + 1, one), coarsest(i, two), labels, num_permutations=NUM_PERMUTATIONS))
    return tests


def _finite(name: str, gaps: list[float]) -> np.ndarray:
    if not np.all(np.isfinite(gaps)):
        raise ValueError(
            f"{name}: the laws of `prior` or their projections hold numbers that are not finite; gaps {gaps}."
        )
    return np.asarray(gaps)
