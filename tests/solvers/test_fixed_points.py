"""What the solvers find against closed forms, how fast, and what they say when they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.operators import Mask, Matrix
from numpyro_inverse.solvers import (
    ADMMMap,
    Divergence,
    DouglasRachfordMap,
    HalfQuadraticMap,
    LeastSquares,
    ProximalGradientMap,
    REDGradientMap,
    REDProximalMap,
    SmoothDataTerm,
    krasnoselskii_mann,
    pnp_admm,
    pnp_drs,
    pnp_fista,
    pnp_hqs,
    pnp_pgd,
    red_gradient_descent,
    red_proximal_gradient,
)
from tests.solvers._problems import SIGMA, SIZE, Linear, Problem, Shrinkage

PROBLEM = Problem()
WEIGHT = 1 / SIGMA**2  # of RED with strength 1
GRADIENT_STEP = 1 / PROBLEM.lipschitz * 0.99
RED_STEP = 1 / (PROBLEM.lipschitz + 2 * WEIGHT)
START = np.zeros(SIZE)

# Solver, its map, the step, and the fixed point.
CASES = {
    "pnp_pgd": (pnp_pgd, ProximalGradientMap, GRADIENT_STEP, PROBLEM.plug_and_play(GRADIENT_STEP)),
    "pnp_fista": (pnp_fista, ProximalGradientMap, GRADIENT_STEP, PROBLEM.plug_and_play(GRADIENT_STEP)),
    "pnp_admm": (pnp_admm, ADMMMap, SIGMA**2, PROBLEM.posterior_mean()),
    "pnp_drs": (pnp_drs, DouglasRachfordMap, 0.2, PROBLEM.plug_and_play(0.2)),
    "pnp_hqs": (pnp_hqs, HalfQuadraticMap, 0.2, PROBLEM.red(1 / 0.2)),
    "red_gradient_descent": (red_gradient_descent, REDGradientMap, RED_STEP, PROBLEM.red(WEIGHT)),
    "red_proximal_gradient": (red_proximal_gradient, REDProximalMap, 0.5 * SIGMA**2, PROBLEM.red(WEIGHT)),
}


def predicted_factor(name, step):
    """The spectral radius of the map, whose matrix is made of W, H and the inverse of I + step H."""
    one, w, h = np.eye(SIZE), PROBLEM.w, PROBLEM.h
    near = np.linalg.inv(one + step * h)
    matrix = {
        "pnp_pgd": w @ (one - step * h),
        "pnp_hqs": near @ w,
        "pnp_admm": one / 2 + (2 * near - one) @ (2 * w - one) / 2,
        "pnp_drs": one / 2 + (2 * w - one) @ (2 * near - one) / 2,
        "red_gradient_descent": one - step * (h + WEIGHT * (one - w)),
        "red_proximal_gradient": near @ (one - step * WEIGHT * (one - w)),
    }[name]
    return np.max(np.abs(np.linalg.eigvals(matrix)))


@pytest.mark.parametrize("name", CASES)
def test_fixed_points_and_factors(name, x64):
    """RED is not PnP; PnP-ADMM with step sigma^2 and the posterior mean as denoiser gives the posterior mean."""
    solver, _, step, exact = CASES[name]
    denoiser = Linear(PROBLEM.w) if name != "pnp_admm" else Shrinkage(PROBLEM.c)
    found = solver(PROBLEM.term(), denoiser, START, sigma=SIGMA, step=step, tolerance=1e-11, max_steps=3000)
    assert found.converged
    assert not found.diverged
    np.testing.assert_allclose(found.x, exact, atol=1e-8)
    n = int(found.num_steps)
    assert np.all(np.isfinite(found.residuals[:n]))
    assert np.all(np.isnan(found.residuals[n:]))
    assert found.best_step == n
    if name != "pnp_fista":
        middle, late = n // 2, n - 2  # the fastest modes are gone by half way, rounding is far away
        ratio = (found.residuals[late] / found.residuals[middle]) ** (1 / (late - middle))
        np.testing.assert_allclose(ratio, predicted_factor(name, step), rtol=2e-3)


def test_strength_is_the_weight_of_red(x64):
    options = {"sigma": SIGMA, "step": 0.1, "strength": 2.5, "tolerance": 1e-11, "max_steps": 3000}
    found = red_proximal_gradient(PROBLEM.term(), Linear(PROBLEM.w), START, **options)
    np.testing.assert_allclose(found.x, PROBLEM.red(2.5 * WEIGHT), atol=1e-8)


@pytest.mark.slow
def test_the_scalar_case_tells_red_from_plug_and_play():
    """A = s = y = 1, W = 1/2, gamma = lambda = 1: 2/3 against 1/2."""
    term, half = LeastSquares(Matrix(np.eye(1)), np.ones(1), 1.0), lambda x, sigma: x / 2
    for solver, exact in [(pnp_pgd, 1 / 2), (pnp_admm, 1 / 2), (pnp_hqs, 2 / 3)]:
        np.testing.assert_allclose(solver(term, half, np.zeros(1), sigma=1.0, step=1.0).x, [exact], atol=1e-5)
    red = red_gradient_descent(term, half, np.zeros(1), sigma=1.0, step=0.5, tolerance=1e-6)
    np.testing.assert_allclose(red.x, [2 / 3], atol=1e-5)


def test_averaging_converges_where_plain_iteration_does_not():
    """D = -I, f = 0: the map turns every point around zero."""
    flat = SmoothDataTerm(lambda x: 0.0 * jnp.sum(x), lipschitz=1.0)
    turn, x0 = lambda x, sigma: -x, np.array([1.0, -2.0])
    plain = pnp_pgd(flat, turn, x0, sigma=1.0, step=1.0, max_steps=100)
    assert not plain.converged
    assert not plain.diverged
    np.testing.assert_allclose(np.abs(plain.x), np.abs(x0))
    averaged = krasnoselskii_mann(ProximalGradientMap(flat, turn, sigma=1.0, step=1.0), x0, relaxation=0.3)
    assert averaged.converged
    np.testing.assert_allclose(averaged.x, 0, atol=1e-6)


def test_relaxation_may_be_a_schedule_and_beyond_one_for_an_averaged_map(x64):
    _, iteration, step, exact = CASES["pnp_admm"]
    admm = iteration(PROBLEM.term(), Linear(PROBLEM.w), sigma=SIGMA, step=step)
    over = krasnoselskii_mann(admm, START, relaxation=1.5, tolerance=1e-10)
    under = krasnoselskii_mann(admm, START, relaxation=lambda k: 0.5 + 1 / (k + 2), tolerance=1e-10)
    assert over.num_steps < under.num_steps
    np.testing.assert_allclose(over.x, exact, atol=1e-8)
    np.testing.assert_allclose(under.x, exact, atol=1e-8)


def test_momentum_is_faster_where_it_converges(x64):
    """Unseen directions and a denoiser that hardly acts: slow without momentum."""
    term, mild = PROBLEM.term(), Linear(np.linalg.inv(np.eye(SIZE) + 1e-3 * np.diag(np.arange(1.0, SIZE + 1))))
    options = {"sigma": SIGMA, "step": GRADIENT_STEP, "tolerance": 1e-7, "max_steps": 20000}
    slow, fast = pnp_pgd(term, mild, START, **options), pnp_fista(term, mild, START, **options)
    assert fast.num_steps < slow.num_steps / 3


# Batches, compilation, derivatives.


def test_batches_of_data_and_starts_are_made_by_vmap(x64):
    ys = np.stack([PROBLEM.y, 2 * PROBLEM.y, 0 * PROBLEM.y])
    starts = np.random.default_rng(1).normal(size=(3, SIZE))
    term = PROBLEM.term()

    def solve(y, x0):
        return pnp_admm(term.with_data(y), Linear(PROBLEM.w), x0, sigma=SIGMA, step=SIGMA**2, tolerance=1e-10)

    found = jax.jit(jax.vmap(solve))(ys, starts)
    np.testing.assert_allclose(found.x, np.outer([1, 2, 0], PROBLEM.posterior_mean()), atol=1e-8)
    assert np.all(found.converged)


def of_parameters(solver, step, tolerance=1e-12):
    term = PROBLEM.term()

    def total(y, sigma, step, covariance):
        found = solver(
            term.with_data(y), Shrinkage(covariance), START, sigma=sigma, step=step, tolerance=tolerance, max_steps=5000
        )
        return jnp.sum(jnp.sin(found.x))

    return total, (jnp.asarray(PROBLEM.y), jnp.asarray(SIGMA), jnp.asarray(step), jnp.asarray(PROBLEM.c))


def closed_form(y, sigma, step, covariance, kind):
    noisy = covariance + sigma**2 * jnp.eye(SIZE)
    # (W^-1 - I) / gamma = sigma^2 / gamma C^-1; (I - W) / sigma^2 = (C + sigma^2)^-1
    extra = sigma**2 / step * jnp.linalg.inv(covariance) if kind == "plug and play" else jnp.linalg.inv(noisy)
    x = jnp.linalg.solve(PROBLEM.h + extra, PROBLEM.a.T @ y / 0.7**2)
    return jnp.sum(jnp.sin(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "step", "kind"),
    [
        (pnp_admm, SIGMA**2, "plug and play"),
        (red_gradient_descent, RED_STEP, "red"),
    ],
    ids=["admm", "red"],
)
def test_derivatives_of_the_fixed_point_equal_those_of_the_closed_form(solver, step, kind, x64):
    total, parameters = of_parameters(solver, step)
    found = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*parameters)
    exact = jax.jit(jax.grad(closed_form, argnums=(0, 1, 2, 3)), static_argnums=4)(*parameters, kind)
    for ours, theirs in zip(found, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6 * max(float(jnp.max(jnp.abs(theirs))), 1))


@pytest.mark.slow
def test_derivatives_of_a_nonlinear_fixed_point_equal_unrolled_ones(x64, key):
    """A denoiser that is no closed form: tanh of a matrix, contractive."""
    weights = 0.4 * jax.random.normal(key, (SIZE, SIZE)) / np.sqrt(SIZE)
    term = PROBLEM.term()

    def denoiser(weights):
        return lambda x, sigma: jnp.tanh(weights @ x) * sigma + 0.1

    def implicit(weights, sigma):
        found = pnp_pgd(term, denoiser(weights), START, sigma=sigma, step=GRADIENT_STEP, tolerance=1e-12)
        return jnp.sum(found.x**2)

    def unrolled(weights, sigma):
        advance = ProximalGradientMap(term, denoiser(weights), sigma=sigma, step=GRADIENT_STEP)
        x, _ = jax.lax.scan(lambda x, _: (advance(x), None), jnp.asarray(START), length=300)
        return jnp.sum(x**2)

    ours = jax.jit(jax.value_and_grad(implicit, argnums=(0, 1)))(weights, SIGMA)
    theirs = jax.jit(jax.value_and_grad(unrolled, argnums=(0, 1)))(weights, SIGMA)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    sensitivity = jax.jit(lambda sigma: jax.jvp(lambda s: implicit(weights, s), (sigma,), (1.0,)))(SIGMA)[1]
    np.testing.assert_allclose(sensitivity, theirs[1][1], rtol=1e-7)


# What goes wrong.


@pytest.mark.slow
def test_what_looks_converged_and_diverges_later_is_reported():
    """A direction that no datum sees and that the denoiser stretches by a fifth, at first of length 1e-8."""
    term = LeastSquares(Mask(np.array([True, True, False])), np.array([1.0, 2.0]), 1.0)
    stretch = Linear(np.diag([0.5, 0.5, 1.2]))
    x0 = np.array([0.0, 0.0, 1e-8])
    early = pnp_admm(term, stretch, x0, sigma=1.0, step=1.0, max_steps=40, tolerance=1e-9)
    assert early.residuals[39] < 1e-5
    with pytest.raises(Divergence, match=r"pnp_admm: diverged in iteration \d+: a move is .* longer") as caught:
        pnp_admm(term, stretch, x0, sigma=1.0, step=1.0, tolerance=1e-9)
    solution = caught.value.solution
    assert f"that of iteration {int(solution.best_step)} " in str(caught.value)
    np.testing.assert_allclose(solution.x, [0.5, 1.0, 0.0], atol=1e-3)
    starts = np.stack([x0, 0 * x0])
    batch = jax.jit(jax.vmap(lambda x0: pnp_admm(term, stretch, x0, sigma=1.0, step=1.0, tolerance=1e-9)))
    flagged = batch(starts)  # one runs away, the other does not
    np.testing.assert_array_equal(flagged.diverged, [True, False])
    assert not flagged.converged[0]
    np.testing.assert_allclose(flagged.x[0], solution.x, atol=1e-6)
    np.testing.assert_allclose(flagged.x[1], [0.5, 1.0, 0.0], atol=1e-5)


def broken(x, sigma):
    return jnp.where(jnp.abs(x) > 0.4, jnp.nan, 0.5 * x)


def test_a_denoiser_that_returns_nan_is_named():
    term = LeastSquares(Matrix(np.eye(2)), np.ones(2), 1.0)
    with pytest.raises(
        Divergence, match=r"pnp_pgd: diverged in iteration 2: what the denoiser broken returns"
    ) as caught:
        pnp_pgd(term, broken, np.zeros(2), sigma=1.0, step=0.3)
    assert np.all(np.isfinite(caught.value.solution.x))
    with pytest.raises(Divergence, match=r"pnp_drs: in iteration 1, what the denoiser broken returns"):
        pnp_drs(term, broken, np.ones(2), sigma=1.0, step=0.3)
    steep = SmoothDataTerm(lambda x: jnp.sum(jnp.where(x > -1, jnp.inf, 0.0) * x))
    with pytest.raises(Divergence, match="the step towards the data"):
        pnp_pgd(steep, lambda x, sigma: x, np.ones(2), sigma=1.0, step=0.3)
    with pytest.raises(Divergence, match="what the map returns is not finite"):
        krasnoselskii_mann(jnp.log, -np.ones(2))


def test_a_derivative_that_does_not_exist_is_refused():
    """The identity has no isolated fixed point where nothing is seen."""
    term = LeastSquares(Mask(np.array([True, False])), np.ones(1), 1.0)
    with pytest.raises(RuntimeError, match="could not be solved"):
        jax.grad(lambda sigma: jnp.sum(pnp_pgd(term, lambda x, s: x + s - 1, np.ones(2), sigma=sigma, step=0.5).x))(
            1.0
        ).block_until_ready()


TERM = LeastSquares(Matrix(np.eye(2)), np.ones(2), 1.0)
PLAIN = SmoothDataTerm(lambda x: jnp.sum(x**2) / 2, lipschitz=1.0)
HALF = lambda x, sigma: x / 2  # noqa: E731
GOOD = {"sigma": 1.0, "step": 0.5}


def call(solver, *args, **changes):
    term, denoiser, x0 = args or (TERM, HALF, np.zeros(2))
    return lambda: solver(term, denoiser, x0, **(GOOD | changes))


BAD = {
    "term": (call(pnp_pgd, None, HALF, np.zeros(2)), TypeError, "pnp_pgd: `data_term` must be a DataTerm"),
    "no prox": (call(pnp_admm, PLAIN, HALF, np.zeros(2)), TypeError, "pnp_admm: `data_term`, a SmoothDataTerm"),
    "denoiser": (call(pnp_drs, TERM, 0.5, np.zeros(2)), TypeError, "pnp_drs: `denoiser` must be"),
    "x0": (call(pnp_hqs, TERM, HALF, np.zeros(3)), ValueError, "pnp_hqs: `x0` must have the shape"),
    "NaN": (call(pnp_hqs, TERM, HALF, np.full(2, np.nan)), ValueError, "pnp_hqs: `x0` must be finite"),
    "sigma": (call(pnp_pgd, sigma=0.0), ValueError, "pnp_pgd: `sigma` must be positive"),
    "sigmas": (call(pnp_pgd, sigma=np.ones(2)), ValueError, "pnp_pgd: `sigma` must be one number"),
    "step": (call(pnp_pgd, step=-1.0), ValueError, "pnp_pgd: `step` must be positive"),
    "steps": (call(pnp_pgd, step=np.ones(2)), ValueError, "pnp_pgd: `step` must be one number"),
    "long step": (call(pnp_pgd, step=2.01), ValueError, r"pnp_pgd: `step` must be below 2 / L = 2"),
    "long stated": (call(pnp_pgd, PLAIN, HALF, np.zeros(2), step=2.01), ValueError, "pnp_pgd: `step` must be below"),
    "long for momentum": (call(pnp_fista, step=1.1), ValueError, r"pnp_fista: `step` must be at most 1 / L = 1"),
    "long for RED": (call(red_gradient_descent, step=2.01), ValueError, "red_gradient_descent: `step` must be below"),
    "long in RED": (call(red_proximal_gradient, step=2.0), ValueError, "red_proximal_gradient: `step` must be below"),
    "strength": (call(red_proximal_gradient, strength=0.0), ValueError, "`strength` must be positive"),
    "strengths": (call(red_gradient_descent, strength=np.ones(2)), ValueError, "`strength` must be one number"),
    "max_steps": (call(pnp_admm, max_steps=0), ValueError, "pnp_admm: `max_steps` must be"),
    "tolerance": (call(pnp_admm, tolerance=0.0), ValueError, "pnp_admm: `tolerance` must be positive"),
    "shape": (call(pnp_pgd, TERM, lambda x, s: x[:1], np.zeros(2)), ValueError, "must return an array of the shape"),
    "operator": (lambda: krasnoselskii_mann(1.0, np.ones(2)), TypeError, "`operator` must be a function"),
    "image": (lambda: krasnoselskii_mann(jnp.sum, np.ones(2)), ValueError, "`operator` must return an array"),
    "relaxation": (lambda: krasnoselskii_mann(jnp.sin, np.ones(2), relaxation=2.0), ValueError, "must be below 2"),
    "no relaxation": (lambda: krasnoselskii_mann(jnp.sin, np.ones(2), relaxation=0.0), ValueError, "must be positive"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    run, error, message = BAD[case]
    with pytest.raises(error, match=message):
        run()
