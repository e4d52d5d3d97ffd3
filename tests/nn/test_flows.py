"""Flows: exact inverses and log determinants, and fits to laws with a known entropy.

Affine couplings and autoregressive flows also go through the contract suite of distributions.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.nn import AutoregressiveFlow, CouplingFlow, MultiscaleFlow, fit_flow, flow_log_prob
from numpyro_inverse.nn._bijectors import spline
from numpyro_inverse.nn._networks import _convolve

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
    "splines": lambda size, data: CouplingFlow(size, layers=size, width=32, data=data, key=jax.random.key(0)),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "flow"), [*FITS, *(pytest.param(*case, marks=pytest.mark.statistical) for case in REST)]
)
def test_the_entropy_is_reached(flow, law):
    """Within 0.02 nat per number of the true entropy, on 200,000 new rows; 4 standard errors allowed for them."""
    rows, entropy = law(20_000)
    made = FLOWS[flow](rows.shape[1], rows[:2000])
    options = OPTIONS | ({"max_epochs": 6} if flow == "splines" else {})
    fit = fit_flow(made, rows.astype(np.float32), key=jax.random.key(1), **options)
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["splines", "autoregressive", "multiscale"])
def test_inverse_and_log_determinant(x64, kind):
    """Both directions against each other, and the log determinant against the dense Jacobian.

    The Jacobian is of central differences: rounding of 1e-16 / 1e-5 and a third derivative times 1e-10.
    """
    key = jax.random.key(1)
    start = {
        "splines": lambda: CouplingFlow(5, layers=3, width=4, key=key),
        "autoregressive": lambda: AutoregressiveFlow(4, layers=2, width=4, key=key),
        "multiscale": lambda: MultiscaleFlow((4, 4), np.linspace(0, 1, 300), width=4, steps=1, key=key),
    }[kind]()
    flow = moved(start)
    z = jax.random.normal(jax.random.key(2), start.shape)
    steps = 1e-5 * np.eye(z.size).reshape(-1, *z.shape)

    @jax.jit
    def both(points):
        x, log_det = jax.vmap(flow.forward_and_log_det)(points)
        return x, log_det, *flow.inverse_and_log_det(x[0])

    images, log_dets, back, log_det_back = both(jnp.concatenate([z[None], z + steps, z - steps]))
    x, log_det = images[0], log_dets[0]
    up, down = np.asarray(images[1:]).reshape(2, z.size, z.size)
    jacobian = (up - down) / 2e-5
    assert not np.allclose(x, z)
    np.testing.assert_allclose(back, z, atol=1e-9)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-7)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-9)


@pytest.mark.slow
def test_layers_take_turns(x64):
    """Without the linear maps: couplings change every number, and every number then depends on every other."""
    key, size = jax.random.key(3), np.eye(4)
    start = CouplingFlow(4, layers=3, width=4, bins=0, key=key)
    couplings = eqx.tree_at(lambda f: f.networks, start, moved(start).networks)
    start = AutoregressiveFlow(4, layers=2, width=8, key=key)
    autoregressive = eqx.tree_at(lambda f: f.layers, start, moved(start).layers)
    coarse = moved(MultiscaleFlow((8, 8), np.linspace(0, 1, 300), width=4, steps=1, key=key)).coarse

    @jax.jit
    def changes(z):
        points = jnp.concatenate([z[None], z + 0.1 * size])
        found = [jax.vmap(f.inverse_and_log_det)(points)[0] for f in (couplings, autoregressive)]
        return [x[1:] - x[0] for x in found], coarse._couplings().inverse(z) - z

    dependence, change = changes(jnp.linspace(0.2, 0.8, 4))
    for found in (*dependence, change):
        assert np.min(np.abs(found)) > 1e-8


@pytest.mark.slow
def test_splines_are_smooth_at_their_edges(x64):
    parameters = jnp.asarray(np.random.default_rng(0).normal(size=(2, 25)))
    x, log_slope = spline(parameters).forward_and_log_det(jnp.array([-8 + 1e-9, 8 - 1e-9]))
    np.testing.assert_allclose(x, [-8, 8], atol=1e-8)
    np.testing.assert_allclose(log_slope, 0, atol=1e-7)


def test_the_convolution_is_equinox_own(key):
    layer, x = eqx.nn.Conv2d(2, 3, 3, padding=1, key=key), jax.random.normal(key, (4, 5, 2))
    expected = layer(x.transpose(2, 0, 1)).transpose(1, 2, 0)
    np.testing.assert_allclose(_convolve(layer, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_start_that_standardises():
    rows, entropy = gaussian(20_000)
    found, error = score(FLOWS["splines"](3, rows), gaussian(50_000)[0])
    assert abs(found - entropy) < 4 * error + 3 / 20_000 * 4


@pytest.mark.slow
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
    for pixels in ([], [0.5, np.nan]):
        with pytest.raises(ValueError, match="MultiscaleFlow: `pixels` must be finite, one number at least"):
            MultiscaleFlow((8, 8), np.array(pixels), key=key)
    for shape in (8, (8, 8, 1)):
        with pytest.raises(ValueError, match="MultiscaleFlow: `shape` must be height and width"):
            MultiscaleFlow(shape, np.zeros(3), key=key)
    for change in ({"width": 0}, {"depth": -1}, {"steps": -1}):
        with pytest.raises(ValueError, match=f"MultiscaleFlow: `{next(iter(change))}` must be"):
            MultiscaleFlow((8, 8), np.zeros(3), key=key, **change)
    for make, name in ((CouplingFlow, "CouplingFlow"), (AutoregressiveFlow, "AutoregressiveFlow")):
        with pytest.raises(ValueError, match=f"{name}: `layers` must be 1 or more; got 0"):
            make(4, layers=0, key=key)
        with pytest.raises(TypeError, match=f"{name}: `size` must be an integer; got 4.0"):
            make(4.0, key=key)
        with pytest.raises(ValueError, match=f"{name}: `data` must be finite rows of 2 numbers"):
            make(2, data=np.zeros((5, 3)), key=key)
        for rows in (np.ones((1, 2)), np.ones((9, 2))):
            with pytest.raises(ValueError, match=f"{name}: `data` must be two different rows at least"):
                make(2, data=rows, key=key)
