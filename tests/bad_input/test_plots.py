"""Bad input to ``plots`` and the predictions: every error is ours, names the argument and says what was found."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse import plots
from numpyro_inverse.distributions import SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import predict, predict_data, to_arviz

GRID = Grid((3, 2), extent=(3.0, 2.0))
NOT_STRINGS = (None, 3, ["u"], b"u")
NOT_COUNTS = ("a", None, 2.5, -1, 0, np.nan, True, 1j, [1])
NOT_MAPPINGS = ("x", 3, [("x", 0.5)])
NOT_FIELDS = ("a", {}, 1j * np.zeros((3, 2)), np.zeros((2, 3)), 0.0, np.full((3, 2), np.nan), [[1.0], [1.0, 2.0]])
NOT_POINTS = ("a", {}, 0.5, [], [0.5, 0.5], np.zeros((2, 3)), [[0.5, np.nan]], [[0.5, np.inf]], 1j * np.zeros((1, 2)))
NOT_PROBABILITIES = ("a", None, 0.0, 1.0, -0.5, 90, np.nan, True, 1j)
NOT_FLAGS = ("yes", None, 1, 0.0)


def model(y=None, n=3):
    u = numpyro.sample("u", SpectralField(GRID, jnp.ones(GRID.shape)))
    numpyro.sample("y", dist.Normal(u[0, 0] * jnp.ones(n), 1.0).to_event(1), obs=y)


DRAWS = {"u": np.random.default_rng(0).normal(size=(2, 5, 3, 2)).astype(np.float32)}
HELD_OUT = np.zeros(3)


@pytest.fixture(scope="module")
def tree():
    return to_arviz(DRAWS | {"line": DRAWS["u"][..., 0]}, domain={"u": GRID, "line": Grid(3, extent=3.0)})


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def field(sampled, **options):
    return plots.field(**({"tree": sampled, "name": "u"} | options))


def draws(sampled, **options):
    return plots.draws(**({"tree": sampled, "name": "u"} | options))


def foretell(sampled, **options):
    return predict(**({"posterior": DRAWS, "site": "u", "points": [[0.5, 0.5]], "model": model} | options))


def foretell_data(sampled, **options):
    return predict_data(**({"posterior": DRAWS, "held_out": {"y": HELD_OUT}, "model": model} | options))


BOTH = {
    "tree": (None, "tree", 3, {"u": DRAWS["u"]}, DRAWS["u"]),
    "name": NOT_STRINGS,
    "group": (*NOT_STRINGS, "prior"),
    "truth": NOT_FIELDS,
    "points": NOT_POINTS,
    "at": (*NOT_MAPPINGS, {"w": 0.5}, {"x": "left"}, {"x": [0.5, 1.0]}, {"x": np.nan}, {"x": None}, {"x": 1j}),
    "image": NOT_FLAGS,
    "label": (3, ["a"], b"a"),
}
DRAWN = {  # of `posterior`, for both predictions
    "posterior": (
        None, "mcmc", 3, DRAWS["u"], {}, {"u": DRAWS["u"][0, 0]}, {"u": "a"}, {"u": DRAWS["u"][:, :0]},
        {"u": DRAWS["u"] * np.nan}, {"v": DRAWS["u"]}, {"u": DRAWS["u"][..., :1]},
        DRAWS | {"v": DRAWS["u"][:, :3]},
    ),
    "model": (3, "model"),
    "model_args": (3, "ab", {"y": 0}),
    "model_kwargs": NOT_MAPPINGS,
    "probability": NOT_PROBABILITIES,
    "num_chains": ("a", 2.5, 0, -1, True, 3),
    "length_unit": NOT_STRINGS,
    "batch_size": NOT_COUNTS,
}  # fmt: skip
CALLS = {
    field: BOTH
    | {
        "data": NOT_FIELDS,
        "diagnostic": ("mcse", None, 3, ["ess"]),
    },
    draws: BOTH | {"num": (*NOT_COUNTS, 11)},
    foretell: DRAWN
    | {
        "site": (*NOT_STRINGS, "w", "y"),
        "points": (*NOT_POINTS, [[3.5, 0.5]], [[-0.1, 0.5]]),
    },
    foretell_data: DRAWN
    | {
        "held_out": (
            "y", 3, [0.0], {"w": HELD_OUT}, {"y": HELD_OUT[:2]}, {"y": "a"}, {"y": 1j * HELD_OUT}, {"y": None},
            {"y": np.full(3, np.nan)}, {"y": [[1.0], [1.0, 2.0]]},
        ),
        "sites": ("y", 3, ["w"], [3]),
        "fresh": ("u", 3, None, ["w"], [3]),
        "domain": (*NOT_MAPPINGS, {"u": GRID}, {"y": 3}, {"y": None}),
        "rng_key": (0, "a", jax.random.split(jax.random.key(0)), np.zeros(2)),
    },
}  # fmt: skip
WHERE = {field: "plots.field", draws: "plots.draws", foretell: "predict", foretell_data: "predict_data"}
ALSO = {  # what a message may name instead of the argument: a site, a domain's own check
    "posterior": ("site", "lacks"),
    "name": ("site",),
    "site": ("site",),
    "points": ("Grid: ",),
    "held_out": ("no data site",),
    "sites": ("no data site",),
}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: WHERE[call])
def test_what_is_bad_is_refused_by_name(call, tree):
    for argument, values in CALLS[call].items():
        for value in values:
            try:
                call(tree, **{argument: value})
            except (TypeError, ValueError) as error:
                message = str(error)
                assert f"`{argument}" in message or any(word in message for word in ALSO.get(argument, ())), (
                    f"{argument} = {value!r}: {message}"
                )
                assert message.startswith((f"{WHERE[call]}: ", "Grid: ")), message
            else:
                raise AssertionError(f"{WHERE[call]} took {argument} = {value!r}")


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (field, {"values": [1.0]}, "`values` are given without `points`"),
        (field, {"points": [[0.5, 0.5]], "values": [1.0, 2.0]}, r"`values` has shape \(2,\)"),
        (field, {"name": "line", "data": np.zeros(3)}, "`data` are drawn as a map, and site 'line' is a line"),
        (draws, {"name": "v"}, "site 'v' is not in 'posterior'; there are u, line"),
        (foretell, {"points": None}, "either `points` or `domain`"),
        (foretell, {"domain": GRID}, "either `points` or `domain`"),
        (foretell, {"points": None, "domain": 3}, "`domain` must be a domain"),
        (foretell, {"points": None, "domain": Grid(3)}, "`domain` is of dimension 1; the field's is of dimension 2"),
        (foretell, {"points": None, "domain": Grid((2, 2), extent=4.0)}, "`domain` has the extent .* beyond"),
        (foretell, {"model": None}, "`model` is missing"),
        (foretell, {"site": "y"}, "site 'y' is not a field with a domain.*`predict_data`"),
        (foretell_data, {"held_out": None}, r"nothing is observed.*`sites=\[\.\.\.\]`, of 'u', 'y'"),
        (foretell_data, {"model_kwargs": {"n": 5}}, r"`held_out\['y'\]` has shape \(3,\).* shape \(5,\)"),
    ],
)
def test_what_does_not_go_together(call, options, message, tree):
    with pytest.raises((TypeError, ValueError), match=message):
        call(tree, **options)
