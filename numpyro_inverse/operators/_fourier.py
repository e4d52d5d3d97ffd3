"""Masked Cartesian k-space of a real image."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from numpyro_inverse.operators._inputs import acts_on_real, boolean_mask
from numpyro_inverse.operators._linear_operator import LinearOperator


class Fourier(LinearOperator):
    r"""Chosen coefficients of the orthonormal discrete Fourier transform of a real array, as real numbers:

    .. math:: (A x)_{0,l} = \mathrm{Re}\,\hat x_{k_l}, \quad (A x)_{1,l} = \mathrm{Im}\,\hat x_{k_l}, \qquad
        \hat x_k = N^{-1/2} \sum_n x_n e^{-2 \pi i \, k \cdot n / \mathrm{shape}}.

    The result has shape ``(2, m)``, ``m`` the number of sampled frequencies in row-major order of ``mask``, so that
    complex Gaussian noise is ``Normal(A(x), sigma)`` with ``sigma`` the standard deviation of each part, and the
    operator is linear over the reals with an exact transpose. The norm is at most 1.

    Args:
        mask: boolean, of the image's shape, true at sampled frequencies in the order of :func:`numpy.fft.fftn`
            (frequency zero at index 0: apply :func:`numpy.fft.ifftshift` to a centered mask).

    Raises:
        ValueError: ``mask`` is not boolean, has more than three axes, keeps no entry, or is traced.
    """

    index: Int[Array, " m"]
    sign: Float[Array, " m"]
    in_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, mask: Bool[Array, "*shape"]):
        mask = boolean_mask("Fourier", mask)
        if mask.ndim > 3:
            raise ValueError(f"Fourier: `mask` must have one to three axes; got shape {mask.shape}.")
        n = mask.shape
        k = np.stack(np.nonzero(mask))
        mirrored = k[-1] > n[-1] // 2  # not in the half spectrum of a real transform: its conjugate at -k is
        k = np.where(mirrored, -k % np.array(n)[:, None], k)
        self.index = jnp.asarray(np.ravel_multi_index(tuple(k), (*n[:-1], n[-1] // 2 + 1)))
        self.sign = jnp.asarray(np.where(mirrored, -1.0, 1.0), jnp.result_type(float))
        self.in_shape = n

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (2, *self.index.shape)

    @acts_on_real
    def mv(self, x):
        sampled = jnp.fft.rfftn(x, norm="ortho").ravel().at[self.index].get(mode="promise_in_bounds")
        return jnp.stack([sampled.real, self.sign.astype(x.dtype) * sampled.imag])

    def norm_bound(self):
        """1, as part of an orthonormal transform; reached if a frequency and its negative are both sampled."""
        return 1.0
