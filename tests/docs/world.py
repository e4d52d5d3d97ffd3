"""The things that the documents' code speaks of without making them, each made when it is asked for, and small."""

import builtins
import functools
from functools import partial

import arviz
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, Predictive

import numpyro_inverse as ni
from numpyro_inverse import factors, nn
from numpyro_inverse import operators as op

MODULES = {
    "MCMC": MCMC,
    "NUTS": NUTS,
    "Predictive": Predictive,
    "arviz": arviz,
    "blackjax": blackjax,
    "dist": dist,
    "factors": factors,
    "jax": jax,
    "jnp": jnp,
    "ni": ni,
    "nn": nn,
    "np": np,
    "numpyro": numpyro,
    "op": op,
    "partial": partial,
}
SIDE = 8
RNG = np.random.default_rng(0)


def grid():
    return ni.domains.Grid((SIDE, SIDE))


def blur():
    return op.Convolution.gaussian(the("grid"), width=1.0 / SIDE)


def model():
    """The sites of the README's model, with a spectrum that compiles faster than Matérn's."""
    domain, forward = the("grid"), the("blur")

    def model(data=None):
        range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.5))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        noise = numpyro.sample("noise", dist.HalfNormal(0.1))
        spectrum = scale**2 * (1 + range_**2 * domain.eigenvalues) ** -2
        field = numpyro.sample("field", ni.distributions.SpectralField(domain, spectrum))
        numpyro.sample("data", dist.Normal(forward(field), noise).to_event(2), obs=data)

    return model


def key():
    return jax.random.key(0)


rng_key = key


def drawn():
    return Predictive(the("model"), num_samples=1)(the("key"))


def truth():
    return drawn()["field"][0]


def y():
    return drawn()["data"][0]


data = photo = y


def kernel():
    return NUTS(the("model"))


def mcmc():
    """A run that is over."""
    done = MCMC(
        NUTS(the("model")), num_warmup=4, num_samples=8, num_chains=2, chain_method="vectorized", progress_bar=False
    )
    done.run(the("key"), data=the("y"))
    return done


def tree():
    return ni.to_arviz(the("mcmc"), domain={"field": the("grid")})


def images():
    return RNG.integers(0, 256, (64, 28, 28), np.uint8)


def flow():
    return nn.load_pretrained("fashion_mnist_flow")


def vae():
    return nn.VAE.for_images((28, 28), 4, width=8, key=the("key"))


def decoder():
    weights = jnp.asarray(RNG.normal(size=(SIDE, SIDE, 8)))
    return lambda z: jnp.tanh(weights @ z)


def simulator_model():
    """A likelihood that one can only simulate from."""

    def simulator_model(x=None):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        noisy = ni.distributions.Simulator(lambda key, theta: theta + 0.5 * jax.random.normal(key, (2,)), theta)
        numpyro.sample("x", noisy, obs=x)

    return simulator_model


def observed():
    return jnp.array([0.3, -0.2])


def latent():
    return dist.Normal(0, 1).expand([8]).to_event(1)


@functools.cache
def made(name):
    return globals()[name]()


def the(name):
    """The thing of that name: the same one every time, but for kernels, which keep what they were last run on."""
    if name in MODULES:
        return MODULES[name]
    return kernel() if name == "kernel" else made(name)


def knows(name: str) -> bool:
    return name in MODULES or (not hasattr(builtins, name) and callable(globals().get(name)))
