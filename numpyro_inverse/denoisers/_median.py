"""The median of a window."""

from __future__ import annotations

from itertools import product
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count
from numpyro_inverse.denoisers._denoiser import Denoiser, check_array, check_noise_level

HERE = "Median"


class Median(Denoiser):
    r"""The median of the values within a window around each place, of an array with any number of axes.

    It takes no notice of the noise level, and has no potential: x - D is no gradient. Outside the array are its edge
    values.

    Args:
        window: side, odd.

    Raises:
        TypeError: ``window`` no integer; ``x`` no real numbers.
        ValueError: an even or negative ``window``; ``sigma`` not positive; ``x`` empty.

    References:
        J. W. Tukey, *Exploratory Data Analysis*, chapter 7: running medians.
    """

    window: int = eqx.field(static=True)

    def __init__(self, window: int = 3):
        self.window = check_count(HERE, "window", window)
        if self.window % 2 == 0:
            raise ValueError(f"{HERE}: `window` must be odd; got {window}.")

    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        check_noise_level(HERE, sigma)
        x = check_array(HERE, x)
        around = jnp.pad(x, self.window // 2, mode="edge")
        places = product(range(self.window), repeat=x.ndim)
        shifted = [around[tuple(slice(i, i + n) for i, n in zip(place, x.shape, strict=True))] for place in places]
        return jnp.median(jnp.stack(shifted), axis=0)
