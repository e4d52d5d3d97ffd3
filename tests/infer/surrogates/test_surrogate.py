"""Surrogates: what they replace in a model, what they are trained on, and the posterior with them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy
from scipy import stats

from numpyro_inverse import nn
from numpyro_inverse.distributions import ComplexNormal
from numpyro_inverse.infer import DelayedAcceptance, Surrogate, emulate, fit_surrogate
from numpyro_inverse.infer.laplace import Reference
from numpyro_inverse.infer.surrogates._fit_surrogate import (
    CHECKS,
    FISHER_DATA,
    FISHER_DRAWS,
    PRIOR_SHARE,
    _acceptance,
    _design,
    _likelihood_scale,
    _loss,
    _Simulator,
)
from tests.infer._laws import ALARM

FORWARD = 0.5 * np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
DATA = np.array([0.5, 1.5, 0.7, 2.0, 1.0], np.float32)
NOISE = 0.5


def linear(y=None):
    """Affine in the logarithm of a constrained latent and in a vector; the second site's scale is known."""
    size = numpyro.sample("size", dist.LogNormal(0.0, 0.3))
    x = numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
    mean = FORWARD @ jnp.append(x, jnp.log(size))
    numpyro.sample("y", dist.Normal(mean[:3], NOISE).to_event(1), obs=None if y is None else y[:3])
    numpyro.sample("more", dist.Normal(2 * mean[3:], 1.0).to_event(1), obs=None if y is None else y[3:])


def nonlinear(y=None):
    z = numpyro.sample("z", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.exp(jnp.sin(FORWARD @ z)), NOISE).to_event(1), obs=y)


def exact_surrogate():
    """Of the linear model; its network is zero. Latents in the model's order: log size, x; sites by name: more, y."""
    surrogate = Surrogate(linear, model_args=(DATA,), width=4, depth=1, key=jax.random.key(0))
    matrix = np.concatenate([2 * FORWARD[3:], FORWARD[:3]])[:, [2, 0, 1]]
    last = jax.tree.map(jnp.zeros_like, surrogate.last)
    scale = jnp.full(3, 1e3)  # far from saturation
    return eqx.tree_at(lambda s: (s.last, s.linear, s.input_scale), surrogate, (last, jnp.asarray(1e3 * matrix), scale))


