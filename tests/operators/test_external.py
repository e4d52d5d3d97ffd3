"""Models on the host: values, both derivatives, batches, workers, failures."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, MCMC

from numpyro_inverse._on_host import on_host
from numpyro_inverse.operators import ExternalError, ExternalLinear, check_adjoint, external
from tests.operators.programs import failing, hanging, jacobian, oven, oven_jvp, oven_vjp

POINTS = np.array([[2.0, 3.0], [0.5, -1.0], [-1.0, 4.0]])
JaxError = jax.errors.JaxRuntimeError


def _oven(**options):
    return external(oven, (2,), vjp=oven_vjp, jvp=oven_jvp, **options)


def _traced(theta):
    return jnp.array([theta[0] * theta[1], theta[1] ** 2])


@pytest.mark.parametrize("derivative", [lambda f: f, jax.jacrev, jax.jacfwd])
def test_values_and_derivatives(derivative, x64):
    """Alone, compiled and in nested batches, as of the function that JAX can trace."""
    outside, inside = derivative(_oven(threads=2)), derivative(_traced)
    np.testing.assert_allclose(outside(POINTS[0]), inside(POINTS[0]), rtol=1e-14)
    batches = POINTS[:, None] * np.array([[1.0], [2.0]])
    found = jax.jit(jax.vmap(jax.vmap(outside)))(batches)
    np.testing.assert_allclose(found, jax.vmap(jax.vmap(inside))(jnp.asarray(batches)), rtol=1e-14)


@pytest.mark.slow
def test_several_arguments_and_results(x64):
    """One argument batched and the other not; a gradient for each; cotangents and tangents that are zero."""

    def run(a, k):
        return k @ a, a.sum()

    def back(a, k, w, s):
        return k.T @ w + s, np.outer(w, a)

    def ahead(a, k, da, dk):
        return k @ da + dk @ a, da.sum()

    outside = external(run, [(2,), ()], vjp=back, jvp=ahead)
    inside = lambda a, k: (k @ a, a.sum())  # noqa: E731
    rng = np.random.default_rng(0)
    a, k = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(2, 3)))
    for derivative in (lambda f: f, lambda f: jax.jacrev(f, (0, 1)), lambda f: jax.jacfwd(f, 1)):
        found = jax.vmap(derivative(outside), (0, None))(a, k)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-14),
            found,
            jax.vmap(derivative(inside), (0, None))(a, k),
        )


def test_arguments_that_are_not_finite_are_not_asked():
    G = _oven()
    assert np.isnan(jax.jit(jax.vmap(G))(np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]]))).any(1).tolist() == [
        False,
        True,
        True,
    ]
    assert G.failures == {}


def test_in_single_precision():
    """The program computes in double precision; what comes back has the precision of JAX."""
    seen = []
    G = external(lambda theta: seen.append(theta.dtype) or oven(theta), (2,))
    assert G(jnp.arange(2)).dtype == jnp.float32
    assert seen == [np.float64]


def test_doubles_arrive_as_they_are(x64):
    """In another thread too, where the caller's ``enable_x64`` is not in force: JAX calls from threads of its own."""
    point = jnp.array([1 / 3, 2 / 3])
    for f in (G := external(lambda theta: theta, (2,), vjp=lambda theta, w: w + theta), jax.jacrev(G)):
        program = jax.jit(f).lower(point).compile()
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(lambda program=program: np.asarray(program(point))).result()
        np.testing.assert_array_equal(found, point if f is G else np.eye(2) + np.asarray(point))


def test_integers_arrive_as_they_are(x64):
    """Those of 8 bytes would lose their upper half in a thread without ``enable_x64``."""
    numbers = jnp.array([2**40 + 1, -3])
    program = (
        jax.jit(lambda n: on_host(lambda n: n + 1, jax.ShapeDtypeStruct((2,), n.dtype), n)).lower(numbers).compile()
    )
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(lambda: np.asarray(program(numbers))).result()
    np.testing.assert_array_equal(found, [2**40 + 2, -2])


