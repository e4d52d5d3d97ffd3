"""The theorems under which the solvers converge, as lists of hypotheses with their measured values.

Facts are certificates (see ``_facts``); :math:`\\gamma` is the step and :math:`\\lambda` the weight of RED.
"""

from __future__ import annotations

from typing import NamedTuple

from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.solvers._facts import Facts

ROUNDING = 1e-5  # of what is compared with a limit that may be reached
GAP = 0.02  # by which an estimate, a bound from below, must stay under a limit that may not be reached
SYMMETRIC = 1e-3  # asymmetry of a Jacobian below which it is called symmetric


class Hypothesis(NamedTuple):
    """One condition of a theorem.

    Attributes:
        statement: in words and formulas.
        value: of what the statement bounds.
        holds: whether the value satisfies it.
        certified: whether the value is a bound everywhere, and not only what was found at the given points.
        method: how the value was found.
    """

    statement: str
    value: float
    holds: bool
    certified: bool
    method: str


class Theorem(NamedTuple):
    """A theorem and whether it applies.

    Attributes:
        name: with authors and year.
        conclusion: what converges, and the remaining condition, if any.
        hypotheses: all of them.
        rate: the factor by which the distance to the fixed point shrinks in an iteration at least, or None.
    """

    name: str
    conclusion: str
    hypotheses: tuple[Hypothesis, ...]
    rate: float | None = None

    @property
    def applies(self) -> bool:
        """Whether all hypotheses hold, as far as they were measured."""
        return all(h.holds for h in self.hypotheses)

    @property
    def certified(self) -> bool:
        """Whether it applies, and every hypothesis is certified."""
        return all(h.holds and h.certified for h in self.hypotheses)


TO_A_FIXED_POINT = "the iterates converge to a fixed point, if there is one"
LINEARLY = "there is one fixed point, and the iterates converge to it linearly"
STATIONARY = "the objective falls and limit points of the iterates are stationary, if it is bounded from below"


def at_most(statement: str, found: Certificate, limit: float, *, strict: bool = False) -> Hypothesis:
    """A bound from above; a value measured at points that is above the limit refutes it for certain."""
    margin = ROUNDING if found.certified else GAP
    holds = found.bound < limit * (1 - margin) if strict else found.bound <= limit * (1 + ROUNDING)
    return Hypothesis(statement, found.bound, holds, found.certified, found.method)


def together(value: float, *parts: Certificate) -> Certificate:
    """What follows from several facts: certified if they all are."""
    methods = "; ".join(dict.fromkeys(part.method for part in parts))
    return Certificate(value, methods, all(part.certified for part in parts))


def _convex(facts: Facts) -> Hypothesis:
    mu = facts.convexity
    slack = ROUNDING * max(abs(facts.smoothness.bound), 1.0)
    if mu.certified or facts.term.is_convex:
        return Hypothesis("f is convex: mu >= 0", mu.bound, True, True, mu.method)
    return Hypothesis("f is convex: mu >= 0", mu.bound, mu.bound >= -slack, False, mu.method)


def _short(facts: Facts, step: float, most: float, words: str) -> Hypothesis:
    """step < most / L."""
    smooth = facts.smoothness
    return at_most(f"step L < {words}", smooth._replace(bound=step * smooth.bound), most, strict=True)


def _averaged(facts: Facts) -> Hypothesis:
    """A contraction by l is (1 + l) / 2-averaged; a firmly nonexpansive map is 1/2-averaged."""
    by_norm = at_most("D is averaged: Lip(D) < 1", facts.lipschitz, 1.0, strict=True)
    if by_norm.holds and by_norm.certified:
        return by_norm
    firm = at_most("D is averaged: Lip(2 D - I) <= 1", facts.firm, 1.0)
    return firm if firm.holds else by_norm


def _firm(facts: Facts) -> Hypothesis:
    return at_most("D is firmly nonexpansive: Lip(2 D - I) <= 1", facts.firm, 1.0)


def _nonexpansive(facts: Facts) -> Hypothesis:
    return at_most("D is nonexpansive: Lip(D) <= 1", facts.lipschitz, 1.0)


def _conservative(facts: Facts) -> Hypothesis:
    """I - D is a gradient: declared by a potential, and the Jacobian looks symmetric."""
    value = facts.asymmetry
    symmetric = value <= SYMMETRIC
    method = "declared by `potential`, and looked at" if facts.has_potential else "one jvp and one vjp at each point"
    statement = "I - D is a gradient: |Jv - J'v| / |Jv| = 0"
    return Hypothesis(statement, value, symmetric, facts.has_potential, method)


def _strongly_convex(facts: Facts) -> Hypothesis:
    mu = facts.convexity
    return Hypothesis("f is strongly convex: mu > 0", mu.bound, mu.bound > 0, mu.certified, mu.method)


