"""Keeping some entries of an array."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Int

from numpyro_inverse._arrays import as_jax
from numpyro_inverse.operators._inputs import boolean_mask
from numpyro_inverse.operators._linear_operator import LinearOperator


class Mask(LinearOperator):
    r"""The entries of an array where ``mask`` is true, as a vector in row-major order: ``x[mask]``.

    Its transpose writes a vector back into an array of zeros. Norm 1.

    Args:
        mask: boolean array; in inpainting, the pixels that were seen.

    Raises:
        ValueError: ``mask`` is not boolean, keeps no entry, or is traced.
    """

    index: Int[Array, " kept"]
    in_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, mask: Bool[Array, "*shape"]):
        mask = boolean_mask("Mask", mask)
        self.index = as_jax(np.flatnonzero(mask))
        self.in_shape = mask.shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.index.shape

    def mv(self, x):
        return x.ravel().at[self.index].get(unique_indices=True, indices_are_sorted=True, mode="promise_in_bounds")

    def norm_bound(self):
        """Exactly 1: the rows are distinct unit vectors."""
        return 1.0
