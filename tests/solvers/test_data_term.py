"""Data terms: gradients and proximal points against dense algebra, bounds against eigenvalues, terms of models."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse.distributions import ComplexNormal
from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Convolution, Fourier, LinearOperator, Mask, Matrix, Stack
from numpyro_inverse.solvers import LeastSquares, SmoothDataTerm, model_data_term
from numpyro_inverse.solvers._spectrum import MatrixFree

SHAPE, SCALE, STEP = (6, 6), 0.3, 0.05
KEPT = np.arange(36).reshape(SHAPE) % 3 == 0
rng = np.random.default_rng(0)
BLUR = Convolution.gaussian(Grid(SHAPE, boundary="periodic"), width=0.1)

OPERATORS = {
    "mask": (2.0 * Mask(KEPT), "Diagonal"),
    "two blurs on a torus": (Stack(BLUR, 3.0 * BLUR @ BLUR), "Circulant"),
    "Fourier samples": (Fourier(KEPT), "Circulant"),
    "masked blur": (Mask(KEPT) @ BLUR, "Dense"),
    "complex": (Matrix(rng.normal(size=(20, 36)) + 1j * rng.normal(size=(20, 36)), SHAPE), "Dense"),
}


@eqx.filter_jit
def evaluated(term, x):
    return term.value(x), term.gradient(x), term.prox(x, STEP)


def dense(operator):
    matrix = np.asarray(eqx.filter_jit(LinearOperator.as_matrix)(operator), complex)
    return np.concatenate([matrix.real, matrix.imag])


@pytest.mark.parametrize("name", OPERATORS)
def test_least_squares_against_dense_algebra(name, key):
    operator, form = OPERATORS[name]
    rng, matrix = np.random.default_rng(1), dense(operator)
    y = rng.normal(size=operator.out_shape) + (1j * rng.normal(size=operator.out_shape) if name == "complex" else 0)
    x = jax.random.normal(key, SHAPE)
    data = np.concatenate([np.ravel(y).real, np.ravel(y).imag])
    term = LeastSquares(operator, y, SCALE)
    assert type(term.spectrum).__name__ == form
    h, flat = matrix.T @ matrix / SCALE**2, np.ravel(x).astype(float)
    values = np.linalg.eigvalsh(h)
    residual = matrix @ flat - data
    gradient = matrix.T @ residual / SCALE**2
    near = np.linalg.solve(np.eye(36) + STEP * h, flat + STEP * matrix.T @ data / SCALE**2)
    rounding = 1e-5 * values[-1]  # single precision, 36 terms, condition numbers to 1e3 within the proximal point
    found = evaluated(term, x)
    np.testing.assert_allclose(found[0], residual @ residual / (2 * SCALE**2), rtol=1e-5)
    np.testing.assert_allclose(np.ravel(found[1]), gradient, atol=rounding * 10)
    np.testing.assert_allclose(np.ravel(found[2]), near, atol=max(1e-5, rounding * STEP))
    largest, smallest = term.lipschitz(), term.strong_convexity()
    assert largest.certified
    assert smallest.certified
    assert values[-1] * (1 - 1e-6) <= largest.bound <= values[-1] * 1.003
    assert max(values[0] - 0.003 * values[-1], 0) <= smallest.bound <= max(values[0] * (1 + 1e-5), 1e-6)
    assert values[-1] * 0.997 <= term.least_lipschitz() <= values[-1] * (1 + 1e-6)


@pytest.mark.slow
def test_conjugate_gradients_are_as_good_as_a_factorization(key):
    operator = Mask(KEPT) @ BLUR
    term = LeastSquares(operator, jnp.ones(operator.out_shape), SCALE, tolerance=1e-6)
    free = eqx.tree_at(lambda t: t.spectrum, term, MatrixFree(operator, 1e-6))
    x = jax.random.normal(key, SHAPE)
    assert type(term.spectrum).__name__ == "Dense"
    np.testing.assert_allclose(evaluated(free, x)[2], evaluated(term, x)[2], atol=1e-5)
    assert free.least_lipschitz() <= term.lipschitz().bound <= free.lipschitz().bound
    assert free.lipschitz().certified
    assert free.strong_convexity().bound == 0


class Unbounded(LinearOperator):
    """A bidiagonal matrix of which no bound is known."""

    in_shape: tuple[int, ...] = (9,)
    out_shape: tuple[int, ...] = (9,)

    def mv(self, x):
        return 2 * x + jnp.roll(x, 1).at[0].set(0)


def test_without_a_bound_of_the_norm_the_estimate_says_so():
    free = MatrixFree(Unbounded(), 1e-6)
    found = free.largest()
    assert not found.certified
    assert found.bound == pytest.approx(np.linalg.norm(dense(Unbounded()), 2) ** 2, rel=1e-3)


def test_a_traced_operator_has_derivatives(x64):
    """The blur's strength is inferred: the term is made inside the differentiated function, without factors."""
    rng = np.random.default_rng(1)
    matrix, y, x = rng.normal(size=(5, 4)), rng.normal(size=5), jnp.asarray(rng.normal(size=4))

    def near(factor):
        return jnp.sum(LeastSquares(factor * Matrix(matrix), y, SCALE).prox(x, STEP) ** 2)

    def exact(factor):
        a = factor * matrix / SCALE
        return jnp.sum(jnp.linalg.solve(jnp.eye(4) + STEP * a.T @ a, x + STEP * a.T @ (y / SCALE)) ** 2)

    np.testing.assert_allclose(jax.jit(jax.grad(near))(1.3), jax.jit(jax.grad(exact))(1.3), rtol=1e-7)


