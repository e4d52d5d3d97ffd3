"""Which theorem says that a solver converges, with each of its hypotheses measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_finite, check_key, check_positive_number, check_static, show
from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.denoisers._denoiser import Denoise
from numpyro_inverse.solvers import _theorems as theorems
from numpyro_inverse.solvers._data_term import DataTerm
from numpyro_inverse.solvers._facts import Facts, count
from numpyro_inverse.solvers._proximal_gradient import ProximalGradientMap, pnp_fista, pnp_pgd
from numpyro_inverse.solvers._red import (
    REDGradientMap,
    REDIteration,
    REDProximalMap,
    red_gradient_descent,
    red_proximal_gradient,
)
from numpyro_inverse.solvers._splitting import (
    ADMMMap,
    DouglasRachfordMap,
    HalfQuadraticMap,
    pnp_admm,
    pnp_drs,
    pnp_hqs,
)
from numpyro_inverse.solvers._theorems import Theorem

HERE = "convergence_report"

# What a solver iterates, and its theorems; a map stands for its averaged iteration.
SOLVERS: dict[Any, tuple[Any, Callable]] = {
    pnp_pgd: (ProximalGradientMap, theorems.of_pgd),
    pnp_fista: (ProximalGradientMap, theorems.of_fista),
    pnp_hqs: (HalfQuadraticMap, theorems.of_hqs),
    pnp_admm: (ADMMMap, theorems.of_splitting),
    pnp_drs: (DouglasRachfordMap, theorems.of_splitting),
    red_gradient_descent: (REDGradientMap, theorems.of_red_gradient),
    red_proximal_gradient: (REDProximalMap, theorems.of_red_proximal),
    ProximalGradientMap: (ProximalGradientMap, theorems.of_averaged_pgd),
    HalfQuadraticMap: (HalfQuadraticMap, theorems.of_averaged_hqs),
    ADMMMap: (ADMMMap, theorems.of_splitting),
    DouglasRachfordMap: (DouglasRachfordMap, theorems.of_splitting),
    REDGradientMap: (REDGradientMap, theorems.of_red_gradient),
    REDProximalMap: (REDProximalMap, theorems.of_red_proximal),
}


class ConvergenceReport(NamedTuple):
    """What :func:`convergence_report` found; ``print`` shows it.

    Attributes:
        solver: its name.
        facts: what was measured, by symbol, each certified or estimated.
        theorems: those that are known for this solver, and whether they apply.
    """

    solver: str
    facts: dict[str, Certificate]
    theorems: tuple[Theorem, ...]

    @property
    def theorem(self) -> Theorem | None:
        """The theorem that applies, certified before estimated, with a rate before without; None: none does."""
        found = [t for t in self.theorems if t.applies]
        return min(found, key=lambda t: (not t.certified, t.rate is None), default=None)

    @property
    def certified(self) -> bool:
        """Whether convergence is proved, up to the condition in the theorem's conclusion."""
        return self.theorem is not None and self.theorem.certified

    @property
    def rate(self) -> float | None:
        """The factor by which the distance to the fixed point shrinks per iteration, where a theorem gives one."""
        return None if self.theorem is None else self.theorem.rate

    def __str__(self) -> str:
        lines = [f"{self.solver}: {self._verdict()}", ""]
        width = max(map(len, self.facts))
        for name, fact in self.facts.items():
            kind = "certified" if fact.certified else "estimate, from points"
            lines.append(f"  {name:<{width}}  {fact.bound:<10.4g} {kind}: {fact.method}")
        for theorem in self.theorems:
            state = "applies" if theorem.applies else "does not apply"
            if theorem.applies:
                state += ", certified" if theorem.certified else ", as far as was measured"
            lines += ["", f"  {theorem.name}: {state}"]
            for h in theorem.hypotheses:
                mark = "yes" if h.holds else "NO"
                kind = "certified" if h.certified else "estimate"
                lines.append(f"    {mark:<3}  {h.statement}; value {h.value:.4g} ({kind})")
        return "\n".join(lines)

    def _verdict(self) -> str:
        best = self.theorem
        if best is None:
            return "no theorem applies."
        rate = "" if best.rate is None else f" (factor {best.rate:.4g} an iteration)"
        kind = "Certified" if best.certified else "If what was measured at the points holds everywhere"
        return f"{best.name}. {kind}: {best.conclusion}{rate}."


