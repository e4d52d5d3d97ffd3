"""Which solvers and samplers the properties of a denoiser leave."""

from __future__ import annotations

from typing import Any, NamedTuple

SYMMETRIC = 1e-3  # relative asymmetry, above rounding in single precision and what a penalty leaves in training
DECLARED = 1e-2  # relative error of a declared potential's differences
SLACK = 1e-3  # of the norms
SIGMAS = 3.0  # standard errors that must be below a limit


class Recommendation(NamedTuple):
    """What to use, and why.

    Attributes:
        solvers: with a convergence theorem whose hypotheses on the denoiser hold, as far as measured; may be empty.
        samplers: whose target exists; never empty, for Langevin steps need nothing but a Lipschitz field.
        reasons: one sentence for each step of the way.
    """

    solvers: tuple[str, ...]
    samplers: tuple[str, ...]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        solvers = "; ".join(self.solvers) if self.solvers else "none: no theorem applies"
        lines = [f"Solvers:  {solvers}", f"Samplers: {'; '.join(self.samplers)}"]
        return "\n".join(lines + [f"  - {reason}" for reason in self.reasons])


def recommend(found: dict[str, Any], potential: Any, gamma: float) -> Recommendation:
    """From the numbers of an audit.

    References:
        E. K. Ryu et al., *Plug-and-play methods provably converge with properly trained denoisers*, ICML 2019, theorems
        1 and 2 (the residual); J.-C. Pesquet et al., SIAM J. Imaging Sci. 14 (2021) (firm); S. Hurault et al., ICLR
        2022 (a potential); H. H. Bauschke and P. L. Combettes, *Convex Analysis and Monotone Operator Theory in Hilbert
        Spaces*, 2nd ed., theorem 5.15 (Krasnosel'skii-Mann).
    """
    solvers, reasons = [], []

    def below(name: str, limit: float, what: str) -> bool:
        number = found[name]
        if number.value > limit + SLACK:
            return False
        reasons.append(f"{what}: {_how(number)}.")
        return True

    symmetric = found["asymmetry"].value - SIGMAS * found["asymmetry"].error <= SYMMETRIC
    true_potential = potential is not None and potential.value <= DECLARED
    if true_potential:
        samplers = ("NUTS, HMC and MALA with the potential", "ULA, SK-ROCK, PnP-ULA")
        reasons.append("the denoiser declares a potential, and its values agree with the field near the points")
        solvers.append("gradient-step proximal gradient with backtracking (convex data terms)")
    elif symmetric:
        samplers = ("ULA, SK-ROCK, PnP-ULA", "NUTS, HMC and MALA with the line integral as potential")
        reasons.append(
            f"the Jacobian is symmetric at the points to {found['asymmetry'].value:.1g}; a potential exists "
            "if it is so everywhere, and none is declared"
        )
    else:
        samplers = ("ULA, SK-ROCK, PnP-ULA",)
        reasons.append(
            f"the Jacobian is asymmetric ({found['asymmetry'].value:.2g}): x - D is no gradient, so there is no "
            "density to sample from, and NUTS, HMC, MALA and the ELBO refuse it; Langevin samplers have a "
            "stationary law, which is not exp(-U) of any U"
        )
    if potential is not None and not true_potential:
        reasons.append(
            f"the declared potential is of another field (relative difference {potential.value:.2g}): a "
            "sampler that uses it samples the law of that potential"
        )
    firm = below("firm", 1.0, "firmly nonexpansive")
    nonexpansive = below("lipschitz", 1.0, "nonexpansive")
    contractive = below("residual", 1.0 - 2 * SLACK, "I - D is a contraction")
    if firm:
        solvers.append("PnP proximal gradient, ADMM and Douglas-Rachford (convex data terms)")
    elif nonexpansive:
        solvers.append("Krasnosel'skii-Mann averaging, not the plain iteration (convex data terms)")
    if firm or nonexpansive:
        solvers.append("RED gradient descent (convex data terms)")
    if contractive:
        solvers.append("PnP ADMM and proximal gradient with step sizes in a window (strongly convex data terms)")
    if (symmetric or true_potential) and below("cocoercive", 1.0, f"cocoercive with gamma = {gamma:g}"):
        solvers.append(f"PnP proximal gradient with steps below {1 + min(gamma, 1):.3g} / L (smooth data terms)")
    if not solvers:
        reasons.append(
            f"|J| = {found['lipschitz'].value:.3g}, |I - J| = {found['residual'].value:.3g} and |2 J - I| = "
            f"{found['firm'].value:.3g} are above 1 and there is no potential: iterations may look converged "
            "and diverge later"
        )
    return Recommendation(tuple(solvers), samplers, tuple(reasons))


def _how(number: Any) -> str:
    if number.kind == "certificate":
        return f"certified, {number.value:.4g}"
    return f"an estimate from below, {number.value:.4g}, at these points; it proves nothing elsewhere"
