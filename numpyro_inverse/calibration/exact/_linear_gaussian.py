"""The posterior of a Gaussian model with an affine mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_callable
from numpyro_inverse.calibration._arguments import model_arguments
from numpyro_inverse.calibration.exact._reference import Reference
from numpyro_inverse.infer import ExactGaussian

DENSE = 4096  # numbers up to which covariances are dense
DRAWS = 4000  # for standard deviations beyond; their relative error is 1.1 %


def linear_gaussian(
    model: Callable,
    *,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> Reference:
    r"""The exact posterior of a linear-Gaussian NumPyro model, by :class:`~numpyro_inverse.infer.ExactGaussian`.

    Dense, diagonal in a transform or matrix-free as the model allows. Up to 4096 latent numbers means, covariances and
    the log evidence are exact; beyond, covariances and evidence are left out and standard deviations come from 4000
    independent draws.

    Args:
        model: a NumPyro model as ``ExactGaussian`` takes.
        model_args: its arguments, with the data.
        model_kwargs: its keyword arguments, with the data.
        tolerance: of draws and means, in posterior standard deviations.

    Raises:
        TypeError: ``model`` is no function, ``model_args`` no tuple, ``model_kwargs`` no mapping.
        ValueError: as ``ExactGaussian``.
    """
    check_callable("linear_gaussian", "model", model, "a NumPyro model")
    args, kwargs = model_arguments("linear_gaussian", model_args, model_kwargs)
    kernel = ExactGaussian(model, tolerance=tolerance)

    def draw(key: Array, number: int) -> dict[str, Array]:
        mcmc = MCMC(kernel, num_warmup=0, num_samples=number, progress_bar=False)
        mcmc.run(key, *args, **kwargs)
        return {name: value for name, value in mcmc.get_samples().items() if name in mean}

    found = kernel.posterior_mean(*args, **kwargs)
    mean = {k: np.asarray(v, float) for k, v in found.items() if k.removesuffix("_latent") == k or k[:-7] not in found}
    if sum(value.size for value in mean.values()) <= DENSE:
        found = kernel.posterior_covariance(*args, **kwargs)
        covariance = {k: np.asarray(found[k], float).reshape(mean[k].size, mean[k].size) for k in mean}
        sd = {k: np.sqrt(np.diagonal(v)).reshape(mean[k].shape) for k, v in covariance.items()}
        return Reference(mean, sd, draw, covariance, float(kernel.log_evidence(*args, **kwargs)))
    sd = {name: np.std(np.asarray(v, float), axis=0) for name, v in draw(jax.random.key(0), DRAWS).items()}
    return Reference(mean, sd, draw)