def banach(facts: Facts, product: Certificate) -> Theorem:
    """T is a contraction, by the bounds of its parts or as measured; the first is preferred where it does."""
    found = product if product.bound < 1 and product.certified else facts.map
    if found is facts.map and product.bound < 1 and facts.map.bound < 1:
        found = product  # an estimate too, but of a bound
    words = "Lip(T) < 1, by its parts" if found is product else "Lip(T) < 1, as measured"
    hypothesis = at_most(words, found, 1.0, strict=True)
    return Theorem("Banach: contraction", LINEARLY, (hypothesis,), found.bound if hypothesis.holds else None)


def descent_factor(facts: Facts, step: float) -> Certificate:
    """Lip(I - step grad f)."""
    mu, smooth = facts.convexity, facts.smoothness
    return together(max(abs(1 - step * mu.bound), abs(1 - step * smooth.bound)), mu, smooth)


def reflection_factor(facts: Facts, step: float) -> Certificate:
    """Lip(2 prox - I): Giselsson & Boyd, IEEE Trans. Autom. Control 62 (2017) 532-544, theorem 1."""
    mu, smooth = facts.convexity, facts.smoothness
    factors = [abs(1 - step * h) / (1 + step * h) for h in (max(mu.bound, 0.0), smooth.bound)]
    return together(max(factors), mu, smooth)


def ryu_gradient(facts: Facts, step: float) -> Theorem:
    """Ryu et al. 2019, theorem 1."""
    mu, smooth, e = facts.convexity, facts.smoothness, facts.residual
    rate = descent_factor(facts, step).bound * (1 + e.bound)
    contraction = at_most(
        "max(|1 - step mu|, |1 - step L|) (1 + Lip(D - I)) < 1", together(rate, mu, smooth, e), 1.0, strict=True
    )
    hypotheses = (_strongly_convex(facts), contraction)
    return Theorem("Ryu et al. (2019), theorem 1", LINEARLY, hypotheses, rate if contraction.holds else None)


def ryu_splitting(facts: Facts, step: float) -> Theorem:
    """Ryu et al. 2019, theorem 2 and corollary 3."""
    mu, e = facts.convexity, facts.residual
    am, ee = step * max(mu.bound, 0.0), e.bound
    rate = (1 + ee + ee * am + 2 * ee**2 * am) / (1 + am + 2 * ee * am)
    contraction = at_most(
        "(1 + e + e a + 2 e^2 a) / (1 + a + 2 e a) < 1, a = step mu, e = Lip(D - I)",
        together(rate, mu, e),
        1.0,
        strict=True,
    )
    small = at_most("Lip(D - I) < 1", e, 1.0, strict=True)
    hypotheses = (_strongly_convex(facts), small, contraction)
    return Theorem("Ryu et al. (2019), theorem 2", LINEARLY, hypotheses, rate if contraction.holds else None)


def cocoercive(facts: Facts, step: float) -> Theorem:
    r"""D is the gradient of a convex function :math:`\psi` that is :math:`1 / \gamma`-smooth.

    So it is the proximal operator of :math:`\varphi = \psi^* - |\cdot|^2 / 2` (Moreau; Gribonval & Nikolova, J. Math.
    Imaging Vis. 62 (2020) 773-789), which is :math:`(1 - \gamma)`-weakly convex, and proximal gradient steps descend on
    :math:`\text{step} f + \varphi` where :math:`\text{step} L + 1 - \gamma < 2`.
    """
    hypotheses = (
        _conservative(facts),
        at_most(f"D is cocoercive: Lip(2 gamma D - I) <= 1, gamma = {facts.gamma:.3g}", facts.cocoercive, 1.0),
        _short(facts, step, 1 + facts.gamma, "1 + gamma"),
    )
    return Theorem("Conservative and cocoercive: D as a proximal operator", STATIONARY, hypotheses)


