"""What every distribution must do, in single and in double precision; cases are in ``distribution_cases.py``.

A distribution is a pytree that NumPyro can sample, expand, reinterpret, mask, put into a plate, observe and whiten; its
density is that of its sampler (change of variables where it is a map of a base); gradients in all parameters exist and
are right.
"""

from contextlib import nullcontext
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from numpyro_inverse import whiten
from numpyro_inverse.distributions import Flow, ReparametrizedDistribution
from tests.contract.distribution_cases import DISTRIBUTIONS, batched

BATCH = (2, 3)


def _mode(precision):
    return jax.enable_x64(True) if precision == "x64" else nullcontext()


@pytest.fixture(params=["float32", "x64"])
def precision(request):
    with _mode(request.param):
        yield request.param


@pytest.fixture
def tolerance(precision):
    return 2e-4 if precision == "float32" else 1e-9


@pytest.fixture(params=DISTRIBUTIONS)
def name(request):
    return request.param


@cache
def _build(name):
    """The maker, compiled: much faster than operation by operation, and a test that a distribution leaves ``jit``."""
    return jax.jit(lambda parameters: DISTRIBUTIONS[name][0](**parameters))


_sample = jax.jit(lambda d, key, n: d.sample(key, (n,)), static_argnums=2)
_jacobian = jax.jit(lambda d, z: jax.jacobian(d.from_base)(z))
_moments = jax.jit(lambda d: (d.mean, d.variance))
_log_prob = jax.jit(lambda d, x: d.log_prob(x))


@cache
def _sampled(name, precision):
    """One distribution, a batch of six, and draws of both."""
    with _mode(precision):
        one, many = _build(name)(DISTRIBUTIONS[name][1]), _build(name)(batched(DISTRIBUTIONS[name][1], BATCH))
        key = jax.random.key(7)
        return one, many, _sample(one, key, 5), _sample(many, key, 5)


@pytest.fixture
def one(name, precision):
    return _sampled(name, precision)[0]


@pytest.fixture
def many(name, precision):
    return _sampled(name, precision)[1]


@pytest.fixture
def draws(name, precision):
    return _sampled(name, precision)[2]


@pytest.fixture
def many_draws(name, precision):
    return _sampled(name, precision)[3]


def test_shapes_and_dtypes(one, many, draws, many_draws, precision):
    dtype = jnp.float64 if precision == "x64" else jnp.float32
    assert one.batch_shape == ()
    assert many.batch_shape == BATCH
    assert many.event_shape == one.event_shape
    assert draws.shape == (5, *one.event_shape)
    assert many_draws.shape == (5, *BATCH, *one.event_shape)
    assert _log_prob(one, draws).shape == (5,)
    assert _log_prob(many, many_draws).shape == (5, *BATCH)
    assert _log_prob(many, draws[0]).shape == BATCH
    assert {v.dtype for v in (draws, many_draws, _log_prob(one, draws))} == {jnp.dtype(dtype)}
    assert np.isfinite(many_draws).all()
    if isinstance(one, Flow):  # without mean and variance in closed form
        return
    for d, shape in ((one, ()), (many, BATCH)):
        assert [m.shape for m in _moments(d)] == [shape + d.event_shape] * 2
    assert {m.dtype for m in _moments(one)} == {jnp.dtype(dtype)}


def test_same_key_same_draw(one, draws):
    np.testing.assert_array_equal(_sample(one, jax.random.key(7), 5), draws)
    assert not np.array_equal(_sample(one, jax.random.key(8), 5), draws)


def test_support_and_constraints(one, draws):
    assert np.all(one.support(draws))
    assert one.support(draws).shape == (5,)
    assert not np.all(one.support(draws.at[0].set(jnp.nan)))
    for parameter, constraint in one.arg_constraints.items():
        assert np.all(constraint(getattr(one, parameter)))


def test_batch_is_a_stack_of_its_members(name, many, many_draws, tolerance):
    each = batched(DISTRIBUTIONS[name][1], BATCH)
    members = [_build(name)({k: v[i] for k, v in each.items()}) for i in np.ndindex(BATCH)]
    flat = many_draws[0].reshape(-1, *many.event_shape)
    expected = np.stack([_log_prob(m, x) for m, x in zip(members, flat, strict=True)])
    np.testing.assert_allclose(_log_prob(many, many_draws[0]).ravel(), expected, rtol=tolerance, atol=tolerance)
    if isinstance(many, Flow):
        return
    variance = np.stack([_moments(m)[1] for m in members])
    np.testing.assert_allclose(_moments(many)[1].reshape(variance.shape), variance, rtol=tolerance)


def test_jit_vmap_and_tree_round_trip(name, one, draws, tolerance):
    """As an argument of a compiled function; built inside one; mapped over draws and over parameters."""
    make, parameters = DISTRIBUTIONS[name]
    expected = one.log_prob(draws)
    close = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(_log_prob(one, draws), expected, **close)
    leaves, tree = jax.tree.flatten(one)
    again = jax.tree.unflatten(tree, [leaf + 0 for leaf in leaves])
    assert (type(again), again.batch_shape, again.event_shape) == (type(one), one.batch_shape, one.event_shape)
    np.testing.assert_allclose(_log_prob(again, draws), expected, **close)
    mapped = jax.jit(jax.vmap(lambda p, x: make(**p).log_prob(x)))
    stacked = {k: jnp.full(5, v) for k, v in parameters.items()}
    np.testing.assert_allclose(mapped(stacked, draws), expected, **close)


