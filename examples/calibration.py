# %% [markdown]
# # Is this posterior right?
#
# The sampler of a deconvolution with unknown noise is checked on simulated data, beside two that are wrong: one whose
# standard deviations are a fifth too small, and the prior handed in as posterior. All verdicts, tables and figures go
# to one HTML page, and the ranks of two quantities to a picture.

# %%
import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib import pyplot as plt
from numpyro.infer import MCMC, NUTS

import numpyro_inverse as ni
from numpyro_inverse.calibration import coverage, functionals, report, sbc, tarp

parser = argparse.ArgumentParser(description="Calibration of a sampler on simulated data.")
parser.add_argument("--datasets", type=int, default=300)
parser.add_argument("--output", type=Path, default=Path("output"), help="where the page goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Model
# A signal of 24 cells, blurred, with unknown noise.

# %%
grid = ni.domains.Grid((24,), extent=1.0)
blur = ni.operators.Convolution.gaussian(grid, width=1.5 / 24)


def model(data=None):
    noise = numpyro.sample("noise", dist.LogNormal(jnp.log(0.2), 0.3))
    field = numpyro.sample("field", ni.distributions.Matern(grid, range=0.4, scale=1.0, smoothness=1.5))
    numpyro.sample("data", dist.Normal(blur(field), noise).to_event(1), obs=data)


# %% [markdown]
# ## Three posteriors

# %%
mcmc = MCMC(NUTS(ni.whiten(model)), num_warmup=200, num_samples=300)


def narrow(key, y):
    fit = MCMC(NUTS(ni.whiten(model)), num_warmup=200, num_samples=300, thinning=3, progress_bar=False)
    fit.run(key, data=y)
    draws = {name: fit.get_samples()[name] for name in ("noise", "field")}
    return jax.tree.map(lambda v: v.mean(0) + 0.8 * (v - v.mean(0)), draws)


def prior(key, y):
    def draw(key):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace()
        return {name: trace[name]["value"] for name in ("noise", "field")}

    return jax.vmap(draw)(jax.random.split(key, 99))


quantities = {"largest": functionals.maximum("field"), "energy": functionals.energy("field")}
rng_key = jax.random.key(0)
options = {"num_datasets": args.datasets, "rng_key": rng_key}
studies = {
    "NUTS: ranks": sbc(model, mcmc, quantities=quantities, **options),
    "NUTS: coverage": coverage(model, mcmc, **options),
    "Too narrow: ranks": sbc(model, narrow, quantities=quantities, **options),
    "Prior as posterior: ranks": sbc(model, prior, quantities=quantities, **options),
    "Prior as posterior: TARP": tarp(model, prior, **options),
}
for name, study in studies.items():
    print(f"{name}\n  {study.verdict()}")
print(report(studies, args.output / "calibration.html", title="Three posteriors of a deconvolution"))

# %% [markdown]
# ## Picture
# The share of ranks below each level, less that level: a correct sampler stays in the gray bands with a probability of
# 94 %. Of a posterior that is too narrow too many truths lie at both ends, so that the curve rises, falls, and rises.
# The prior passes for the noise, as it must, for over all data sets its ranks are uniform: only a quantity that depends
# on the data, such as the likelihood, tells it from the posterior.

# %%
figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey="row", layout="constrained")
for column, name in enumerate(("NUTS", "Too narrow", "Prior as posterior")):
    study = studies[f"{name}: ranks"]
    bands, levels = study.bands(), np.arange(1, study.num_draws + 1) / (study.num_draws + 1)
    for row, quantity in enumerate(("noise", "log_likelihood")):
        axis, ranks = axes[row, column], study.ranks[quantity].ravel()
        below = np.searchsorted(np.sort(ranks), np.arange(1, study.num_draws + 1)) / len(ranks)
        axis.fill_between(levels, bands.lower / len(ranks) - levels, bands.upper / len(ranks) - levels, color="0.88")
        axis.plot(levels, below - levels, color="C0" if study.p_values[quantity] > 0.01 else "C3")
        axis.axhline(0, color="0.4", lw=0.6)
        axis.set_title(f"{name}\n{quantity.replace('_', ' ')}, p = {study.p_values[quantity]:.1g}", fontsize=10)
figure.supxlabel("rank / (draws + 1)")
figure.supylabel("share of ranks below, less that expected")
figure.savefig(args.output / "calibration.png", dpi=150)
print(f"Picture: {args.output / 'calibration.png'}")
