"""Distrax is imported when a flow is used; without it everything but its flows works."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules["distrax"] = sys.modules["tensorflow_probability"] = None
import jax, jax.numpy as jnp, numpy as np, equinox as eqx
import numpyro.distributions as dist
import numpyro_inverse
from numpyro_inverse import nn
from numpyro_inverse.distributions import Flow
key = jax.random.key(0)
vae = nn.load_pretrained("fashion_mnist_vae")
assert vae.decode(jnp.zeros(32)).shape == (28, 28)
white = dist.Normal(0, 1).expand([2]).to_event(1)
flow = Flow(dist.transforms.LowerCholeskyAffine(jnp.zeros(2), jnp.eye(2)), white)
np.testing.assert_allclose(flow.log_prob(jnp.ones(2)), white.log_prob(jnp.ones(2)), rtol=1e-5)
from flowjax.bijections import Affine
affine = Flow(Affine(jnp.zeros(2), 2 * jnp.ones(2)), white)
np.testing.assert_allclose(affine.log_prob(jnp.zeros(2)), -np.log(2 * np.pi) - 2 * np.log(2), rtol=1e-5)
nn.fit_module(eqx.nn.Linear(2, 1, key=key), lambda m, x, k: jnp.mean(jax.vmap(m)(x) ** 2), np.ones((40, 2)), key=key,
    settings=nn.TrainingSettings(batch_size=10, max_epochs=1, progress_bar=False))
flow = nn.CouplingFlow(2, layers=1, width=4, key=key)
try:
    flow.forward_and_log_det(jnp.zeros(2))
except ImportError as error:
    assert "flows are made of Distrax bijectors" in str(error), error
else:
    raise AssertionError("a flow without Distrax")
"""

WHEN_USED = """
import sys, warnings
import jax, jax.numpy as jnp
from numpyro_inverse import nn
flow = nn.load_pretrained("patch_flow")
assert "distrax" not in sys.modules and "tensorflow_probability" not in sys.modules
warnings.simplefilter("ignore")
first = jax.jit(lambda x: flow.inverse_and_log_det(x)[1])(jnp.full(64, 0.5))  # first used while JAX traces
assert "distrax" in sys.modules
import distrax
assert jnp.isfinite(first) and jnp.isfinite(flow.inverse_and_log_det(jnp.full(64, 0.4))[1])
assert jnp.isfinite(distrax.Normal(0.0, 1.0).log_prob(0.3))
"""


def run(program):
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr


def test_without_distrax():
    run(WITHOUT)


@pytest.mark.slow
def test_distrax_comes_with_the_first_flow():
    run(WHEN_USED)
