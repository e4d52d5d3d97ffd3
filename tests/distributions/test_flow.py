"""Flow priors: bijections of four libraries, and a posterior against its closed form."""

import arviz as az
import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax.distributions import Normal as FlowJAXNormal
from flowjax.distributions import Transformed as FlowJAXTransformed
from flowjax.distributions import Uniform as FlowJAXUniform
from flowjax.flows import masked_autoregressive_flow
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import numpyro_inverse as ni
from numpyro_inverse.distributions import Flow
from numpyro_inverse.nn import CouplingFlow, MultiscaleFlow

rng = np.random.default_rng(1)
ROOT = np.tril(rng.normal(size=(4, 4))) + 2 * np.eye(4)
SHIFT = rng.normal(size=4)
FORWARD = rng.normal(size=(3, 4))
DATA = rng.normal(size=3)
WHITE = dist.Normal(0, 1).expand([4]).to_event(1)
LINEAR = distrax.UnconstrainedAffine(jnp.asarray(ROOT), jnp.asarray(SHIFT))


def model(data=None, prior=None):
    u = numpyro.sample("u", Flow(LINEAR, WHITE) if prior is None else prior)
    numpyro.sample("data", dist.Normal(jnp.asarray(FORWARD) @ u, 0.5).to_event(1), obs=data)


def test_a_linear_flow_is_a_gaussian(key):
    prior = Flow(LINEAR, WHITE)
    x = prior.sample(key, (5, 2))
    expected = dist.MultivariateNormal(SHIFT, scale_tril=ROOT).log_prob(x)
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-5)
    assert prior.log_prob(x).shape == (5, 2)


def test_densities_from_what_sampling_leaves(key):
    """The log determinant of the forward map, at a latent and from ``sample_with_intermediates``."""
    prior = Flow(LINEAR, WHITE)
    z = WHITE.sample(key, (3,))
    found = prior.transforms[-1].log_abs_det_jacobian(z, prior.from_base(z))
    np.testing.assert_allclose(found, np.full(3, np.linalg.slogdet(ROOT)[1]), rtol=1e-5)
    x, intermediates = prior.sample_with_intermediates(key, (3,))
    np.testing.assert_allclose(prior.log_prob(x, intermediates), prior.log_prob(x), rtol=1e-5)


@pytest.mark.slow
def test_a_base_that_is_transformed_itself(key):
    base = dist.TransformedDistribution(WHITE, dist.transforms.AffineTransform(1.0, 2.0))
    prior = Flow(LINEAR, base)
    x = prior.sample(key, (5,))
    expected = dist.MultivariateNormal(SHIFT + ROOT @ np.ones(4), scale_tril=2 * ROOT).log_prob(x)
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-5)


@pytest.mark.slow
def test_linear_posterior_in_closed_form():
    """4 means and 10 covariances; |z| < 5 for all is a false alarm of 1e-5."""
    options = {"num_chains": 2, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(NUTS(ni.whiten(model)), num_warmup=300, num_samples=1500, **options)
    mcmc.run(jax.random.key(0), data=DATA)
    prior = ROOT @ ROOT.T
    gain = prior @ FORWARD.T @ np.linalg.inv(FORWARD @ prior @ FORWARD.T + 0.25 * np.eye(3))
    mean, covariance = SHIFT + gain @ (DATA - FORWARD @ SHIFT), prior - gain @ FORWARD @ prior
    u = np.asarray(mcmc.get_samples(group_by_chain=True)["u"], float)
    assert "u_latent" in mcmc.get_samples()

    def z(values, exact):
        ess = np.asarray(az.ess(az.from_dict({"posterior": {"x": values}}), method="mean")["x"])
        return (values.mean((0, 1)) - exact) / (values.std((0, 1)) / np.sqrt(ess))

    assert np.max(np.abs(z(u, mean))) < 5
    assert np.max(np.abs(z((u - mean)[..., :, None] * (u - mean)[..., None, :], covariance))) < 5


@pytest.mark.slow
def test_flowjax_distributions_are_accepted(key):
    theirs = masked_autoregressive_flow(key, base_dist=FlowJAXNormal(jnp.ones(3)), flow_layers=2, nn_width=8)
    ours = Flow(theirs)
    x = jax.jit(lambda d: d.sample(key, (6,)))(ours)
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(x), rtol=1e-4)
    alone = Flow(theirs.bijection, dist.Normal(1.0, 1.0).expand([3]).to_event(1))
    np.testing.assert_allclose(alone.log_prob(x), theirs.log_prob(x), rtol=1e-4)
    with pytest.raises(TypeError, match="starts from"):
        Flow(FlowJAXTransformed(FlowJAXUniform(jnp.zeros(3), jnp.ones(3)), theirs.bijection))


