"""Lorenz's systems: steps against SciPy, averages against known ergodic ones, laws of the two kinds of data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from numpyro import handlers
from numpyro.infer.util import log_density

from models import lorenz63, lorenz96


def test_trajectories(x64):
    """Against SciPy's solver of order 8; the scheme's error, of order 4, falls 16-fold when its step is halved."""

    def error(start, flow, step, size):
        exact = scipy.integrate.solve_ivp(lambda t, z: np.asarray(flow(z)), (0, 0.4), start, "DOP853", rtol=1e-12).y[
            :, -1
        ]
        found = jax.lax.fori_loop(0, round(0.4 / size), lambda _, s: step(s, size), jnp.asarray(start))
        return np.abs(found - exact).max()

    flow = jax.jit(lambda z: lorenz63.field(z, 28.0, 8 / 3))
    step = lambda s, size: lorenz63.step(s, 28.0, 8 / 3, size)  # noqa: E731
    errors = [error(np.array([-5.9, -5.5, 24.6]), flow, step, size) for size in (0.01, 0.005)]
    assert errors[0] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)

    start = 2.3 + 3.6 * np.random.default_rng(0).normal(size=40)
    flow = jax.jit(lambda z: lorenz96.field(z, 8.0))
    step = lambda s, size: lorenz96.step(s, 8.0, 1.0, size)  # noqa: E731
    errors = [error(start, flow, step, size) for size in (0.025, 0.0125)]
    assert errors[0] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.4)


def test_ergodic_averages():
    """The mean of z at rho = 28 is 23.558, and its derivative 1.0085 +- 0.003, for 256 windows of length 100.

    The standard deviation of a window's mean is 0.068 at length 200. False alarms: 1e-5 in all.
    """
    found = jax.jit(jax.vmap(lambda key, rho: lorenz63.averages(key, rho, 8 / 3, window=100.0), (0, None)))
    keys = jax.random.split(jax.random.key(0), 256)
    below, at, above = (np.asarray(found(keys, rho), float) for rho in (27.0, 28.0, 29.0))
    spread = at[:, 2].std(ddof=1)
    assert spread == pytest.approx(0.068 * np.sqrt(2), rel=0.3)
    assert abs(at[:, 2].mean() - 23.558) < 4.6 * spread / 16 + 0.004
    derivative = (above - below)[:, 2] / 2
    assert abs(derivative.mean() - 1.0085) < 4.6 * np.hypot(derivative.std(ddof=1) / 16, 0.003)
    # Exact for a stationary law: d<x^2>/dt = 0, d<z>/dt = 0, and the symmetry (x, y) -> (-x, -y).
    mean, variance, covariance = at[:, :3], at[:, 3:6], at[:, 6:]
    square = variance[:, 0] + mean[:, 0] ** 2
    product = covariance[:, 0] + mean[:, 0] * mean[:, 1]
    np.testing.assert_allclose(square.mean(), product.mean(), rtol=2e-3)
    np.testing.assert_allclose(product.mean(), 8 / 3 * mean[:, 2].mean(), rtol=2e-3)
    odd = np.column_stack([mean[:, :2], covariance[:, 1:]])
    assert np.all(np.abs(odd.mean(0)) < 4.8 * odd.std(0) / 16)


@pytest.mark.slow
def test_models_of_trajectories():
    """Data from the model have its residuals: chi-squared within 5 standard deviations."""
    for module, shape in ((lorenz63, (200, 3)), (lorenz96, (100, 40))):
        trace = handlers.trace(handlers.seed(module.model, 0)).get_trace()
        values = {name: site["value"] for name, site in trace.items() if name != "x"}
        assert trace["x"]["value"].shape == shape
        assert len(trace["x"]["infer"]["times"]) == shape[0]
        size = np.prod(shape)
        path = trace["x"]["fn"].base_dist.loc
        assert abs(np.sum((trace["x"]["value"] - path) ** 2) - size) < 5 * np.sqrt(2 * size)
        value, _ = log_density(module.model, (trace["x"]["value"],), {}, values)
        prior = sum(jnp.sum(trace[name]["fn"].log_prob(v)) for name, v in values.items())
        np.testing.assert_allclose(value, prior + trace["x"]["fn"].log_prob(trace["x"]["value"]), rtol=1e-5)


@pytest.mark.slow
def test_simulator_models():
    """Finite for all of 200 draws, near the averages that are known, and moved by each of the unknowns."""
    for module, names, num_data in ((lorenz63, ("rho", "beta"), 9), (lorenz96, ("theta",), 6)):

        @jax.jit
        def draws(key, module=module, names=names):
            def one(key):
                trace = handlers.trace(handlers.seed(module.simulator_model, key)).get_trace()
                return jnp.concatenate([trace[n]["value"].ravel() for n in names]), trace["x"]["value"]

            return jax.vmap(one)(jax.random.split(key, 200))

        parameters, x = (np.asarray(part, float) for part in draws(jax.random.key(0)))
        assert x.shape == (200, num_data)
        assert np.all(np.isfinite(x))
        if module is lorenz63:
            assert np.corrcoef(parameters[:, 0], x[:, 2])[0, 1] > 0.8
            slope, _, rest = np.linalg.lstsq(np.column_stack([parameters, np.ones(200)]), x[:, 2:3], rcond=None)[
                0
            ].ravel()
            assert slope == pytest.approx(1.0, abs=0.15)
            assert np.isfinite(rest)
        else:
            assert np.corrcoef(parameters[:, 0], x[:, 0])[0, 1] < -0.5
            assert np.corrcoef(parameters[:, 1], x[:, 1])[0, 1] < -0.3


def test_lorenz96_energy(x64):
    """The advection conserves energy: sum y_k (dy_k / dt) = sum F y_k - y_k^2."""
    y = np.random.default_rng(0).normal(size=40)
    np.testing.assert_allclose(y @ lorenz96.field(y, 8.0), np.sum(8 * y - y**2), rtol=1e-12)
    np.testing.assert_allclose(lorenz96.field(y, 0.0)[0] + y[0], (y[1] - y[38]) * y[39], rtol=1e-12)
