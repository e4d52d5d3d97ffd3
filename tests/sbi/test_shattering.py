"""Growth of the gradient: a linear system in closed form, two chaotic ones, data that are plenty but not chaotic."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from models import lorenz63, lorenz96
from numpyro_inverse.sbi._shattering import shattering

ALARM = 1e-5
RATE, TIMES = 1.3, 0.25 * np.arange(1, 41)


def unstable(x=None, *, rate=RATE, times=TIMES):
    """exp(rate t) s with noise: the gradient is N(0, sum of exp(2 rate t))."""
    s = numpyro.sample("s", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(jnp.exp(rate * times) * s, 1.0), obs=x)


def means(x=None):
    """Many data of one location and scale: the gradient grows like the square root of their number."""
    location = numpyro.sample("location", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.1))
    numpyro.sample("x", dist.Normal(location, scale).expand((2000,)).to_event(1), obs=x)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_unstable_linear_system(precision):
    """E log |N(0, v)| = log v / 2 - 0.635, standard deviation 1.11, at each time."""
    with jax.enable_x64(precision == np.float64):
        report = shattering(unstable, jax.random.key(0), times=TIMES, num_draws=256)
    log_sd = 0.5 * np.log(np.cumsum(np.exp(2 * RATE * TIMES)))
    z = (report.log_gradient - log_sd + 0.6352) / (np.pi / np.sqrt(8) / 16)
    assert np.abs(z).max() < stats.norm.isf(ALARM / 2 / len(TIMES))
    assert abs(report.growth_rate - RATE) < 4.5 * report.standard_error
    assert report.standard_error < 0.05
    # The median of |N(0, v)| is 0.674 sqrt(v); the prior's standard deviation is 1 to one part in 20.
    expected = np.log(1024 / 0.6745 / np.sqrt(np.sum(np.exp(-2 * RATE * 0.25 * np.arange(40))))) / RATE
    assert report.horizon == pytest.approx(expected, abs=0.5)
    assert "exp((1.3" in report.reason
    assert report.precision_horizon == np.inf


def test_unconstrained_coordinates():
    """The derivative with respect to log s is s times that with respect to s."""

    def positive(x=None):
        s = numpyro.sample("s", dist.LogNormal(0.0, 0.5))
        numpyro.sample("x", dist.Normal(jnp.exp(RATE * TIMES) * s, 1.0), obs=x)

    report = shattering(positive, jax.random.key(0), times=TIMES, params={"s": 2.0})
    log_sd = 0.5 * np.log(np.cumsum(np.exp(2 * RATE * TIMES)))
    z = (report.log_gradient - log_sd - np.log(2) + 0.6352) / (np.pi / np.sqrt(8) / np.sqrt(128))
    assert np.abs(z).max() < stats.norm.isf(ALARM / 2 / len(TIMES))


@pytest.mark.slow
def test_data_without_chaos():
    report = shattering(means, jax.random.key(0))
    assert report.horizon == np.inf
    assert "fit for a gradient sampler" in report.reason
    growth = report.log_gradient[-1] - report.log_gradient[499]
    # sqrt(4), to the Monte Carlo error of a log chi variable with two degrees of freedom, sd 0.64
    assert growth == pytest.approx(np.log(2), abs=4.5 * 0.64 * np.sqrt(2 / 128))


@pytest.mark.slow
def test_lorenz63():
    """The largest Lyapunov exponent over the prior, 0.906 at (28, 8/3)."""
    report = shattering(lorenz63.model, jax.random.key(0))
    assert abs(report.growth_rate - 0.906) < 0.0906
    assert report.standard_error < 0.03
    assert 3 < report.horizon < 12
    assert report.times[-1] == pytest.approx(20)


@pytest.mark.slow
def test_lorenz63_at_known_parameters():
    """0.906 again, and medians of the derivative by an independent code, at most 3 times apart.

    Neighbors of rho = 28 in single precision differ by 1 in the log likelihood where the derivative is 3e5.
    """
    params = {"rho": 28.0, "beta": 8 / 3}
    report = shattering(_in_rho, jax.random.key(2), wrt=["rho"], params=params)
    assert abs(report.growth_rate - 0.906) < 0.0906
    known = {2: 16, 5: 2.9e2, 10: 2.4e4, 15: 2.0e6, 20: 2.1e8}
    found = [report.median_gradient[10 * t - 1] for t in known]
    assert np.abs(np.log(np.array(found) / list(known.values()))).max() < np.log(3)
    assert 11.5 < report.precision_horizon < 14
    assert "enable_x64" in report.reason


def _in_rho(x=None):
    """Lorenz's model with priors whose coordinates are rho and beta themselves, from states on the attractor."""
    rho, beta = numpyro.sample("rho", dist.Normal(28.0, 1.0)), numpyro.sample("beta", dist.Normal(8 / 3, 0.1))
    start = numpyro.sample("start", dist.Normal(lorenz63.CENTER, lorenz63.SPREAD).to_event(1))
    start = jax.lax.stop_gradient(lorenz63.trajectory(start, rho, beta, 1, 500)[0])
    path = lorenz63.trajectory(start, rho, beta, 200, 10)
    numpyro.sample("x", dist.Normal(path, 1.0).to_event(2), obs=x, infer={"times": 0.1 * np.arange(1, 201)})


