"""Latent Gaussian models against dense algebra, quadrature and finite differences."""

from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gammaln

import numpyro_inverse as ni
from numpyro_inverse.distributions import BarrierMatern, Matern, NonstationaryMatern, SpectralField
from numpyro_inverse.domains import Barrier, ElementMatrices, Grid
from numpyro_inverse.infer import LatentGaussian
from numpyro_inverse.infer.latent_gaussian._reading import read_model
from numpyro_inverse.infer.latent_gaussian._sparse_latents import sparse_latents
from tests.distributions.mesh_reference import precision
from tests.domains.meshes import interval

HYPER = {"range": 0.5, "scale": 1.2, "noise": 0.4}
PLACES = np.random.default_rng(0).uniform(0.05, 0.95, 15)
COVARIATE = np.random.default_rng(1).normal(size=15)
Y = jnp.array([0.3, -0.2, 1.0, 0.4])
DATA = np.random.default_rng(2).normal(size=15) + 0.5
COUNTS = np.random.default_rng(3).poisson(3.0, size=15)


def _hyper(smoothness):
    range_ = numpyro.sample("range", dist.LogNormal(-0.7, 0.3))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    return {"range": range_, "scale": scale, "smoothness": smoothness}


def regression(mesh, seen, x, y=None):
    """Normal data over a trend and a field."""
    law = _hyper(1.5)
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.3))
    a = numpyro.sample("a", dist.Normal(0.3, 2.0))
    b = numpyro.sample("b", dist.Normal(jnp.array([0.0]), 1.5).to_event(1))
    field = numpyro.sample("field", Matern(mesh, mean=0.2, **law))
    eta = numpyro.deterministic("eta", a + b[0] * x + seen(field))
    numpyro.sample("y", dist.Normal(eta, noise).to_event(1), obs=y)


def counts(mesh, seen, y=None):
    """Counts over a line, with a dispersion."""
    law = _hyper(0.5)
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 0.3))
    a = numpyro.sample("a", dist.Normal(0, 2))
    eta = numpyro.deterministic("eta", a + seen(numpyro.sample("field", Matern(mesh, **law))))
    numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(eta), 1 / noise).to_event(1), obs=y)


@cache
def fitted(which):
    """Made once, in double precision."""
    mesh = interval(8)
    seen = mesh.interpolation(PLACES)
    if which == "regression":
        return LatentGaussian(regression, "eta", model_args=(mesh, seen, jnp.asarray(COVARIATE), jnp.asarray(DATA)))
    return LatentGaussian(counts, "eta", model_args=(mesh, seen, jnp.asarray(COUNTS)))


@eqx.filter_jit
def value_and_grad(latent, hyper):
    return jax.value_and_grad(latent.log_marginal)(hyper)


def differences(function, hyper, step=1e-4):
    """Fourth-order central differences."""
    slopes = {}
    for name in hyper:
        far, near, below, further = (function(hyper | {name: hyper[name] + k * step}) for k in (2, 1, -1, -2))
        slopes[name] = (8 * (near - below) - (far - further)) / (12 * step)
    return slopes


def _observation(latent):
    """A dense, with a column of ones for an intercept and one for a covariate."""
    mesh, seen = latent.reading.args[:2]
    columns = [np.asarray(seen.as_matrix()), np.ones((15, 1)), COVARIATE[:, None]]
    return mesh, np.concatenate(columns if "b" in latent.reading.latents else columns[:2], axis=1)


def _prior(mesh, smoothness, hyper):
    q = precision(mesh, smoothness, hyper["range"], hyper["scale"])
    effects = [2.0**-2, 1.5**-2] if smoothness == 1.5 else [2.0**-2]
    return np.block([[q, np.zeros((len(q), len(effects)))], [np.zeros((len(effects), len(q))), np.diag(effects)]])


def _posterior(latent):
    """Mean and covariance of all latents, dense."""
    mesh, a = _observation(latent)
    mean = np.concatenate([np.full(mesh.size, 0.2), [0.3, 0.0]])
    covariance = np.linalg.inv(_prior(mesh, 1.5, HYPER) + a.T @ a / HYPER["noise"] ** 2)
    return mean + covariance @ a.T @ (DATA - a @ mean) / HYPER["noise"] ** 2, covariance, a


