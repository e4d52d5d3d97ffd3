"""Which theorem applies: rates that are met, hypotheses that fail, certificates that are not mixed with estimates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.operators import Mask, Matrix
from numpyro_inverse.solvers import (
    ADMMMap,
    Divergence,
    LeastSquares,
    ProximalGradientMap,
    SmoothDataTerm,
    convergence_report,
    krasnoselskii_mann,
    pnp_admm,
    pnp_drs,
    pnp_fista,
    pnp_hqs,
    pnp_pgd,
    red_gradient_descent,
    red_proximal_gradient,
)
from tests.solvers._problems import Linear

SIZE = 4
POINTS = np.random.default_rng(0).normal(size=(2, SIZE))
SPECTRUM = np.array([0.5, 0.8, 1.5, 2.0])  # mu = 1/2, L = 2
BASIS = np.linalg.qr(np.random.default_rng(1).normal(size=(SIZE, SIZE)))[0]
FULL = LeastSquares(Matrix(np.diag(np.sqrt(SPECTRUM)) @ BASIS), np.arange(1.0, SIZE + 1), 1.0)
HALF = LeastSquares(Mask(np.array([True, True, False, False])), np.ones(2), 1.0)  # mu = 0, L = 1
TURN = np.kron(np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]]))


class Certified(eqx.Module):
    """The denoiser W x, with its norms by SVD."""

    matrix: jax.Array

    def __call__(self, x, sigma):
        return jnp.matmul(self.matrix, x, precision="highest")

    def certificates(self, sigma):
        one, w = np.eye(SIZE), np.asarray(self.matrix)
        bounds = {"lipschitz": w, "residual": one - w, "firm": 2 * w - one}
        return {name: Certificate(float(np.linalg.norm(m, 2)), "SVD", True) for name, m in bounds.items()}


class Conservative(Certified):
    """A symmetric one, with the potential that makes I - D a gradient."""

    def potential(self, x, sigma):
        return (x @ x - x @ self.matrix @ x) / (2 * sigma**2)


def report(solver, term, denoiser, step, strength=1.0):
    return convergence_report(
        solver,
        term,
        denoiser,
        sigma=1.0,
        step=step,
        points=POINTS,
        rng_key=jax.random.key(0),
        strength=strength,
    )


def theorem(found, name):
    return next(t for t in found.theorems if name in t.name)


# D = 0.8 I: the bounds of the parts are reached, by the mode of the smallest or largest h.
RATES = [
    (pnp_pgd, 0.4, 0.8 * 0.8),
    (pnp_hqs, 0.4, 0.8 / 1.2),
    (pnp_admm, 0.4, 0.5 + 0.6 * (0.8 / 1.2) / 2),
    (pnp_drs, 0.4, 0.5 + 0.6 * (0.8 / 1.2) / 2),
    (red_gradient_descent, 0.3, 1 - 0.3 * 1.5 + 0.3 * 0.8),
    (red_proximal_gradient, 0.4, (0.6 + 0.4 * 0.8) / 1.2),
]


SLOW = ("red_proximal_gradient", "pnp_pgd")


@pytest.mark.parametrize(
    ("solver", "step", "rate"),
    [pytest.param(*case, id=(name := case[0].__name__), marks=[pytest.mark.slow] * (name in SLOW)) for case in RATES],
)
def test_predicted_factors_are_met(solver, step, rate, x64):
    denoiser = Certified(0.8 * np.eye(SIZE))
    found = report(solver, FULL, denoiser, step)
    assert found.certified
    assert found.rate == pytest.approx(rate, rel=5e-5)  # L has a margin for single precision
    solved = solver(FULL, denoiser, np.zeros(SIZE), sigma=1.0, step=step, tolerance=1e-11)
    n = int(solved.num_steps)
    measured = (solved.residuals[n - 1] / solved.residuals[n - 6]) ** (1 / 5)
    assert measured == pytest.approx(rate, rel=1e-3)


@pytest.mark.slow
def test_without_strong_convexity_a_firmly_nonexpansive_denoiser_is_what_helps():
    firm = Certified(np.diag([1.0, 0.5, 0.2, 1.0]))  # Lip(D) = Lip(2 D - I) = 1
    found = report(pnp_admm, HALF, firm, 3.0)
    assert found.certified
    assert "Pesquet" in found.theorem.name
    assert found.rate is None
    assert not theorem(found, "Ryu").applies
    assert report(pnp_pgd, HALF, firm, 1.9).certified
    assert report(pnp_hqs, HALF, firm, 1.9).certified
    assert report(pnp_pgd, HALF, firm, 2.1).theorem is None  # too long a step
    estimated = report(pnp_admm, HALF, Linear(firm.matrix), 3.0)
    assert "Pesquet" in estimated.theorem.name
    assert not estimated.certified
    assert estimated.facts["Lip(2 D - I)"].bound == pytest.approx(1, rel=1e-3)


def test_strong_convexity_carries_a_denoiser_near_the_identity():
    """D = I + 0.1 R, R a turn: Lip(D) > 1."""
    near = Certified(np.eye(SIZE) + 0.1 * TURN)
    found = report(pnp_pgd, FULL, near, 0.8)
    assert "Ryu" in theorem(found, "Ryu").name
    assert theorem(found, "Ryu").certified
    # max(|1 - .4|, |1 - 1.6|) (1 + .1); the certified L carries a margin of 1e-5 for rounding
    assert theorem(found, "Ryu").rate == pytest.approx(0.6 * 1.1, rel=5e-5)
    assert not theorem(found, "Pesquet").applies
    splitting = theorem(report(pnp_drs, FULL, near, 4.0), "Ryu")
    assert splitting.certified
    a, e = 4.0 * 0.5, 0.1
    expected = (1 + e + e * a + 2 * e**2 * a) / (1 + a + 2 * e * a)
    assert splitting.rate == pytest.approx(expected, rel=1e-5)
    assert not theorem(report(pnp_drs, FULL, near, 0.1), "Ryu").applies  # a < e / (1 + e - 2 e^2)


def test_a_gradient_step_denoiser_has_its_own_theorem():
    """Lip(D) = 1.5, Lip(I - D) = 0.5, and I - D is a gradient."""
    step_denoiser = Conservative(np.diag([1.5, 0.9, 0.7, 1.2]))
    found = report(red_proximal_gradient, HALF, step_denoiser, 1.0)
    assert found.certified
    assert "gradient step" in found.theorem.name
    assert report(red_proximal_gradient, HALF, step_denoiser, 1.9, strength=1.04).theorem is not None
    assert not theorem(report(red_proximal_gradient, HALF, step_denoiser, 1.9, strength=1.2), "gradient step").applies
    assert theorem(report(red_gradient_descent, HALF, step_denoiser, 1.0), "Gradient step").certified
    turned = Conservative(np.diag([1.5, 0.9, 0.7, 1.2]) + 0.2 * TURN)  # the potential is not true
    refuted = theorem(report(red_proximal_gradient, HALF, turned, 1.0), "gradient step")
    assert not refuted.applies
    assert not refuted.hypotheses[0].holds


@pytest.mark.slow
def test_a_cocoercive_denoiser_is_a_proximal_operator(x64):
    """D = W with the largest eigenvalue 3, where the data decide: a factor 3 (1 - step), so the bound 4/3 is sharp."""
    denoiser = Conservative(np.diag([3.0, 2.0, 0.5, 1.0]))
    found = report(pnp_pgd, HALF, denoiser, 1.3)
    assert found.theorem.name.startswith("Conservative and cocoercive")
    assert not found.certified  # Lip(2 gamma D - I) was measured
    solved = pnp_pgd(HALF, denoiser, np.zeros(SIZE), sigma=1.0, step=1.3, max_steps=400, tolerance=1e-9)
    assert solved.converged
    assert report(pnp_pgd, HALF, denoiser, 1.35).theorem is None
    with pytest.raises(Divergence):
        pnp_pgd(HALF, denoiser, np.zeros(SIZE), sigma=1.0, step=1.4, max_steps=400, tolerance=1e-9)
    assert report(pnp_pgd, HALF, Certified(np.zeros((SIZE, SIZE))), 1.2).certified  # Lip(D) = 0 is no division by it
    negative = report(pnp_pgd, HALF, Conservative(np.diag([3.0, 2.0, -0.1, 1.0])), 1.2)
    assert not theorem(negative, "cocoercive").hypotheses[1].holds
    estimated = theorem(report(pnp_pgd, HALF, Linear(denoiser.matrix), 1.2), "cocoercive")
    assert estimated.hypotheses[2].holds
    assert not theorem(report(pnp_pgd, HALF, Linear(denoiser.matrix), 1.31), "cocoercive").hypotheses[2].holds


def test_momentum_has_a_theorem_for_proximal_operators_alone():
    convex = Conservative(np.diag([1.0, 0.5, 0.2, 1.0]))
    assert report(pnp_fista, HALF, convex, 0.9).certified
    firm = Certified(0.5 * (np.eye(SIZE) + TURN))
    assert report(pnp_pgd, HALF, firm, 0.9).certified
    assert report(pnp_fista, HALF, firm, 0.9).theorem is None


@pytest.mark.slow
def test_no_theorem_applies_is_an_answer_and_averaging_may_change_it():
    back = Certified(-np.eye(SIZE))
    assert report(pnp_pgd, HALF, back, 1.0).theorem is None
    relaxed = report(ProximalGradientMap, HALF, back, 1.0)
    assert relaxed.certified
    assert "Krasnosel'skii" in relaxed.theorem.name
    wild = Linear(jnp.asarray(1.4 * TURN))
    found = report(pnp_admm, HALF, wild, 1.0)
    assert found.theorem is None
    assert not found.certified
    assert str(found).startswith("pnp_admm: no theorem applies.")
    assert found.facts["asymmetry of D"].bound == pytest.approx(2, rel=1e-5)
    assert report(ADMMMap, HALF, wild, 1.0).theorem is None


def test_cocoercive_field_of_a_nonexpansive_denoiser():
    turn = Certified(TURN)
    assert "Cocoercive" in report(red_gradient_descent, HALF, turn, 0.6).theorem.name  # 2 / (L + 2 lambda) = 2/3
    assert not theorem(report(red_gradient_descent, HALF, turn, 0.7), "Cocoercive").applies
    assert "Cocoercive" in report(red_proximal_gradient, HALF, turn, 0.9).theorem.name


@pytest.mark.slow
def test_a_smooth_data_term_is_measured_where_nothing_is_stated():
    term = SmoothDataTerm(lambda x: jnp.sum(jnp.cosh(x)))
    found = report(pnp_pgd, term, Certified(0.5 * np.eye(SIZE)), 0.1)
    curvatures = np.cosh(POINTS)
    assert found.facts["L"].bound == pytest.approx(curvatures.max(), rel=1e-3)
    assert found.facts["mu"].bound == pytest.approx(curvatures.min(), rel=1e-2)
    assert not found.facts["L"].certified
    assert found.theorem is not None
    assert not found.certified
    stated = report(pnp_pgd, SmoothDataTerm(jnp.sum, lipschitz=2.0, strong_convexity=0.5), Linear(jnp.eye(SIZE)), 0.1)
    assert stated.facts["L"] == Certificate(2.0, "stated by the user", True, "the statement is true")


def test_a_firm_certificate_bounds_the_others():
    class Firm(Linear):
        def certificates(self, sigma):
            return {"firm": Certificate(0.6, "construction", True)}

    found = report(pnp_pgd, HALF, Firm(jnp.asarray(0.8 * np.eye(SIZE))), 1.0)
    assert found.facts["Lip(D)"].bound == pytest.approx(0.8)
    assert found.facts["Lip(I - D)"].certified
    assert found.certified


def test_an_estimate_close_to_its_limit_does_not_count():
    """Power iteration comes from below, and slowly where many eigenvalues are close to the largest."""
    close = np.diag([0.99, 0.5, 0.4, 0.3])
    assert theorem(report(pnp_pgd, HALF, Certified(close), 1.0), "Banach").certified
    assert not theorem(report(pnp_pgd, HALF, Linear(jnp.asarray(close, float)), 0.1), "Banach").applies


def test_it_reads_well():
    lines = str(report(pnp_pgd, FULL, Certified(0.8 * np.eye(SIZE)), 0.4)).splitlines()
    assert lines[0] == (
        "pnp_pgd: Banach: contraction. Certified: there is one fixed point, and the iterates converge to it linearly "
        "(factor 0.64 an iteration)."
    )
    assert "  Lip(D)          0.8        certified: SVD" in lines
    assert "  Banach: contraction: applies, certified" in lines
    assert "    yes  Lip(T) < 1, by its parts; value 0.64 (certified)" in lines
    assert any(line.startswith("  Lip(T)          0.64") and "estimate" in line for line in lines)


GOOD = {"sigma": 1.0, "step": 0.5, "points": POINTS, "rng_key": jax.random.key(0)}
BAD = {
    "solver": ({"solver": krasnoselskii_mann}, TypeError, "`solver` must be one of pnp_pgd, pnp_fista"),
    "key": ({"rng_key": 0}, TypeError, "`rng_key` must be a random key"),
    "points": ({"points": POINTS[0]}, ValueError, r"`points` must have the shape \(points, 4\)"),
    "no points": ({"points": POINTS[:0]}, ValueError, "`points` must have the shape"),
    "NaN": ({"points": POINTS * np.nan}, ValueError, "`points` must be finite"),
    "sigma": ({"sigma": 0.0}, ValueError, "`sigma` must be positive"),
    "step": ({"step": 0.0}, ValueError, "`step` must be positive"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    change, error, message = BAD[case]
    arguments = {"solver": pnp_pgd, **GOOD, **change}
    with pytest.raises(error, match=message):
        convergence_report(arguments.pop("solver"), HALF, Certified(np.eye(SIZE)), **arguments)


def test_a_denoiser_that_is_not_finite_or_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="is not finite at one of the `points`"):
        report(pnp_pgd, HALF, jax.tree_util.Partial(_broken), 1.0)
    with pytest.raises(ValueError, match="convergence_report: the denoiser _short must return an array of the shape"):
        report(pnp_pgd, HALF, _short, 1.0)


def _broken(x, sigma):
    return x * jnp.nan


def _short(x, sigma):
    return x[:1]