def test_numpyro_transforms_are_accepted(key):
    flow = Flow(dist.transforms.LowerCholeskyAffine(jnp.asarray(SHIFT), jnp.asarray(ROOT)), WHITE)
    x = flow.sample(key, (3,))
    np.testing.assert_allclose(flow.log_prob(x), Flow(LINEAR, WHITE).log_prob(x), rtol=1e-5)


@pytest.mark.slow
def test_batches_of_bases(key):
    base = dist.Normal(jnp.arange(3.0)[:, None], 1.0).expand([3, 4]).to_event(1)
    flow = Flow(LINEAR, base)
    assert flow.batch_shape == (3,)
    x = flow.sample(key, (2,))
    for i in range(3):
        one = Flow(LINEAR, dist.Normal(float(i), 1.0).expand([4]).to_event(1))
        np.testing.assert_allclose(flow.log_prob(x)[:, i], one.log_prob(x[:, i]), rtol=1e-5)


@pytest.mark.slow
def test_the_support_of_images(key):
    flow = Flow(MultiscaleFlow((4, 4), np.linspace(0, 1, 100), width=4, steps=1, key=key))
    x = jax.jit(lambda d: d.sample(key, (2,)))(flow)
    assert np.all(flow.support(x))
    assert not flow.support(x[0] + 1.0)
    inside, outside = jax.jit(lambda d, x: d.log_prob(x))(flow, x.at[1, 0, 0].set(1.2))
    assert np.isfinite(inside)
    assert outside == -np.inf


@pytest.mark.slow
def test_the_rest_of_numpyro(key):
    prior = Flow(CouplingFlow(4, layers=1, width=8, bins=0, key=key))
    whitened = ni.whiten(model)
    guide = AutoNormal(whitened)
    result = SVI(whitened, guide, numpyro.optim.Adam(0.05), Trace_ELBO()).run(
        key, 20, data=DATA, prior=prior, progress_bar=False
    )
    assert np.all(np.isfinite(result.losses))
    draws = Predictive(whitened, guide=guide, params=result.params, num_samples=5)(key, prior=prior)
    assert draws["u"].shape == (5, 4)
    assert Predictive(model, num_samples=5)(key, prior=prior)["data"].shape == (5, 3)
    centred = MCMC(NUTS(model), num_warmup=20, num_samples=20, progress_bar=False)
    centred.run(key, data=DATA, prior=prior)
    assert np.all(np.isfinite(centred.get_samples()["u"]))


class OneWay:
    """A map without an inverse."""

    def forward_and_log_det(self, z):
        return z, jnp.zeros(())


AFFINE3 = dist.transforms.LowerCholeskyAffine(jnp.zeros(3), jnp.eye(3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Flow(lambda z: z, WHITE), TypeError, "`bijection` must be"),
        (lambda: Flow(OneWay(), WHITE), TypeError, "`bijection` must have the method `inverse_and_log_det`"),
        (lambda: Flow(AFFINE3, WHITE), ValueError, r"`bijection` does not take the base's event shape \(4,\)"),
        (lambda: Flow(LINEAR), TypeError, "`base` is needed"),
        (lambda: Flow(LINEAR, 3), TypeError, "`base` must be a NumPyro distribution"),
        (lambda: Flow(LINEAR, dist.Poisson(1.0).expand([4]).to_event(1)), ValueError, "continuous"),
        (lambda: Flow(LINEAR, dist.Normal(0, 1).expand([5]).to_event(1)), ValueError, "event shape"),
        (lambda: Flow(distrax.ScalarAffine(0.0, 2.0), WHITE), ValueError, "one number"),
        (lambda: Flow(LINEAR, WHITE).from_base(jnp.zeros((2, 3))), ValueError, "must have shape"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