def test_a_batch_is_run_at_once():
    """Two calls that wait for each other: with one thread they would wait forever."""
    meeting = threading.Barrier(2, timeout=20.0)

    def meet(theta):
        meeting.wait()
        return oven(theta)

    with external(meet, (2,), threads=2) as G:
        np.testing.assert_allclose(jax.vmap(G)(POINTS[:2]), [oven(p) for p in POINTS[:2]], rtol=1e-6)


@pytest.mark.slow
def test_hmc_against_the_traced_model(x64):
    """The same draws, as the same numbers come in."""

    def model(G):
        theta = numpyro.sample("theta", dist.Normal(jnp.array([2.0, 3.0]), 0.3).to_event(1))
        numpyro.sample("y", dist.Normal(G(theta), 0.1).to_event(1), obs=jnp.array([6.0, 9.0]))

    draws = []
    for G in (_oven(threads=2), _traced):
        mcmc = MCMC(
            HMC(model, num_steps=3, adapt_step_size=False, step_size=0.05),
            num_warmup=5,
            num_samples=20,
            num_chains=2,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(0), G)
        draws.append(mcmc.get_samples()["theta"])
    np.testing.assert_allclose(*draws, rtol=1e-9)


def test_processes_and_their_time_limit():
    """One that hangs is ended and becomes NaN; the others of its batch are right."""
    with external(hanging, (2,), processes=2, timeout=3.0, allowed_failures=1) as G:
        found = np.asarray(jax.vmap(G)(POINTS))
    np.testing.assert_allclose(found[:2], [oven(p) for p in POINTS[:2]], rtol=1e-6)
    assert np.isnan(found[2]).all()
    assert G.failures == {"no result within 3 s": 1}


def _moody(bad):
    """A function that fails in its first ``bad`` calls."""
    calls = []

    def run(theta):
        calls.append(theta)
        if len(calls) <= bad:
            raise ArithmeticError("no convergence")
        return oven(theta)

    return run


def test_retries_and_allowed_failures():
    np.testing.assert_allclose(external(_moody(2), (2,), retries=2)(POINTS[0]), oven(POINTS[0]))
    G = external(_moody(3), (2,), allowed_failures=2)
    assert np.isnan(G(POINTS[0])).all()
    assert np.isnan(G(POINTS[0])).all()
    with pytest.raises((JaxError, ValueError), match="Failure 3; `allowed_failures` is 2"):
        G(POINTS[0]).block_until_ready()
    assert G.failures == {"ArithmeticError: no convergence": 3}
    np.testing.assert_allclose(G(POINTS[0]), oven(POINTS[0]))


@pytest.mark.parametrize("options", [{"threads": 2}, {"processes": 1}])
def test_a_failure_keeps_nothing_alive(options):
    """The argument goes when its last name goes, not when Python next collects circles: a failure remembers the error
    but not the frames of who called, whose arrays JAX would go on to find by their address, in the old precision."""
    points = POINTS.copy()
    gone = weakref.ref(points)
    gc.disable()
    try:
        with external(failing, (2,), allowed_failures=3, **options) as G:
            assert np.isnan(jax.vmap(G)(points)).all()
        del points
        assert gone() is None
    finally:
        gc.enable()