def test_other_data_keep_the_factors(key):
    term = LeastSquares(OPERATORS["mask"][0], np.zeros(12), SCALE)
    ys = jax.random.normal(key, (3, 12))
    found = jax.jit(jax.vmap(lambda y: term.with_data(y).prox(jnp.zeros(SHAPE), STEP)))(ys)
    alone = evaluated(LeastSquares(term.operator, ys[2], SCALE), jnp.zeros(SHAPE))[2]
    np.testing.assert_allclose(found[2], alone, atol=1e-6)


def model(y=None, z=None):
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    x = numpyro.sample("x", dist.Normal(0, 1).expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.cumsum(x) + 1.0, noise * jnp.arange(1.0, 6.0)).to_event(1), obs=y)
    with numpyro.plate("two", 2):
        numpyro.sample("z", ComplexNormal(x[:2] * (1 + 2j), 0.5), obs=z)


Y, Z = rng.normal(size=5), rng.normal(size=2) + 1j * rng.normal(size=2)


@pytest.mark.slow
def test_the_term_of_a_gaussian_model_is_least_squares(x64, key):
    term = model_data_term(model, "x", model_kwargs={"y": Y, "z": Z}, values={"noise": 0.7})
    assert isinstance(term, LeastSquares)

    def exact(x):
        wide = (Y - jnp.cumsum(x) - 1) / (0.7 * jnp.arange(1.0, 6.0))
        return jnp.sum(wide**2) / 2 + jnp.sum(jnp.abs(Z - x[:2] * (1 + 2j)) ** 2) / (2 * 0.5**2)

    x = jax.random.normal(key, (5,))
    value, gradient, near = evaluated(term, x)
    slope = jax.jit(jax.grad(exact))
    np.testing.assert_allclose(value, exact(x), rtol=1e-10)
    np.testing.assert_allclose(gradient, slope(x), rtol=1e-8)
    np.testing.assert_allclose(near + STEP * slope(near), x, rtol=1e-8)


def counts(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([5]).to_event(1))
    numpyro.sample("y", dist.Poisson(jnp.exp(x)).to_event(1), obs=y)
    numpyro.factor("prior", -jnp.sum(x**4))


def bent(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(x + 0.01 * x**2, 1.0).to_event(1), obs=y)


def uneven(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([5]).to_event(1))
    numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.01 * x)).to_event(1), obs=y)