@pytest.mark.slow
def test_lorenz96():
    """1.67 at F = 8, and medians of the derivative by an independent code, at most 3 times apart."""
    report = shattering(lorenz96.model, jax.random.key(1), wrt=["forcing"], params={"forcing": 8.0})
    assert abs(report.growth_rate - 1.67) < 0.167
    known = {1: 12, 2: 38, 4: 1.1e3, 6: 2.9e4, 8: 9.9e5, 10: 2.5e7}
    found = [report.median_gradient[10 * t - 1] for t in known]
    assert np.abs(np.log(np.array(found) / list(known.values()))).max() < np.log(3)


def test_extrapolation_and_options():
    """A window that ends before the horizon; a site by name, its time along another axis, data given."""

    def model(x, rate):
        s = numpyro.sample("s", dist.Normal(0.0, 1.0))
        path = jnp.exp(rate * TIMES) * s
        numpyro.sample("x", dist.Normal(path, 1.0).expand((2, 40)).to_event(2), obs=x)
        numpyro.sample("other", dist.Normal(s, 1.0), obs=0.0)

    options = {"site": "x", "time_axis": 1, "times": TIMES, "params": {"s": 0.5}, "wrt": ["s"]}
    call = {"model_args": (np.zeros((2, 40)),), "model_kwargs": {"rate": 0.4}}
    report = shattering(model, jax.random.key(0), **options, **call)
    assert abs(report.growth_rate - 0.4) < 4.5 * report.standard_error
    assert TIMES[-1] < report.horizon < 25
    assert "extrapolated" in report.reason


def bad_models():
    def discrete(x=None):
        k = numpyro.sample("k", dist.Poisson(3.0))
        numpyro.sample("x", dist.Normal(k * jnp.ones(10), 1.0), obs=x)

    def one_density(x=None):
        s = numpyro.sample("s", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.MultivariateNormal(s * jnp.ones(10), jnp.eye(10)), obs=x)

    def no_latents(x=None):
        numpyro.sample("x", dist.Normal(jnp.ones(10), 1.0), obs=x)

    def no_dependence(x=None):
        numpyro.sample("s", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(jnp.ones(10), 1.0), obs=x)

    def two_data(x=None):
        s = numpyro.sample("s", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(s, 1.0), obs=1.0)
        numpyro.sample("y", dist.Normal(s, 1.0), obs=1.0)

    return [
        (discrete, {}, "discrete sites k"),
        (one_density, {}, "site 'x' has no batch axis 0"),
        (no_latents, {}, "no latent sites besides 'x'"),
        (no_dependence, {}, "the gradient is zero"),
        (two_data, {}, "name the `site`"),
        (unstable, {"site": "y"}, "no sample site 'y'"),
        (unstable, {"wrt": ["r"]}, "`wrt` has 'r'"),
        (unstable, {"params": {"r": 1.0}}, "`params` has 'r'"),
        (unstable, {"times": TIMES[:5]}, "`times` must be 40 positive, increasing numbers"),
        (unstable, {"times": TIMES[::-1]}, "`times` must be 40 positive, increasing numbers"),
        (unstable, {"num_draws": 1}, "`num_draws` must be an integer of 2 or more"),
        (unstable, {"time_axis": 1}, "no batch axis 1"),
        (unstable, {"model_kwargs": {"times": TIMES[:5]}}, "8 times or more"),
        (unstable, {"model_kwargs": {"rate": 60.0}}, "not finite from time 6 on in float32"),
    ]


@pytest.mark.parametrize(("model", "options", "message"), bad_models(), ids=range(14))
def test_bad_input(model, options, message):
    with pytest.raises(ValueError, match=message):
        shattering(model, jax.random.key(0), **{"num_draws": 4, **options})


def test_bad_types():
    with pytest.raises(TypeError, match="`model` must be a NumPyro model"):
        shattering(None, jax.random.key(0))
    with pytest.raises(TypeError, match="`rng_key` must be a random key"):
        shattering(unstable, 0)
