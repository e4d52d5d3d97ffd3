"""Counts over a Gaussian field: ``LatentGaussian`` beside NUTS on the whole model and ``blackjax.laplace_hmc``.

Poisson counts at 80 places of the unit square, with a Matérn field of smoothness 1 on a mesh and an intercept in the
log rate; range and scale are inferred. One run, in double precision on one thread. Printed are posterior mean and
standard deviation of the hyperparameters, their effective sample sizes and the CPU seconds of sampling (warm-up
included, compilation apart). The ratios are of seconds per effective draw of the slowest hyperparameter; for a grid and
a central composite design, of the seconds of the whole integration to those that a chain takes for 400 effective draws.
Errors of the means are in posterior standard deviations of the NUTS run on the whole model, those of the standard
deviations relative.

    python benchmarks/latent_gaussian.py [side of the mesh, default 12]
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from scipy.spatial import Delaunay

import numpyro_inverse as ni
from numpyro_inverse.distributions import Matern, PCRange, PCScale
from numpyro_inverse.domains import Mesh

HERE = Path(__file__).parent
HYPER = ("range", "scale")
CHAIN = {"num_chains": 2, "chain_method": "sequential", "progress_bar": False}


def model(mesh, seen, counts=None):
    """Counts over a field."""
    range_ = numpyro.sample("range", PCRange(0.1, 0.05))
    scale = numpyro.sample("scale", PCScale(2.0, 0.05))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 3.0))
    field = numpyro.sample("field", Matern(mesh, range=range_, scale=scale, smoothness=1.0))
    eta = numpyro.deterministic("eta", intercept + seen(field))
    numpyro.sample("counts", dist.Poisson(jnp.exp(eta)).to_event(1), obs=counts)


def problem(side):
    """A mesh with a margin, the interpolation to 80 places, and counts there."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-0.3, 1.3, side)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = (np.abs(points - 0.5) < 0.79).all(axis=1)
    points[inside] += rng.uniform(-0.2, 0.2, (inside.sum(), 2)) * (axis[1] - axis[0])
    triangles = Delaunay(points).simplices
    corners = points[triangles]
    areas = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1]))
    mesh = Mesh(points, triangles[areas > 1e-9])
    places = rng.uniform(0, 1, (80, 2))
    seen = mesh.interpolation(places)
    field = Matern(mesh, range=0.4, scale=0.9, smoothness=1.0).sample(jax.random.key(1))
    counts = rng.poisson(np.exp(0.7 + np.asarray(seen(field))))
    return mesh, seen, jnp.asarray(counts)


def chain_row(title, samples, seconds):
    """A row: samples have chain and draw axes."""
    row = {"title": title, "seconds": seconds}
    for name in HYPER:
        x = np.asarray(samples[name])
        row[name] = {"mean": x.mean(), "sd": x.std(), "ess": float(effective_sample_size(x))}
    row["ess"] = min(row[name]["ess"] for name in HYPER)
    row["seconds_per_400"] = 400 * seconds / row["ess"]
    return row


def sampled(title, target, arguments, warmup, draws, **settings):
    """NUTS on a model."""
    mcmc = MCMC(NUTS(target, **settings), num_warmup=warmup, num_samples=draws, **CHAIN)
    short = MCMC(NUTS(target, **settings), num_warmup=2, num_samples=2, **CHAIN)
    start = time.process_time()
    short.run(jax.random.key(0), *arguments)
    compile_s = time.process_time() - start  # and four transitions
    start = time.process_time()
    mcmc.run(jax.random.key(1), *arguments, extra_fields=("num_steps", "diverging"))
    seconds = time.process_time() - start - compile_s
    samples = mcmc.get_samples(group_by_chain=True)
    row = chain_row(title, samples, seconds)
    fields = mcmc.get_extra_fields()
    row["divergences"], row["steps"] = int(fields["diverging"].sum()), float(fields["num_steps"].mean())
    return row, mcmc


def points_row(title, points, seconds, evaluations):
    """A row of weighted points."""
    row = {"title": title, "seconds": seconds, "points": evaluations}
    mean, sd = points.mean(), points.sd()
    for name in HYPER:
        row[name] = {"mean": float(mean[name]), "sd": float(sd[name])}
    return row