def test_normal_data_are_exact(x64):
    """Density to 1e-8, gradient by finite differences to 1e-7, means and spreads to 1e-8."""
    latent = fitted("regression")
    assert type(latent.latents).__name__ == "SparseLatents"
    assert (latent.reading.latents, latent.reading.hyper) == (("field", "a", "b"), ("range", "scale", "noise"))
    mesh, a = _observation(latent)
    mean = np.concatenate([np.full(mesh.size, 0.2), [0.3, 0.0]])

    def evidence(hyper):
        s = a @ np.linalg.solve(_prior(mesh, 1.5, hyper), a.T) + hyper["noise"] ** 2 * np.eye(15)
        r = DATA - a @ mean
        return -0.5 * (r @ np.linalg.solve(s, r) + np.linalg.slogdet(s)[1] + 15 * np.log(2 * np.pi))

    value, slopes = value_and_grad(latent, HYPER)
    np.testing.assert_allclose(value, evidence(HYPER), rtol=1e-8)
    for name, slope in differences(evidence, HYPER).items():
        np.testing.assert_allclose(slopes[name], slope, rtol=1e-7)

    center, covariance, _ = _posterior(latent)
    found = latent.marginals({k: jnp.full(2, v) for k, v in HYPER.items()})
    joined = [np.concatenate([np.ravel(found[k][i]) for k in ("field", "a", "b")]) for i in (0, 1)]
    np.testing.assert_allclose(joined[0], center, rtol=1e-8)
    np.testing.assert_allclose(joined[1], np.sqrt(np.diag(covariance)), rtol=1e-8)
    np.testing.assert_allclose(found["eta"].sd, np.sqrt(np.diag(a @ covariance @ a.T)), rtol=1e-8)


@pytest.mark.statistical
def test_draws_of_the_latents(x64):
    """Means and sums of squares of whitened draws (false alarms 1e-5), the predictor, and the export."""
    latent = fitted("regression")
    center, covariance, a = _posterior(latent)
    draws = latent.sample(jax.random.key(5), {k: jnp.full((2, 200), v) for k, v in HYPER.items()})
    assert draws["field"].shape == (2, 200, latent.reading.args[0].size)
    joined = np.concatenate([np.reshape(draws[k], (400, -1)) for k in ("field", "a", "b")], axis=1)
    white = (joined - center) @ np.linalg.cholesky(np.linalg.inv(covariance))
    n = white.shape[1]  # means of 400 are normal, sums of squares chi-squared of 400 n; false alarms 1e-5
    assert np.sqrt(400) * np.abs(white.mean(0)).max() < 5.4
    assert abs(np.sum(white**2) / (400 * n) - 1) < 4.5 * np.sqrt(2 / (400 * n))
    np.testing.assert_allclose(np.reshape(draws["eta"], (400, -1)), joined @ a.T, rtol=1e-8)
    options = {"model_args": latent.reading.args, "posterior_predictive": False, "log_likelihood": False}
    assert ni.to_arviz(draws, regression, **options)["posterior"]["field"].dims == ("chain", "draw", "node")


def _independent(latent, hyper, log_likelihood, a, q, mean):
    """The Laplace approximation by plain Newton steps on dense matrices, derivatives of the likelihood by JAX."""
    gradient = jax.grad(lambda eta: jnp.sum(log_likelihood(eta, hyper)))
    x = mean
    for _ in range(30):
        eta = jnp.asarray(a @ x)
        g, w = np.asarray(gradient(eta)), -np.asarray(jax.jvp(gradient, (eta,), (jnp.ones_like(eta),))[1])
        h = q + a.T @ (w[:, None] * a)
        x = x + np.linalg.solve(h, a.T @ g - q @ (x - mean))
    value = float(jnp.sum(log_likelihood(jnp.asarray(a @ x), hyper))) - 0.5 * (x - mean) @ q @ (x - mean)
    return value + 0.5 * (np.linalg.slogdet(q)[1] - np.linalg.slogdet(h)[1])


@pytest.mark.slow
def test_counts_against_an_independent_laplace_approximation(x64):
    """The mode, the determinant and their derivatives, third ones of the likelihood among them."""
    latent = fitted("counts")
    mesh, a = _observation(latent)

    def log_likelihood(eta, hyper):
        return dist.NegativeBinomial2(jnp.exp(eta), 1 / hyper["noise"]).log_prob(jnp.asarray(COUNTS))

    def reference(hyper):
        return _independent(latent, hyper, log_likelihood, a, _prior(mesh, 0.5, hyper), np.zeros(mesh.size + 1))

    value, slopes = value_and_grad(latent, HYPER)
    np.testing.assert_allclose(value, reference(HYPER), rtol=1e-9)
    for name, slope in differences(reference, HYPER, 1e-3).items():
        np.testing.assert_allclose(slopes[name], slope, rtol=1e-6)


