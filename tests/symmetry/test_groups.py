"""What every group must do; the cases are in ``group_cases.py``. And Symmetry, which moves sites together."""

from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from numpyro_inverse.symmetry import (
    CyclicShift,
    FiniteGroup,
    GlobalPhase,
    Group,
    Permutation,
    Product,
    Reflection,
    Rotation90,
    Scaling,
    SignFlip,
    Symmetry,
    check_action,
)
from tests.symmetry.group_cases import GROUPS

ALARM = 1e-5
ROUNDING = 1e-5  # of the sums of a few dozen numbers of order 1, in single precision


LONG = (  # their like are among the others
    "phase of two parts",
    "shift of complex images with channels",
    "rotation",
    "two reflections",
    "shift, phase and scaling",
)


SLOW = ("permutation", "shift and sign")


def _marks(name):
    return pytest.mark.statistical if name in LONG else pytest.mark.slow if name in SLOW else ()


@pytest.fixture(params=[pytest.param(name, marks=_marks(name)) for name in GROUPS])
def case(request):
    return GROUPS[request.param]


def element(elements, place):
    return jax.tree.map(lambda e: e[place], elements)


# One program per case: arrays and keys are arguments.


@eqx.filter_jit
def everything(group, x, y, key):
    g = group.propose(key)
    moved = group.action(g, x)
    nearest = group.nearest(x, y)
    value, slope = jax.value_and_grad(group.squared_orbit_distance)(x, y)
    return {
        "to itself": group.orbit_distance(x, moved),
        "distance": group.orbit_distance(x, y),
        "squared": value,
        "slope": slope,
        "nearest": nearest,
        "canonical": group.canonical(x, y),
        "moved": moved,
        "slope at itself": jax.grad(group.orbit_distance)(x, x),
    }


@pytest.fixture
def found(case):
    return everything(case.group, case.array(), case.other(), jax.random.key(0))


def test_is_a_group_action(case):
    check_action(case.group, case.array(), rng_key=jax.random.key(1))


def brute_force(case):
    """The member of the orbit of one array that is nearest to the other: of a finite group, or of a fine circle."""
    x, y = case.array(), case.other()
    group, scaled = case.group, False
    if isinstance(group, Scaling):
        images, scaled = x[None], True
    elif isinstance(group, GlobalPhase):
        images = np.stack([group.action(t, x) for t in jnp.linspace(0, 2 * np.pi, 721)])
    elif not group.is_compact:  # all phases of all shifts
        turns = np.exp(1j * np.linspace(0, 2 * np.pi, 721))
        images, scaled = np.concatenate([turns[:, None] * np.roll(x, s) for s in range(x.size)]), True
    else:
        images = jax.vmap(group.action, (0, None))(group.elements(), x)
    images = np.asarray(images, complex).reshape(len(images), -1)
    y = y.ravel()
    if scaled:
        images *= np.maximum(np.real(images.conj() @ y), 0)[:, None] / np.linalg.norm(x) ** 2
    distances = np.linalg.norm(images - y, axis=1)
    return images[np.argmin(distances)], distances.min()


def test_distances_are_those_of_all_elements(case, found):
    nearest, distance = brute_force(case)
    on_grid = 0 if case.group.order else 2 * np.pi / 721 * np.linalg.norm(case.array())
    assert found["distance"] <= distance + ROUNDING
    np.testing.assert_allclose(found["distance"], distance, rtol=ROUNDING, atol=on_grid**2 + ROUNDING)
    np.testing.assert_allclose(np.ravel(found["nearest"]), nearest, atol=on_grid + ROUNDING)
    np.testing.assert_allclose(found["squared"], found["distance"] ** 2, rtol=1e-4)
    assert found["to itself"] <= 1e-5 * np.linalg.norm(case.array()) * 3
    assert found["distance"] > 0.5


def test_the_gradient_of_the_distance_is_that_at_the_nearest_element(case, found):
    # An isometry: the gradient of |v - g u|^2 in u is 2 (u - g^-1 v), of norm 2 |v - g u|. JAX's is the conjugate.
    assert np.all(np.isfinite(np.abs(found["slope at itself"])))
    if case.group.is_compact:
        np.testing.assert_allclose(np.linalg.norm(found["slope"]), 2 * found["distance"], rtol=1e-4)
    step = 1e-2 * np.conj(found["slope"]) / np.linalg.norm(found["slope"])
    ends = [
        float(everything(case.group, case.array() + s * step, case.other(), jax.random.key(0))["squared"])
        for s in (-1, 1)
    ]
    np.testing.assert_allclose((ends[1] - ends[0]) / 2e-2, np.linalg.norm(found["slope"]), rtol=1e-2)


def test_canonical_with_a_reference_is_the_nearest(case, found):
    if case.group.is_compact:
        np.testing.assert_allclose(found["canonical"], found["nearest"], atol=ROUNDING)
    else:
        np.testing.assert_allclose(np.linalg.norm(found["canonical"]), np.linalg.norm(case.other()), rtol=1e-5)


