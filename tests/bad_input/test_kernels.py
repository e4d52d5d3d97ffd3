"""Bad arguments of kernels: each is a ValueError or a TypeError that names the argument, or the site, at the door."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse.infer import (
    MALA,
    PCN,
    SKROCK,
    ULA,
    BlackJAX,
    DelayedAcceptance,
    InfMALA,
    InformedMALA,
    InformedPCN,
    LowRankNUTS,
    MoreauYosidaULA,
    TemperedSGLD,
    lipschitz_constant,
    report_failures,
    suggest_step_size,
)


def model(y=None):
    u = numpyro.sample("u", dist.Normal().expand([8]).to_event(1))
    numpyro.sample("y", dist.Normal(u, 1.0).to_event(1), obs=y)


def same(z, smoothing):
    return dict(z)


NUMBERS = ("a", None, [0.1, 0.2], np.ones(2), 1j, True, {})
NOT_POSITIVE = (0, -1.0, np.nan, np.inf)
COUNTS = ("a", None, 2.5, 0, -1, np.nan, np.inf, [3], True)
NO_FRACTION = ("a", None, 0.0, 1.0, -0.1, 2.0, np.nan, [0.5], True)
FUNCTIONS = (3, "a", [same], {})

NEEDED = {
    ULA: {"step_size": 0.1},
    SKROCK: {"step_size": 0.1},
    TemperedSGLD: {"step_size": 0.1},
    MoreauYosidaULA: {"step_size": 0.1, "smoothing": 1.0, "prox": same},
    DelayedAcceptance: {"approximation": model},
}
ADJUSTED = (MALA, LowRankNUTS, DelayedAcceptance)
SHARES = (PCN, InfMALA, InformedPCN, InformedMALA)
INFORMED = (InformedPCN, InformedMALA, LowRankNUTS)
ALL = (*ADJUSTED, *SHARES, ULA, SKROCK, TemperedSGLD, MoreauYosidaULA)

ARGUMENTS = [
    *((kernel, "step_size", NUMBERS + NOT_POSITIVE) for kernel in (*ADJUSTED, ULA, SKROCK, TemperedSGLD)),
    *((kernel, "step_size", NO_FRACTION) for kernel in SHARES),
    *((kernel, "target_accept_prob", NO_FRACTION) for kernel in (*ADJUSTED, *SHARES)),
    *((kernel, "rank", COUNTS) for kernel in INFORMED),
    *((kernel, "max_tree_depth", COUNTS) for kernel in (LowRankNUTS, DelayedAcceptance)),
    (LowRankNUTS, "adapt_mass_matrix", ("a", None, 1, [True])),
    (DelayedAcceptance, "local_moves", ("a", None, -0.1, 1.1, np.nan, [0.1], True)),
    (DelayedAcceptance, "approximation", FUNCTIONS),
    (SKROCK, "stages", (*COUNTS, 1)),
    (SKROCK, "damping", (*NUMBERS, *NOT_POSITIVE, 1.5)),
    (TemperedSGLD, "temperature", NUMBERS + NOT_POSITIVE),
    (MoreauYosidaULA, "smoothing", NUMBERS + NOT_POSITIVE),
    (MoreauYosidaULA, "prox", (*FUNCTIONS, None)),
    (MALA, "preconditioner", ("a", 0.0, -np.ones(8), np.full(8, np.nan), [1j], {"u": "a"}, True)),
    *((kernel, "model", FUNCTIONS) for kernel in ALL),
    *((kernel, "init_strategy", (*FUNCTIONS, None)) for kernel in ALL),
]
CASES = [
    pytest.param(kernel, argument, value, id=f"{kernel.__name__}-{argument}-{number}")  # no addresses: workers compare
    for kernel, argument, values in ARGUMENTS
    for number, value in enumerate(values)
]


@pytest.mark.parametrize(("kernel", "argument", "value"), CASES)
def test_settings(kernel, argument, value):
    with pytest.raises((ValueError, TypeError), match=rf"{kernel.__name__}: `{argument}"):
        kernel(**{"model": model} | NEEDED.get(kernel, {}) | {argument: value})


@pytest.mark.parametrize("kernel", ALL)
def test_neither_or_both_of_model_and_potential(kernel):
    for given in ({}, {"model": model, "potential_fn": jnp.sum}):
        with pytest.raises(ValueError, match=f"{kernel.__name__}: give either `model` or `potential_fn`"):
            kernel(**NEEDED.get(kernel, {}) | given)


START = [
    ({"u": 0.0}, ValueError, r"`init_params` of site 'u' must have shape \(8,\).*got \(\)"),  # a scalar for eight
    ({"u": jnp.zeros(7)}, ValueError, r"`init_params` of site 'u' must have shape \(8,\).*got \(7,\)"),
    ({"u": jnp.zeros((8, 1))}, ValueError, r"got \(8, 1\)"),
    ({"u": "a"}, TypeError, r"`init_params\['u'\]` must be real numbers; got the string 'a'"),
    ({"u": None}, TypeError, r"`init_params\['u'\]` must be real numbers; got None"),
    ({"u": jnp.zeros(8, complex)}, TypeError, r"`init_params\['u'\]` must be real numbers"),
    ({"v": jnp.zeros(8)}, ValueError, "'v', which is not a latent site"),
    ({"y": jnp.zeros(8)}, ValueError, "'y', which is not a latent site"),
    (jnp.zeros(8), TypeError, "`init_params` must be a dictionary by latent site"),
    ("a", TypeError, "`init_params` must be a dictionary by latent site; got the string 'a'"),
    ({"u": jnp.full(8, np.nan)}, ValueError, "site 'u' has log density nan"),
]


@pytest.mark.parametrize("kernel", [MALA, PCN, ULA])
@pytest.mark.parametrize(("given", "error", "message"), START)
def test_first_values(kernel, given, error, message):
    with pytest.raises(error, match=f"{kernel.__name__}: .*{message}"):
        kernel(model, **NEEDED.get(kernel, {})).init(jax.random.key(0), 4, given, (jnp.zeros(8),), {})


def test_first_values_of_a_batch_of_chains():
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match=r"MALA: `init_params` of site 'u' must have shape \(3, 8\), chains first"):
        MALA(model).init(keys, 4, {"u": jnp.zeros(8)}, (jnp.zeros(8),), {})


@pytest.mark.parametrize("given", ["a", {"x": "a"}, {"x": 1j}, [None, "b"], {}])
def test_first_values_of_a_potential(given):
    with pytest.raises((ValueError, TypeError), match="MALA: `init_params`"):
        MALA(potential_fn=lambda z: 0.0).init(jax.random.key(0), 4, given, (), {})


@pytest.mark.parametrize("key", [0, "a", None, 1.5, np.zeros(3)])
def test_keys(key):
    with pytest.raises((TypeError, ValueError), match="MALA: `rng_key` must be a random key"):
        MALA(model).init(key, 4, None, (jnp.zeros(8),), {})
    for function in (lipschitz_constant, suggest_step_size):
        with pytest.raises((TypeError, ValueError), match="`rng_key` must be a random key"):
            function(model, key, model_args=(jnp.zeros(8),))


@pytest.mark.parametrize(
    ("prox", "message"),
    [
        (lambda z, s: {"v": z["u"]}, "`prox` must return sites u; got v"),
        (lambda z, s: {**z, "v": 0.0}, "`prox` must return sites u; got u, v"),
        (lambda z, s: z["u"], "`prox` must return sites u; got"),
        (lambda z, s: {"u": z["u"][:1]}, r"`prox` turns shape \(8,\) of z\['u'\] into \(1,\)"),
        (lambda z, s: {"u": "a"}, r"`prox of z\['u'\]` must be real numbers"),
    ],
)
def test_what_a_prox_returns(prox, message):
    kernel = MoreauYosidaULA(model, prox=prox, smoothing=1.0, step_size=0.1)
    with pytest.raises((ValueError, TypeError), match=f"MoreauYosidaULA: {message}"):
        kernel.init(jax.random.key(0), 0, None, (jnp.zeros(8),), {})


def test_sites_that_change_between_calls():
    calls = []

    def restless():
        calls.append(None)
        numpyro.sample(f"u{len(calls)}", dist.Normal())

    with pytest.raises(ValueError, match="MALA: the model's latent sites change from call to call: 'u"):
        MALA(restless).init(jax.random.key(0), 0, None, (), {})


@pytest.mark.parametrize("value", [*COUNTS])
@pytest.mark.parametrize("argument", ["num_points", "num_warmup", "num_iterations"])
def test_step_sizes(argument, value):
    with pytest.raises((ValueError, TypeError), match=f"lipschitz_constant: `{argument}` must be a positive integer"):
        lipschitz_constant(model, jax.random.key(0), model_args=(jnp.zeros(8),), **{argument: value})


@pytest.mark.parametrize("value", NO_FRACTION)
def test_safety(value):
    with pytest.raises((ValueError, TypeError), match="suggest_step_size: `safety` must be"):
        suggest_step_size(model, jax.random.key(0), model_args=(jnp.zeros(8),), safety=value)


@pytest.mark.parametrize("value", ["a", None, 1j, True, {}, *NOT_POSITIVE])  # arrays are for single coordinates
def test_blackjax(value):
    with pytest.raises((ValueError, TypeError), match="BlackJAX: `step_size` must be"):
        BlackJAX(model, algorithm=blackjax.mala, step_size=value)


@pytest.mark.parametrize("value", [*FUNCTIONS, None])
def test_algorithms(value):
    with pytest.raises((ValueError, TypeError), match="BlackJAX: `algorithm` must be"):
        BlackJAX(model, algorithm=value)


@pytest.mark.parametrize("value", [3, None, "a", {}])
def test_reports(value):
    with pytest.raises(TypeError, match="report_failures: `mcmc` must be an MCMC object"):
        report_failures(value)
