"""Rows and chains over eight devices: the same numbers, on all of them."""

import subprocess
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from numpyro_inverse._devices import num_shards, over_devices, rows_over
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi import simulate

PROGRAM = """
import numpyro
numpyro.set_host_device_count(8)
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.infer import MCMC
from numpyro_inverse.calibration import sbc
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.infer import ULA, ExactGaussian
from numpyro_inverse.sbi import simulate

assert jax.local_device_count() == 8

def rows(number):
    return NamedSharding(Mesh(np.array(jax.devices()[:number]), ("rows",)), PartitionSpec("rows"))

def gaussian(y=None):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

def program():
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", Simulator(lambda key, x: x + jax.random.normal(key, (2,)), x))

key, quiet = jax.random.key(0), {"progress_bar": False}
eight, one, default = (simulate(program, key, 21, sharding=s, **quiet) for s in (rows(8), rows(1), None))
for other in (one, default):
    np.testing.assert_allclose(eight.data["y"], other.data["y"], rtol=1e-6)

settings = {"rng_key": key, "observed": "y", "num_datasets": 24, "num_draws": 9, **quiet}
studies = [sbc(gaussian, ExactGaussian(gaussian), sharding=rows(number), **settings) for number in (8, 2)]
np.testing.assert_array_equal(studies[0].ranks["x"], studies[1].ranks["x"])

def chains(keys):
    mcmc = MCMC(
        ULA(gaussian, step_size=0.1), num_warmup=5, num_samples=5, num_chains=16, chain_method="vectorized", **quiet
    )
    mcmc.run(keys, jnp.ones(3))
    return mcmc.get_samples(group_by_chain=True)["x"]

keys = jax.random.split(key, 16)
spread = chains(jax.device_put(keys, rows(8)))
assert len(spread.sharding.device_set) == 8, spread.sharding
np.testing.assert_allclose(spread, chains(keys), rtol=1e-5, atol=1e-6)
"""


def rows(devices) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices), ("rows",)), PartitionSpec("rows"))


@pytest.mark.slow
def test_eight_devices():
    """Simulations, studies and vectorized chains do not depend on where their rows are."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_two_devices(key):
    """The same of simulations, over the two devices that the tests have."""

    def model():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.sample("y", Simulator(lambda key, x: x + jax.random.normal(key, (2,)), x))

    assert len(jax.local_devices()) == 2
    both, one = (
        simulate(model, key, 21, sharding=s, progress_bar=False) for s in (None, rows(jax.local_devices()[:1]))
    )
    np.testing.assert_allclose(both.data["y"], one.data["y"], rtol=1e-6)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_any_number_of_rows(num, key):
    sharding = rows(jax.local_devices())
    assert num_shards(sharding) == len(jax.local_devices())
    x = jax.random.normal(key, (num, 3))
    found = jax.jit(over_devices(lambda x, y: {"sum": x + y}, sharding))(x, 2 * x)["sum"]
    np.testing.assert_allclose(found, 3 * x, rtol=1e-6)


def test_a_device_that_is_not_the_first():
    last = jax.local_devices()[-1]
    found = over_devices(lambda x: x + 1, rows([last]))(np.zeros(3))
    assert found.sharding.device_set == {last}


def test_the_default_is_all_local_devices():
    assert rows_over("here", None).device_set == set(jax.local_devices())


def test_bad_shardings():
    devices = jax.local_devices()
    with pytest.raises(TypeError, match="got int"):
        rows_over("here", 2)
    with pytest.raises(TypeError, match="got SingleDeviceSharding"):
        rows_over("here", SingleDeviceSharding(devices[0]))
    mesh = Mesh(np.array(devices)[:, None], ("rows", "other"))
    for spec in (PartitionSpec(), PartitionSpec(None), PartitionSpec("rows", "other")):
        with pytest.raises(ValueError, match="here: `sharding` must divide rows and nothing else"):
            rows_over("here", NamedSharding(mesh, spec))
    assert rows_over("here", NamedSharding(mesh, PartitionSpec(("rows", "other")))).mesh is mesh
