"""Directions that the data inform, and the kernels that use them: eigenpairs, information, laws, grids."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC

from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import InformedMALA, InformedPCN, LowRankNUTS, whiten
from numpyro_inverse.infer.laplace import fisher_information
from numpyro_inverse.infer.laplace._fisher_information import SIMULATIONS
from tests.infer._laws import TARGETS, assert_agree, chain_z, run

KERNELS = [InformedPCN, InformedMALA, LowRankNUTS]
# What they share is tested for one of them in the fast suite.
ONE_OF_THEM = [
    LowRankNUTS,
    *(pytest.param(kernel, marks=pytest.mark.statistical) for kernel in (InformedPCN, InformedMALA)),
]
RNG = np.random.default_rng(0)
FORWARD = RNG.normal(size=(7, 4)) * np.array([4.0, 2.0, 1.0, 0.2])
POINT = np.array([0.3, -0.2, 0.5, 1.0])
DATA = RNG.normal(size=7)


LIKELIHOODS = {
    # the likelihood given the forward map's values, and the information about them
    "normal": (lambda mean: dist.Normal(mean, 0.5).to_event(1), lambda mean: np.full(7, 4.0)),
    "multivariate normal": (
        lambda mean: dist.MultivariateNormal(mean, scale_tril=jnp.diag(jnp.arange(1.0, 8.0))),
        lambda mean: 1 / np.arange(1.0, 8.0) ** 2,
    ),
    "logits": (lambda mean: dist.Bernoulli(logits=mean), lambda mean: np.exp(-mean) / (1 + np.exp(-mean)) ** 2),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_information(name, key, x64):
    """Exact where the curvature does not depend on the data."""
    make, weight = LIKELIHOODS[name]

    def model(data=None):
        x = numpyro.sample("x", dist.Normal().expand([4]).to_event(1))
        numpyro.sample("data", make(FORWARD @ x), obs=data)

    data = (DATA > 0).astype(int) if name == "logits" else DATA
    product = fisher_information(model, (data,), {}, {"x": jnp.asarray(POINT)}, key)
    expected = FORWARD.T @ (weight(FORWARD @ POINT)[:, None] * FORWARD)
    np.testing.assert_allclose(jax.jit(jax.vmap(product))(np.eye(4)), expected, rtol=1e-9, atol=1e-9)


def test_information_about_a_scale_and_by_simulation(key, x64):
    """Twice the number of data about a log scale, none between it and the mean; False-alarm rate below 1e-5.

    The mean over simulations of 3 r^2 - 1 - r^2 per datum (in the log scale) has variance 4 var(r^2) / count.
    """
    count = 500

    def model(data=None):
        mean = numpyro.sample("mean", dist.Normal())
        scale = numpyro.sample("scale", dist.LogNormal())
        with numpyro.plate("data_plate", count):
            numpyro.sample("data", dist.Normal(mean, scale), obs=data)

    z = {"mean": jnp.asarray(0.3), "scale": jnp.log(2.0)}
    product = fisher_information(model, (np.zeros(count),), {}, z, key)
    found = np.asarray(jax.jit(jax.vmap(product))(np.eye(2)))
    error = 5 * np.sqrt(18 * 2 * count / SIMULATIONS)
    np.testing.assert_allclose(found, [[count / 4, 0], [0, 2 * count]], atol=error)


@pytest.mark.slow
def test_custom_vjps_and_factors(key, x64):
    """Only reverse mode is asked for; a factor informs nothing."""

    @jax.custom_vjp
    def forward(x):
        return FORWARD @ x

    forward.defvjp(lambda x: (forward(x), None), lambda _, w: (FORWARD.T @ w,))

    def model(data=None):
        x = numpyro.sample("x", dist.Normal().expand([4]).to_event(1))
        numpyro.factor("extra", jnp.sum(jnp.cos(x)))
        numpyro.sample("data", dist.Normal(forward(x), 1.0).to_event(1), obs=data)

    product = fisher_information(model, (DATA,), {}, {"x": jnp.asarray(POINT)}, key)
    np.testing.assert_allclose(jax.vmap(product)(np.eye(4)), FORWARD.T @ FORWARD, rtol=1e-9)


def linear_model(data=None):
    """Its posterior is its Laplace approximation; one site's prior is not standard."""
    x = numpyro.sample("x", dist.Normal(1.0, 2.0).expand([4]).to_event(1))
    numpyro.sample("data", dist.Normal(FORWARD @ x, 0.5).to_event(1), obs=data)


