"""Bad input of domains, operators and fields: each is an error of ours that says where and which argument."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse import operators as op
from numpyro_inverse.distributions import Matern, NormalSequence, SobolevSequence, SpectralField
from numpyro_inverse.domains import Grid
from tests.bad_input import corpus
from tests.bad_input.corpus import ARRAYS, COUNTS, INF, NAN, NO_NUMBERS, RAGGED, REAL, STRANGE

GRID = Grid((4, 6), extent=(2.0, 3.0))
CELLS = np.ones((4, 6))
A = op.Mask(CELLS > 0)
BLUR = op.Convolution.gaussian(GRID, 0.5)
FIELD = Matern(GRID, range=1.0, scale=1.0, smoothness=1.0)
SEQUENCE = SobolevSequence(4, smoothness=1.0)
MASK = {"axes": np.ones((2, 2, 2, 2), bool)}

LENGTHS = [*NO_NUMBERS, NAN, INF, -1.0, [1.0, NAN], (1.0, 1.0, 1.0)]
POSITIVE = [*LENGTHS, 0.0]
PARAMETERS = [*corpus.PARAMETERS, [], jnp.array([]), np.ones((2, 0))]
SHAPES = [*corpus.SHAPES, 0, ()]
POINTS = [*REAL, [0.1], [[0.1]], np.ones((0, 2)), np.ones((2, 3)), [[0.1, NAN]], [[0.1, 9.0]], [[-0.1, 0.1]], 0.5]
VALUES = [*ARRAYS, 1.0, np.ones((6, 4)), np.ones(6), np.ones((4, 6, 1))]
FACTORS = [*COUNTS, 5]
GRIDS = [*STRANGE, None, 3, (4, 6), CELLS, Grid]
BOUNDARIES = [*STRANGE, None, 1, "reflect", "Neumann", ("neumann",), ("neumann", 1)]
OPERATORS = [*STRANGE, None, 3.0, np.ones((2, 2)), op.Mask]
KERNELS = [*REAL, NAN, [[1.0, NAN]], np.ones((0, 3)), np.ones(3), 1.0]

CASES = {
    "Grid shape": ("shape", Grid, [*SHAPES, (2, 2, 2, 2)]),
    "Grid extent": ("extent", partial(Grid, (4, 6)), POSITIVE),
    "Grid boundary": ("boundary", lambda v: Grid((4, 6), boundary=v), [*BOUNDARIES, "zero", "circular"]),
    "Grid.transform": ("x", GRID.transform, VALUES),
    "Grid.inverse_transform": ("x", GRID.inverse_transform, VALUES),
    "Grid.interpolation": ("points", GRID.interpolation, POINTS),
    "Grid.multilinear_interpolation": ("points", GRID.multilinear_interpolation, POINTS),
    "Grid.refined": ("factor", GRID.refined, COUNTS),
    "Grid.coarsened": ("factor", GRID.coarsened, FACTORS),
    "Grid.prolongation": ("factor", GRID.prolongation, COUNTS),
    "Grid.restriction": ("factor", GRID.restriction, FACTORS),
    "Grid.extended": ("padding", GRID.extended, [*LENGTHS, None, 1e6]),
    "Convolution kernel": ("kernel", lambda v: op.Convolution(v, (4, 6)), KERNELS),
    "Convolution shape": ("shape", lambda v: op.Convolution(np.ones((3, 3)), v), [*SHAPES, (2, 2, 2, 2)]),
    "Convolution boundary": ("boundary", lambda v: op.Convolution(np.ones((3, 3)), (4, 6), v), BOUNDARIES),
    "Convolution.gaussian grid": ("grid", lambda v: op.Convolution.gaussian(v, 1.0), GRIDS),
    "Convolution.gaussian width": ("width", lambda v: op.Convolution.gaussian(GRID, v), [*LENGTHS, None, 1e9]),
    "Convolution.gaussian radius": ("radius", lambda v: op.Convolution.gaussian(GRID, 1.0, radius=v), [*LENGTHS, 1e9]),
    "Convolution.gaussian boundary": (
        "boundary",
        lambda v: op.Convolution.gaussian(GRID, 1.0, boundary=v),
        [v for v in BOUNDARIES if v is not None],
    ),
    "SeparableConvolution kernels": (
        "kernels",
        lambda v: op.SeparableConvolution(v, (4, 6)),
        [
            *STRANGE,
            None,
            3,
            1j,
            [np.ones(3)],
            [np.ones(3), "a"],
            [np.ones(3), [NAN]],
            [np.ones(3), []],
            np.ones((2, 2, 2)),
        ],
    ),
    "SeparableConvolution shape": ("shape", lambda v: op.SeparableConvolution([np.ones(3)] * 2, v), SHAPES),
    "SeparableConvolution boundary": (
        "boundary",
        lambda v: op.SeparableConvolution([np.ones(3)] * 2, (4, 6), v),
        BOUNDARIES,
    ),
    "Radon grid": ("grid", lambda v: op.Radon(v, [0.0]), [*GRIDS, Grid(4), Grid((2, 2, 2))]),
    "Radon angles": ("angles", lambda v: op.Radon(GRID, v), [*REAL, NAN, [0.0, INF], [], 0.0, np.ones((2, 2))]),
    "Radon num_bins": ("num_bins", lambda v: op.Radon(GRID, [0.0], num_bins=v), [v for v in COUNTS if v is not None]),
    "Radon bin_width": (
        "bin_width",
        lambda v: op.Radon(GRID, [0.0], bin_width=v),
        [*NO_NUMBERS, NAN, INF, 0.0, -1.0, [1.0], 1e-12],
    ),
    "BlockAverage grid": ("grid", lambda v: op.BlockAverage(v, 1.0), GRIDS),
    "BlockAverage width": ("width", lambda v: op.BlockAverage(GRID, v), [*POSITIVE, None, 0.7, 0.1, 1.5, 99.0]),
    "PointObservation domain": ("domain", lambda v: op.PointObservation(v, [[0.1, 0.1]]), GRIDS),
    "PointObservation points": ("points", partial(op.PointObservation, GRID), POINTS),
    "Mask": ("mask", op.Mask, [*STRANGE, None, True, 1.0, [0, 1], CELLS, CELLS > 2, [[True], [True, False]]]),
    "Fourier": ("mask", op.Fourier, [*STRANGE, None, True, 1.0, [0, 1], CELLS, CELLS > 2, np.ones((1,) * 4, bool)]),
    "Matrix": ("matrix", op.Matrix, [*ARRAYS, True, np.ones((2, 2), bool), 1.0, np.ones(3), [[NAN]], np.ones((0, 2))]),
    "Matrix in_shape": (
        "in_shape",
        lambda v: op.Matrix(np.ones((2, 4)), in_shape=v),
        [*[v for v in SHAPES if v is not None], 3, (2, 3)],
    ),
    "Matrix out_shape": (
        "out_shape",
        lambda v: op.Matrix(np.ones((2, 4)), out_shape=v),
        [*[v for v in SHAPES if v is not None], 3, (2, 3)],
    ),
    "Kronecker": (
        "factors",
        op.Kronecker,
        [*STRANGE, None, 3, 1j, [], [np.ones(3)], ["a"], [np.ones((2, 2)), [[NAN]]], [RAGGED], [np.ones((2, 0))]],
    ),
    "operator @ x": ("x", lambda v: BLUR @ v, VALUES),
    "operator.T @ x": ("x", lambda v: BLUR.T @ v, VALUES),
    "operator * factor": ("factor", lambda v: BLUR * v, [*ARRAYS, True, np.ones(2)]),
    "Composition": ("inner", lambda v: op.Composition(A, v), [*OPERATORS, A]),
    "Sum": ("right", lambda v: op.Sum(A, v), [*OPERATORS, A.T]),
    "Stack": ("operators", lambda v: op.Stack(A, v), [*OPERATORS, A.T]),
    "Stack.split": ("y", op.Stack(A, A).split, [*ARRAYS, 1.0, np.ones(5)]),
    "operator_norm operator": ("operator", lambda v: op.operator_norm(v, jax.random.key(0)), OPERATORS),
    "operator_norm rng_key": ("rng_key", lambda v: op.operator_norm(A, v), [*STRANGE, None, 0, 1.0, CELLS]),
    "operator_norm tolerance": (
        "tolerance",
        lambda v: op.operator_norm(A, jax.random.key(0), tolerance=v),
        [*NO_NUMBERS, None, NAN, INF, 0.0, -1.0, [1.0]],
    ),
    "operator_norm max_iterations": (
        "max_iterations",
        lambda v: op.operator_norm(A, jax.random.key(0), max_iterations=v),
        COUNTS,
    ),
    "SpectralField domain": ("domain", lambda v: SpectralField(v, 1.0), GRIDS),
    "SpectralField spectrum": ("spectrum", partial(SpectralField, GRID), [*PARAMETERS, np.ones((6, 4)), -CELLS]),
    "SpectralField mean": (
        "mean",
        lambda v: SpectralField(GRID, CELLS, mean=v),
        [*REAL, NAN, np.ones((6, 4)), np.full((4, 6), INF)],
    ),
    "SpectralField window": (
        "window",
        lambda v: SpectralField(GRID, CELLS, window=v),
        [
            *[v for v in GRIDS if v is not None],
            Grid(4),
            Grid((5, 6), extent=(2.5, 3.0)),
            Grid((4, 6), extent=(1.0, 1.5)),
        ],
    ),
    "SpectralField.log_prob": ("value", FIELD.log_prob, [*REAL, 1.0, np.ones((6, 4)), np.ones(6)]),
    "Matern domain": ("domain", lambda v: Matern(v, range=1.0, scale=1.0, smoothness=1.0), GRIDS),
    "Matern range": (
        "range",
        lambda v: Matern(GRID, range=v, scale=1.0, smoothness=1.0),
        [*[v for v in PARAMETERS if not (isinstance(v, list) and len(v) == 2)], (1.0, NAN), (1.0, "a"), (1.0,), 1e30],
    ),
    "Matern scale": ("scale", lambda v: Matern(GRID, range=1.0, scale=v, smoothness=1.0), PARAMETERS),
    "Matern smoothness": ("smoothness", lambda v: Matern(GRID, range=1.0, scale=1.0, smoothness=v), PARAMETERS),
    "Matern mean": (
        "mean",
        lambda v: Matern(GRID, range=1.0, scale=1.0, smoothness=1.0, mean=v),
        [*REAL, NAN, np.ones((6, 4))],
    ),
    "Matern padding": (
        "padding",
        lambda v: Matern(GRID, range=0.1, scale=1.0, smoothness=1.0, padding=v),
        [*LENGTHS, None, 1e6],
    ),
    "Matern shapes": (
        "range",
        lambda v: Matern(GRID, range=v, scale=np.ones(3), smoothness=1.0),
        [np.ones(2), np.ones((2, 2))],
    ),
    "NormalSequence amplitudes": (
        "amplitudes",
        NormalSequence,
        [*STRANGE, None, 1.0, np.ones(0), np.ones((2, 0)), np.array([1.0, -1.0]), np.array([np.inf]), np.zeros(2)],
    ),
    "SobolevSequence num_modes": ("num_modes", lambda v: SobolevSequence(v, smoothness=1.0), COUNTS),
    "SobolevSequence smoothness": ("smoothness", lambda v: SobolevSequence(3, smoothness=v), PARAMETERS),
    "SobolevSequence scale": ("scale", lambda v: SobolevSequence(3, smoothness=1.0, scale=v), PARAMETERS),
    "SobolevSequence.log_prob": ("value", SEQUENCE.log_prob, [*REAL, 1.0, np.ones(3)]),
    "field.sample key": ("key", FIELD.sample, [*STRANGE, None, 0, 1.0, CELLS, jax.random.split(jax.random.key(0), 2)]),
    "field.sample sample_shape": (
        "sample_shape",
        lambda v: SEQUENCE.sample(jax.random.key(0), v),
        [*STRANGE, None, -1, 2.5, (2, -1), ("a",), (2.5,), (True,)],
    ),
}


STATIC = {
    "Grid shape": ("shape", Grid),
    "Grid extent": ("extent", lambda v: Grid(4, extent=v)),
    "Grid.interpolation": ("points", lambda v: GRID.interpolation(v * jnp.ones((1, 2)))),
    "Grid.refined": ("factor", GRID.refined),
    "Grid.restriction": ("factor", GRID.restriction),
    "Grid.extended": ("padding", GRID.extended),
    "Convolution": ("shape", lambda v: op.Convolution(np.ones(3), v)),
    "Convolution.gaussian": ("width", lambda v: op.Convolution.gaussian(GRID, v)),
    "Radon": ("num_bins", lambda v: op.Radon(GRID, [0.0], num_bins=v)),
    "BlockAverage": ("width", lambda v: op.BlockAverage(GRID, v)),
    "Mask": ("mask", lambda v: op.Mask(v * jnp.ones(3) > 0)),
    "SobolevSequence": ("num_modes", lambda v: SobolevSequence(v, smoothness=1.0)),
    "Matern": ("padding", lambda v: Matern(GRID, range=1.0, scale=1.0, smoothness=1.0, padding=v)),
    "operator_norm": ("tolerance", lambda v: op.operator_norm(A, jax.random.key(0), tolerance=v)),
}
