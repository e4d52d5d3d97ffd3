"""From a mesh to scattered points: the simplex of each point and piecewise linear interpolation."""

from __future__ import annotations

from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial import cKDTree

from numpyro_inverse._arrays import as_jax
from numpyro_inverse.operators._linear_operator import LinearOperator
from numpyro_inverse.sparse._row_sums import row_sums, runs

NEAREST = (8, 64, 512)  # how many simplices around a point are looked at, in turn
SLACK = 1e-6  # how far outside a point may lie, in barycentric coordinates, for coordinates in single precision


class BarycentricInterpolation(LinearOperator):
    r"""Values at points from the corners of the simplices that they lie in; made by ``Mesh.interpolation``.

    Row :math:`j` has the barycentric coordinates of point :math:`j`. The adjoint adds up what reaches a node in sums
    over short runs, which are read and never written to the same place: on a GPU, and inside ``jit``
    on a CPU, it costs what the operator itself costs, however many points share a node.
    """

    index: Int[Array, "m corners"]
    weight: Float[Array, "m corners"]
    sums: tuple[Int[Array, "parts width"], ...]
    in_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, index: np.ndarray, weight: np.ndarray, size: int):
        self.index = as_jax(index, np.int32)
        self.weight = as_jax(weight, jnp.result_type(float))
        self.sums = runs(index.ravel(), size)
        self.in_shape = (size,)

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.index.shape[:1]

    def mv(self, x):
        # y = A x is the lower half of the solution of [[I, 0], [-A, I]] (x, y) = (x, 0). So JAX is given A and its
        # transpose; there is no other way to tell it of a transpose that is also differentiable and batched.
        n, m = self.in_shape[0], self.out_shape[0]
        weight = self.weight.astype(jnp.finfo(x.dtype).dtype)

        def forward(x):
            return jnp.sum(weight * x[self.index], axis=1)

        def adjoint(y):
            return row_sums(self.sums, jnp.ravel(weight * y[:, None]))

        def solve(_, b):
            return jnp.concatenate([b[:n], b[n:] + forward(b[:n])])

        def transpose_solve(_, b):
            return jnp.concatenate([b[:n] + adjoint(b[n:]), b[n:]])

        both = jnp.concatenate([x, jnp.zeros(m, x.dtype)])
        return jax.lax.custom_linear_solve(
            lambda z: jnp.concatenate([z[:n], z[n:] - forward(z[:n])]), both, solve, transpose_solve
        )[n:]

    def norm_bound(self):
        """The bound sqrt(largest row sum x largest column sum), which holds for every matrix."""
        w = jnp.abs(self.weight)
        columns = jnp.zeros(prod(self.in_shape), w.dtype).at[self.index].add(w)
        return jnp.sqrt(jnp.max(jnp.sum(w, axis=1)) * jnp.max(columns))


def locate(
    points: Float[np.ndarray, "n d"], simplices: Int[np.ndarray, "e k"], places: Float[np.ndarray, "m d"]
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m k"], Float[np.ndarray, " m"]]:
    """The simplex of each place, its barycentric coordinates there and its distance from the plane of the simplex.

    The simplex whose smallest coordinate is largest is taken: of a place outside it is negative.
    """
    at = points[simplices]
    centers = at.mean(axis=1)
    edges = at[:, 1:] - at[:, :1]
    inverse = np.linalg.pinv(edges)  # (e, d, k - 1): orthogonal projection on a surface
    tree = cKDTree(centers)
    surface = simplices.shape[1] != points.shape[1] + 1
    reach = 1.5 * np.linalg.norm(at - centers[:, None], axis=-1).max(axis=1)
    chosen = np.zeros(len(places), int)
    best = np.full((len(places), simplices.shape[1]), -np.inf)
    gap = np.full(len(places), np.inf)
    left = np.arange(len(places))
    for count in (*NEAREST, len(simplices)):
        count = min(count, len(simplices))
        for part in np.array_split(left, max(1, len(left) * count // 2**20)):
            near = tree.query(places[part], k=count)[1].reshape(len(part), count)
            away = places[part][:, None] - at[near, 0]
            inner = np.einsum("mcd,mcdk->mck", away, inverse[near])
            coordinates = np.concatenate([1 - inner.sum(axis=-1, keepdims=True), inner], axis=-1)
            distance = np.linalg.norm(away - np.einsum("mck,mckd->mcd", inner, edges[near]), axis=-1)
            score = coordinates.min(axis=-1) - np.where(surface & (distance > reach[near]), 1e6, 0)
            pick = np.argmax(score, axis=1)
            rows = np.arange(len(part))
            chosen[part], best[part], gap[part] = near[rows, pick], coordinates[rows, pick], distance[rows, pick]
        left = left[best[left].min(axis=1) < -SLACK]
        if len(left) == 0 or count == len(simplices):
            break
    return chosen, best, gap
