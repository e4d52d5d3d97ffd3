"""Bad input to ``calibration``: every error is ours, names the argument and says what was found."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse import calibration
from numpyro_inverse.calibration import exact

KEY, X = jax.random.key(0), np.random.default_rng(0).normal(size=(30, 2))
BAD_KEYS = (0, None, "a", jax.random.split(KEY, 2), np.zeros(2))
BAD_COUNTS = ("a", None, 2.5, -1, 0, np.nan, True, 1j, [1])
BAD_DRAWS = (
    "a",
    None,
    np.array(["a"] * 30),
    1j * X,
    X[:3],
    np.full((30, 2), np.nan),
    1e200 * X,
    0 * X,
    [[1.0], [2.0, 3.0]],
)
BAD_POSITIVE = ("a", None, 0.0, -1.0, np.nan, np.inf, 1j)
LINEAR = calibration.LinearProblem(np.eye(3), np.eye(3), np.eye(3))


def model(data=None):
    x = numpyro.sample("x", dist.Normal())
    numpyro.sample("data", dist.Normal(x, 1.0), obs=data)


def draw(key, y):
    return {"x": y / 2 + np.sqrt(0.5) * jax.random.normal(key, (99,))}


def score(x):
    return -x


CALLS = {
    **{
        f"{name}(rng_key)": ("rng_key", BAD_KEYS, test)
        for name, test in {
            "sbc": lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=v),
            "coverage": lambda v: calibration.coverage(model, draw, num_datasets=5, rng_key=v),
            "tarp": lambda v: calibration.tarp(model, draw, num_datasets=5, rng_key=v),
            "c2st": lambda v: calibration.c2st(X, X, v),
            "mmd": lambda v: calibration.mmd(X, X, v),
            "mmd_to_gaussian": lambda v: calibration.mmd_to_gaussian(X, np.zeros(2), np.eye(2), v),
            "ksd": lambda v: calibration.ksd(X, score, v),
            "wasserstein": lambda v: calibration.wasserstein(X, X, v),
            "lc2st": lambda v: calibration.lc2st(X, X, X, X, X[0], v),
            "contraction": lambda v: calibration.contraction(calibration.SobolevFamily(1, 1, 1), [0.1, 0.01], v),
            "dropout_vs_posterior": lambda v: calibration.dropout_vs_posterior(LINEAR, np.ones(3), v),
            "mc_dropout": lambda v: calibration.mc_dropout(lambda y, key: y, jnp.ones(3), v),
            "measure_temperature": lambda v: calibration.measure_temperature(
                lambda x: x @ x, jnp.zeros(2), v, step_size=0.1, noise_scale=0.1
            ),
        }.items()
    },
    **{
        f"sbc({name})": (
            name,
            [v for v in BAD_COUNTS if not (v is None and name != "num_datasets")] if name != "num_steps" else ("a", 0),
            lambda v, name=name: calibration.sbc(
                model, draw, **{"num_datasets": 5, "rng_key": KEY, "progress_bar": False} | {name: v}
            ),
        )
        for name in ("num_datasets", "batch_size", "num_steps", "num_samples")
    },
    **{
        f"{name}(draws)": (argument, BAD_DRAWS, test)
        for name, argument, test in (
            ("c2st", "x", lambda v: calibration.c2st(v, X, KEY)),
            ("mmd", "y", lambda v: calibration.mmd(X, v, KEY)),
            ("mmd_to_gaussian", "draws", lambda v: calibration.mmd_to_gaussian(v, np.zeros(2), np.eye(2), KEY)),
            ("ksd", "draws", lambda v: calibration.ksd(v, score, KEY)),
            ("wasserstein", "x", lambda v: calibration.wasserstein(v, X, KEY)),
            ("lc2st", "truths", lambda v: calibration.lc2st(v, X, X, X, X[0], KEY)),
        )
    },
    "mmd(bandwidth)": (
        "bandwidth",
        BAD_POSITIVE[:1] + BAD_POSITIVE[2:],
        lambda v: calibration.mmd(X, X, KEY, bandwidth=v),
    ),
    "mmd(num_permutations)": ("num_permutations", BAD_COUNTS, lambda v: calibration.mmd(X, X, KEY, num_permutations=v)),
    "ksd(num_bootstrap)": ("num_bootstrap", BAD_COUNTS, lambda v: calibration.ksd(X, score, KEY, num_bootstrap=v)),
    "ksd(score)": ("score", (5, "a", None, lambda x: x[:1]), lambda v: calibration.ksd(X, v, KEY)),
    "ksd(support)": ("support", (5, "positive"), lambda v: calibration.ksd(X, score, KEY, support=v)),
    "sbc(model)": ("model", (5, "a", None), lambda v: calibration.sbc(v, draw, num_datasets=5, rng_key=KEY)),
    "sbc(inference)": ("inference", (5, "a", None), lambda v: calibration.sbc(model, v, num_datasets=5, rng_key=KEY)),
    "sbc(observed)": (
        "observed",
        (5, None, (), ("y",), [3]),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, observed=v),
    ),
    "sbc(sites)": (
        "sites",
        (5, ("x", 2)),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, sites=v),
    ),
    "sbc(model_args)": (
        "model_args",
        (5, "a"),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, model_args=v),
    ),
    "sbc(model_kwargs)": (
        "model_kwargs",
        (5, "a", (1,)),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, model_kwargs=v),
    ),
    "sbc(quantities)": (
        "quantities",
        (5, ["a"], {"a": 3}),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, quantities=v),
    ),
    "sbc(store)": ("store", (5, 1.0), lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, store=v)),
    "tarp(reference)": (
        "reference",
        (5, "a"),
        lambda v: calibration.tarp(model, draw, num_datasets=5, rng_key=KEY, reference=v),
    ),
    "dropout(keep)": (
        "keep",
        ("a", None, 0.0, 1.0, np.nan),
        lambda v: calibration.dropout_vs_posterior(LINEAR, np.ones(3), KEY, keep=v),
    ),
    "contraction(noise_levels)": (
        "noise_levels",
        ("a", None, [0.1], [0.1, -1.0], [0.1, np.nan], ["a", "b"]),
        lambda v: calibration.contraction(calibration.SobolevFamily(1, 1, 1), v, KEY),
    ),
    "normal_normal(noise)": ("noise", BAD_POSITIVE, lambda v: exact.normal_normal(X, v)),
    "normal_normal(data)": ("data", (5.0, "a", None, np.array([np.nan])), lambda v: exact.normal_normal(v, 1.0)),
    "beta_binomial(successes)": ("successes", (-1, 11, "a", None), lambda v: exact.beta_binomial(v, 10)),
    "gamma_poisson(counts)": ("counts", (3, [-1], "a"), lambda v: exact.gamma_poisson(v, 1.0, 1.0)),
    "inverse_gamma_normal(b)": ("b", BAD_POSITIVE, lambda v: exact.inverse_gamma_normal(X, 1.0, v)),
    "SignSymmetric(sigma)": ("sigma", BAD_POSITIVE, lambda v: exact.SignSymmetric(1.0, v)),
    "quadrature(tolerance)": (
        "tolerance",
        BAD_POSITIVE,
        lambda v: exact.quadrature(model, model_kwargs={"data": 0.5}, tolerance=v),
    ),
    "compare(reference)": ("reference", (5, None, {}), lambda v: exact.compare({"x": X}, v)),
    "compare(posterior)": ("posterior", (5, None, X), lambda v: exact.compare(v, exact.Reference.of(x=dist.Normal()))),
    "gaussian_wasserstein(other_mean)": (
        "means",
        (np.zeros(3),),
        lambda v: calibration.gaussian_wasserstein(np.zeros(2), np.eye(2), v, np.eye(2)),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_named(name):
    argument, values, call = CALLS[name]
    for value in values:
        with pytest.raises((ValueError, TypeError)) as found:
            call(value)
        assert argument in str(found.value), (value, found.value)
        where = found.traceback[-1].path.parts
        assert "numpyro_inverse" in where, (value, found.value, found.traceback[-1])