def test_a_program_that_uses_one_buffer_or_overwrites_its_arguments(x64):
    """Each call of a batch keeps its own result, and a call tried again gets the arguments of the first time."""
    buffer, calls = np.zeros(2), []

    def run(theta):
        buffer[:] = oven(theta)
        theta *= 2
        calls.append(None)
        if len(calls) == 1:
            raise ArithmeticError("no convergence")
        return buffer

    G = external(run, (2,), vjp=lambda theta, w: run(theta), retries=1)
    np.testing.assert_array_equal(jax.vmap(G)(POINTS), [oven(p) for p in POINTS])
    A = ExternalLinear(run, run, (2,), (2,))
    np.testing.assert_array_equal(A(POINTS), [oven(p) for p in POINTS])
    np.testing.assert_array_equal(A.T(POINTS), [oven(p) for p in POINTS])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_moody(9), r"oven: the model failed in 2 tries in call 2 of 3, at arguments \[ 0.5 -1. \]: ArithmeticError"),
        (lambda theta: np.full(2, np.nan), "NaN or infinite values in the result"),
        (lambda theta: np.zeros(3), r"an array of shape \(3,\) instead of \(2,\)"),
        (lambda theta: None, "it returned None"),
        (lambda theta: 1j * theta, "it returned complex numbers; return real and imaginary parts"),
    ],
)
def test_a_failure_says_what_and_where(function, message):
    def one_bad(theta):
        return function(theta) if theta[1] < 0 else oven(theta)

    with pytest.raises(JaxError, match=message):
        jax.block_until_ready(jax.vmap(external(one_bad, (2,), name="oven", retries=1))(POINTS))


def test_a_derivative_that_fails_says_so():
    G = external(oven, (2,), vjp=lambda theta, w: np.zeros(3), name="oven")
    with pytest.raises(JaxError, match=r"oven: vjp failed in call 1 of 1, at arguments \[2. 3.\]; \[1. 1.\]"):
        jax.block_until_ready(jax.grad(lambda theta: G(theta).sum())(POINTS[0]))
    assert issubclass(ExternalError, RuntimeError)


def test_derivatives_that_are_not_known():
    point = jnp.asarray(POINTS[0])
    with pytest.raises(TypeError, match="its derivative is not known"):
        jax.jvp(external(oven, (2,)), (point,), (point,))
    with pytest.raises(JaxError, match="forward-mode derivatives need `jvp`"):
        jax.block_until_ready(jax.jvp(external(oven, (2,), vjp=oven_vjp), (point,), (point,)))
    with pytest.raises(JaxError, match="reverse-mode derivatives need `vjp`"):
        jax.block_until_ready(jax.jacrev(external(oven, (2,), jvp=oven_jvp))(point))
    with pytest.raises(TypeError, match="second derivatives are not known"):
        jax.hessian(lambda theta: _oven()(theta).sum())(point)


def test_a_linear_operator_of_two_functions():
    """Its algebra and both of its directions; inside jit as an argument, too."""
    matrix = jacobian(POINTS[0])
    A = ExternalLinear(lambda x: matrix @ x, lambda y: matrix.T @ y, (2,), (2,))
    np.testing.assert_allclose(A.as_matrix(), matrix, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda A, x: (A.T @ A)(x))(A, POINTS), POINTS @ matrix.T @ matrix, rtol=1e-5)
    np.testing.assert_allclose(A(1j * POINTS), 1j * POINTS @ matrix.T, rtol=1e-6)
    assert check_adjoint(A).holds


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: external(3, (2,)), TypeError, "`function` must be a function"),
        (lambda: external(oven, (2,), vjp=3), TypeError, "`vjp` must be a function"),
        (lambda: external(lambda x: x, (2,), processes=1), TypeError, "cannot be sent to another process"),
        (lambda: external(oven, 2), TypeError, "`shape` must be a tuple of integers or a list"),
        (lambda: external(oven, (2,), timeout=1.0), ValueError, "`timeout` needs `processes`"),
        (lambda: external(oven, (2,), threads=0), ValueError, "`threads` must be a positive integer"),
        (lambda: external(oven, (2,), retries=-1), ValueError, "`retries` must be an integer of 0 or more"),
        (lambda: external(oven, (2,), allowed_failures=-1), ValueError, "`allowed_failures` must be an integer"),
        (lambda: external(oven, (2,), name=3), TypeError, "`name` must be a string"),
        (lambda: external(oven, (2,))(), TypeError, "called without arguments"),
        (lambda: external(oven, (2,))("a"), TypeError, "argument 0"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
