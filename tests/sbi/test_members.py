"""Estimators of several members: fits of their own, one mixture, files and checkpoints."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi import NLE, NPE, simulate

QUIET = {"progress_bar": False}


def _bumps(key, theta):
    return jnp.stack([theta[0] ** 2 / 4 + theta[1], theta[1]]) + 0.1 * random.normal(key, (2,))


def bumps_model(x=None):
    """Neither law is near the linear Gaussian one that training starts from, so that members come to differ."""
    theta = numpyro.sample("theta", dist.Uniform(-4.0, 4.0).expand([2]).to_event(1))
    numpyro.sample("x", Simulator(_bumps, theta, event_dims=1), obs=x)


@pytest.mark.slow
def test_members_are_fits_of_their_own_and_the_posterior_is_their_mixture(tmp_path):
    """The first is the fit without others, bit for bit; the density is the mean of the members'."""
    npe, simulations = NPE(bumps_model), simulate(bumps_model, random.key(0), 1000, progress_bar=False)
    one, two = (npe.fit(random.key(1), simulations=simulations, members=k, max_epochs=2, **QUIET) for k in (1, 2))
    y = np.array([2.44, 1.0], np.float32)
    first, second = two.learned.density.members
    assert len(one.training) == 1
    assert len(two.training) == 2
    for a, b in zip(jax.tree.leaves(one.learned.density), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(a, b)
    each = []
    for density in (first, second):
        alone = copy.copy(one)
        alone._learned = one.learned._replace(density=density)
        each.append(float(alone.posterior(y).log_prob({"theta": jnp.array([2.3, 1.1])})))
    assert each[0] != each[1]
    found = two.posterior(y).log_prob({"theta": jnp.array([2.3, 1.1])})
    np.testing.assert_allclose(found, np.logaddexp(*each) - np.log(2), rtol=1e-5)
    two.save(tmp_path / "npe.safetensors")
    loaded = npe.load(tmp_path / "npe.safetensors", members=2)
    np.testing.assert_array_equal(loaded.sample(random.key(2), y)["theta"], two.sample(random.key(2), y)["theta"])
    with pytest.raises(ValueError, match=r"npe\.safetensors"):
        npe.load(tmp_path / "npe.safetensors")
    with pytest.raises(TypeError, match="Ensemble, has no `embedding`"):
        two.summaries(y)
    for wrong, error in ((0, ValueError), ("2", TypeError)):
        with pytest.raises(error, match="NPE: `members`"):
            npe.fit(random.key(1), simulations=simulations, members=wrong)


@pytest.mark.slow
def test_members_make_one_law(tmp_path):
    """Of data, too; files keep all."""
    simulations = simulate(bumps_model, random.key(0), 1000, progress_bar=False)
    one, two = (
        NLE(bumps_model).fit(random.key(1), simulations=simulations, members=k, max_epochs=2, **QUIET) for k in (1, 2)
    )
    first, second = two.learned.surrogate.density.members
    for a, b in zip(jax.tree.leaves(one.learned.surrogate.density), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(a, b)
    theta, x = jnp.array([2.3, 1.1]), jnp.array([2.44, 1.0])
    context, law = one.learned.surrogate.features(theta), Simulator(_bumps, theta, event_dims=1)
    each = [float(density.log_prob(x, context)) for density in (first, second)]
    assert each[0] != each[1]
    np.testing.assert_allclose(two._law(law).log_prob(x), np.logaddexp(*each) - np.log(2), rtol=1e-5)
    two.save(tmp_path / "law.safetensors")
    again = NLE(bumps_model).load(tmp_path / "law.safetensors", members=2)
    np.testing.assert_array_equal(again._law(law).log_prob(x), two._law(law).log_prob(x))
    with pytest.raises(TypeError, match="NLE: `members`"):
        NLE(bumps_model).fit(random.key(1), simulations=simulations, members="2")


@pytest.mark.slow
def test_every_round_and_member_has_a_checkpoint_of_its_own(tmp_path, capfd):
    """A fit that is repeated finds what it trained; with one file for all, the second training refused the first's."""
    y = np.array([2.44, 1.0], np.float32)
    options = {"num_simulations": 800, "observation": y, "rounds": 2, "members": 2, "max_epochs": 1, **QUIET}
    plain = NPE(bumps_model).fit(random.key(0), **options)
    for _ in range(2):
        kept = NPE(bumps_model).fit(random.key(0), checkpoint=tmp_path / "npe.safetensors", **options)
        for a, b in zip(jax.tree.leaves(plain.learned.density), jax.tree.leaves(kept.learned.density), strict=True):
            np.testing.assert_array_equal(a, b)
        found = {path.name for path in tmp_path.glob("*.safetensors")}
        assert found == {f"npe{end}.safetensors" for end in ("", "-member-2", "-round-2", "-round-2-member-2")}
    assert not capfd.readouterr().err  # no bar, of simulations neither
