"""The checks pass what is right and see what is wrong by little: size and power at known errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Convolution, ExternalLinear, Matrix, check_adjoint, check_gradient


def _with_error(relative, entry=None):
    """A vector-valued function whose reverse-mode derivative is off, in one entry or all."""

    @jax.custom_vjp
    def f(x):
        return jnp.exp(jnp.sin(x) @ jnp.sin(jnp.arange(15.0)).reshape(5, 3) / 3)

    def back(x, w):
        (g,) = jax.vjp(f.fun, x)[1](w)
        return (g * (1 + relative) if entry is None else g.at[entry].multiply(1 + relative),)

    f.defvjp(lambda x: (f(x), x), back)
    return f


X = np.linspace(-1.0, 2.0, 5)


@pytest.mark.slow
def test_a_right_gradient_passes_in_many_draws():
    """128 directions in each precision; ten times the extrapolation's own error has never been exceeded."""
    assert check_gradient(_with_error(0.0), X, num_directions=64).holds
    tree = {"a": X, "b": (jnp.asarray(2.0), 1e5 * jnp.ones((2, 2)))}
    assert check_gradient(lambda t: jnp.sum(t["a"]) * jnp.log(t["b"][1]) * t["b"][0], tree, num_directions=64).holds


def test_a_right_gradient_passes_in_double_precision(x64):
    report = check_gradient(_with_error(0.0), X, num_directions=64)
    assert report.holds
    assert np.all(np.abs(report.orders - 2) < 0.2)  # of the remainder's leading term, seen over a factor of 4 in h
    assert np.max(report.accuracies / np.abs(report.derivatives)) < 1e-6


@pytest.mark.parametrize(("relative", "entry"), [(0.01, None), (-2.0, None), (0.1, 2)])
def test_a_wrong_gradient_is_told(relative, entry):
    report = check_gradient(_with_error(relative, entry), X)
    assert report.decided
    assert not report.holds
    assert str(report).startswith("gradient wrong")
    with pytest.raises(ValueError, match="my solver: gradient wrong"):
        report.require("my solver")


def test_small_errors_are_told_in_double_precision(x64):
    report = check_gradient(_with_error(1e-7), X)
    assert report.decided
    assert not report.holds


def test_the_remainder_of_a_wrong_gradient_is_of_first_order(x64):
    assert np.all(np.abs(check_gradient(_with_error(0.1), X).orders - 1) < 0.2)


def test_a_linear_function_has_no_remainder():
    report = check_gradient(lambda x: 3 * x, X)
    assert report.holds
    assert np.isnan(report.orders).all()


def test_a_noisy_solver_widens_its_own_tolerance(x64):
    """Values to 1e-6 only: an error of 1e-7 is not accused, one of a tenth is; noise alone decides
    nothing."""

    def noisy(relative, noise):
        f = _with_error(relative)

        @jax.custom_vjp
        def g(x):
            return f(x) + noise * jnp.sin(1e9 * jnp.sum(x**2))

        g.defvjp(lambda x: (g(x), x), lambda x, w: jax.vjp(f, x)[1](w))
        return g

    assert check_gradient(noisy(0.0, 1e-6), X, num_directions=32).holds
    assert not check_gradient(noisy(0.1, 1e-6), X).holds
    report = check_gradient(noisy(0.0, 10.0), X)
    assert not report.decided
    assert "not decided" in str(report)


def test_a_constant_has_a_gradient():
    assert check_gradient(lambda x: jnp.ones(3), X).holds


A = np.random.default_rng(0).normal(size=(6, 4))
GRID = Grid((9, 8))


@pytest.mark.parametrize(
    "operator",
    [
        lambda: Matrix(A + 1j * A[::-1]),
        lambda: Convolution.gaussian(GRID, 0.2),
        lambda: ExternalLinear(lambda x: A @ x, lambda y: A.T @ y, (4,), (6,)),
    ],
    ids=["complex", "convolution", "external"],
)
def test_right_adjoints(operator):
    report = check_adjoint(operator(), num_pairs=64)
    assert report.holds, report


@pytest.mark.parametrize("relative", [1e-4, -2.0])
def test_wrong_adjoints(relative):
    report = check_adjoint(ExternalLinear(lambda x: A @ x, lambda y: A.T @ y * (1 + relative), (4,), (6,)))
    assert report.linear
    assert not report.holds
    assert str(report).startswith("adjoint wrong")
    with pytest.raises(ValueError, match="my projector: adjoint wrong"):
        report.require("my projector")


def test_what_is_not_linear():
    report = check_adjoint(ExternalLinear(lambda x: A @ x + 1e-3, lambda y: A.T @ y, (4,), (6,)))
    assert not report.linear
    assert "not linear" in str(report)


def test_zero_is_linear():
    assert check_adjoint(Matrix(np.zeros((3, 2)))).holds


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_gradient(3, X), TypeError, "`f` must be a function"),
        (lambda: check_gradient(jnp.log, -1.0), ValueError, "`f` is not finite"),
        (lambda: check_gradient(jnp.sqrt, 0.0), ValueError, "the derivative of `f` is not finite"),
        (lambda: check_gradient(jnp.sin, X, num_steps=2), ValueError, "`num_steps` must be an integer of 3 or more"),
        (lambda: check_gradient(jnp.sin, X, first_step=0.0), ValueError, "`first_step` must be positive"),
        (lambda: check_gradient(jnp.sin, X, num_directions=0), ValueError, "`num_directions` must be a positive"),
        (lambda: check_gradient(jnp.sin, X, rng_key=3), TypeError, "`rng_key` must be a random key"),
        (lambda: check_gradient(jnp.sin, "a"), TypeError, "`x` must be real numbers"),
        (lambda: check_gradient(jnp.abs, 1j * X), TypeError, "`x` must be real numbers"),
        (lambda: check_gradient(jnp.sin, ()), ValueError, "`x` has no numbers"),
        (lambda: check_gradient(lambda x: 1j * x, X), ValueError, "`f` returns complex numbers"),
        (lambda: check_gradient(lambda x: (), X), ValueError, "`f` returns no numbers"),
        (lambda: check_adjoint(Matrix(A), rng_key=jax.random.split(jax.random.key(0))), ValueError, "one random key"),
        (lambda: check_adjoint(A), TypeError, "`A` must be a LinearOperator"),
        (lambda: check_adjoint(Matrix(A), num_pairs=0), ValueError, "`num_pairs` must be a positive integer"),
        (lambda: check_adjoint(Matrix(A), tolerance=-1.0), ValueError, "`tolerance` must be positive"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