def convergence_report(
    solver: Callable,
    data_term: DataTerm,
    denoiser: Denoise,
    *,
    sigma: Any,
    step: Any,
    points: Float[Array, "points *shape"],
    rng_key: PRNGKeyArray,
    strength: Any = 1.0,
) -> ConvergenceReport:
    r"""Which theorem says that a solver converges, each hypothesis with its value, certified or estimated.

    Bounds of the denoiser come from ``denoiser.certificates(sigma)`` where it has them, those of the data term from
    the spectrum of its operator. All else is measured at ``points`` by power iteration on Jacobians: a bound from
    **below**, which can refute a hypothesis and never prove it; where a limit must not
    be reached, an estimate has to stay 2 % below it. That no theorem applies is a common answer, for a
    denoiser that nothing constrains; it does not say that the solver diverges.

    The theorems: Banach's, from bounds of the parts or from the map's own Jacobian; Krasnosel'skii and Mann's for
    averaged maps; Ryu et al. (strongly convex f, Lip(D - I) small); Pesquet et al. (D firmly nonexpansive);
    Hurault et al. (I - D a gradient); Gribonval & Nikolova (D a gradient and cocoercive, so a proximal operator of a
    weakly convex function); cocoercivity of RED's field (D nonexpansive); Chambolle & Dossal (D a proximal operator)
    for momentum.

    Args:
        solver: one of this package's, such as ``pnp_admm``; or one of the maps, such as ``ADMMMap``, for
            :func:`krasnoselskii_mann` with it.
        data_term: f.
        denoiser: D.
        sigma: the denoiser's noise level.
        step: :math:`\gamma`.
        points: arrays at which is measured what is not certified, along the first axis: noisy images, iterates.
        rng_key: of the vectors that power iteration starts from.
        strength: of RED; :math:`\lambda = \text{strength} / \sigma^2`.

    Raises:
        TypeError: ``solver`` is none of those, ``rng_key`` no random key, traced values, or an argument as for the
            solver.
        ValueError: ``points`` not finite, empty or of another shape than the data term's, or an argument as for the
            solver.

    References:
        Ryu, Liu, Wang, Chen, Wang & Yin, ICML (2019), theorems 1 and 2; Pesquet, Repetti, Terris & Wiaux, SIAM J.
        Imaging Sci. 14 (2021) 1206-1237; Hurault, Leclaire & Papadakis, ICLR and ICML (2022); Bauschke & Combettes,
        *Convex Analysis and Monotone Operator Theory*, propositions 4.39 and 4.46, theorem 5.15; Chambolle & Dossal,
        J. Optim. Theory Appl. 166 (2015) 968-982; Gribonval & Nikolova, J. Math. Imaging Vis. 62 (2020) 773-789; Wei et
        al. (2025), arXiv 2505.08909 (conservative and cocoercive denoisers).
    """
    known = next((found for name, found in SOLVERS.items() if name is solver), None)
    if known is None:
        names = ", ".join(s.__name__ for s in SOLVERS)
        raise TypeError(f"{HERE}: `solver` must be one of {names}; got {show(solver)}.")
    check_key(HERE, "rng_key", rng_key)
    check_positive_number(HERE, "strength", strength)
    given = {"data_term": data_term, "denoiser": denoiser, "sigma": sigma, "step": step, "points": points}
    for name, value in given.items():
        check_static(HERE, name, value)
    at = jnp.asarray(check_finite(HERE, "points", points), float)
    kind, list_theorems = known
    extra = {"strength": strength} if issubclass(kind, REDIteration) else {}
    iteration = kind(data_term, denoiser, sigma=sigma, step=step, **extra)
    shape = data_term.shape
    if at.ndim == 0 or at.size == 0 or (shape is not None and at.shape[1:] != shape):
        wanted = "(points, ...)" if shape is None else f"(points, {', '.join(map(str, shape))})"
        raise ValueError(f"{HERE}: `points` must have the shape {wanted}; got {at.shape}.")
    facts = Facts(data_term, denoiser, iteration.sigma, iteration, at, rng_key)
    found = tuple(list_theorems(facts, float(step), float(strength) / float(sigma) ** 2))
    measured = {
        "L": facts.smoothness,
        "mu": facts.convexity,
        "Lip(D)": facts.lipschitz,
        "Lip(I - D)": facts.residual,
        "Lip(2 D - I)": facts.firm,
        "Lip(T)": facts.map,
        "asymmetry of D": Certificate(facts.asymmetry, f"a jvp and a vjp at {count(at)}", False),
    }
    return ConvergenceReport(solver.__name__, measured, found)
