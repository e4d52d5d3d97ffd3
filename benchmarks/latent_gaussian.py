"""Counts over a Gaussian field: ``LatentGaussian`` beside NUTS on the whole model and ``blackjax.laplace_hmc``.

Poisson counts at 80 places of the unit square, with a Matérn field of smoothness 1 on a mesh and an intercept in the
log rate; range and scale are inferred. One run, in double precision on one thread: posterior mean and standard
deviation of the hyperparameters' logarithms (the range itself has no mean a priori, so that its moments hang on the
tail), their effective sample sizes and the CPU seconds of sampling, warm-up included, compilation apart. Chains are
compared by the seconds that 400 effective draws of the slowest hyperparameter take, a grid and a central composite
design by the seconds of the whole integration. Errors of the means are in posterior standard deviations of NUTS on the
whole model, those of the standard deviations relative.

    python benchmarks/latent_gaussian.py [side of the mesh, default 12]
"""

import argparse
import json
import os
import time

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
from numpyro.infer import NUTS
from numpyro.infer.util import log_density
from scipy.spatial import Delaunay

import numpyro_inverse as ni
from benchmarks._record import keep, machine, measured, missing, package
from numpyro_inverse.distributions import Matern, PCRange, PCScale
from numpyro_inverse.domains import Mesh

HYPER, REFERENCE = ("range", "scale"), "NUTS, whole model"
METRICS = {
    "ess": "smallest ESS of a hyperparameter",
    "seconds": "CPU time [s]",
    "compile_s": "compilation [CPU s]",
    "seconds_per_400": "CPU time to an ESS of 400 [s]",
    "points": "points",
    "divergences": "divergences",
    "steps": "steps per draw",
    "accept": "acceptance",
    "missed": "share of inner optimizations not converged",
    "gradient_ms": "value and gradient of the marginal [CPU ms]",
    "newton_steps": "Newton steps",
    "sample_ms_per_draw": "draw of the field [CPU ms]",
    "setup_s": "setup [CPU s]",
}


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


def chain_row(title, version, samples, seconds):
    """A row: samples have chain and draw axes."""
    row = {"title": title, "package": version, "seconds": seconds}
    for name in HYPER:
        x = np.log(np.asarray(samples[name]))
        row[name] = {"mean": float(x.mean()), "sd": float(x.std()), "ess": float(effective_sample_size(x))}
    row["ess"] = min(row[name]["ess"] for name in HYPER)
    row["seconds_per_400"] = 400 * seconds / row["ess"]
    return row


def sampled(title, target, arguments, warmup, draws):
    """A row of NUTS on a model, two chains one after the other, and the constrained draws."""
    kernel = NUTS(target)

    def run(state, arguments):
        state = jax.lax.fori_loop(0, warmup, lambda _, s: kernel.sample(s, arguments, {}), state)

        def step(state, _):
            state = kernel.sample(state, arguments, {})
            return state, (state.z, state.num_steps, state.diverging)

        return jax.lax.scan(step, state, length=draws)[1]

    @eqx.filter_jit
    def constrained(z, arguments):
        return jax.lax.map(kernel.postprocess_fn(arguments, {}), z)

    start = time.process_time()
    states = [kernel.init(key, warmup, None, arguments, {}) for key in jax.random.split(jax.random.key(1))]
    compiled = eqx.filter_jit(run).lower(states[0], arguments).compile()
    compile_s = time.process_time() - start  # and the chains' starts
    start = time.process_time()
    chains = [jax.block_until_ready(compiled(state, arguments)) for state in states]
    seconds = time.process_time() - start
    z, steps, diverging = jax.tree.map(lambda *x: jnp.stack(x), *chains)
    samples = [constrained(jax.tree.map(lambda v, c=c: v[c], z), arguments) for c in range(2)]
    samples = jax.tree.map(lambda *x: jnp.stack(x), *samples)
    version = package("numpyro_inverse" if title.startswith("LatentGaussian") else "numpyro")
    row = chain_row(title, version, samples, seconds) | {"compile_s": compile_s}
    return row | {"divergences": int(diverging.sum()), "steps": float(steps.mean())}, samples


