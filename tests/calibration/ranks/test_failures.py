"""Forward maps that fail in part of the prior's support: told by every study."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from numpyro_inverse.calibration import coverage, sbc, tarp
from numpyro_inverse.infer import MALA

KEY = jax.random.key(0)


def model(data=None):
    """Its forward map is not a number where x is above 2.5, which has 0.6 % of the prior's mass."""
    x = numpyro.sample("x", dist.Normal())
    with numpyro.validation_enabled(False):
        numpyro.sample("data", dist.Normal(jnp.where(x > 2.5, jnp.nan, x), 1.0), obs=data)


MCMC_OF_TWO = MCMC(MALA(model), num_warmup=50, num_samples=100, num_chains=2, progress_bar=False)
TOLD = r"\d+ moves in \d+ of 30 fits met points without a log density and were rejected, first for data set \d+ in "
WHERE = r"iteration \d+ of chain [01], where site 'data' has none\. What"


@pytest.mark.slow
@pytest.mark.parametrize(
    "study",
    [
        sbc,
        pytest.param(lambda *args, **options: coverage(*args, **options).study, marks=pytest.mark.statistical),
        pytest.param(tarp, marks=pytest.mark.statistical),
    ],
    ids=["sbc", "coverage", "tarp"],
)
def test_failures_are_told(study, tmp_path):
    options = {"num_datasets": 30, "rng_key": KEY, "progress_bar": False}
    if study is not sbc:
        options["store"] = tmp_path
    with pytest.warns(UserWarning, match=TOLD + WHERE) as warned:
        found = study(model, MCMC_OF_TWO, **options)
    assert found.failures in str(warned[0].message)
    assert found.failures in found.verdict()
    number = found.num_failures
    assert number.shape == (30,)
    assert f"{number.sum()} moves in {np.sum(number > 0)} of 30 fits" in found.failures
    assert f"for data set {np.flatnonzero(number)[0]} in" in found.failures
    assert found.failed.sum() <= 2  # truths where it fails
    assert 0 < number.sum() < 0.2 * 30 * 300
    if study is not sbc:
        with pytest.warns(UserWarning, match="met points without"):  # read from the store
            again = study(model, MCMC_OF_TWO, **options)
        assert again.failures == found.failures


def partly(data=None):
    """Its forward map is not a number where x is above 1, which has 16 % of the prior's mass."""
    x = numpyro.sample("x", dist.Normal())
    with numpyro.validation_enabled(False):
        numpyro.sample("data", dist.Normal(jnp.where(x > 1.0, jnp.nan, x), 0.5), obs=data)


def unrestricted(key, y):
    return {"x": 0.8 * y + jnp.sqrt(0.2) * jax.random.normal(key, (99,))}


def restricted(key, y):
    """The posterior where the forward map works: Normal(0.8 y, variance 0.2) below 1."""
    mean, sd = 0.8 * y, jnp.sqrt(0.2)
    return {"x": mean + sd * jax.random.truncated_normal(key, -jnp.inf, (1.0 - mean) / sd, (99,))}


def prior(key, y):
    return {"x": jax.random.truncated_normal(key, -jnp.inf, 1.0, (99,))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "wrong"), [(sbc, unrestricted), pytest.param(tarp, prior, marks=pytest.mark.statistical)]
)
def test_truths_without_data_have_no_rank(study, wrong):
    """What is left is a study of the prior where the forward map works."""
    options = {"num_datasets": 300, "rng_key": KEY, "progress_bar": False}
    if study is sbc:
        options["log_likelihood"] = False  # of draws where it does not work it is not a number
    told = r"simulates data that are not finite for \d+ of 300 data sets, first for data set \d+; these have no rank"
    with pytest.warns(UserWarning, match=told):
        found = study(partly, restricted, **options)
    assert 15 < found.failed.sum() < 85  # 48 expected, standard deviation 6.3
    assert f"for {found.failed.sum()} of 300" in found.failures
    assert found.p_value > 1e-3  # the false-alarm rate
    with pytest.warns(UserWarning, match=told):
        assert study(partly, wrong, **options).p_value < 1e-3


def test_a_model_without_finite_data_is_refused():
    def broken(data=None):
        x = numpyro.sample("x", dist.Normal())
        with numpyro.validation_enabled(False):
            numpyro.sample("data", dist.Normal(x * jnp.nan, 1.0), obs=data)

    with pytest.raises(ValueError, match="data that are not finite, 20 times in a row"):
        sbc(broken, restricted, num_datasets=4, rng_key=KEY, progress_bar=False)


@pytest.mark.statistical
def test_nothing_is_told_of_what_does_not_fail():
    def plain(data=None):
        numpyro.sample("data", dist.Normal(numpyro.sample("x", dist.Normal()), 1.0), obs=data)

    found = sbc(plain, MALA(plain), num_datasets=4, num_warmup=20, num_samples=40, rng_key=KEY, progress_bar=False)
    assert found.failures == ""
    assert not found.num_failures.any()
