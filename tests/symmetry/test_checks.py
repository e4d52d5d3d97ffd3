"""Invariance of models and equivariance of functions, measured and attributed."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse.symmetry import (
    CyclicShift,
    GlobalPhase,
    Reflection,
    Scaling,
    SignFlip,
    Symmetry,
    canonicalize,
    check_equivariance,
    check_invariance,
    symmetrize,
)

SIZE = 6
KERNEL = np.array([0.6, 0.25, 0.0, 0.0, 0.0, 0.15], np.float32)
SHIFT = CyclicShift((SIZE,))
COVARIANCE = np.array([[np.exp(-min(abs(i - j), SIZE - abs(i - j)) / 2.0) for j in range(SIZE)] for i in range(SIZE)])
NOISE = 0.3


def convolve(kernel, image):
    return jnp.fft.irfft(jnp.fft.rfft(kernel) * jnp.fft.rfft(image), SIZE)


def deconvolution(data=None):
    """A known kernel, a stationary prior."""
    image = numpyro.sample("image", dist.Normal(0, 1).expand([SIZE]).to_event(1))
    numpyro.sample("data", dist.Normal(convolve(KERNEL, image), NOISE).to_event(1), obs=data)


def blind(data=None, kernel_scale=1.0):
    """An unknown kernel; with a scale that depends on the place its prior breaks the symmetry."""
    image = numpyro.sample("image", dist.Normal(0, 1).expand([SIZE]).to_event(1))
    kernel = numpyro.sample("kernel", dist.Normal(0, kernel_scale * jnp.ones(SIZE)).to_event(1))
    numpyro.sample("data", dist.Normal(convolve(kernel, image), NOISE).to_event(1), obs=data)


@pytest.mark.slow
def test_blind_deconvolution_is_invariant_under_opposite_shifts():
    opposite = Symmetry(SHIFT, {"image": 1, "kernel": -1})
    found = check_invariance(blind, opposite)
    assert found.holds
    assert found.violation < 1e-8
    assert found.broken_by == ()
    assert "invariant: the log density" in str(found)
    found.require("here")
    # The same shift of both leaves the priors alone, not the likelihood.
    assert check_invariance(blind, Symmetry(SHIFT, ["image", "kernel"])).broken_by == ("data",)


@pytest.mark.statistical
def test_invariance_given_data():
    opposite = Symmetry(SHIFT, {"image": 1, "kernel": -1})
    assert check_invariance(blind, opposite, model_kwargs={"data": np.ones(SIZE, np.float32)}).holds


def test_the_prior_that_breaks_it_is_named():
    scales = 1 + 0.5 * np.arange(SIZE)
    found = check_invariance(blind, Symmetry(SHIFT, {"image": 1, "kernel": -1}), model_kwargs={"kernel_scale": scales})
    assert not found.holds
    assert found.broken_by == ("kernel",)
    assert found.by_site["image"] < 1e-8
    assert found.by_site["data"] < 1e-8
    with pytest.raises(ValueError, match=r"here: the model is not invariant: .*'kernel' by"):
        found.require("here")


@pytest.mark.slow
def test_a_scaling_breaks_both_priors_and_not_the_likelihood():
    found = check_invariance(blind, Symmetry(Scaling(), {"image": 1, "kernel": -1}))
    assert set(found.broken_by) == {"image", "kernel"}
    assert found.by_site["data"] < 1e-6
    assert found.log_abs_det < 1e-12  # as many entries grow as shrink

    def scale_free():
        numpyro.sample("c", dist.ImproperUniform(dist.constraints.positive, (), ()))
        numpyro.factor(
            "jeffreys", -jnp.log(numpyro.sample("d", dist.ImproperUniform(dist.constraints.positive, (), ())))
        )

    points = {"c": jnp.array([1.0, 2.0]), "d": jnp.array([0.5, 3.0])}
    assert check_invariance(scale_free, Symmetry(Scaling(), "d"), values=points).holds  # d(log d)
    flat = check_invariance(scale_free, Symmetry(Scaling(), "c"), values=points)
    assert not flat.holds
    assert flat.violation == pytest.approx(flat.log_abs_det)


@pytest.mark.slow
def test_a_known_kernel_is_equivariant_and_not_invariant():
    invariance = check_invariance(deconvolution, Symmetry(SHIFT, "image"))
    assert invariance.broken_by == ("data",)
    equivariance = check_invariance(deconvolution, Symmetry(SHIFT, ["image", "data"]))
    assert equivariance.violation < 1e-5


def posterior(data):
    """Mean and covariance in closed form."""
    forward = jnp.stack([jnp.roll(jnp.asarray(KERNEL), j) for j in range(SIZE)], axis=1)
    gain = COVARIANCE @ forward.T @ jnp.linalg.inv(forward @ COVARIANCE @ forward.T + NOISE**2 * jnp.eye(SIZE))
    return {"mean": gain @ data["data"], "covariance": COVARIANCE - gain @ forward @ COVARIANCE}


def test_the_posterior_of_a_known_kernel_is_equivariant_to_1e_5(key):
    data = jax.random.normal(key, (SIZE,))
    found = check_equivariance(lambda y: posterior({"data": y})["mean"], SHIFT, SHIFT, data)
    assert found.holds
    assert found.violation < 1e-5
    assert "equivariant" in str(found)
    # Covariance: shifted on both axes, which is the same for all shifts.
    covariance = check_equivariance(lambda y: posterior({"data": y})["covariance"], SHIFT, None, data)
    assert covariance.violation < 1e-5
    rolled = posterior({"data": data})["covariance"]
    np.testing.assert_allclose(jnp.roll(rolled, (2, 2), (0, 1)), rolled, atol=1e-5)
    # What is equivariant is not invariant, and a mirror image is no symmetry of this kernel.
    assert check_equivariance(lambda y: posterior({"data": y})["mean"], SHIFT, None, data).violation > 0.1
    mirrored = check_equivariance(lambda y: posterior({"data": y})["mean"], Reflection(), Reflection(), data)
    assert not mirrored.holds
    assert "not equivariant" in str(mirrored)
    by_sites = Symmetry(SHIFT, "data"), Symmetry(SHIFT, "mean")
    assert check_equivariance(posterior, *by_sites, {"data": data}).holds


# Draws.


@pytest.mark.slow
def test_symmetrized_draws_have_every_element_and_the_same_canonical_form(key):
    symmetry = Symmetry(SHIFT * SignFlip(), {"image": 1, "kernel": -1})
    rng = np.random.default_rng(0)
    draws = {name: rng.normal(size=(3, 40, SIZE)).astype(np.float32) for name in ("image", "kernel", "other")}
    moved = symmetrize(draws, symmetry, rng_key=key, batch_ndims=2)
    assert np.mean(np.any(moved["image"] != draws["image"], axis=-1)) > 0.8
    np.testing.assert_array_equal(moved["other"], draws["other"])
    np.testing.assert_allclose(
        convolve(moved["kernel"], moved["image"]), convolve(draws["kernel"], draws["image"]), atol=1e-5
    )
    one, other = (canonicalize(d, symmetry, batch_ndims=2) for d in (draws, moved))
    np.testing.assert_allclose(one["kernel"], other["kernel"], atol=1e-6)
    reference = {name: draws[name][0, 0] for name in draws}
    near = canonicalize(moved, symmetry, reference, batch_ndims=2)
    np.testing.assert_allclose(near["image"][0, 0], reference["image"], atol=1e-6)


def flipped(data=None, mean=0.0):
    u = numpyro.sample("u", dist.Normal(mean, 1.0))
    numpyro.sample("data", dist.Normal(u**2, 0.3), obs=data)


def test_symmetrizing_what_is_not_symmetric_is_refused(key):
    draws, flip = {"u": jnp.linspace(0.5, 1.5, 50)}, Symmetry(SignFlip(), "u")
    moved = symmetrize(draws, flip, rng_key=key, model=flipped, model_kwargs={"data": 1.0})
    np.testing.assert_allclose(jnp.abs(moved["u"]), draws["u"])
    with pytest.raises(ValueError, match=r"symmetrize: the model is not invariant: .*'u' by .*OrbitMoves"):
        symmetrize(draws, flip, rng_key=key, model=flipped, model_kwargs={"data": 1.0, "mean": 0.2})
    with pytest.raises(ValueError, match="not compact"):
        symmetrize(draws, Symmetry(Scaling(), "u"), rng_key=key)
    with pytest.raises(ValueError, match="moves site 'v', which is not there"):
        canonicalize(draws, Symmetry(SignFlip(), "v"))


# Bad input.


def test_bad_input():
    flip = Symmetry(SignFlip(), "u")
    with pytest.raises(TypeError, match="`model` must be a NumPyro model"):
        check_invariance(3, flip)
    with pytest.raises(TypeError, match="`symmetry` must be a Symmetry"):
        check_invariance(flipped, SignFlip())
    with pytest.raises(
        ValueError, match="moves site 'v', which the model does not have; its latent sites are 'u', 'data'"
    ):
        check_invariance(flipped, Symmetry(SignFlip(), "v"))
    with pytest.raises(ValueError, match="moves site 'data', which has data; call the model without them"):
        check_invariance(flipped, Symmetry(SignFlip(), ["u", "data"]), model_kwargs={"data": 1.0})
    with pytest.raises(ValueError, match="`num_points` must be a positive integer"):
        check_invariance(flipped, flip, num_points=0)
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        check_invariance(flipped, flip, tolerance=0.0)

    def improper():
        numpyro.sample("u", dist.ImproperUniform(dist.constraints.real, (), ()))

    with pytest.raises(ValueError, match=r"cannot be drawn from .* give points as `values`"):
        check_invariance(improper, flip)
    with pytest.raises(TypeError, match="`group_out` must be a group, or None"):
        check_equivariance(jnp.sin, SignFlip(), 3, jnp.ones(3))
    with pytest.raises(ValueError, match="`f` is not finite"):
        check_equivariance(jnp.log, SignFlip(), None, jnp.ones(3), num_elements=32)
    with pytest.raises(TypeError, match="must be complex"):
        check_equivariance(jnp.sin, GlobalPhase(), None, jnp.ones(3))
