"""Values of a gridded field at given cells."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from numpyro_inverse.operators._inputs import grid_shape, is_traced
from numpyro_inverse.operators._linear_operator import LinearOperator


class PointObservation(LinearOperator):
    """The values ``x[index[0]], x[index[1]], ...`` of an array, in that order; a cell may be observed repeatedly.

    For points that are not cell centres use ``Grid.interpolation``.

    Args:
        index: integers of shape ``(m, ndim)``, or ``(m,)`` for one axis; row ``k`` is a cell's index along each axis.
        shape: the shape of the array acted on.

    Raises:
        ValueError: ``index`` is empty, not of integers, of another shape, traced, or outside ``shape`` (negative
            indices do not count from the end).
    """

    index: Int[Array, " m"]
    in_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, index: Int[Array, "m ndim"], shape: int | Sequence[int]):
        self.in_shape = grid_shape("PointObservation", shape, any_ndim=True)
        ndim = len(self.in_shape)
        if is_traced(index):
            raise ValueError(
                "PointObservation: `index` must be known outside `jit`, so that its bounds can be checked."
            )
        index = np.asarray(index)
        if index.ndim == 1 and ndim == 1:
            index = index[:, None]
        if index.dtype.kind not in "iu" or index.ndim != 2 or index.shape[1] != ndim or len(index) == 0:
            raise ValueError(
                f"PointObservation: `index` must be integers of shape (m, {ndim}), m >= 1; got dtype {index.dtype} and "
                f"shape {index.shape}."
            )
        outside = np.any((index < 0) | (index >= self.in_shape), axis=1)
        if outside.any():
            first = int(np.argmax(outside))
            raise ValueError(
                f"PointObservation: {int(outside.sum())} of {len(index)} rows of `index` lie outside the shape "
                f"{self.in_shape}; the first is index[{first}] = {index[first].tolist()}."
            )
        self.index = jnp.asarray(np.ravel_multi_index(tuple(index.T), self.in_shape))

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.index.shape

    def mv(self, x):
        return x.ravel().at[self.index].get(mode="promise_in_bounds")

    def norm_bound(self):
        """The norm itself: the square root of how often the most observed cell is observed."""
        counts = jnp.zeros(np.prod(self.in_shape), jnp.result_type(float)).at[self.index].add(1)
        return jnp.sqrt(jnp.max(counts))
