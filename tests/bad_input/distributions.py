"""Bad input of learned priors, fields on meshes, factors and meshes: each is an error of ours that names it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from skfem import MeshTri

from numpyro_inverse import factors, nn
from numpyro_inverse.distributions import (
    AutoregressiveField,
    BarrierMatern,
    BijectionTransform,
    Coregionalized,
    Energy,
    Flow,
    FractionalMatern,
    FunctionSpaceGenerator,
    Matern,
    MaternKL,
    MaternMesh,
    NonstationaryMatern,
    PCRange,
    PCScale,
    Pushforward,
    Simulator,
    restrict_noise,
)
from numpyro_inverse.domains import (
    Barrier,
    Eigenbasis,
    ElementMatrices,
    Grid,
    Mesh,
    Stacked,
    l2_projection,
    point_values,
)
from tests.bad_input.corpus import (
    ARRAYS,
    COUNTS,
    FUNCTIONS,
    INF,
    NAMES,
    NAN,
    NO_NUMBERS,
    OBJECTS,
    PARAMETERS,
    POSITIVE_NUMBERS,
    REAL,
    SHAPES,
    STRANGE,
    Case,
    cases,
    given,
)

KEY = jax.random.key(0)
TRIANGLES = MeshTri().refined(2)
MESH = Mesh(TRIANGLES.p.T, TRIANGLES.t.T)
NODES, SIMPLICES = MESH.points, MESH.simplices
ELEMENTS, BASIS = ElementMatrices(MESH), Eigenbasis(MESH, 4)
INSIDE = np.arange(len(SIMPLICES)) < 4
BARRIER = Barrier(MESH, INSIDE)
GRID = Grid((4, 6), extent=(2.0, 3.0))
FIELD = Matern(GRID, range=1.0, scale=1.0, smoothness=1.0)
BASE = dist.Normal().expand([2]).to_event(1)
FLOW = nn.CouplingFlow(2, layers=1, width=4, bins=4, key=KEY)
CONDITIONAL = nn.CouplingFlow(2, layers=1, width=4, bins=4, context=3, key=KEY)

LAWS = (*OBJECTS, len, dist.Normal)
NOT_BIJECTIONS = (*OBJECTS, len)
MEANS = (*REAL, NAN, np.ones(3))
WHOLE = (*POSITIVE_NUMBERS, 0.7)  # smoothness with which alpha is an integer
FIELD_OF_MESH = {"range": 0.5, "scale": 1.0, "smoothness": 1.0}


def ones(z):
    return jnp.ones((4, 6))


def keep(x, sigma):
    return x


FIELDS: dict[str, Case] = {
    **cases(
        AutoregressiveField,
        {"field": FIELD, "correlation": 0.5, "num_steps": 3},
        field=LAWS,
        correlation=(*REAL, NAN, INF, 1.0, -1.0, 2.0, [0.5, NAN]),
        num_steps=COUNTS,
    ),
    **cases(
        BarrierMatern,
        {"barrier": BARRIER, "range": 0.5, "scale": 1.0},
        barrier=(*OBJECTS, MESH),
        range=PARAMETERS,
        scale=PARAMETERS,
        mean=MEANS,
    ),
    **cases(
        Coregionalized,
        {"fields": [FIELD, FIELD], "mixing": np.eye(2)},
        fields=(*STRANGE, None, 3, [], [FIELD, "a"], FIELD),
        mixing=(*REAL, np.eye(3), np.ones(2), [[1.0, NAN], [0, 1.0]], np.ones((2, 2))),
    ),
    **cases(
        FractionalMatern,
        {"domain": MESH, **FIELD_OF_MESH, "smoothness": 0.7},
        domain=(*OBJECTS, GRID),
        smoothness=POSITIVE_NUMBERS,
        tolerance=POSITIVE_NUMBERS,
        range=PARAMETERS,
        scale=PARAMETERS,
    ),
    **cases(
        MaternKL,
        {"basis": BASIS, **FIELD_OF_MESH},
        basis=(*OBJECTS, MESH),
        range=PARAMETERS,
        scale=PARAMETERS,
        smoothness=PARAMETERS,
        mean=MEANS,
    ),
    **cases(
        MaternMesh,
        {"domain": MESH, **FIELD_OF_MESH},
        domain=(*OBJECTS, GRID),
        range=PARAMETERS,
        scale=PARAMETERS,
        smoothness=WHOLE,
        mean=MEANS,
        boundary=("a", None, 3, {}, "Neumann", "periodic", ["neumann"]),
        log_determinant=given(OBJECTS),
    ),
    **cases(
        MaternMesh,
        {"domain": MESH, **FIELD_OF_MESH, "boundary": "robin"},
        robin_coefficient=(*NO_NUMBERS, NAN, INF, -1.0, np.ones(3)),
    ),
    **cases(
        NonstationaryMatern,
        {"elements": ELEMENTS, **FIELD_OF_MESH},
        elements=(*OBJECTS, MESH),
        range=(*PARAMETERS, np.ones(3)),
        scale=(*PARAMETERS, np.ones(3)),
        smoothness=WHOLE,
        anisotropy=given((*REAL, np.ones(2), np.eye(3), -np.eye(2), [[1, NAN], [0, 1.0]], [[1, 2.0], [0, 1]])),
        mean=MEANS,
    ),
    **cases(PCRange, {"lower": 1.0}, lower=PARAMETERS, probability=(*PARAMETERS, 1.0, 1.5), ndim=COUNTS),
    **cases(PCScale, {"upper": 1.0}, upper=PARAMETERS, probability=(*PARAMETERS, 1.0, 1.5)),
    **cases(
        restrict_noise,
        {"fine": FIELD, "coarse": FIELD, "z": np.ones((4, 6))},
        fine=LAWS,
        coarse=LAWS,
        z=(*REAL, np.ones(3)),
    ),
}
PRIORS: dict[str, Case] = {
    **cases(
        Energy,
        {"potential": jnp.sum, "event_shape": (2,)},
        potential=FUNCTIONS,
        event_shape=[shape for shape in SHAPES if shape != (0, 2)],
        support=given((*OBJECTS, len)),
    ),
    **cases(Flow, {"bijection": FLOW}, bijection=NOT_BIJECTIONS, base=given((*OBJECTS, len, dist.Normal))),
    **cases(Flow, {"bijection": CONDITIONAL}, context=(*ARRAYS, np.ones(2), np.ones((2, 2)))),
    **cases(BijectionTransform, {"bijection": FLOW, "event_shape": (2,)}, bijection=NOT_BIJECTIONS),
    **cases(
        FunctionSpaceGenerator,
        {"generator": ones, "latent": BASE, "inner": GRID, "domain": GRID},
        generator=(*FUNCTIONS, lambda z: jnp.ones(3), lambda z: "a", lambda z: ones(z) * 1j),
        latent=LAWS,
        inner=OBJECTS,
        domain=("a", None, 3, {}, object()),
        link=given(FUNCTIONS),
    ),
    "FunctionSpaceGenerator points": (
        "points",
        lambda v: FunctionSpaceGenerator(ones, BASE, GRID, v),
        (np.ones(3), np.ones((2, 3)), [[0.1, NAN]], [[0.1, 99.0]]),
    ),
    **cases(
        Pushforward,
        {"generator": jnp.tanh, "base": BASE},
        generator=(*FUNCTIONS, lambda z: "a", lambda z: None, lambda z: z * 1j),
        base=LAWS,
        residual=given(LAWS),
    ),
    "Simulator fn": ("fn", lambda v: Simulator(v, 1.0), FUNCTIONS),
    "Simulator args": ("args", lambda v: Simulator(lambda key, a: a, v), ARRAYS),
    "Simulator event_dims": (
        "event_dims",
        lambda v: Simulator(lambda key, a: a, 1.0, event_dims=v),
        ("a", None, -1, 2.5, True, {}, 1j),
    ),
    "Simulator support": ("support", lambda v: Simulator(lambda key, a: a, 1.0, support=v), (*OBJECTS, len)),
}
FACTORS: dict[str, Case] = {
    **cases(factors.RED, {"denoiser": keep, "sigma": 0.1}, denoiser=FUNCTIONS, sigma=PARAMETERS, strength=PARAMETERS),
    **cases(factors.GradientStep, {"denoiser": keep, "sigma": 0.1}, denoiser=(*FUNCTIONS, keep)),
    **cases(factors.Score, {"denoiser": keep, "sigma": 0.1}, denoiser=FUNCTIONS, sigma=PARAMETERS),
    **cases(
        factors.MoreauEnvelope,
        {"prox": keep, "smoothing": 1.0},
        prox=FUNCTIONS,
        function=given(FUNCTIONS),
        smoothing=PARAMETERS,
    ),
    **cases(
        factors.expected_patch_log_likelihood,
        {"log_prob": lambda rows: rows.sum(-1), "image": np.ones((10, 10))},
        log_prob=(*FUNCTIONS, jnp.sum, lambda rows: "a", lambda rows: rows),
        image=(*REAL, 1.0, np.ones(3), np.ones((4, 4))),
        side=COUNTS,
        stride=(*COUNTS, 3, 9),
        shift=("a", None, 3, {}, (1,), (1.5, 0), ("a", 0), (1, 2, 3), (True, 0)),
    ),
    "a factor's x": ("x", lambda v: factors.RED(keep, sigma=0.1)("prior", v), REAL),
    "a factor's name": ("name", lambda v: factors.RED(keep, sigma=0.1)(v, np.ones(3)), NAMES),
}
DOMAINS: dict[str, Case] = {
    **cases(
        Mesh,
        {"points": NODES, "simplices": SIMPLICES},
        points=(*REAL, np.ones(3), np.full(NODES.shape, NAN)),
        simplices=(*REAL, np.ones(3), 99 * np.ones((2, 3), int), -np.ones((2, 3), int), np.full((2, 3), NAN)),
    ),
    **cases(Eigenbasis, {"mesh": MESH, "num_modes": 3}, mesh=(*OBJECTS, GRID), num_modes=(*COUNTS, 1000)),
    **cases(ElementMatrices, {}, mesh=(*OBJECTS, GRID)),
    **cases(
        Barrier,
        {"mesh": MESH, "inside": INSIDE},
        mesh=(*OBJECTS, GRID),
        inside=(*OBJECTS, np.ones(3, bool), np.ones(len(INSIDE))),
        fraction=POSITIVE_NUMBERS,
    ),
    **cases(Stacked, {"space": GRID, "name": "time", "count": 3}, space=OBJECTS, name=NAMES, count=COUNTS),
    **cases(l2_projection, {"coarse": GRID, "fine": GRID}, coarse=OBJECTS, fine=OBJECTS),
    **cases(point_values, {"coarse": GRID, "fine": GRID}, coarse=OBJECTS, fine=OBJECTS),
}
CASES = FIELDS | PRIORS | FACTORS | DOMAINS