FAMILIES = {
    "poisson": (lambda eta: dist.Poisson(jnp.exp(eta)), COUNTS),
    "binomial": (lambda eta: dist.BinomialLogits(eta, total_count=12), np.minimum(COUNTS, 12)),
    "bernoulli": (lambda eta: dist.BernoulliLogits(eta), (COUNTS > 3).astype(int)),
}


def on_a_grid(family, scale, y):
    """A field on a grid, whose amplitude is a factor of the predictor."""
    grid = Grid(6)
    amplitude = numpyro.sample("amplitude", dist.LogNormal(0.0, scale))
    a = numpyro.sample("a", dist.Normal(0.5, 1.0))
    field = numpyro.sample("field", SpectralField(grid, 1 / (1 + grid.eigenvalues)))
    eta = numpyro.deterministic("eta", a + amplitude * field)
    numpyro.sample("y", FAMILIES[family][0](eta).to_event(1), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["poisson", *(pytest.param(k, marks=pytest.mark.statistical) for k in ("binomial", "bernoulli"))]
)
def test_fields_of_any_kind_by_dense_algebra(family, x64):
    y = jnp.asarray(FAMILIES[family][1][:6])
    latent = LatentGaussian(partial(on_a_grid, family), "eta", model_args=(0.5, y))
    assert type(latent.latents).__name__ == "DenseLatents"
    grid = Grid(6)
    prior = np.asarray(SpectralField(grid, 1 / (1 + grid.eigenvalues)).covariance_matrix).reshape(6, 6)
    q = np.block([[np.linalg.inv(prior), np.zeros((6, 1))], [np.zeros((1, 6)), np.ones((1, 1))]])

    def reference(hyper):
        a = np.concatenate([hyper["amplitude"] * np.eye(6), np.ones((6, 1))], axis=1)
        mean = np.concatenate([np.zeros(6), [0.5]])
        return _independent(latent, hyper, lambda eta, _: FAMILIES[family][0](eta).log_prob(y), a, q, mean)

    hyper = {"amplitude": 0.8}
    value, slopes = value_and_grad(latent, hyper)
    np.testing.assert_allclose(value, reference(hyper), rtol=1e-9)
    np.testing.assert_allclose(slopes["amplitude"], differences(reference, hyper, 1e-3)["amplitude"], rtol=1e-6)


def one_cell(y):
    u = numpyro.sample("u", dist.Normal(1.0, 0.8))
    numpyro.sample("y", dist.Poisson(jnp.exp(numpyro.deterministic("eta", u))), obs=y)


@pytest.mark.slow
def test_one_poisson_cell_by_quadrature(x64):
    """The next term of the expansion in the inverse counts is 1 / (12 y) at most, here by its constant."""
    latent = LatentGaussian(one_cell, "eta", sites=["u"], model_args=(jnp.asarray(40),))

    def integrand(u):
        return np.exp(40 * u - np.exp(u) - gammaln(41) - 0.5 * ((u - 1) / 0.8) ** 2) / (0.8 * np.sqrt(2 * np.pi))

    exact = np.log(quad(integrand, -4, 8, points=[3.0, 3.6], epsabs=0, epsrel=1e-12, limit=200)[0])
    assert 1e-5 < abs(value_and_grad(latent, {})[0] - exact) < 1 / (12 * 40)
    found = latent.marginals({})["u"]
    np.testing.assert_allclose(40 - np.exp(found.mean) - (found.mean - 1) / 0.64, 0, atol=1e-9)
    np.testing.assert_allclose(found.sd**-2, np.exp(found.mean) + 1 / 0.64, rtol=1e-9)