@pytest.mark.slow
def test_the_laplace_point_of_a_linear_model(key, x64):
    kernel = InformedMALA(linear_model, rank=4)
    reference = kernel.init(key, 0, None, (DATA,), {}).constants
    precision = np.eye(4) / 4 + FORWARD.T @ FORWARD / 0.25
    covariance = np.linalg.inv(precision)
    mean = covariance @ (np.full(4, 0.25) + FORWARD.T @ DATA / 0.25)
    root = np.asarray(jax.vmap(reference.value)(np.eye(4)) - reference.value(jnp.zeros(4)))
    np.testing.assert_allclose(root.T @ root, covariance, rtol=1e-6, atol=1e-9)
    error = reference.value(jnp.zeros(4)) - mean
    assert np.sqrt(error @ precision @ error) < 0.1  # in posterior standard deviations
    np.testing.assert_allclose(reference.directions.values, np.linalg.eigvalsh(4 * FORWARD.T @ FORWARD / 0.25)[::-1])


@pytest.mark.slow
def test_coordinates_and_their_inverses(key, x64):
    reference = InformedMALA(linear_model, rank=2).init(key, 0, None, (DATA,), {}).constants
    reference = reference._replace(root=jnp.array([[0.3, 0.0], [0.2, 2.0]]))
    u, g = np.asarray(jax.random.normal(key, (2, 4)))
    np.testing.assert_allclose(reference.noise(reference.value(u)), u, rtol=1e-8)
    np.testing.assert_allclose(reference.push(reference.pull(g)), g, rtol=1e-8)
    np.testing.assert_allclose(reference.pull(g), jax.vjp(reference.value, u)[1](g)[0], rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("make", [InformedMALA, partial(LowRankNUTS, adapt_mass_matrix=False)])
def test_a_laplace_approximation_is_sampled_independently(make, key):
    """Every move is accepted; no lag-1 correlation above chance (LowRankNUTS's is below) at a rate of 1e-5."""
    mcmc = MCMC(make(linear_model, rank=4), num_warmup=200, num_samples=2000, progress_bar=False)
    mcmc.run(key, DATA.astype(np.float32), extra_fields=("accept_prob", "num_grads", "step_size"))
    fields, x = mcmc.get_extra_fields(), np.asarray(mcmc.get_samples()["x"], float)
    assert np.mean(fields["accept_prob"]) > 0.99
    assert np.mean(fields["num_grads"]) <= 3.5
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    assert np.all(np.mean(x[1:] * x[:-1], axis=0) < 4.7 / np.sqrt(2000))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_exact(kernel, key):
    # One direction of a Gaussian that is not the reference. False-alarm rate 1e-5.
    target = TARGETS["Gaussian, variances 1 to 100"]
    draws = run(kernel(potential_fn=target.potential, rank=2), key, target.size, 500, 1000, 64)
    assert_agree(chain_z(draws, target))


@pytest.mark.statistical
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_with_many_draws(kernel, name, key):
    # False-alarm rate 1e-5.
    target = TARGETS[name]
    draws = run(kernel(potential_fn=target.potential, rank=2), key, target.size, 1000, 5000, 128)
    assert_agree(chain_z(draws, target))


@pytest.mark.slow
def test_the_plain_ratio_of_densities_is_found_out(key, monkeypatch):
    # Instead of the ratio relative to the reference.
    monkeypatch.setattr("numpyro_inverse.infer.kernels._informed_pcn.misfit", lambda point, _: point.potential_energy)
    target = TARGETS["round Gaussian"]
    draws = run(InformedPCN(potential_fn=target.potential, rank=2), key, target.size, 500, 1000, 64)
    assert np.max(np.abs(chain_z(draws, target))) > 15


@pytest.mark.slow
def test_a_wrong_energy_is_found_out(key, monkeypatch):
    # A tenth too small.
    real = LowRankNUTS._evaluate

    def careless(self, potential, x):
        point = real(self, potential, x)
        return point._replace(potential_energy=0.9 * point.potential_energy)

    monkeypatch.setattr(LowRankNUTS, "_evaluate", careless)
    target = TARGETS["round Gaussian"]
    draws = run(LowRankNUTS(potential_fn=target.potential, rank=2), key, target.size, 500, 1000, 64)
    assert np.max(np.abs(chain_z(draws, target))) > 8


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(4, marks=pytest.mark.statistical), 24])
@pytest.mark.parametrize("kernel", ONE_OF_THEM)
def test_the_prior_is_accepted_at_any_step_on_any_grid(kernel, count, key):
    # Without data Phi is constant; what is left is rounding of two potentials of about half the number of latents.
    field = Matern(Grid((count, count)), range=0.4, scale=1.0, smoothness=1.5)

    def prior():
        numpyro.sample("field", field)
        numpyro.sample("shift", dist.Normal(3.0, 0.2))

    mcmc = MCMC(kernel(whiten(prior), rank=3, step_size=0.9), num_warmup=0, num_samples=20, progress_bar=False)
    mcmc.run(key, extra_fields=("accept_prob", "diverging"))
    fields = mcmc.get_extra_fields()
    np.testing.assert_allclose(fields["accept_prob"], 1, atol=8 * np.finfo(np.float32).eps * (count**2 + 1))
    assert not np.any(fields["diverging"])


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ONE_OF_THEM)
def test_chains_start_where_they_are_told_or_from_the_laplace_approximation(kernel, key):
    """Chi-squared of 400 first points with 4 numbers each within 5 standard deviations."""
    made = kernel(linear_model, rank=4)
    told, data = {"x": jnp.arange(4.0)}, DATA.astype(np.float32)
    np.testing.assert_array_equal(made.init(key, 0, told, (data,), {}).z["x"], told["x"])
    state = made.init(jax.random.split(key, 400), 0, None, (data,), {})
    u = jax.vmap(lambda reference, x: reference.noise(x))(state.constants, state.z["x"])
    assert abs(np.sum(np.square(u)) - 1600) < 5 * np.sqrt(2 * 1600)


