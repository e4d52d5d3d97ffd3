"""What every MCMC kernel must do inside ``numpyro.infer.MCMC``; cases are in ``kernel_cases.py``.

A kernel runs with every chain method and gives the same draws with each, collects its extra fields, continues from a
state, brings constrained sites back constrained with the deterministic sites beside them, samples the posterior, works
as a block of ``Gibbs``, can be compiled with the whole of ``MCMC.run``, pickles, and keeps the precision it is given.
"""

import pickle
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, Gibbs
from scipy import stats

from numpyro_inverse.infer import MALA
from tests.contract.kernel_cases import KERNELS, ONE_OF_EACH_BASE, kernel_for

DATA = np.array([1.0, -0.5, 2.0], np.float32)
NOISE = 0.5
ALARM = 1e-5
# Two programs for the same draws differ by rounding, eps, which eight moves of a nonlinear chain multiply by less than
# 2e4; other random numbers differ by a posterior standard deviation (tested).
ROUNDING = 2e4 * float(np.finfo(np.float32).eps)


def model(y=None):
    """A constrained scale, white noise, their product, data."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    with numpyro.plate("rows", 3):
        white = numpyro.sample("white", dist.Normal())
    values = numpyro.deterministic("values", scale * white)
    numpyro.sample("y", dist.Normal(values, NOISE).to_event(1), obs=y)


@cache
def expected(scale_fixed):
    """Means of values, squared values and log scale, by quadrature over the scale."""
    log_scale = np.zeros(1) if scale_fixed else np.linspace(-2.5, 2.5, 4001)
    variance = np.exp(2 * log_scale)[:, None]
    log_weight = stats.norm.logpdf(log_scale / 0.3) + stats.norm.logpdf(DATA / np.sqrt(variance + NOISE**2)).sum(axis=1)
    log_weight -= 1.5 * np.log(variance[:, 0] + NOISE**2)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = variance / (variance + NOISE**2) * DATA
    spread = variance * NOISE**2 / (variance + NOISE**2)
    return np.concatenate([weight @ mean, weight @ (mean**2 + spread), [weight @ log_scale]])


def statistics(draws):
    """What has the means above, shape (chains, draws, 7)."""
    values = np.asarray(draws["values"], float)
    log_scale = np.log(np.asarray(draws["scale"], float)) if "scale" in draws else np.zeros(values.shape[:2])
    return np.concatenate([values, values**2, log_scale[..., None]], axis=-1)


def assert_law(draws, name):
    """Means over independent chains are those of the posterior. False-alarm rate 1e-5."""
    case = KERNELS[name]
    found = statistics(draws)
    error = np.abs(found.mean(axis=(0, 1)) - expected(case.gaussian_only))
    noise = found.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(found))
    limit = stats.t.isf(ALARM / (2 * error.size), len(found) - 1) * noise + case.bias * found.std(axis=(0, 1))
    assert np.all(error <= limit), (error / np.maximum(noise, 1e-30), error, limit)


def mcmc_for(name, num_warmup, num_samples, num_chains=1, chain_method="sequential", kernel=None):
    return MCMC(
        kernel_for(name, model) if kernel is None else kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=chain_method,
        progress_bar=False,
    )


def _param(name):
    quick, slow = name in ("MALA", "PCN"), name in ONE_OF_EACH_BASE
    return pytest.param(name, marks=() if quick else pytest.mark.slow if slow else pytest.mark.statistical)


@pytest.fixture(params=[_param(name) for name in KERNELS])
def name(request):
    """Every kernel in the long suite, one of each base in the slow one, two in the fast one; all have a test of their
    law elsewhere too."""
    return request.param


@cache
def _long(name):
    """Many vectorised chains."""
    mcmc = mcmc_for(name, 300, 500, 48, "vectorized")
    mcmc.run(jax.random.key(5), y=DATA, extra_fields=KERNELS[name].fields)
    return mcmc


def test_sites_and_fields(name):
    mcmc = _long(name)
    draws, fields = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)
    assert draws["white"].shape == draws["values"].shape == (48, 500, 3)
    if not KERNELS[name].gaussian_only:
        assert np.all(draws["scale"] > 0)
        np.testing.assert_allclose(draws["values"], draws["scale"][..., None] * draws["white"], rtol=1e-5)
    for field in KERNELS[name].fields:
        assert fields[field].shape == (48, 500)
        assert np.all(np.isfinite(fields[field]))
    assert np.all((fields["accept_prob"] >= 0) & (fields["accept_prob"] <= 1))


def test_law(name):
    assert_law(_long(name).get_samples(group_by_chain=True), name)


def test_the_test_of_the_law_has_power():
    # The posterior of other data, a tenth of the noise away.
    draws = _long("MALA").get_samples(group_by_chain=True)
    with pytest.raises(AssertionError):
        assert_law(draws | {"values": draws["values"] + 0.1 * NOISE}, "MALA")


@cache
def _short(name, chain_method):
    mcmc = mcmc_for(name, 4, 4, 2, chain_method)
    mcmc.run(jax.random.key(6), y=DATA)
    return mcmc


@pytest.mark.slow
@pytest.mark.parametrize("chain_method", ["vectorized", pytest.param("parallel", marks=pytest.mark.statistical)])
def test_chain_methods_agree(name, chain_method):
    one, other = (_short(name, m).get_samples(group_by_chain=True) for m in ("sequential", chain_method))
    for site in one:
        np.testing.assert_allclose(one[site], other[site], rtol=ROUNDING, atol=ROUNDING)
        first, second = np.asarray(one[site])  # chains, which the tolerance must tell apart
        assert np.max(np.abs(first - second)) > 10 * ROUNDING


@pytest.mark.slow
def test_continues_from_a_state(name):
    # Eight draws in one run, and the same in two runs of four.
    def run(num_samples):
        mcmc = mcmc_for(name, 4, num_samples)
        mcmc.run(jax.random.key(6), y=DATA)
        return mcmc

    whole, half = run(8), run(4)
    first = half.get_samples()
    state = half.last_state
    half.post_warmup_state = state
    half.run(state.rng_key, y=DATA)
    for site, values in whole.get_samples().items():
        np.testing.assert_allclose(
            np.concatenate([first[site], half.get_samples()[site]]), values, rtol=ROUNDING, atol=ROUNDING
        )


@pytest.mark.slow
def test_compiles_with_the_whole_run(name):
    @jax.jit
    def draws(key, y):
        mcmc = mcmc_for(name, 4, 4)
        mcmc.run(key, y=y)
        return mcmc.get_samples()

    if KERNELS[name].gaussian_only:
        pytest.skip("chooses how to draw from the data's values")
    plain = mcmc_for(name, 4, 4)
    plain.run(jax.random.key(8), y=DATA)
    for site, values in draws(jax.random.key(8), DATA).items():
        if KERNELS[name].whole and site != "scale":
            continue  # drawn exactly, by a root of the covariance that is chosen from the data's values
        np.testing.assert_allclose(values, plain.get_samples()[site], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.slow
def test_keeps_its_precision(name):
    assert all(v.dtype == jnp.float32 for v in _short(name, "sequential").get_samples().values())
    with jax.enable_x64(True):
        mcmc = mcmc_for(name, 2, 2)
        mcmc.run(jax.random.key(9), y=DATA.astype(np.float64))
        assert all(v.dtype == jnp.float64 for v in mcmc.get_samples().values())


@pytest.mark.slow
def test_pickles(name):
    used = _short(name, "sequential").sampler
    first, second = (k.init(jax.random.key(6), 4, None, (DATA,), {}) for k in (used, pickle.loads(pickle.dumps(used))))
    for site, values in first.z.items():
        np.testing.assert_allclose(values, second.z[site], rtol=1e-6)


def test_shows_its_progress(name):
    mcmc = _short(name, "sequential")
    state = jax.tree.map(lambda v: v[0], mcmc.last_state)
    shown = [float(n) for n in re.findall(r"\d+\.?\d*(?:e[-+]\d+)?", mcmc.sampler.get_diagnostics_str(state))]
    for field in KERNELS[name].shown:  # to the digits that are printed
        value = float(getattr(state, field))
        assert any(abs(number - value) <= 0.006 + 0.06 * value * (value < 0.01) for number in shown), (shown, value)


@jax.custom_vjp
def tilt(white, wrong):
    """A log density whose value may be wrong and whose gradient never is."""
    return -0.1 * jnp.sum(white**2) + wrong * jnp.sin(40 * white[0])


tilt.defvjp(lambda white, wrong: (tilt(white, wrong), white), lambda white, w: (-0.2 * w * white, jnp.zeros_like(w)))


def test_declares_whether_it_needs_a_density(name):
    # A wrong value beside a right gradient changes the draws of the kernels that say so, and of no other.
    def tilted(wrong, y=None):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
        white = numpyro.sample("white", dist.Normal().expand([3]).to_event(1))
        numpyro.factor("tilt", tilt(white, wrong))
        numpyro.sample("y", dist.Normal(scale * white, NOISE).to_event(1), obs=y)

    kernel = kernel_for(name, tilted)
    mcmc = mcmc_for(name, 4, 100, kernel=kernel)

    def draws(wrong):
        mcmc.run(jax.random.key(10), jnp.asarray(wrong), DATA)
        return np.asarray(mcmc.get_samples()["white"])

    if name.startswith("Exact"):
        assert kernel.needs_density
        with pytest.raises(ValueError, match="tilt"):  # no factor enters a Gaussian law
            draws(0.0)
        return
    assert np.array_equal(draws(0.0), draws(5.0)) == (not kernel.needs_density)


def with_mala_on_the_scale(name):
    block = KERNELS[name].make(model)
    return Gibbs([(MALA(block.model), ["scale"]), (block, ["white"])])


@pytest.mark.statistical
def test_block_of_gibbs(name):
    # The scale by MALA, the white noise by the kernel; together they sample the joint posterior.
    kernel = with_mala_on_the_scale(name)
    mcmc = mcmc_for(name, 300, 1000, 48, jax.vmap, kernel=kernel)
    mcmc.run(jax.random.key(7), y=DATA)
    case, draws = KERNELS[name], mcmc.get_samples(group_by_chain=True)
    assert np.all(draws["scale"] > 0)
    found = statistics(draws)
    error = np.abs(found.mean(axis=(0, 1)) - expected(False))
    noise = found.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(found))
    limit = stats.t.isf(ALARM / (2 * error.size), len(found) - 1) * noise + case.bias * found.std(axis=(0, 1))
    assert np.all(error <= limit), (error / noise, error, limit)


@pytest.mark.slow
def test_block_of_gibbs_runs(name):
    kernel = with_mala_on_the_scale(name)
    mcmc = mcmc_for(name, 2, 2, kernel=kernel)
    mcmc.run(jax.random.key(7), y=DATA)
    draws = mcmc.get_samples()
    np.testing.assert_allclose(draws["values"], draws["scale"][:, None] * draws["white"], rtol=1e-5)
