r"""The elliptic coefficient problem of Aristoff and Bangerth: 64 log-coefficients from 169 values of the solution.

:What: :math:`-\nabla \cdot (\theta \nabla u) = 10` on the unit square, :math:`u = 0` on its boundary, :math:`\theta`
    constant on 8 x 8 blocks; bilinear finite elements on 32 x 32 cells.
:Dimension: 64 unknowns, :math:`x = \log \theta` of shape (8, 8), [block in y, block in x]; 169 data.
:Prior: :math:`x \sim N(4, 2^2)` independently. The source writes :math:`\exp(-|\log \theta|^2 / 8)` as a density with
    respect to :math:`d\theta`; with respect to :math:`dx` that is a normal of mean 4, not 0.
:Data: ``z_hat``: the solution at x = i/14, y = j/14, i, j = 1, ..., 13, j fastest, of ``theta_true`` on a much finer
    mesh, without noise.
:Likelihood: independent normal of standard deviation 0.05.
:Reference posterior: none in closed form. Truth, data and prior are unchanged by exchanging x and y, so the posterior
    is unchanged by transposing the grid; ten inputs and outputs of the source's forward map are in :func:`published`.
:Source: D. Aristoff and W. Bangerth, SIAM Review 65 (2023) 1074-1105; data from the deal.II code gallery, MCMC-Laplace
    (LGPL-2.1-or-later, ``models/data/README.md``).

The solution at the 16 mesh nodes around a block determines it at the 9 inside, by matrices that do not depend on
:math:`\theta`: what remains are the nodes on the lines between blocks, 8 layers of 52 with a block-tridiagonal matrix.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

BLOCKS, CELLS = 8, 4  # per axis; cells in a block
NODES = BLOCKS * CELLS - 1  # inside the square, per axis
LAYER = NODES + (BLOCKS - 1) * (CELLS - 1)  # nodes on the line below a row of blocks, then on the lines within it
SOURCE = 10.0
PRIOR_MEAN, PRIOR_SD = 4.0, 2.0
NOISE = 0.05


def model(data=None, *, noise=NOISE):
    """The NumPyro model: sites ``log_theta``, shape (8, 8), and ``data``, shape (169,)."""
    log_theta = numpyro.sample("log_theta", dist.Normal(PRIOR_MEAN, PRIOR_SD).expand((BLOCKS, BLOCKS)).to_event(2))
    numpyro.sample("data", dist.Normal(forward(jnp.exp(log_theta)), noise).to_event(1), obs=data)


def simulate(key, *, noise=NOISE):
    """Log-coefficients from the prior and their data."""
    key_truth, key_noise = jax.random.split(key)
    log_theta = PRIOR_MEAN + PRIOR_SD * jax.random.normal(key_truth, (BLOCKS, BLOCKS))
    clean = forward(jnp.exp(log_theta))
    return log_theta, clean + noise * jax.random.normal(key_noise, clean.shape)


@cache
def published():
    """The source's arrays by name: ``theta_true``, ``z_hat``, and ``test_*``, ten inputs and outputs of its code."""
    with np.load(Path(__file__).parent / "data" / "aristoff_bangerth.npz") as arrays:
        return dict(arrays)


def forward(theta):
    r"""The solution at the 169 points, (8, 8) -> (169,); derivatives in forward and reverse mode by the same solver."""
    s = _skeleton()
    theta = jnp.asarray(theta)
    diagonal, coupling = _matrix(theta)
    factor = jax.lax.stop_gradient(_factorise(diagonal, coupling))
    load = jnp.asarray(s.load, theta.dtype)
    u = jax.lax.custom_linear_solve(
        lambda u: _product(diagonal, coupling, u), load, lambda _, b: _solve(factor, coupling, b), symmetric=True
    )
    inside = jnp.asarray(s.observe_inside, theta.dtype) @ (1 / theta.ravel())
    return jnp.asarray(s.observe_lines, theta.dtype) @ u.ravel() + inside


def _matrix(theta):
    """Diagonal blocks (8, 52, 52), and blocks (8, 52, 31) between a layer and the line above it."""
    s = _skeleton()
    row = jnp.einsum("jb,bpq->jpq", theta, jnp.asarray(s.rows, theta.dtype), precision="highest")
    below = jnp.pad(row[:-1, LAYER:, LAYER:], ((1, 0), (0, LAYER - NODES), (0, LAYER - NODES)))
    # The first layer's line is the boundary, where u = 0.
    free = jnp.asarray(s.free, theta.dtype)[:, :, None]
    diagonal = free * (row[:, :LAYER, :LAYER] + below) * jnp.swapaxes(free, 1, 2) + (1 - free) * jnp.eye(LAYER)
    return diagonal.astype(theta.dtype), (free * row[:, :LAYER, LAYER:])[:-1]


def _product(diagonal, coupling, u):
    """The matrix times a vector of shape (8, 52)."""
    up = jnp.einsum("jpq,jq->jp", coupling, u[1:, :NODES], precision="highest")
    down = jnp.einsum("jpq,jp->jq", coupling, u[:-1], precision="highest")
    product = jnp.einsum("jpq,jq->jp", diagonal, u, precision="highest")
    return product.at[:-1].add(up).at[1:, :NODES].add(down)


def _factorise(diagonal, coupling):
    """Cholesky factors of the pivots, layer by layer upwards."""

    def step(update, layer):
        block, above = layer
        root = jnp.linalg.cholesky(block.at[:NODES, :NODES].add(-update))
        half = jax.lax.linalg.triangular_solve(root, above, left_side=True, lower=True)
        return jnp.matmul(half.T, half, precision="highest"), root

    above = jnp.concatenate([coupling, jnp.zeros_like(coupling[:1])])
    return jax.lax.scan(step, jnp.zeros((NODES, NODES), diagonal.dtype), (diagonal, above))[1]


