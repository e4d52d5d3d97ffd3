"""The peers' side of kernels.py, run by it in the peers' environment: ``PROBLEM OUTPUT_FILE WARMUP DRAWS``.

CUQIpy's NUTS on the same log density: our model's potential in NumPy for the deconvolution, in JAX for the elliptic
problem, both in the coordinates of the prior's standard deviations. It reports draws, CPU seconds and gradients.
"""

import sys
import time
from pathlib import Path

import cuqi
import numpy as np
from _record import package

sys.path.insert(0, str(Path(__file__).parents[1]))


def elliptic():
    """Value and gradient of the log posterior density of u = (log theta - 4) / 2, flat."""
    import importlib.util
    import types

    import jax
    import jax.numpy as jnp

    # The forward map needs no NumPyro, which this environment lacks.
    for name in ("numpyro", "numpyro.distributions"):
        sys.modules.setdefault(name, types.ModuleType(name))
    path = Path(__file__).parents[1] / "models" / "elliptic.py"
    spec = importlib.util.spec_from_file_location("elliptic", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = jnp.asarray(module.published()["z_hat"], jnp.float32)

    def log_density(u):
        residual = (data - module.forward(jnp.exp(4 + 2 * u.reshape(8, 8)))) / 0.05
        return -0.5 * (residual @ residual + u @ u)

    call = jax.jit(jax.value_and_grad(log_density))

    def value_and_grad(u):
        value, grad = call(jnp.asarray(u, jnp.float32))
        return float(value), np.asarray(grad, float)

    return value_and_grad, 64


def deconvolution():
    """As :func:`elliptic`, for the white coefficients."""
    from _kernels_problem import SIZE, deconvolution_data, deconvolution_log_density

    return deconvolution_log_density(deconvolution_data()), SIZE**2


def main(problem: str, output: str, warmup: int, draws: int) -> None:
    """Run, and write ``draws`` (in prior units), ``seconds`` and ``gradients`` of the part after warm-up."""
    value_and_grad, size = {"elliptic": elliptic, "deconvolution": deconvolution}[problem]()
    count = [0]
    last: dict = {"x": None}

    def both(x):
        if last["x"] is None or not np.array_equal(last["x"], x):
            count[0] += 1
            last["x"], last["found"] = np.array(x), value_and_grad(np.asarray(x).ravel())
        return last["found"]

    density = cuqi.distribution.UserDefinedDistribution(
        dim=size, logpdf_func=lambda x: np.array([both(x)[0]]), gradient_func=lambda x: both(x)[1]
    )
    np.random.seed(0)  # noqa: NPY002 (CUQIpy draws from the global generator)
    # On the deconvolution its own search for a first step ends at one with which it never moves.
    first_step = {"deconvolution": 0.02, "elliptic": None}[problem]
    sampler = cuqi.sampler.NUTS(density, initial_point=np.zeros(size), opt_acc_rate=0.8, step_size=first_step)
    both(np.zeros(size))
    start = time.process_time()
    sampler.warmup(warmup)
    middle, gradients = time.process_time(), count[0]
    sampler.sample(draws)
    end = time.process_time()
    found = sampler.get_samples().samples.T[-draws:]
    np.savez(
        output,
        draws=found,
        package=package("CUQIpy"),
        seconds=end - middle,
        warmup_seconds=middle - start,
        gradients=count[0] - gradients,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
