"""Bad input of whitening, predictions, surrogates, latent Gaussian models and denoising samplers."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS

import numpyro_inverse as ni
from numpyro_inverse import infer
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.symmetry import SignFlip, Symmetry
from tests.bad_input.corpus import (
    COUNTS,
    FLAGS,
    FUNCTIONS,
    KEYS,
    MODEL_ARGS,
    MODEL_KWARGS,
    NAMES,
    NAN,
    NONNEGATIVE_NUMBERS,
    OBJECTS,
    POSITIVE_NUMBERS,
    RAGGED,
    STRANGE,
    Case,
    cases,
    given,
)

KEY, GRID = jax.random.key(0), Grid(4)
Y = np.array([0.3, -0.2, 0.5, 1.0], np.float32)
DRAWS = {"u": np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32), "noise": np.ones((2, 5), np.float32)}
SOME = {name: x[0] for name, x in DRAWS.items()}
FLIP = Symmetry(SignFlip(), "u")


def model(y=None):
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 0.3))
    u = numpyro.sample("u", Matern(GRID, range=0.5, scale=1.0, smoothness=1.0))
    eta = numpyro.deterministic("eta", u)
    numpyro.sample("y", dist.Normal(eta, noise).to_event(1), obs=y)


def flat(y=None):
    u = numpyro.sample("u", dist.ImproperUniform(dist.constraints.real, (), (4,)))
    numpyro.sample("y", dist.Normal(u, 0.5).to_event(1), obs=y)


def keep(x, sigma):
    return x


LATENT = infer.LatentGaussian(model, "eta", model_args=(Y,))
SURROGATE = infer.Surrogate(model, model_args=(Y,), width=4, depth=1, key=KEY)
CALL = {"model_args": (*MODEL_ARGS[:2], np.ones(3), None), "model_kwargs": MODEL_KWARGS}
NOT_DRAWS = ("a", None, 3, [], np.ones(3), object(), {}, {"u": "a"}, {"u": None}, {"u": np.array(["a"])}, {"u": RAGGED})
NOT_HYPER = ("a", None, 3, {}, np.ones(3), {"noise": "a"}, {"u": np.ones(3)}, {"noise": None})
SWITCH = {"denoiser": keep, "sigma": 0.1, "data_lipschitz": 1.0, "residual_lipschitz": 1.0}
DIFFUSION = {"model": flat, "denoiser": keep, "rng_key": KEY, "sigma_max": 3.0, "sigma_min": 0.01, "model_args": (Y,)}

WHITENING: dict[str, Case] = {
    **cases(
        ni.whiten,
        {"model": model},
        model=FUNCTIONS,
        centering=(*STRANGE, None, -0.1, 1.5, NAN, 1j, [0.5, 2.0], True, RAGGED),
    ),
    "fit_coordinates model": ("model", lambda v: ni.fit_coordinates(v, y=Y), FUNCTIONS),
    "point_estimate coordinates": ("coordinates", lambda v: infer.point_estimate(model, v, y=Y), OBJECTS),
}
EXPORT: dict[str, Case] = {
    **cases(
        infer.to_arviz,
        {"posterior": DRAWS},
        posterior=(*NOT_DRAWS, {"u": 1.0}, {"u": np.ones(3)}),
        model=given(FUNCTIONS),
        domain=("a", 3, [GRID], {"v": GRID}, {"u": "a"}, {"u": None}, {"u": Grid(3)}),
        num_chains=[n for n in given(COUNTS) if not isinstance(n, np.ndarray)],
        prior=given(v for v in NOT_DRAWS if not (isinstance(v, dict) and not v)),
        posterior_predictive=FLAGS,
        log_likelihood=FLAGS,
        keep_latent=FLAGS,
        symmetry=(*given(OBJECTS), SignFlip()),
        length_unit=NAMES,
        batch_size=COUNTS,
        key=given(KEYS),
    ),
    **{
        f"{name}, with a model": case
        for name, case in cases(
            infer.to_arviz,
            {"posterior": DRAWS, "model": model, "model_args": (Y,)},
            model_args=given(CALL["model_args"]),
            model_kwargs=MODEL_KWARGS,
        ).items()
    },
    **cases(
        infer.orbit_diagnostics,
        {"posterior": DRAWS, "symmetry": FLIP},
        posterior=(*NOT_DRAWS, {"u": 1.0}),
        symmetry=(*OBJECTS, SignFlip()),
        num_chains=given(COUNTS),
    ),
}
SURROGATES: dict[str, Case] = {
    **cases(infer.emulate, {"fn": model, "surrogate": SURROGATE}, fn=given(FUNCTIONS), surrogate=OBJECTS),
    **cases(
        infer.fit_surrogate,
        {"model": model, "draws": SOME, "rng_key": KEY, "model_args": (Y,)},
        model=FUNCTIONS,
        draws=(
            *NOT_DRAWS,
            {"u": SOME["u"]},
            SOME | {"u": np.ones((5, 3))},
            SOME | {"u": np.full((5, 4), NAN)},
            SOME | {"noise": np.ones(4)},
            {"u": np.ones((1, 4)), "noise": np.ones(1)},
        ),
        rng_key=KEYS,
        num_simulations=COUNTS,
        derivatives=COUNTS,
        rounds=(*NONNEGATIVE_NUMBERS, -1, 2.5),
        width=COUNTS,
        depth=COUNTS,
        settings=given(OBJECTS),
        progress_bar=FLAGS,
        **CALL,
    ),
}
LATENTS: dict[str, Case] = {
    **cases(
        infer.LatentGaussian,
        {"model": model, "predictor": "eta", "model_args": (Y,)},
        model=FUNCTIONS,
        predictor=(3, None, [], [3], "zeta", b"eta", np.ones(3)),
        sites=("u", 3, [3], ["v"], [], np.ones(2)),
        **CALL,
    ),
    **cases(
        LATENT.sample,
        {"key": KEY, "posterior": {"noise": np.ones(5, np.float32)}},
        key=KEYS,
        posterior=NOT_HYPER,
    ),
    **cases(LATENT.marginals, {}, posterior=NOT_HYPER),
    **cases(LATENT.log_marginal, {}, hyper=NOT_HYPER),
    **cases(LATENT.integrate_grid, {}, step=POSITIVE_NUMBERS, span=POSITIVE_NUMBERS, drop=POSITIVE_NUMBERS),
}
SAMPLERS: dict[str, Case] = {
    **cases(
        infer.OrbitMoves,
        {"kernel": NUTS(model), "symmetry": FLIP},
        kernel=(*OBJECTS, len, NUTS),
        symmetry=(*OBJECTS, [], ["a"], SignFlip()),
    ),
    **{
        name: case
        for kernel, box in ((infer.PnPULA, None), (infer.ProjectedPnPULA, (-9.0, 9.0)))
        for name, case in cases(
            kernel,
            {"model": model, "site": "u", "box": box} | SWITCH,
            model=FUNCTIONS,
            site=NAMES,
            denoiser=FUNCTIONS,
            sigma=POSITIVE_NUMBERS,
            data_lipschitz=NONNEGATIVE_NUMBERS,
            residual_lipschitz=given(POSITIVE_NUMBERS),
            strength=POSITIVE_NUMBERS,
            box=("a", 3, {}, (1.0,), (1.0, 0.0), (NAN, 1.0), ("a", 1.0), (0.0, 0.0)),
            step_size=given(POSITIVE_NUMBERS),
            init_strategy=FUNCTIONS,
        ).items()
    },
    **cases(
        infer.LangevinDenoising,
        {"denoiser": keep, "level": 0.1},
        denoiser=FUNCTIONS,
        level=POSITIVE_NUMBERS,
        num_steps=COUNTS,
        step_size=POSITIVE_NUMBERS,
    ),
    **cases(infer.ReverseDiffusion, {"denoiser": keep}, denoiser=FUNCTIONS, num_steps=COUNTS, last=POSITIVE_NUMBERS),
    **cases(
        infer.SplitGibbs,
        {"model": flat, "denoiser": infer.ReverseDiffusion(keep), "coupling": 0.5},
        model=FUNCTIONS,
        denoiser=FUNCTIONS,
        coupling=("a", None, NAN, 0.0, -1.0, 1j, [], [1.0, "a"], [1.0, -1.0], True),
        tolerance=given(POSITIVE_NUMBERS),
        max_steps=COUNTS,
    ),
    **{
        name: case
        for function, count in (
            (infer.diffusion_posterior, "num_samples"),
            (infer.dps, "num_samples"),
            (infer.twisted_smc, "num_particles"),
        )
        for name, case in cases(
            function,
            {count: 3} | DIFFUSION,
            model=FUNCTIONS,
            denoiser=FUNCTIONS,
            rng_key=KEYS,
            sigma_max=POSITIVE_NUMBERS,
            sigma_min=(*POSITIVE_NUMBERS, 9.0),
            num_steps=COUNTS,
            num_chains=COUNTS,
            **{count: COUNTS},
            **CALL,
        ).items()
    },
    **cases(infer.dps, {"num_samples": 3} | DIFFUSION, weight=POSITIVE_NUMBERS),
}
CASES = WHITENING | EXPORT | SURROGATES | LATENTS | SAMPLERS
