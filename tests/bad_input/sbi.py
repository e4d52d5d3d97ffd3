"""Bad input of simulations and of what is learned from them: each is an error of ours that names the argument.

All of it is refused before anything is simulated or trained; one tiny fit of each kind is for what is done with it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse import nn, sbi
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi import NLE, NPE, NRE
from tests.bad_input.corpus import (
    COUNTS,
    FRACTIONS,
    FUNCTIONS,
    KEYS,
    MODEL_ARGS,
    MODEL_KWARGS,
    NAN,
    NONNEGATIVE_NUMBERS,
    OBJECTS,
    POSITIVE_NUMBERS,
    REAL,
    SHAPES,
    cases,
    given,
)
from tests.sbi.programs import shifted

KEY, QUIET = jax.random.key(0), {"progress_bar": False}
TIMES = np.arange(1.0, 11.0)


def noisy(key, theta):
    return theta + jax.random.normal(key, (2,))


def model(x=None):
    theta = numpyro.sample("theta", dist.Normal().expand([2]).to_event(1))
    numpyro.sample("x", Simulator(noisy, theta, event_dims=1), obs=x)


def series(x=None):
    s = numpyro.sample("s", dist.Normal())
    numpyro.sample("x", dist.Normal(s * TIMES, 1.0), obs=x)


def other(x=None):
    loc = numpyro.sample("loc", dist.Normal().expand([2]).to_event(1))
    numpyro.sample("z", Simulator(noisy, loc, event_dims=1), obs=x)


ROWS = sbi.simulate(model, KEY, 120, **QUIET)
OTHERS = sbi.simulate(other, KEY, 120, **QUIET)
TINY = {"simulations": ROWS, "max_epochs": 1, "batch_size": 100, **QUIET}
FLOW, SMALL = partial(nn.CouplingFlow, layers=1, width=2, bins=0), {"width": 2, "depth": 1}
POSTERIOR = NPE(model).fit(KEY, density=FLOW, **TINY)
LIKELIHOOD = NLE(model).fit(KEY, density=FLOW, **TINY)
RATIO = NRE(model).fit(KEY, **SMALL, **TINY)
Y = np.zeros(2)
LAW = POSTERIOR.posterior(Y)
SIMULATOR = Simulator(noisy, jnp.zeros(2), event_dims=1)
SITE = sbi.NeuralLikelihood(LIKELIHOOD.learned.surrogate, SIMULATOR)
WEIGHTED = sbi.Importance({"theta": np.ones((4, 2))}, np.full(4, -np.log(4)), 0.5)

OBSERVED = (3, None, b"x", object(), {}, [3], ("x", 3), "w", ("x", "w"))
PATHS = (3, None, "", [], object())
ROUNDS = [v for v in COUNTS if not (isinstance(v, float) and v == 1)]
SIMULATIONS = ("a", 3, {}, (), ROWS.data, object())
NOT_BOOLEAN = [v for v in given(REAL) if not isinstance(v, np.ndarray) or v.dtype.kind != "b"]
OBSERVATIONS = (*NOT_BOOLEAN, 1.0, np.ones(3), np.full(2, NAN), {"w": Y})
DATA = (*OBSERVATIONS, None, {"x": "a"}, {"x": None}, {"x": np.ones(3)}, {"x": Y, "w": Y})
SETTINGS = {
    "max_epochs": COUNTS,
    "batch_size": given(COUNTS),
    "learning_rate": POSITIVE_NUMBERS,
    "held_out": (*NONNEGATIVE_NUMBERS, 1.0),
    "checkpoint": (3, b"x", [], object()),
    "optimizer": ("a", 3, {}),
    "progress_bar": ("yes", None, 1),
    "max_epoch": (3,),
}
FIT = {
    "rng_key": KEYS,
    "num_simulations": COUNTS,
    "simulations": SIMULATIONS,
    "observation": OBSERVATIONS,
    "rounds": (*COUNTS, 2),
    **SETTINGS,
}
MODEL = {"model": FUNCTIONS, "model_args": (*MODEL_ARGS, None), "model_kwargs": MODEL_KWARGS}
LATENTS = [{"theta": v} for v in (*REAL, 1.0, np.ones(5), np.ones((4, 2)), np.full((5, 2), NAN))]
NETWORKS = ("a", 3, {}, np.ones(3))


def fits(estimator, **more):
    """The rows of one ``fit``, which would start to simulate if it did not refuse."""
    return cases(estimator.fit, {"rng_key": KEY, "num_simulations": 100, **QUIET}, **FIT, **more)


CASES = {
    **cases(
        sbi.simulate,
        {"model": model, "rng_key": KEY, "num": 5, **QUIET},
        **MODEL,
        rng_key=KEYS,
        num=COUNTS,
        observed=OBSERVED,
        latents=("a", 3, [], np.ones(3), object(), {"w": 1.0}, {"x": Y}, {3: Y}, *LATENTS),
        batch_size=COUNTS,
        sharding=("a", 3, {}, object()),
        store=(3, object(), "", 1.5, [], True),
        client=("a", 3, {}, object()),
        progress_bar=("yes", None, 1, 0.0, [True]),
    ),
    "Simulations.followed_by": ("other", ROWS.followed_by, (*OBJECTS, (), OTHERS)),
    "Simulations.pairs": ("site", ROWS.pairs, ("w", "theta", None, 3, [], {}, b"x")),
    **cases(
        sbi.External,
        {"function": shifted, "shape": (2,)},
        function=(*FUNCTIONS, lambda seed: seed),
        shape=[v for v in SHAPES if not (isinstance(v, tuple) and v == (0, 2))],
        processes=given(COUNTS),
        timeout=given(POSITIVE_NUMBERS),
    ),
    "External rng_key": ("rng_key", sbi.External(shifted, (2,)), KEYS),
    "External args": ("args", partial(sbi.External(shifted, (2,)), KEY), ("a", {}, object(), None, np.array(["a"]))),
    # Estimators.
    **cases(NPE, {"model": model}, **MODEL, observed=OBSERVED),
    **cases(NLE, {"model": model}, **MODEL, site=(3, b"x", ["x"], object(), {}, "w", "theta")),
    **cases(NRE, {"model": model}, **MODEL, site=(3, b"x", ["x"], object(), {}, "w", "theta")),
    **fits(NPE(model), quantile=FRACTIONS, density=NETWORKS, embedding=NETWORKS, members=COUNTS),
    **{f"NLE {name}": row for name, row in fits(NLE(model), density=NETWORKS, members=COUNTS).items()},
    **{
        f"NRE {name}": row
        for name, row in fits(
            NRE(model),
            contrasts=COUNTS,
            gamma=POSITIVE_NUMBERS,
            balance=NONNEGATIVE_NUMBERS,
            width=COUNTS,
            depth=COUNTS,
        ).items()
    },
    **{
        f"{type(estimator).__name__}.{name}": row
        for estimator in (POSTERIOR, LIKELIHOOD, RATIO)
        for name, row in {
            "fit simulations of another model": (
                "simulations",
                lambda v, e=estimator: e.fit(KEY, simulations=v, max_epochs=1, **QUIET),
                (OTHERS,),
            ),
            "sample rng_key": ("rng_key", lambda v, e=estimator: e.sample(v, Y), KEYS),
            "sample y": ("y", lambda v, e=estimator: e.sample(KEY, v), DATA),
            "sample num_samples": ("num_samples", lambda v, e=estimator: e.sample(KEY, Y, num_samples=v), COUNTS),
            "sample num_chains": ("num_chains", lambda v, e=estimator: e.sample(KEY, Y, num_chains=v), COUNTS),
            "() rng_key": ("rng_key", lambda v, e=estimator: e(v, Y), KEYS),
            "() y": ("y", lambda v, e=estimator: e(KEY, v), DATA),
            "checked_data": ("y", estimator.checked_data, DATA),
            "save": ("path", estimator.save, PATHS),
            "load": ("path", estimator.load, PATHS),
            "load options": ("max_epochs", lambda v, e=estimator: e.load("x", max_epochs=v), (3,)),
            "load another": ("weights", lambda v, e=estimator: e.load("x", weights=v), (3,)),
            "simulate num": ("num", lambda v, e=estimator: e.simulate(KEY, v), COUNTS),
            "simulate rng_key": ("rng_key", lambda v, e=estimator: e.simulate(v, 5), KEYS),
        }.items()
    },
    **{
        f"{type(estimator).__name__}.sample {argument}": (
            argument,
            lambda v, e=estimator, a=argument: e.sample(KEY, Y, **{a: v}),
            bad,
        )
        for estimator in (LIKELIHOOD, RATIO)
        for argument, bad in {"num_particles": given(COUNTS), "num_temperatures": COUNTS}.items()
    },
    # What they return.
    "NPE.posterior": ("y", POSTERIOR.posterior, DATA),
    "NPE.summaries": ("y", POSTERIOR.summaries, DATA),
    **cases(POSTERIOR.init_strategy, {"rng_key": KEY, "y": Y}, rng_key=KEYS, y=DATA),
    **cases(
        POSTERIOR.importance,
        {"rng_key": KEY, "y": Y},
        rng_key=KEYS,
        y=DATA,
        model=NETWORKS,
        num_samples=COUNTS,
    ),
    **cases(LAW.sample, {"key": KEY}, key=KEYS, sample_shape=("a", None, 3, {}, (2, -1), ("a",), (2.5,))),
    "NeuralPosterior.log_prob": (
        "values",
        LAW.log_prob,
        (*OBJECTS, {"w": Y}, *({"theta": v} for v in (*REAL[:-1], 1.0, np.ones(3)))),
    ),
    **cases(SITE.sample, {"key": KEY}, key=KEYS, sample_shape=("a", None, 3, {}, (2, -1), ("a",), (2.5,))),
    "NeuralLikelihood.log_prob": ("value", SITE.log_prob, (*given(REAL)[:-2], 1.0, np.ones(3))),
    "NeuralLikelihood simulator": ("simulator", partial(sbi.NeuralLikelihood, SITE.law), (*OBJECTS, dist.Normal())),
    "NeuralRatio simulator": ("simulator", partial(sbi.NeuralRatio, SITE.law), (*OBJECTS, dist.Normal())),
    **cases(WEIGHTED.resampled, {"rng_key": KEY, "num": 2}, rng_key=KEYS, num=COUNTS),
    # Shattering.
    **cases(
        sbi.shattering,
        {"model": series, "rng_key": KEY, "num_draws": 2},
        **MODEL,
        rng_key=KEYS,
        site=(3, b"x", ["x"], object(), {}, "w"),
        times=(*given(REAL), 1.0, TIMES[:5], TIMES[::-1], -TIMES, np.full(10, NAN)),
        wrt=("s", 3, {}, object(), [], ["w"], [3], ["x"], np.ones(3)),
        params=("a", 3, [], np.ones(3), {"w": 1.0}, {"s": "a"}, {"s": None}, {"s": NAN}, {"s": [1.0, 2.0]}, {3: 1.0}),
        num_draws=(*COUNTS, 1),
        time_axis=("a", None, {}, 1, -2, 0.5, 0.0, True, [0], NAN, np.ones(3)),
    ),
}
