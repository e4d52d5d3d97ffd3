"""PCN and InfMALA: exactness whatever the reference, and proposals that leave the prior of a field unchanged."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import PCN, InfMALA, whiten
from tests.infer._laws import TARGETS, assert_agree, chain_z, run

KERNELS = [PCN, InfMALA]


@pytest.mark.parametrize("kernel", KERNELS)
def test_exact(kernel, key):
    # A Gaussian that is not the reference. False-alarm rate 1e-5.
    target = TARGETS["round Gaussian"]
    assert_agree(chain_z(run(kernel(potential_fn=target.potential), key, target.size, 500, 1000, 64), target))


@pytest.mark.statistical
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_with_many_draws(kernel, name, key):
    # False-alarm rate 1e-5.
    target = TARGETS[name]
    assert_agree(chain_z(run(kernel(potential_fn=target.potential), key, target.size, 2000, 10_000, 128), target))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_test_has_power(kernel, key, monkeypatch):
    # The plain ratio of densities instead of the ratio relative to the reference.
    monkeypatch.setattr("numpyro_inverse.infer.kernels._pcn.misfit", lambda point, _: point.potential_energy)
    monkeypatch.setattr("numpyro_inverse.infer.kernels._inf_mala.misfit", lambda point, _: point.potential_energy)
    target = TARGETS["round Gaussian"]
    draws = run(kernel(potential_fn=target.potential), key, target.size, 500, 1000, 64)
    assert np.max(np.abs(chain_z(draws, target))) > 15


@pytest.mark.slow
def test_the_drift_of_inf_mala_is_corrected(key, monkeypatch):
    # A drift that the acceptance ratio forgets is found out.
    real = InfMALA._propose

    def careless(self, key, here, state, target):
        there, log_ratio, count = real(self, key, here, state, target)
        rho, beta = self._rotation(state)
        u, v = state.constants.noise(here.x), state.constants.noise(there.x)
        noise_there, noise_back = (v - rho * u) / beta, (u - rho * v) / beta
        forgotten = 0.5 * (noise_there @ noise_there - noise_back @ noise_back)
        return there, log_ratio + 0.3 * forgotten, count

    monkeypatch.setattr(InfMALA, "_propose", careless)
    target = TARGETS["round Gaussian"]
    draws = run(InfMALA(potential_fn=target.potential), key, target.size, 500, 1000, 64)
    assert np.max(np.abs(chain_z(draws, target))) > 8


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(4, marks=pytest.mark.statistical), 24])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_prior_is_accepted_at_any_step_on_any_grid(kernel, count, key):
    # Without data Phi is constant; what is left is rounding of two potentials of about half the number of latents.
    field = Matern(Grid((count, count)), range=0.4, scale=1.0, smoothness=1.5)

    def prior():
        numpyro.sample("field", field)
        numpyro.sample("shift", dist.Normal(3.0, 0.2))

    mcmc = MCMC(kernel(whiten(prior), step_size=0.9), num_warmup=0, num_samples=20, progress_bar=False)
    mcmc.run(key, extra_fields=("accept_prob", "step_size", "num_grads"))
    fields = mcmc.get_extra_fields()
    np.testing.assert_allclose(fields["accept_prob"], 1, atol=8 * np.finfo(np.float32).eps * (count**2 + 1))
    np.testing.assert_allclose(fields["step_size"], 0.9, rtol=1e-6)
    assert np.all(fields["num_grads"] == (1 if kernel is InfMALA else 0))


@pytest.mark.slow
def test_references(key):
    # Normal priors give themselves, others their moments in unconstrained space: log of LogNormal(-1, 0.5).
    def model():
        numpyro.sample("field", Matern(Grid((3,)), range=0.4, scale=2.0, smoothness=1.5))
        numpyro.sample("shift", dist.Normal(3.0, 0.2).expand([2]).to_event(1))
        numpyro.sample("size", dist.LogNormal(-1.0, 0.5))
        numpyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), ()))

    mcmc = MCMC(PCN(whiten(model)), num_warmup=0, num_samples=1, progress_bar=False)
    mcmc.run(key)
    loc, scale = mcmc.last_state.constants
    np.testing.assert_allclose(loc, [0, 0, 0, 0, 3, 3, -1], atol=0.08)  # in order: field_latent, flat, shift, size
    np.testing.assert_allclose(scale, [1, 1, 1, 1, 0.2, 0.2, 0.5], rtol=0.12)
    np.testing.assert_array_equal(loc[:4], 0)
    np.testing.assert_array_equal(scale[:4], 1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("step_size", [0.0, 1.0, np.nan])
def test_step_sizes_are_shares(kernel, step_size):
    with pytest.raises(ValueError, match=r"`step_size` must be in \(0, 1\)"):
        kernel(potential_fn=jnp.sum, step_size=step_size)
    with pytest.raises(ValueError, match="`target_accept_prob`"):
        kernel(potential_fn=jnp.sum, target_accept_prob=1.0)
