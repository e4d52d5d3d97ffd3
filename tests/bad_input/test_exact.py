"""Bad input of the exact samplers and of surrogates: each is an error of ours that names the argument or the site."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from numpyro_inverse.distributions import ComplexNormal, Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import ExactGaussian, ExactGibbs, Surrogate, emulate, fit_surrogate

N = 4
Y = np.array([0.3, -0.2, 0.5, 1.0], np.float32)


def field():
    return Matern(Grid((N,), 1.0), range=0.4, scale=1.0, smoothness=1.0)


def model(y=None, u=None, law=None):
    """A field, or another latent, under data."""
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    u = numpyro.sample("u", field() if u is None else u)
    numpyro.sample("y", dist.Normal(u, noise).to_event(1) if law is None else law(u, noise), obs=y)


def fixed(**options):
    return handlers.condition(partial(model, **options), {"noise": jnp.asarray(0.5)})


def masked_field(y=None):
    with handlers.mask(mask=jnp.arange(1) > 0):
        u = numpyro.sample("u", field())
    numpyro.sample("y", dist.Normal(u, 0.5).to_event(1), obs=y)


def masked_latent(y=None):
    u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([N]).mask(jnp.arange(N) > 0).to_event(1))
    numpyro.sample("y", dist.Normal(u, 0.5).to_event(1), obs=y)


def with_obs_mask(y=None):
    u = numpyro.sample("u", field())
    numpyro.sample("y", dist.Normal(u, 0.5), obs=y, obs_mask=jnp.arange(N) > 0)


def improper(y=None):
    level = numpyro.sample("level", dist.ImproperUniform(dist.constraints.real, (), ()))
    u = numpyro.sample("u", field())
    numpyro.sample("y", dist.Normal(level + u, 0.5).to_event(1), obs=y)


CALLS = []


def unsteady(y=None):
    """Another site at each call."""
    CALLS.append(None)
    u = numpyro.sample(f"u{len(CALLS)}", dist.Normal().expand([N]).to_event(1))
    numpyro.sample("y", dist.Normal(u, 0.5).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("model", "y", "match"),
    [
        (masked_field, Y, "site 'u' is masked"),
        (masked_latent, Y, r"latent site 'u' \(Normal\) is masked"),
        (with_obs_mask, Y, "site 'y' has an `obs_mask`"),
        (improper, Y, "latent site 'level' is ImproperUniform.*proper prior"),
        (unsteady, Y, "site 'u.*' is in one run of the model and not in another"),
        (fixed(u=ComplexNormal(jnp.zeros(N), 1.0).to_event(1)), Y, r"latent site 'u' \(ComplexNormal\) is complex"),
        (fixed(u=dist.Normal(jnp.zeros(N) + 1j, 1.0).to_event(1)), Y, r"latent site 'u' \(Normal\) is complex"),
        (fixed(u=dist.Gamma(jnp.ones(N), 1.0).to_event(1)), Y, "latent site 'u' is Gamma, not Gaussian"),
        (fixed(law=lambda u, s: dist.Poisson(jnp.exp(u)).to_event(1)), Y.astype(int), "site 'y' is Poisson"),
        (fixed(), Y[:, None], "'y' have shape"),
        (fixed(), Y[:-1], "'y' have shape"),
        (fixed(), np.stack([Y, Y])[:, :2], "'y' have shape"),
        (fixed(), Y + 1j, "data of site 'y' are complex"),
        (fixed(), np.array(list("abcd")), "'y' must be numbers"),
        (fixed(), Y * np.nan, "4 of the 4 data at site 'y' are not finite"),
    ],
)
def test_models_and_data(model, y, match):
    with pytest.raises(ValueError, match=match):
        ExactGaussian(model).posterior_mean(y)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: ExactGaussian(3), TypeError, "ExactGaussian: `model`"),
        (lambda: ExactGaussian(None), TypeError, "ExactGaussian: `model`"),
        (lambda: ExactGaussian(model, tolerance="a"), TypeError, "`tolerance`"),
        (lambda: ExactGaussian(model, tolerance=-1.0), ValueError, "`tolerance`"),
        (lambda: ExactGaussian(model, tolerance=jnp.ones(2)), TypeError, "`tolerance`"),
        (lambda: ExactGaussian(model, max_steps=None), TypeError, "`max_steps`"),
        (lambda: ExactGaussian(model, max_steps=True), TypeError, "`max_steps`"),
        (lambda: ExactGibbs("model"), TypeError, "ExactGibbs: `model`"),
        (lambda: ExactGibbs(model, "nuts"), TypeError, "`kernel`"),
        (lambda: ExactGibbs(model, sites="u"), ValueError, r"Write \['u'\]"),
        (lambda: ExactGibbs(model, sites=3), TypeError, "`sites`"),
        (lambda: ExactGibbs(model, sites=[1]), TypeError, "`sites`"),
        (lambda: ExactGibbs(model, tolerance=1j), TypeError, "`tolerance`"),
        (lambda: Surrogate(model, model_args=Y, key=jax.random.key(0)), TypeError, "`model_args`"),
        (lambda: Surrogate(3, model_args=(Y,), key=jax.random.key(0)), TypeError, "`model`"),
        (lambda: Surrogate(model, model_args=(Y,), width="a", key=jax.random.key(0)), TypeError, "`width`"),
        (lambda: Surrogate(model, model_args=(Y,), depth=0, key=jax.random.key(0)), ValueError, "`depth`"),
        (lambda: Surrogate(model, model_args=(Y,), key=0), TypeError, "`key`"),
        (lambda: Surrogate(model, model_args=(Y + 1j,), key=jax.random.key(0)), ValueError, "data of site 'y'"),
        (lambda: emulate(model, "surrogate"), TypeError, "`surrogate`"),
        (lambda: fit_surrogate(model, [], rng_key=jax.random.key(0), model_args=(Y,)), TypeError, "`draws`"),
        (lambda: fit_surrogate(model, {}, rng_key=0, model_args=(Y,)), TypeError, "`rng_key`"),
        (lambda: fit_surrogate(model, {}, rng_key=jax.random.key(0), model_args=Y), TypeError, "`model_args`"),
        (
            lambda: fit_surrogate(model, {}, rng_key=jax.random.key(0), model_args=(Y,), num_simulations="a"),
            TypeError,
            "`num_simulations`",
        ),
        (lambda: ComplexNormal(0.0, 1j), TypeError, "`scale`"),
        (lambda: ComplexNormal("a", 1.0), TypeError, "`loc`"),
        (lambda: ComplexNormal(0.0, None), TypeError, "`scale`"),
        (lambda: ComplexNormal(jnp.zeros(2), jnp.ones(3)), ValueError, "ComplexNormal.*`loc`"),
        (lambda: ComplexNormal(jnp.zeros(2), 1.0).log_prob(jnp.zeros(3)), ValueError, "ComplexNormal"),
    ],
)
def test_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_each_kernel_is_named_in_its_errors():
    for y, match in ((Y[:-1], "'y' have shape"), (Y * np.nan, "'y' are not finite")):
        with pytest.raises(ValueError, match=f"ExactGibbs: .*{match}"):
            ExactGibbs(model).init(jax.random.key(0), 2, None, (y,), {})


@pytest.mark.slow
def test_an_improper_hyperparameter_is_allowed():
    """It needs no draw; its posterior is NUTS's matter."""

    def free(y=None):
        noise = numpyro.sample("noise", dist.ImproperUniform(dist.constraints.positive, (), ()))
        u = numpyro.sample("u", dist.Normal().expand([N]).to_event(1))
        numpyro.sample("y", dist.Normal(u, noise).to_event(1), obs=y)

    kernel = ExactGibbs(free, sites=["u"])
    kernel.init(jax.random.key(0), 2, None, (Y,), {})
    found = jax.jit(kernel._kernel._potential_fn_gen(Y))({"noise": jnp.log(0.7)})
    expected = dist.Normal(0.0, np.hypot(1, 0.7)).log_prob(Y).sum() + np.log(0.7)
    np.testing.assert_allclose(found, -expected, rtol=1e-5)