def test_keeps_the_precision(case, found):
    assert found["moved"].dtype == found["canonical"].dtype == case.array().dtype
    if case.shape == (5,) and not isinstance(case.group, Product):  # two are compiled again
        with jax.enable_x64(True):
            x = np.asarray(case.array(), np.complex128 if case.is_complex else np.float64)
            again = everything(case.group, x, x[::-1], jax.random.key(0))
            assert again["moved"].dtype == x.dtype
            assert again["to itself"] < 1e-14


NUM = 6000


def test_elements_are_drawn_uniformly(case):
    if not case.group.is_compact:
        with pytest.raises(ValueError, match="no uniform law to `sample` from"):
            case.group.sample(jax.random.key(0))
        return
    drawn = jax.jit(jax.vmap(case.group.sample))(jax.random.split(jax.random.key(2), NUM))
    assert_uniform(case.group, drawn)


def assert_uniform(group, drawn):
    """False-alarm rate 1e-5."""
    if group.order is None:
        assert stats.kstest(np.asarray(drawn) / (2 * np.pi), "uniform").pvalue > ALARM
        return
    listed, drawn = (
        np.concatenate([np.reshape(e, (len(e), -1)) for e in jax.tree.leaves(e)], 1) for e in (group.elements(), drawn)
    )
    counts = [np.sum(np.all(drawn == row, axis=1)) for row in listed]
    assert sum(counts) == NUM
    assert stats.chisquare(counts).pvalue > ALARM


def test_the_test_of_uniformity_has_power():
    with pytest.raises(AssertionError):
        assert_uniform(SignFlip(), jnp.where(jnp.arange(NUM) < 0.54 * NUM, 1, -1))
    with pytest.raises(AssertionError):
        assert_uniform(CyclicShift((4,)), jnp.arange(NUM)[:, None] % 3)


# Single groups.


def test_a_permutation_sorts():
    np.testing.assert_array_equal(Permutation(4).canonical(jnp.array([2.0, -1.0, 5.0, 0.0])), [5, 2, 0, -1])
    group = Permutation(4)
    assert group.elements().shape == (24, 4)
    assert {tuple(p) for p in np.asarray(group.elements())} == set(permutations(range(4)))


def test_rotations_turn_counterclockwise():
    x = jnp.arange(9.0).reshape(3, 3)
    for k in range(4):
        np.testing.assert_array_equal(Rotation90().action(jnp.asarray(k), x), jnp.rot90(x, k))


def test_invariants_of_a_shift_tell_a_signal_from_its_mirror_image():
    x = jnp.asarray(GROUPS["shift"].array())
    one, other = jax.jit(jax.vmap(CyclicShift((6,)).invariants))(jnp.stack([x, x[::-1]]))
    np.testing.assert_allclose(one[:4], other[:4], rtol=1e-5)  # powers
    assert np.max(np.abs(one - other)) > 0.01


# Several sites.


def sites(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=6).astype(np.float32) for name in ("image", "kernel", "other")}


def test_a_symmetry_moves_sites_together():
    symmetry = Symmetry(CyclicShift((6,)) * SignFlip() * Scaling(), {"image": 1, "kernel": -1})
    values = sites()
    moved = symmetry.action(((jnp.array([2]), jnp.array(-1)), jnp.log(3.0)), values)
    np.testing.assert_allclose(moved["image"], -3 * np.roll(values["image"], 2), rtol=1e-6)
    np.testing.assert_allclose(moved["kernel"], -np.roll(values["kernel"], -2) / 3, rtol=1e-6)
    np.testing.assert_array_equal(moved["other"], values["other"])
    canonical = jax.jit(symmetry.canonical)(values)
    again = jax.jit(symmetry.canonical)(moved)
    np.testing.assert_allclose(canonical["image"], again["image"], atol=1e-5)
    np.testing.assert_allclose(canonical["kernel"], again["kernel"], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(canonical["image"]), np.linalg.norm(canonical["kernel"]), rtol=1e-5)
    assert set(jax.eval_shape(symmetry.invariants, values)) == {"image", "kernel"}


@pytest.mark.statistical
def test_a_symmetry_is_a_group_action():
    check_action(Symmetry(CyclicShift((6,)) * SignFlip() * Scaling(), {"image": 1, "kernel": -1}), sites())


def test_the_distance_of_sites_is_that_of_all_common_elements():
    symmetry = Symmetry(CyclicShift((6,)) * SignFlip(), {"image": 1, "kernel": -1})
    u, v = sites(), sites(1)
    brute = min(
        sum(np.sum((v[name] - sign * np.roll(u[name], power * s)) ** 2) for name, power in symmetry.powers)
        for s in range(6)
        for sign in (1, -1)
    )
    np.testing.assert_allclose(symmetry.squared_orbit_distance(u, v), brute, rtol=1e-5)
    labels = Symmetry(Permutation(4), ["weight", "mean"])
    u, v = (
        {"weight": np.random.default_rng(s).normal(size=4), "mean": np.random.default_rng(s + 9).normal(size=(4, 2))}
        for s in (0, 1)
    )
    brute = min(sum(np.sum((v[n] - u[n][list(p)]) ** 2) for n in u) for p in permutations(range(4)))
    np.testing.assert_allclose(labels.squared_orbit_distance(u, v), brute, rtol=1e-5)
    np.testing.assert_allclose(Symmetry(Scaling(), "image").orbit_distance(sites(), sites()), 0, atol=1e-6)


