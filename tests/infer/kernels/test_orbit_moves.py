"""OrbitMoves against closed forms and quadrature, and what the diagnostics say of chains with and without it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, SA, DiscreteGibbs, Gibbs
from numpyro.infer.util import constrain_fn
from numpyro.infer.util import log_density as log_density_of
from scipy import stats

from models import blind_deconvolution, phase_retrieval, sign_ambiguous
from models.sign_ambiguous import NOISE
from models.sign_ambiguous import model as square
from numpyro_inverse.calibration.exact import SignSymmetric
from numpyro_inverse.infer import MALA, OrbitMoves, orbit_diagnostics
from numpyro_inverse.symmetry import CyclicShift, GlobalPhase, Reflection, Scaling, SignFlip, Symmetry

ALARM = 1e-5
CHAINS, DRAWS = 24, 600
FLIP = Symmetry(SignFlip(), "u")
Y = 1.0


def run(kernel, *args, chains=CHAINS, draws=DRAWS, warmup=200, seed=0, init_params=None, **kwargs):
    mcmc = MCMC(
        kernel, num_warmup=warmup, num_samples=draws, num_chains=chains, chain_method="vectorized", progress_bar=False
    )
    fields = ("orbit_accept_prob",) if isinstance(kernel, OrbitMoves) else ()
    mcmc.run(jax.random.key(seed), *args, init_params=init_params, extra_fields=fields, **kwargs)
    return mcmc


def assert_means(statistics, expected):
    """Means over independent chains. False-alarm rate 1e-5."""
    statistics, expected = np.asarray(statistics, float), np.asarray(expected)
    noise = statistics.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(statistics))
    error = np.abs(statistics.mean(axis=(0, 1)) - expected)
    limit = stats.t.isf(ALARM / (2 * error.size), len(statistics) - 1) * noise
    assert np.all(error <= limit), (error / noise, error, limit)


def of_square(draws):
    u = np.asarray(draws["u"], float)
    return np.stack([u, u**2, np.abs(u), u > 0], axis=-1)


@cache
def symmetric():
    return run(OrbitMoves(NUTS(square), FLIP), Y, 0.0)


def quadrature(mean):
    return sign_ambiguous.exact_moments(Y, mean=mean)


@pytest.mark.slow
def test_a_square_against_the_closed_form():
    exact = SignSymmetric(Y, NOISE)
    expected = [0, exact.absolute_moment(2), exact.absolute_moment(1), 0.5]
    np.testing.assert_allclose(quadrature(0.0), expected, atol=1e-5)
    mcmc = symmetric()
    draws = of_square(mcmc.get_samples(group_by_chain=True))
    assert_means(draws, expected)
    assert abs(draws[..., 3].mean() - 0.5) < 0.02
    np.testing.assert_allclose(mcmc.get_extra_fields()["orbit_accept_prob"], 1, atol=1e-3)


@pytest.mark.slow
def test_a_prior_that_is_not_symmetric_is_obeyed():
    mcmc = run(OrbitMoves(MALA(square), FLIP), Y, 0.4)
    draws = of_square(mcmc.get_samples(group_by_chain=True))
    assert_means(draws, quadrature(0.4))
    assert mcmc.get_extra_fields()["orbit_accept_prob"].mean() < 0.85
    assert abs(quadrature(0.4)[3] - 0.5) > 0.1
    last = mcmc.last_state  # half of the chains have just been moved
    fresh = mcmc.sampler.refresh(last, (Y, 0.4), {})
    np.testing.assert_allclose(last.potential_energy, fresh.potential_energy, rtol=1e-5)
    np.testing.assert_allclose(last.grad, fresh.grad, rtol=1e-3, atol=1e-3)
    with pytest.raises(AssertionError):  # without the Metropolis ratio: the test has power
        assert_means(of_square(symmetric().get_samples(group_by_chain=True)), quadrature(0.4))


@pytest.mark.statistical
def test_plain_nuts_does_not_mix_and_the_diagnostics_say_so():
    first = {"u": jnp.tile(jnp.array([1.0, -1.0]), CHAINS // 2)}
    stuck = orbit_diagnostics(run(NUTS(square), Y, 0.0, init_params=first), FLIP)
    assert stuck.mixed_within
    assert not stuck.mixed_among_copies
    assert stuck.switches == 0
    assert stuck.rhat["copy"] == np.inf
    assert stuck.rhat["raw"] > 1.5
    assert set(np.ravel(stuck.weights_by_chain)) == {0, 1}
    assert "do NOT go from copy to copy" in stuck.verdict()
    free = orbit_diagnostics(symmetric(), FLIP)
    assert free.mixed_within
    assert free.mixed_among_copies
    assert abs(free.switches - 0.5) < 0.02
    np.testing.assert_allclose(free.weights, 0.5, atol=0.02)
    assert "They go freely from copy to copy" in free.verdict()
    assert set(free.table.index) == {"invariants", "canonical", "copy", "raw"}


# Real phase retrieval in the plane: |a_i^T u|.

DIRECTIONS = np.array([[1.0, 0.3], [0.2, 1.0], [0.8, -0.7]], np.float32)
AMPLITUDES = np.abs(DIRECTIONS @ np.array([1.0, 0.5], np.float32))
PLANE = {
    "forward": phase_retrieval.gaussian(DIRECTIONS),
    "prior": dist.Normal().expand([2]).to_event(1),
    "noise": 0.15,
}


@pytest.mark.statistical
def test_phase_retrieval_against_quadrature():
    expected = phase_retrieval.exact_outer_product(AMPLITUDES, DIRECTIONS, noise=0.15)
    flip = Symmetry(SignFlip(), "image")
    draws = run(OrbitMoves(NUTS(phase_retrieval.model), flip), AMPLITUDES, **PLANE).get_samples(group_by_chain=True)
    u = np.asarray(draws["image"], float)
    found = np.stack([u[..., 0] ** 2, u[..., 0] * u[..., 1], u[..., 1] ** 2, u[..., 0], u[..., 0] > 0], axis=-1)
    assert_means(found, [expected[0, 0], expected[0, 1], expected[1, 1], 0, 0.5])
    assert abs(found[..., 4].mean() - 0.5) < 0.02


# A complex signal of two entries.

ROWS = np.array([[1.0, 0.3j], [0.2, 1.0], [0.8, -0.7], [0.5j, 0.6]], np.complex64)


@pytest.mark.statistical
def test_complex_phase_retrieval_against_quadrature():
    data = np.abs(ROWS @ np.array([1.0, 0.5 - 0.5j], np.complex64))
    expected = phase_retrieval.exact_outer_product(data, ROWS, noise=0.15)
    turn = Symmetry(GlobalPhase(axis=0), "wave")
    problem = {"forward": phase_retrieval.gaussian(ROWS), "prior": dist.Normal().expand([2]).to_event(1)}
    kernel = OrbitMoves(NUTS(phase_retrieval.complex_model), turn)
    draws = run(kernel, data, noise=0.15, **problem).get_samples(group_by_chain=True)
    wave = np.asarray(draws["wave"], float)
    u = wave[..., 0, :] + 1j * wave[..., 1, :]
    product = u[..., 0] * u[..., 1].conj()
    found = np.stack(
        [
            abs(u[..., 0]) ** 2,
            abs(u[..., 1]) ** 2,
            product.real,
            product.imag,
            *np.moveaxis(wave, (2, 3), (0, 1)).reshape(4, *wave.shape[:2]),
        ],
        axis=-1,
    )
    assert_means(found, [*expected.diagonal().real, expected[0, 1].real, expected[0, 1].imag, 0, 0, 0, 0])


# Blind deconvolution, y = k * u with circular convolution: a shift of the kernel against one of the image.

SIZE, PLACES = blind_deconvolution.SIZE, blind_deconvolution.PLACES
SHIFT = Symmetry(CyclicShift((SIZE,)), {"image": 1, "kernel": -1})


@pytest.mark.statistical
def test_the_shifts_of_a_blind_deconvolution_have_the_weights_of_their_priors():
    data = np.array([1.0, -0.5, 0.3, -0.8], np.float32)
    first = {
        "image": jnp.tile(jnp.asarray(data), (CHAINS, 1)),
        "kernel": jnp.tile(jnp.asarray(blind_deconvolution.PEAK), (CHAINS, 1)),
    }
    draws = run(OrbitMoves(NUTS(blind_deconvolution.model), SHIFT), data, init_params=first).get_samples(
        group_by_chain=True
    )
    peak = blind_deconvolution.place(draws["kernel"])
    # The likelihood and the image's prior are invariant: the copies' weights are those of the kernel's prior.
    assert_means(peak[..., None] == np.arange(SIZE), PLACES)
    with pytest.raises(AssertionError):
        assert_means(peak[..., None] == np.arange(SIZE), [0.5, 0.3, 0.15, 0.05])


# A scaling, whose moves change volume; constrained sites.


def scales(data=None):
    a = numpyro.sample("a", dist.LogNormal(0.3, 0.8))
    b = numpyro.sample("b", dist.LogNormal(0.0, 0.5).expand([2]).to_event(1))
    numpyro.sample("data", dist.Normal(a * jnp.sum(jnp.log(b)), 1e3), obs=data)  # says nothing


@pytest.mark.slow
def test_moves_that_change_volume_and_constrained_sites():
    """(a, b) -> (c a, b / c) has log determinant -log c; the prior is the answer."""
    symmetry = [Symmetry(Scaling(0.7), {"a": 1, "b": -1}), Symmetry(Scaling(0.7), "a")]
    draws = run(OrbitMoves(MALA(scales), symmetry), 0.0, draws=1500).get_samples(group_by_chain=True)
    log_a, log_b = np.log(np.asarray(draws["a"], float)), np.log(np.asarray(draws["b"], float))
    found = np.stack([log_a, (log_a - 0.3) ** 2, log_b[..., 0], log_b[..., 1] ** 2, log_a * log_b[..., 0]], axis=-1)
    assert_means(found, [0.3, 0.64, 0, 0.25, 0])


def dependent(data=None):
    """The support of s moves with u."""
    u = numpyro.sample("u", dist.Normal(0.3, 1.0))
    s = numpyro.sample("s", dist.Uniform(0.4 * u - 1.0, 0.4 * u + 1.0))
    numpyro.sample("data", dist.Normal(u**2 + s, 0.5), obs=data)


def test_a_support_that_depends_on_what_is_moved():
    """The proposed point has the values that are judged: s stays where it is, and does not follow its support."""
    moves, z = OrbitMoves(MALA(dependent), FLIP), {"u": jnp.asarray(0.6), "s": jnp.asarray(-0.2)}
    values, _ = moves._start(z, (Y,), {})
    proposal = {"u": -values["u"], "s": values["s"]}
    there, log_density = moves._there(z, proposal, FLIP, (Y,), {})
    found = constrain_fn(dependent, (Y,), {}, there)
    np.testing.assert_allclose(found["u"], proposal["u"], rtol=1e-5)
    np.testing.assert_allclose(found["s"], proposal["s"], rtol=1e-5)
    np.testing.assert_allclose(log_density, log_density_of(dependent, (Y,), {}, proposal)[0], rtol=1e-5)


@pytest.mark.slow
def test_values_outside_of_a_support_are_rejected():
    def positive(data=None):
        u = numpyro.sample("u", dist.HalfNormal(1.0))
        numpyro.sample("data", dist.Normal(u**2, 0.5), obs=data)

    mcmc = run(OrbitMoves(MALA(positive), FLIP), Y, chains=2, draws=50, warmup=20)
    assert np.all(mcmc.get_samples()["u"] > 0)
    accept = np.asarray(mcmc.get_extra_fields()["orbit_accept_prob"])
    assert np.all((accept == 0) | (accept == 1))
    assert 0.2 < accept.mean() < 0.8  # the identity is accepted


@pytest.mark.statistical
def test_a_potential_instead_of_a_model():
    def potential(z):
        return (z["u"] ** 2 - Y) ** 2 / (2 * NOISE**2) + z["u"] ** 2 / 2

    kernel = OrbitMoves(NUTS(potential_fn=potential), FLIP)
    mcmc = run(kernel, init_params={"u": jnp.ones(CHAINS)}, draws=200)
    assert_means(of_square(mcmc.get_samples(group_by_chain=True)), quadrature(0.0))


# Bad input.


def test_bad_input():
    with pytest.raises(TypeError, match="`kernel` must be an MCMC kernel"):
        OrbitMoves(square, FLIP)
    with pytest.raises(TypeError, match="`symmetry` must be a Symmetry"):
        OrbitMoves(NUTS(square), [SignFlip()])
    with pytest.raises(ValueError, match="`symmetry` is empty"):
        OrbitMoves(NUTS(square), [])
    with pytest.raises(ValueError, match="SA does not implement `refresh`"):
        OrbitMoves(SA(square), FLIP)
    with pytest.raises(ValueError, match="`kernel` is Gibbs, whose state is not one point"):
        OrbitMoves(Gibbs([(DiscreteGibbs(square), ["u"])]), FLIP)

    def start(symmetry, model=square):
        OrbitMoves(MALA(model), symmetry).init(jax.random.key(0), 1, None, (Y,), {})

    with pytest.raises(ValueError, match="moves site 'v', which the model does not have; its latent sites are 'u'"):
        start(Symmetry(SignFlip(), "v"))
    with pytest.raises(ValueError, match="moves site 'data', which has data"):
        start(Symmetry(SignFlip(), "data"))
    with pytest.raises(ValueError, match="trailing axes of `x` must be"):
        start(Symmetry(CyclicShift((3,)), "u"))

    def vector(data=None):
        numpyro.deterministic("twice", 2 * numpyro.sample("u", dist.Normal().expand([3]).to_event(1)))

    with pytest.raises(ValueError, match="OrbitMoves: Product is no group action"):
        start(Symmetry(CyclicShift((3,)) * Reflection(), "u"), vector)
    with pytest.raises(ValueError, match="moves site 'twice', which is computed from others"):
        start(Symmetry(SignFlip(), "twice"), vector)