def laplace_hmc(arguments, draws=40):
    """BlackJAX's Laplace HMC, dense and by L-BFGS, with a step size and a metric found by hand."""
    start = {"range": jnp.log(0.4), "scale": jnp.log(0.9)}
    white = ni.whiten(model)

    def log_joint(theta, phi):
        values = {name: jnp.exp(phi[name]) for name in HYPER} | theta
        jacobian = sum(phi.values())
        return log_density(white, arguments, {}, values)[0] + jacobian

    theta = {"field_latent": jnp.zeros(arguments[0].size), "intercept": jnp.zeros(())}
    sampler = blackjax.laplace_hmc(
        log_joint, theta, step_size=0.9, inverse_mass_matrix=jnp.array([0.1, 0.03]), num_integration_steps=3, maxiter=60
    )

    @jax.jit
    def run(key):
        def step(state, key):
            state, info = sampler.step(key, state)
            return state, (state.position, info.acceptance_rate, info.lbfgs_hit_maxiter)

        return jax.lax.scan(step, sampler.init(start), jax.random.split(key, draws))[1]

    start_time = time.process_time()
    compiled = run.lower(jax.random.key(0)).compile()
    compile_s = time.process_time() - start_time
    start_time = time.process_time()
    position, acceptance, missed = jax.block_until_ready(compiled(jax.random.key(1)))
    seconds = time.process_time() - start_time
    samples = {name: jnp.exp(x)[None] for name, x in position.items()}
    row = chain_row("blackjax.laplace_hmc", samples, seconds)
    return row | {"compile_s": compile_s, "accept": float(acceptance.mean()), "missed": float(missed.mean())}


def benchmark(side):
    """All rows."""
    arguments = problem(side)
    rows = []

    def add(row):
        rows.append(row)
        print(json.dumps(row), flush=True)

    start = time.process_time()
    latent = ni.infer.LatentGaussian(model, "eta", model_args=arguments)
    print(json.dumps({"nodes": arguments[0].size, "setup_s": time.process_time() - start}), flush=True)
    hyper = {"range": 0.4, "scale": 0.9}
    gradient = eqx.filter_jit(lambda latent, h: jax.value_and_grad(latent.log_marginal)(h))
    start = time.process_time()
    jax.block_until_ready(gradient(latent, hyper))
    compile_s = time.process_time() - start
    each = []
    for k in range(5):
        start = time.process_time()
        jax.block_until_ready(gradient(latent, {"range": 0.4 + 0.01 * k, "scale": 0.9}))
        each.append(time.process_time() - start)
    steps = int(eqx.filter_jit(lambda latent, h: latent._laplace(h).mode.steps)(latent, hyper))
    print(json.dumps({"gradient_ms": 1e3 * min(each), "compile_s": compile_s, "newton_steps": steps}), flush=True)

    for title, points in (("grid", latent.integrate_grid), ("ccd", latent.integrate_ccd)):
        points()
        start = time.process_time()
        found = points()
        add(points_row(f"LatentGaussian, {title}", found, time.process_time() - start, len(found.weights)))
    row, mcmc = sampled("LatentGaussian, NUTS", latent.model, (latent,), 75, 200)
    add(row)
    latent.sample(jax.random.key(0), mcmc)
    start = time.process_time()
    jax.block_until_ready(latent.sample(jax.random.key(1), mcmc))
    print(json.dumps({"sample_ms_per_draw": 1e3 * (time.process_time() - start) / 400}), flush=True)
    add(laplace_hmc(arguments))
    row, _ = sampled("NUTS, whole model", ni.whiten(model), arguments, 250, 750)
    add(row)
    return rows, arguments[0].size


def table(rows, nodes):
    """Markdown."""
    truth = rows[-1]
    machine = platform.processor() or platform.machine()
    lines = [__doc__.split("\n")[0], "", f"{nodes} nodes, 80 counts; {machine}, one "
             f"thread, double precision, jax {jax.__version__}, blackjax {blackjax.__version__}.", ""]  # fmt: skip
    lines += [
        "| | range | scale | off by, posterior sd | sd off by | ESS | CPU s | s for 400 effective | times faster |"
    ]
    lines += ["|" + "---|" * 9]
    for row in rows:
        cells = [f"{row[k]['mean']:.3f} ± {row[k]['sd']:.3f}" for k in HYPER]
        off = max(abs(row[k]["mean"] - truth[k]["mean"]) / truth[k]["sd"] for k in HYPER)
        spread = max(abs(row[k]["sd"] / truth[k]["sd"] - 1) for k in HYPER)
        cost = row.get("seconds_per_400", row["seconds"])
        ess = f"{row['ess']:.0f}" if "ess" in row else "-"
        lines.append(
            f"| {row['title']} | {cells[0]} | {cells[1]} | {off:.3f} | {spread:.1%} | {ess} | {row['seconds']:.1f} "
            f"| {cost:.1f} | {truth['seconds_per_400'] / cost:.1f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    with jax.enable_x64(True):
        rows, nodes = benchmark(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
        found = table(rows, nodes)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "latent_gaussian.json").write_text(json.dumps({"nodes": nodes, "rows": rows}, indent=1) + "\n")
    (HERE / "results" / "latent_gaussian.md").write_text(found)
    print(found)