def points_row(title, points, seconds, compile_s):
    """A row of weighted points."""
    row = {"title": title, "package": package("numpyro_inverse"), "seconds": seconds, "compile_s": compile_s}
    row["points"] = len(points.weights)
    weights = np.asarray(points.weights)
    for name in HYPER:
        x = np.log(np.asarray(points.values[name]))
        mean = weights @ x
        row[name] = {"mean": float(mean), "sd": float(np.sqrt(weights @ (x - mean) ** 2))}
    return row


def laplace_hmc(arguments, draws=60):
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
    row = chain_row("blackjax.laplace_hmc", package("blackjax"), samples, seconds)
    return row | {"compile_s": compile_s, "accept": float(acceptance.mean()), "missed": float(missed.mean())}


def benchmark(side):
    """All rows, kept one by one."""
    arguments = problem(side)
    rows = []

    def add(row):
        rows.append(row)
        print(json.dumps(row), flush=True)
        keep("latent_gaussian", records(rows, arguments[0].size), machine(threads=1))

    start = time.process_time()
    latent = ni.infer.LatentGaussian(model, "eta", model_args=arguments)
    cost = {"setup_s": time.process_time() - start}
    hyper = {"range": 0.4, "scale": 0.9}
    gradient = eqx.filter_jit(lambda latent, h: jax.value_and_grad(latent.log_marginal)(h))
    start = time.process_time()
    jax.block_until_ready(gradient(latent, hyper))
    cost["compile_s"] = time.process_time() - start
    each = []
    for k in range(5):
        start = time.process_time()
        jax.block_until_ready(gradient(latent, {"range": 0.4 + 0.01 * k, "scale": 0.9}))
        each.append(time.process_time() - start)
    cost["gradient_ms"] = 1e3 * min(each)
    cost["newton_steps"] = int(eqx.filter_jit(lambda latent, h: latent._laplace(h).mode.steps)(latent, hyper))

    for title, points in (("grid", latent.integrate_grid), ("ccd", latent.integrate_ccd)):
        start = time.process_time()
        points()
        first = time.process_time() - start
        start = time.process_time()
        found = points()
        seconds = time.process_time() - start
        add(points_row(f"LatentGaussian, {title}", found, seconds, first - seconds))
    row, samples = sampled("LatentGaussian, NUTS", latent.model, (latent,), 150, 400)
    add(row)
    samples = {name: jnp.ravel(samples[name][:, ::2]) for name in HYPER}
    latent.sample(jax.random.key(0), samples)
    start = time.process_time()
    jax.block_until_ready(latent.sample(jax.random.key(1), samples))
    cost["sample_ms_per_draw"] = 1e3 * (time.process_time() - start) / 400
    add({"title": "LatentGaussian, once", "package": package("numpyro_inverse"), **cost})
    try:
        add(laplace_hmc(arguments))
    except Exception as error:  # a peer that fails is reported, not hidden
        add(
            {"title": "blackjax.laplace_hmc", "package": package("blackjax"), "why": f"{type(error).__name__}: {error}"}
        )
    row, _ = sampled(REFERENCE, ni.whiten(model), arguments, 250, 750)
    add(row)


def records(rows, nodes):
    """Of the rows; those of errors once there is the reference."""
    truth = next((row for row in rows if row["title"] == REFERENCE), None)
    out = []
    for row in rows:
        if "why" in row:
            out += missing(f"{nodes} nodes", row["title"], row["package"], row["why"])
            continue
        values = {METRICS[key]: value for key, value in row.items() if key in METRICS}
        if "range" in row:
            values |= {f"log {name}, {key}": row[name][key] for name in HYPER for key in ("mean", "sd")}
        if "range" in row and truth is not None and row is not truth:
            off = max(abs(row[k]["mean"] - truth[k]["mean"]) / truth[k]["sd"] for k in HYPER)
            spread = max(abs(row[k]["sd"] / truth[k]["sd"] - 1) for k in HYPER)
            values |= {"largest error of a mean [posterior sd]": off, "largest relative error of an sd": spread}
        out += measured(f"{nodes} nodes", row["title"], row["package"], values)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", type=int, nargs="?", default=12, help="nodes along an edge of the mesh; default: 12")
    with jax.enable_x64(True):
        benchmark(parser.parse_args().side)