@pytest.mark.parametrize("step_size", [pytest.param(0.005, marks=pytest.mark.slow), 0.2, 0.6, 1.0, 50.0])
def test_steps_of_nuts_end_where_a_trajectory_has_turned(step_size, key):
    target = TARGETS["round Gaussian"]
    kernel = LowRankNUTS(potential_fn=target.potential, step_size=step_size)
    used = float(kernel.init(key, 0, jnp.zeros(target.size), (), {}).step_size)
    lengths = 2.0 ** np.arange(2, 14) - 1
    turn = used * lengths[np.argmax(used * lengths > 1.19 * np.pi)]
    assert turn < 1.51 * np.pi
    assert used <= step_size * (1 + 1e-5)
    assert 2.5 * used >= min(step_size, 1.2 * np.pi / 3)


@pytest.mark.slow
def test_flat_draws_have_the_model_s_shapes(key):
    mcmc = MCMC(LowRankNUTS(linear_model, rank=9), num_warmup=3, num_samples=2, progress_bar=False)
    mcmc.run(key, DATA.astype(np.float32))
    assert mcmc.get_samples()["x"].shape == (2, 4)
    assert mcmc.last_state.constants.directions.vectors.shape == (4, 4)
    assert ravel_pytree(mcmc.last_state.z)[0].shape == (4,)


@pytest.mark.parametrize("kernel", KERNELS)
def test_parameters(kernel):
    with pytest.raises(ValueError, match="`rank` must be a positive integer; got 0"):
        kernel(potential_fn=jnp.sum, rank=0)
    with pytest.raises(ValueError, match="`target_accept_prob`"):
        kernel(potential_fn=jnp.sum, target_accept_prob=1.0)
    with pytest.raises(ValueError, match="`step_size`"):
        kernel(potential_fn=jnp.sum, step_size=0.0)


def test_depth():
    with pytest.raises(ValueError, match="`max_tree_depth` must be a positive integer; got 0"):
        LowRankNUTS(potential_fn=jnp.sum, max_tree_depth=0)
