"""What a user does first: run by `make wheel` with the wheel in a fresh environment, and by `make newest`."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpyro

numpyro.set_host_device_count(2)

import jax  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402

import numpyro_inverse as ni  # noqa: E402
from numpyro_inverse.nn import pretrained  # noqa: E402

installed = Path(ni.__file__).parent
print(f"{installed} in {sys.prefix}")
assert ni.__version__ == version("numpyro-inverse")
assert (installed / "py.typed").exists()

for name in ni.__all__:
    getattr(ni, name)

grid = ni.domains.Grid((16, 16), extent=16.0)
blur = ni.operators.Convolution.gaussian(grid, width=2.0)


def model(y=None):
    field = numpyro.sample("field", ni.distributions.Matern(grid, range=6.0, scale=1.0, smoothness=1.5))
    numpyro.sample("y", dist.Normal(blur(field), 0.1).to_event(2), obs=y)


key = jax.random.key(0)
y = numpyro.infer.Predictive(model, num_samples=1)(key)["y"][0]
mcmc = MCMC(NUTS(ni.whiten(model)), num_warmup=50, num_samples=50, num_chains=2, progress_bar=False)
mcmc.run(key, y)
tree = ni.to_arviz(mcmc)
assert tree.posterior["field"].shape == (2, 50, 16, 16)
assert bool(jax.numpy.isfinite(tree.posterior["field"].values).all())
denoiser = pretrained.load_pretrained("gradient_step_denoiser")
assert denoiser(jax.numpy.zeros((16, 16)), 0.1).shape == (16, 16)
print(f"numpyro-inverse {ni.__version__} works, with JAX {jax.__version__} and NumPyro {numpyro.__version__}.")