def _solve(factor, coupling, b):
    """The solution by substitution, upwards and back."""
    above = jnp.concatenate([coupling, jnp.zeros_like(coupling[:1])])

    def divide(root, v):
        half = jax.lax.linalg.triangular_solve(root, v[:, None], left_side=True, lower=True)
        return jax.lax.linalg.triangular_solve(root, half, left_side=True, lower=True, transpose_a=True)[:, 0]

    def upwards(carried, layer):
        root, above, b = layer
        y = divide(root, b.at[:NODES].add(-carried))
        return jnp.matmul(above.T, y, precision="highest"), y

    def back(line, layer):
        root, above, y = layer
        u = y - divide(root, jnp.matmul(above, line, precision="highest"))
        return u[:NODES], u

    zero = jnp.zeros(NODES, b.dtype)
    _, y = jax.lax.scan(upwards, zero, (factor, above, b))
    return jax.lax.scan(back, zero, (factor, above, y), reverse=True)[1]


class _Skeleton(NamedTuple):
    """Constants of the condensed problem, float64; the nodes of a row of blocks are a layer's, then the line above."""

    rows: np.ndarray  # (8, 83, 83): stiffness of a row of blocks, by block
    free: np.ndarray  # (8, 52): 0 on the boundary
    load: np.ndarray  # (8, 52)
    observe_lines: np.ndarray  # (169, 416)
    observe_inside: np.ndarray  # (169, 64)


@cache
def _skeleton():
    stiffness, load = _block()
    index = np.arange((CELLS + 1) ** 2).reshape(CELLS + 1, CELLS + 1)  # [y, x]
    inside = index[1:-1, 1:-1].ravel()
    around = np.setdiff1d(index, inside)
    # u_inside = harmonic u_around + particular / theta, for the block's nodes.
    harmonic = -np.linalg.solve(stiffness[np.ix_(inside, inside)], stiffness[np.ix_(inside, around)])
    particular = np.linalg.solve(stiffness[np.ix_(inside, inside)], load[inside])
    condensed = stiffness[np.ix_(around, around)] + stiffness[np.ix_(around, inside)] @ harmonic
    condensed_load = load[around] + harmonic.T @ load[inside]

    rows = np.zeros((BLOCKS, LAYER + NODES, LAYER + NODES))
    loads = np.zeros((BLOCKS + 1, LAYER))
    for b in range(BLOCKS):
        pairs = [(_position(b, *divmod(k, CELLS + 1)), n) for n, k in enumerate(around)]
        to, of = np.array([(p, n) for p, n in pairs if p is not None]).T
        rows[b][np.ix_(to, to)] += condensed[np.ix_(of, of)]
        for j in range(BLOCKS):
            np.add.at(loads.ravel(), j * LAYER + to, condensed_load[of])
    free = np.ones((BLOCKS, LAYER))
    free[0, :NODES] = 0

    lines = np.zeros((13, 13, (BLOCKS + 1) * LAYER))
    insides = np.zeros((13, 13, BLOCKS**2))
    for i, j in np.ndindex(13, 13):  # in the source's order: x outside, y inside
        for y, x, weight in _interpolation((j + 1) / 14, (i + 1) / 14):
            block_y, block_x = min(y // CELLS, BLOCKS - 1), min(x // CELLS, BLOCKS - 1)
            k = (y - CELLS * block_y) * (CELLS + 1) + x - CELLS * block_x
            if k in inside:
                n = np.flatnonzero(inside == k)[0]
                insides[i, j, block_y * BLOCKS + block_x] += weight * particular[n]
                nodes, weights = around, weight * harmonic[n]
            else:
                nodes, weights = [k], [weight]
            for node, w in zip(nodes, weights, strict=True):
                p = _position(block_x, *divmod(node, CELLS + 1))
                if p is not None:
                    lines[i, j, block_y * LAYER + p] += w
    size = BLOCKS * LAYER
    lines = lines.reshape(169, -1)[:, :size] * free.ravel()
    return _Skeleton(rows, free, free * loads[:BLOCKS], lines, insides.reshape(169, -1))


def _position(block, y, x):
    """Where node (y, x) of a block is among its row's nodes; None on the boundary left and right.

    The line above a row starts at 52, where the next layer does.
    """
    column = block * CELLS + x - 1
    if not 0 <= column < NODES:
        return None
    if y in (0, CELLS):
        return column + (LAYER if y else 0)
    line = block if x else block - 1  # the vertical lines are numbered from 0
    return NODES + line * (CELLS - 1) + y - 1


def _block():
    """Stiffness and load of one block with coefficient 1, Dirichlet values not yet imposed."""
    cell = np.array([[4, -1, -1, -2], [-1, 4, -2, -1], [-1, -2, 4, -1], [-2, -1, -1, 4]]) / 6
    size = (CELLS + 1) ** 2
    stiffness, load = np.zeros((size, size)), np.zeros(size)
    for y, x in np.ndindex(CELLS, CELLS):
        corner = y * (CELLS + 1) + x
        nodes = corner + np.array([0, 1, CELLS + 1, CELLS + 2])
        stiffness[np.ix_(nodes, nodes)] += cell
        load[nodes] += SOURCE / 4 / (NODES + 1) ** 2
    return stiffness, load


def _interpolation(y, x):
    """Nodes (y, x) of the cell of a point, counted from the corner, and bilinear weights."""
    (cell_y, t), (cell_x, s) = (divmod(v * (NODES + 1), 1) for v in (y, x))
    for dy, weight_y in ((0, 1 - t), (1, t)):
        for dx, weight_x in ((0, 1 - s), (1, s)):
            yield int(cell_y) + dy, int(cell_x) + dx, weight_y * weight_x
