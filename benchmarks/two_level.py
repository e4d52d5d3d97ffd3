"""Delayed acceptance on two levels: the model on a coarser mesh, seen by the same white noise, as the approximation.

Diffusing light on the unit square (models.absorption), 4,225 nodes: white noise of the field, its range and scale, 25
data. NUTS on the model; DelayedAcceptance with the equation and the field on 289 and on 1,089 nodes; and NUTS on the
coarser models alone, which have no correction. One process, one thread, one chain, CPU seconds with compilation and
warm-up; ESS is the smallest of range, scale and the field at the 25 points. A chain on the model is short, for it takes
seconds a draw.

    python benchmarks/two_level.py
"""

import argparse
import os
import time
from functools import partial

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_value

from benchmarks._record import keep, machine, measured, package
from models import absorption
from numpyro_inverse.distributions import Matern
from numpyro_inverse.infer import DelayedAcceptance

DEAR, CHEAP = (120, 120), (300, 600)  # warm-up and draws of a chain, where a gradient is the model's and where not


def seen(levels, draws):
    """Range, scale and the field at the 25 points, of draws of one chain."""

    @jax.jit
    def of_one(levels, draw):
        law = Matern(levels[0].mesh, range=draw["range"], scale=draw["scale"], smoothness=1.0)
        return jnp.concatenate(
            [jnp.stack([draw["range"], draw["scale"]]), levels[0].observe(law.from_base(draw["noise"]))]
        )

    return np.asarray(jax.lax.map(partial(of_one, levels), draws))


def run(kernel, levels, y, extra, length):
    """A chain: what is seen of it, the mean of an extra field, and CPU seconds."""
    started = time.process_time()
    mcmc = MCMC(kernel, num_warmup=length[0], num_samples=length[1], progress_bar=True)
    mcmc.run(jax.random.key(0), levels, data=y, extra_fields=(extra,))
    x = seen(levels, mcmc.get_samples())
    seconds = time.process_time() - started
    return x[None], mcmc.get_extra_fields()[extra].mean(), seconds


def values(x, seconds):
    """Numbers of a run, x of shape (chains, draws, quantities)."""
    ess = [effective_sample_size(x[..., i]) for i in range(x.shape[-1])]
    r_hat = max(split_gelman_rubin(x[..., i]) for i in range(x.shape[-1]))
    return {
        "smallest ESS": min(ess),
        "largest R-hat": r_hat,
        "CPU time [s]": seconds,
        "CPU time to an ESS of 100 [s]": 100 * seconds / min(ess),
    }


def off(x, reference):
    """Largest distance of a mean from the reference's, in posterior standard deviations and in Monte Carlo errors."""
    flat, exact = x.reshape(-1, x.shape[-1]), reference.reshape(-1, x.shape[-1])
    ess, exact_ess = (np.array([effective_sample_size(v[..., i]) for i in range(v.shape[-1])]) for v in (x, reference))
    apart = np.abs(flat.mean(0) - exact.mean(0))
    errors = np.sqrt(flat.var(0) / ess + exact.var(0) / exact_ess)
    return {
        "largest error of a mean, posterior sd": np.max(apart / exact.std(0)),
        "largest error of a mean, Monte Carlo errors": np.max(apart / errors),
    }


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    levels = absorption.levels(8, 4)
    _, y = absorption.simulate(jax.random.key(0), levels)
    case, facts = f"{levels[0].mesh.size:,} nodes", machine(threads=1)
    options = {
        "init_strategy": init_to_value(values={"range": 0.4, "scale": 1.0, "noise": jnp.zeros(levels[0].mesh.shape)}),
        "max_tree_depth": 7,
    }

    def add(method, version, x, seconds, more):
        found = values(x, seconds) | more
        keep("two_level", measured(case, method, package(version), found), facts)
        print(method, found, flush=True)

    reference, steps, seconds = run(NUTS(absorption.model, **options), levels, y, "num_steps", DEAR)
    add("NUTS", "numpyro", reference, seconds, {"steps per draw": steps})
    for level in (2, 1):
        nodes, coarse = f"{levels[level].mesh.size:,} nodes", partial(absorption.model, level=level)
        kernel = DelayedAcceptance(absorption.model, approximation=coarse, **options)
        x, rate, seconds = run(kernel, levels, y, "accept_prob", CHEAP)
        add(f"DelayedAcceptance, {nodes}", "numpyro_inverse", x, seconds, off(x, reference) | {"acceptance": rate})
        x, steps, seconds = run(NUTS(coarse, **options), levels, y, "num_steps", CHEAP)
        add(f"NUTS, {nodes} alone", "numpyro", x, seconds, off(x, reference) | {"steps per draw": steps})


if __name__ == "__main__":
    main()
