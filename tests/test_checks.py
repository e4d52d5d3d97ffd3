"""The checks of arguments: what passes comes back as it was, what does not is named."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse import _checks as checks

NUMBERS = {
    "check_number": ([0, -1.5, np.float32(2), jnp.asarray(3.0)], [np.nan, np.inf]),
    "check_positive_number": ([1, 1e-300, np.float64(2)], [0, -1.0, np.nan, np.inf]),
    "check_nonnegative_number": ([0, 2.5], [-1e-9, np.nan, np.inf]),
    "check_probability": ([0, 1, 0.5], [-0.1, 1.1, np.nan]),
    "check_fraction": ([0.5, 1e-9], [0, 1, np.nan]),
    "check_count": ([1, 7, 3.0, np.int8(2), jnp.asarray(4)], [0, -1, 2.5, np.nan, np.inf]),
    "check_positive": ([1, 0.5, np.ones(3), [1.0, 2.0], jnp.ones((2, 2))], [0.0, -1, [1.0, np.nan], np.inf]),
    "check_finite": ([0, -1.0, [1, 2]], [np.nan, [0.0, np.inf]]),
    "check_real": ([np.nan, 3, [1.0, 2.0], jnp.asarray(1, jnp.bfloat16)], []),
    "check_numeric": ([1j, 3.0, np.ones(2, complex)], []),
}
NOT_NUMBERS = ["a", None, True, np.bool_(False), ["a", "b"], [1.0, "2"], [None], {}, object(), [[1], [1, 2]], len]


@pytest.mark.parametrize(
    ("check", "value"), [(c, v) for c, (good, _) in NUMBERS.items() for v in good], ids=lambda v: str(v)[:20]
)
def test_good_values_come_back(check, value):
    found = getattr(checks, check)("here", "x", value)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(value))
    if hasattr(value, "dtype") and "number" not in check and "count" not in check:
        assert found is value


@pytest.mark.parametrize(
    ("check", "value"), [(c, v) for c, (_, bad) in NUMBERS.items() for v in bad], ids=lambda v: str(v)[:20]
)
def test_bad_values_are_named(check, value):
    with pytest.raises(ValueError, match=r"here: `x` must be .*; got "):
        getattr(checks, check)("here", "x", value)


@pytest.mark.parametrize("check", NUMBERS)
def test_what_is_no_number_is_named(check):
    for value in NOT_NUMBERS:
        with pytest.raises(TypeError, match=r"here: `x` must be .*; got "):
            getattr(checks, check)("here", "x", value)
    if check != "check_numeric":
        with pytest.raises(TypeError, match=r"here: `x` must be .*; got .*(complex|1j)"):
            getattr(checks, check)("here", "x", 1j)


def test_python_numbers_keep_their_weak_type():
    assert checks.check_positive("here", "x", 0.5) is not None
    assert isinstance(checks.check_positive("here", "x", 0.5), float)


def test_precision_of_jax_decides():
    with pytest.raises(ValueError, match="must be positive and finite in float32; got 1e-50"):
        checks.check_positive("here", "x", 1e-50)
    with pytest.raises(ValueError, match="must be finite in float32; got 1e\\+200"):
        checks.check_finite("here", "x", 1e200)
    with jax.enable_x64(True):
        assert checks.check_positive("here", "x", 1e-50) == 1e-50
    assert checks.check_positive_number("here", "x", 1e-50) == 1e-50


@pytest.mark.parametrize("check", ["check_number", "check_count", "check_probability", "check_fraction", "check_flag"])
def test_traced_values_where_static_ones_are_needed(check):
    with pytest.raises(TypeError, match="here: `x` must be known outside `jit`"):
        jax.jit(lambda v: getattr(checks, check)("here", "x", v))(0.5)


@pytest.mark.parametrize("check", ["check_positive", "check_finite", "check_real", "check_numeric"])
def test_traced_arrays_pass(check):
    assert jax.jit(lambda v: getattr(checks, check)("here", "x", v))(-0.5) == -0.5
    assert jax.jit(lambda v: getattr(checks, check)("here", "x", [v, 1.0])[0])(-0.5) == -0.5
    with pytest.raises(TypeError, match="got an array of bool"):
        jax.jit(lambda v: getattr(checks, check)("here", "x", v))(jnp.ones(2, bool))


def test_keys():
    key = jax.random.key(0)
    assert checks.check_key("here", "rng_key", key) is key
    raw = jax.random.PRNGKey(0)
    assert checks.check_key("here", "rng_key", raw) is raw
    jax.jit(partial(checks.check_key, "here", "rng_key"))(key)
    for wrong in (0, None, "a", np.zeros(2), [0, 0], np.uint32(3), np.zeros(3, np.uint32)):
        with pytest.raises(TypeError, match=r"here: `rng_key` must be a random key, `jax.random.key\(0\)`; got"):
            checks.check_key("here", "rng_key", wrong)
    for several in (jax.random.split(key, 3), jax.random.split(raw, 3)):
        with pytest.raises(ValueError, match=r"one random key; got an array of keys of shape \(3,\)"):
            checks.check_key("here", "rng_key", several)


def test_names_functions_and_objects():
    assert checks.check_choice("here", "edge", "b", ("a", "b")) == "b"
    for wrong in ("c", None, 1, ["a"]):
        with pytest.raises(ValueError, match="here: `edge` must be one of a, b; got"):
            checks.check_choice("here", "edge", wrong, ("a", "b"))
    assert checks.check_flag("here", "x", np.True_) is True
    with pytest.raises(TypeError, match="must be True or False; got 1"):
        checks.check_flag("here", "x", 1)
    assert checks.check_callable("here", "f", len) is len
    with pytest.raises(TypeError, match=r"here: `f` must be a map of one array; got 3 \(int\)"):
        checks.check_callable("here", "f", 3, "a map of one array")
    with pytest.raises(TypeError, match="here: `text` must be words; got None"):
        checks.check_instance("here", "text", None, str, "words")


def test_shapes():
    assert checks.check_broadcast("here", a=(2, 1), b=(3,)) == (2, 3)
    with pytest.raises(ValueError, match=r"here: incompatible shapes.*`a` \(2,\), `b` \(3,\)"):
        checks.check_broadcast("here", a=(2,), b=(3,))
    x = np.ones((5, 2, 3))
    assert checks.check_trailing("here", "x", x, (2, 3)) is x
    for shape in ((3, 3), (2, 2, 3), (1, 5, 2, 3)):
        with pytest.raises(ValueError, match=r"here: the trailing axes of `x` must be .*; got shape \(5, 2, 3\)"):
            checks.check_trailing("here", "x", x, shape)


def test_messages_are_short():
    with pytest.raises(TypeError) as error:
        checks.check_number("here", "x", "a" * 10_000)
    assert len(str(error.value)) < 150
