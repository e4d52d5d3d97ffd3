# %% [markdown]
# # Hares and lynxes without a likelihood
#
# Twenty-one years of pelts, real data, and two populations that drive each other. The law of such data can be written
# down, so that what is learned from simulations alone can be held against it: neural likelihood estimation (NLE) in
# one round and in two, beside NUTS with the exact likelihood and the published means of posteriordb.

# %%
import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_value

import numpyro_inverse as ni
from models import hare_lynx
from numpyro_inverse.calibration import surrogate_check

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Predators and prey by simulations alone, against the exact posterior.")
parser.add_argument("--simulations", type=int, default=8000, help="half of them in each of two rounds")
parser.add_argument("--epochs", type=int, default=40, help="of training, at most")
parser.add_argument("--draws", type=int, default=250, help="of each of four chains")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
begin = time.perf_counter()
NAMES = ("hares, 1900", "lynxes, 1900", "birth α", "predation β", "death γ", "gain δ", "noise, hares", "noise, lynxes")


def elapsed():
    return f"{time.perf_counter() - begin:.0f} s"


# %% [markdown]
# ## With the likelihood


# %%
def sample(model, key):
    """Four chains from a period of ten years: from far away, they stay where the noise explains the cycles."""
    kernel = NUTS(model, init_strategy=init_to_value(values=hare_lynx.start()), dense_mass=True, max_tree_depth=7)
    mcmc = MCMC(
        kernel,
        num_warmup=args.draws,
        num_samples=args.draws,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, y=hare_lynx.PELTS)
    return mcmc.get_samples(group_by_chain=True)


def table(draws):
    """Shape (chain, draw, 8), in the order of `NAMES`."""
    return np.concatenate([np.asarray(draws[name], float) for name in ("z_init", "theta", "sigma")], axis=-1)


found = {"exact": table(sample(hare_lynx.model, jax.random.key(0)))}
print(f"NUTS with the likelihood: {elapsed()}")

# %% [markdown]
# ## Without
# Draws of the prior are mostly of populations that look like none of these: with as many simulations from there the
# means are off by up to three standard deviations. The law of the data *given* the arguments may be learned from any
# proposal, though, so simulations go around what the averages and the period of ten years say. In the second round
# they go where the posterior of the first one is (a chain may run away there, where nothing was simulated, and R-hat
# says so; its simulations fail or do no harm): its chains are there (`fit(..., observation=, rounds=2)` does the same
# by tempered SMC from the prior, which costs more and asks for no starting point).

# %%
around = {"z_init": 0.3, "theta": 0.25, "sigma": 0.4}  # standard deviations of logarithms


def proposal(key, num):
    """Latents around `hare_lynx.start`."""
    keys = dict(zip(around, jax.random.split(key, 3), strict=True))
    start = hare_lynx.start()
    return {
        name: start[name] * jnp.exp(spread * jax.random.normal(keys[name], (num, *start[name].shape)))
        for name, spread in around.items()
    }


estimator = ni.sbi.NLE(hare_lynx.simulator_model)
share = args.simulations // 2
latents = proposal(jax.random.key(1), share)
simulations = estimator.simulate(jax.random.key(2), share, latents=latents, progress_bar=False)
training = {"max_epochs": args.epochs, "patience": 5, "progress_bar": False}
for rounds in (1, 2):
    if rounds == 2:
        latents = {site: values.reshape(-1, *values.shape[2:]) for site, values in samples.items()}
        chosen = np.random.default_rng(0).integers(0, len(latents["theta"]), share)
        latents = {site: values[chosen] for site, values in latents.items()}
        again = estimator.simulate(jax.random.key(6), share, latents=latents, progress_bar=False)
        simulations = simulations.followed_by(again)
    nle = estimator.fit(jax.random.key(3), simulations=simulations, **training)
    samples = sample(nle.model, jax.random.key(4))
    name = f"NLE, {rounds * share} simulations, {rounds} round" + "s" * (rounds > 1)
    found[name] = table(samples)
    print(f"{name}: {elapsed()}", flush=True)
flat = {site: values.reshape(-1, *values.shape[2:]) for site, values in samples.items()}
enough = min(400, 2 * args.draws)  # half of the draws, at most
print(surrogate_check(nle, flat, jax.random.key(5), num=enough).verdict())

# %% [markdown]
# ## Side by side
# Errors are in standard deviations of the exact posterior.

# %%
published = np.concatenate([hare_lynx.PUBLISHED[site][0] for site in ("z_init", "theta", "sigma")])
exact = found["exact"].reshape(-1, 8)
center, width = exact.mean(axis=0), exact.std(axis=0)
print(f"exact against the published means: {np.abs((center - published) / width).max():.2f} at most")
print(f"{'':14s} {'published':>10s} {'exact':>10s}" + "".join(f"{name:>38s}" for name in list(found)[1:]))
for k, label in enumerate(NAMES):
    line = f"{label:14s} {published[k]:10.3g} {center[k]:10.3g}"
    for draws in list(found.values())[1:]:
        flat = draws.reshape(-1, 8)[:, k]
        line += f"{(flat.mean() - center[k]) / width[k]:22.2f} sd, width {flat.std() / width[k]:4.2f}"
    print(line)
for name, draws in found.items():
    print(
        f"{name}: largest R-hat {gelman_rubin(draws).max():.3f}, smallest effective sample size "
        f"{effective_sample_size(draws).min():.0f}"
    )

# %%
figure, axes = plt.subplots(1, 5, figsize=(17, 3.4), layout="constrained")
axes[0].plot(hare_lynx.YEARS, hare_lynx.PELTS, ".-", label=["hares", "lynxes"])
axes[0].set(title="data", xlabel="year", ylabel="thousands of pelts", xticks=[1900, 1910, 1920])
axes[0].legend(frameon=False)
for axis, k in zip(axes[1:], (2, 3, 4, 6), strict=True):
    for color, (name, draws) in zip(("k", "C1", "C0"), found.items(), strict=True):
        axis.ecdf(draws[..., k].ravel(), color=color, lw=2 if name == "exact" else 1.3, label=name)
    axis.axvline(published[k], color="0.6", lw=1, ls=":")
    axis.set_xlim(center[k] - 5 * width[k], center[k] + 5 * width[k])
    axis.set(title=NAMES[k], ylabel="share of draws below" if k == 2 else None)
axes[1].legend(frameon=False, fontsize=7)
figure.savefig(args.output / "hare_lynx.png", dpi=110)
print(f"{args.output / 'hare_lynx.png'}; {elapsed()}")