def test_a_perfect_surrogate_changes_nothing():
    z = {"size": jnp.asarray(0.3), "x": jnp.asarray([0.5, -1.0])}
    emulated = emulate(linear, exact_surrogate())

    def energy(model):
        return jax.jit(jax.value_and_grad(lambda z: potential_energy(model, (DATA,), {}, z)))(z)

    for found, expected in zip(jax.tree.leaves(energy(emulated)), jax.tree.leaves(energy(linear)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_is_emulated():
    surrogate = exact_surrogate()
    assert surrogate.latents == (("size", ()), ("x", (2,)))
    assert [(site, shape) for site, _, shape in surrogate.places] == [("more", (2,)), ("y", (3,))]


def test_the_forward_map_is_not_computed():
    z = {"z": jnp.zeros(3)}
    surrogate = Surrogate(nonlinear, model_args=(DATA,), width=4, depth=1, key=jax.random.key(0))

    def program(model):
        return jax.jit(lambda z: potential_energy(model, (DATA,), {}, z)).lower(z).compile().as_text()

    assert "sine(" in program(nonlinear)
    assert "sine(" not in program(emulate(nonlinear, surrogate))


def test_inputs_saturate():
    surrogate = Surrogate(nonlinear, model_args=(DATA,), key=jax.random.key(0))
    far, farther = surrogate(jnp.full(3, 1e3)), surrogate(jnp.full(3, 1e6))
    np.testing.assert_allclose(far, farther, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_simulations_and_derivatives(key):
    surrogate = Surrogate(nonlinear, model_args=(DATA,), key=key)
    root = jnp.diag(jnp.array([1.0, 2.0, 0.5]))
    x = jax.random.normal(key, (7, 3))
    found = _Simulator(nonlinear, surrogate, root, 4, False, (DATA,), {})(x, key)
    forward = lambda x: jnp.exp(jnp.sin(FORWARD @ x))  # noqa: E731
    mean = jax.vmap(forward)(x)
    np.testing.assert_allclose(found.theta, mean, rtol=1e-5)
    np.testing.assert_allclose(
        found.jv, jnp.einsum("kij,kdj->kdi", jax.vmap(jax.jacobian(forward))(x), found.v), atol=1e-4
    )
    np.testing.assert_allclose(found.log_likelihood, stats.norm.logpdf(DATA, mean, NOISE).sum(axis=1), rtol=1e-4)


@pytest.mark.slow
def test_the_loss(key):
    """Of a surrogate that is off by known amounts: in values and in either of two directions alike."""
    scale = jnp.array([1.0, 1.0, NOISE, NOISE, NOISE])
    surrogate = eqx.tree_at(lambda s: s.output_scale, exact_surrogate(), scale)
    x, v = jnp.array([0.1, -0.3, 0.2]), jax.random.normal(key, (2, 3))
    theta, off, steep = surrogate(x), jnp.arange(1.0, 6.0), jnp.array([0.0, 2.0, 0.0, -1.0, 3.0])
    jv = v @ jax.jacobian(surrogate)(x).T
    row = jnp.concatenate([jnp.array([0.25]), x, theta + scale * off, v.ravel(), (jv + scale * steep).ravel()])
    found = _loss(surrogate, row, key, n=3, m=5, derivatives=2)
    np.testing.assert_allclose(found, 0.25 * (np.sum(off**2) + np.sum(steep**2)), rtol=1e-4)


@pytest.mark.slow
def test_the_first_design(key):
    """Jitter of covariance R R^T / 4, else one latent anew; binomial and chi-squared, false-alarm rate 1e-5 each."""
    count = 4000
    prior = Reference(jnp.full(3, 7.0), jnp.full(3, 0.1))
    unspread = _design(jnp.zeros((5, 3)), jnp.zeros((3, 3)), prior, count, key)
    changed = np.asarray(unspread != 0).sum(axis=1)
    assert set(changed) == {0, 1}
    assert stats.binomtest(int(changed.sum()), count, PRIOR_SHARE).pvalue > ALARM
    anew = np.asarray(unspread)[np.asarray(unspread) != 0]
    assert abs(anew.mean() - 7) < stats.norm.isf(ALARM / 2) * 0.1 / np.sqrt(len(anew))
    root = jnp.diag(jnp.array([1.0, 2.0, 3.0]))
    spread = np.asarray(_design(jnp.zeros((5, 3)), root, prior, count, key))
    jittered = spread[np.all(spread != 0, axis=1)]
    total = np.sum((jittered / (0.5 * np.array([1.0, 2.0, 3.0]))) ** 2)
    assert ALARM < stats.chi2.cdf(total, jittered.size) < 1 - ALARM


@pytest.mark.slow
def test_the_scale_of_an_output_is_that_of_the_noise(key):
    """Mean squared scores of 512 data, chi-squared; false-alarm rate 1e-5."""
    surrogate = Surrogate(linear, model_args=(DATA,), key=key)
    scale, _ = _likelihood_scale(linear, surrogate, jax.random.normal(key, (20, 3)), (DATA,), {})
    ratio = np.array([1.0, 1.0, NOISE, NOISE, NOISE]) ** 2 / np.asarray(scale) ** 2
    count = FISHER_DRAWS * FISHER_DATA
    p = 2 * np.minimum(stats.chi2.cdf(count * ratio, count), stats.chi2.sf(count * ratio, count))
    assert np.all(p > ALARM / 5)


@pytest.mark.slow
def test_replicates_inform_an_output_together(key):
    """Eight scans of one number: simulated with a noise of their own each. Chi-squared, false-alarm rate 1e-5."""

    def scans(y):
        z = numpyro.sample("z", dist.Normal())
        numpyro.sample("y", dist.Normal(z, NOISE), obs=y)

    args = (jnp.zeros(8),)
    surrogate = Surrogate(scans, model_args=args, key=key)
    scale, _ = _likelihood_scale(scans, surrogate, jax.random.normal(key, (20, 1)), args, {})
    count = FISHER_DRAWS * FISHER_DATA
    total = count * (NOISE**2 / 8) / float(scale[0]) ** 2
    assert ALARM / 2 < stats.chi2.cdf(total, count) < 1 - ALARM / 2


def test_complex_data():
    """Both parts of a complex mean are emulated; a surrogate that is exact changes nothing."""

    def model(y):
        z = numpyro.sample("z", dist.Normal())
        numpyro.sample("y", ComplexNormal((2 - 3j) * z, NOISE), obs=y)

    args = (jnp.asarray(0.3 + 0.7j),)
    surrogate = Surrogate(model, model_args=args, width=4, depth=1, key=jax.random.key(0))
    assert [shape for *_, shape in surrogate.places] == [(), ()]
    linear = 1e3 * jnp.array([[-3.0], [2.0]])  # by name: imag, real
    last = jax.tree.map(jnp.zeros_like, surrogate.last)
    exact = eqx.tree_at(lambda s: (s.last, s.linear, s.input_scale), surrogate, (last, linear, jnp.full(1, 1e3)))
    z = {"z": jnp.asarray(0.4)}
    found, expected = (potential_energy(m, args, {}, z) for m in (emulate(model, exact), model))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_expected_acceptance(key):
    """2 Phi(-s / sqrt 2) for normal log ratios; 4000 draws of each, to five of the standard errors of either mean."""
    s = 0.8
    noise = jax.random.normal(key, (2, 4000))
    found = _acceptance(s**2 / 2 + s * noise[0], -(s**2) / 2 + s * noise[1])
    assert abs(found - 2 * stats.norm.cdf(-s / np.sqrt(2))) < 5 * 0.5 * np.sqrt(2 / 4000)


@pytest.fixture(scope="module")
def fit():
    """On 500 draws of a short run of NUTS."""
    mcmc = MCMC(NUTS(nonlinear), num_warmup=200, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(0), DATA)
    settings = nn.TrainingSettings(batch_size=64, max_epochs=30, learning_rate=8e-3, gradient_norm=100.0)
    return fit_surrogate(
        nonlinear,
        mcmc.get_samples(),
        model_args=(DATA,),
        rng_key=jax.random.key(1),
        num_simulations=1024,
        width=32,
        depth=2,
        settings=settings,
        progress_bar=False,
    )


def normalized(log_weight):
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def grid_posterior():
    """61^3 points, their log prior and log likelihood."""
    axis = np.linspace(-4.5, 4.5, 61)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    mean = np.exp(np.sin(points @ FORWARD.T))
    return points, -0.5 * (points**2).sum(axis=1), stats.norm.logpdf(DATA, mean, NOISE).sum(axis=1)


@pytest.mark.slow
def test_training(fit):
    """What is reported of the fit against a grid of 61^3 points, each to five standard errors; and it has learned."""
    points, log_prior, of_model = grid_posterior()
    predicted = np.asarray(jax.vmap(fit.surrogate)(jnp.asarray(points, jnp.float32)), float)
    of_surrogate = stats.norm.logpdf(DATA, predicted, NOISE).sum(axis=1)
    p, q = normalized(log_prior + of_model), normalized(log_prior + of_surrogate)
    error = of_model - of_surrogate
    spread = np.sqrt(p @ (error - p @ error) ** 2)
    of_the_model = np.sqrt(p @ (of_model - p @ of_model) ** 2)
    assert spread**2 < 0.1 * of_the_model**2  # nine tenths of the log likelihood's variance are explained, tails too
    fourth = p @ (error - p @ error) ** 4
    draws = 500 / 5  # effective ones of NUTS, at least
    assert abs(fit.log_ratio_sd - spread) < 5 * np.sqrt(fourth - spread**4) / (2 * spread * np.sqrt(draws))
    rng = np.random.default_rng(0)
    now, new = (error[rng.choice(len(w), 100_000, p=w)] for w in (p, q))
    accept = np.minimum(1, np.exp(new - now))
    assert abs(fit.acceptance - accept.mean()) < 5 * accept.std() * np.sqrt(1 / draws + 1 / (CHECKS / 5))
    assert fit.num_simulations == 1024 + 256


@pytest.mark.slow
def test_the_posterior_is_the_model_s(fit):
    """Second moments against a grid of 61^3 points; means over 32 chains, false-alarm rate 1e-5."""
    points, log_prior, log_likelihood = grid_posterior()

    def statistics(x):
        return np.concatenate([x, x**2, np.roll(x, 1, axis=-1) * x], axis=-1)

    expected = normalized(log_prior + log_likelihood) @ statistics(points)
    kernel = DelayedAcceptance(nonlinear, approximation=emulate(nonlinear, fit.surrogate))
    mcmc = MCMC(kernel, num_warmup=300, num_samples=600, num_chains=32, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(2), DATA)
    found = statistics(np.asarray(mcmc.get_samples(group_by_chain=True)["z"], float)).mean(axis=1)
    t = (found.mean(axis=0) - expected) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))
    assert np.all(np.abs(t) < stats.t.isf(ALARM / (2 * t.size), len(found) - 1)), t


@pytest.mark.slow
def test_saved_and_read(fit, tmp_path):
    nn.save(tmp_path / "surrogate.safetensors", fit.surrogate)
    blank = Surrogate(nonlinear, model_args=(DATA,), width=32, depth=2, key=jax.random.key(5))
    read = nn.load(tmp_path / "surrogate.safetensors", blank)
    x = jnp.array([0.1, -0.4, 1.0])
    np.testing.assert_array_equal(read(x), fit.surrogate(x))


@pytest.mark.slow
def test_a_poor_surrogate_is_told(key):
    """Untrained, it predicts almost a constant, and 40 data notice."""

    def precise(y=None):
        z = numpyro.sample("z", dist.Normal().expand([40]).to_event(1))
        numpyro.sample("y", dist.Normal(z, 0.01).to_event(1), obs=y)

    draws = {"z": 0.01 * jax.random.normal(key, (50, 40))}
    settings = nn.TrainingSettings(batch_size=64, max_epochs=1, learning_rate=1e-9)
    options = {"num_simulations": 256, "width": 4, "settings": settings, "progress_bar": False}
    with pytest.warns(UserWarning, match="would accept"):
        fit_surrogate(precise, draws, model_args=(jnp.zeros(40),), rng_key=key, **options)


def test_models_that_cannot_be_emulated(key):
    def late(y=None):
        a = numpyro.sample("a", dist.Normal())
        numpyro.sample("y", dist.Normal(a, 1.0), obs=y)
        numpyro.sample("b", dist.Normal())

    def discrete(y=None):
        numpyro.sample("a", dist.Bernoulli(0.5))

    def complex_mean(y=None):
        a = numpyro.sample("a", dist.Normal())
        numpyro.sample("y", dist.Normal(a * 1j, 1.0), obs=y)

    def fixed(y=None):
        numpyro.sample("a", dist.Normal())
        numpyro.sample("y", dist.Normal(), obs=1.0)

    for model, match in (
        (late, "'y' comes before the latent 'b'"),
        (discrete, "'a' is discrete"),
        (complex_mean, "parameters of site 'y' are complex"),
        (fixed, "no observed site depends"),
        (lambda y: numpyro.sample("y", dist.Normal(), obs=y), "no latent site"),
    ):
        with pytest.raises(ValueError, match=match):
            Surrogate(model, model_args=(jnp.asarray(1.0),), key=key)
    with pytest.raises(ValueError, match="`width`"):
        Surrogate(nonlinear, model_args=(DATA,), width=0, key=key)


def test_a_model_s_own_depth_is_not_the_network_s(key):
    """A keyword of the model that has the name of one of ours."""

    def model(y, depth=1.0):
        z = numpyro.sample("z", dist.Normal())
        numpyro.sample("y", dist.Normal(z / depth, NOISE), obs=y)

    surrogate = Surrogate(model, model_args=(0.5,), model_kwargs={"depth": 2.0}, width=4, depth=3, key=key)
    assert len(surrogate.layers) == 3
    seen = _Simulator(model, surrogate, jnp.eye(1), 1, False, (0.5,), {"depth": 2.0})(jnp.ones((2, 1)), key)
    np.testing.assert_allclose(seen.theta, 0.5)
    for wrong in ({"model_args": jnp.zeros(2)}, {"model_args": (0.5,), "model_kwargs": [1]}):
        with pytest.raises(TypeError, match="`model_"):
            Surrogate(model, key=key, **wrong)


def test_draws_and_numbers(key):
    good = jnp.zeros((10, 3)) + jnp.arange(10)[:, None]
    for draws, options, match in (
        ({"other": good}, {}, "lacks the latent site 'z'"),
        ({"z": good[:, :2]}, {}, r"`draws\['z'\]` must have shape"),
        ({"z": good.at[0, 0].set(jnp.nan)}, {}, "not finite"),
        ({"z": good[:1]}, {}, "several draws"),
        ({"z": good}, {"num_simulations": 100}, "too few"),
        ({"z": good}, {"derivatives": 0}, "`derivatives`"),
        ({"z": good}, {"rounds": -1}, "`rounds`"),
    ):
        with pytest.raises(ValueError, match=match):
            fit_surrogate(nonlinear, draws, model_args=(DATA,), rng_key=key, **options)


def test_emulating_another_model():
    surrogate = exact_surrogate()
    with pytest.raises(TypeError, match="`surrogate` must be a Surrogate"):
        emulate(linear, surrogate=3)

    def shorter(y=None):
        numpyro.sample("size", dist.LogNormal(0.0, 0.3))
        x = numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y[:2])

    def without(y=None):
        numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(jnp.zeros(3), NOISE).to_event(1), obs=y[:3])

    for model, match in ((shorter, "site 'y' is not as"), (without, "must sample the latent 'size'")):
        with pytest.raises(ValueError, match=match):
            numpyro.handlers.seed(emulate(model, surrogate), jax.random.key(0))(DATA)
