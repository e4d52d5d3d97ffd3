"""Bad input of networks, flows and their training: each is an error of ours that names the argument."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from numpyro_inverse import nn
from numpyro_inverse.domains import Grid
from numpyro_inverse.symmetry import CyclicShift, GlobalPhase, Rotation90
from tests.bad_input.corpus import (
    ARRAYS,
    COUNTS,
    FLAGS,
    FUNCTIONS,
    INF,
    KEYS,
    NAN,
    NONNEGATIVE_NUMBERS,
    OBJECTS,
    POSITIVE_NUMBERS,
    REAL,
    SHAPES,
    cases,
    given,
)

KEY = jax.random.key(0)
X, C = np.random.default_rng(0).normal(size=(2, 30, 2))
SQUARE = np.ones((4, 4))

COUPLING = nn.CouplingFlow(2, layers=1, width=2, bins=2, key=KEY)
AUTOREGRESSIVE = nn.AutoregressiveFlow(2, layers=1, width=2, key=KEY)
CONDITIONAL = nn.CouplingFlow(2, layers=1, width=2, bins=2, context=2, key=KEY)
IMAGES = nn.MultiscaleFlow((4, 4), [0.0, 0.5, 1.0], width=2, key=KEY)
MATCHING = nn.FlowMatching(2, width=2, depth=1, context=2, key=KEY)
MIXTURE = nn.MixtureAutoregressive(2, width=2, depth=1, context=2, key=KEY)
RATIO = nn.RatioNetwork(2, 2, width=2, depth=1, key=KEY)
EMBEDDING = nn.ContextEmbedding((2,))
VAE = nn.VAE.for_images((4, 4), 2, width=2, key=KEY)
FUNCTION_VAE = nn.FunctionVAE(Grid(4), 2, width=2, key=KEY)
LATENT = dist.Normal().expand([2]).to_event(1)

COUNTS_FROM_ZERO = (*NONNEGATIVE_NUMBERS, 2.5)
EVENTS = (*REAL, 1.0, np.ones(3), np.ones((2, 2)))
CONTEXTS = [
    v for v in given(EVENTS) if not isinstance(v, np.ndarray) or v.dtype.kind != "b"
]  # booleans are seen as 0 and 1
PICTURES = (*REAL, 1.0, np.ones(4), np.ones((4, 5)), np.ones((2, 4, 4)))
ROWS = (*given(REAL), 1.0, np.ones(2), np.ones((5, 3)), np.full((5, 2), NAN), np.ones((0, 2)))
CONTEXT = ("a", {}, object(), b"4", 2.0, True, 0, -1, (2,), np.ones(3), 1j)
NETWORKS = ("a", 3, {}, np.ones(3))
DATA = ("a", None, 3, {}, [], object(), np.array(["a"] * 30), 1j * X, (X, X[:5]), [1.0, 2.0])
PATHS = (3, None, b"x", "", [], True, 1.5)
EVEN_SHAPES = (*SHAPES, 4, (4,), (4, 4, 4), (3, 4), (4, 2.0), ())
WEIGHTS = Path(nn.__file__).parent / "pretrained/patch_flow.safetensors"
FUNCTION_ROWS = (np.ones((5, 4)), np.full((5, 4, 1), 0.5), np.full((5, 4), 0.25))
SETTINGS = {
    "batch_size": (*given(COUNTS), 2.0, 1000),
    "max_epochs": (*COUNTS, 3.0),
    "learning_rate": POSITIVE_NUMBERS,
    "gradient_norm": [v for v in POSITIVE_NUMBERS if v is not INF],
    "patience": [v for v in POSITIVE_NUMBERS if v is not INF],
    "held_out": (*NONNEGATIVE_NUMBERS, 1.0, 1.5),
    "optimizer": ("a", 3, {}, len, "adam", object()),
    "checkpoint": (3, b"x", [], True, object()),
    "progress_bar": FLAGS,
    "max_epoch": (3,),
}


def loss(module, batch, key):
    return jnp.mean(jax.vmap(module)(batch) ** 2)


def step(state, batch, key):
    return state, jnp.zeros(())


def score(state, batch, key):
    return jnp.zeros(())


def network(size):
    return {"size": COUNTS, "out": COUNTS, "width": COUNTS, "key": KEYS} | size


SHORT = {"batch_size": 4, "max_epochs": 1, "progress_bar": False}
BRIEF = nn.TrainingSettings(**SHORT)
FITS = {
    "fit_flow": (partial(nn.fit_flow, COUPLING, **SHORT), X),
    "fit_density": (partial(nn.fit_density, COUPLING, **SHORT), X),
    "fit_vae": (partial(nn.fit_vae, VAE, **SHORT), np.zeros((30, 4, 4))),
    "fit_function_vae": (partial(nn.fit_function_vae, FUNCTION_VAE, **SHORT), FUNCTION_ROWS),
    "fit_gan": (partial(nn.fit_gan, jnp.tanh, jnp.sum, base=LATENT, **SHORT), X),
}

CASES = {
    # Constructors.
    **cases(
        nn.CouplingFlow,
        {"size": 2, "layers": 1, "width": 2, "bins": 2, "key": KEY},
        size=(*COUNTS, 1),
        layers=COUNTS,
        width=COUNTS,
        bins=COUNTS_FROM_ZERO,
        data=ROWS,
        context=CONTEXT,
        key=KEYS,
    ),
    **cases(
        nn.AutoregressiveFlow,
        {"size": 2, "layers": 1, "width": 2, "key": KEY},
        size=(*COUNTS, 1),
        layers=COUNTS,
        width=COUNTS,
        data=ROWS,
        context=CONTEXT,
        key=KEYS,
    ),
    **cases(
        nn.MultiscaleFlow,
        {"shape": (4, 4), "pixels": [0.0, 1.0], "width": 2, "key": KEY},
        shape=EVEN_SHAPES,
        pixels=(*ARRAYS, 1j, NAN, [0.0, NAN], [], 2.0, [-1.0]),
        width=COUNTS,
        depth=COUNTS_FROM_ZERO,
        steps=COUNTS_FROM_ZERO,
        key=KEYS,
    ),
    **cases(
        nn.FlowMatching,
        {"size": 2, "width": 2, "depth": 1, "key": KEY},
        size=COUNTS,
        width=COUNTS,
        depth=COUNTS,
        data=ROWS,
        context=CONTEXT,
        key=KEYS,
    ),
    **cases(
        nn.MixtureAutoregressive,
        {"size": 2, "width": 2, "depth": 1, "context": 2, "key": KEY},
        size=COUNTS,
        components=COUNTS,
        width=COUNTS,
        depth=COUNTS,
        kinds=("a", 3, {}, object(), ["real"], [constraints.real], [constraints.real, 3], constraints.positive, len),
        context=CONTEXT,
        data=(*ROWS, (), (X,), (X, C, C), *((rows, C) for rows in ROWS), *((X, rows) for rows in (*ROWS, C[:5]))),
        key=KEYS,
    ),
    **cases(
        nn.RatioNetwork,
        {"size": 2, "context": 2, "width": 2, "depth": 1, "key": KEY},
        size=COUNTS,
        context=(*CONTEXT, None),
        width=COUNTS,
        depth=COUNTS,
        data=(*ROWS, X, (), (X,), (X, C[:5]), *((rows, C) for rows in ROWS), *((X, rows) for rows in ROWS)),
        key=KEYS,
    ),
    **cases(
        nn.ContextEmbedding,
        {"shape": (2,)},
        shape=(*SHAPES, 2, [2], (2, 0)),
        network=(*NETWORKS, lambda x: "a", lambda x: x.sum(), lambda x: x[:, 0], lambda x, y: x),
        data=ROWS,
        shared_axes=("a", None, 3, (1,), (-1,), ("a",), (0.5,), (True,), (NAN,), {}),
    ),
    **cases(nn.DeepSet, {"size": 2, "out": 2, "key": KEY}, **network({})),
    **cases(nn.RecurrentNetwork, {"size": 2, "out": 2, "key": KEY}, **network({})),
    **cases(
        nn.TransformerNetwork,
        {"size": 2, "out": 2, "key": KEY},
        **network({"width": (*COUNTS, 3, 6), "depth": COUNTS, "heads": COUNTS}),
    ),
    **cases(
        nn.ConvolutionalNetwork,
        {"shape": (4, 4), "out": 2, "key": KEY},
        shape=(*SHAPES, 4, (), (4, 4, 4), (0,)),
        out=COUNTS,
        width=COUNTS,
        depth=COUNTS,
        grid_axes=(*given(COUNTS), 3),
        key=KEYS,
    ),
    "Ensemble members": (
        "members",
        nn.Ensemble,
        ("a", None, 3, {}, [], object(), COUPLING, [3], [COUPLING, "a"], [COUPLING, AUTOREGRESSIVE], [nn.CouplingFlow]),
    ),
    **cases(
        nn.ReynoldsAverage,
        {"network": jnp.tanh, "group_in": Rotation90(), "group_out": None},
        network=FUNCTIONS,
        group_in=(*OBJECTS, Rotation90, GlobalPhase()),
        group_out=given(OBJECTS),
    ),
    **cases(
        nn.Canonicalized,
        {"network": jnp.tanh, "group_in": CyclicShift((4,)), "group_out": None},
        network=FUNCTIONS,
        group_in=(*OBJECTS, CyclicShift),
        group_out=given(OBJECTS),
        reference=("a", {}, object(), [None], np.array(["a"]), True),
    ),
    **cases(
        nn.circular_convolution,
        {"num_spatial_dims": 1, "in_channels": 1, "out_channels": 1, "key": KEY},
        num_spatial_dims=COUNTS,
        in_channels=COUNTS,
        out_channels=COUNTS,
        kernel_size=(*COUNTS, 2),
        key=KEYS,
    ),
    **{
        name: case
        for layer in (nn.P4MLifting, nn.P4MConvolution)
        for name, case in cases(
            layer,
            {"in_channels": 1, "out_channels": 1, "key": KEY},
            in_channels=COUNTS,
            out_channels=COUNTS,
            kernel_size=(*COUNTS, 2),
            key=KEYS,
        ).items()
    },
    **cases(
        nn.VAE,
        {"encoder": lambda x: jnp.ones(4), "decoder": lambda z: jnp.ones(3), "event_shape": (3,), "latent_size": 2},
        encoder=(*FUNCTIONS, lambda x: x, lambda x: "a", lambda: 3),
        decoder=(*FUNCTIONS, lambda z: z, lambda z: 1, lambda: 3),
        event_shape=("a", None, 3, object(), ("a",), (2.5,), (-1,), {"a": 1}),
        latent_size=COUNTS,
        scale=(*REAL, NAN, INF, 0.0, -1.0, [1.0, 2.0], 1e-60),
    ),
    **cases(
        nn.VAE.for_images,
        {"shape": (4, 4), "latent_size": 2, "width": 2, "key": KEY},
        shape=(*EVEN_SHAPES, (6, 4), (0, 4)),
        latent_size=COUNTS,
        width=COUNTS,
        sigmoid=FLAGS,
        key=KEYS,
    ),
    **cases(
        nn.FunctionVAE,
        {"inner": Grid(4), "latent_size": 2, "width": 2, "key": KEY},
        inner=(*OBJECTS, Grid, Grid(4, boundary="periodic")),
        latent_size=COUNTS,
        width=COUNTS,
        scale=(*POSITIVE_NUMBERS, 1e-60),
        link=NETWORKS,
        key=KEYS,
    ),
    # What is called.
    "log_prob x": ("x", COUPLING.log_prob, EVENTS),
    "sample key": ("key", COUPLING.sample, KEYS),
    "forward_and_log_det z": ("z", COUPLING.forward_and_log_det, EVENTS),
    "inverse_and_log_det x": ("x", COUPLING.inverse_and_log_det, EVENTS),
    "AutoregressiveFlow forward z": ("z", AUTOREGRESSIVE.forward_and_log_det, EVENTS),
    "AutoregressiveFlow inverse x": ("x", AUTOREGRESSIVE.inverse_and_log_det, EVENTS),
    "MultiscaleFlow forward z": ("z", IMAGES.forward_and_log_det, PICTURES),
    "MultiscaleFlow inverse x": ("x", IMAGES.inverse_and_log_det, PICTURES),
    "unwanted context": ("context", partial(COUPLING.log_prob, X[0]), (X[0], "a", 3)),
    "context": ("context", partial(CONDITIONAL.log_prob, X[0]), (*CONTEXTS, None)),
    "sample context": ("context", partial(CONDITIONAL.sample, KEY), (*CONTEXTS, None)),
    "FlowMatching.log_prob x": ("x", lambda v: MATCHING.log_prob(v, C[0]), EVENTS),
    "FlowMatching.log_prob context": ("context", partial(MATCHING.log_prob, X[0]), (*CONTEXTS, None)),
    "FlowMatching.sample key": ("key", lambda v: MATCHING.sample(v, C[0]), KEYS),
    "FlowMatching.sample context": ("context", partial(MATCHING.sample, KEY), (*CONTEXTS, None)),
    "FlowMatching.loss x": ("x", lambda v: MATCHING.loss(v, C[0], KEY), EVENTS),
    "FlowMatching.loss context": ("context", lambda v: MATCHING.loss(X[0], v, KEY), (*CONTEXTS, None)),
    "FlowMatching.loss key": ("key", lambda v: MATCHING.loss(X[0], C[0], v), KEYS),
    "MixtureAutoregressive.log_prob x": ("x", lambda v: MIXTURE.log_prob(v, C[0]), (*CONTEXTS, None)),
    "MixtureAutoregressive.log_prob context": ("context", partial(MIXTURE.log_prob, X[0]), (*CONTEXTS, None)),
    "MixtureAutoregressive.sample key": ("key", lambda v: MIXTURE.sample(v, C[0]), KEYS),
    "MixtureAutoregressive.sample context": ("context", partial(MIXTURE.sample, KEY), (*CONTEXTS, None)),
    "Ensemble.log_prob x": ("x", nn.Ensemble([COUPLING]).log_prob, EVENTS),
    "Ensemble.sample key": ("key", nn.Ensemble([COUPLING]).sample, KEYS),
    "RatioNetwork x": ("x", lambda v: RATIO(v, C[0]), EVENTS),
    "RatioNetwork context": ("context", partial(RATIO, X[0]), (*CONTEXTS, None)),
    "ContextEmbedding context": ("context", EMBEDDING, (*CONTEXTS, None)),
    **{
        f"{type(module).__name__} x": ("x", module, values)
        for module, values in [
            (nn.DeepSet(2, 2, key=KEY), (*REAL, 1.0, np.ones((5, 3)), np.ones((0, 2)))),
            (nn.RecurrentNetwork(2, 2, key=KEY), (*REAL, 1.0, np.ones((5, 3)), np.ones((0, 2)))),
            (nn.TransformerNetwork(2, 2, key=KEY), (*REAL, 1.0, np.ones((5, 3)), np.ones((0, 2)))),
            (nn.ConvolutionalNetwork((4, 4), 2, key=KEY), (*REAL, 1.0, np.ones(4), np.ones((4, 4, 1)))),
            (nn.P4MLifting(1, 1, key=KEY), (*REAL, 1.0, np.ones((4, 4)), np.ones((2, 4, 4)))),
            (nn.P4MConvolution(1, 1, key=KEY), (*REAL, 1.0, np.ones((1, 4, 4)), np.ones((1, 7, 4, 4)))),
            (nn.ReynoldsAverage(jnp.tanh, Rotation90(), None), ("a", {}, object(), None, np.array(["a"]))),
            (nn.Canonicalized(jnp.tanh, CyclicShift((4,)), None), ("a", {}, object(), None, np.array(["a"]))),
        ]
    },
    "p4m_pool": ("x", nn.p4m_pool, (*REAL, 1.0, np.ones((8, 4)), np.ones((1, 7, 4, 4)))),
    "flow_log_prob flow": ("flow", lambda v: nn.flow_log_prob(v, X[0]), OBJECTS),
    "flow_log_prob x": ("x", partial(nn.flow_log_prob, COUPLING), EVENTS),
    "VAE.encode": ("x", VAE.encode, PICTURES),
    "VAE.decode": ("z", VAE.decode, EVENTS),
    **cases(VAE.elbo, {"x": SQUARE, "key": KEY}, x=PICTURES, key=KEYS),
    "FunctionVAE.decode": ("z", FUNCTION_VAE.decode, EVENTS),
    "FunctionVAE.coefficients": ("z", FUNCTION_VAE.coefficients, EVENTS),
    **cases(
        FUNCTION_VAE.evaluate,
        {"z": np.ones(2), "points": np.ones((3, 1))},
        z=EVENTS,
        points=(*REAL, 1.0, np.ones(3), np.ones((3, 2))),
    ),
    **cases(
        FUNCTION_VAE.encode,
        {"values": np.ones(3), "points": np.ones((3, 1)), "weights": np.ones(3) / 3},
        values=(*REAL, 1.0, np.ones(2), np.ones((3, 1))),
        points=(*REAL, 1.0, np.ones(3), np.ones((3, 2))),
        weights=(*REAL, 1.0, np.ones(2), np.ones((3, 1))),
    ),
    **cases(
        FUNCTION_VAE.elbo,
        {"values": np.ones(3), "points": np.ones((3, 1)), "weights": np.ones(3) / 3, "key": KEY},
        values=(*REAL, 1.0, np.ones(2)),
        points=(*REAL, 1.0, np.ones(3), np.ones((3, 2))),
        weights=(*REAL, 1.0, np.ones(2)),
        key=KEYS,
    ),
    # Functions.
    **cases(
        nn.dequantize,
        {"images": [0, 3], "key": KEY},
        images=(*REAL, 1.5, [0, 256], -1, 2**32, np.array([-1])),
        key=KEYS,
    ),
    **cases(nn.energy_score, {"x": X, "y": X}, x=(*REAL, 1.0, X[:1], C[:, :1]), y=(*REAL, 1.0, X[:0], C[:, :1])),
    **cases(
        nn.pad_fields,
        {"fields": [(Grid(4), np.ones((5, 4)))], "key": KEY},
        fields=(
            *("a", None, 3, {}, [], object(), np.ones(3), [3], ["ab"], [(Grid(4),)], Grid(4), [Grid(4)]),
            [("a", np.ones((5, 4)))],
            *([(Grid(4), values)] for values in (*REAL, 1.0, np.ones(4), np.ones((5, 3)), np.full((5, 4), NAN))),
            [(Grid(4), np.ones((5, 4))), (Grid((2, 2)), np.ones((5, 2, 2)))],
        ),
        key=KEYS,
    ),
    **cases(
        nn.contrastive_ratio_loss,
        {"network": RATIO, "x": X, "contexts": C, "key": KEY, "contrasts": 2},
        network=FUNCTIONS,
        x=(*REAL, 1.0, np.ones((5, 2))),
        contexts=(*REAL, 1.0, C[:5]),
        key=KEYS,
        contrasts=(*COUNTS, 30),
        gamma=POSITIVE_NUMBERS,
        balance=NONNEGATIVE_NUMBERS,
    ),
    # Training.
    **{
        f"{name} {argument}": (argument, lambda v, call=call, data=data, a=argument: call(data, key=KEY, **{a: v}), bad)
        for name, (call, data) in FITS.items()
        for argument, bad in SETTINGS.items()
    },
    **{f"{name} data": ("data", partial(call, key=KEY), DATA) for name, (call, _) in FITS.items()},
    **{
        f"{name} key": ("key", lambda v, call=call, data=data: call(data, key=v), KEYS)
        for name, (call, data) in FITS.items()
    },
    **{
        f"{name} prepare": (
            "prepare",
            lambda v, call=FITS[name][0], data=FITS[name][1]: call(data, key=KEY, prepare=v),
            NETWORKS,
        )
        for name in ("fit_flow", "fit_vae", "fit_gan")
    },
    "fit_flow flow": ("flow", lambda v: nn.fit_flow(v, X, key=KEY), (*OBJECTS, nn.CouplingFlow)),
    "fit_density density": ("density", lambda v: nn.fit_density(v, X, key=KEY), (*OBJECTS, nn.CouplingFlow)),
    "fit_vae vae": ("vae", lambda v: nn.fit_vae(v, X, key=KEY), (*OBJECTS, COUPLING, nn.VAE)),
    "fit_function_vae vae": ("vae", lambda v: nn.fit_function_vae(v, FUNCTION_ROWS, key=KEY), (*OBJECTS, VAE)),
    "fit_function_vae rows": (
        "data",
        lambda v: nn.fit_function_vae(FUNCTION_VAE, v, key=KEY),
        (
            *(X, (X,), (X, X), FUNCTION_ROWS[:2]),
            *((*FUNCTION_ROWS[:2], weights) for weights in (np.ones((5, 4)), np.full((5, 4), -0.25), np.ones((5, 3)))),
            *((FUNCTION_ROWS[0], points, FUNCTION_ROWS[2]) for points in (np.ones((5, 4)), np.full((5, 4, 1), 1.5))),
            (np.full((5, 4), NAN), *FUNCTION_ROWS[1:]),
        ),
    ),
    **cases(
        nn.fit_gan,
        {"generator": jnp.tanh, "critic": jnp.sum, "data": X, "base": LATENT, "key": KEY},
        generator=(*FUNCTIONS, lambda z: "a", lambda: 3),
        critic=(*FUNCTIONS, lambda x: "a", lambda x: x, lambda: 3),
        base=(*OBJECTS, dist.Normal, dist.Normal(np.zeros(2))),
        critic_steps=COUNTS,
        penalty=NONNEGATIVE_NUMBERS,
    ),
    **cases(
        nn.fit_module,
        {"module": COUPLING, "loss": loss, "data": X, "key": KEY, "settings": BRIEF},
        module=("a", None, 3, {}, object(), np.ones(3, int)),
        loss=(*FUNCTIONS, lambda *_: "a", lambda *_: None, lambda *_: jnp.ones(2), lambda *_: True, lambda *_: 1j),
        data=DATA,
        key=KEYS,
        settings=("a", 3, {}, {"max_epochs": 3}, nn.TrainingSettings),
        name=(3, None, b"a"),
        fault=NETWORKS,
    ),
    **cases(
        nn.train,
        {"step": step, "score": score, "state": (COUPLING, None), "data": X, "key": KEY, "settings": BRIEF},
        step=(*FUNCTIONS, lambda *_: 3, lambda *_: None, lambda state, *_: (state, "a"), lambda *_: (3, 0.0)),
        score=(*FUNCTIONS, lambda *_: "a", lambda *_: None, lambda *_: jnp.ones(2)),
        state=("a", None, 3, {}, (), COUPLING, object(), ("a", 3)),
        data=DATA,
        key=KEYS,
        settings=("a", 3, {}, nn.TrainingSettings),
        name=(3, None, b"a"),
        fault=NETWORKS,
    ),
    # Files.
    "save path": ("path", lambda v: nn.save(v, COUPLING), PATHS),
    "save module": ("module", partial(nn.save, "x.safetensors"), ("a", None, 3, {}, object(), np.array(["a"]), KEY)),
    "save about": (
        "about",
        lambda v: nn.save("x.safetensors", COUPLING, note=v),
        (object(), len, b"a", 1j, {1, 2}, np.ones(3), {(1, 2): 3}),
    ),
    "load path": ("path", lambda v: nn.load(v, COUPLING), PATHS),
    "load like": ("like", partial(nn.load, WEIGHTS), ("a", None, 3, {}, object(), COUPLING, np.ones(3))),
    "load_metadata path": ("path", nn.load_metadata, PATHS),
    "load_pretrained name": ("name", nn.load_pretrained, ("a", None, 3, b"patch_flow", [], ["patch_flow"], object())),
}