def test_expand_to_event_and_mask(one, draws, tolerance):
    close = {"rtol": tolerance, "atol": tolerance}
    expected = _log_prob(one, draws)
    expanded = one.expand((5,))
    assert (expanded.batch_shape, expanded.event_shape) == ((5,), one.event_shape)
    np.testing.assert_allclose(_log_prob(expanded, draws), expected, **close)
    assert expanded.sample(jax.random.key(0), (2,)).shape == (2, *draws.shape)
    event = expanded.to_event(1)
    assert (event.batch_shape, event.event_shape) == ((), draws.shape)
    np.testing.assert_allclose(_log_prob(event, draws), np.sum(expected), **close)
    keep = np.array([True, False, True, True, False])
    np.testing.assert_allclose(_log_prob(expanded.mask(keep), draws), np.where(keep, expected, 0), **close)


def test_density_is_that_of_the_sampler(one, precision):
    """Change of variables, log p(f(z)) + log |det f'(z)| = log p(z), by the dense Jacobian; for a window's, J J^T."""
    if not isinstance(one, ReparametrizedDistribution | Flow):
        pytest.skip("not a map of a base distribution")
    base = one.base_dist
    assert base.batch_shape == one.batch_shape
    z = base.sample(jax.random.key(2))
    jacobian = np.asarray(_jacobian(one, z), float).reshape(int(np.prod(one.event_shape)), -1)
    if jacobian.shape[0] == jacobian.shape[1]:
        expected = base.log_prob(z) - np.linalg.slogdet(jacobian)[1]
    else:  # linear in white noise: a Gaussian with covariance J J^T
        expected = dist.MultivariateNormal(
            jnp.asarray(one.mean).ravel(), covariance_matrix=jnp.asarray(jacobian @ jacobian.T, z.dtype)
        ).log_prob(one.from_base(z).ravel())
    value = _log_prob(one, jax.jit(lambda d, z: d.from_base(z))(one, z))
    np.testing.assert_allclose(value, expected, rtol=1e-3 if precision == "float32" else 1e-9)


def test_gradients(name):
    """Of the log density and of a functional of a draw, in every parameter, against fourth-order differences."""
    make, parameters = DISTRIBUTIONS[name]
    with jax.enable_x64(True):
        names, point = list(parameters), np.array(list(parameters.values()))
        one = _build(name)(parameters)
        x = _sample(one, jax.random.key(3), 1)[0]
        probe = jax.random.normal(jax.random.key(4), x.shape)

        def both(p):
            d = make(**dict(zip(names, p, strict=True)))
            return jnp.stack([d.log_prob(x), jnp.sum(probe * d.sample(jax.random.key(5)))])

        step = 1e-3 * point
        offsets = np.concatenate([point + k * np.diag(step) for k in (-2, -1, 1, 2)])
        value = jax.jit(both)
        far_low, low, high, far_high = np.reshape([value(p) for p in offsets], (4, len(point), 2))
        expected = (far_low - 8 * low + 8 * high - far_high) / (12 * step[:, None])
        np.testing.assert_allclose(jax.jit(jax.jacrev(both))(point).T, expected, rtol=1e-6, atol=1e-6)
        direction = 1e-4 * probe
        _, of_value = jax.jvp(lambda v: _log_prob(one, v), (x,), (direction,))
        slope = (_log_prob(one, x + direction) - _log_prob(one, x - direction)) / 2
        np.testing.assert_allclose(of_value, slope, rtol=1e-6)


def test_in_a_model(one, draws, tolerance):
    """In a plate, observed and latent; whitened, the latent site is the base and the field its image."""

    def model(data=None):
        with numpyro.plate("draws", 5):
            field = numpyro.sample("field", one)
            numpyro.sample("copy", one, obs=data)
        return field

    value, _ = log_density(model, (draws,), {}, {"field": draws})
    np.testing.assert_allclose(value, 2 * np.sum(_log_prob(one, draws)), rtol=tolerance)
    seeded = handlers.trace(handlers.seed(whiten(model), jax.random.key(6))).get_trace(draws)
    assert "field_latent" in seeded
    assert seeded["field"]["type"] == "deterministic"
    assert seeded["field"]["value"].shape == draws.shape


def test_value_of_a_wrong_shape(one, draws):
    with pytest.raises(ValueError, match=r".+"):
        one.log_prob(draws[..., :-1])


def test_moments(name):
    """4000 draws in float32: 6 standard errors of mean and variance per component; under 1e-6 false alarms in all."""
    one = _sampled(name, "float32")[0]
    if isinstance(one, Flow):
        pytest.skip("no mean and variance in closed form; the density is that of the sampler, above")
    x = np.asarray(_sample(one, jax.random.key(11), 4000), float)
    mean, variance = (np.asarray(m, float) for m in _moments(one))
    assert np.max(np.abs(x.mean(axis=0) - mean) / np.sqrt(variance / 4000)) < 6
    fourth = np.mean((x - mean) ** 4, axis=0)
    error = np.sqrt((fourth - variance**2) / 4000)
    assert np.max(np.abs(np.mean((x - mean) ** 2, axis=0) - variance) / error) < 6
