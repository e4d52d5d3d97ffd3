"""The audit of linear denoisers, whose Jacobians are known; and what it recommends or refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.denoisers import Certificate, audit_denoiser
from numpyro_inverse.denoisers._audit import _ratio
from numpyro_inverse.denoisers._with_gradient import with_gradient

SIZE = 12
Z = 5.0  # standard errors: a false alarm in 10^5 with the heavier tails of an estimated error, 64 probes
GAMMA = 0.25


class Linear(eqx.Module):
    """D = W x + c; the same compiled audit for all."""

    matrix: jax.Array
    shift: jax.Array

    def __call__(self, x, sigma):
        return self.matrix @ x + self.shift


class WithPotential(Linear):
    """x - D as the gradient of a quadratic; true if W is symmetric."""

    def potential(self, x, sigma):
        return (0.5 * x @ x - 0.5 * x @ self.matrix @ x - self.shift @ x) / sigma**2


class SetByHand(WithPotential):
    """Twice the potential, whose gradient is said to be the field."""

    def potential(self, x, sigma):
        def value(parts, x):
            return 2 * super(SetByHand, self).potential(x, sigma)

        return with_gradient(value, lambda parts, x: (x - self(x, sigma)) / sigma**2, (), x)


class Certified(Linear):
    claim: float = 1.0

    def certificates(self, sigma):
        return {name: Certificate(self.claim, "so they say", True) for name in ("lipschitz", "residual", "firm")}


def matrix(low, high, twist=0.0, seed=0):
    """Symmetric with eigenvalues between the two, and a skew-symmetric part."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    skew = rng.normal(size=(SIZE, SIZE))
    return jnp.asarray(basis * np.linspace(low, high, SIZE) @ basis.T + twist * (skew - skew.T), jnp.float32)


def audit(kind, matrix, shift=0.0, **fields):
    denoiser = kind(matrix, jnp.full(SIZE, shift), **fields)
    x = jnp.linspace(-1, 1, SIZE)
    return audit_denoiser(denoiser, x, 0.5, rng_key=jax.random.key(1), num_probes=64, num_iterations=SIZE, gamma=GAMMA)


@pytest.fixture(scope="module")
def reports():
    return {
        "firm": audit(Linear, matrix(0.1, 0.9)),
        "reflecting": audit(Linear, matrix(-1.0, 1.0), 0.3),
        "wild": audit(Linear, matrix(-0.5, 2.0, 0.1)),
        "cocoercive": audit(Linear, matrix(0.0, 3.0)),
        "potential": audit(WithPotential, matrix(-0.5, 2.0)),
        "false potential": audit(WithPotential, matrix(-0.5, 2.0, 0.1)),
        "certified": audit(Certified, matrix(0.2, 0.8, 0.01)),
    }


MATRICES = {
    "firm": (matrix(0.1, 0.9), 0.0),
    "reflecting": (matrix(-1.0, 1.0), 0.3),
    "wild": (matrix(-0.5, 2.0, 0.1), 0.0),
}


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_the_numbers_of_linear_denoisers(reports, name):
    found, (m, shift) = reports[name], MATRICES[name]
    m, one = np.asarray(m, float), np.eye(SIZE)
    truth = {"lipschitz": m, "residual": one - m, "firm": 2 * m - one, "cocoercive": 2 * GAMMA * m - one}
    for quantity, value in truth.items():
        measured = getattr(found, quantity)
        assert measured.value == pytest.approx(np.linalg.norm(value, 2), rel=1e-4), quantity
        assert measured.kind == "estimate"
    asymmetry = np.linalg.norm(m - m.T) / np.linalg.norm(m)
    assert abs(found.asymmetry.value - asymmetry) < Z * found.asymmetry.error + 1e-6
    assert found.asymmetry.error < 0.1
    x = np.linspace(-1, 1, SIZE)
    there = np.linalg.norm(np.full(SIZE, shift)) / np.linalg.norm(m @ x + shift)
    assert found.homogeneity.value == pytest.approx(there, abs=1e-5)
    assert found.potential is None


def test_the_error_of_the_asymmetry():
    """The stated error is the spread of the estimate: 400 repetitions know it to 3.5 %, and 5 of these are 18 %."""
    m = matrix(-0.5, 2.0, 0.1)
    probes = jax.random.normal(jax.random.key(2), (400, 64, SIZE))
    odd, whole = jnp.sum((probes @ (m - m.T)) ** 2, -1), jnp.sum((probes @ m.T) ** 2, -1)
    value, error = jax.jit(jax.vmap(_ratio))(odd, whole)
    assert float(jnp.sqrt(jnp.mean(error**2))) == pytest.approx(float(jnp.std(value)), rel=0.18)