def of_pgd(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """x+ = D(x - step grad f(x))."""
    d, descent = facts.lipschitz, descent_factor(facts, step)
    return [
        banach(facts, together(d.bound * descent.bound, d, descent)),
        ryu_gradient(facts, step),
        Theorem(
            "Pesquet et al. (2021): resolvent of a monotone operator",
            TO_A_FIXED_POINT,
            (_firm(facts), _convex(facts), _short(facts, step, 2.0, "2")),
        ),
        Theorem(
            "Krasnosel'skii-Mann: averaged maps",
            TO_A_FIXED_POINT,
            (_averaged(facts), _convex(facts), _short(facts, step, 2.0, "2")),
        ),
        Theorem(
            "Hurault et al. (2022): gradient step, D as a proximal operator",
            STATIONARY,
            (
                _conservative(facts),
                at_most("Lip(I - D) < 1", facts.residual, 1.0, strict=True),
                _short(facts, step, 1.0, "1"),
            ),
        ),
        cocoercive(facts, step),
    ]


def of_averaged_pgd(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """The same map, relaxed."""
    nonexpansive = Theorem(
        "Krasnosel'skii-Mann: nonexpansive map",
        TO_A_FIXED_POINT + ", for relaxations in (0, 1) with a diverging sum of a (1 - a)",
        (_nonexpansive(facts), _convex(facts), _short(facts, step, 2.0, "2")),
    )
    return [nonexpansive, *(t for t in of_pgd(facts, step, weight)[:4] if "Ryu" not in t.name)]


def of_fista(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """The same map with momentum: for proximal operators of convex functions alone."""
    smooth = facts.smoothness
    return [
        Theorem(
            "Chambolle & Dossal (2015): accelerated forward-backward",
            "the iterates converge to a minimizer, if there is one, and the objective as 1 / k^2",
            (
                _conservative(facts),
                _firm(facts),
                _convex(facts),
                at_most("step L <= 1", smooth._replace(bound=step * smooth.bound), 1.0 + 1e-3),
            ),
        )
    ]


def of_hqs(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """x+ = prox(D(x))."""
    d, mu = facts.lipschitz, facts.convexity
    return [
        banach(facts, together(d.bound / (1 + step * max(mu.bound, 0.0)), d, mu)),
        Theorem("Krasnosel'skii-Mann: averaged maps", TO_A_FIXED_POINT, (_averaged(facts), _convex(facts))),
        Theorem(
            "Hurault et al. (2022): gradient step",
            STATIONARY,
            (_conservative(facts), _convex(facts), at_most("Lip(I - D) < 1", facts.residual, 1.0, strict=True)),
        ),
    ]


def of_averaged_hqs(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """The same map, relaxed."""
    nonexpansive = Theorem(
        "Krasnosel'skii-Mann: nonexpansive map",
        TO_A_FIXED_POINT + ", for relaxations in (0, 1) with a diverging sum of a (1 - a)",
        (_nonexpansive(facts), _convex(facts)),
    )
    return [nonexpansive, *of_hqs(facts, step, weight)[:2]]


def of_splitting(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """T = I / 2 + (2 D - I)(2 prox - I) / 2, in either order."""
    firm, reflection = facts.firm, reflection_factor(facts, step)
    return [
        banach(facts, together((1 + firm.bound * reflection.bound) / 2, firm, reflection)),
        ryu_splitting(facts, step),
        Theorem(
            "Pesquet et al. (2021): Douglas-Rachford with a resolvent", TO_A_FIXED_POINT, (_firm(facts), _convex(facts))
        ),
    ]


def of_red_gradient(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """x+ = x - step (grad f(x) + weight (x - D(x)))."""
    d, mu, smooth, residual = facts.lipschitz, facts.convexity, facts.smoothness, facts.residual
    inner = max(abs(1 - step * (weight + h)) for h in (mu.bound, smooth.bound))
    total = together(step * (smooth.bound + 2 * weight), smooth)
    objective = together(step * (smooth.bound + weight * residual.bound), smooth, residual)
    return [
        banach(facts, together(inner + step * weight * d.bound, d, mu, smooth)),
        Theorem(
            "Cocoercive field: D nonexpansive",
            TO_A_FIXED_POINT,
            (_nonexpansive(facts), _convex(facts), at_most("step (L + 2 lambda) < 2", total, 2.0, strict=True)),
        ),
        Theorem(
            "Gradient step: descent on f + lambda g",
            STATIONARY,
            (_conservative(facts), at_most("step (L + lambda Lip(I - D)) < 2", objective, 2.0, strict=True)),
        ),
    ]


def of_red_proximal(facts: Facts, step: float, weight: float) -> list[Theorem]:
    """x+ = prox(x - step weight (x - D(x)))."""
    d, mu, residual = facts.lipschitz, facts.convexity, facts.residual
    relaxed = step * weight
    factor = (abs(1 - relaxed) + relaxed * d.bound) / (1 + step * max(mu.bound, 0.0))
    share = Certificate(relaxed, "step and lambda as given", True)
    return [
        banach(facts, together(factor, d, mu)),
        Theorem(
            "Cocoercive field: D nonexpansive",
            TO_A_FIXED_POINT,
            (_nonexpansive(facts), _convex(facts), at_most("step lambda < 1", share, 1.0, strict=True)),
        ),
        Theorem(
            "Hurault et al. (2022): gradient step",
            STATIONARY,
            (
                _conservative(facts),
                _convex(facts),
                at_most("step lambda Lip(I - D) < 1", together(relaxed * residual.bound, residual), 1.0, strict=True),
            ),
        ),
    ]
