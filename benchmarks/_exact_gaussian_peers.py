"""The peers' side of exact_gaussian.py, run by it in the peers' environment: ``PROBLEM OUTPUT_FOLDER``.

CUQIpy's LinearRTO (automatic choice, and with more inner iterations) and NIFTy.re's ``wiener_filter_posterior``. Each
run writes its draws and CPU seconds: all of it, and (where compiled) those of a short run, to tell compilation apart.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from _exact_gaussian_problem import PRECISION, SIGMA, amplitudes, deblurring, sine_transform
from _record import package

PROBLEMS = {"d1": (128, 1, 5.0), "d2": (64, 2, 2.0)}


def cuqipy(problem, draws):
    """Runs by name: draws and CPU seconds."""
    import cuqi

    size = problem.n**problem.ndim
    if problem.ndim == 1:
        model = cuqi.model.LinearModel(problem.blur)
        prior = cuqi.distribution.GMRF(np.zeros(size), PRECISION, bc_type="zero", name="x")
    else:
        geometry = cuqi.geometry.Image2D((problem.n, problem.n))
        model = cuqi.model.LinearModel(
            problem.forward, adjoint=problem.adjoint, range_geometry=geometry, domain_geometry=geometry
        )
        prior = cuqi.distribution.GMRF(np.zeros(size), PRECISION, bc_type="zero", geometry=geometry, name="x")
    likelihood = cuqi.distribution.Gaussian(model(prior), SIGMA**2, name="y")
    data = problem.data.ravel()

    start = time.process_time()
    found = cuqi.problem.BayesianProblem(likelihood, prior, y=data).sample_posterior(draws)
    yield "CUQIpy LinearRTO, automatic (maxit 10)", found.samples.T, time.process_time() - start, None

    posterior = cuqi.distribution.JointDistribution(prior, likelihood)(y=data)
    for maxit in (20, 40):
        start = time.process_time()
        sampler = cuqi.sampler.LinearRTO(posterior, maxit=maxit)
        sampler.sample(draws)
        found = sampler.get_samples().samples.T
        yield f"CUQIpy LinearRTO, maxit {maxit}", found, time.process_time() - start, None


def nifty(problem, draws):
    """``wiener_filter_posterior`` with tight conjugate gradients; half of the draws mirror the other half."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import nifty.re as jft

    basis, blur = jnp.asarray(sine_transform(problem.n)[0]), jnp.asarray(problem.blur)
    scale = jnp.asarray(amplitudes(problem.n, problem.ndim))

    def field(z):
        return basis @ (scale * z) if problem.ndim == 1 else basis @ (scale * z) @ basis

    def mean(z):
        return blur @ field(z) if problem.ndim == 1 else blur @ field(z) @ blur.T

    shape = jax.ShapeDtypeStruct(problem.data.shape, jnp.float64)
    noise = jft.Gaussian(jnp.asarray(problem.data), noise_std_inv=lambda x: x / SIGMA)
    likelihood = noise.amend(mean, domain=shape)

    def run(pairs, seed):
        start = time.process_time()
        samples, _ = jft.wiener_filter_posterior(
            likelihood,
            key=jax.random.PRNGKey(seed),
            n_samples=pairs,
            draw_linear_kwargs={"cg_name": None, "cg_kwargs": {"absdelta": 1e-8 * problem.data.size, "maxiter": 2000}},
        )
        found = np.asarray(jax.vmap(field)(samples.samples))
        return found.reshape(len(found), -1), time.process_time() - start

    _, short = run(5, 0)
    found, total = run(draws // 2, 1)
    yield "NIFTy.re wiener_filter_posterior (pairs)", found, total, (10, short)


def main(name, folder):
    """Run every peer on a problem."""
    problem = deblurring(*PROBLEMS[name])
    rows = []
    version = {cuqipy: package("CUQIpy"), nifty: package("nifty")}
    for i, (peer, draws) in enumerate(((cuqipy, 2000), (nifty, 1000 if name == "d1" else 200))):
        try:
            for title, found, seconds, short in peer(problem, draws):
                file = f"{name}-{i}-{len(rows)}.npy"
                np.save(Path(folder) / file, found.astype(np.float32))
                rows.append(
                    {"title": title, "package": version[peer], "file": file, "seconds": seconds, "short": short}
                )
        except Exception as error:  # a peer that fails is reported, not hidden
            why = f"{type(error).__name__}: {error}"
            rows.append({"title": peer.__name__, "package": version[peer], "error": why})
    (Path(folder) / f"{name}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
