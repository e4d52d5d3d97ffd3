"""Simulation-based calibration of a posterior with two copies: y = u^2 + noise."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse.calibration import functionals, sbc
from numpyro_inverse.infer import MALA, OrbitMoves
from numpyro_inverse.symmetry import SignFlip, Symmetry

NOISE, NUM_DRAWS, NUM_DATASETS = 0.3, 49, 200
FLIP = Symmetry(SignFlip(), "u")
SIZES = jnp.linspace(0, 5, 2001)


def model(data=None):
    u = numpyro.sample("u", dist.Normal())
    numpyro.sample("data", dist.Normal(u**2, NOISE), obs=data)


def sizes(key, data):
    """Exact draws of |u|, by inversion on a grid."""
    density = jnp.exp(-((data - SIZES**2) ** 2) / (2 * NOISE**2) - SIZES**2 / 2)
    table = jnp.cumsum((density[1:] + density[:-1]) / 2)
    return jnp.interp(jax.random.uniform(key, (NUM_DRAWS,)), jnp.concatenate([jnp.zeros(1), table]) / table[-1], SIZES)


def stuck(key, data):
    """A sampler that never leaves the positive copy, but has |u| right."""
    return {"u": sizes(key, data)}


def free(key, data):
    one, other = jax.random.split(key)
    return {"u": sizes(one, data) * jax.random.rademacher(other, (NUM_DRAWS,), float)}


def too_narrow(key, data):
    """Stuck, and wrong within the copy."""
    size = sizes(key, data)
    return {"u": jnp.mean(size) + 0.5 * (size - jnp.mean(size))}


QUANTITIES = {
    "u invariants": functionals.invariants(FLIP, "u"),
    "u canonical": functionals.canonical(FLIP, "u"),
}


def p_values(inference, **options):
    study = sbc(
        model,
        inference,
        rng_key=jax.random.key(0),
        num_datasets=NUM_DATASETS,
        num_draws=NUM_DRAWS,
        quantities=QUANTITIES,
        log_likelihood=False,
        progress_bar=False,
        **options,
    )
    return study.p_values


@pytest.mark.slow
def test_raw_coordinates_fail_for_a_stuck_sampler_and_invariants_pass():
    found = p_values(stuck)
    assert found["u"] < 1e-10
    assert found["u invariants"] > 1e-5
    assert found["u canonical"] > 1e-5


@pytest.mark.slow
def test_a_correct_sampler_passes_everywhere():
    assert min(p_values(free).values()) > 1e-5 / 3


@pytest.mark.statistical
def test_invariants_see_what_is_wrong_within_a_copy():
    found = p_values(too_narrow, sites=())
    assert found["u invariants"] < 1e-6
    assert found["u canonical"] < 1e-6


@pytest.mark.statistical
def test_orbit_moves_are_calibrated_in_all_coordinates():
    assert min(p_values(OrbitMoves(MALA(model), FLIP), num_warmup=300, num_samples=2000).values()) > 1e-5 / 3


def test_bad_input():
    with pytest.raises(ValueError, match="`site` must be one that the symmetry moves, 'u'; give the site itself"):
        functionals.invariants(FLIP, "v")
    with pytest.raises(TypeError, match="`symmetry` must be a Symmetry"):
        functionals.canonical(SignFlip(), "u")
    np.testing.assert_allclose(functionals.invariants(FLIP, "u")({"u": jnp.array(-2.0)}, {}), [4.0])
