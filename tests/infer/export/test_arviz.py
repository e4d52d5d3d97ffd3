"""The ArviZ export: groups, names, coordinates, predictions and likelihoods against direct computation."""

from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, MCMC, NUTS, Predictive
from scipy import stats
from scipy.special import expit

from numpyro_inverse import whiten
from numpyro_inverse.distributions import SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import MALA, to_arviz

GRID = Grid((4, 3), extent=(2.0, 1.5))
LINE = Grid(5, extent=10.0)
CHAINS, DRAWS = 2, 25


def model(data=None):
    """A field seen through noise, a factor that is no data, and switches in a plate."""
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    field = numpyro.sample("field", SpectralField(GRID, 1.0 / (1.0 + GRID.eigenvalues)))
    profile = numpyro.deterministic("profile", level * jnp.ones(LINE.shape))
    numpyro.factor("penalty", -0.5 * jnp.sum(profile**2))
    switches = None if data is None else data["switches"]
    with numpyro.plate("site", 6):
        numpyro.sample("switches", dist.Bernoulli(logits=level), obs=switches)
    image = None if data is None else data["image"]
    numpyro.sample("image", dist.Normal(field, 0.3).to_event(2), obs=image)


DATA = {"image": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), "switches": np.array([0, 1, 1, 0, 1, 0])}