# Bad input.


class Wrong(SignFlip):
    """A flip that forgets to come back."""

    def inverse(self, g):
        return jnp.ones_like(g)


class WrongVolume(Scaling):
    def log_abs_det(self, g, x):
        return 0 * g


def test_what_is_no_action_is_refused():
    x = GROUPS["shift"].array()
    with pytest.raises(ValueError, match="Wrong is no group action: the inverse of g does not undo g"):
        check_action(Wrong(), x)
    with pytest.raises(ValueError, match="`log_abs_det` is not that of the Jacobian"):
        check_action(WrongVolume(), x)
    with pytest.raises(ValueError, match="Product is no group action: the"):
        check_action(CyclicShift((6,)) * Reflection(), x)  # they do not commute
    flip = lambda x: x[::-1]  # noqa: E731
    with pytest.raises(ValueError, match="no group: action 1 followed by action 1 is none of them"):
        FiniteGroup([lambda x: x, lambda x: jnp.roll(x, 1)], (6,))
    with pytest.raises(ValueError, match="actions 1 and 2 are the same"):
        FiniteGroup([lambda x: x, flip, flip], (6,))
    with pytest.raises(ValueError, match="first of the `actions` must be the identity"):
        FiniteGroup([flip, lambda x: x], (6,))
    with pytest.raises(ValueError, match="action 1 changes the norm"):
        FiniteGroup([lambda x: x, lambda x: 2 * x], (6,))
    with pytest.raises(ValueError, match=r"action 1 takes an array of shape \(6,\) to one of shape \(5,\)"):
        FiniteGroup([lambda x: x, lambda x: x[1:]], (6,))
    with pytest.raises(ValueError, match="`actions` is empty"):
        FiniteGroup([], (6,))


def test_bad_input():
    x = jnp.zeros((3, 4))
    cases = [
        (lambda: Rotation90().action(jnp.asarray(1), x), ValueError, "must be of one length"),
        (lambda: Permutation(5).action(jnp.arange(5), x), ValueError, "must have length 5"),
        (lambda: Permutation(9).elements(), ValueError, "too many to list"),
        (lambda: Permutation(0), ValueError, "`n` must be a positive integer"),
        (lambda: CyclicShift((5,)).action(jnp.array([1]), x), ValueError, "trailing axes"),
        (lambda: CyclicShift(()), ValueError, "must have an axis"),
        (lambda: GlobalPhase().action(jnp.zeros(()), x), TypeError, "must be complex, or `axis` given"),
        (lambda: GlobalPhase(0).action(jnp.zeros(()), x), ValueError, "must hold two numbers"),
        (lambda: GlobalPhase(0).action(jnp.zeros(()), 1j * x), TypeError, "must be real"),
        (lambda: GlobalPhase().elements(), ValueError, "infinitely many"),
        (lambda: Reflection(3).action(jnp.asarray(1), x), ValueError, "has no axis"),
        (lambda: Scaling(0.0), ValueError, "`spread` must be positive"),
        (lambda: SignFlip().canonical("a"), TypeError, "must be numbers"),
        (lambda: SignFlip().orbit_distance(x, x[0]), ValueError, "two arrays of one shape"),
        (lambda: GlobalPhase() * GlobalPhase(), ValueError, "one of the groups must be finite"),
        (lambda: Scaling() * Scaling(), ValueError, "two scalings are one"),
        (lambda: (SignFlip() * Scaling()) * SignFlip(), ValueError, "must be the last group"),
        (lambda: SignFlip() * 2, TypeError, "must be a group"),
        (lambda: Symmetry(2, "u"), TypeError, "`group` must be a group"),
        (lambda: Symmetry(SignFlip(), []), ValueError, "`sites` is empty"),
        (lambda: Symmetry(SignFlip(), {"u": 2}), ValueError, "must be 1 .* or -1"),
        (lambda: Symmetry(Permutation(3), {"u": -1}), ValueError, "do not commute"),
        (lambda: Symmetry(SignFlip(), "v").action(1, {"u": x}), ValueError, "moves site 'v', which is not there"),
        (lambda: Symmetry(SignFlip(), "u").canonical({"u": x}, {"u": x[0]}), ValueError, "site 'u': two arrays"),
        (
            lambda: Symmetry(Scaling(), ["u", "v"]).orbit_distance({"u": x, "v": x}, {"u": x, "v": x}),
            ValueError,
            "no orbit distance in closed form",
        ),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    assert isinstance(SignFlip() * GlobalPhase(), Product)
    assert isinstance(SignFlip(), Group)
