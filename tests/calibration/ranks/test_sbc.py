"""Simulation-based calibration: right posteriors pass, wrong ones do not, and nothing is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal

from numpyro_inverse.calibration import functionals, report, sbc
from numpyro_inverse.calibration.ranks._posteriors import Call, posterior_of
from numpyro_inverse.calibration.ranks._problem import problem_of
from numpyro_inverse.calibration.ranks._rank import rank_of, smallest_ess
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import ExactGaussian
from tests.calibration import linear

QUIET = {"progress_bar": False}


def test_an_exact_posterior_passes(key):
    study = sbc(linear.model, linear.exact, num_datasets=300, rng_key=key, **QUIET)
    assert study.p_value > 1e-3  # the false-alarm rate
    assert study.ranks["x"].shape == (300, 3)
    assert list(study.ranks) == ["x", "log_likelihood"]
    assert "not rejected" in study.verdict(1e-3)
    assert set(study.table.index) == {"x", "log_likelihood"}


@pytest.mark.slow
@pytest.mark.parametrize("name", linear.WRONG)
def test_wrong_posteriors_are_rejected(key, name):
    study = sbc(linear.model, linear.WRONG[name], num_datasets=500, rng_key=key, **QUIET)
    assert study.p_value < 0.05  # missed less than once in a hundred: tests/statistical/test_calibration_power.py


@pytest.mark.slow
def test_the_prior_passes_without_the_likelihood(key):
    study = sbc(linear.model, linear.prior, num_datasets=300, rng_key=key, log_likelihood=False, **QUIET)
    assert study.p_value > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "inference",
    [
        NUTS(linear.model),
        ExactGaussian(linear.model),
        SVI(linear.model, AutoMultivariateNormal(linear.model), numpyro.optim.Adam(0.05), Trace_ELBO(4)),
    ],
    ids=["NUTS", "ExactGaussian", "SVI"],
)
def test_every_kind_of_inference(key, inference):
    study = sbc(
        linear.model, inference, num_datasets=120, rng_key=key, num_warmup=150, num_samples=200, num_steps=1000, **QUIET
    )
    assert study.p_value > 1e-3
    assert not study.failed.any()


def autoregressive(key, y, rho=0.9, draws=400):
    """Exact marginals, correlated draws."""
    noise = jax.random.normal(key, (draws, 3))
    _, chain = jax.lax.scan(lambda x, e: (rho * x + np.sqrt(1 - rho**2) * e,) * 2, noise[0], noise)
    return linear.COVARIANCE @ (linear.MATRIX.T @ y) + chain @ linear.ROOT.T


class Chain(numpyro.infer.mcmc.MCMCKernel):
    """Correlated draws of the exact posterior, as a kernel."""

    sample_field = "z"

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        return {"z": {"x": autoregressive(rng_key, model_kwargs["data"])[-1]}, "key": rng_key}

    def sample(self, state, model_args, model_kwargs):
        key, now = jax.random.split(state["key"])
        mean = linear.COVARIANCE @ (linear.MATRIX.T @ model_kwargs["data"])
        step = jax.random.normal(now, (3,)) @ linear.ROOT.T
        x = mean + 0.9 * (state["z"]["x"] - mean) + np.sqrt(1 - 0.81) * step
        return {"z": {"x": x}, "key": key}


@pytest.mark.slow
def test_correlated_draws_are_thinned(key):
    study = sbc(linear.model, Chain(), num_datasets=250, rng_key=key, num_warmup=0, num_samples=600, **QUIET)
    assert study.p_value > 1e-3
    assert np.mean(study.ess["x"]) < 90  # of 600

    def unthinned(key, y):
        return {"x": autoregressive(key, y, draws=linear.DRAWS)}

    assert sbc(linear.model, unthinned, num_datasets=400, rng_key=key, **QUIET).p_value < 1e-3


@pytest.mark.slow
def test_an_mcmc_is_run_as_it_is(key):
    """Two chains, thinned by three, are what `MCMC` itself makes of the same key; short ones are told."""
    mcmc = MCMC(Chain(), num_warmup=5, num_samples=90, thinning=3, num_chains=2, chain_method="sequential")
    study = sbc(linear.model, mcmc, num_datasets=30, rng_key=key, **QUIET)
    assert np.all(study.ess["x"] <= 60)
    assert study.few_draws.all()
    assert "30 of 30 fits left fewer effective draws than the 99" in study.verdict()

    one = jax.random.split(jax.random.split(key, 2)[0], 3)
    by_hand = MCMC(
        Chain(),
        num_warmup=5,
        num_samples=90,
        thinning=3,
        num_chains=2,
        chain_method="sequential",
        progress_bar=False,
    )
    problem = problem_of(linear.model, (), None, "data")
    _, data = problem.simulate(one[0])
    by_hand.run(one[1], **data)
    found = posterior_of(mcmc, Call((), {}, 99, None, None, 0), data)
    assert found.num_chains == 2
    # Two programs of the same chain differ by rounding, a few eps; other random numbers differ by numbers of order one.
    np.testing.assert_allclose(found.draw(one[1], data).sites["x"], by_hand.get_samples()["x"], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="`num_samples` = 5 beside an `MCMC`, which has its own, 90"):
        sbc(linear.model, mcmc, num_datasets=30, rng_key=key, num_samples=5, **QUIET)


@pytest.mark.slow
def test_chains_that_do_not_mix_have_few_effective_draws(key):
    """Two chains in two places are no more draws than one."""
    apart = jax.random.normal(key, (2, 200, 1)) * 0.01 + jnp.array([-1.0, 1.0])[:, None, None]
    assert smallest_ess(apart.reshape(400, 1), 2) < 10
    assert smallest_ess(jax.random.normal(key, (400, 1)), 2) > 200


@pytest.mark.slow
def test_antithetic_draws_are_thinned(key):
    flat = jnp.where(jnp.arange(400) % 2 == 0, 1.0, -1.0) * jnp.abs(jax.random.normal(key, (400,)))
    chain = jnp.repeat(jax.random.normal(key, (100,)), 4) * jnp.tile(jnp.array([1.0, -1.0, 1.0, -1.0]), 100)
    assert smallest_ess(flat[:, None]) > 200
    assert smallest_ess(chain[:, None]) < 200  # its mean is too good, its squares say so


@pytest.mark.slow
@pytest.mark.parametrize("draws", [99, 30, 401])
def test_ranks_are_uniform_on_the_common_scale_whatever_the_number_of_draws(key, draws):
    def one(key):
        values = jax.random.normal(key, (draws + 1,))
        return rank_of(jax.random.fold_in(key, 1), values[0], values[1:], 99, None, None).rank

    counts = np.bincount(jax.vmap(one)(jax.random.split(key, 20000)), minlength=100)
    chi2 = np.sum((counts - 200) ** 2 / 200)
    assert len(counts) == 100
    assert 99 - 4 * np.sqrt(198) < chi2 < 99 + 5 * np.sqrt(198)  # false alarm 1e-4


@pytest.mark.slow
def test_ties_are_broken_at_random(key):
    def one(key):
        values = jax.random.bernoulli(key, 0.3, (20,)).astype(float)
        return rank_of(jax.random.fold_in(key, 1), values[0], values[1:], 19, None, None).rank

    counts = np.bincount(jax.vmap(one)(jax.random.split(key, 20000)), minlength=20)
    assert np.sum((counts - 1000) ** 2 / 1000) < 19 + 5 * np.sqrt(38)


@pytest.mark.slow
def test_a_discrete_posterior_of_one_value_passes(key):
    def model(data=None):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("data", dist.Normal(k, 0.01), obs=data)

    def exact(key, y):
        return {"k": jnp.full(99, y > 0.5)}  # all but certain

    assert sbc(model, exact, num_datasets=200, rng_key=key, log_likelihood=False, **QUIET).p_value > 1e-3


@pytest.mark.slow
def test_field_functionals_and_deterministic_sites(key):
    grid = Grid((8, 8))
    prior = Matern(grid, range=0.4, scale=1.0, smoothness=1.0)

    def model(data=None):
        field = numpyro.sample("field", prior)
        numpyro.sample("data", dist.Normal(field, 0.5).to_event(2), obs=data)

    left = np.arange(64).reshape(8, 8) % 8 < 4
    quantities = {
        "left": functionals.region_mean("field", left),
        "top": functionals.maximum("field"),
        "bottom": functionals.minimum("field"),
        "energy": functionals.energy("field"),
        "rough": functionals.spectral_energy("field", grid, 10.0, 40.0),
    }
    root = np.asarray(jax.vmap(prior.from_base)(jnp.eye(64).reshape(64, 8, 8))).reshape(64, 64).T
    precision = root.T @ root / 0.25 + np.eye(64)  # of the white noise
    spread = np.linalg.cholesky(np.linalg.inv(precision))

    def exact(key, y):
        mean = spread @ (spread.T @ (root.T @ y.ravel() / 0.25))
        white = mean + jax.random.normal(key, (99, 64)) @ spread.T
        return {"field": (white @ root.T).reshape(99, 8, 8)}

    study = sbc(model, exact, num_datasets=200, rng_key=key, quantities=quantities, **QUIET)
    assert study.p_value > 1e-3
    assert study.ranks["field"].shape == (200, 8, 8)
    assert study.ranks["rough"].shape == (200,)

    with pytest.raises(ValueError, match="none of the"):
        functionals.spectral_energy("field", grid, 1e6, 2e6)
    with pytest.raises(ValueError, match="boolean"):
        functionals.region_mean("field", np.ones((8, 8)))


@pytest.mark.slow
def test_batches_and_keys_do_not_matter(key):
    one = sbc(linear.model, linear.exact, num_datasets=50, rng_key=key, batch_size=50, **QUIET)
    other = sbc(linear.model, linear.exact, num_datasets=50, rng_key=key, batch_size=8, **QUIET)
    np.testing.assert_array_equal(one.ranks["x"], other.ranks["x"])


@pytest.mark.slow
def test_failed_fits_are_counted(key):
    def fragile(key, y):
        return {"x": jnp.where(y[0] > 0.5, jnp.nan, 1.0) * linear.exact(key, y)["x"]}

    study = sbc(linear.model, fragile, num_datasets=100, rng_key=key, **QUIET)
    assert 0 < study.failed.sum() < 100
    assert len(study.ranks["x"]) == 100 - study.failed.sum()
    assert f"{study.failed.sum()} of 100 fits FAILED" in study.verdict()


@pytest.mark.slow
def test_plots_arviz_and_report(key, tmp_path):
    import arviz as az
    from matplotlib import pyplot as plt

    study = sbc(linear.model, linear.exact, num_datasets=60, rng_key=key, **QUIET)
    tree = study.to_arviz()
    assert tree["prior_sbc"]["x"].shape == (1, 60, 3)
    assert float(tree["prior_sbc"]["x"].max()) < 1
    az.plot_ecdf_pit(tree, group="prior_sbc")
    figure = study.plot()
    assert len(figure.axes) == 2
    plt.close("all")
    path = report({"SBC": study}, tmp_path / "page.html")
    page = path.read_text()
    assert study.verdict() in page.replace("&gt;", ">")
    assert "data:image/png;base64" in page
    assert "http" not in page
    with pytest.raises(TypeError, match="verdict"):
        report({"nothing": 1}, tmp_path / "other.html")
    with pytest.raises(ValueError, match="at least one"):
        report({}, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


@pytest.mark.slow
def test_bad_input(key):
    def run(model=linear.model, inference=linear.exact, **options):
        return sbc(model, inference, **{"num_datasets": 20, "rng_key": key} | QUIET | options)

    def second_data(data=None):
        linear.model(data)
        numpyro.sample("more", dist.Normal(0, 1), obs=1.0)

    def factor(data=None):
        linear.model(data)
        numpyro.factor("bonus", 1.0)

    def subsampled(data=None):
        x = numpyro.sample("x", dist.Normal(0, 1))
        with numpyro.plate("rows", 10, subsample_size=2):
            numpyro.sample("data", dist.Normal(x, 1), obs=data)

    with pytest.raises(ValueError, match=r"no sample site 'y'.*x, data"):
        run(observed="y")
    with pytest.raises(ValueError, match="'data' has data already"):
        run(lambda data=None: linear.model(jnp.zeros(6)))
    with pytest.raises(ValueError, match="'more' has data already"):
        run(second_data)
    with pytest.raises(ValueError, match=r"'bonus' is a `numpyro\.factor`"):
        run(factor)
    with pytest.raises(ValueError, match=r"'data' is scaled by 5\.0"):
        run(subsampled)
    with pytest.raises(ValueError, match=r"'x' is scaled by 0\.5"):
        run(numpyro.handlers.scale(linear.model, 0.5))
    with pytest.raises(ValueError, match="no latent site"):
        run(lambda data=None: numpyro.sample("data", dist.Normal(0, 1), obs=data))
    with pytest.raises(TypeError, match="MCMC kernel"):
        run(inference=3)
    with pytest.raises(TypeError, match="must return a dict"):
        run(inference=lambda key, y: jnp.zeros((99, 3)))
    with pytest.raises(ValueError, match="no site 'x'"):
        run(inference=lambda key, y: {"z": jnp.zeros((99, 3))})
    with pytest.raises(ValueError, match=r"shape \(3,\).*\(99, 2\)"):
        run(inference=lambda key, y: {"x": jnp.zeros((99, 2))})
    with pytest.raises(ValueError, match="no site 'z' to test"):
        run(sites=("z",))
    with pytest.raises(ValueError, match="num_datasets"):
        run(num_datasets=1)
    with pytest.raises(ValueError, match="batch_size"):
        run(batch_size=0)
    with pytest.raises(ValueError, match="num_draws"):
        run(num_draws=8)
    with pytest.raises(ValueError, match="tested already"):
        run(quantities={"x": lambda values, data: 0.0})
    with pytest.raises(ValueError, match="'flat' has an element that is the same"):
        run(quantities={"flat": lambda values, data: 0.0 * values["x"][0]})
    with pytest.raises(ValueError, match="not finite in any"):
        run(inference=linear.nothing)
    with pytest.raises(ValueError, match="are identical"):
        run(inference=lambda key, y: {"x": jnp.tile(linear.COVARIANCE @ (linear.MATRIX.T @ y), (99, 1))})


@pytest.mark.slow
def test_divergences_are_counted(key):
    def funnel(data=None):
        scale = numpyro.sample("scale", dist.Normal(0, 3))
        x = numpyro.sample("x", dist.Normal(0, jnp.exp(scale / 2)).expand([5]).to_event(1))
        numpyro.sample("data", dist.Normal(x.sum(), 10.0), obs=data)

    study = sbc(funnel, NUTS(funnel), num_datasets=20, rng_key=key, num_warmup=100, num_samples=100, **QUIET)
    assert study.diverging.any()
    assert f"{study.diverging.sum()} of 20 fits had divergences" in study.verdict()
    assert len(study.ranks["x"]) + study.failed.sum() == 20
