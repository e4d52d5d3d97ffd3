"""Potentials as factors and as laws of a site: gradients, counting, the guard for those without a value."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import HMC, MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density
from scipy import stats

import numpyro_inverse as ni
from numpyro_inverse.denoisers import DeclaredPotential, GaussianDenoiser, LinearDenoiser, LineIntegral
from numpyro_inverse.distributions import Energy
from numpyro_inverse.factors import RED, GradientStep, MoreauEnvelope, Score
from numpyro_inverse.infer import MALA, SKROCK, ULA, BlackJAX, TemperedSGLD

RNG = np.random.default_rng(1)
N, SIGMA = 4, 0.5
ROOT = RNG.normal(size=(N, N))
COVARIANCE = ROOT @ ROOT.T / N + 0.1 * np.eye(N)
MEAN, DATA, NOISE = RNG.normal(size=N), RNG.normal(size=N), 0.7
GAUSSIAN = GaussianDenoiser(MEAN, COVARIANCE)
SKEW = LinearDenoiser(0.5 * ROOT / np.linalg.norm(ROOT, 2))
X = jnp.asarray(RNG.normal(size=N), jnp.float32)
REAL = dist.constraints.real_vector


def soft(x, smoothing):
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - smoothing, 0)


def absolute(x):
    return jnp.sum(jnp.abs(x))


def site_model(potential):
    """The potential is the law of a site."""

    def model(y=None):
        x = numpyro.sample("x", Energy(potential, (N,)))
        numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)

    return model


def factor_model(potential):
    """The potential is a factor beside an improper law."""

    def model(y=None):
        x = numpyro.sample("x", dist.ImproperUniform(REAL, (), (N,)))
        potential("prior", x)
        numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)

    return model


MODELS = {"site": site_model, "factor": factor_model}


@pytest.mark.parametrize("form", MODELS)
def test_the_density(form):
    """Of a model with a potential: the likelihood and the Gaussian's, each counted once."""
    found, _ = log_density(MODELS[form](Score(GAUSSIAN, sigma=SIGMA)), (), {"y": DATA}, {"x": X})
    exact = stats.multivariate_normal(MEAN, COVARIANCE + SIGMA**2 * np.eye(N)).logpdf(X)
    np.testing.assert_allclose(found, exact + stats.norm.logpdf(DATA, X, NOISE).sum(), rtol=1e-5)


def test_gradients(x64):
    """RED's is strength (x - D) / sigma^2, with a potential and without; the envelope's (x - prox) / smoothing."""
    x, skew_denoiser = jnp.asarray(X, jnp.float64), LinearDenoiser(np.asarray(SKEW.matrix, float))
    for denoiser in (GaussianDenoiser(MEAN, COVARIANCE), skew_denoiser, lambda x, sigma: jnp.tanh(x)):
        red = RED(denoiser, sigma=SIGMA, strength=1.7)
        found = jax.jit(lambda x, d=denoiser, red=red: (d(x, SIGMA), red.gradient(x), jax.grad(red.stand_in)(x)))(x)
        denoised, *slopes = map(np.asarray, found)
        for slope in slopes:
            np.testing.assert_allclose(slope, 1.7 * (X - denoised) / SIGMA**2, rtol=1e-6)
    skew = RED(skew_denoiser, sigma=SIGMA)
    assert skew.stand_in(x) == 0
    found = jax.jit(jax.jacobian(jax.grad(skew.stand_in)))(x)
    np.testing.assert_allclose(found, (np.eye(N) - np.asarray(SKEW.matrix)) / SIGMA**2, rtol=1e-6)
    for function in (absolute, None):
        envelope = MoreauEnvelope(soft, function, smoothing=0.3)
        slope, near = jax.jit(lambda x, e=envelope: (jax.grad(e.stand_in)(x), soft(x, 0.3)))(x)
        np.testing.assert_allclose(slope, (X - np.asarray(near)) / 0.3, rtol=1e-12)