@pytest.mark.statistical
def test_chains_in_single_precision():
    """NUTS on the marginal; its densities are those in double precision."""
    mesh = interval(8)
    arguments = (mesh, mesh.interpolation(PLACES), jnp.asarray(COUNTS))
    latent = LatentGaussian(counts, "eta", model_args=arguments)
    mcmc = MCMC(NUTS(latent.model, max_tree_depth=2), num_warmup=3, num_samples=2, progress_bar=False)
    mcmc.run(jax.random.key(0), latent, extra_fields=("potential_energy",))
    draws, energy = mcmc.get_samples(), mcmc.get_extra_fields()["potential_energy"]
    assert set(draws) == {"range", "scale", "noise"}
    with jax.enable_x64(True):
        exact, prior = fitted("counts"), {"range": (-0.7, 0.3), "scale": (0.0, 0.3), "noise": (0.0, 0.3)}
        for k in range(2):
            hyper = {name: jnp.asarray(x[k], float) for name, x in draws.items()}
            expected = value_and_grad(exact, hyper)[0]
            expected += sum(dist.Normal(*prior[k]).log_prob(jnp.log(x)) for k, x in hyper.items())
            np.testing.assert_allclose(-energy[k], expected, rtol=1e-5)


# What is refused.


def _laws():
    mesh = interval(8)
    inside = np.arange(7) > 4
    ranges = np.linspace(0.3, 0.6, mesh.size)
    return {
        "barrier": (True, lambda scale: BarrierMatern(Barrier(mesh, inside), range=0.5, scale=scale)),
        "nonstationary": (
            True,
            lambda scale: NonstationaryMatern(ElementMatrices(mesh), range=ranges, scale=scale, smoothness=1.5),
        ),
        "fractional": (False, lambda scale: Matern(mesh, range=0.5, scale=scale, smoothness=1.0)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["barrier", "nonstationary", "fractional"])
def test_other_fields_on_meshes(x64, name):
    """Those with another equation give their own law: by sparse factors where it has them, else dense. Exact to 1e-8,
    by the covariance of the field as a map of white noise.
    """
    sparse, law = _laws()[name]
    seen = interval(8).interpolation(PLACES)

    def model(y):
        field = numpyro.sample("field", law(numpyro.sample("scale", dist.LogNormal(0.0, 0.3))))
        eta = numpyro.deterministic("eta", seen(field))
        numpyro.sample("y", dist.Normal(eta, 0.4).to_event(1), obs=y)

    latent = LatentGaussian(model, "eta", model_args=(jnp.asarray(DATA),))
    assert (type(latent.latents).__name__ == "SparseLatents") == sparse
    field = law(1.2)
    root = np.asarray(seen.as_matrix()) @ np.asarray(jax.jacobian(field.from_base)(jnp.zeros(field.base_dist.shape())))
    reference = dist.MultivariateNormal(jnp.zeros(15), jnp.asarray(root @ root.T + 0.4**2 * np.eye(15)))
    np.testing.assert_allclose(latent.log_marginal({"scale": 1.2}), reference.log_prob(DATA), rtol=1e-8)


def test_effects_are_in_the_order_of_the_model():
    """Draws for a key depend on it."""

    def model(y):
        second, first = (numpyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("second", "first"))
        u = numpyro.sample("u", SpectralField(Grid(4), jnp.ones(4)))
        numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", second + first + u), 1.0).to_event(1), obs=y)

    reading, *_ = read_model(model, (jnp.zeros(4),), {}, ("eta",), None)
    assert reading.latents == ("u", "second", "first")


def _cells(y, law):
    """Four independent cells of variance 400, each seen by itself."""
    u = numpyro.sample("u", SpectralField(Grid(4), jnp.full(4, 100.0)))
    eta = numpyro.deterministic("eta", u)
    numpyro.sample("y", law(eta).to_event(1), obs=y)


@pytest.mark.slow
def test_a_law_of_logits_at_zero(x64):
    """Newton's method begins at a predictor of zero, where NumPyro's gradient is y for y - n / 2: of another sign.

    The mode by bisection of 9 - 10 / (1 + exp(-u)) = u / 400 in each cell; one success is nine failures.
    """
    y, law = jnp.array([1.0, 9.0, 9.0, 1.0]), lambda eta: dist.Binomial(10, logits=eta)
    latent = LatentGaussian(_cells, "eta", model_args=(y, law))
    likelihood = latent.reading.log_likelihood({}, latent.reading.trace({}))
    np.testing.assert_allclose(jax.grad(likelihood)(jnp.zeros(4)), y - 5, rtol=1e-9)
    mode = brentq(lambda u: 9 - 10 / (1 + np.exp(-u)) - u / 400, 0, 30, xtol=1e-13)
    weight = 10 * np.exp(-mode) / (1 + np.exp(-mode)) ** 2
    like = np.log(10) + 9 * mode - 10 * np.log1p(np.exp(mode))
    value = 4 * (like - mode**2 / 800 - 0.5 * np.log1p(400 * weight))
    np.testing.assert_allclose(latent.log_marginal({}), value, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [[20_000, 21_000], [0, 3], [0, 0]])
@pytest.mark.parametrize("double", [True, False])
def test_counts_far_from_the_prior_mean(counts, double):
    """From a rate of 1, a full Newton step to such counts is 2^11 times too long, and the Hessian of their density a
    difference of large terms. The Laplace approximation with a mode from bisection, in closed form."""
    y, variance = np.array(counts), 100.0
    with jax.enable_x64(double):

        def model(y):
            a = numpyro.sample("a", dist.Normal(0, 10))
            eta = numpyro.deterministic("eta", jnp.broadcast_to(a, (2,)))
            numpyro.sample("y", dist.Poisson(jnp.exp(eta)).to_event(1), obs=y)

        found = LatentGaussian(model, "eta", sites=["a"], model_args=(jnp.asarray(y),)).log_marginal({})
    mode = brentq(lambda a: y.sum() - 2 * np.exp(a) - a / variance, -20, 20, xtol=1e-13)
    like = y.sum() * mode - 2 * np.exp(mode) - gammaln(y + 1).sum()
    value = like - mode**2 / (2 * variance) - 0.5 * np.log1p(2 * variance * np.exp(mode))
    # Ten operations on numbers of the size of log y! for each count, those of its series too, half an epsilon each.
    rounding = 5 * np.finfo(np.float64 if double else np.float32).eps * gammaln(y + 1).sum()
    np.testing.assert_allclose(found, value, rtol=1e-9 if double else 1e-4, atol=rounding)


@pytest.mark.slow
def test_scaled_and_masked_data(x64):
    """The integral of a normal law times normal densities to the powers 2.5 and 0, in closed form."""
    seen, noise = np.array([True, True, False, True]), 0.4

    def field():
        return SpectralField(Grid(4), jnp.array([2.0, 1.0, 0.5, 0.2]))

    def model(y):
        eta = numpyro.deterministic("eta", numpyro.sample("u", field()))
        with handlers.scale(scale=2.5), handlers.mask(mask=jnp.asarray(seen)), numpyro.plate("cells", 4):
            numpyro.sample("y", dist.Normal(eta, noise), obs=y)

    root = np.asarray(jax.jacobian(field().from_base)(jnp.zeros(4)))
    weight, y = 2.5 * seen / noise**2, np.asarray(Y, float)
    precision = np.eye(4) + root.T * weight @ root
    shift = root.T @ (weight * y)
    value = 2.5 * seen.sum() * (-0.5 * np.log(2 * np.pi) - np.log(noise)) - 0.5 * np.sum(weight * y**2)
    value += 0.5 * shift @ np.linalg.solve(precision, shift) - 0.5 * np.linalg.slogdet(precision)[1]
    found = LatentGaussian(model, "eta", model_args=(jnp.asarray(y),)).log_marginal({})
    np.testing.assert_allclose(found, value, rtol=1e-9)


def _scaled(mesh, seen, part, y):
    """A hyperparameter that nearly does not vary multiplies a part of the predictor, or nothing."""
    s = numpyro.sample("s", dist.LogNormal(0.0, 0.01))
    by = {name: s if name == part else 1.0 for name in ("field", "effect", "datum")}
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    field = numpyro.sample("field", Matern(mesh, range=0.3, scale=1.0, smoothness=0.5))
    rows = jnp.where(np.arange(15) == 3, by["datum"], 1.0)
    eta = rows * (by["field"] * seen(field) + a + 1e6 * b[0] * COVARIATE + by["effect"] * 1e-3 * b[1] * COVARIATE)
    numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", eta), 0.5).to_event(1), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize("part", [None, "field", "effect", "datum"])
def test_a_predictor_that_changes_a_little_somewhere(part):
    """By 0.3 %, in a field beside an effect of size 1e6, in an effect of 1e-3, in one datum: never constant."""
    mesh = interval(200)
    args = (mesh, mesh.interpolation(PLACES[:, None]), part, jnp.asarray(DATA))
    model, hyper, _ = read_model(_scaled, args, {}, ("eta",), None)
    assert (sparse_latents(model, hyper, {"s": 1.003 * hyper["s"]}) is not None) == (part is None)
