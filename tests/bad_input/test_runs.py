"""Bad input to runs on disk: every error is ours, names the argument and says what was found."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import AIES, MCMC

from numpyro_inverse.infer import MALA, read_run, run_to_disk

KEY, Y = jax.random.key(0), np.float32(1.0)


def model(y=None):
    x = numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
    numpyro.deterministic("wave", jnp.exp(1j * x))
    numpyro.deterministic("nothing", x[:0])
    numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)


def an_mcmc(kernel=None, **options):
    options = {"num_warmup": 2, "num_samples": 4, "progress_bar": False, "chain_method": "sequential"} | options
    return MCMC(MALA(model) if kernel is None else kernel, **options)


def warm():
    mcmc = an_mcmc()
    mcmc.post_warmup_state = 0
    return mcmc


NAMES = ("x", 5, None, [5], [None], 1.5, b"x")
CALLS = {  # argument -> the values that are refused, before anything is compiled
    "mcmc": (None, 5, "mcmc", MALA(model), model),
    "store": (None, 5, 1.5, True, [], ["run"], b"run", ""),
    "rng_key": (None, 0, "a", jax.random.split(KEY, 2), np.zeros(2)),
    "model_args": (None, 5, "a", Y, {"y": Y}),
    "model_kwargs": (5, "a", Y, [Y], (Y,)),
    "block_size": (None, "a", 0, -1, 1.5, np.nan, np.inf, True, 1j, [1]),
    "sites": tuple(v for v in NAMES if v is not None),
    "extra_fields": NAMES,
    "quantities": (5, "x", ["x"], {"x": 1}),
    "progress_bar": (0, 1, "yes", []),
}


def call(tmp_path, **options):
    options = {"mcmc": an_mcmc(), "store": tmp_path / "run", "rng_key": KEY, "block_size": 2} | options
    run_to_disk(options.pop("mcmc"), options.pop("store"), options.pop("rng_key"), **options)


@pytest.mark.parametrize(
    ("argument", "value"),
    [(name, v) for name, values in CALLS.items() for v in values],
    ids=lambda v: str(v)[:30].partition(" at 0x")[0],
)
def test_wrong_kinds(tmp_path, argument, value):
    with pytest.raises((TypeError, ValueError), match=rf"^run_to_disk: .*`{argument}`"):
        call(tmp_path, **{argument: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mcmc": an_mcmc(thinning=3), "block_size": 4}, "`block_size` must be a multiple of thinning=3"),
        ({"mcmc": warm()}, "`mcmc` has a `post_warmup_state`"),
        ({"mcmc": an_mcmc(AIES(model))}, "AIES moves an ensemble of chains"),
        ({"mcmc": an_mcmc(AIES(model), num_chains=3, chain_method="vectorized")}, "even number of chains"),
        ({"sites": ["z"]}, "`sites` has 'z'; the model has 'nothing', 'wave', 'x'"),
        ({"sites": ["wave"]}, "'wave' is of type complex64.*keep real numbers"),
        ({"sites": ["nothing"]}, r"'nothing' has shape \(0,\)"),
        ({"sites": []}, "nothing to keep"),
        ({"sites": ["x"], "quantities": lambda draw: {"chain": draw["x"]}}, "'chain' has the name of an axis"),
        ({"sites": ["x"], "quantities": lambda draw: draw["x"]}, "`quantities` must return a dict"),
        ({"sites": ["x"], "quantities": lambda draw: {"x": draw["x"]}}, "under other names"),
        ({"sites": ["x"], "extra_fields": ["nothing"]}, "`extra_fields` has 'nothing', which the state of MALA lacks"),
        ({"sites": ["x"], "extra_fields": ["adapt_state"]}, "`extra_fields` has 'adapt_state', which is no array"),
        ({"sites": ["x"], "extra_fields": ["rng_key"]}, "field 'rng_key' is of type key"),
        ({"mcmc": an_mcmc(num_chains=2), "init_params": {"x": jnp.zeros((3, 2))}}, "leading axis of 2 chains"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_run(tmp_path, options, message):
    options = {"model_kwargs": {"y": Y}} | options
    with pytest.raises(ValueError, match=f"^run_to_disk: .*{message}"):
        call(tmp_path, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("store", CALLS["store"][:-1], ids=str)
def test_reader_of_no_store(store):
    with pytest.raises((TypeError, ValueError), match=r"^read_run: .*`store`"):
        read_run(store)


@pytest.mark.parametrize("sites", CALLS["sites"], ids=str)
def test_reader_of_no_sites(tmp_path, sites):
    with pytest.raises(TypeError, match=r"^read_run: .*`sites`"):
        read_run(tmp_path, sites=sites)


def test_the_models_arguments_have_a_place_of_their_own(tmp_path):
    """A model's argument may be called as one of ours; none is taken for the other."""

    def sized(block_size, sites, y=None):
        x = numpyro.sample("x", dist.Normal().expand([block_size]).to_event(1))
        numpyro.sample("y", dist.Normal(x.sum() + sites, 1.0), obs=y)

    arguments = {"block_size": 3, "sites": 1.0, "y": Y}
    call(tmp_path, mcmc=an_mcmc(MALA(sized)), model_kwargs=arguments)
    assert read_run(tmp_path / "run").posterior["x"].shape == (1, 4, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
        call(tmp_path, y=Y)