@pytest.mark.slow
def test_moreau_envelope_by_minimization(x64):
    """Its value, and its derivatives in x, twice, and in the smoothing, against Huber's function."""

    def huber(x, mu):
        return jnp.sum(jnp.where(jnp.abs(x) < mu, x**2 / (2 * mu), jnp.abs(x) - mu / 2))

    def envelope(x, mu):
        return MoreauEnvelope(soft, absolute, smoothing=mu).energy(x)

    x, mu = jnp.array([0.1, -0.2, 1.0, -3.0]), jnp.asarray(0.3)
    u = np.linspace(-4, 4, 800_001)
    brute = sum(np.min(np.abs(u) + (u - value) ** 2 / 0.6) for value in np.asarray(x))
    np.testing.assert_allclose(envelope(x, mu), brute, rtol=1e-9)
    np.testing.assert_allclose(jax.grad(envelope, 1)(x, mu), jax.grad(huber, 1)(x, mu), rtol=1e-12)
    np.testing.assert_allclose(jax.hessian(envelope)(x, mu), jax.hessian(huber)(x, mu), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["site", pytest.param("factor", marks=pytest.mark.statistical)])
def test_nuts_samples_the_smoothed_posterior(form):
    """Mean and covariance are those of the Gaussian with the prior C + sigma^2 I. 24 chains; false-alarm rate 1e-5."""
    mcmc = MCMC(
        NUTS(MODELS[form](Score(GAUSSIAN, sigma=SIGMA))),
        num_warmup=300,
        num_samples=400,
        num_chains=24,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), y=DATA)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], float)
    prior = np.linalg.inv(COVARIANCE + SIGMA**2 * np.eye(N))
    covariance = np.linalg.inv(prior + np.eye(N) / NOISE**2)
    mean = covariance @ (prior @ MEAN + DATA / NOISE**2)
    away = draws - mean
    products = np.einsum("csi,csj->csij", away, away)[:, :, *np.triu_indices(N)] - covariance[np.triu_indices(N)]
    found = np.concatenate([away, products], axis=-1).mean(axis=1)
    t = found.mean(axis=0) / (found.std(axis=0, ddof=1) / np.sqrt(24))
    assert np.all(np.abs(t) < stats.t.isf(1e-5 / 2 / t.size, 23)), t


def test_a_noise_level_that_is_sampled(x64):
    """Score has its normalizing constant: the joint density is that of the hierarchical Gaussian."""

    gaussian = GaussianDenoiser(MEAN, COVARIANCE)

    def model():
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        numpyro.sample("x", Energy(Score(gaussian, sigma=sigma), (N,)))

    for sigma in (0.2, 1.5):
        found, _ = log_density(model, (), {}, {"x": X, "sigma": jnp.asarray(sigma)})
        exact = stats.multivariate_normal(MEAN, COVARIANCE + sigma**2 * np.eye(N)).logpdf(X)
        np.testing.assert_allclose(found, exact + stats.halfnorm.logpdf(sigma), rtol=1e-7)


WITHOUT_VALUE = {
    "RED of a skew matrix": RED(SKEW, sigma=SIGMA),
    "RED of a function": RED(lambda x, sigma: jnp.tanh(x), sigma=SIGMA),
    "an envelope": MoreauEnvelope(soft, smoothing=0.3),
}
NEED_A_DENSITY = {
    "NUTS": NUTS,
    "HMC": HMC,
    "MALA": MALA,
    "BlackJAX": lambda model: BlackJAX(model, algorithm=blackjax.mala, step_size=0.1, warmup=False),
}


def _run(kernel, **run):
    mcmc = MCMC(kernel, num_warmup=2, num_samples=3, progress_bar=False, **run)
    mcmc.run(jax.random.key(0), y=DATA)
    return mcmc


@pytest.mark.parametrize("form", MODELS)
@pytest.mark.parametrize("name", WITHOUT_VALUE)
def test_samplers_that_need_a_density_refuse(form, name):
    model = MODELS[form](WITHOUT_VALUE[name])
    ways = r"(?s)gradient alone.*ULA, SKROCK, PnPULA.*LineIntegral.*DeclaredPotential"
    for make in NEED_A_DENSITY.values():
        with pytest.raises(ValueError, match=ways):
            _run(make(model))
    svi = SVI(model, AutoNormal(model), numpyro.optim.Adam(1e-2), Trace_ELBO())
    with pytest.raises(ValueError, match=ways):
        svi.run(jax.random.key(0), 2, y=DATA, progress_bar=False)
    with pytest.raises(ValueError, match=ways):
        log_density(model, (), {"y": DATA}, {"x": X})


