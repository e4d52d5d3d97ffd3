"""Delayed acceptance on two levels: the model on a coarser mesh, seen by the same white noise, as the approximation.

Diffusing light on the unit square (models.absorption), 1,089 nodes: white noise of the field, its range and scale, 25
data. NUTS on the model; DelayedAcceptance with the equation and the field on 289 and on 81 nodes; and NUTS on the
coarser models alone, which have no correction. One process, one thread, CPU seconds with compilation and warm-up; ESS
is the smallest of range, scale and the field at the 25 points.

    python benchmarks/two_level.py [nuts] [1] [2]
"""

import os
import sys
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

WARMUP, DRAWS = 300, 300
REFERENCE = "NUTS"


def seen(levels, draws):
    """Range, scale and the field at the 25 points, of draws of one chain."""

    @jax.jit
    def of_one(levels, draw):
        law = Matern(levels[0].mesh, range=draw["range"], scale=draw["scale"], smoothness=1.0)
        return jnp.concatenate(
            [jnp.stack([draw["range"], draw["scale"]]), levels[0].observe(law.from_base(draw["noise"]))]
        )

    return np.asarray(jax.lax.map(partial(of_one, levels), draws))


def run(kernel, levels, y, extra, draws):
    """Two chains, one after the other: what is seen of them, the extra fields, and CPU seconds."""
    started = time.process_time()
    found, fields = [], []
    mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=draws, progress_bar=True)
    for seed in range(2):
        mcmc.run(jax.random.key(seed), levels, data=y, extra_fields=extra)
        found.append(jax.block_until_ready(mcmc.get_samples()))
        fields.append(jax.tree.map(np.asarray, mcmc.get_extra_fields()))
    seconds = time.process_time() - started
    return np.stack([seen(levels, draws) for draws in found]), jax.tree.map(lambda *x: np.stack(x), *fields), seconds


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
    levels = absorption.levels(8, 3)
    _, y = absorption.simulate(jax.random.key(0), levels)
    chosen, facts = sys.argv[1:] or ["nuts", "1", "2"], machine(threads=1)
    start = init_to_value(values={"range": 0.4, "scale": 1.0, "noise": jnp.zeros(levels[0].mesh.shape)})
    case, ours = f"{levels[0].mesh.size:,} nodes", package("numpyro_inverse")
    if "nuts" not in chosen:
        raise SystemExit("nuts: errors are against its draws; name it, too.")
    reference, fields, seconds = run(
        NUTS(absorption.model, init_strategy=start, max_tree_depth=7), levels, y, ("num_steps", "diverging"), DRAWS
    )
    found = values(reference, seconds) | {"steps per draw": fields["num_steps"].mean()}
    keep("two_level", measured(case, REFERENCE, package("numpyro"), found), facts)
    print(found, flush=True)
    for level in (int(name) for name in chosen if name != "nuts"):
        nodes = f"{levels[level].mesh.size:,} nodes"
        coarse = partial(absorption.model, level=level)
        kernel = DelayedAcceptance(
            absorption.model, approximation=coarse, init_strategy=start, max_tree_depth=7, local_moves=0.1
        )
        x, fields, seconds = run(kernel, levels, y, ("accept_prob", "diverging"), 2 * DRAWS)
        found = values(x, seconds) | off(x, reference) | {"acceptance": fields["accept_prob"].mean()}
        keep("two_level", measured(case, f"DelayedAcceptance, {nodes}", ours, found), facts)
        print(nodes, found, flush=True)
        x, fields, seconds = run(NUTS(coarse, init_strategy=start, max_tree_depth=7), levels, y, ("num_steps",), DRAWS)
        found = values(x, seconds) | off(x, reference) | {"steps per draw": fields["num_steps"].mean()}
        keep("two_level", measured(case, f"NUTS, {nodes} alone", package("numpyro"), found), facts)
        print(nodes, "alone", found, flush=True)


if __name__ == "__main__":
    main()
