"""Models and arguments that are refused, each with its reason."""

from functools import partial

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse.distributions import SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import LatentGaussian


def _bad(kind, y=None):
    grid = Grid(4)
    u = numpyro.sample("u", SpectralField(grid, 1 / (1 + grid.eigenvalues)))
    s = numpyro.sample("s", dist.Uniform(0.5, 1.0))
    k = numpyro.sample("k", dist.Bernoulli(0.5)) if kind == "discrete" else 0.0
    if kind == "masked":
        u = u + numpyro.sample("v", dist.Normal(0.0, 1.0).expand([4]).mask(jnp.arange(4) > 1).to_event(1))
    if kind == "scaled":
        v = numpyro.sample("v", dist.Normal(0.0, 1.0))
        u = u + numpyro.sample("w", dist.Normal(0.0, jnp.exp(v)).expand([4]).to_event(1))
    eta = jnp.exp(u) if kind == "curved" else (s + 0 * u if kind == "apart" else u + k)
    eta = numpyro.deterministic("eta", eta)
    if kind == "shifted":
        y = y - u
    if kind == "elsewhere":
        numpyro.factor("more", jnp.sum(u) ** 3)
    if kind == "coupled":
        numpyro.sample("y", dist.MultivariateNormal(eta, 0.5 + 0.5 * jnp.eye(4)), obs=y)
    elif kind == "kinked":
        numpyro.sample("y", dist.Laplace(eta, s).to_event(1), obs=y)
    elif kind == "infinite":
        numpyro.sample("y", dist.Gamma(jnp.sqrt(eta - 10), 1.0).to_event(1), obs=jnp.abs(y))
    else:
        numpyro.sample("y", dist.Normal(eta, s).to_event(1), obs=y)


Y = jnp.array([0.3, -0.2, 1.0, 0.4])
REFUSED = {
    "no data": ("good", {"model_args": ()}, "no observed site"),
    "predictor": (
        "good",
        {"predictor": "mu"},
        r"`predictor` 'mu' is no deterministic site of the model \(there: 'eta'\)",
    ),
    "unknown": ("good", {"sites": ["w"]}, "`sites` has 'w'; latent are 'u', 's'"),
    "not Gaussian": ("good", {"sites": ["s"]}, "latent site 's' is Uniform, not Gaussian"),
    "not finite": ("good", {"model_args": (Y.at[0].set(jnp.nan),)}, "1 of the data at site 'y' are not finite"),
    "masked": ("masked", {"sites": ["u", "v"]}, "latent site 'v' is masked or scaled"),
    "discrete": ("discrete", {}, "hyperparameter 'k' is discrete"),
    "curved": ("curved", {}, "the predictor 'eta' is not affine in the latents 'u'"),
    "apart": ("apart", {}, "the predictor 'eta' does not depend on the latents 'u'"),
    "elsewhere": ("elsewhere", {}, "they must enter through the predictor 'eta' alone"),
    "shifted data": ("shifted", {}, "they must enter through the predictor 'eta' alone"),
    "scaled": ("scaled", {"sites": ["u", "v", "w"]}, "the law of one depends on another in more than its mean"),
    "coupled": ("coupled", {}, "not independent given the predictor 'eta'"),
    "infinite": ("infinite", {}, "or a derivative, is not finite"),
    "kinked": ("kinked", {}, "was a mode of the latents 'u' found"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_refused(name):
    kind, change, match = REFUSED[name]
    arguments = {"predictor": "eta", "model_args": (Y,)} | change
    with pytest.raises(ValueError, match=match):
        LatentGaussian(partial(_bad, kind), **arguments)


def no_field(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", a), 1.0), obs=y)


def test_other_bad_arguments():
    with pytest.raises(TypeError, match="`model` must be a NumPyro model"):
        LatentGaussian(3, "eta")
    with pytest.raises(TypeError, match="`predictor` must be a sequence of names"):
        LatentGaussian(no_field, 3)
    with pytest.raises(TypeError, match="`sites` must be a sequence of names"):
        LatentGaussian(no_field, "eta", sites="a")
    with pytest.raises(ValueError, match="the model has no Gaussian field"):
        LatentGaussian(no_field, "eta", model_args=(1.0,))
    latent = LatentGaussian(no_field, "eta", sites=["a"], model_args=(jnp.asarray(1.0),))
    with pytest.raises(ValueError, match="a grid is for 1 to 3 hyperparameters; the model has 0"):
        latent.integrate_grid()
    with pytest.raises(TypeError, match="`hyper` must be hyperparameters by site"):
        latent.log_marginal(3)
