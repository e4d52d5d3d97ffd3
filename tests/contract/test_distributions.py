"""What every distribution must do, in single precision, and what depends on rounding in double precision too.

Cases are in ``distribution_cases.py``; in double precision one of each kind goes through everything (slow), and all
through the change of variables.

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
from numpyro_inverse._model import abstract_trace
from numpyro_inverse.distributions import Flow, ReparametrizedDistribution
from tests.contract.distribution_cases import (
    DISTRIBUTIONS,
    WITHOUT_BATCH,
    WITHOUT_DENSITY,
    WITHOUT_MOMENTS,
    batched,
)

BATCH = (2, 3)


def _mode(precision):
    return jax.enable_x64(True) if precision == "x64" else nullcontext()


ONE_OF_EACH_KIND = ("Matern, rectangle, padded", "SpectralField, first-order GMRF", "Flow, affine couplings")
IN_THE_LONG_SUITE = ("Matern, rectangle, periodic",)  # its axes are among those of the box
CASES = [(name, precision) for name in DISTRIBUTIONS for precision in ("float32", "x64")]


# By the doors of others that are not slow.
COMPILES_MUCH = ("NonstationaryMatern", "BarrierMatern", "FractionalMatern")
COMPILES_MUCH += ("Matern, box, mixed", "Matern, line, neumann", "Flow, autoregressive", "Coregionalized")


def _long(name):
    if name in COMPILES_MUCH:
        return pytest.mark.slow
    return pytest.mark.statistical if name in IN_THE_LONG_SUITE else ()


def _params(names):
    return [pytest.param(name, marks=_long(name)) for name in names]


NAMES = _params(DISTRIBUTIONS)
DENSITIES = _params(name for name in DISTRIBUTIONS if name not in WITHOUT_DENSITY)
MOMENTS = _params(name for name in DISTRIBUTIONS if name not in WITHOUT_MOMENTS)


def _long_in(name, precision):
    return _long(name) or (pytest.mark.slow if precision == "x64" else ())


def _cases(without=()):
    return [
        pytest.param(c, marks=_long_in(*c), id=", ".join(c))
        for c in CASES
        if (c[1] == "float32" or c[0] in ONE_OF_EACH_KIND) and c[0] not in without
    ]


# What is said of a density, a law without one says by raising (``test_without_a_density``).
with_density = pytest.mark.parametrize("case", _cases(WITHOUT_DENSITY), indirect=True)
with_batch = pytest.mark.parametrize("case", _cases(WITHOUT_BATCH), indirect=True)


@pytest.fixture(params=_cases())
def case(request):
    with _mode(request.param[1]):
        yield request.param


@pytest.fixture
def name(case):
    return case[0]


@pytest.fixture
def precision(case):
    return case[1]


@pytest.fixture
def tolerance(precision):
    return 2e-4 if precision == "float32" else 1e-9


@cache
def _build(name):
    """The maker, compiled: much faster than operation by operation, and a test that a distribution leaves ``jit``."""
    return jax.jit(lambda parameters: DISTRIBUTIONS[name][0](**parameters))


_sample = jax.jit(lambda d, key, n: d.sample(key, (n,)), static_argnums=2)
_jacobian = jax.jit(lambda d, z: (d.from_base(z), jax.jacobian(d.from_base)(z)))
_moments = jax.jit(lambda d: (d.mean, d.variance))
_log_prob = jax.jit(lambda d, x: d.log_prob(x))
_support = jax.jit(lambda d, x: d.support(x))


@cache
def _one(name, precision):
    """One distribution, and five draws; its parameters are arrays, as those of the members of a batch are."""
    with _mode(precision):
        one = _build(name)({k: np.asarray(v) for k, v in DISTRIBUTIONS[name][1].items()})
        return one, _sample(one, jax.random.key(7), 5)


@cache
def _many(name, precision):
    """A batch of six, and five draws."""
    with _mode(precision):
        many = _build(name)(batched(DISTRIBUTIONS[name][1], BATCH))
        return many, _sample(many, jax.random.key(7), 5)


@pytest.fixture
def one(name, precision):
    return _one(name, precision)[0]


@pytest.fixture
def draws(name, precision):
    return _one(name, precision)[1]


@pytest.fixture
def many(name, precision):
    return _many(name, precision)[0]


@pytest.fixture
def many_draws(name, precision):
    return _many(name, precision)[1]


@pytest.mark.slow
def test_shapes_and_dtypes(name, one, draws, precision):
    dtype = jnp.float64 if precision == "x64" else jnp.float32
    laws = [((), one, draws)] if name in WITHOUT_BATCH else [((), one, draws), (BATCH, *_many(name, precision))]
    for shape, law, values in laws:
        assert (law.batch_shape, law.event_shape) == (shape, one.event_shape)
        assert values.shape == (5, *shape, *one.event_shape)
        assert np.isfinite(values).all()
        found = [values]
        if name not in WITHOUT_DENSITY:
            found.append(_log_prob(law, values))
            assert found[-1].shape == (5, *shape)
            assert jax.eval_shape(_log_prob, law, draws[0]).shape == shape
        if name not in WITHOUT_MOMENTS:
            found += (moments := _moments(law))
            assert [m.shape for m in moments] == [shape + law.event_shape] * 2
        assert {jnp.finfo(v.dtype).dtype for v in found} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", _params(WITHOUT_DENSITY))
def test_without_a_density(name):
    one, draws = _one(name, "float32")
    with pytest.raises(NotImplementedError, match="whiten"):
        one.log_prob(draws)


def test_same_key_same_draw(one, draws):
    np.testing.assert_array_equal(_sample(one, jax.random.key(7), 5), draws)
    assert not np.array_equal(_sample(one, jax.random.key(8), 5), draws)


def test_support_and_constraints(one, draws):
    broken = np.array(draws)
    broken[0] = np.nan
    inside = _support(one, np.stack([draws, broken]))
    assert inside.shape == (2, 5)
    assert np.all(inside[0])
    assert inside[1].tolist() == [False, True, True, True, True]
    for parameter, constraint in one.arg_constraints.items():
        assert np.all(constraint(np.asarray(getattr(one, parameter))))


@with_batch
def test_batch_is_a_stack_of_its_members(name, many, many_draws, tolerance):
    each = {k: np.asarray(v) for k, v in batched(DISTRIBUTIONS[name][1], BATCH).items()}
    members = [_build(name)({k: v[i] for k, v in each.items()}) for i in np.ndindex(BATCH)]
    flat = np.asarray(many_draws).reshape(5, -1, *many.event_shape)
    if name not in WITHOUT_DENSITY:
        expected = np.stack([_log_prob(m, flat[:, i]) for i, m in enumerate(members)], axis=1)
        found = np.asarray(_log_prob(many, many_draws)).reshape(5, -1)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    if name in WITHOUT_MOMENTS:
        return
    variance = np.stack([_moments(m)[1] for m in members])
    np.testing.assert_allclose(np.asarray(_moments(many)[1]).reshape(variance.shape), variance, rtol=tolerance)


def test_tree_round_trip(one, draws):
    leaves, tree = jax.tree.flatten(one)
    again = jax.tree.unflatten(tree, [jax.device_put(np.array(leaf)) for leaf in leaves])
    assert (type(again), again.batch_shape, again.event_shape) == (type(one), one.batch_shape, one.event_shape)
    np.testing.assert_array_equal(_sample(again, jax.random.key(7), 5), draws)


@with_density
def test_jit_and_vmap(name, one, draws, tolerance):
    """As an argument of a compiled function; built inside one; mapped over draws and over parameters."""
    make, parameters = DISTRIBUTIONS[name]
    expected = _log_prob(one, draws)
    close = {"rtol": tolerance, "atol": tolerance}
    again = jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)), one)
    np.testing.assert_allclose(_log_prob(again, draws), expected, **close)
    mapped = jax.jit(jax.vmap(lambda p, x: make(**p).log_prob(x)))
    stacked = {k: np.full(5, v, draws.real.dtype) for k, v in parameters.items()}
    np.testing.assert_allclose(mapped(stacked, draws), expected, **close)


KEEP = np.array([True, False, True, True, False])


@jax.jit
def _expanded(d, x):
    """Log densities of the distribution expanded, of that as one event, and of it masked."""
    expanded = d.expand((5,))
    return expanded.log_prob(x), expanded.to_event(1).log_prob(x), expanded.mask(KEEP).log_prob(x)


@with_density
def test_expand_to_event_and_mask(one, draws, tolerance):
    close = {"rtol": tolerance, "atol": tolerance}
    expected = _log_prob(one, draws)
    expanded = one.expand((5,))
    assert (expanded.batch_shape, expanded.event_shape) == ((5,), one.event_shape)
    sample = jax.eval_shape(lambda d, key: d.sample(key, (2,)), expanded, jax.random.key(0))
    assert sample.shape == (2, *draws.shape)
    event = expanded.to_event(1)
    assert (event.batch_shape, event.event_shape) == ((), draws.shape)
    each, total, masked = _expanded(one, draws)
    np.testing.assert_allclose(each, expected, **close)
    np.testing.assert_allclose(total, np.sum(expected), **close)
    np.testing.assert_allclose(masked, np.where(KEEP, expected, 0), **close)


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "x64"])
@pytest.mark.parametrize("name", DENSITIES)
def test_density_is_that_of_the_sampler(name, precision):
    """Change of variables, log p(f(z)) + log |det f'(z)| = log p(z), by the dense Jacobian; for a window's, J J^T."""
    with _mode(precision):
        one, draws = _one(name, precision)
        if not isinstance(one, ReparametrizedDistribution | Flow):
            pytest.skip("not a map of a base distribution")
        base = one.base_dist
        assert base.batch_shape == one.batch_shape
        z = base.sample(jax.random.key(2))
        x, jacobian = _jacobian(one, z)
        jacobian = np.asarray(jacobian, float).reshape(int(np.prod(one.event_shape)), -1)
        if jacobian.shape[0] == jacobian.shape[1]:
            expected = base.log_prob(z) - np.linalg.slogdet(jacobian)[1]
        else:  # linear in white noise: a Gaussian with covariance J J^T
            expected = dist.MultivariateNormal(
                jnp.asarray(one.mean).ravel(), covariance_matrix=jnp.asarray(jacobian @ jacobian.T, z.dtype)
            ).log_prob(x.ravel())
        value = _log_prob(one, draws.at[0].set(x))[0]
        np.testing.assert_allclose(value, expected, rtol=1e-3 if precision == "float32" else 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name):
    """Of the log density and of a functional of a draw, in every parameter, against fourth-order differences."""
    make, parameters = DISTRIBUTIONS[name]
    with jax.enable_x64(True):
        names, point = list(parameters), np.array(list(parameters.values()))
        one, draws = _one(name, "x64")
        probe = jax.random.normal(jax.random.key(4), draws.shape).astype(draws.dtype)

        def both(p):
            d = make(**dict(zip(names, p, strict=True)))
            of_draw = jnp.sum(probe[0] * d.sample(jax.random.key(5))).real
            return jnp.stack([of_draw if name in WITHOUT_DENSITY else d.log_prob(draws[0]), of_draw])

        step = 1e-3 * point
        offsets = np.concatenate([point + k * np.diag(step) for k in (-2, -1, 1, 2)])
        value = jax.jit(lambda p: (both(p), jax.jacrev(both)(p)))
        far_low, low, high, far_high = np.reshape([value(p)[0] for p in offsets], (4, len(point), 2))
        expected = (far_low - 8 * low + 8 * high - far_high) / (12 * step[:, None])
        np.testing.assert_allclose(value(point)[1].T, expected, rtol=1e-6, atol=1e-6)
        if name in WITHOUT_DENSITY:
            return
        direction = 1e-4 * probe
        _, of_value = jax.jvp(lambda v: _log_prob(one, v), (draws,), (direction,))
        slope = (_log_prob(one, draws + direction) - _log_prob(one, draws - direction)) / 2
        np.testing.assert_allclose(of_value, slope, rtol=1e-6)


def test_in_a_model(name, one, draws, tolerance):
    """In a plate, observed and latent; whitened, the latent site is the base and the field its image."""

    def model(data=None):
        with numpyro.plate("draws", 5):
            field = numpyro.sample("field", one)
            if name not in WITHOUT_DENSITY:
                numpyro.sample("copy", one, obs=data)
        return field

    if name not in WITHOUT_DENSITY:
        value = jax.jit(lambda x: log_density(model, (x,), {}, {"field": x})[0])(draws)
        np.testing.assert_allclose(value, 2 * np.sum(_log_prob(one, draws)), rtol=tolerance)
    if not isinstance(one, ReparametrizedDistribution | Flow):
        return
    whitened = abstract_trace(handlers.seed(whiten(model), jax.random.key(6)), (draws,), {})
    assert "field_latent" in whitened
    assert whitened["field"]["type"] == "deterministic"
    assert whitened["field"]["value"].shape == draws.shape


@with_density
def test_value_of_a_wrong_shape(one, draws):
    with pytest.raises(ValueError, match=r"(?s)[A-Za-z]+.*: .*shapes?\b"):
        one.log_prob(draws[..., :-1])


@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name):
    """4000 draws in float32: 6 standard errors of mean and variance per component; under 1e-6 false alarms in all."""
    one = _one(name, "float32")[0]
    x = np.asarray(_sample(one, jax.random.key(11), 4000))
    mean, variance = _moments(one)
    variance, squared = np.asarray(variance, float), np.abs(x - np.asarray(mean)).astype(float) ** 2
    assert np.max(np.abs(x.mean(axis=0, dtype=complex) - np.asarray(mean)) / np.sqrt(variance / 4000)) < 6
    error = np.sqrt((np.mean(squared**2, axis=0) - variance**2) / 4000)
    assert np.max(np.abs(np.mean(squared, axis=0) - variance) / error) < 6