@pytest.fixture(scope="module")
def mcmc():
    mcmc = MCMC(
        NUTS(whiten(model)), num_warmup=50, num_samples=DRAWS, num_chains=CHAINS, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    fields = ("potential_energy", "num_steps", "accept_prob", "energy", "adapt_state.step_size")
    mcmc.run(jax.random.key(0), data=DATA, extra_fields=fields)
    return mcmc


@pytest.fixture(scope="module")
def tree(mcmc):
    prior = Predictive(whiten(model), num_samples=7)(jax.random.key(1))
    domain = {"field": GRID, "image": GRID, "profile": LINE}
    return to_arviz(mcmc, domain=domain, prior=prior, length_unit="km", batch_size=16)


def test_groups_and_variables(tree):
    variables = {name: set(group.data_vars) for name, group in tree.children.items()}
    assert variables == {
        "posterior": {"level", "field", "profile"},
        "sample_stats": {
            "lp", "n_steps", "acceptance_rate", "energy", "step_size", "diverging", "tree_depth",
        },
        "observed_data": {"image", "switches"},
        "posterior_predictive": {"image", "switches"},
        "log_likelihood": {"image", "switches"},
        "prior": {"level", "field", "profile"},
        "prior_predictive": {"image", "switches"},
    }  # fmt: skip


def test_values_and_coordinates(tree, mcmc):
    samples = mcmc.get_samples(group_by_chain=True)
    field = tree.posterior["field"]
    assert field.dims == ("chain", "draw", "x", "y")
    np.testing.assert_array_equal(field, samples["field"])
    np.testing.assert_array_equal(field.x, GRID.axes[0])
    np.testing.assert_array_equal(field.y, GRID.axes[1])
    assert field.x.attrs["units"] == "km"
    picked = field.sel(x=1.3, y=0.7, method="nearest")  # cells of width 0.5: the third and the second
    np.testing.assert_array_equal(picked, samples["field"][:, :, 2, 1])
    assert tree.observed_data["image"].dims == ("x", "y")
    assert tree.posterior_predictive["image"].dims == ("chain", "draw", "x", "y")
    assert tree.observed_data["switches"].dims == ("site",)
    assert tree.log_likelihood["switches"].dims == ("chain", "draw", "site")
    profile = tree.posterior["profile"]  # another grid, other names
    assert profile.dims == ("chain", "draw", "x_profile")
    np.testing.assert_array_equal(profile.x_profile, LINE.axes[0])


def test_sample_stats_are_the_kernels(tree, mcmc):
    fields = mcmc.get_extra_fields(group_by_chain=True)
    np.testing.assert_array_equal(tree.sample_stats["lp"], -fields["potential_energy"])
    np.testing.assert_array_equal(tree.sample_stats["acceptance_rate"], fields["accept_prob"])
    steps = np.asarray(fields["num_steps"])
    np.testing.assert_array_equal(tree.sample_stats["tree_depth"], 1 + np.floor(np.log2(steps)))
    assert tree.sample_stats["diverging"].dtype == bool


def test_log_likelihood_per_observation(tree):
    posterior = tree.posterior
    expected = stats.norm(posterior["field"].values, 0.3).logpdf(DATA["image"])
    np.testing.assert_allclose(tree.log_likelihood["image"], expected, rtol=1e-4, atol=1e-4)
    p = expit(posterior["level"].values.astype(float))[..., None]
    expected = stats.bernoulli(p).logpmf(DATA["switches"])
    np.testing.assert_allclose(tree.log_likelihood["switches"], expected, rtol=1e-4, atol=1e-4)


def test_replicates_follow_the_likelihood(tree):
    # 600 independent standard normals; the Kolmogorov-Smirnov test raises a false alarm once in 10^4 keys.
    z = (tree.posterior_predictive["image"] - tree.posterior["field"]) / 0.3
    assert stats.kstest(z.values.ravel(), "norm").pvalue > 1e-4
    assert len(np.unique(z)) == z.size
    assert not np.allclose(tree.posterior_predictive["image"], DATA["image"])


@pytest.mark.slow
def test_replicates_do_not_depend_on_the_batch_size(mcmc, tree):
    again = to_arviz(mcmc, batch_size=1000, log_likelihood=False)
    np.testing.assert_allclose(
        again.posterior_predictive["image"], tree.posterior_predictive["image"], rtol=1e-5, atol=1e-5
    )
    other = to_arviz(mcmc, log_likelihood=False, key=jax.random.key(5))
    assert not np.allclose(other.posterior_predictive["image"], again.posterior_predictive["image"])


def test_what_depends_on_the_data_sees_the_replicate():
    def chained():
        a = numpyro.sample("a", dist.Normal(100.0, 1.0), obs=jnp.zeros(()))
        centre = numpyro.deterministic("centre", a + numpyro.sample("s", dist.Normal()))
        numpyro.sample("b", dist.Normal(centre, 1.0), obs=jnp.zeros(()))

    tree = to_arviz({"s": np.zeros((1, 4)), "centre": np.zeros((1, 4))}, chained)
    assert tree.posterior_predictive["b"].min() > 50
    np.testing.assert_allclose(tree.log_likelihood["b"], stats.norm.logpdf(0.0), rtol=1e-6)


def test_latent_sites_are_kept_on_request(mcmc, tree):
    assert "field_latent" not in tree.posterior
    kept = to_arviz(mcmc, keep_latent=True, posterior_predictive=False, log_likelihood=False)
    assert kept.posterior["field_latent"].dims == ("chain", "draw", "field_latent_dim_0", "field_latent_dim_1")
    assert set(kept.children) == {"posterior", "sample_stats", "observed_data"}


def test_dict_of_samples_with_and_without_chain_axis(mcmc, tree):
    grouped, flat = mcmc.get_samples(group_by_chain=True), mcmc.get_samples()
    for given in (
        to_arviz(grouped, whiten(model), model_kwargs={"data": DATA}),
        to_arviz(flat, whiten(model), model_kwargs={"data": DATA}, num_chains=CHAINS),
    ):
        np.testing.assert_array_equal(given.posterior["field"], tree.posterior["field"])
        np.testing.assert_allclose(
            given.log_likelihood["image"], tree.log_likelihood["image"].values, rtol=1e-5, atol=1e-5
        )
    assert set(to_arviz(grouped).children) == {"posterior"}


@pytest.mark.parametrize(
    ("save", "load"),
    [
        (lambda tree, path: tree.to_netcdf(path), az.from_netcdf),
        (lambda tree, path: tree.to_zarr(path, consolidated=False), partial(az.from_zarr, consolidated=False)),
    ],
    ids=["netcdf", "zarr"],
)
def test_saved_and_read_back(tree, tmp_path, save, load):
    path = tmp_path / "results"
    save(tree, path)
    with load(path) as read:
        assert set(read.children) == set(tree.children)
        for name, group in tree.children.items():
            assert read[name].to_dataset().load().identical(group.to_dataset()), name


def test_an_axis_called_like_a_site_gets_another_name():
    def named():
        numpyro.sample("x", dist.Normal())
        numpyro.sample("u", dist.Normal().expand([5]).to_event(1))

    samples = {"x": np.zeros((1, 3)), "u": np.zeros((1, 3, 5))}
    assert to_arviz(samples, named, {"u": LINE}).posterior["u"].dims == ("chain", "draw", "x_u")


@pytest.mark.slow
def test_single_chain_of_another_kernel():
    def plain():
        numpyro.sample("u", dist.Normal().expand([5]).to_event(1))

    mcmc = MCMC(HMC(plain), num_warmup=5, num_samples=6, progress_bar=False)
    mcmc.run(jax.random.key(0), extra_fields=("num_steps",))
    tree = to_arviz(mcmc, domain={"u": LINE})
    assert tree.posterior["u"].shape == (1, 6, 5)
    assert set(tree.sample_stats.data_vars) == {"n_steps", "diverging"}  # a tree depth would be NUTS's


def test_failures_of_the_forward_map_are_told(tmp_path):
    def failing(y):
        u = numpyro.sample("u", dist.Normal())
        numpyro.sample("y", dist.Normal(jnp.where(u > 1.0, jnp.nan, u), 1.0, validate_args=False), obs=y)

    mcmc = MCMC(MALA(failing), num_warmup=20, num_samples=40, num_chains=2, chain_method="vectorized",
                progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.key(0), 0.0, init_params={"u": jnp.zeros(2)}, extra_fields=("num_failures", "first_failure"))
    fields = {name: np.asarray(x) for name, x in mcmc.get_extra_fields(group_by_chain=True).items()}
    with pytest.warns(UserWarning, match=r"MALA: \d+ moves of 2 chain\(s\) met .* where site 'y' has log density nan"):
        tree = to_arviz(mcmc, posterior_predictive=False, log_likelihood=False)
    chain = int(np.argmin(fields["first_failure"][:, -1]))
    assert tree.sample_stats.attrs["num_failures"] == fields["num_failures"][:, -1].sum() > 2
    assert tree.sample_stats.attrs["first_failure"] == fields["first_failure"][chain, -1]
    assert tree.sample_stats.attrs["first_failure_chain"] == chain
    assert tree.sample_stats.attrs["first_failure_site"] == "y"
    tree.to_netcdf(tmp_path / "tree.nc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": {"fild": LINE}}, r"`domain` names the site 'fild'.*'level', 'u'"),
        ({"domain": {"u": Grid(6)}}, r"`domain\['u'\]` has shape \(6,\).*site 'u', of shape \(5,\)"),
        ({"domain": {"level": LINE}}, r"`domain\['level'\]`"),
        (
            {"posterior": {"level": np.zeros((2, 3)), "u": np.full((2, 3, 5), np.nan)}},
            r"30 values of site 'u'.*chain 0",
        ),
        ({"posterior": {"level": np.zeros((2, 3)), "u": np.zeros((2, 4, 5))}}, r"'u' has shape \(2, 4, 5\)"),
        ({"posterior": {"level": np.zeros(6)}}, "num_chains"),
        ({"num_chains": 4, "posterior": {"level": np.zeros(6)}}, "`num_chains` is 4.*'level'"),
        ({"posterior": {"level": np.zeros((2, 0))}}, r"not empty; 'level' has \(2, 0\)"),
        ({"posterior": {}}, "`posterior` has no site"),
        ({"posterior": {"u": np.zeros((2, 3, 5))}}, r"lacks 'level'"),
        ({"prior": {"level": np.array([0.0, np.inf])}}, "`prior` has 1 values of site 'level'"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    def small():
        level = numpyro.sample("level", dist.Normal())
        u = numpyro.sample("u", dist.Normal(level, 1.0).expand([5]).to_event(1))
        numpyro.sample("y", dist.Normal(u, 1.0).to_event(1), obs=jnp.zeros(5))

    good = {"posterior": {"level": np.zeros((2, 3)), "u": np.zeros((2, 3, 5))}, "model": small, "domain": {"u": LINE}}
    with pytest.raises(ValueError, match=message):
        to_arviz(**(good | change))
    for wrong in (np.zeros(6), None, {"level": np.full((2, 3), "a")}):
        with pytest.raises(TypeError, match=r"^to_arviz: `posterior` must"):
            to_arviz(wrong, small)


def test_samples_without_the_latent_sites_of_a_whitened_model_are_refused(mcmc):
    samples = {name: x for name, x in mcmc.get_samples(group_by_chain=True).items() if name != "field_latent"}
    with pytest.raises(ValueError, match="lacks 'field_latent'"):
        to_arviz(samples, whiten(model), model_kwargs={"data": DATA})
    assert "posterior_predictive" in to_arviz(samples, model, model_kwargs={"data": DATA}).children
