"""Flows: exact inverses and log determinants, and fits to laws with a known entropy.

Affine couplings and autoregressive flows also go through the contract suite of distributions.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.nn import AutoregressiveFlow, CouplingFlow, MultiscaleFlow, fit_flow, flow_log_prob

ROOT = np.array([[1.0, 0, 0], [0.9, 0.4, 0], [-0.5, 0.3, 0.2]])
OPTIONS = {"batch_size": 256, "max_epochs": 12, "learning_rate": 5e-3, "progress_bar": False}


def gaussian(n):
    """Correlated rows, and the entropy of their law."""
    z = np.random.default_rng(n).normal(size=(n, 3))
    return 2.0 + z @ ROOT.T, 1.5 * np.log(2 * np.pi * np.e) + np.log(np.diag(ROOT)).sum()


def banana(n):
    """A Gaussian bent by a map of unit determinant, so that its entropy is the Gaussian's."""
    z = np.random.default_rng(n).normal(size=(n, 2)) * [1.0, 0.5]
    return np.stack([z[:, 0], z[:, 1] + z[:, 0] ** 2], axis=1), np.log(2 * np.pi * np.e) + np.log(0.5)


FLOWS = {
    "splines": lambda size, data: CouplingFlow(size, layers=4, width=32, data=data, key=jax.random.key(0)),
    "affine couplings": lambda size, data: CouplingFlow(
        size, layers=6, width=32, bins=0, data=data, key=jax.random.key(0)
    ),
    "autoregressive": lambda size, data: AutoregressiveFlow(size, layers=3, width=32, data=data, key=jax.random.key(0)),
}


def score(flow, rows):
    """Cross entropy of new rows, and its standard error."""
    values = np.asarray(jax.jit(jax.vmap(lambda x: flow_log_prob(flow, x)))(jnp.asarray(rows, jnp.float32)), float)
    return -values.mean(), values.std() / len(values) ** 0.5


FITS = [(gaussian, "autoregressive"), (banana, "splines")]
REST = [
    (gaussian, "splines"),
    (gaussian, "affine couplings"),
    (banana, "autoregressive"),
    (banana, "affine couplings"),
]


@pytest.mark.parametrize(
    ("law", "flow"), [*FITS, *(pytest.param(*case, marks=pytest.mark.statistical) for case in REST)]
)
def test_the_entropy_is_reached(flow, law):
    """Within 0.02 nat per number of the true entropy, on 200,000 new rows; 4 standard errors allowed for them."""
    rows, entropy = law(20_000)
    made = FLOWS[flow](rows.shape[1], rows[:2000])
    fit = fit_flow(made, rows.astype(np.float32), key=jax.random.key(1), **OPTIONS)
    found, error = score(fit.module, law(200_000)[0])
    assert entropy - 4 * error < found < entropy + 0.02 * rows.shape[1] + 4 * error


def moved(flow):
    """The flow with weights away from where training starts; a distribution function stays one."""
    away = jax.tree.map(
        lambda leaf: leaf + 0.1 * np.random.default_rng(leaf.size).normal(size=leaf.shape),
        eqx.filter(flow, eqx.is_array),
    )
    flow = eqx.combine(away, flow)
    return eqx.tree_at(lambda f: f.levels, flow, LEVELS) if isinstance(flow, MultiscaleFlow) else flow


LEVELS = jnp.linspace(0, 1, 257) ** 1.3


@pytest.mark.parametrize("kind", ["splines", "multiscale"])
def test_inverse_and_log_determinant(x64, kind):
    """Both directions against each other, and the log determinant against the dense Jacobian."""
    key = jax.random.key(1)
    start = (
        CouplingFlow(5, layers=3, width=4, key=key)
        if kind == "splines"
        else MultiscaleFlow((4, 4), np.linspace(0, 1, 300), width=4, steps=1, key=key)
    )
    flow = moved(start)

    @jax.jit
    def both(z):
        x, log_det = flow.forward_and_log_det(z)
        back, log_det_back = flow.inverse_and_log_det(x)
        return x, back, log_det, log_det_back, jax.jacfwd(lambda z: flow.forward_and_log_det(z)[0].ravel())(z)

    z = jax.random.normal(jax.random.key(2), start.shape)
    x, back, log_det, log_det_back, jacobian = both(z)
    assert not np.allclose(x, z)
    np.testing.assert_allclose(back, z, atol=1e-9)
    # The Jacobian differentiates the root of the spline's quadratic equation, which loses some digits.
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian.reshape(z.size, z.size))[1], rtol=1e-7)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-9)


def test_a_start_that_standardises():
    rows, entropy = gaussian(20_000)
    found, error = score(FLOWS["splines"](3, rows), gaussian(50_000)[0])
    assert abs(found - entropy) < 4 * error + 3 / 20_000 * 4


def test_images_at_the_start_have_the_pixels_distribution(key):
    """Before training the pixels are independent with the distribution function of the given ones."""
    pixels = np.random.default_rng(0).beta(0.5, 1.0, size=20_000)
    flow = MultiscaleFlow((8, 8), pixels, width=4, steps=1, key=key)
    images = jax.jit(jax.vmap(flow.forward_and_log_det))(jax.random.normal(key, (300, 8, 8)))[0]
    assert images.shape == (300, 8, 8)
    at = np.linspace(0.01, 0.99, 50)
    found, given = (np.mean(np.ravel(x)[:, None] < at, axis=0) for x in (np.asarray(images), pixels))
    assert np.max(np.abs(found - given)) < 1.95 * (1 / 19_200 + 1 / 20_000) ** 0.5  # Kolmogorov-Smirnov at 1e-3


def test_sizes_that_cannot_be(key):
    with pytest.raises(ValueError, match="2 or more"):
        CouplingFlow(1, key=key)
    with pytest.raises(ValueError, match="2 or more"):
        AutoregressiveFlow(1, key=key)
    with pytest.raises(ValueError, match="even"):
        MultiscaleFlow((7, 8), np.zeros(3), key=key)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        MultiscaleFlow((8, 8), np.array([0.0, 2.0]), key=key)
    with pytest.raises(ValueError, match="finite rows of 2 numbers"):
        CouplingFlow(2, data=np.zeros((5, 3)), key=key)
