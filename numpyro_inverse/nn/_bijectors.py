"""The elementary maps that flows are made of, on Distrax, which is imported when a flow is first used."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse.nn._networks import check_rows

if TYPE_CHECKING:
    import distrax

REACH = 8.0  # splines are the identity outside of [-REACH, REACH]
LARGEST_LOG_SCALE = 3.0


def import_distrax() -> ModuleType:
    """Distrax, and TensorFlow Probability with it; outside of what is being compiled, for they make arrays.

    Raises:
        ImportError: it is missing, or does not work with this version of JAX.
    """
    try:
        with jax.ensure_compile_time_eval():
            import distrax
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "numpyro_inverse.nn: flows are made of Distrax bijectors, and Distrax or TensorFlow Probability cannot be "
            f"imported ({error}). Install versions that fit this version of JAX, or use another bijection."
        ) from error
    return distrax


def spline(parameters: Float[Array, "n p"]) -> distrax.RationalQuadraticSpline:
    """A monotone map of each number, the identity outside [-8, 8]."""
    return import_distrax().RationalQuadraticSpline(
        parameters, range_min=-REACH, range_max=REACH, boundary_slopes="identity"
    )


def affine(parameters: Float[Array, "*n 2"]) -> distrax.ScalarAffine:
    """Shift and scale of each number, the scale within a factor of e^3."""
    log_scale = LARGEST_LOG_SCALE * jnp.tanh(parameters[..., 1] / LARGEST_LOG_SCALE)
    return import_distrax().ScalarAffine(shift=parameters[..., 0], log_scale=log_scale)


def linear(matrix: Float[Array, "n n"], shift: Float[Array, " n"]) -> distrax.Bijector:
    """L U x + b; the strict lower triangle of ``matrix`` is that of L (ones on its diagonal), the rest is U."""
    return import_distrax().LowerUpperTriangularAffine(matrix, shift)


def standardizing(
    name: str, data: np.ndarray | None, size: int
) -> tuple[Float[Array, "size size"], Float[Array, " size"]]:
    """Factors and shift of the affine map from white noise to the mean and covariance of the rows."""
    if data is None:
        return jnp.eye(size), jnp.zeros(size)
    data = check_rows(name, "data", data)
    if data.ndim != 2 or data.shape[1] != size or not np.all(np.isfinite(data)):
        raise ValueError(
            f"{name}: `data` must be finite rows of {size} numbers; got shape {data.shape}"
            f"{'' if np.all(np.isfinite(data)) else ' with numbers that are not finite'}."
        )
    if len(data) < 2 or not np.any(np.ptp(data, axis=0)):
        raise ValueError(
            f"{name}: `data` must be two different rows at least, to have a covariance; got {len(data)} rows."
        )
    covariance = np.atleast_2d(np.cov(data, rowvar=False))
    root = np.linalg.cholesky(covariance + 1e-8 * np.trace(covariance) / size * np.eye(size))
    scale = np.diag(root)
    return jnp.asarray(root / scale - np.eye(size) + np.diag(scale), float), jnp.asarray(data.mean(axis=0), float)
