"""Every linear operator, one line each: a name and how to make a small one. The contract suite runs over them all."""

import numpy as np

from numpyro_inverse import operators as op
from numpyro_inverse.domains import Grid


def _random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def _complex(*shape):
    return _random(*shape) + 1j * _random(*shape[::-1]).T


def _cells(*shape, boundary="neumann"):
    """Cells with sides of 1."""
    return Grid(shape, extent=shape, boundary=boundary)


def _grid(boundary):
    return Grid((6, 4), extent=(1.5, 1.0), boundary=boundary)


def _points(m):
    return np.random.default_rng(m).uniform(size=(m, 2)) * [1.5, 1.0]


MIXED = ("dirichlet", "periodic")
KEPT = np.random.default_rng(0).uniform(size=(5, 6)) < 0.5

OPERATORS = {
    "convolution, 1-D, periodic, even kernel": lambda: op.Convolution(_random(4), 9),
    "convolution, 2-D, periodic, kernel larger than the array": lambda: op.Convolution(_random(9, 2), (4, 5)),
    "convolution, 2-D, neumann, even kernel": lambda: op.Convolution(_random(4, 3), (5, 6), "neumann"),
    "convolution, 1-D, neumann, kernel larger than the array": lambda: op.Convolution(_random(17), 5, "neumann"),
    "convolution, 2-D, zero, even kernel": lambda: op.Convolution(_random(4, 5), (6, 5), "zero"),
    "convolution, 2-D, dirichlet x periodic": lambda: op.Convolution(_random(5, 3), (6, 5), ("dirichlet", "periodic")),
    "convolution, 1-D, dirichlet, kernel larger than the array": lambda: op.Convolution(_random(17), 5, "dirichlet"),
    "convolution, 3-D, zero": lambda: op.Convolution(_random(3, 2, 3), (4, 3, 2), "zero"),
    "separable convolution, periodic": lambda: op.SeparableConvolution([_random(3), _random(4)], (5, 6)),
    "separable convolution, zero": lambda: op.SeparableConvolution([_random(9), _random(4)], (5, 6), "zero"),
    "separable convolution, dirichlet x neumann": lambda: op.SeparableConvolution(
        [_random(11), _random(26)], (5, 6), ("dirichlet", "neumann")
    ),
    "gaussian, 3-D, neumann": lambda: op.Convolution.gaussian(_cells(4, 3, 2), (1.0, 0.0, 2.0)),
    "kronecker": lambda: op.Kronecker([_random(3, 4), _random(5, 2), _random(3, 3)]),
    "kronecker, complex": lambda: op.Kronecker([_complex(3, 4), _random(5, 2)]),
    "mask": lambda: op.Mask(KEPT),
    "point observation": lambda: op.PointObservation(_grid("neumann"), _points(5)),
    "block average": lambda: op.BlockAverage(_cells(6, 4), (3.0, 2.0)),
    "fourier": lambda: op.Fourier(KEPT),
    "fourier, odd length": lambda: op.Fourier(KEPT.T),
    "radon": lambda: op.Radon(_cells(5, 4), [0.0, 0.3, np.pi / 4, np.pi / 2, 4.0]),
    "radon, short detector, long pixels": lambda: op.Radon(
        Grid((4, 6), (4.0, 3.0)), [-0.7, 1.1], num_bins=5, bin_width=0.4
    ),
    "matrix": lambda: op.Matrix(_random(6, 8), in_shape=(2, 4), out_shape=(3, 2)),
    "matrix, complex": lambda: op.Matrix(_complex(5, 6), in_shape=(3, 2)),
    "multilinear interpolation, neumann": lambda: _grid("neumann").multilinear_interpolation(_points(7)),
    "multilinear interpolation, mixed": lambda: _grid(MIXED).multilinear_interpolation(_points(7)),
    "interpolation": lambda: _grid(("neumann", "periodic")).interpolation(_points(7)),
    "prolongation": lambda: _grid(("dirichlet", "periodic")).prolongation(2),
    "restriction": lambda: _grid("neumann").restriction(2),
    "composition": lambda: op.Mask(KEPT) @ op.Convolution(_random(2, 3), (5, 6), "neumann"),
    "composition, complex": lambda: op.Matrix(_complex(4, 30), (5, 6)) @ op.Convolution(_random(3, 3), (5, 6)),
    "sum": lambda: op.Matrix(_random(6, 6)) + op.Convolution(_random(3), 6),
    "difference": lambda: op.Matrix(_random(6, 6)) - op.Convolution(_random(3), 6, "zero"),
    "scaled": lambda: 2 * op.BlockAverage(_cells(6, 4), 2.0),
    "scaled by a complex number": lambda: (0.5 - 2j) * op.Mask(KEPT),
    "negated": lambda: -op.Matrix(_random(3, 5)),
    "stack": lambda: op.Stack(op.Mask(KEPT), op.Fourier(KEPT), op.BlockAverage(_cells(5, 6), (1, 3))),
    "transpose": lambda: op.Radon(_cells(5, 4), [0.4, 2.0]).T,
    "adjoint, complex": lambda: op.Matrix(_complex(5, 6), in_shape=(3, 2)).H,
    "transpose of adjoint, complex": lambda: op.Matrix(_complex(5, 6)).H.T,
    "transpose of composition": lambda: (op.Mask(KEPT) @ op.Convolution(_random(2, 3), (5, 6), "zero")).T,
    "normal operator": lambda: op.Matrix(_complex(5, 6)).H @ op.Matrix(_complex(5, 6)),
}
