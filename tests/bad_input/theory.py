"""Bad input to the studies of theory: dropout covariances, contraction, temperature; every error names the argument."""

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse import calibration
from tests.bad_input.corpus import (
    COUNTS,
    FRACTIONS,
    FUNCTIONS,
    KEYS,
    NAN,
    NONNEGATIVE_NUMBERS,
    OBJECTS,
    POSITIVE_NUMBERS,
    RAGGED,
    REAL,
    cases,
    given,
)

KEY = jax.random.key(0)
WEIGHT, FIRST, LAST, Y = np.ones((2, 3)), np.ones((4, 3)), np.ones((2, 4)), np.ones(3)
KEEP = (*POSITIVE_NUMBERS, 1.5)
INPUT = (*REAL, 1.0, np.ones(2), np.ones((3, 1)), np.full(3, NAN))
LINEAR = {"forward": np.array([[1.0, 2.0]]), "prior": np.eye(2), "noise": np.eye(1)}
MATRICES = (*REAL, 1.0, np.ones(2), np.full((1, 2), NAN))
COVARIANCES = (*REAL, 1.0, np.eye(3), np.array([[1.0, 0.5], [0.0, 1.0]]), -np.eye(2), np.full((2, 2), NAN))
SOBOLEV = calibration.SobolevFamily(1.0, 1.0, 1.0)
GENERATOR = {"generator": np.ones((2, 1)), "forward": np.eye(2), "truth": np.ones(2)}
CERTAIN = calibration.LinearProblem(np.ones((1, 2)), 0 * np.eye(2), np.eye(1))  # no prior variance
TREES = [value for value in REAL if value is not RAGGED]  # a pytree of lists may be ragged
SIMULATED = {"n": 10.0, "rng": np.random.default_rng(0), "number": 2}
RNGS = (0, None, "a", KEY, np.random)


def network(y, key):
    return y * jax.random.normal(key, y.shape)