def test_the_term_of_any_other_model_is_smooth(key):
    x, y = jax.random.normal(key, (5,)), np.arange(5)
    term = model_data_term(counts, "x", model_args=(y,), observed=["y"])
    assert not term.has_prox
    np.testing.assert_allclose(term.gradient(x), jnp.exp(x) - y, rtol=1e-5)
    both = model_data_term(counts, "x", model_args=(y,), observed=["y", "prior"])
    np.testing.assert_allclose(both.value(x) - term.value(x), jnp.sum(x**4), rtol=1e-4)
    assert isinstance(model_data_term(bent, "x", model_args=(Y,)), SmoothDataTerm)
    assert isinstance(model_data_term(uneven, "x", model_args=(Y,)), SmoothDataTerm)
    traced = jax.jit(lambda y: model_data_term(bent, "x", model_args=(y,)).value(jnp.zeros(5)))(Y)
    np.testing.assert_allclose(traced, jnp.sum(Y**2) / 2 + 2.5 * np.log(2 * np.pi), rtol=1e-5)


IDENTITY = Matrix(np.eye(3))
GAUSSIAN = {"model_kwargs": {"y": Y, "z": Z}, "values": {"noise": 0.7}}
BAD = {
    "operator": (lambda: LeastSquares(np.eye(3), np.ones(3), 1.0), TypeError, "`operator` must be a LinearOperator"),
    "data of text": (lambda: LeastSquares(IDENTITY, "y", 1.0), TypeError, "`data` must be numbers"),
    "shape": (lambda: LeastSquares(IDENTITY, np.ones(2), 1.0), ValueError, "`data` must have the shape"),
    "data": (lambda: LeastSquares(IDENTITY, [0, np.nan, 1], 1.0), ValueError, "`data` must be finite"),
    "complex": (
        lambda: LeastSquares(IDENTITY, [1, 1, complex(0, np.inf)], 1.0),
        ValueError,
        "`data` must be finite",
    ),
    "scale": (lambda: LeastSquares(IDENTITY, np.ones(3), 0.0), ValueError, "`scale` must be positive"),
    "scales": (lambda: LeastSquares(IDENTITY, np.ones(3), np.ones(3)), ValueError, "`scale` must be one number"),
    "tolerance": (lambda: LeastSquares(IDENTITY, np.ones(3), 1.0, tolerance=0.0), ValueError, "`tolerance` must be"),
    "function": (lambda: SmoothDataTerm(3.0), TypeError, "`function` must be a function"),
    "vector": (lambda: SmoothDataTerm(jnp.sin).value(jnp.ones(3)), ValueError, "must return one number"),
    "bounds": (
        lambda: SmoothDataTerm(jnp.sum, lipschitz=1.0, strong_convexity=2.0),
        ValueError,
        "`strong_convexity` 2.0 is above",
    ),
    "no prox": (lambda: SmoothDataTerm(jnp.sum).prox(jnp.ones(3), 1.0), TypeError, "no proximal operator"),
    "model": (lambda: model_data_term(None, "x"), TypeError, "`model` must be a NumPyro model"),
    "no site": (lambda: model_data_term(model, "w", **GAUSSIAN), ValueError, "got 'w'"),
    "site": (lambda: model_data_term(model, 1, **GAUSSIAN), TypeError, "`site` must be the name"),
    "values": (lambda: model_data_term(model, "x", **(GAUSSIAN | {"values": {}})), ValueError, "'noise' has none"),
    "strange value": (
        lambda: model_data_term(model, "x", **(GAUSSIAN | {"values": {"noise": 1.0, "w": 1.0}})),
        ValueError,
        "has 'w'",
    ),
    "factor": (lambda: model_data_term(counts, "x", model_args=(np.arange(5),)), ValueError, "the factor 'prior'"),
    "no data": (lambda: model_data_term(model, "x", values={"noise": 1.0}), ValueError, "every other latent"),
    "observed": (lambda: model_data_term(model, "x", **GAUSSIAN, observed=["w"]), ValueError, "got 'w'"),
    "NaN": (lambda: model_data_term(bent, "x", model_args=(Y * np.nan,)), ValueError, "5 data of site 'y'"),
    "complex data": (lambda: model_data_term(bent, "x", model_args=(Y + 0j,)), ValueError, "is a law of real"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        make()