def test_several_points_and_the_worst_of_them():
    points = [jnp.full(3, level) for level in (0.0, 1.0, 0.5)]
    found = audit_denoiser(lambda x, sigma: x**2, points, 0.1, rng_key=jax.random.key(0), num_iterations=3)
    assert found.lipschitz.value == pytest.approx(2, rel=1e-5)
    assert found.residual.value == pytest.approx(1, rel=1e-5)


def test_recommendations(reports):
    """Which solvers and samplers are left; the strings of the report."""

    def solvers(name):
        return " | ".join(reports[name].recommendation.solvers)

    def samplers(name):
        return " | ".join(reports[name].recommendation.samplers)

    assert "Douglas-Rachford" in solvers("firm")
    assert "strongly convex" in solvers("firm")
    assert "line integral" in samplers("firm")
    assert "Krasnosel'skii-Mann" in solvers("reflecting")
    assert "Douglas-Rachford" not in solvers("reflecting")
    assert solvers("wild") == ""
    assert samplers("wild") == "ULA, SK-ROCK, PnP-ULA"
    assert "none: no theorem applies" in str(reports["wild"])
    assert "is asymmetric" in str(reports["wild"])
    assert "steps below 1.25 / L" in solvers("cocoercive")
    assert "NUTS, HMC and MALA with the potential" in samplers("potential")
    assert "gradient-step" in solvers("potential")
    assert "NUTS" not in samplers("false potential")
    assert "the declared potential is of another field" in str(reports["false potential"])
    assert "certified, 1" in str(reports["certified"])
    assert "NUTS" not in samplers("certified")


def test_a_gradient_set_by_hand_does_not_make_a_potential_true(reports):
    """Values are compared with the work of the field: to rounding if true; twice the potential is wrong by one."""
    assert reports["potential"].potential.value < 1e-4
    twice = audit(SetByHand, matrix(-0.5, 2.0))
    assert twice.potential.value == pytest.approx(1, abs=1e-4)
    assert "NUTS, HMC and MALA with the potential" not in str(twice)


def test_certificates_count_and_are_checked(reports):
    found = reports["certified"]
    assert (found.firm.value, found.firm.error, found.firm.kind) == (1.0, 0.0, "certificate")
    assert found.firm.estimate == pytest.approx(np.linalg.norm(2 * matrix(0.2, 0.8, 0.01) - np.eye(SIZE), 2), rel=1e-4)
    assert found.cocoercive.kind == "estimate"
    with pytest.raises(ValueError, match=r"certificate `lipschitz` is false: it claims at most 0\.7, and 0\.8"):
        audit(Certified, matrix(0.2, 0.8), claim=0.7)


def test_it_reads_well(reports):
    lines = str(reports["firm"]).splitlines()
    assert lines[0] == "Denoiser at noise level 0.5; J is its Jacobian"
    assert lines[2].split() == ["|J|", "0.9", "+-", lines[2].split()[3], "estimate"]
    assert any(line.startswith("Solvers:  PnP proximal gradient, ADMM") for line in lines)
    assert "certificate (found" in str(reports["certified"])


def test_bad_input(key):
    x = jnp.ones(3)

    def shrink(x, sigma):
        return x / (1 + sigma**2)

    def audit_with(x=x, sigma=0.1, denoiser=shrink, key=key, **options):
        return audit_denoiser(denoiser, x, sigma, rng_key=key, **options)

    for wrong, error, message in (
        ({"denoiser": 3}, TypeError, "`denoiser` must be a denoiser"),
        ({"sigma": 0.0}, ValueError, "`sigma` must be positive"),
        ({"sigma": "loud"}, TypeError, "`sigma` must be a positive number"),
        ({"gamma": -1.0}, ValueError, "`gamma` must be positive"),
        ({"num_probes": 1}, ValueError, "`num_probes` must be an integer of 2 or more"),
        ({"num_iterations": 0}, ValueError, "`num_iterations` must be a positive integer"),
        ({"key": 0}, TypeError, "`rng_key` must be a random key"),
        ({"x": [x, jnp.ones(2)]}, ValueError, r"the arrays of `x` must have one shape; got \[\(2,\), \(3,\)\]"),
        ({"x": []}, ValueError, "got an empty list"),
        ({"x": x * jnp.nan}, ValueError, "`x` must be finite"),
        ({"denoiser": lambda x, sigma: x[:2]}, ValueError, "must return an array of the shape of `x`"),
        ({"denoiser": lambda x, sigma: x * jnp.nan}, ValueError, "of what the denoiser returns` must be finite"),
    ):
        with pytest.raises(error, match=message):
            audit_with(**wrong)
    with pytest.raises(TypeError, match="must be known outside `jit`"):
        jax.jit(lambda x: audit_with(x=x).lipschitz.value)(x)
