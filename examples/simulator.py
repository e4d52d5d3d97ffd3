# %% [markdown]
# # A simulator without a likelihood
#
# A population that its own density drives into chaos is counted through a leaky net. Nobody can write down the
# probability of the counts, but anybody can simulate them. From the model to a posterior that was checked: the law of
# some summaries is learned (NLE), beside it the posterior itself (NPE), and both are looked at.

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
from numpyro_inverse.calibration import conformalize, sbc, surrogate_check
from numpyro_inverse.distributions import Simulator

parser = argparse.ArgumentParser(description="Simulation-based inference of a chaotic population.")
parser.add_argument("--simulations", type=int, default=4000)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--datasets", type=int, default=300, help="of the calibration study")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The model, once
# Ricker's map, $n_{t+1} = r\, n_t e^{-n_t + \sigma e_t}$, counted as $y_t \sim \mathrm{Poisson}(\phi\, n_t)$ after 50
# years (Wood, Nature 466 (2010) 1102). What is compared are six summaries of 50 counts.

# %%
YEARS = 50


def counts(key, log_r, sigma, phi):
    key_noise, key_count = jax.random.split(key)

    def year(n, e):
        n = n * jnp.exp(log_r - n + sigma * e)
        return n, n

    _, path = jax.lax.scan(year, 1.0, jax.random.normal(key_noise, (2 * YEARS,)))
    return jax.random.poisson(key_count, phi * path[YEARS:])


def summaries(y):
    root = jnp.sqrt(y)  # of nearly constant noise
    centered = root - root.mean()
    lags = [jnp.mean(centered[k:] * centered[:-k]) for k in (1, 2, 3)]
    return jnp.stack([root.mean(), jnp.log(root.std() + 0.1), jnp.mean(y == 0), *lags])


def simulate(key, log_r, sigma, phi):
    return summaries(counts(key, log_r, sigma, phi))


def model(x=None):
    log_r = numpyro.sample("log_r", dist.Uniform(2.0, 5.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    phi = numpyro.sample("phi", dist.LogNormal(jnp.log(10.0), 0.5))
    numpyro.sample("x", Simulator(simulate, log_r, sigma, phi), obs=x)


truth = {"log_r": 3.8, "sigma": 0.3, "phi": 10.0}
series = counts(jax.random.key(3), *truth.values())
observed = summaries(series)

# %% [markdown]
# ## Two ways to the posterior
# From the same simulations.

# %%
keys = jax.random.split(jax.random.key(0), 7)
simulations = ni.sbi.simulate(model, keys[0], args.simulations)
training = {"simulations": simulations, "max_epochs": args.epochs, "patience": 10}

nle = ni.sbi.NLE(model).fit(keys[1], **training)
mcmc = MCMC(NUTS(nle.model), num_warmup=300, num_samples=500, num_chains=4, chain_method="vectorized")
mcmc.run(keys[2], x=observed)
tree = ni.to_arviz(mcmc)

npe = ni.sbi.NPE(model).fit(keys[3], **training)
draws = npe.sample(keys[4], observed, num_samples=500)

# %% [markdown]
# ## Is it right?
# The surrogate where its posterior went; the learned posterior over many simulated data sets; and intervals that have
# the truth as often as they say, whatever the network.

# %%
check = surrogate_check(nle, mcmc.get_samples(), keys[5], num=400)
study = sbc(model, npe, observed="x", log_likelihood=False, num_datasets=args.datasets, rng_key=keys[6])
held_out = npe.simulate(jax.random.key(1), args.datasets)
corrected = conformalize(npe, held_out.latents, held_out.data["x"], jax.random.key(2))
for text in (check.verdict(), study.verdict(), corrected.verdict()):
    print(text)

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
left.plot(np.arange(YEARS), series, ".-", color="0.3")
left.set(xlabel="year", ylabel="count", title="data")
for name, label, color in (("sigma", r"$\sigma$", "C0"), ("phi", r"$\phi / 30$", "C1")):
    scale = 30.0 if name == "phi" else 1.0
    middle.plot(
        np.ravel(draws["log_r"]),
        np.ravel(draws[name]) / scale,
        ".",
        ms=2,
        alpha=0.4,
        color=color,
        label=f"{label}, NPE",
    )
    middle.plot(truth["log_r"], truth[name] / scale, "k+", ms=12, mew=2)
    chain = tree.posterior
    middle.plot(
        [float(chain["log_r"].mean())],
        [float(chain[name].mean()) / scale],
        "o",
        ms=6,
        mfc="w",
        mec=color,
        label=f"{label}, mean by NLE",
    )
middle.set(xlabel=r"$\log r$", title="posterior (+: truth)", ylim=(0, 1.2))
middle.legend(frameon=False, fontsize=7, loc="upper right")
for name, ranks in study.ranks.items():
    right.plot(np.sort(ranks.ravel()) / study.num_draws, (np.arange(ranks.size) + 0.5) / ranks.size, label=name)
right.plot([0, 1], [0, 1], "k:", lw=1)
right.set(xlabel="rank of the truth among draws", ylabel="share of data sets", title="calibration of NPE")
right.legend(frameon=False, fontsize=8)
figure.savefig(args.output / "simulator.png", dpi=110)
print(f"{args.output / 'simulator.png'}")
