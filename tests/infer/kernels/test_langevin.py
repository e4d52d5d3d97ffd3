"""Langevin kernels: exactness after the accept-reject step, adaptation, errors. ULA's law: test_gaussian_law.py."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from scipy import stats

from numpyro_inverse.infer import MALA, ULA
from tests.infer._laws import TARGETS, assert_agree, chain_z, run


@pytest.mark.parametrize("name", ["round Gaussian"])
def test_mala_is_exact(name, key):
    # False-alarm rate 1e-5.
    draws = run(MALA(potential_fn=TARGETS[name].potential), key, TARGETS[name].size, 300, 400, 64)
    assert_agree(chain_z(draws, TARGETS[name]))


@pytest.mark.statistical
@pytest.mark.parametrize("name", TARGETS)
def test_mala_is_exact_with_many_draws(name, key):
    # False-alarm rate 1e-5.
    draws = run(MALA(potential_fn=TARGETS[name].potential), key, TARGETS[name].size, 1000, 4000, 128)
    assert_agree(chain_z(draws, TARGETS[name]))


def test_the_test_of_exactness_has_power(key):
    # ULA at MALA's step size fails it by far.
    target = TARGETS["round Gaussian"]
    assert (
        np.max(np.abs(chain_z(run(ULA(potential_fn=target.potential, step_size=0.4), key, 6, 300, 400, 64), target)))
        > 8
    )


@pytest.mark.slow
def test_mala_adapts_to_its_target_acceptance_and_to_scales(key):
    # Means over 64 independent chains, false-alarm rate 1e-5 a number, beyond a bias: of dual averaging in a last
    # window of 50 noisy acceptances (0.03), and of a variance about the mean of 20 and more effective draws (1 / 20)
    # with Stan's shrinkage (5 / 500). An acceptance 0.1 and variances a fifth off would be noticed.
    scales = jnp.array([0.1, 1.0, 10.0])
    kernel = MALA(potential_fn=lambda x: 0.5 * jnp.sum((x / scales) ** 2))
    mcmc = MCMC(kernel, num_warmup=1000, num_samples=500, num_chains=64, chain_method="vectorized", progress_bar=False)
    mcmc.run(key, init_params=jnp.zeros((64, 3)), extra_fields=("accept_prob", "num_grads"))
    fields = mcmc.get_extra_fields(group_by_chain=True)
    assert np.all(fields["num_grads"] == 1)
    variances = np.asarray(mcmc.last_state.adapt_state.inverse_mass_matrix / scales**2)
    for found, expected, bias, noticed in (
        (np.asarray(fields["accept_prob"]).mean(axis=1, keepdims=True), 0.574, 0.03, 0.1),
        (variances, 1.0, 0.06, 0.2),
    ):
        noise = stats.t.isf(0.5e-5, 63) * found.std(axis=0, ddof=1) / 8
        assert np.all(np.abs(found.mean(axis=0) - expected) < bias + noise), (found.mean(axis=0), noise)
        assert np.all(bias + noise < noticed), noise


@pytest.mark.slow
def test_mala_keeps_a_supplied_preconditioner(key):
    variances = {"a": jnp.array([1.0, 4.0]), "b": jnp.array(9.0)}

    def potential(z):
        return 0.5 * sum(jnp.sum(z[k] ** 2 / variances[k]) for k in z)

    start = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    mcmc = MCMC(
        MALA(potential_fn=potential, preconditioner=variances), num_warmup=200, num_samples=10, progress_bar=False
    )
    mcmc.run(key, init_params=start)
    np.testing.assert_array_equal(mcmc.last_state.adapt_state.inverse_mass_matrix, [1.0, 4.0, 9.0])
    with pytest.raises(ValueError, match="3 numbers for 2"):
        MCMC(MALA(potential_fn=potential, preconditioner=variances), num_warmup=1, num_samples=1).run(
            key, init_params={"a": jnp.zeros(2)}
        )


@pytest.mark.slow
@pytest.mark.parametrize(("delta", "num_chains"), [(0.205, 1), (0.3, 1), (0.3, 2), (100.0, 1)])
def test_an_unstable_step_raises_with_iteration_and_remedy(delta, num_chains, key):
    potential = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * x**2)  # noqa: E731
    with pytest.raises(Exception, match=r"(?s)ULA: unstable at iteration \d+.*suggest_step_size"):
        jax.block_until_ready(run(ULA(potential_fn=potential, step_size=delta), key, 2, 0, 600, num_chains))


@pytest.mark.parametrize("kernel", [MALA, lambda **kwargs: ULA(step_size=0.1, **kwargs)])
class TestBadInput:
    def _run(self, kernel, model, **kwargs):
        MCMC(kernel(model=model), num_warmup=1, num_samples=1).run(jax.random.key(0), **kwargs)

    def test_discrete_latent(self, kernel):
        def model():
            numpyro.sample("x", dist.Normal())
            numpyro.sample("flip", dist.Bernoulli(0.5))

        with pytest.raises(ValueError, match="'flip' is discrete"):
            self._run(kernel, model)

    def test_no_latent(self, kernel):
        with pytest.raises(ValueError, match="no latent site"):
            self._run(kernel, lambda: numpyro.sample("y", dist.Normal(), obs=1.0))

    def test_subsampling(self, kernel):
        def model():
            x = numpyro.sample("x", dist.Normal())
            with numpyro.plate("batch", 10, subsample_size=2):
                numpyro.sample("y", dist.Normal(x), obs=jnp.zeros(2))

        with pytest.raises(ValueError, match="plate 'batch' subsamples"):
            self._run(kernel, model)

    def test_start_that_is_not_finite(self, kernel):
        def model():
            x = numpyro.sample("x", dist.Normal())
            numpyro.factor("y", x + jnp.nan)

        with pytest.raises(ValueError, match="site 'y' has log density nan"):
            self._run(kernel, model)

    def test_given_start_that_is_not_finite(self, kernel):
        def model():
            numpyro.sample("x", dist.Normal())

        with pytest.raises(ValueError, match="site 'x' has log density"):
            self._run(kernel, model, init_params={"x": jnp.inf})
        with pytest.raises(ValueError, match="'z', which is not a latent site"):
            self._run(kernel, model, init_params={"z": 0.0})

    def test_gradient_that_is_not_finite(self, kernel):
        def model():
            x = numpyro.sample("x", dist.Normal())
            numpyro.factor("root", jnp.sqrt(jnp.abs(x)))

        with pytest.raises(ValueError, match="gradient in site 'x' is not finite"):
            self._run(kernel, model, init_params={"x": 0.0})

    def test_neither_model_nor_potential(self, kernel):
        with pytest.raises(ValueError, match="either `model` or `potential_fn`"):
            kernel()
        with pytest.raises(ValueError, match="needs `init_params`"):
            MCMC(kernel(potential_fn=jnp.sum), num_warmup=1, num_samples=1).run(jax.random.key(0))


@pytest.mark.parametrize("step_size", [0.0, -1.0, np.inf, np.nan])
def test_step_sizes_are_positive(step_size):
    for kernel in (ULA, MALA):
        with pytest.raises(ValueError, match="`step_size` must be positive"):
            kernel(potential_fn=jnp.sum, step_size=step_size)
