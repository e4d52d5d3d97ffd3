# %% [markdown]
# # Deblurring a photograph, with error bars
#
# A photograph is blurred and noised. The model below infers the sharp image together with its correlation range, its
# contrast and the noise level, by NUTS in coordinates fitted to the data; the result is held against the exact
# posterior at the same hyperparameters and against the truth.

# %%
import argparse
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from skimage.data import camera

import numpyro_inverse as ni

numpyro.set_host_device_count(2)  # one per chain, before JAX is first used

parser = argparse.ArgumentParser(description="Deblur a photograph: the main job of numpyro_inverse.")
parser.add_argument("--size", type=int, default=128, help="side of the crop in pixels, 16 to 256 (default 128)")
parser.add_argument("--chains", type=int, default=2)
parser.add_argument("--warmup", type=int, default=50)
parser.add_argument("--samples", type=int, default=400, help="draws per chain")
parser.add_argument("--output", type=Path, default=Path("output"), help="where figure and results go")
args = parser.parse_args()
if not 16 <= args.size <= 256:
    parser.error(f"--size must be 16 to 256; got {args.size}")

# %% [markdown]
# ## Data
# Lengths are in pixels; grey values are relative to the crop's mean.

# %%
n = args.size
truth = camera()[80 : 80 + n, 200 : 200 + n] / 255.0
truth = jnp.asarray(truth - truth.mean(), jnp.float32)
grid = ni.domains.Grid((n, n), extent=n)
blur = ni.operators.Convolution.gaussian(grid, width=2.0)
photo = blur(truth) + 0.01 * jax.random.normal(jax.random.key(0), (n, n))

# %% [markdown]
# ## Model


# %%
def model(data=None):
    range_ = numpyro.sample("range", dist.LogNormal(jnp.log(15.0), 0.7))
    scale = numpyro.sample("scale", dist.LogNormal(jnp.log(0.2), 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(jnp.log(0.02), 1.0))
    field = numpyro.sample("field", ni.distributions.Matern(grid, range=range_, scale=scale, smoothness=1.0))
    numpyro.sample("data", dist.Normal(blur(field), noise).to_event(2), obs=data)


# %% [markdown]
# ## Inference

# %%
coordinates = ni.fit_coordinates(model, data=photo)
print(coordinates)
kernel = NUTS(ni.whiten(model, coordinates), **coordinates.nuts_settings())
mcmc = MCMC(kernel, num_warmup=args.warmup, num_samples=args.samples, num_chains=args.chains)
mcmc.run(jax.random.key(1), data=photo, extra_fields=("accept_prob", "num_steps", "diverging"))
tree = ni.to_arviz(mcmc, domain={"field": grid, "data": grid}, log_likelihood=False, length_unit="pixel")
print(az.summary(tree, var_names=["range", "scale", "noise"]).to_string())

# %% [markdown]
# ## Checks
# The field's effective sample sizes; the exact posterior at the hyperparameters' posterior means, by independent draws;
# the coverage of the truth.

# %%
field = tree.posterior["field"]
thin = max(1, n // 64)
ess = az.ess(field.isel(x=slice(None, None, thin), y=slice(None, None, thin)))
flat = ess.stack(pixel=("x", "y"))
worst = flat.sortby(flat).isel(pixel=slice(0, 3))
print(f"\nfield: worst effective sample sizes of {flat.size} pixels, of {args.chains * args.samples} draws")
for pixel in worst:
    print(f"  x = {float(pixel.x):5.1f}, y = {float(pixel.y):5.1f}: {float(pixel):.0f}")

means = {name: float(tree.posterior[name].mean()) for name in ("range", "scale", "noise")}
exact = MCMC(
    ni.infer.ExactGaussian(numpyro.handlers.condition(model, data=means)),
    num_warmup=0,
    num_samples=1000,
    progress_bar=False,
)
exact.run(jax.random.key(2), data=photo)
exact_field = np.asarray(exact.get_samples()["field"])
mean, sd = field.mean(("chain", "draw")).values, field.std(("chain", "draw")).values
z = (mean - exact_field.mean(0)) / exact_field.std(0)
ratio = sd / exact_field.std(0)
print(f"against the exact posterior at {', '.join(f'{k} = {v:.4g}' for k, v in means.items())}:")
print(f"  error of the mean {np.sqrt(np.mean(z**2)):.3f} posterior standard deviations (rms over pixels)")
low, high = np.quantile(ratio, [0.05, 0.95])
print(f"  ratio of standard deviations {ratio.mean():.3f} (5-95 % of pixels: {low:.3f}-{high:.3f})")

low, high = field.quantile([0.05, 0.95], dim=("chain", "draw")).values
inside = np.mean((truth >= low) & (truth <= high))
rms_blurred, rms_mean = (float(np.sqrt(np.mean((x - truth) ** 2))) for x in (photo, mean))
print(f"90 % credible intervals cover {100 * inside:.1f} % of the true pixels")
print(f"rms error: photograph {rms_blurred:.4f}, posterior mean {rms_mean:.4f}, grey values in [0, 1]")

# %% [markdown]
# ## Results

# %%
args.output.mkdir(parents=True, exist_ok=True)
figure = ni.plots.field(tree, "field", np.asarray(truth), data=np.asarray(photo), image=True, label="grey value")
figure.savefig(args.output / f"quickstart_{n}.png", dpi=110)
tree.to_netcdf(args.output / f"quickstart_{n}.nc")
print(f"wrote {args.output}/quickstart_{n}.png and {args.output}/quickstart_{n}.nc")
