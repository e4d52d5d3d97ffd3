"""Signals with independent increments: two ways to each exact posterior, and split Gibbs beside them."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from models import levy
from numpyro_inverse.infer import SplitGibbs
from tests.infer._laws import assert_agree

WARMUP, DRAWS, CHAINS = 100, 200, 16


@functools.cache
def gibbs(law, operator):
    """Compiled reference chains of a law and an operator, (chains, draws, 64)."""

    def run(keys, data, noise):
        one = partial(levy.posterior_draws, law=law, operator=operator, num_warmup=WARMUP, num_samples=DRAWS)
        return jax.lax.map(lambda key: one(key, data, noise=noise), keys)

    return jax.jit(run)


def reference(law, operator, data, noise, chains=CHAINS):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), chains)
        found = gibbs(law, operator)(keys, jnp.asarray(np.asarray(data, float)), float(noise))
        return np.asarray(found)


def chain_z(values, expected=0.0):
    """z of the means over independent chains."""
    values = values.mean(axis=1)
    t = (values.mean(0) - expected) / (values.std(0, ddof=1) / np.sqrt(len(values)))
    return stats.norm.isf(stats.t.sf(np.abs(t), len(values) - 1))


def test_operators():
    shapes = {"identity": (64, 64), "deconvolution": (64, 64), "imputation": (40, 64), "fourier": (30, 64)}
    for operator, shape in shapes.items():
        assert levy.matrix(operator).shape == shape
    blur = levy.matrix("deconvolution")
    assert np.count_nonzero(blur[32]) == 13
    np.testing.assert_allclose(blur.sum(axis=1)[6:-6], 1)
    assert levy.matrix("imputation")[-1, -1] == 1
    rows = levy.matrix("fourier")
    np.testing.assert_allclose(rows @ rows.T, np.diag(np.diagonal(rows @ rows.T)), atol=1e-12)
    assert np.diagonal(rows @ rows.T)[0] == pytest.approx(1)  # frequency 0; half of the others' norm each part


@pytest.mark.slow
@pytest.mark.parametrize("law", ["gauss", "bernoulli-laplace", "student-1"])
def test_simulations(law):
    """25 dB each, and no signal that is zero; the share of jumps is binomial (false alarm 1e-5)."""
    signals, data, noise = jax.jit(jax.vmap(partial(levy.simulate, law=law)))(jax.random.split(jax.random.key(0), 200))
    power = np.mean(np.asarray(signals, float) ** 2, axis=1)
    np.testing.assert_allclose(10 * np.log10(power / np.asarray(noise, float) ** 2), 25, atol=1e-4)
    assert np.std((data - signals) / noise[:, None]) == pytest.approx(1, abs=4.4 / np.sqrt(2 * 64 * 200))
    jumps = np.count_nonzero(np.diff(np.asarray(signals), axis=1))
    assert stats.binomtest(jumps, 200 * 63, levy.increments(law)[1]).pvalue > 1e-5


def test_the_model_has_the_density_of_its_law(x64):
    u = np.random.default_rng(0).normal(size=64)
    y = np.zeros(64)
    value = log_density(levy.model, (y,), {"law": "student-2", "noise": 0.3}, {"increments": jnp.asarray(u)})[0]
    expected = stats.t(2).logpdf(u).sum() + stats.norm(np.cumsum(u), 0.3).logpdf(0).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-10)


@pytest.mark.slow
def test_gaussian_posterior():
    """The latent Gibbs sampler's draws are independent: z of means and variances of 64 samples."""
    _, data, noise = levy.simulate(jax.random.key(1), law="gauss", operator="deconvolution")
    exact = levy.exact_posterior(data, operator="deconvolution", noise=noise)
    draws = reference("gauss", "deconvolution", data, noise).reshape(-1, 64)
    z = (draws.mean(0) - exact.mean) / (exact.sd / np.sqrt(len(draws)))
    spread = (((draws - exact.mean) / exact.sd) ** 2).mean(0) - 1
    assert_agree(np.concatenate([z, spread * np.sqrt(len(draws) / 2)]))


@pytest.mark.slow
@pytest.mark.parametrize("law", ["laplace", "bernoulli-laplace", "student-2"])
def test_gibbs_and_quadrature_have_one_mean(law):
    """Two algorithms with nothing in common: z of 64 means over chains. What quadrature leaves, h^2 / 12 of a jump's
    variance (8e-4 at h = 0.1), is far below their Monte Carlo error of 1 % of the noise."""
    _, data, noise = levy.simulate(jax.random.key(2), law=law)
    mean = jax.jit(levy.denoiser(law))(data, noise)
    assert_agree(chain_z(reference(law, "identity", data, noise), np.asarray(mean, float)))


def split_gibbs(law, operator, ladder, chains, warmup, draws):
    """Compiled split Gibbs chains for one data set, (chains, draws, 64), and their log weights."""

    def run(key, data, noise):
        model = partial(levy.likelihood, operator=operator)
        kernel = SplitGibbs(model, levy.denoiser(law), coupling=noise * jnp.asarray(ladder))
        call = (data,), {"noise": noise}
        state = kernel.init(jax.random.split(key, chains), 0, None, *call)
        state = jax.lax.fori_loop(0, warmup, lambda _, s: kernel.sample(s, *call), state)

        def step(state, _):
            state = kernel.sample(state, *call)
            return state, state.z["signal"]

        _, z = jax.lax.scan(step, state, length=draws)
        return z.swapaxes(0, 1), kernel.log_weights({"signal": z.swapaxes(0, 1)}, data, noise=noise)

    return jax.jit(run)


def agreement(law, operator, ladder, chains, warmup, draws):
    """z, over chains, of the weighted means of split Gibbs against those of the reference, in every sample."""
    _, data, noise = levy.simulate(jax.random.key(4), law=law, operator=operator)
    exact = reference(law, operator, data, noise, chains)
    z, log_weights = split_gibbs(law, operator, ladder, chains, warmup, draws)(jax.random.key(5), data, noise)
    z, weights = np.asarray(z, float), np.exp(np.asarray(log_weights, float))
    mean = exact.mean((0, 1))
    shift = (weights[..., None] * (z - mean)).mean(1) / weights.mean()
    errors = exact.mean(1).std(0, ddof=1), shift.std(0, ddof=1)
    t = shift.mean(0) / np.sqrt((errors[0] ** 2 + errors[1] ** 2) / chains)
    return stats.norm.isf(stats.t.sf(np.abs(t), chains - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "law", ["laplace", "student-3", pytest.param("bernoulli-laplace", marks=pytest.mark.statistical)]
)
def test_split_gibbs(law):
    """Cells of the referee; all of them: benchmarks/levy.py."""
    assert_agree(agreement(law, "identity", [0.5], CHAINS, 50, 100))


@pytest.mark.statistical
@pytest.mark.parametrize("law", ["laplace", "bernoulli-laplace", "student-2", "student-3"])
@pytest.mark.parametrize("operator", ["deconvolution", "fourier"])
def test_split_gibbs_with_a_ladder(law, operator):
    ladder = 2.2 ** np.arange(4) if operator == "deconvolution" else 0.5 * 1.7 ** np.arange(5)
    assert_agree(agreement(law, operator, ladder, CHAINS, 300, 1000))


def test_bad_names():
    with pytest.raises(ValueError, match="`law` must be one of gauss"):
        levy.increments("cauchy")
    with pytest.raises(ValueError, match="`operator` must be one of identity"):
        levy.matrix("radon")
    with pytest.raises(ValueError, match="an atom and no density"):
        levy.model(law="bernoulli-laplace")