CASES = {
    **{
        f"{function.__name__} {name}": case
        for function in (
            calibration.input_dropout_covariance,
            calibration.output_dropout_covariance,
            calibration.dropconnect_covariance,
        )
        for name, case in cases(
            function,
            {"weight": WEIGHT, "y": Y, "keep": 0.5},
            weight=(*REAL, 1.0, Y, np.ones((2, 2)), np.full((2, 3), NAN)),
            y=INPUT,
            keep=KEEP,
        ).items()
    },
    **cases(
        calibration.hidden_dropout_covariance,
        {"last": LAST, "first": FIRST, "y": Y, "keep": 0.5},
        last=(*REAL, 1.0, np.ones(4), WEIGHT),
        first=(*REAL, 1.0, Y, np.ones((3, 3)), LAST),
        y=INPUT,
        keep=KEEP,
    ),
    **cases(
        calibration.two_layer_dropout_covariance,
        {"last": LAST, "first": FIRST, "y": Y, "keep_input": 0.5, "keep_hidden": 0.5},
        last=(*REAL, 1.0, np.ones(4), WEIGHT),
        first=(*REAL, 1.0, Y, np.ones((3, 3)), LAST),
        y=INPUT,
        keep_input=KEEP,
        keep_hidden=KEEP,
    ),
    **cases(
        calibration.mc_dropout,
        {"network": network, "y": jnp.ones(3), "rng_key": KEY},
        network=(
            *FUNCTIONS,
            lambda y, key: "a",
            lambda y, key: None,
            lambda y, key: (y, y),
            lambda y, key: y * 1j,
            lambda y, key: y * jnp.nan,
            lambda y, key: y,
        ),
        y=("a", None, {}, object(), len, [1.0, "2"], np.array(["a"]), np.full(3, NAN)),
        rng_key=KEYS,
        num_draws=(*COUNTS, 1),
    ),
    **cases(
        calibration.LinearProblem,
        LINEAR,
        forward=(*MATRICES, np.ones((2, 2)), np.ones((1, 3)), np.ones((0, 2))),
        prior=(*COVARIANCES, np.eye(1)),
        noise=(*COVARIANCES, np.eye(2), -np.eye(1)),
    ),
    "LinearProblem noise, singular data": (
        "noise",
        lambda v: calibration.LinearProblem(np.zeros((1, 2)), np.eye(2), v),
        (np.zeros((1, 1)),),
    ),
    **cases(calibration.LinearProblem(**LINEAR).trained_map, {}, keep=KEEP),
    **cases(
        calibration.dropout_vs_posterior,
        {"problem": calibration.LinearProblem(**LINEAR), "y": np.ones(1), "rng_key": KEY, "num_draws": 3},
        problem=(
            *OBJECTS,
            calibration.LinearProblem,
            CERTAIN,
        ),
        y=(*REAL, 1.0, np.ones(2), np.full(1, NAN)),
        rng_key=KEYS,
        keep=FRACTIONS,
        num_draws=(*COUNTS, 1),
    ),
    **cases(
        calibration.SobolevFamily,
        {"alpha": 1.0, "ill_posedness": 1.0, "beta": 1.0},
        alpha=POSITIVE_NUMBERS,
        ill_posedness=NONNEGATIVE_NUMBERS,
        beta=POSITIVE_NUMBERS,
        num_modes=given(COUNTS),
    ),
    **cases(
        calibration.GeneratorFamily,
        GENERATOR,
        generator=(*MATRICES, np.ones((3, 1)), np.ones((2, 0)), np.zeros((2, 1))),
        forward=(*MATRICES, np.ones((2, 3)), np.zeros((2, 2))),
        truth=(*REAL, 1.0, np.ones(3), np.full(2, NAN)),
    ),
    **{
        name: case
        for family in (SOBOLEV, calibration.GeneratorFamily(**GENERATOR))
        for name, case in (
            cases(family.risk, {}, n=POSITIVE_NUMBERS)
            | cases(family.check, {}, n=POSITIVE_NUMBERS)
            | cases(family.squared_errors, SIMULATED, n=POSITIVE_NUMBERS, rng=RNGS, number=COUNTS)
        ).items()
    },
    **cases(SOBOLEV.asymptotic, {}, n=POSITIVE_NUMBERS),
    **cases(
        calibration.contraction,
        {"family": SOBOLEV, "noise_levels": [0.1, 0.01], "rng_key": KEY, "num_datasets": 2},
        family=(*OBJECTS, calibration.SobolevFamily),
        noise_levels=(*REAL, 0.1, [0.1], [0.1, 0.1], [0.1, -1.0], [0.1, 0.0], [0.1, NAN]),
        rng_key=KEYS,
        num_datasets=(*COUNTS, 1),
    ),
    "contraction num_modes": (
        "num_modes",
        lambda v: calibration.contraction(calibration.SobolevFamily(1.0, 1.0, 1.0, v), [0.1, 0.01], KEY),
        (3,),
    ),
    **cases(
        calibration.measure_temperature,
        {
            "potential": lambda x: x @ x,
            "start": jnp.zeros(2),
            "rng_key": KEY,
            "step_size": 0.1,
            "noise_scale": 0.1,
            "num_warmup": 1,
            "num_samples": 4,
        },
        potential=(*FUNCTIONS, lambda x: "a", lambda x: None, lambda x: x, lambda x: {}, lambda x: 1j, lambda x: 3),
        start=(
            *TREES,
            {},
            NAN,
            3,
            np.zeros(2, int),
            np.zeros(0),
            np.zeros(1025),
            {"u": "a"},
        ),
        rng_key=KEYS,
        step_size=POSITIVE_NUMBERS,
        noise_scale=POSITIVE_NUMBERS,
        num_warmup=(*NONNEGATIVE_NUMBERS, 2.5),
        num_samples=(*COUNTS, 3),
        num_chains=COUNTS,
    ),
}
