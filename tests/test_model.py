"""The reader of models: what it says of sites, and that it computes nothing where only shapes are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

from numpyro_inverse import _model as reader

DATA = jnp.arange(4.0)


def model(data=None, num=4):
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    width = numpyro.sample("width", dist.Uniform(0.0, 1.0 + scale))  # its support depends on another site
    numpyro.deterministic("both", loc + width)
    numpyro.factor("penalty", -(loc**2))
    with numpyro.plate("items", num):
        data = numpyro.sample("data", dist.Normal(loc, scale), obs=data)
    numpyro.deterministic("total", jnp.sum(data))


def test_abstract_trace_computes_nothing():
    ran = []

    def counting(data=None):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([1000, 1000]).to_event(2))
        jax.debug.callback(lambda _: ran.append(1), x)
        numpyro.sample("data", dist.Normal(x, 1.0).to_event(2), obs=data)

    trace = reader.abstract_trace(counting)
    jax.effects_barrier()
    assert not ran
    assert trace["x"]["fn"].shape() == (1000, 1000)


def test_sites_are_told_apart():
    trace = reader.abstract_trace(model, (DATA,))
    assert list(reader.latent_sites(trace)) == ["loc", "scale", "width"]
    assert list(reader.observed_sites(trace)) == ["penalty", "data"]
    assert list(reader.data_sites(trace)) == ["data"]
    assert reader.subsampling_plates(trace) == []
    assert np.array_equal(trace["data"]["value"], DATA)


def test_subsampling_plates_and_discrete_latents_are_named():
    def batches(data=None):
        numpyro.sample("k", dist.Bernoulli(0.5))
        with numpyro.plate("rows", 10, subsample_size=3):
            numpyro.sample("data", dist.Normal(0.0, 1.0))

    trace = reader.abstract_trace(batches)
    assert reader.subsampling_plates(trace) == ["rows"]
    assert reader.discrete_latents(trace) == ["k"]


def test_unconstrained_trace_follows_supports_that_depend_on_latents(x64):
    z = {"loc": jnp.asarray(0.3), "scale": jnp.asarray(-0.5), "width": jnp.asarray(0.2)}
    trace = reader.unconstrained_trace(model, (DATA,), {}, z)
    scale = np.exp(-0.5)
    assert np.isclose(trace["scale"]["value"], scale, rtol=1e-12)
    assert np.isclose(trace["width"]["value"], (1 + scale) / (1 + np.exp(-0.2)), rtol=1e-12)
    assert np.isclose(trace["both"]["value"], 0.3 + trace["width"]["value"], rtol=1e-12)


def test_log_probs_add_up_to_numpyros_log_density(x64):
    values = {"loc": jnp.asarray(0.3), "scale": jnp.asarray(0.7), "width": jnp.asarray(0.2)}
    scaled = numpyro.handlers.scale(model, scale=0.5)
    found = reader.log_probs(reader.sample_sites(reader.trace_at(scaled, (DATA,), {}, values)))
    expected, _ = log_density(scaled, (DATA,), {}, values)
    assert np.isclose(sum(found.values()), expected, rtol=1e-12)


def test_simulate_draws_the_data_and_what_depends_on_them(key):
    values = {"loc": jnp.asarray(1000.0), "scale": jnp.asarray(1e-3)}
    trace = reader.simulate(model, (DATA,), {}, key, values)
    assert np.allclose(trace["data"]["value"], 1000.0, atol=0.01)
    assert np.isclose(trace["total"]["value"], 4000.0, atol=0.04)
    assert trace["loc"]["value"] == 1000.0
    other = reader.simulate(model, (DATA,), {}, jax.random.fold_in(key, 1), values)
    assert not np.array_equal(trace["data"]["value"], other["data"]["value"])


@pytest.mark.parametrize("fields", [("loc", "scale"), ("scale", "loc")])
def test_the_order_of_parameters_is_that_of_their_names(fields, monkeypatch):
    """NumPyro's depends on the hashes of strings, and so on the process; a saved surrogate must not."""
    monkeypatch.setattr(dist.Normal, "gather_pytree_data_fields", classmethod(lambda cls: fields))
    laws = {"b": dist.Normal(1.0, 2.0).expand([1]).to_event(1), "a": dist.Normal(3.0, 4.0)}
    values, rebuild = reader.real_parameters(laws)
    assert [float(v) for v in values] == [3.0, 4.0, 1.0, 2.0]
    again = rebuild([v + 1 for v in values])
    assert float(again["a"].loc) == 4.0
    assert float(again["b"].base_dist.base_dist.scale) == 3.0


def test_real_parameters_are_put_back():
    laws = {"a": dist.Normal(jnp.arange(3.0), 2.0).to_event(1), "b": dist.Poisson(3.0)}
    values, rebuild = reader.real_parameters(laws)
    again = rebuild([2 * v for v in values])
    assert np.array_equal(again["a"].base_dist.loc, 2 * jnp.arange(3.0))
    assert again["b"].rate == 6.0


@pytest.mark.parametrize(("value", "count"), [(jnp.array([1.0, jnp.nan, jnp.inf]), 2), (jnp.ones(3), 0)])
def test_data_that_are_not_finite_are_counted(value, count):
    assert reader.not_finite({"value": value}) == count


def test_an_outer_trace_does_not_see_the_reading():
    def outer():
        reader.trace_at(model, (DATA,))
        numpyro.sample("own", dist.Normal(0.0, 1.0))

    assert list(numpyro.handlers.trace(numpyro.handlers.seed(outer, 0)).get_trace()) == ["own"]
