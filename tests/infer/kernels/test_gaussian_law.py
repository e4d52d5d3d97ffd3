"""Every unadjusted kernel has, on a Gaussian and at a finite step, the law that it states: ``gaussian_law``."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.infer import SKROCK, ULA, MoreauYosidaULA, TemperedSGLD
from tests.infer._laws import assert_agree, linear_chain_z, run

AXES = np.linalg.qr(np.random.default_rng(2).standard_normal((4, 4)))[0].astype(np.float32)
PRIOR_VARIANCE, SMOOTHING = np.array([2.0, 0.3, 1.0, 0.5]), 0.2
ENVELOPE = 1 / (PRIOR_VARIANCE + SMOOTHING)


def _prox(x, smoothing):
    """Of a Gaussian prior with the variances above, along the axes."""
    return (PRIOR_VARIANCE / (PRIOR_VARIANCE + smoothing) * (x @ AXES)) @ AXES.T


class Case(NamedTuple):
    """``make(potential_fn)``; precisions of its potential, and those that its law is asked for; wrong laws."""

    make: object
    potential: np.ndarray
    curvature: np.ndarray
    neighbours: tuple  # from the kernel to (variance, correlation) that must be told apart
    num_samples: int = 60_000


STEEP = np.array([0.5, 2.0, 6.0, 9.5])
WIDE = np.array([0.1, 1.0, 50.0, 148.0])
CASES = {
    # delta h up to 1.9; the continuous-time law, and a step 10 % off.
    "ULA": Case(
        lambda f: ULA(potential_fn=f, step_size=0.2),
        STEEP,
        STEEP,
        (lambda k: (1 / STEEP, 1 - 0.2 * STEEP), lambda k: ULA(potential_fn=jnp.sum, step_size=0.18)),
    ),
    # delta h from 0.1 to 148, l_s = 173; the exact Gaussian's variances, and one stage more.
    "SKROCK": Case(
        lambda f: SKROCK(potential_fn=f, step_size=1.0, stages=10),
        WIDE,
        WIDE,
        (
            lambda k: (1 / WIDE, k.gaussian_law(WIDE).correlation),
            lambda k: SKROCK(potential_fn=jnp.sum, step_size=1.0, stages=11),
        ),
        20_000,
    ),
    # The prior without smoothing.
    "MoreauYosidaULA": Case(
        lambda f: MoreauYosidaULA(potential_fn=f, prox=_prox, smoothing=SMOOTHING, step_size=0.1),
        STEEP,
        STEEP + ENVELOPE,
        (lambda k: k.gaussian_law(STEEP + 1 / PRIOR_VARIANCE),),
    ),
    # The declared temperature instead of the exact one.
    "TemperedSGLD": Case(
        lambda f: TemperedSGLD(potential_fn=f, step_size=0.2, temperature=0.25),
        STEEP,
        STEEP,
        (lambda k: (0.25 / STEEP, 1 - 0.2 * STEEP),),
    ),
}
NAMES = list(CASES)


def _kernel(name):
    case = CASES[name]
    return case.make(lambda x: 0.5 * jnp.sum(case.potential * (x @ AXES) ** 2))


@cache
def _draws(name):
    return np.asarray(run(_kernel(name), jax.random.key(3), 4, 500, CASES[name].num_samples, 1)) @ AXES


@pytest.mark.parametrize("name", NAMES)
def test_law(name):
    # Means, variances and lag-1 correlations, mode by mode. False-alarm rate 1e-5 a kernel.
    assert_agree(linear_chain_z(_draws(name), *_kernel(name).gaussian_law(CASES[name].curvature)))


@pytest.mark.parametrize("name", NAMES)
def test_the_test_of_the_law_has_power(name):
    kernel = _kernel(name)
    for neighbour in CASES[name].neighbours:
        found = neighbour(kernel)
        law = found if isinstance(found, tuple) else found.gaussian_law(CASES[name].curvature)
        assert np.max(np.abs(linear_chain_z(_draws(name), *law))) > 8


def test_figures():
    # Times h, at delta h = 0.1, 1, 2, 5 and l_s, s = 10, the law of SK-ROCK: reference values. Euler's: by hand.
    kernel = SKROCK(potential_fn=jnp.sum, step_size=1.0, stages=10)
    h = np.array([0.1, 1.0, 2.0, 5.0, kernel.max_step_size(1.0)])
    variance = kernel.gaussian_law(h).variance
    np.testing.assert_allclose(variance * h, [0.998, 0.976, 0.930, 0.047, 0.061], atol=5.1e-4)  # three decimals
    assert ULA(potential_fn=jnp.sum, step_size=0.5).gaussian_law(2.0) == (1.0, 0.0)
    assert TemperedSGLD(potential_fn=jnp.sum, step_size=0.5, temperature=3.0).gaussian_law(2.0).variance == 3.0


@pytest.mark.parametrize("name", NAMES)
def test_no_stationary_law(name):
    # delta h = 2 for Euler's kernels; for SK-ROCK 2 w_0 / w_1, with T_s(w) = cosh(s arccosh w).
    kernel, s, w = _kernel(name), 10, 1 + 0.05 / 100
    angle = s * np.arccosh(w)
    limit = 2 * w * s * np.tanh(angle) / np.sqrt(w**2 - 1) if name == "SKROCK" else 2 / kernel._delta
    kernel.gaussian_law(0.98 * limit)
    for curvature in (0.0, -1.0, 1.02 * limit, np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match=f"{name}: no stationary law: `curvature`"):
            kernel.gaussian_law(curvature)
    with pytest.raises(TypeError, match=f"{name}: `curvature` must be real numbers"):
        kernel.gaussian_law("steep")