@pytest.mark.parametrize("name", WITHOUT_VALUE)
def test_there_is_no_way_round_the_guard(name):
    """The energy itself as a function, in a bare factor or a law of a site, would be 0 with a gradient."""
    potential = WITHOUT_VALUE[name]
    for ask in (potential.energy, jax.grad(potential.energy), lambda x: Energy(potential.energy, (N,)).log_prob(x)):
        with pytest.raises(ValueError, match=r"(?s)energy: .* is known by its gradient alone.*DeclaredPotential"):
            ask(X)


def test_our_kernels_name_the_site():
    with pytest.raises(ValueError, match="MALA: site 'x': the potential RED of LinearDenoiser"):
        _run(MALA(site_model(RED(SKEW, sigma=SIGMA))))
    with pytest.raises(ValueError, match="factor 'prior': the potential RED of <lambda>"):
        _run(NUTS(factor_model(WITHOUT_VALUE["RED of a function"])))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "make"),
    [("site", ULA), ("factor", SKROCK), ("factor", TemperedSGLD)],
    ids=["ULA", "SKROCK", "TemperedSGLD"],
)
def test_samplers_of_gradients_accept(form, make):
    """And move by the field: the first step of each is that of the potential with the same gradient."""
    symmetric = LinearDenoiser((SKEW.matrix + SKEW.matrix.T) / 2)
    alone = RED(lambda x, sigma: symmetric(x, sigma), sigma=SIGMA)
    found = _run(make(MODELS[form](alone), step_size=0.01)).get_samples()["x"]
    with_value = _run(make(MODELS[form](RED(symmetric, sigma=SIGMA)), step_size=0.01)).get_samples()["x"]
    np.testing.assert_allclose(found, with_value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_line_integral_or_a_declaration_lets_nuts_run():
    for denoiser in (LineIntegral(lambda x, sigma: jnp.tanh(x)), DeclaredPotential(SKEW, lambda x, sigma: x @ x)):
        assert np.all(np.isfinite(_run(NUTS(site_model(RED(denoiser, sigma=SIGMA)))).get_samples()["x"]))


def test_parameters_of_a_gradient_alone_cannot_be_sampled():
    def model(y=None):
        strength = numpyro.sample("strength", dist.HalfNormal(1.0))
        x = numpyro.sample("x", dist.Normal(0, 1).expand([N]).to_event(1))
        RED(SKEW, sigma=SIGMA, strength=strength)("prior", x)

    with pytest.raises(ValueError, match="RED: a derivative in a parameter of the potential was asked for"):
        _run(ULA(model, step_size=0.01))


@pytest.mark.slow
def test_a_model_with_a_factor_can_be_drawn_exported_and_predicted():
    """Nothing asks for the value of a factor that has none but a sampler; it is no data and no likelihood."""
    model = factor_model(RED(SKEW, sigma=SIGMA))
    mcmc = _run(ULA(model, step_size=0.01), num_chains=2, chain_method="vectorized")
    tree = ni.to_arviz(mcmc)
    assert set(tree["posterior"].data_vars) == {"x"}
    assert set(tree["log_likelihood"].data_vars) == set(tree["observed_data"].data_vars) == {"y"}
    drawn = Predictive(model, mcmc.get_samples())(jax.random.key(1))
    assert drawn["y"].shape == (6, N)


def test_plates():
    """A batch of arrays in a plate of as many counts each once; one number in a plate is refused."""
    score = Score(GAUSSIAN, sigma=SIGMA)

    def model(event_dim):
        with numpyro.plate("images", 3):
            x = numpyro.sample("x", dist.ImproperUniform(REAL, (), (N,)))
            score("prior", x, event_dim=event_dim)

    values = jnp.asarray(RNG.normal(size=(3, N)), jnp.float32)
    found, _ = log_density(model, (1,), {}, {"x": values})
    np.testing.assert_allclose(found, -sum(score.energy(v) for v in values), rtol=1e-5)
    with pytest.raises(ValueError, match=r"factor 'prior': it is called in plates of shape \(3,\)"):
        log_density(model, (None,), {}, {"x": values})

    def many():
        with numpyro.plate("images", 3):
            numpyro.sample("x", Energy(score, (N,)))

    np.testing.assert_allclose(log_density(many, (), {}, {"x": values})[0], found, rtol=1e-5)


def test_scaled_and_masked():
    """NumPyro's handlers reach the factor."""
    model = factor_model(Score(GAUSSIAN, sigma=SIGMA))
    full, _ = log_density(model, (), {"y": DATA}, {"x": X})
    scaled, _ = log_density(handlers.scale(model, scale=2.0), (), {"y": DATA}, {"x": X})
    np.testing.assert_allclose(scaled, 2 * full, rtol=1e-6)


@pytest.mark.slow
def test_energy_in_programs():
    """A law that crosses jit and vmap, with a support of its own."""
    law = Energy(Score(GAUSSIAN, sigma=SIGMA), (N,))
    leaves, structure = jax.tree.flatten(law)
    assert jax.tree.unflatten(structure, leaves).log_prob(X) == law.log_prob(X)
    np.testing.assert_allclose(jax.jit(lambda law, x: law.log_prob(x))(law, X), law.log_prob(X), rtol=1e-6)
    batch = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(jax.vmap(law.log_prob)(batch), law.log_prob(batch), rtol=1e-6)
    positive = Energy(absolute, (N,), support=dist.constraints.independent(dist.constraints.positive, 1))
    mcmc = MCMC(NUTS(lambda: numpyro.sample("x", positive)), num_warmup=5, num_samples=5, progress_bar=False)
    mcmc.run(jax.random.key(0))
    assert np.all(mcmc.get_samples()["x"] > 0)


BAD = [
    (lambda: RED(None, sigma=1.0), TypeError, "RED: `denoiser` must be a denoiser"),
    (lambda: RED(GAUSSIAN, sigma=-1.0), ValueError, "RED: `sigma` must be positive and finite; got -1.0"),
    (lambda: RED(GAUSSIAN, sigma=[1.0, 2.0]), ValueError, "RED: `sigma` must be one number"),
    (lambda: RED(GAUSSIAN, sigma=1.0, strength=0), ValueError, "RED: `strength` must be positive"),
    (lambda: RED(GAUSSIAN, sigma=1.0, strength=[1.0]), ValueError, "RED: `strength` must be one number"),
    (
        lambda: RED(lambda x, s: x[:2], sigma=1.0).gradient(X),
        ValueError,
        r"must return an array of the shape of `x`, \(4",
    ),
    (lambda: Score(SKEW, sigma=1.0), TypeError, "Score: `denoiser` must have a method `potential"),
    (lambda: GradientStep(jnp.tanh, sigma=1.0), TypeError, "GradientStep: `denoiser` must have a method `potential"),
    (lambda: MoreauEnvelope(3, smoothing=1.0), TypeError, "MoreauEnvelope: `prox` must be a function"),
    (lambda: MoreauEnvelope(soft, 3, smoothing=1.0), TypeError, "MoreauEnvelope: `function` must be a function"),
    (lambda: MoreauEnvelope(soft, smoothing=0.0), ValueError, "MoreauEnvelope: `smoothing` must be positive"),
    (lambda: MoreauEnvelope(lambda x, s: x[:1], absolute, smoothing=1.0).energy(X), ValueError, "`prox` must return"),
    (lambda: Score(GAUSSIAN, sigma=1.0)(X, X), TypeError, "Score: `name` must be the name of the site"),
    (
        lambda: Score(GAUSSIAN, sigma=1.0)("s", X, event_dim=2),
        ValueError,
        r"`event_dim` is 2, but `x` has shape \(4,\)",
    ),
    (lambda: Energy(3, (N,)), TypeError, "Energy: `potential` must be a function"),
    (lambda: Energy(lambda x: x, (N,)), ValueError, r"Energy: `potential` must return one number.*got shape \(4,\)"),
    (lambda: Energy(absolute, N), TypeError, "Energy: `event_shape` must be a tuple of integers"),
    (lambda: Energy(absolute, (N,)).log_prob(X[:2]), ValueError, r"the trailing axes of `value` must be \(4,\)"),
    (lambda: Energy(absolute, (N,)).sample(jax.random.key(0)), NotImplementedError, "cannot be sampled directly"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
