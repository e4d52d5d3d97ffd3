"""Bad input to the checks of learned priors: every error is ours and names the argument."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_inverse import calibration
from numpyro_inverse.distributions import Pushforward
from numpyro_inverse.domains import Grid
from tests.bad_input.corpus import (
    COUNTS,
    FRACTIONS,
    FUNCTIONS,
    KEYS,
    NAN,
    OBJECTS,
    POSITIVE_NUMBERS,
    RAGGED,
    REAL,
    cases,
    given,
)

KEY = jax.random.key(0)
BASE = dist.Normal().expand([4]).to_event(1)
PRIOR = Pushforward(jnp.tanh, BASE)
LAPLACE = Pushforward(jnp.tanh, dist.Laplace().expand([4]).to_event(1))
WIDE = Pushforward(jnp.tanh, dist.Cauchy().expand([4]).to_event(1))
Z = np.random.default_rng(0).normal(size=(30, 4))
EVENTS = (*REAL, 1.0, Z[:, :3], np.full((30, 4), NAN))
LATENTS = (*EVENTS, {"u": Z}, {3: Z}, {"u_latent": "a"}, {"u_latent": None}, {"u_latent": Z, "v_latent": Z}, Z[:0])
SITES = (3, b"u", ["u"], object())
PRIORS = (*OBJECTS, Pushforward)


def law(grid):
    return dist.Normal().expand(grid.shape).to_event(1)


CASES = {
    **cases(
        calibration.effective_dimension,
        {"prior": PRIOR, "latent_draws": Z},
        prior=(*PRIORS, BASE, WIDE),
        latent_draws=LATENTS,
        noise=given(POSITIVE_NUMBERS),
        site=SITES,
        batch_size=COUNTS,
    ),
    "effective_dimension site of draws": (
        "latent_draws",
        lambda site: calibration.effective_dimension(PRIOR, {"u_latent": Z}, site=site),
        ("v",),
    ),
    **cases(
        calibration.latent_shift,
        {"prior": LAPLACE, "draws": Z, "rng_key": KEY},
        prior=(*PRIORS, BASE),
        draws=LATENTS,
        site=SITES,
        rng_key=KEYS,
        num_simulations=(*COUNTS, 98),
    ),
    "latent_shift rng_key, not needed": (
        "rng_key",
        lambda v: calibration.latent_shift(PRIOR, Z, rng_key=v),
        given(KEYS),
    ),
    **cases(calibration.latent_shift(PRIOR, Z).verdict, {}, level=FRACTIONS),
    **cases(
        calibration.manifold_distance,
        {"prior": PRIOR, "u": Z, "held_out": Z, "rng_key": KEY, "num_steps": 3},
        prior=(*PRIORS, BASE, Pushforward(jnp.tanh, BASE, residual=BASE)),
        u=EVENTS,
        held_out=(*EVENTS, Z[:9]),
        rng_key=KEYS,
        num_starts=COUNTS,
        num_steps=COUNTS,
        batch_size=COUNTS,
    ),
    **cases(
        calibration.ManifoldDistance(np.ones(1), np.ones(10), np.ones(1), Z[:1], Z[:1], np.ones(1)).verdict,
        {},
        level=FRACTIONS,
    ),
    **cases(
        calibration.prior_predictive_check,
        {"prior": BASE, "held_out": Z, "rng_key": KEY, "num_draws": 10, "num_permutations": 19},
        prior=(*PRIORS, dist.Normal().expand([4])),
        held_out=(*EVENTS, Z[:9]),
        rng_key=KEYS,
        num_draws=(*COUNTS, 9),
        features=(
            *given(FUNCTIONS),
            lambda u: "a",
            lambda u: None,
            lambda u: {},
            lambda u: (u, u),
            lambda u: 1j * u,
            lambda u: jnp.nan * u,
        ),
        training=given(EVENTS),
        bin_width=POSITIVE_NUMBERS,
        num_permutations=(*COUNTS, 18),
    ),
    **cases(
        calibration.PriorPredictiveCheck("x", 1.0, np.ones(3), 0.5).verdict,
        {},
        level=FRACTIONS,
    ),
    **cases(
        calibration.check_projective_consistency,
        {"prior": law, "coarse": Grid(4), "fine": Grid(8), "rng_key": KEY},
        prior=(*FUNCTIONS, lambda grid: 3, lambda grid: None, lambda grid: dist.Normal(jnp.zeros(grid.shape))),
        coarse=(*OBJECTS, Grid),
        fine=(*OBJECTS, Grid, Grid(6)),
        rng_key=KEYS,
        projection=(
            *FUNCTIONS,
            lambda coarse, fine: 3,
            lambda coarse, fine: lambda u: "a",
            lambda coarse, fine: lambda u: None,
            lambda coarse, fine: lambda u: u,
        ),
        num_draws=(*COUNTS, 9),
        tolerance=given(POSITIVE_NUMBERS),
        level=FRACTIONS,
    ),
    "check_projective_consistency finer": (
        "finer",
        lambda v: calibration.check_projective_consistency(law, Grid(4), Grid(8), v, rng_key=KEY),
        OBJECTS,
    ),
    "latent_shift draws by site": (
        "draws",
        lambda v: calibration.latent_shift(PRIOR, {"u_latent": v}),
        (RAGGED, 3.0),
    ),
}
